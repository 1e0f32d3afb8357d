"""Runs in notebooks and scripts: rows, tables, text, HTML, progress, TensorBoard, and runs that are kept."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg
from hanse.config import Experiment
from hanse.core import InvalidInput, StoreError
from hanse.core.exchange import Record, Usage
from hanse.data import arrays, iid
from hanse.evaluation import centralised
from hanse.runs import TensorBoard
from hanse.runs.judgement import Finding
from hanse.runs.result import Result

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "runs.db"


@pytest.fixture(scope="module")
def done(store: Path) -> Result:
    return hanse.run(
        partition=iid(5),
        rounds=4,
        evaluate_every=2,
        baselines=[centralised()],
        client_test_fraction=0.2,
        store=store,
        name="first",
        tags=["small", "first", "small"],
    )


def made(*records: Record, **more: Any) -> Result:
    return Result(None, "completed", {}, len(records), records, final=records[-1], best=None, **more)


# -- rows and tables ---------------------------------------------------------------------------


def test_rows_are_the_rounds(done: Result) -> None:
    rows = done.rows()
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["accuracy"] is None for row in rows] == [False, True, False, True, False]
    assert all(list(row) == list(rows[0]) for row in rows)
    assert sum(row["bytes_up"] for row in rows) == done.bytes_up
    assert sum(row["bytes_down"] for row in rows) == done.bytes_down
    assert rows[4]["accuracy"] == done.records[4].metrics["accuracy"]
    assert rows[4]["counted"] == done.records[4].usage.counted
    assert json.loads(json.dumps(rows)) == rows


def test_a_metric_with_the_name_of_a_cost_takes_the_place_of_none() -> None:
    (row,) = made(Record(3, {"seconds": 7.0, "loss": np.float32(1.5)}, Usage(bytes_up=9), 0.25)).rows()
    assert (row["metric_seconds"], row["seconds"], row["bytes_up"], row["round"]) == (7.0, 0.25, 9, 3)
    assert type(row["loss"]) is float


def test_pandas_and_polars_get_the_same_rows(done: Result) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    pandas, polars = done.to_pandas(), done.to_polars()
    assert list(pandas.columns) == polars.columns == list(done.rows()[0])
    assert polars.rows(named=True) == done.rows()
    measured = pandas.dropna(subset=["accuracy"])
    assert list(measured["round"]) == [0, 2, 4]
    assert list(pandas["bytes_up"]) == [row["bytes_up"] for row in done.rows()]


def test_polars_takes_a_column_whose_first_words_come_late() -> None:
    """It guesses types from the first hundred rows unless it is told otherwise."""
    pytest.importorskip("polars")
    records = [Record(n, {}, Usage(), 0.1, "late" if n == 150 else None) for n in range(151)]
    assert made(*records).to_polars()["abandoned"][150] == "late"


@pytest.mark.parametrize(("method", "package"), [("to_pandas", "pandas"), ("to_polars", "polars")])
def test_a_library_that_is_missing_is_named(
    done: Result, monkeypatch: pytest.MonkeyPatch, method: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInput, match=rf'{method}\(\) needs {package}.*run: pip install "{package}"'):
        getattr(done, method)()


def test_tensorboard_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InvalidInput, match=r'run: pip install "hanse\[tensorboard\]"'):
        TensorBoard(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


# -- text and HTML -----------------------------------------------------------------------------


def test_the_text_of_a_result_is_one_short_line(done: Result) -> None:
    accuracy, loss = (done.final.metrics[name] for name in ("accuracy", "loss"))  # type: ignore[union-attr]
    assert repr(done) == (
        f"Result(run={done.run!r}, name='first', status='completed', rounds=4, loss={loss:.4g}, "
        f"accuracy={accuracy:.4g})"
    )
    found = made(Record(1, {}, Usage(), 0.1), findings=(Finding("peaked", "it fell", "stop"),))
    assert repr(found) == "Result(status='completed', rounds=1, findings=1)"


def test_the_html_of_a_result_says_what_the_page_says(done: Result) -> None:
    page = done._repr_html_()
    for words in (done.run, "first #small #first", "completed", "centralised (pooled)", "4 rounds", "kB up"):
        assert str(words) in page
    assert f"{done.final.metrics['accuracy']:.4f}" in page  # type: ignore[union-attr]


def test_html_holds_no_code_of_others() -> None:
    record = Record(1, {EVIL: 1.0}, Usage(), 0.1)
    settings = {**Experiment().settings(), "model": {"name": EVIL}}
    findings, sent = (Finding("peaked", EVIL, EVIL),), {"bytes_up": 1, "bytes_down": 1}
    for baselines in ((), ({"name": EVIL, "final": {EVIL: 1.0}, "seconds": 1.0, **sent},)):
        page = made(record, reason=EVIL, settings=settings, findings=findings, baselines=baselines, name=EVIL)
        assert "<script>" not in page._repr_html_()
        assert page._repr_html_().count("&lt;script&gt;") >= 5


def test_rounds_and_experiments_have_short_texts() -> None:
    with hanse.rounds(rounds=1) as begun:
        first = next(begun)
    assert re.fullmatch(r"Round\(0, loss=2.303, accuracy=0.\d+\)", repr(first))
    assert repr(Experiment(rounds=3)) == f"<Experiment: {Experiment(rounds=3)}>"
    assert "fed_avg" in repr(Experiment(data=arrays(np.zeros((4, 2)), np.array([0, 1, 0, 1]))))


def test_the_html_of_an_experiment_is_its_settings() -> None:
    page = Experiment(initial=EVIL)._repr_html_()
    assert ">model</th><td>softmax</td>" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


# -- values as text ----------------------------------------------------------------------------


def test_text_stands_for_values_as_in_a_file() -> None:
    assert (
        hanse.run(algorithm="fed_avg(lr=0.1)", partition="iid(5)", rounds=2).params_sha256  # type: ignore[arg-type]
        == hanse.run(algorithm=fed_avg(lr=0.1), partition=iid(5), rounds=2).params_sha256
        == hanse.perform(
            hanse.read(None, ["algorithm=fed_avg(lr=0.1)", "partition=iid(5)", "rounds=2"])
        ).params_sha256
    )


# -- pages and charts --------------------------------------------------------------------------


def test_a_chart_is_that_of_the_report(done: Result) -> None:
    pytest.importorskip("altair")
    points = [row for data in _values(done.plot("accuracy").to_dict()) for row in data]
    drawn = [(row["x"], row["y"]) for row in points if row.get("who") == "federated" and "x" in row]
    rows = done.rows()
    assert drawn == [(row["round"], row["accuracy"]) for row in rows if row["accuracy"] is not None]
    assert done.plot().to_dict() == done.plot("accuracy", "round").to_dict()
    by_bytes = [
        row["x"] for data in _values(done.plot("loss", "bytes up").to_dict()) for row in data if "x" in row
    ]
    assert max(by_bytes) == done.bytes_up


def _values(tree: Any) -> list[Any]:
    """The values of all data in a chart."""
    if isinstance(tree, dict):
        own = [tree["values"]] if isinstance(tree.get("values"), list) else []
        own += tree.get("datasets", {}).values()
        return own + [found for inner in tree.values() for found in _values(inner)]
    if isinstance(tree, list):
        return [found for inner in tree for found in _values(inner)]
    return []


def test_a_chart_of_nothing_is_refused(done: Result) -> None:
    pytest.importorskip("altair")
    with pytest.raises(InvalidInput, match=r"metric 'accurcy' was not measured: did you mean 'accuracy'"):
        done.plot("accurcy")
    with pytest.raises(InvalidInput, match="against is 'seconds'; write one of round, epochs, bytes up"):
        done.plot("loss", "seconds")
    with pytest.raises(InvalidInput, match="measured nothing"):
        hanse.run(rounds=1, evaluate_every=0).plot()
    with pytest.raises(InvalidInput, match="settings of this run can't be written down"):
        made(Record(1, {"loss": 1.0}, Usage(), 0.1)).plot()


def test_methods_write_what_the_commands_write(done: Result, store: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from hanse.cli import app

    pytest.importorskip("vl_convert")
    page = done.report(tmp_path / "a", images=False).read_text()
    assert f"<title>Run {done.run}</title>" in page
    assert done.release(tmp_path / "c") == tmp_path / "c"
    CliRunner().invoke(app, ["release", "last", "--store", str(store), "--to", str(tmp_path / "d")])
    for name in ("model.safetensors", "model.json", "README.md"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "d" / name).read_bytes()
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.zeros((2, 64), np.float32))
    data = tmp_path / "rows.toml"
    data.write_text('[data]\nname = "npz"\npath = "rows.npz"\n')
    said = CliRunner().invoke(app, ["predict", str(tmp_path / "c"), str(rows)])
    assert hanse.predict(tmp_path / "c", rows).as_csv() == said.stdout


def test_a_run_that_nobody_kept_has_a_page_and_no_release(tmp_path: Path) -> None:
    done = hanse.run(rounds=1)
    with pytest.raises(
        StoreError, match=r"not kept can\'t be released; give it a store: run\(\.\.\., store="
    ):
        done.release(tmp_path / "model")
    pytest.importorskip("vl_convert")
    assert done.final is not None
    assert (
        f"{100 * done.final.metrics['accuracy']:.1f} %"
        in done.report(tmp_path / "page", images=False).read_text()
    )


# -- kept runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["first", "last", "id", "beginning"])
def test_a_kept_run_is_loaded_as_it_was(done: Result, store: Path, word: str) -> None:
    named = {"id": str(done.run), "beginning": str(done.run)[:5]}
    loaded = hanse.load(named.get(word, word), store=store)
    assert loaded.to_json() == done.to_json()
    assert loaded.rows() == done.rows()
    assert (loaded.name, loaded.tags, loaded.settings) == ("first", ("small", "first"), done.settings)
    assert all(np.array_equal(loaded.params[name], done.params[name]) for name in done.params)


def test_an_interrupted_run_is_loaded_and_its_hint_names_the_store(tmp_path: Path) -> None:
    def watch(record: Record) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    place = tmp_path / "my runs.db"
    with pytest.raises(
        hanse.Interrupted, match=r"go on with: hanse resume \w+ --store '.*my runs\.db'"
    ) as caught:
        hanse.run(rounds=5, store=place, watch=watch)
    loaded = hanse.load(store=place)
    assert (loaded.status, loaded.rounds) == ("interrupted", 2)
    assert loaded.params_sha256 == caught.value.result.params_sha256
    assert hanse.resume("last", store=place).params_sha256 == hanse.run(rounds=5).params_sha256


def test_a_killed_run_is_loaded_with_its_rounds(tmp_path: Path) -> None:
    """It never wrote how it ended."""
    from sqlite3 import connect

    done = hanse.run(rounds=3, store=tmp_path / "runs.db")
    with connect(tmp_path / "runs.db") as database:
        database.execute("UPDATE runs SET status = 'running', result = NULL")
    database.close()
    loaded = hanse.load(store=tmp_path / "runs.db")
    assert (loaded.status, loaded.rounds, loaded.final, loaded.best) == (
        "interrupted",
        3,
        done.final,
        done.best,
    )


def test_loading_says_what_is_there(done: Result, store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no run 'frist': did you mean \w+ \(first\)\?"):
        hanse.load("frist", store=store)
    with pytest.raises(StoreError, match="no runs are kept at"):
        hanse.load(store=tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_names_and_tags_need_a_store_and_letters(done: Result, store: Path) -> None:
    for given, message in (
        ({"name": "x"}, "not kept; give it a store"),
        ({"tags": ["x"]}, "not kept; give it a store"),
        ({"name": "first", "store": store}, "name 'first' is that of run"),
        ({"name": "last", "store": store}, "'last' stands for the newest run already"),
        ({"name": "a b", "store": store}, "name 'a b' can't be used"),
        ({"name": "", "store": store}, "name '' can't be used"),
        ({"name": "0123456789ab", "store": store}, "form of a run's id"),
        ({"tags": "small", "store": store}, r"tags is the string 'small'; write a list of tags"),
        ({"tags": ["-x"], "store": store}, "tag '-x' can't be used"),
    ):
        with pytest.raises(InvalidInput, match=message):
            hanse.run(rounds=1, **given)  # type: ignore[arg-type]
    assert hanse.load(store=store).run == done.run


# -- progress ----------------------------------------------------------------------------------


def test_nothing_is_printed_unless_it_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    hanse.run(rounds=2)
    hanse.run(rounds=2, progress=False)
    assert capfd.readouterr() == ("", "")
    done = hanse.run(rounds=2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert done.final is not None
    assert err.splitlines()[-1].startswith("round 2/2  loss ")
    assert f"accuracy {done.final.metrics['accuracy']:.4f}" in err.splitlines()[-1]


def test_a_real_kernel_shows_progress_and_results(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    loud, quiet = "result = hanse.run(rounds=3)", "silent = hanse.run(rounds=3, progress=False)"
    loaded = "import sys; sorted({'pandas', 'polars', 'tensorboardX', 'altair'} & set(sys.modules))"
    cells = [f"import hanse\n{loud}", quiet, "result", "hanse.Experiment()", loaded]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    first, second, third, fourth, fifth = (cell.outputs for cell in notebook.cells)
    (shown,) = first  # one line, replaced round by round
    assert shown.output_type == "display_data"
    assert shown.data["text/plain"].startswith("round 3/3  loss ")
    assert '<progress value="3" max="3">' in shown.data["text/html"]
    assert second == []
    assert third[0].data["text/plain"].startswith("Result(status='completed', rounds=3, loss=")
    assert "<table>" in third[0].data["text/html"]
    assert ">model</th>" in fourth[0].data["text/html"]
    assert fifth[0].data["text/plain"] == "[]"  # nobody asked for these


# -- TensorBoard -------------------------------------------------------------------------------


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read event files back: records of a length, its check, data, and their check."""
    import struct

    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with TensorBoard(tmp_path / "logs" / "a") as board:
        done = hanse.run(rounds=3, evaluate_every=3, watch=board)
        board(Record(4, {"loss": float("nan")}, Usage(), 1.5))
    found = read_events(tmp_path / "logs" / "a")
    rows = done.rows()
    assert found["accuracy"] == [
        (row["round"], pytest.approx(row["accuracy"])) for row in rows if row["accuracy"] is not None
    ]
    assert [step for step, _ in found["loss"]] == [0, 3]
    assert found["costs/bytes_up"] == [*((row["round"], row["bytes_up"]) for row in rows), (4, 0)]
    assert found["costs/seconds"][-1] == (4, 1.5)
