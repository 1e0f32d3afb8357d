"""Algorithms that measure their state themselves, report on it, and finish."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import own_heads

import hanse
from hanse.algorithms import apply_rest, fed_avg, fed_buff
from hanse.cli import views
from hanse.core import InvalidInput, Stop
from hanse.data import digits, iid
from hanse.runs import plan_messages, prepare_run, resume
from hanse.simulation import heavy_tailed, ideal
from hanse.store import Runs

PEOPLE: dict[str, Any] = {"data": digits(), "partition": iid(4)}
LABELS = [float(prepare_run(hanse.Experiment(**PEOPLE)).population.client(n).y.mean()) for n in range(4)]


def test_an_algorithm_without_parameters_is_measured_by_its_own_program(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    result = hanse.run(**PEOPLE, algorithm=own_heads(), rounds=4, evaluate_every=2, store=store)
    mean = float(np.mean(LABELS))
    errors = [record.metrics.get("error") for record in result.records]
    assert errors == [
        pytest.approx(mean),
        None,
        pytest.approx(mean * 0.75**2),
        None,
        pytest.approx(mean * 0.75**4),
    ]
    moved = [record.metrics.get("moved") for record in result.records]
    assert moved == [None, *(pytest.approx(4 * mean * 0.25 * 0.75**n) for n in range(4))]
    assert [record.is_measured for record in result.records] == [True, False, True, False, True]
    assert [record.reported for record in result.records] == [(), *[("moved",)] * 4]
    assert (result.final, result.params, result.clients) == (result.records[-1], {}, None)
    kept = Runs(store).records(str(result.run))
    assert [(r.metrics, r.reported, r.is_measured) for r in kept] == [
        (dict(r.metrics), r.reported, r.is_measured) for r in result.records
    ]


def test_its_metrics_are_watched_in_their_direction() -> None:
    result = hanse.run(**PEOPLE, algorithm=own_heads(), rounds=20, stop=Stop("agreement", target=1.0))
    assert result.reason == "agreement reached 1"
    assert result.rounds == result.target_round
    assert [record.metrics["agreement"] for record in result.records][-2:] == [0.0, 1.0]
    assert result.best == result.records[-1]
    assert result.higher_is_better == ("agreement",)
    plain = hanse.run(**PEOPLE, algorithm=own_heads(), rounds=3)
    assert plain.best == plain.records[0], "by default it watches the first that it names"
    errors = hanse.run(**PEOPLE, algorithm=own_heads(), rounds=3, stop=Stop("error"))
    assert errors.best == errors.records[-1]


def test_what_an_algorithm_does_not_measure_is_not_watched() -> None:
    with pytest.raises(InvalidInput, match=r"own_heads does not measure; write one of agreement, error$"):
        hanse.run(**PEOPLE, algorithm=own_heads(), stop=Stop("loss"))


def test_own_metrics_do_not_take_the_names_of_measured_ones() -> None:
    with pytest.raises(
        InvalidInput, match=r"^own_heads reports error as its own metric, but that is a name of"
    ):
        hanse.run(**PEOPLE, algorithm=own_heads(also="error"), rounds=1)
    with pytest.raises(InvalidInput, match="reports train_error as its own"):
        hanse.run(**PEOPLE, algorithm=own_heads(also="train_error"), rounds=1, evaluate_every=0)


def test_a_plan_counts_the_measurements_of_the_algorithm_itself() -> None:
    plan = plan_messages(prepare_run(hanse.Experiment(**PEOPLE, algorithm=own_heads(), rounds=5)))
    assert plan.evaluations == 6
    assert "measure_kept_head" in plan.evaluation[0].work


# -- the finish ------------------------------------------------------------------------------------


def test_a_run_finishes_once_and_the_finish_is_measured(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    result = hanse.run(**PEOPLE, algorithm=own_heads(finishes=True), rounds=3, evaluate_every=2, store=store)
    assert [record.round for record in result.records] == [0, 1, 2, 3, 4]
    assert result.final == result.records[-1]
    assert result.records[-1].metrics["error"] == pytest.approx(0.0, abs=1e-12)
    assert result.records[-1].usage.counted == 8, "four clients moved, and four measured"
    again = resume(str(result.run), store=store)
    assert len(again.records) == len(result.records)
    assert again.params_sha256 == result.params_sha256


def test_a_run_that_stops_early_finishes_too() -> None:
    stop = Stop("agreement", target=1.0)
    plain = hanse.run(**PEOPLE, algorithm=own_heads(), rounds=20, stop=stop)
    result = hanse.run(**PEOPLE, algorithm=own_heads(finishes=True), rounds=20, stop=stop)
    assert result.rounds == plain.rounds + 1
    assert (result.reason, result.target_round) == (plain.reason, plain.target_round)
    assert result.records[-1].metrics["error"] == pytest.approx(0.0, abs=1e-12)


def test_a_finish_may_reach_the_target_but_stops_nothing() -> None:
    result = hanse.run(**PEOPLE, algorithm=own_heads(finishes=True), rounds=1, stop=Stop("error", target=0.5))
    assert (result.reason, result.target_round, result.best) == (None, 2, result.records[-1])


def test_a_loop_that_is_left_does_not_finish() -> None:
    begun = hanse.rounds(**PEOPLE, algorithm=own_heads(finishes=True), rounds=5)
    for round in begun:
        if round.record.round == 2:
            break
    assert len(begun.result.records) == 3


def test_more_rounds_are_not_shown_than_were_asked_for() -> None:
    settings = {"rounds": 3}
    shown = [views._of_rounds(done, settings) for done in (2, 3, 4)]
    assert shown == ["2 of 3", "3 of 3", "3 of 3, and the finish"]


# -- FedBuff ---------------------------------------------------------------------------------------

BUFFERED = fed_buff(lr=0.3, concurrency=4, buffer_size=3)


def test_buffered_training_reports_the_staleness_of_its_buffer() -> None:
    result = hanse.run(**PEOPLE, algorithm=BUFFERED, rounds=6, devices=heavy_tailed())
    staleness = [record.metrics.get("staleness") for record in result.records]
    assert staleness[:2] == [None, 0.0]
    assert all(isinstance(s, float) and 0 <= s <= 6 for s in staleness[1:])
    assert max(staleness[2:]) > 0, "one of four is left behind each time"


def test_updates_in_flight_are_applied_if_that_is_asked_for() -> None:
    settings = {**PEOPLE, "rounds": 3, "devices": ideal()}
    dropped = hanse.run(**settings, algorithm=BUFFERED)
    applied = hanse.run(
        **settings, algorithm=fed_buff(lr=0.3, concurrency=4, buffer_size=3, rest=apply_rest())
    )
    assert len(dropped.records) == 4
    assert len(applied.records) == 5
    assert [r.metrics for r in applied.records[:4]] == [r.metrics for r in dropped.records]
    assert applied.records[-1].usage.counted == 1
    assert applied.params_sha256 != dropped.params_sha256


def test_algorithms_that_report_nothing_record_what_they_did() -> None:
    result = hanse.run(**PEOPLE, algorithm=fed_avg(lr=0.3), rounds=1)
    assert [sorted(record.metrics) for record in result.records] == [["accuracy", "loss"]] * 2
    assert [record.reported for record in result.records] == [(), ()]
