"""Released models: their files, the card, and their predictions for new rows."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_sgd
from hanse.cli import app
from hanse.core import Examples, InvalidInput, Key, Learner, value
from hanse.data import as_table, by_key, csv, digits, from_clients, iid, npz
from hanse.learners import Model, char_lstm, cox, least_squares, linear_svm, softmax, torch_module
from hanse.release.bundle import Released, open_release, predictions, release
from hanse.store import Runs


@value
class absolute_errors(Model):
    """A user's own module, with a loss of its own, under a name."""

    num_outputs: int = 1

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
        from torch import nn

        def loss(scores: Any, labels: Any) -> Any:
            return nn.functional.l1_loss(scores.reshape(labels.shape), labels)

        model = torch_module(lambda: nn.Linear(*feature_shape, self.num_outputs), loss=loss)
        return model.bind(feature_shape, num_classes)


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
    assert head == ["row", "prediction", "probability", "probability_no", "probability_yes"]
    assert [row[:2] for row in rows] == [["1", "no"], ["2", "yes"]]
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
    for name, one in result["assessment"]["metrics"].items():
        assert f"| `{name}` | {one['value']:.4f} | {one['constant']:.4f} |" in card
    assert f"on the common test set, {result['assessment']['num_examples']} examples" in card


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
    assert next(found.rows()) == ["row", "prediction"]


# From a run to predictions, by the commands


def predicted(run: str, file: str) -> tuple[list[str], list[list[str]], str]:
    """Releases a run and predicts a file: the head, the rows, and what is said of them."""
    done = cli("release", run, "--to", "out", "--store", "runs.db")
    assert done.exit_code == 0, done.stderr
    done = cli("predict", "out", file)
    assert done.exit_code == 0, done.stderr
    head, *rows = (line.split(",") for line in done.stdout.splitlines())
    assert [row.pop(0) for row in (head, *rows)] == ["row", *(str(i + 1) for i in range(len(rows)))]
    return head, rows, done.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_digits_by_the_commands(here: Path) -> None:
    run = hanse.run(rounds=10, store="runs.db")
    test = digits().load().test
    assert test is not None
    np.savez("new.npz", x=test.x, y=test.y)
    head, rows, said = predicted(str(run.run), "new.npz")
    assert head == ["prediction", "probability", *(f"probability_{name}" for name in range(10))]
    due = softmax().bind((64,), 10).predict(run.params, test.x)
    assert [int(row[0]) for row in rows] == due.argmax(axis=1).tolist()
    assert [row[1] for row in rows] == [f"{share:.4f}" for share in due.max(axis=1)]
    assert np.array([row[2:] for row in rows], float) == pytest.approx(due, rel=1e-5, abs=1e-12)
    assert run.final is not None
    assert f"accuracy {run.final.metrics['accuracy']:.4f}" in said


def test_a_regression_of_a_table_by_the_commands(here: Path) -> None:
    lines = [f"{i % 7},{('day', 'night')[i % 2]},{3 * (i % 7) + 10 * (i % 2) + 1}" for i in range(60)]
    Path("costs.csv").write_text("\n".join(["hours,shift,cost", *lines]) + "\n")
    run = hanse.run(
        data=csv("costs.csv", target="cost"), partition=iid(3), model=least_squares(),
        algorithm=fed_sgd(lr=0.7), rounds=80, store="runs.db",
    )  # fmt: skip
    Path("new.csv").write_text("shift,hours\nday,2\nnight,2\nnight,6\n")
    head, rows, said = predicted(str(run.run), "new.csv")
    assert head == ["prediction"]
    assert [float(row[0]) for row in rows] == pytest.approx([7, 17, 29], abs=0.01)
    assert said == ""
    Path("known.csv").write_text("shift,hours,cost\nday,2,8\nnight,2,17\n")
    _, _, said = predicted(str(run.run), "known.csv")
    assert re.search(r"loss 0\.2[45]\d\d  squared_error 0\.(49|50)\d\d", said)
    Path("partly.csv").write_text("shift,hours,cost\nday,2,8\nnight,2,\n")
    _, rows, said = predicted(str(run.run), "partly.csv")
    assert len(rows) == 2
    assert said.startswith("Note: partly.csv: 1 of 2 rows have no label; the others are measured\nloss ")


def test_risks_by_the_commands(here: Path) -> None:
    rng = np.random.default_rng(0)
    ages = rng.integers(20, 90, size=80)
    lines = [f"{age},{rng.exponential(1000 / age):.3f},{int(rng.random() < 0.8)}" for age in ages]
    Path("stays.csv").write_text("\n".join(["age,time,died", *lines]) + "\n")
    run = hanse.run(
        data=csv("stays.csv", target=("time", "died")), partition=iid(2), model=cox(),
        algorithm=fed_sgd(lr=0.5), rounds=20, store="runs.db",
    )  # fmt: skip
    Path("new.csv").write_text("age,time,died\n30,5,1\n80,2,1\n30,9,0\n")
    head, rows, said = predicted(str(run.run), "new.csv")
    assert head == ["risk"]
    young, old, same = (float(row[0]) for row in rows)
    assert young == same < old
    model = open_release(Path("out"))
    assert model.encoder is not None
    encoded = model.encoder(Examples(as_table({"age": np.array([30.0, 80])}), np.zeros(2))).x
    assert [young, old] == pytest.approx(encoded @ run.params["weights"], rel=1e-5)
    assert "concordance 0.8333" in said  # old before both; the young ones' equal risks count 1/2: 2.5 of 3


def test_a_module_with_its_own_loss_by_the_commands(here: Path) -> None:
    pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    np.savez("a.npz", x=x, y=x @ np.array([2.0, -1], np.float32) + 1)
    run = hanse.run(
        data=npz("a.npz"), partition=iid(2), model=absolute_errors(), algorithm=fed_sgd(lr=0.1), rounds=40,
        store="runs.db",
    )  # fmt: skip
    head, rows, said = predicted(str(run.run), "a.npz")
    assert head == ["prediction"]
    due = x @ run.params["weight"][0] + run.params["bias"]
    assert [float(row[0]) for row in rows] == pytest.approx(due, rel=1e-5, abs=1e-6)
    assert due == pytest.approx(x @ [2.0, -1] + 1, abs=0.3)
    assert said.startswith("loss 0.")


def test_several_numbers_have_a_column_each(here: Path) -> None:
    pytest.importorskip("torch")
    Path("two.csv").write_text("a,b,c,d\n" + "".join(f"{i},{i * i % 7},{i % 3},{i % 5}\n" for i in range(40)))
    run = hanse.run(
        data=csv("two.csv", target=("d", "c")), partition=iid(2), model=absolute_errors(2),
        algorithm=fed_sgd(lr=0.1), rounds=2, store="runs.db",
    )  # fmt: skip
    head, rows, said = predicted(str(run.run), "two.csv")
    assert head == ["prediction_d", "prediction_c"]
    assert {len(row) for row in rows} == {2}
    assert len(rows) == 40
    model = open_release(Path("out"))
    found = predictions(model, "two.csv")
    assert found.values.shape == (40, 2)
    assert [[f"{number:.6g}" for number in row] for row in found.values.tolist()] == rows
    assert said.startswith("loss ")
    x = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    np.savez("b.npz", x=x, y=np.stack([x[:, 0], x[:, 1]], axis=1))
    run = hanse.run(
        data=npz("b.npz"), partition=iid(2), model=absolute_errors(2), algorithm=fed_sgd(lr=0.1), rounds=2,
        store="runs.db",
    )  # fmt: skip
    assert predicted(str(run.run), "b.npz")[0] == ["prediction_0", "prediction_1"]


def test_scores_are_called_scores(table: str) -> None:
    run = trained(table, model=linear_svm(0.01))
    Path("new.csv").write_text("job,age\ncook,22\nclerk,75\n")
    head, rows, _ = predicted(run, "new.csv")
    assert head == ["prediction", "score", "score_no", "score_yes"]
    assert [row[0] for row in rows] == ["no", "yes"]
    assert all(float(row[1]) > 0 for row in rows)
    assert max(float(row[1]) for row in rows) > 1  # no probability


def test_next_characters_have_a_column_for_each_place(here: Path) -> None:
    pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(6, size=(20, 4))
    data = from_clients([Examples(x[:10], (x[:10] + 1) % 6), Examples(x[10:], (x[10:] + 1) % 6)])
    model = char_lstm(6, embedding=3, hidden=4, layers=1)
    learner = model.bind((4,), None)
    params = learner.init(Key.from_seed(0))
    released = Released(learner, params, None, None, (), data.num_classes)
    np.savez("new.npz", x=x)
    head, *rows = predictions(released, "new.npz").rows()
    assert head == ["row", "prediction_0", "prediction_1", "prediction_2", "prediction_3"]
    assert np.array(rows, int)[:, 1:].tolist() == learner.predict(params, x).argmax(-1).tolist()


def test_labels_in_words_are_those_of_the_model(here: Path) -> None:
    x = np.random.default_rng(0).normal(size=(90, 3))
    words = np.array(["cat", "dog", "owl"])[x.argmax(axis=1)]
    np.savez("a.npz", x=x, y=words)
    run = hanse.run(
        data=npz("a.npz"), partition=iid(2), algorithm=fed_sgd(lr=1.0), rounds=20, store="runs.db"
    )
    rows = np.flatnonzero(words == "owl")
    np.savez("owls.npz", x=x[rows], y=words[rows])
    _, found, said = predicted(str(run.run), "owls.npz")
    share = np.mean([row[0] == "owl" for row in found])
    assert share > 0.8
    assert f"accuracy {share:.4f}" in said
    np.savez("more.npz", x=x[:2], y=np.array(["owl", "emu"]))
    done = cli("predict", "out", "more.npz")
    assert done.exit_code == 2
    assert "more.npz: array 'y', row 1 holds no class (so in 1 rows); the classes are 'cat'" in done.stderr


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"features": np.ones((2, 64))},
            "new.npz has no array 'x'; it has features: write numpy.savez(path, x=features), or x = ...",
        ),
        ({"x": np.ones((2, 3))}, "examples of 3 features"),
        ({"x": np.ones((0, 64))}, "new.npz holds no rows to predict"),
        ({"x": np.array([{}, {}])}, "new.npz is not an archive of plain arrays (Object arrays"),
    ],
)
def test_arrays_that_can_not_be_predicted(here: Path, arrays: Any, message: str) -> None:
    run = hanse.run(rounds=1, store="runs.db")
    release(Runs("runs.db"), str(run.run), Path("out"))
    np.savez("new.npz", **arrays)
    done = cli("predict", "out", "new.npz")
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")


def test_what_can_not_be_used_is_explained(table: str) -> None:
    assert "is not a released model: it has no model.json" in cli("predict", ".", table).stderr
    assert (
        f"{table} is a file; name the folder that hanse release wrote" in cli("predict", table, table).stderr
    )
    run = trained(table)
    release(Runs("runs.db"), run, Path("out"))
    Path("other.csv").write_text("height,job\n1,cook\n")
    assert (
        "other.csv has no column 'age'; the model wants age, job" in cli("predict", "out", "other.csv").stderr
    )
    assert "no file 'nothing.csv'" in cli("predict", "out", "nothing.csv").stderr
    about = json.loads(Path("out/model.json").read_text())
    Path("out/model.json").write_text(json.dumps({**about, "model": {"name": "mine"}}))
    with pytest.raises(InvalidInput, match=r'model\.name is "mine"'):
        open_release(Path("out"))


def test_a_patient_with_a_missing_word_is_predictable(table: str) -> None:
    run = trained(table)
    release(Runs("runs.db"), run, Path("out"))
    for row in ("75,,", "75,?,", ",clerk,"):
        Path("new.csv").write_text(f"age,job,extra\n{row}\n")
        done = cli("predict", "out", "new.csv")
        assert (done.exit_code, done.stderr) == (0, ""), done.stderr
        if row.startswith("75"):
            assert done.stdout.splitlines()[1].startswith("1,yes,")
    Path("new.csv").write_text("age,job\n75,pilot\n30,smith\n")
    done = cli("predict", "out", "new.csv")
    assert done.exit_code == 0
    assert "Note: new.csv: none of the categories in column 'job' is known" in done.stderr


def test_labels_are_measured_or_refused_with_their_row(table: str) -> None:
    release(Runs("runs.db"), trained(table), Path("out"))
    head = "age,job,sick\n"
    Path("new.csv").write_text(head + "22,cook,no\n75,clerk,None\n76,clerk,no\n23,cook,no\n")
    done = cli("predict", "out", "new.csv")
    assert [line.split(",")[1] for line in done.stdout.splitlines()[1:]] == ["no", "yes", "yes", "no"]
    assert "Note: new.csv: 1 of 4 rows have no label; the others are measured\n" in done.stderr
    assert "accuracy 0.6667" in done.stderr
    Path("new.csv").write_text(head + "22,cook,no\n75,clerk,perhaps\n")
    done = cli("predict", "out", "new.csv")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "new.csv, line 3: column 'sick' holds no class (so in 1 rows); the classes are 'no'" in done.stderr
    assert "perhaps" not in done.output
    Path("new.csv").write_text("age;job;sick\n22,5;cook;no\n75,5;clerk;yes\n")
    done = cli("predict", "out", "new.csv")
    assert done.exit_code == 2
    assert 'decimal = ","' in done.stderr
    assert "given in place of new.csv: own.toml" in done.stderr
    Path("own.toml").write_text('data = {name = "csv", path = "new.csv", decimal = ","}')
    done = cli("predict", "out", "own.toml")
    assert done.exit_code == 0, done.stderr
    assert "accuracy 1.0000" in done.stderr


def test_classes_are_those_of_the_model_whatever_a_file_holds(here: Path) -> None:
    """Labels as numbers name the classes of the model: they are not counted anew in each file."""
    x = np.random.default_rng(0).normal(size=(120, 3))
    stage = x.argmax(axis=1) + 2
    lines = [f"{a},{b},{c},{y}" for (a, b, c), y in zip(x, stage, strict=True)]
    Path("stages.csv").write_text("\n".join(["a,b,c,stage", *lines]) + "\n")
    run = hanse.run(
        data=csv("stages.csv", label="stage"), partition=iid(2), algorithm=fed_sgd(lr=1.0), rounds=40,
        store="runs.db",
    )  # fmt: skip
    release(Runs("runs.db"), str(run.run), Path("out"))
    rows = np.flatnonzero(stage != 2)
    for numbers in (stage[rows], stage[rows].astype(float), stage[rows].astype(str)):
        Path("some.csv").write_text(
            "\n".join(
                ["a,b,c,stage", *(f"{a},{b},{c},{y}" for (a, b, c), y in zip(x[rows], numbers, strict=True))]
            )
        )
        done = cli("predict", "out", "some.csv")
        found = [int(line.split(",")[1]) for line in done.stdout.splitlines()[1:]]
        assert f"accuracy {np.mean(found == stage[rows]):.4f}" in done.stderr
        assert np.mean(found == stage[rows]) > 0.8


def test_a_missing_folder_is_named(table: str) -> None:
    done = cli("predict", "nosuch", table)
    assert done.exit_code == 2
    assert "no folder 'nosuch'; name one that hanse release wrote" in done.stderr


def test_the_card_tells_the_audit_of_the_same_settings_and_refuses_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(
        """
rounds = 1
partition = {name = "iid", num_clients = 20}
baselines = [{name = "centralised"}]
[audit]
num_shadows = 8
num_canaries = 20
num_iterations = 1
rounds = 1
max_accuracy_lost = 1.0
max_attribute_gain = 0.1
"""
    )
    done = cli("audit", "mine.toml", "--json")
    assert done.exit_code == 1, done.output  # no column was named, so one claim was not measured
    Path("audit.json").write_text(done.stdout)
    said = cli("run", "mine.toml", "--store", "runs.db", "--json").stdout
    run = json.loads(said.splitlines()[-1])["run"]
    done = cli("release", run, "--to", "out", "--store", "runs.db", "--audit", "audit.json")
    assert done.exit_code == 0, done.output
    card = Path("out/README.md").read_text()
    assert "attacked this federation in simulation" in card
    assert "`max_attribute_gain = 0.1`: not measured, it does not hold" in card
    assert re.search(r"`max_accuracy_lost = 1`: \S+, it holds", card)
    assert "gain db" in card
    other = json.loads(Path("audit.json").read_text())
    other["data_sha256"] = "0" * 64
    Path("other.json").write_text(json.dumps(other))
    assert cli("release", run, "--to", "out", "--store", "runs.db", "--audit", "other.json").exit_code == 0
    assert "settings on other data" in Path("out/README.md").read_text()
    other["settings"]["rounds"] = 2
    Path("other.json").write_text(json.dumps(other))
    done = cli("release", run, "--to", "out", "--store", "runs.db", "--audit", "other.json")
    assert done.exit_code == 2
    assert "rounds differ" in done.output
    Path("other.json").write_text("{}")
    done = cli("release", run, "--to", "out", "--store", "runs.db", "--audit", "other.json")
    assert done.exit_code == 2
    assert "not the result of an audit" in done.output
