"""Compressed broadcasts take an eighth of the bytes, and cost at most a point of accuracy."""

from typing import Any

import pytest

import hanse
from hanse.algorithms import fed_avg
from hanse.data import iid
from hanse.learners import mlp
from hanse.runs.dry_run import plan_messages
from hanse.runs.preparation import prepare_run
from hanse.runs.session import perform
from hanse.transforms import quantize, rotate, top_k


def experiment(downlink: Any, seed: int = 0, **changes: Any) -> hanse.Experiment:
    algorithm = fed_avg(lr=0.2, fraction=1.0, epochs=1, downlink=downlink)
    said = {"rounds": 32, "evaluate_every": 32, "partition": iid(20), "model": mlp((256,)), **changes}
    return hanse.Experiment(algorithm=algorithm, seed=seed, **said)


def test_eight_times_fewer_bytes_down_cost_less_than_a_point() -> None:
    pytest.importorskip("jax")
    accuracies = []
    for downlink in ((), (rotate(), quantize(2))):
        results = [perform(experiment(downlink, seed)) for seed in (0, 1)]
        down = [result.bytes_down for result in results]
        finals = [result.final.metrics["accuracy"] for result in results if result.final is not None]
        accuracies.append((sum(finals) / 2, sum(down) / 2))
    (full, all_of_it), (compressed, sent) = accuracies
    assert full - compressed < 0.01
    assert all_of_it > 8 * sent


def test_it_is_planned() -> None:
    """A client of the last round is sent the difference; in the first round all are sent the whole model."""
    small = experiment((top_k(0.1),), rounds=4, model=hanse.Experiment().model)
    plan, result = plan_messages(prepare_run(small)), perform(small)
    assert plan.total("down") == pytest.approx(result.bytes_down, rel=0.02)
    first, later = plan.first[0].usage, plan.later[0].usage
    assert later.bytes_down < first.bytes_down
    assert [flow.stages for flow in later.flows if flow.direction == "down"] == [("downlink(top_k(0.1))",)]
