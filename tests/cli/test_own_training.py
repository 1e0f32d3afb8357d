"""A training function of a user's own, named in a settings file: run, interrupted, resumed elsewhere."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from forked import PIPE, python
from typer.testing import CliRunner

import hanse
from hanse.cli import app
from hanse.core.exchange import Record
from hanse.store import Runs

if find_spec("hanse.imports") is None:
    pytest.skip("settings can't name modules of users", allow_module_level=True)

from own_code import forget, forget_imports

TRAINING = """
import numpy as np


def train(params, data, config, key, memory):
    rows = key.rng().permutation(len(data))[:20]
    slopes = np.exp(data.x[rows] @ params["weights"] + params["bias"])
    slopes /= slopes.sum(axis=1, keepdims=True)
    loss = -np.log(slopes[np.arange(len(rows)), data.y[rows]]).mean()
    slopes[np.arange(len(rows)), data.y[rows]] -= 1
    memory["slopes"] = config["momentum"] * memory.get("slopes", 0.0) + data.x[rows].T @ slopes
    params["weights"] -= config["lr"] * memory["slopes"]
    return None, None, {"loss": loss}
"""

SETTINGS = """
imports = ["my_training.py"]
rounds = 4
partition = {name = "iid", num_clients = 5}

[algorithm]
name = "fed_avg"
fraction = 0.6

[algorithm.client]
name = "trained_by"
function = "my_training:train"
config = {lr = 0.02, momentum = 0.5}
metrics = ["loss"]
"""

SCRIPT = (
    TRAINING
    + """

if __name__ == "__main__":
    import hanse
    from hanse.algorithms import fed_avg, trained_by
    from hanse.data import iid

    def watch(record):
        if record.round == 2:
            raise KeyboardInterrupt

    try:
        hanse.run(
            partition=iid(5),
            rounds=4,
            algorithm=fed_avg(
                fraction=0.6, client=trained_by(train, {"lr": 0.02, "momentum": 0.5}, metrics=("loss",))
            ),
            store="store.db",
            watch=watch,
        )
    except hanse.Interrupted as interrupted:
        print(interrupted.result.run)
"""
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HANSE_STORE", str(tmp_path / "store.db"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_training.py").write_text(TRAINING)
    (tmp_path / "mine.toml").write_text(SETTINGS)
    with forget_imports(tmp_path):
        yield tmp_path


def command(*words: str, code: int = 0) -> str:
    """What a process of its own says."""
    process = python("-m", "hanse", *words, stdout=PIPE, stderr=PIPE)
    stdout, stderr = process.communicate(timeout=280)
    assert process.returncode == code, stderr
    return stdout if code == 0 else " ".join(stderr.split())


def typed(*words: str, code: int = 0) -> str:
    """What a command says that is performed here, as by a process that has imported nothing of the user's."""
    forget(Path.cwd())
    done = CliRunner().invoke(app, words, prog_name="hanse")
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else " ".join(done.stderr.split())


def undisturbed() -> hanse.Result:
    return hanse.perform(hanse.read("mine.toml"))


def test_settings_name_a_function(folder: Path) -> None:
    done = json.loads(command("run", "mine.toml", "--json"))
    assert done["status"] == "completed"
    assert done["findings"] == []
    assert done["final"]["train_loss"] < 2.3
    assert done["params_sha256"] == undisturbed().params_sha256
    workers = typed("run", "mine.toml", "--json", "--set", "execution={name='sequential', num_workers=2}")
    assert json.loads(workers)["params_sha256"] == done["params_sha256"]
    other = typed("run", "mine.toml", "--json", "--set", "algorithm.client.config.lr=0.01")
    assert json.loads(other)["params_sha256"] != done["params_sha256"]


def test_a_stored_run_is_resumed_by_another_process_with_its_function(folder: Path) -> None:
    def watch(record: Record) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(hanse.Interrupted) as caught:
        hanse.perform(hanse.read("mine.toml"), store="store.db", watch=watch)
    run: Any = caught.value.result.run
    expected = undisturbed().params_sha256
    assert Runs("store.db").info(run).settings["imports"][0]["name"] == "my_training.py"
    text = TRAINING.replace("20]", "10]")
    (folder / "my_training.py").write_text(text)
    assert "my_training.py has changed" in typed("resume", run, code=2)
    (folder / "my_training.py").write_text(TRAINING)
    assert json.loads(command("resume", run, "--json"))["params_sha256"] == expected


def test_a_run_of_a_script_is_resumed_with_the_script(folder: Path) -> None:
    (folder / "my_script.py").write_text(SCRIPT)
    run = subprocess.run([sys.executable, "my_script.py"], capture_output=True, text=True, check=True)
    name = run.stdout.strip()
    said = typed("resume", name, code=2)
    assert "--import" in said
    assert "my_script.py" in said
    done = json.loads(command("resume", name, "--import", "my_script.py", "--json"))
    assert done["params_sha256"] == undisturbed().params_sha256


def test_a_function_that_is_not_there_is_named_with_a_cure(folder: Path) -> None:
    (folder / "mine.toml").write_text(SETTINGS.replace('imports = ["my_training.py"]', ""))
    with pytest.raises(hanse.InvalidInput, match=r'mine\.toml: .*imports = \["my_training\.py"\] .*--import'):
        hanse.read("mine.toml")
    forget(folder)
    (folder / "mine.toml").write_text(SETTINGS.replace(":train", ":trian"))
    with pytest.raises(hanse.InvalidInput, match="'my_training' defines no function 'trian'"):
        hanse.read("mine.toml")
    forget(folder)
    (folder / "mine.toml").write_text(SETTINGS.replace("config = {", "config = {name = 'x', "))
    with pytest.raises(hanse.InvalidInput, match=r"client\.config has a key .*call it otherwise"):
        hanse.read("mine.toml")


def test_the_settings_of_a_run_name_it_again(folder: Path) -> None:
    experiment = hanse.read("mine.toml")
    again = hanse.Experiment.from_settings(experiment.settings())
    assert again.algorithm == experiment.algorithm
