"""Released models: their files, the card, and their predictions for new rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_sgd
from hanse.cli import app
from hanse.core import InvalidInput
from hanse.data import by_key, csv, digits, iid, npz
from hanse.learners import least_squares
from hanse.release.bundle import open_release, predictions, release
from hanse.store import Runs


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a table in which the older half is sick."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{20 + i},{('cook', 'clerk')[i % 2]},h{i % 3},{'yes' if i > 29 else 'no'}" for i in range(60)]
    Path("stays.csv").write_text("\n".join(["age,job,where,sick", *rows]) + "\n")
    return "stays.csv"


def cli(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def trained(table: str, **more: Any) -> str:
    data = csv(table, label="sick", key="where")
    settings = {"data": data, "partition": by_key(), "algorithm": fed_sgd(lr=1.0), "rounds": 30, **more}
    return str(hanse.run(store="runs.db", **settings).run)


def test_a_model_goes_from_table_to_table(table: str) -> None:
    run = trained(table)
    done = cli("release", run, "--to", "out", "--store", "runs.db")
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in Path("out").iterdir()} == {
        "model.safetensors", "encoder.safetensors", "model.json", "README.md",
    }  # fmt: skip
    Path("new.csv").write_text("job,age,where,sick\ncook,22,h9,no\nclerk,75,h9,yes\n")
    done = cli("predict", "out", "new.csv")
    assert done.exit_code == 0, done.stderr
    head, *rows = (line.split(",") for line in done.stdout.splitlines())
    assert head == ["prediction", "probability"]
    assert [row[0] for row in rows] == ["no", "yes"]
    assert "accuracy 1.0000" in done.stderr
    Path("unlabelled.csv").write_text("job,age\ncook,22\nclerk,75\n")
    again = cli("predict", "out/model.safetensors", "unlabelled.csv")
    assert again.stdout == done.stdout
    assert again.stderr == ""


def test_the_card_says_what_it_is(table: str) -> None:
    run = trained(table, baselines=[hanse.evaluation.centralised()])
    release(Runs("runs.db"), run, Path("out"))
    card = Path("out/README.md").read_text(encoding="utf-8")
    result = Runs("runs.db").info(run).result
    assert result is not None
    for words in ("fed_sgd", "30 rounds of at most 30", "3 clients held 48", result["params_sha256"],
                  "| centralised (pooled) |", "Classes: no, yes", 'label = "sick"'):  # fmt: skip
        assert words in card


def test_training_goes_on_from_a_release(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    first = hanse.run(rounds=4, store=store)
    release(Runs(store), str(first.run), tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    assert {name: array.tolist() for name, array in load_file(path).items()} == {
        name: array.tolist() for name, array in first.params.items()
    }
    second = hanse.run(rounds=1, initial=path)
    assert first.final is not None
    assert second.records[0].metrics == pytest.approx(first.final.metrics)


def test_arrays_are_predicted_from_npz(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    run = hanse.run(rounds=10, store=store)
    model = open_release(release(Runs(store), str(run.run), tmp_path / "out"))
    test = digits().load().test
    assert test is not None
    assert run.final is not None
    np.savez(tmp_path / "new.npz", x=test.x, y=test.y)
    found = predictions(model, str(tmp_path / "new.npz"))
    assert found.metrics == pytest.approx(run.final.metrics)
    assert np.mean(found.values == test.y) == pytest.approx(run.final.metrics["accuracy"])
    np.savez(tmp_path / "x.npz", x=test.x)
    assert predictions(model, str(tmp_path / "x.npz")).metrics is None


def test_numbers_are_predicted(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    np.savez(tmp_path / "a.npz", x=x, y=x @ [2.0, -1.0])
    run = hanse.run(
        data=npz(str(tmp_path / "a.npz")), partition=iid(2), model=least_squares(),
        algorithm=fed_sgd(lr=0.5), rounds=60, store=tmp_path / "runs.db",
    )  # fmt: skip
    model = open_release(release(Runs(tmp_path / "runs.db"), str(run.run), tmp_path / "out"))
    found = predictions(model, str(tmp_path / "a.npz"))
    assert found.values == pytest.approx(x @ [2.0, -1.0], abs=1e-3)
    assert next(found.rows()) == ["prediction"]


def test_what_can_not_be_used_is_explained(table: str) -> None:
    assert "is not a released model: it has no model.json" in cli("predict", ".", table).stderr
    run = trained(table)
    release(Runs("runs.db"), run, Path("out"))
    Path("other.csv").write_text("height,job\n1,cook\n")
    assert "the table has no column 'age'" in cli("predict", "out", "other.csv").stderr
    assert "no file 'nothing.csv'" in cli("predict", "out", "nothing.csv").stderr
    about = json.loads(Path("out/model.json").read_text())
    Path("out/model.json").write_text(json.dumps({**about, "model": {"name": "mine"}}))
    with pytest.raises(InvalidInput, match=r'model\.name is "mine"'):
        open_release(Path("out"))
