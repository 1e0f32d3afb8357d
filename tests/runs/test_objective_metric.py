"""The training objective as a watched metric: rounds to a gap, from one run."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import Subproblem, fed_avg, fed_sgd, giant, newton
from hanse.core import Examples, Key, Stop
from hanse.data import from_clients
from hanse.evaluation import centralised
from hanse.learners import logistic, mlp, torch_engine
from hanse.report.run_data import RunData
from hanse.simulation import unstable

RNG = np.random.default_rng(1)
W = RNG.normal(size=4)


def client(n: int) -> Examples:
    x = RNG.normal(size=(n, 4))
    return Examples(x, (x @ W + RNG.normal(size=n) > 0).astype(int))


CLIENTS = [client(n) for n in (30, 50, 90)]
POOLED = Examples(np.concatenate([c.x for c in CLIENTS]), np.concatenate([c.y for c in CLIENTS]))
TEST = client(40)
MODEL = logistic(l2=0.1, dtype="float64")
SMALL: dict[str, Any] = {"data": from_clients(CLIENTS, test=TEST), "model": MODEL, "rounds": 3}
LEARNER = MODEL.bind((4,), 2)
GAP = 1e-6


def optimum() -> float:
    start = LEARNER.init(Key.from_seed(0))
    update = newton().minimise(LEARNER, start, Subproblem(POOLED, Key.from_seed(0)))
    return LEARNER.objective({name: start[name] + update[name] for name in start}, POOLED)


@pytest.mark.parametrize(
    ("algorithm", "most"), [(fed_sgd(lr=2.0, fraction=1.0), 100), (giant(fraction=1.0), 10)]
)
def test_one_run_says_how_many_rounds_lead_to_a_gap(algorithm: Any, most: int) -> None:
    best = optimum()
    stop = Stop("objective", target=best + GAP)
    result = hanse.run(**SMALL | {"rounds": most}, algorithm=algorithm, stop=stop)
    gaps = [record.metrics["objective"] - best for record in result.records]
    assert result.target_round == result.rounds < most
    assert gaps[-1] <= GAP < gaps[-2]
    assert all(b < a for a, b in itertools.pairwise(gaps))
    assert gaps[-1] == pytest.approx(LEARNER.objective(result.params, POOLED) - best, abs=1e-14)
    assert result.final is not None
    assert {"loss", "accuracy", "objective"} == set(result.final.metrics)


def test_it_is_of_the_training_examples_with_the_regulariser() -> None:
    result = hanse.run(**SMALL, stop=Stop("objective"))
    last = result.records[-1].metrics
    assert last["objective"] == pytest.approx(LEARNER.objective(result.params, POOLED), rel=1e-12)
    assert last["objective"] != pytest.approx(last["loss"], rel=1e-3)
    assert result.records[0].metrics["objective"] == pytest.approx(np.log(2), rel=1e-12)
    assert result.best is not None
    assert result.best.metrics["objective"] == min(record.metrics["objective"] for record in result.records)


def test_it_costs_nothing_unless_it_is_named() -> None:
    plain, asked = hanse.run(**SMALL), hanse.run(**SMALL, stop=Stop("objective"))
    assert plain.params_sha256 == asked.params_sha256
    assert all("objective" not in record.metrics for record in plain.records)
    for one, other in zip(plain.records, asked.records, strict=True):
        assert {**other.metrics, "objective": 0.0} == {**one.metrics, "objective": 0.0}
        assert other.usage.counted - one.usage.counted == 3
        assert other.usage.bytes_up > one.usage.bytes_up
    seldom = hanse.run(**SMALL | {"rounds": 4}, stop=Stop("objective"), evaluate_every=2)
    assert [record.round for record in seldom.records if "objective" in record.metrics] == [0, 2, 4]
    with pytest.raises(hanse.InvalidInput, match="never measured"):
        hanse.run(**SMALL, stop=Stop("objective", target=0.1), evaluate_every=0)


def test_a_client_that_is_away_leaves_no_number() -> None:
    """The objective of some clients is another one, and might reach a target by chance."""
    result = hanse.run(**SMALL | {"rounds": 8}, stop=Stop("objective"), devices=unstable(0.1))
    assert all(
        record.metrics.keys() in ({"loss", "accuracy", "objective"}, set()) for record in result.records
    )
    unmeasured = [record.abandoned for record in result.records if not record.metrics]
    assert 0 < len(unmeasured) < 8
    assert all(str(why).startswith("evaluation: 2 of 3") for why in unmeasured[:1])
    with pytest.raises(hanse.RoundAbandoned, match="2 of 3 contributions were counted, 3 are needed"):
        hanse.run(**SMALL, stop=Stop("objective"), devices=unstable(0.1), seed=2)


def test_budgets_of_baselines_leave_its_tickets_out() -> None:
    options: dict[str, Any] = {**SMALL, "algorithm": fed_avg(lr=0.1, fraction=1.0, epochs=2)}
    for data in (SMALL["data"], from_clients(CLIENTS)):
        result = hanse.run(**options | {"data": data}, stop=Stop("objective"), baselines=(centralised(),))
        assert result.baselines[0]["epochs"] == 6
        assert result.baselines[0]["epochs_to_target"] is None


def test_pages_leave_its_tickets_out_of_the_epochs() -> None:
    algorithm = {"name": "fed_avg", "epochs": 2}
    ends = {}
    for metric in ("accuracy", "objective"):
        result = hanse.run(**SMALL, algorithm=fed_avg(lr=0.1, fraction=1.0, epochs=2), stop=Stop(metric))
        settings = {"stop": {"metric": metric}, "partition": {"num_clients": 3}, "algorithm": algorithm}
        page = RunData("a", "a", "completed", "", settings, {"data": None}, {}, result.records)
        ends[metric] = [point["epochs"] for point in page.points()]
    assert ends["accuracy"] == ends["objective"] == [0.0, 2.0, 4.0, 6.0]


def test_models_of_neural_networks_have_one() -> None:
    pytest.importorskip("torch")
    model = mlp((3,), engine=torch_engine(), l2=0.5)
    result = hanse.run(**SMALL | {"model": model}, stop=Stop("objective"))
    pooled = model.bind((4,), 2).objective(result.params, POOLED)
    assert result.records[-1].metrics["objective"] == pytest.approx(pooled, rel=1e-6)


def test_settings_name_it(tmp_path: Path) -> None:
    (tmp_path / "convex.toml").write_text(
        'rounds = 4\nmodel = {name = "softmax", l2 = 0.01}\npartition = {name = "iid", num_clients = 4}\n'
        'stop = {metric = "objective", target = 2.0}\n'
    )
    experiment = hanse.read(tmp_path / "convex.toml")
    assert experiment.stop == Stop("objective", target=2.0)
    result = hanse.perform(experiment)
    assert result.reason == "objective reached 2"
    assert result.records[-1].metrics["objective"] <= 2.0 < result.records[-2].metrics["objective"]
