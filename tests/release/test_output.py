"""Predictions as files: names of rows, their order, CSV and Parquet, whole or not at all."""

import csv as lines_of
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_sgd
from hanse.cli import app
from hanse.core import InvalidInput
from hanse.data import csv, iid, party_files
from hanse.learners import least_squares
from hanse.release import open_release, predictions, release, write_predictions
from hanse.store import Runs


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def cli(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done


def train(data: Any, **more: Any) -> None:
    settings = {"partition": iid(2), "algorithm": fed_sgd(lr=0.5), "rounds": 3, **more}
    result = hanse.run(data=data, store="runs.db", **settings)
    release(Runs("runs.db"), str(result.run), Path("model"))


@pytest.fixture
def model() -> None:
    rows = [f"{20 + i},{('cook', 'clerk')[i % 2]},{('well', 'ill', 'so so')[i % 3]}" for i in range(60)]
    Path("stays.csv").write_text("\n".join(["age,job,state", *rows]) + "\n")
    train(csv("stays.csv", label="state"))
    Path("new.csv").write_text("case,job,age\n007,cook,75\nB-2,clerk,30\n12.50,cook,41\n")


def cells(text: str) -> list[list[str]]:
    return [*lines_of.reader(text.splitlines())]


def test_rows_keep_their_names_and_their_order(model: None) -> None:
    head, *rows = cells(cli("predict", "model", "new.csv", "--id", "case").stdout)
    classes = ("ill", "so so", "well")
    assert head == ["case", "prediction", "probability", *(f"probability_{name}" for name in classes)]
    assert [row[0] for row in rows] == ["007", "B-2", "12.5"]  # a number has one spelling
    found = predictions(open_release(Path("model")), "new.csv", ids="case")
    assert np.array([row[3:] for row in rows], float) == pytest.approx(found.found, rel=1e-5)
    assert [row[1] for row in rows] == [classes[c] for c in found.found.argmax(axis=1)]
    whole = cells(cli("predict", "model", "new.csv").stdout)
    assert [row[0] for row in whole] == ["row", "1", "2", "3"]
    assert [row[1:] for row in whole] == [row[1:] for row in [head, *rows]]
    by_feature = cells(cli("predict", "model", "new.csv", "--id", "age").stdout)
    assert [row[0] for row in by_feature] == ["age", "75", "30", "41"]
    assert (
        "new.csv has no column 'patient' to name"
        in cli("predict", "model", "new.csv", "--id", "patient", code=2).stderr
    )
    Path("odd.csv").write_text("prediction,job,age\n1,cook,75\n")
    assert "rename it" in cli("predict", "model", "odd.csv", "--id", "prediction", code=2).stderr


def test_csv_and_parquet_hold_the_same(model: None) -> None:
    files = pytest.importorskip("pyarrow.parquet")
    said = cli("predict", "model", "new.csv", "--id", "case").stdout
    assert cli("predict", "model", "new.csv", "--id", "case", "--to", "p.csv").stdout == "p.csv\n"
    assert Path("p.csv").read_text(encoding="utf-8") == said
    cli("predict", "model", "new.csv", "--to", "p.PARQUET")
    stored = files.read_table("p.PARQUET")
    found = predictions(open_release(Path("model")), "new.csv")
    assert stored.column_names == [*found.columns()]
    assert stored["row"].to_pylist() == [1, 2, 3]
    each = np.column_stack([stored[f"probability_{name}"] for name in ("ill", "so so", "well")])
    assert each.tolist() == found.found.tolist()  # all digits
    assert stored["prediction"].to_pylist() == [row[1] for row in cells(said)[1:]]


def test_a_file_is_written_whole_or_not_at_all(model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.csv").write_text("mine")
    assert "p.csv exists already" in cli("predict", "model", "new.csv", "--to", "p.csv", code=2).stderr
    assert Path("p.csv").read_text() == "mine"
    found = predictions(open_release(Path("model")), "new.csv")

    def fill_the_disk(self: Path, to: Path) -> None:
        raise OSError(28, "No space left")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fill_the_disk)
        with pytest.raises(InvalidInput, match=r"p.csv can't be written: No space left"):
            write_predictions(found, Path("p.csv"), force=True)
    assert Path("p.csv").read_text() == "mine"
    assert not [path for path in Path().iterdir() if path.name.endswith(".part")]
    write_predictions(found, Path("p.csv"), force=True)
    assert Path("p.csv").read_text() == found.as_csv()


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("p.xlsx", "p.xlsx ends in neither .csv nor .parquet"),
        ("none/p.csv", "there is no folder 'none' for p.csv"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_computed(to: str, message: str) -> None:
    assert message in cli("predict", "nosuch", "new.csv", "--to", to, code=2).stderr.replace("\n", " ")


def test_parquet_without_its_library_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    said = cli("predict", "nosuch", "new.csv", "--to", "p.parquet", code=2).stderr.replace("\n", " ")
    assert "pip install 'hanse[parquet]'" in said


def test_numbers_are_written_with_the_rows_names() -> None:
    Path("costs.csv").write_text(
        "case,hours,cost\n" + "".join(f"c{i},{i % 7},{2 * (i % 7)}\n" for i in range(60))
    )
    train(csv("costs.csv", target="cost", drop=("case",)), model=least_squares())
    head, *rows = cells(cli("predict", "model", "costs.csv", "--id", "case").stdout)
    assert head == ["case", "prediction"]
    assert [row[0] for row in rows] == [f"c{i}" for i in range(60)]
    found = predictions(open_release(Path("model")), "costs.csv").values
    assert [float(row[1]) for row in rows] == pytest.approx(found, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("secret,cook", "column 'age' holds something else than a number in 2 rows: lines 3, 5;"),
        ("70,secret,x", "line 3: 3 cells, and 2 columns separated by ','"),
        ("<5,cook", "in 2 rows: lines 3, 5; mend them, or say how such cells are read: censored ="),
    ],
)
def test_rows_that_can_not_be_read_are_named_and_not_shown(model: None, row: str, message: str) -> None:
    Path("bad.csv").write_text(f"age,job\n30,cook\n{row}\n40,cook\n{row}\n")
    done = cli("predict", "model", "bad.csv", "--to", "p.csv", code=2)
    assert message in done.stderr.replace("\n", " ")
    assert "secret" not in done.output
    assert not Path("p.csv").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "70,cook,secret",
            "line 3: column 'state' holds no class (so in 1 rows); the classes are 'ill', 'so",
        ),
        ("Total,secret,", "line 3: the last row seems to hold totals of the rows above it: remove it"),
        ("secret,,", "column 'age' holds something else than a number in 1 rows: line 3"),
    ],
)
def test_wrong_labels_and_totals_are_named_and_not_shown(model: None, row: str, message: str) -> None:
    Path("bad.csv").write_text(f"age,job,state\n30,cook,ill\n{row}\n")
    done = cli("predict", "model", "bad.csv", code=2)
    assert message in done.stderr.replace("\n", " ")
    with pytest.raises(InvalidInput) as caught:
        predictions(open_release(Path("model")), "bad.csv")
    assert "secret" not in done.output + "".join(traceback.format_exception(caught.value))


def test_a_file_is_read_as_that_of_the_party_that_it_is_like() -> None:
    rows = [(i % 9 + 0.5, "yes" if i % 9 > 4 else "no") for i in range(60)]
    Path("a.csv").write_text("x;y\n" + "".join(f"{str(x).replace('.', ',')};{y}\n" for x, y in rows))
    Path("b.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in rows))
    files = {"a": csv("a.csv", decimal=","), "b": csv("b.csv")}
    train(party_files(".", label="y", parties=files, test_fraction=0.0), evaluate_every=0)
    assert "--like a or b" in cli("predict", "model", "a.csv", code=2).stderr
    assert "--like c is no party" in cli("predict", "model", "a.csv", "--like", "c", code=2).stderr
    assert (
        cli("predict", "model", "a.csv", "--like", "a").stdout
        == cli("predict", "model", "b.csv", "--like", "b").stdout
    )
    assert "column 'x'" in cli("predict", "model", "a.csv", "--like", "b", code=2).stderr


def test_a_release_refuses_data_that_have_changed(model: None) -> None:
    """Else another encoding, or the names of other classes, would stand beside the parameters."""
    Path("stays.csv").write_text(Path("stays.csv").read_text().replace(",ill", ",zz ill"))
    (run,) = Runs("runs.db").infos()
    refused = cli("release", run.run, "--store", "runs.db", "--to", "other", code=2).stderr
    assert "have changed since it began" in " ".join(refused.split())
    assert not Path("other").exists()


def test_a_release_replaces_its_own_files_only(model: None) -> None:
    (run,) = Runs("runs.db").infos()
    cli("release", run.run, "--store", "runs.db", "--to", "model")
    Path("mine").mkdir()
    Path("mine/README.md").write_text("mine")
    refused = cli("release", run.run, "--store", "runs.db", "--to", "mine", code=2).stderr
    assert "README.md, which hanse release did not write" in " ".join(refused.split())
    assert [path.name for path in Path("mine").iterdir()] == ["README.md"]
    assert Path("mine/README.md").read_text() == "mine"


def test_predictions_do_not_replace_what_they_are_of(model: None) -> None:
    before = Path("new.csv").read_text()
    refused = cli("predict", "model", "new.csv", "--to", "new.csv", "--force", code=2).stderr
    assert "new.csv is the file to predict" in refused
    assert Path("new.csv").read_text() == before
