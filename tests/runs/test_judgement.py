"""The status and findings of a run are true: abandoned rounds, clients that were not counted."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hanse
from hanse.algorithms import dane, local_steps, one_shot
from hanse.cli import app
from hanse.core import Learner
from hanse.core.exchange import Record, Usage
from hanse.data import iid, shards
from hanse.learners import softmax
from hanse.runs.judgement import DEVICE_NOT_REPEATABLE, find_problems, has_trained, judge_status

WELL = Usage(counted=3)


def rounds(*abandoned: str | None, loss: float = 0.5) -> list[Record]:
    """Make the record of the beginning, and one for each round, with the reason if it was abandoned."""
    losses = [1.0, *[loss] * len(abandoned)]
    return [
        Record(number, {"loss": losses[number]}, WELL if number and why is None else Usage(), 0.1, why)
        for number, why in enumerate([None, *abandoned])
    ]


@dataclass(frozen=True)
class One:
    who: str
    asked: int
    counted: int
    why: str


def codes(*given: Any) -> list[str]:
    return [finding.code for finding in find_problems(*given)]


def test_a_run_without_fault_is_completed() -> None:
    assert find_problems(rounds(None, None)) == ()
    assert judge_status("completed", ()) == "completed"


def test_abandoned_rounds_are_counted() -> None:
    found = find_problems(rounds(None, "too few", "none came"))
    assert [finding.code for finding in found] == ["rounds_abandoned"]
    assert found[0].text == ("2 of 3 rounds were abandoned; the last of them, round 3, because none came")
    assert judge_status("completed", found) == "incomplete"
    assert judge_status("diverged", found) == "diverged"


def test_a_run_of_abandoned_rounds_has_trained_nothing() -> None:
    assert codes(rounds("none came", "none came")) == ["untrained", "rounds_abandoned"]
    assert not has_trained(rounds("none came"))
    assert not has_trained(rounds())
    assert has_trained(rounds("none came", None))


def test_a_round_whose_evaluation_failed_has_trained() -> None:
    closed = Record(1, {}, WELL, 0.1, "evaluation: nobody measured")
    assert has_trained([closed])
    assert codes([*rounds(), closed]) == ["rounds_abandoned"]


def test_clients_that_were_not_counted_are_named_with_the_reason() -> None:
    never, seldom = One("client 1", 5, 0, "declined"), One("north", 5, 2, "silent")
    found = find_problems(rounds(None), [never, seldom])
    assert [finding.text for finding in found] == [
        "client 1 was counted in no round: declined",
        "north was counted in 2 of 5 rounds: silent",
    ]
    assert judge_status("completed", found) == "incomplete"


@pytest.mark.parametrize(("loss", "due"), [(1.5, True), (float("nan"), True), (1.0, False), (0.9, False)])
def test_a_model_that_is_worse_than_at_the_start(loss: float, due: bool) -> None:
    found = find_problems(rounds(None, loss=loss))
    assert [finding.code for finding in found] == ["worse_than_start"] * due
    assert judge_status("completed", found) == "completed"


def measured(**metrics: list[float]) -> list[Record]:
    """Make the records of rounds in which these metrics were measured."""
    rows = [dict(zip(metrics, row, strict=True)) for row in zip(*metrics.values(), strict=True)]
    return [Record(number, row, WELL if number else Usage(), 0.1) for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("losses", "due"),
    [
        ([2.0, 20.5, 1.0], ["peaked"]),
        ([2.0, 19.5, 1.0], []),
        ([2.0, 30.0, 2.5], ["worse_than_start", "peaked"]),
        ([0.0, 1.0, 0.0], []),
    ],
)
def test_a_loss_that_rose_tenfold_is_told_even_if_it_falls_again(losses: list[float], due: list[str]) -> None:
    assert codes(measured(loss=losses)) == due


def test_the_objective_is_judged_where_it_was_measured() -> None:
    assert codes(measured(loss=[1.0, 2.0], objective=[1.0, 0.5])) == []
    assert codes(measured(loss=[2.0, 1.0], objective=[0.5, 1.0])) == ["worse_than_start"]


@pytest.mark.parametrize(
    ("before", "after", "due"),
    [([8.0, 1e-9], [0.1, 1e-9], False), ([8.0, 2.0], [1.1, 0.0], True), ([1.0], [float("nan")], True)],
)
def test_local_problems_that_are_not_solved(before: list[float], after: list[float], due: bool) -> None:
    found = find_problems(measured(train_gradient_before=before, train_gradient_after=after))
    assert [finding.code for finding in found] == ["unsolved"] * due


SMALL: dict[str, Any] = {"model": softmax(l2=0.01), "rounds": 1}


def test_a_solver_that_stops_too_early_is_found() -> None:
    given: dict[str, Any] = {**SMALL, "model": softmax(l2=0.1), "partition": iid(5)}
    early = hanse.run(algorithm=dane(solver=local_steps(0.01, epochs=1)), **given)
    assert [finding.code for finding in early.findings] == ["unsolved"]
    assert "left 99% of the gradient" in early.findings[0].text or "left 100%" in early.findings[0].text
    assert hanse.run(algorithm=dane(), **given).findings == ()
    assert hanse.run(algorithm=one_shot(), **given).findings == ()


def test_the_advice_is_for_the_algorithm_that_ran() -> None:
    given: dict[str, Any] = {**SMALL, "model": softmax(l2=0.03), "partition": shards(5, 1)}
    (found,) = hanse.run(algorithm=one_shot(), **given).findings
    assert (found.code, found.cure) == ("worse_than_start", one_shot.remedy)
    assert "fed_avg" in found.cure
    with (
        np.errstate(all="ignore"),
        pytest.raises(hanse.RunDiverged, match="write a larger mu"),
    ):
        hanse.run(algorithm=dane(), **{**given, "rounds": 2})


def test_a_run_whose_devices_all_drop_out_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANSE_STORE", str(tmp_path / "store.db"))
    settings = tmp_path / "app.toml"
    settings.write_text('rounds = 2\ndevices = { name = "unstable", fraction = 1.0 }\n')
    ran = CliRunner().invoke(app, ["run", str(settings), "--json"], prog_name="hanse")
    assert ran.exit_code == 1, ran.output
    result = json.loads(ran.stdout)
    assert (result["status"], result["rounds_abandoned"]) == ("incomplete", 2)
    assert [finding["code"] for finding in result["findings"]] == ["untrained", "rounds_abandoned"]
    assert all(finding.keys() == {"code", "text", "cure"} for finding in result["findings"])
    for words, due in (
        (["ls"], "incomplete"),
        (["show", result["run"]], "2 of 2 rounds were abandoned"),
        (["report", result["run"], "--to", str(tmp_path / "page"), "--no-images"], ""),
    ):
        given = CliRunner().invoke(app, words, prog_name="hanse")
        assert given.exit_code == 0, given.output
        assert due in given.stdout
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "no round closed, so the model is the one that the run began with" in page
    refused = CliRunner().invoke(
        app, ["release", result["run"], "--to", str(tmp_path / "m")], prog_name="hanse"
    )
    assert refused.exit_code == 2
    assert "has trained nothing" in refused.output
    assert not (tmp_path / "m").exists()
    again = CliRunner().invoke(app, ["resume", result["run"]], prog_name="hanse")
    assert again.exit_code == 1
    assert "is incomplete: it has come to its end already" in again.output


def test_the_card_of_a_released_model_tells_what_its_run_lacked(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    result = hanse.run(rounds=2, store=store)
    from hanse.store import Runs

    runs = Runs(store)
    plain = {**result.to_json(), "findings": [{"code": "x", "text": "north was away", "cure": "ask north"}]}
    runs.finish(str(result.run), "incomplete", plain)
    given = CliRunner().invoke(
        app,
        ["release", str(result.run), "--to", str(tmp_path / "m"), "--store", str(store)],
        prog_name="hanse",
    )
    assert given.exit_code == 0, given.output
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "the run is incomplete" in card
    assert "- **Note:** north was away; ask north." in card


def test_a_run_on_a_device_that_does_not_repeat_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DEVICE_NOT_REPEATABLE not in hanse.run(rounds=1).findings
    monkeypatch.setattr(Learner, "is_repeatable", property(lambda learner: False))
    result = hanse.run(rounds=1)
    assert DEVICE_NOT_REPEATABLE in result.findings
    assert result.status == "completed"
