"""Metrics of a user's own model: which way is better, in runs, sweeps and what is read back later."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_code import forget, forget_imports
from typer.testing import CliRunner

from hanse.cli.commands import app
from hanse.store import Runs

USERS = Path(__file__).parents[1] / "users"
SETTINGS = """
imports = ["own_ranking.py"]
rounds = 4
partition = {name = "iid", num_clients = 12}
model = "own_ranking"
algorithm = {name = "fed_avg", lr = 0.3, fraction = 0.5}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HANSE_STORE", str(tmp_path / "store.db"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(USERS / "own_ranking.py", tmp_path)
    (tmp_path / "mine.toml").write_text(SETTINGS, encoding="utf-8")
    with forget_imports(tmp_path):
        yield tmp_path


def cli(folder: Path, *arguments: str) -> str:
    """Run a command as a new process would, which knows nothing of what others have imported."""
    forget(folder)
    done = CliRunner().invoke(app, arguments, prog_name="hanse")
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def run(folder: Path, *sets: str) -> dict[str, Any]:
    options = [word for one in sets for word in ("--set", one)]
    return dict(json.loads(cli(folder, "run", "mine.toml", "--json", *options)))


@pytest.mark.parametrize("metric", ["auc", "confidence"])
def test_a_run_watches_the_metric_of_an_own_model_in_the_right_direction(metric: str, folder: Path) -> None:
    result = run(folder, f"stop.metric={metric}", "stop.patience=1")
    measured = [record.metrics[metric] for record in Runs(folder / "store.db").records(result["run"])]
    assert measured[0] == min(measured) < 0.6
    assert result["best"][metric] == max(measured) > 0.6
    assert result["rounds"] > 1, "the metric rises at first, which is no reason to stop"
    assert result["higher_is_better"] == ["auc", "confidence"]
    each = sorted(result["clients"]["each"][metric])
    assert result["clients"]["worst_tenth"][metric] == pytest.approx(np.mean(each[:2]))
    target = run(folder, f"stop.metric={metric}", f"stop.target={measured[1]}")
    assert (target["rounds_to_target"], target["rounds"]) == (1, 1)
    assert target["best"][metric] == measured[1]


def test_settings_may_say_which_way_is_better(folder: Path) -> None:
    up, down = (
        run(folder, "stop.metric=loss", f"stop.higher_is_better={way}", "rounds=2")
        for way in ("true", "false")
    )
    assert up["best"]["round"] == 0 != down["best"]["round"]
    assert up["higher_is_better"] == ["auc", "confidence", "loss"]
    each = sorted(up["clients"]["each"]["loss"])
    assert up["clients"]["worst_tenth"]["loss"] == pytest.approx(np.mean(each[:2]))
    assert down["clients"]["worst_tenth"]["loss"] == pytest.approx(np.mean(each[-2:]))


def test_baselines_know_it_too(folder: Path) -> None:
    result = run(folder, "stop.metric=confidence", "stop.target=0.4", 'baselines=["centralised"]')
    (baseline,) = result["baselines"]
    curve = [row["confidence"] for row in baseline["curve"]]
    assert curve[0] < 0.4
    assert baseline["epochs_to_target"] == next((i for i, c in enumerate(curve) if c >= 0.4), None)
    each = sorted(baseline["clients"]["each"]["confidence"])
    assert baseline["clients"]["worst_tenth"]["confidence"] == pytest.approx(np.mean(each[:2]))


def test_a_sweep_chooses_the_highest_and_what_is_kept_says_so_without_the_module(folder: Path) -> None:
    with (folder / "mine.toml").open("a", encoding="utf-8") as file:
        file.write('stop = {metric = "confidence"}\n[sweep]\nseeds = [0]\n[sweep.over]\n')
        file.write('"algorithm.lr" = [0.3, 0.003]\nrounds = [1]\n')
    swept = json.loads(cli(folder, "sweep", "mine.toml", "--json", "--workers", "1"))
    assert (swept["metric"], swept["higher_is_better"]) == ("confidence", True)
    means = [setting["best"]["mean"] for setting in swept["settings"]]
    assert means[0] > means[1]
    assert swept["settings"][0]["over"]["algorithm.lr"] == 0.3
    (folder / "own_ranking.py").unlink()
    kept = [swept["settings"][i]["runs"][0]["run"] for i in (0, 1)]
    assert all("confidence 0." in line for line in cli(folder, "ls").splitlines() if kept[0] in line)
    assert "confidence" in cli(folder, "show", kept[0])
    said = [Runs(folder / "store.db").info(run).result for run in kept]
    assert [result and result["higher_is_better"] for result in said] == [["auc", "confidence"]] * 2
