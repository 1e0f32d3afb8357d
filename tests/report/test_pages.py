"""Pages about runs: their contents, that they need no other file, and the graphs of every introduction."""

import builtins
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_avg, fed_sgd
from hanse.attacks import Adversary, model_replacement, pixel_backdoor
from hanse.cli import app
from hanse.cli.demo import classics
from hanse.config import as_toml
from hanse.data import dirichlet, iid
from hanse.evaluation import OWN_TEST, TEST_SET, as_percent, centralised, on_site
from hanse.report import charts, style
from hanse.report.pages import compare_page, report_page, write
from hanse.report.run_data import RunData, load_run, load_runs
from hanse.store import Runs

pytest.importorskip("altair")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with two runs; the newer one has baselines."""
    store = tmp_path_factory.mktemp("kept") / "store.db"
    hanse.run(rounds=2, algorithm=fed_sgd(lr=0.3), store=store)
    hanse.run(
        rounds=4, partition=dirichlet(12, 0.5), client_test_fraction=0.2, store=store,
        baselines=(centralised(), on_site()), stop=hanse.Stop(target=0.99),
    )  # fmt: skip
    return store


def newest(store: Path) -> RunData:
    runs = Runs(store)
    return load_run(runs, runs.infos()[0].run)


def without_scripts(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_a_page_says_all_and_fetches_nothing(store: Path) -> None:
    page, drawings = report_page(newest(store))
    names = [drawing.name for drawing in drawings]
    curves = [f"{metric}-per-{axis}" for metric in ("accuracy", "loss") for axis in ("round", "epoch")]
    sent = ["accuracy-against-bytes-up", "accuracy-against-bytes-down"]
    assert names == [*curves, "parties", "clients", "who-has-what", *sent]
    body = without_scripts(page)
    assert not re.search(r"""(src|href)\s*=|@import|url\(""", body)
    assert body.count('class="keys"') == 1  # there is one curve of bytes
    for words in ("centralised (pooled)", "on-site (each alone)", "rounds to target", "worst tenth accuracy",
                  "12 clients hold", "alpha = 0.5", "sha256", "each party alone"):  # fmt: skip
        assert words in body
    assert page.count("</script>") == 2
    assert all(f'id="{name}"' in body for name in names)


def test_on_site_figures_are_called_what_they_are(store: Path) -> None:
    """A mean over parties' models on one test set is one; the accuracy over all parties' rows is none."""
    data = newest(store)
    assert data.result is not None
    (row,) = (row for row in data.result["baselines"] if row["name"] == "on_site")
    for on, is_mean in ((TEST_SET, True), (OWN_TEST, False)):
        row["on"] = on
        (said,) = re.findall(
            r"each party alone, [^;.]*\.?\d* %([^.]*)", without_scripts(report_page(data)[0])
        )
        assert ("on average" in said) == is_mean


def make_row(number: int, gain: float, **more: Any) -> dict[str, Any]:
    """Make a party's row with the metrics that a gain follows from."""
    return {
        "party": f"Hospital {number}", "number": number, "examples": 40, "test_examples": 20,
        "federated": {"accuracy": 0.5 + gain, "loss": 0.25}, "on_site": {"accuracy": 0.5, "loss": 0.75},
        "metric": "accuracy", "higher_is_better": True, "gain": gain, "gain_low": gain - 0.1,
        "gain_high": gain + 0.1, "verdict": "helped" if gain > 0.1 else "no clear difference",
        "masked": [], "min_count": 5, **more,
    }  # fmt: skip


def with_rows(run_data: RunData, *rows: dict[str, Any], headline: tuple[str, ...] = ()) -> RunData:
    assert run_data.result is not None
    return replace(run_data, result={**run_data.result, "parties": list(rows), "headline": list(headline)})


EMPTY = dict.fromkeys(("examples", "test_examples", "federated", "on_site", "gain", "verdict"))


def test_each_party_has_a_row_with_its_name_as_text(store: Path) -> None:
    small = make_row(
        1, 0.0, party="<b>Søn & Co</b>", masked=["examples", "test_examples", "federated", "on_site"]
    )
    bad = "federation helped 1 of 1 parties; <b>Søn & Co</b> could not be compared"
    page, drawings = report_page(
        with_rows(newest(store), make_row(0, 0.25), {**small, **EMPTY}, headline=(bad,))
    )
    body = without_scripts(page)
    assert (
        "<li>Federation helped 1 of 1 parties; &lt;b&gt;Søn &amp; Co&lt;/b&gt; could not be compared.</li>"
        in body
    )
    masked = (
        "<td>&lt;b&gt;Søn &amp; Co&lt;/b&gt;</td><td>not compared</td><td></td><td>masked</td><td>masked</td>"
    )
    assert f"{masked}<td>&lt;5</td><td>&lt;5</td>" in body
    seen = "<td>Hospital 0</td><td>helped</td><td>+25.0 (+15.0 to +35.0)</td><td>0.7500</td><td>0.5000</td>"
    assert f"{seen}<td>40</td><td>20</td>" in body
    assert "masked at 1 party" in body.lower()
    assert "<summary>loss</summary>" in body  # a table of each other metric
    assert "<td>0.2500</td><td>0.7500</td>" in body
    (drawing,) = [drawing for drawing in drawings if drawing.name == "parties"]
    assert "1 that can't be compared are not drawn" in drawing.about
    assert body.index("Each party") < body.index("How training went")


def test_of_many_parties_the_table_begins_with_those_who_lost(store: Path) -> None:
    def names_of(num_rows: int) -> list[str]:
        rows = [make_row(number, (number * 7 % num_rows) / 100) for number in range(num_rows)]
        lost = {**make_row(num_rows, -0.3), "verdict": None, "gain": None}
        body = without_scripts(report_page(with_rows(newest(store), *rows, lost))[0])
        return re.findall(r"<td>(Hospital \d+)</td>", body.split("<details>")[0])

    assert names_of(11) == [f"Hospital {number}" for number in range(12)]
    assert names_of(20)[:3] == ["Hospital 0", "Hospital 3", "Hospital 6"]
    assert names_of(20)[-1] == "Hospital 20"


def test_a_page_without_rows_has_no_section_of_them(store: Path) -> None:
    page, drawings = report_page(with_rows(newest(store)))
    assert "Each party" not in page
    assert "parties" not in [drawing.name for drawing in drawings]


@pytest.mark.parametrize(("num_rows", "num_drawn"), [(1, 1), (3, 3), (100, 100), (120, 120), (500, 101)])
def test_the_picture_of_parties_is_readable_whatever_their_number(
    store: Path, num_rows: int, num_drawn: int
) -> None:
    rows = [make_row(number, (number * 37 % 100 - 50) / 200) for number in range(num_rows)]
    _, drawings = report_page(with_rows(newest(store), *rows))
    (drawing,) = [drawing for drawing in drawings if drawing.name == "parties"]
    spec = drawing.spec
    lines, dots = (layer["data"]["values"] for layer in spec["layer"])
    assert len({line["party"] for line in lines}) == num_drawn
    assert len(dots) == 2 * num_drawn
    gains = [line["gain"] for line in lines]
    assert gains == sorted(gains)
    assert {gains[0], gains[-1]} == {min(row["gain"] for row in rows), max(row["gain"] for row in rows)}
    assert (num_rows > 120) == ("Every 5th is drawn" in drawing.about)
    assert charts.png(drawing).startswith(b"\x89PNG")


def test_parties_with_the_same_name_are_told_apart(store: Path) -> None:
    rows = [make_row(number, 0.0, party="North") for number in (0, 1)]
    _, drawings = report_page(with_rows(newest(store), *rows))
    (drawing,) = [drawing for drawing in drawings if drawing.name == "parties"]
    assert {line["party"] for line in drawing.spec["layer"][0]["data"]["values"]} == {
        "North (0)",
        "North (1)",
    }


def test_the_same_chart_is_an_image(store: Path, tmp_path: Path) -> None:
    page, drawings = report_page(newest(store))
    path = write(tmp_path / "out", page, drawings[-3:])
    assert path.read_text(encoding="utf-8") == page
    images = sorted(tmp_path.glob("out/*.png"))
    assert [image.name for image in images] == [
        "accuracy-against-bytes-down.png",
        "accuracy-against-bytes-up.png",
        "who-has-what.png",
    ]
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)


def test_names_of_classes_and_clients_are_only_text(store: Path) -> None:
    story = newest(store)
    assert story.result is not None
    data = {**story.result["data"], "names": ["</script><b>"] * 12}
    settings = {**story.settings, "data": {"name": "<img src=x>"}}
    evil = RunData(**{**vars(story), "settings": settings, "result": {**story.result, "data": data}})
    page, _ = report_page(evil)
    assert page.count("</script>") == 2
    assert "<img" not in without_scripts(page)
    assert "</script><b>" not in page


def test_epochs_and_bytes_grow_from_round_to_round(store: Path) -> None:
    points = list(newest(store).points())
    assert [point["round"] for point in points] == [0, 1, 2, 3, 4]
    assert points[0]["epochs"] == points[0]["bytes"] == 0
    assert points[-1]["epochs"] == pytest.approx(4 * 5 * 10 / 12)  # rounds x epochs x clients a round
    assert all(a["bytes"] < b["bytes"] for a, b in pairwise(points))


def test_a_run_that_was_interrupted_has_a_page(store: Path, tmp_path: Path) -> None:
    def watch(record: Any) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(hanse.Interrupted):
        hanse.run(rounds=9, store=tmp_path / "runs.db", watch=watch)
    page, drawings = report_page(newest(tmp_path / "runs.db"))
    assert "This run is interrupted" in page
    assert len(drawings) == 6


def test_runs_are_called_by_what_tells_them_apart(store: Path, tmp_path: Path) -> None:
    both = load_runs(Runs(store), [info.run for info in Runs(store).infos()])
    assert [story.label.partition(",")[0] for story in both] == ["fed_avg", "fed_sgd"]
    for lr in (0.1, 0.2, 0.2):
        hanse.run(rounds=1, algorithm=fed_avg(lr=lr), store=tmp_path / "runs.db")
    runs = Runs(tmp_path / "runs.db")
    third, second, first = load_runs(runs, [info.run for info in runs.infos()])
    assert first.label == "algorithm.lr=0.1"
    assert second.label == f"algorithm.lr=0.2 ({second.run[:6]})"
    assert third.label != second.label
    page, drawings = compare_page([first, second, third])
    assert len(drawings) == 6
    assert "algorithm.lr=0.1" in page
    same = f"{third.label} coincides with {second.label} and is dashed."
    assert page.count(same) == 6  # charts
    assert all(first.label not in drawing.about for drawing in drawings)
    dashes = drawings[0].spec["layer"][0]["encoding"]["strokeDash"]["scale"]
    assert dict(zip(dashes["domain"], dashes["range"], strict=True))[third.label] == [5, 5]
    assert {tuple(dash) for dash in dashes["range"]} == {(1, 0), (5, 5)}


def test_the_success_of_a_backdoor_stands_beside_a_run_without_one(tmp_path: Path) -> None:
    backdoor = Adversary(pixel_backdoor(7, features=(0, 8)), clients=(1,))
    for adversary in (None, backdoor):
        hanse.run(rounds=1, adversary=adversary, store=tmp_path / "runs.db")
    runs = Runs(tmp_path / "runs.db")
    both = load_runs(runs, [info.run for info in runs.infos()])
    for order in (both, both[::-1]):
        page, _ = compare_page(order)
        head, *rows = re.findall("<tr>.*?</tr>", page)
        place = re.findall("<th>(.*?)</th>", head).index("attack_accuracy")
        cells = [re.findall("<td>(.*?)</td>", row)[place] for row in rows[:2]]
        assert [cell == "–" for cell in cells] == ["attack_accuracy" not in run.metrics for run in order]


def test_settings_are_a_file_that_can_be_run(store: Path, tmp_path: Path) -> None:
    story = newest(store)
    (tmp_path / "again.toml").write_text(as_toml(story.settings))
    assert hanse.read(tmp_path / "again.toml").settings() == story.settings


def test_without_the_extra_it_says_what_to_install(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in ("altair", "vl_convert"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(style, "import_module", missing)
    for module in ("altair", "vl_convert"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    done = CliRunner().invoke(app, ["report", newest(store).run, "--store", str(store)])
    assert done.exit_code == 2
    assert 'pip install "hanse[report]"' in done.stderr.replace("\n", "")


def test_commands_write_pages_where_they_say(store: Path, tmp_path: Path) -> None:
    runs = [info.run for info in Runs(store).infos()]
    flags = ["--no-images", "--store", str(store), "--to"]
    done = CliRunner().invoke(app, ["report", runs[0][:8], *flags, str(tmp_path / "a")])
    assert done.exit_code == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "a" / "index.html"
    done = CliRunner().invoke(app, ["compare", *runs, *flags, str(tmp_path / "b")])
    assert "Runs compared" in Path(done.stdout.strip()).read_text(encoding="utf-8")
    done = CliRunner().invoke(app, ["report", "nothing", *flags, str(tmp_path / "c")])
    assert done.exit_code == 2


def test_a_page_replaces_no_file_of_somebody_else(store: Path, tmp_path: Path) -> None:
    first, *_ = Runs(store).infos()
    command = ["report", first.run, "--no-images", "--store", str(store), "--to", str(tmp_path / "own")]
    index = tmp_path / "own" / "index.html"
    index.parent.mkdir()
    index.write_text("<h1>mine</h1>")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "holds index.html, which Hanse did not write" in " ".join(done.stderr.split())
    assert index.read_text() == "<h1>mine</h1>"
    index.unlink()
    for _ in range(2):  # a page that Hanse wrote is renewed
        assert CliRunner().invoke(app, command).exit_code == 0
    index.unlink()
    (index.parent / "loss-per-round.png").write_bytes(b"mine")
    done = CliRunner().invoke(app, [part for part in command if part != "--no-images"])
    assert done.exit_code == 2
    assert [path.name for path in index.parent.iterdir()] == ["loss-per-round.png"]


def test_the_two_graphs_of_every_introduction() -> None:
    """With full batches and equal steps averaging needs at most a fifth of the rounds and no fewer epochs."""
    descent, averaging = (hanse.perform(experiment) for experiment in classics())
    target = 0.35
    slow, fast = (
        next(record.round for record in result.records if record.metrics["loss"] <= target)
        for result in (descent, averaging)
    )
    assert 5 * fast <= slow
    assert 10 * fast >= slow  # ten passes over the data a round, against one


def test_the_answer_says_whether_a_backdoor_succeeds(tmp_path: Path) -> None:
    adversary = Adversary((pixel_backdoor(7, features=(0, 8, 16, 24)), model_replacement()), clients=(3,))
    algorithm = fed_avg(fraction=1.0, epochs=1)
    store = tmp_path / "store.db"
    done = hanse.run(partition=iid(10), algorithm=algorithm, adversary=adversary, rounds=3, store=store)
    assert done.final is not None
    success = as_percent(done.final.metrics["attack_accuracy"])
    page, _ = report_page(load_run(Runs(store), str(done.run)))
    assert f"a backdoor succeeds on <b>{success}</b> of its test examples (attack_accuracy)" in page


def test_metrics_stand_beside_those_of_a_constant_predictor(store: Path) -> None:
    run_data = newest(store)
    assert run_data.result is not None
    one = {"value": 0.75, "constant": 0.5, "error": 0.002, "higher_is_better": True, "low": 0.7, "high": 0.8}
    told = {
        "on": "own test examples", "num_examples": 1234, "num_parties": 3,
        "computed": "from sums over parties",
        "metrics": {"auroc": one, "log_loss": {**one, "value": None, "higher_is_better": False, "low": None}},
        "intervals": {"level": 0.95},
    }  # fmt: skip
    page, _ = report_page(replace(run_data, result={**run_data.result, "assessment": told}))
    assert "own test examples, 1,234 examples, computed from sums over parties" in page
    cells = "<td>auroc</td><td>0.7500 ± 0.002</td><td>0.5000</td><td>0.7000 to 0.8000</td><td>higher</td>"
    assert cells in page
    assert "<td>log loss</td><td>undefined</td>" in page
    assert "predicted" not in page
    told |= {"confusion_matrix": [[3.0, 1.0], [0.0, 2.0]]}
    page, _ = report_page(replace(run_data, result={**run_data.result, "assessment": told, "data": None}))
    assert "<th>true class</th><th>0</th><th>1</th>" in page
    assert "<tr><td>0</td><td>3</td><td>1</td></tr><tr><td>1</td><td>0</td><td>2</td></tr>" in page
    page, _ = report_page(replace(run_data, result={**run_data.result, "assessment": None}))
    assert "constant predictor" not in page
