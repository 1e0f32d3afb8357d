"""Sweeps over attacks compare choices under each attack and by their worst case, and rank no attack."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hanse
from hanse.cli import app
from hanse.cli.sweep_views import sweep_page
from hanse.core import Stop
from hanse.sweeps import picture
from hanse.sweeps.result import SweepResult, SweepRun


def member(
    rule: str, attack: Any, accuracy: float | None, success: float | None = None, *, loss: bool = False
) -> SweepRun:
    """Makes a run; without an accuracy it diverged."""
    over = {"algorithm.into": rule, "adversary.attack": attack}
    if accuracy is None:
        return SweepRun(over, 0, "id", "diverged")
    final = {"round": 3, "loss" if loss else "accuracy": accuracy}
    final |= {} if success is None else {"attack_accuracy": success}
    judged = {} if attack == "none" else {"adversary": {"precision": 0.5, "recall": None}}
    costs = dict.fromkeys(("bytes_up", "bytes_down", "seconds", "virtual_s"), 1.0)
    best = {**final, "loss" if loss else "accuracy": 0.99}
    said = {"final": final, "best": best, "rounds": 3, "rounds_to_target": None, **costs, **judged}
    return SweepRun(over, 0, "id", "completed", None, said)


TABLE = [
    *(
        member("mean", attack, reached)
        for attack, reached in (("none", 0.95), ("sign", 0.2), ("noise", None))
    ),
    *(member("krum", attack, reached) for attack, reached in (("none", 0.7), ("sign", 0.6), ("noise", 0.65))),
    *(
        member("median", attack, reached)
        for attack, reached in (("none", 0.8), ("sign", 0.5), ("noise", 0.9))
    ),
]


def test_rows_are_sorted_by_the_worst_case_and_each_attack_has_a_best_rule() -> None:
    result = SweepResult.of(TABLE, Stop(), "")
    assert [choice.over["algorithm.into"] for choice in result.choices] == ["krum", "median", "mean"]
    assert [choice.worst for choice in result.choices] == ["sign", "sign", "noise"]
    assert result.conditions == ("nobody lies", "sign", "noise")
    best = {name: str(result.find_best(name)) for name in result.conditions}
    assert best == {"nobody lies": "into=mean", "sign": "into=krum", "noise": "into=median"}
    krum = result.to_json()["choices"][0]
    assert krum["final"] == {"nobody lies": 0.7, "sign": 0.6, "noise": 0.65}
    assert krum["best_under"] == ["sign"]
    assert [setting.over["adversary.attack"] for setting in result.settings[:3]] == ["none", "sign", "noise"]


def test_where_lower_is_better_the_worst_case_is_the_highest() -> None:
    mean = [member("mean", "none", 0.1, loss=True), member("mean", "sign", 3.0, loss=True)]
    runs = [*mean, member("krum", "none", 0.4, loss=True), member("krum", "sign", 0.5, loss=True)]
    result = SweepResult.of(runs, Stop("loss"), "")
    assert [(str(choice), choice.worst) for choice in result.choices] == [
        ("into=krum", "sign"),
        ("into=mean", "sign"),
    ]
    assert str(result.find_best("nobody lies")) == "into=mean"


def test_under_a_backdoor_the_best_rule_is_the_one_under_which_it_succeeds_least(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [member("mean", "none", 0.9), member("mean", "patch", 0.9, 0.98),
            member("krum", "none", 0.8), member("krum", "patch", 0.7, 0.01)]  # fmt: skip
    result = SweepResult.of(runs, Stop(), "")
    assert str(result.find_best("patch")) == "into=krum"
    assert any("a backdoor does not show in the metric" in note for note in result.notes)
    sweep_page(result)
    metric, success, precision = capsys.readouterr().out.split("\n\n")[:3]
    rows = [row.split() for row in metric.splitlines()[2:]]
    assert rows == [["mean", "0.9000", "*", "0.9000", "0.9000"], ["krum", "0.8000", "0.7000", "0.7000"]]
    assert [row.split() for row in success.splitlines()[2:]] == [
        ["mean", "–", "0.9800"],
        ["krum", "–", "0.0100", "*"],
    ]
    assert "precision" in precision
    assert "*" not in precision
    assert "recall" not in precision


def test_without_conditions_settings_are_ranked_as_before() -> None:
    runs = [
        SweepRun({"algorithm.into": run.over["algorithm.into"]}, 0, "id", run.status, None, run.result)
        for run in TABLE[::3]
    ]
    result = SweepResult.of(runs, Stop(), "")
    assert result.choices == ()
    assert "choices" not in result.to_json()


def test_a_file_of_rules_and_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("liars.toml").write_text(
        """
        rounds = 2
        evaluate_every = 2
        partition = {name = "iid", num_clients = 10}
        algorithm = {name = "fed_avg", fraction = 1.0, epochs = 1}
        adversary = {fraction = 0.2, attack = "label_flip"}
        [sweep.over]
        "algorithm.into" = ["mean", {name = "multi_krum", num_byzantine = 2, num_selected = 6}]
        "adversary.attack" = ["none", {name = "scaled_mean", factor = -20}]
        """
    )
    told = ["sweep", "liars.toml", "--store", "s.db", "--workers", "1"]
    found = json.loads(CliRunner().invoke(app, [*told, "--json"]).stdout)
    best, worst = found["choices"]
    assert best["over"]["algorithm.into"]["name"] == "multi_krum"
    assert (worst["over"], worst["worst"]) == ({"algorithm.into": "mean"}, "scaled_mean(factor=-20)")
    assert worst["final"]["nobody lies"] > 0.8 > 0.5 > worst["final"]["scaled_mean(factor=-20)"]
    judged = [setting.get("attack") for setting in found["settings"]]
    assert judged[1]["recall"]["mean"] == 1
    assert judged[1]["precision"]["mean"] == 0.5
    assert judged[0] is judged[2] is None
    honest = hanse.read(None, sets=["adversary.fraction=0.2", "adversary.attack=none"]).adversary
    assert honest is None
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    done = CliRunner().invoke(app, [*told, "--picture", "p.html"])
    assert "worst case" in done.stdout
    assert "worst case" in Path("p.html").read_text()


def test_a_picture_of_choices_has_the_success_of_backdoors_apart() -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    runs = [member("mean", "none", 0.9), member("mean", "patch", 0.9, 0.98)]
    drawn = picture.chart(SweepResult.of(runs, Stop(), "")).to_json()
    assert "Success of the backdoor" in drawn
    assert "Success of the backdoor" not in picture.chart(SweepResult.of(TABLE, Stop(), "")).to_json()
