"""A store and a released model that version 0.1.0 wrote: commands print the same numbers as they did then.

The files are in v0_1_0, and what that version printed in v0_1_0/expected; the README there says how they were
made. They are never made anew. A key or a word that is called otherwise now is entered in `RENAMED`; numbers,
names of runs and hashes stay as they were.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hanse.cli import app
from hanse.store import Runs

HERE = Path(__file__).parent / "v0_1_0"
RUNS: dict[str, str] = json.loads((HERE / "expected" / "names.json").read_text(encoding="utf-8"))
"""Ids of runs, by what they are called here."""

RENAMED: dict[str, tuple[str, ...]] = {
    "way": ("execution", "direction"),
    "ways": ("executions",),
    "plain": ("sequential",),
    "cohort": ("batched",),
    "remember": ("error_feedback",),
    "forget": ("none",),
}
"""Keys and words of version 0.1.0, with what they may be called now."""

SENTENCES = ("reason", "ways", "on", "notes")
"""Keys of sentences for people, whose wording may change."""

ENGINES = {"jax": "jax", "torch": "torch"}
"""Runs that can be read without their engine, but not used."""

Cli = Callable[..., Any]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call a command in a copy of the folder."""
    shutil.copytree(HERE, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    monkeypatch.setenv("HANSE_STORE", "store.db")
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: str, exit_code: int = 0) -> Any:
        done = CliRunner().invoke(app, arguments, prog_name="hanse")
        assert done.exit_code == exit_code, (done.stdout, done.stderr, done.exception)
        return done

    return call


def read_expected(name: str) -> Any:
    return json.loads((HERE / "expected" / name).read_text(encoding="utf-8"))


def skip_without_engine(name: str) -> None:
    """Skip the test if a run's engine is not installed."""
    if name in ENGINES:
        pytest.importorskip(ENGINES[name])


def check(old: Any, new: Any, at: str = "") -> None:
    """Assert that numbers, names and hashes are the same. New keys are welcome."""
    if isinstance(old, dict):
        assert isinstance(new, dict), at
        for key, value in old.items():
            name = next((name for name in (key, *RENAMED.get(key, ())) if name in new), None)
            assert name is not None, f"{at}.{key} is gone; there are {sorted(new)}"
            if key == "status":
                assert new[name] in list_statuses(old), f"{at}.{key}"
            elif key in SENTENCES:
                assert type(new[name]) is type(value), f"{at}.{key}"
            else:
                check(value, new[name], f"{at}.{key}")
    elif isinstance(old, list):
        assert isinstance(new, list), at
        assert len(new) == len(old), at
        for i, item in enumerate(old):
            check(item, new[i], f"{at}[{i}]")
    elif isinstance(old, str):
        assert new in (old, *RENAMED.get(old, ())), at
    else:
        assert new == old, at


def list_statuses(run: dict[str, Any]) -> set[str]:
    """Return what a run's status may be called now."""
    result = run.get("result") or run
    if run["status"] != "completed":
        return {run["status"]}
    stopped, incomplete = result.get("reason"), result.get("rounds_abandoned")
    return {"completed"} | ({"stopped"} if stopped else set()) | ({"incomplete"} if incomplete else set())


# -- pages -------------------------------------------------------------------------------------


class _Cells(HTMLParser):
    """Cells of a page's tables, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def read_numbers(page: str) -> dict[str, Any]:
    """Read the numbers of a page: cells of tables, hashes, and points of charts."""
    text, script = page.partition("<script>")[0], page.rpartition("<script>")[2]
    cells = _Cells()
    cells.feed(text)
    rows = [[cell for cell in row if re.match(r"[\d–-]", cell)] for row in cells.rows]
    points = re.findall(r'"x": ([^,{}"]+), "y": ([^,{}"]+), "who"', script)
    return {
        "rows": [row for row in rows if row],
        "hashes": sorted(re.findall(r"\b[0-9a-f]{64}\b", text)),
        "points": sorted({(float(x), float(y)) for x, y in points}),
    }


LEAST_BYTES = 200
"""More than any round or epoch of the old runs: points beyond it are those of bytes."""


def read_share(cell: str) -> str | float:
    """Read "736.7 %" and "7.4 times" as a number, and leave what is something else."""
    number, _, unit = cell.partition(" ")
    return float(number) / {"%": 100, "times": 1}[unit] if unit in ("%", "times") else cell


def approximate(cell: str | float) -> Any:
    return pytest.approx(cell, rel=0.03) if isinstance(cell, float) else cell


def check_page(name: str, path: str) -> None:
    old, new = read_expected(name), read_numbers(Path(path.strip()).read_text(encoding="utf-8"))
    rows, due = ([[read_share(cell) for cell in row] for row in page["rows"]] for page in (new, old))
    assert rows == [[approximate(cell) for cell in row] for row in due]
    assert new["hashes"] == old["hashes"]
    found = [pytest.approx(point) for point in new["points"]]
    left = [point for point in old["points"] if point not in found]
    assert all(x > LEAST_BYTES for x, _ in left), "only curves against all bytes together are drawn no more"
    known = [pytest.approx(point) for point in old["points"]]
    assert all(point in known for point in new["points"])


# -- the store ---------------------------------------------------------------------------------


def test_ls_lists_the_runs(cli: Cli) -> None:
    check(read_expected("ls.json"), json.loads(cli("ls", "--json").stdout))
    assert all(run in cli("ls").stdout for run in RUNS.values())


@pytest.mark.parametrize("name", RUNS)
def test_show_shows_a_run(cli: Cli, name: str) -> None:
    check(read_expected(f"show/{name}.json"), json.loads(cli("show", RUNS[name], "--json").stdout))


def test_python_reads_the_store(cli: Cli) -> None:
    old = read_expected("ls.json")["runs"]
    infos = Runs("store.db").infos()
    assert [info.run for info in infos] == [run["run"] for run in old]
    check([run["result"] for run in old], [info.result for info in infos])


@pytest.mark.parametrize("name", ["fed_avg", "diverged", "served"])
def test_report_tells_the_same(cli: Cli, name: str) -> None:
    pytest.importorskip("vl_convert")
    done = cli("report", RUNS[name], "--no-images", "--to", "page")
    check_page(f"report/{name}.json", done.stdout)


def test_compare_tells_the_same(cli: Cli) -> None:
    pytest.importorskip("vl_convert")
    runs = [RUNS[name] for name in ("fed_avg", "scaffold", "interrupted", "torch")]
    check_page("compare.json", cli("compare", *runs, "--no-images", "--to", "page").stdout)


def test_a_sweep_finds_its_runs(cli: Cli) -> None:
    """No run is performed again, and the table is the same."""
    check(read_expected("sweep.json"), json.loads(cli("sweep", "sweep.toml", "--json").stdout))
    assert len(json.loads(cli("ls", "--json").stdout)["runs"]) == len(read_expected("ls.json")["runs"])
    text = (HERE / "expected" / "sweep.txt").read_text(encoding="utf-8")
    old, new = (list(read_rows(page)) for page in (text, cli("sweep", "sweep.toml").stdout))
    assert new == old


def read_rows(page: str) -> Iterator[list[str]]:
    """Yield the numbers of a printed table, row by row."""
    for line in page.splitlines():
        if line[:1].isdigit():
            yield re.findall(r"\d+(?:\.\d+)?", line)


# -- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_release_writes_the_same_model(cli: Cli, name: str) -> None:
    skip_without_engine(name)
    if name == "diverged":
        refused = CliRunner().invoke(app, ["release", RUNS[name], "--to", "out"], prog_name="hanse")
        if refused.exit_code == 2:  # it may be, for no round of it was closed
            assert RUNS[name] in refused.stderr
            return
    cli("release", RUNS[name], "--to", "out")
    old, new = read_expected(f"release/{name}.json"), json.loads(Path("out/model.json").read_text("utf-8"))
    del old["hanse"]
    check(old, new)
    assert old["params_sha256"] in Path("out/README.md").read_text(encoding="utf-8")


PREDICTIONS = {
    "fed_avg": ["new.csv", "stays.csv"],
    "scaffold": ["new.csv"],
    "interrupted": ["new.csv"],
    "jax": ["new_points.npz"],
    "torch": ["new_points.npz"],
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predict_says_the_same(cli: Cli, name: str) -> None:
    skip_without_engine(name)
    cli("release", RUNS[name], "--to", "out")
    for data in PREDICTIONS[name]:
        check_predictions(name, data, cli("predict", "out", data))


@pytest.mark.parametrize("data", ["new.csv", "stays.csv"])
def test_an_old_release_is_used(cli: Cli, data: str) -> None:
    """The files are those that version 0.1.0 wrote."""
    check_predictions("fed_avg", data, cli("predict", "released", data))


def check_predictions(name: str, data: str, done: Any) -> None:
    """Assert that predictions agree, to within the last of the four digits that are printed."""
    said = read_expected(f"predict/{name}.json")[data]
    old, new = ([line.split(",") for line in page.splitlines()] for page in (said["stdout"], done.stdout))
    assert [row.pop(0) for row in new] == ["row", *(str(row) for row in range(1, len(new)))]
    assert [row[0] for row in new] == [row[0] for row in old]
    assert [float(row[1]) for row in new[1:]] == pytest.approx([float(row[1]) for row in old[1:]], abs=2e-4)
    old, new = (
        [float(number) for number in re.findall(r"\d+\.\d+", text)] for text in (said["stderr"], done.stderr)
    )
    assert new == pytest.approx(old, abs=2e-4)


# -- going on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["interrupted", "killed"])
def test_an_unfinished_run_goes_on_or_is_refused(cli: Cli, name: str) -> None:
    """It ends with the bits of an undisturbed run of version 0.1.0, or an error names that version."""
    done = CliRunner().invoke(app, ["resume", RUNS[name], "--json"], prog_name="hanse")
    if done.exit_code == 2:
        assert done.stderr.startswith("Error: ")
        assert "0.1.0" in done.stderr
        check(read_expected(f"show/{name}.json"), json.loads(cli("show", RUNS[name], "--json").stdout))
        return
    assert done.exit_code == 0, (done.stdout, done.stderr, done.exception)
    old, new = read_expected(f"undisturbed/{name}.json"), json.loads(done.stdout)
    assert (new["run"], new["status"], new["rounds"]) == (RUNS[name], "completed", old["rounds"])
    known = {metric: new["final"][metric] for metric in old["final"]}  # today algorithms may report more
    assert known == pytest.approx(old["final"], rel=1e-3)
    if is_same_machine(cli):
        assert known == old["final"]
        assert new["params_sha256"] == old["params_sha256"]


def is_same_machine(cli: Cli) -> bool:
    """Return whether the runs were performed on such a machine, with these versions of all but Hanse."""
    first = json.loads(cli("run", "points.toml", "--set", "rounds=1", "--json").stdout)["run"]
    now, then = (
        {**json.loads(cli("show", run, "--json").stdout)["environment"], "hanse": ""}
        for run in (first, RUNS["interrupted"])
    )
    return now == then
