"""Adaptive clipping: its norm finds the quantile, and what the count costs is charged to the digit."""

import math
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg
from hanse.core import (
    CompositionError,
    InvalidInput,
    Key,
    Keys,
    Part,
    Parts,
    PartSpec,
    Release,
    Spec,
    Total,
    fixed_mean,
)
from hanse.core.exchange import ReleaseRecord
from hanse.data import digits, iid
from hanse.privacy import adaptive_clip, central, compose, gaussian
from hanse.runs import prepare_run

SPEC = Spec.of({"w": np.zeros(4000)})
KEYS = Keys.from_seed(0)


def chain(stage: adaptive_clip, z: float, denominator: float) -> Any:
    return PartSpec(SPEC, (stage, gaussian(z)), fixed_mean(denominator), max_weight=1.0).chain()


def test_no_message_is_longer_than_its_bound_and_each_says_whether_it_was_short() -> None:
    stage = adaptive_clip(2.0, count_fraction=0.04)(SPEC)
    assert stage.out.l2_bound == 1.0
    for norm, share, sign in ((10.0, 1.0, -1), (2.0, 1.0, 1), (0.5, 0.25, 1)):
        given = Part({"w": np.full(4000, norm / math.sqrt(4000))})
        part, _ = stage.encode(2.0, given, {}, KEYS)  # type: ignore[misc]
        update = np.linalg.norm(part.values["w"])
        assert update == pytest.approx(share * math.sqrt(0.96))
        assert float(part.values["~not clipped"]) == pytest.approx(sign * 0.2)
        assert math.hypot(update, 0.2) <= 1 + 1e-12
        many = stage.encode_many(2.0, Parts({"w": given.values["w"][None]}, np.ones(1)), None)  # type: ignore
        assert many is not None
        for name, values in part.values.items():
            assert (many.values[name][0] == values).all(), name


def test_the_noise_of_update_and_count_is_that_of_the_paper_and_both_are_charged() -> None:
    """z_delta = (z^-2 - (2 sigma_b)^-2)^-1/2, measured on the noise that is really added."""
    z, num_clients, norm = 1.5, 50.0, 3.0
    stage = adaptive_clip(norm, count_fraction=0.1, lr=1.0, quantile=0.5)
    z_delta, sigma_b = stage.measure_update_noise(z), stage.measure_count_noise(z)
    assert z_delta == pytest.approx((z**-2 - (2 * sigma_b) ** -2) ** -0.5, rel=1e-12)
    bound = chain(stage, z, num_clients)
    zeros = Total(
        {name: np.zeros([int(n) for n in t.shape]) for name, t in bound.out.tensors.items()}, 0.0, 0
    )
    updates, counts = [], []
    for number in range(300):
        total, states = bound.decode(bound.init(), (norm, None), zeros, Key.from_seed(number))
        updates.append(total.values["w"])
        counts.append(num_clients * -math.log(states[0] / norm))  # lr 1, and half of nobody is the quantile
    assert np.std(updates) == pytest.approx(z_delta * norm / num_clients, rel=0.005)
    assert np.std(counts) == pytest.approx(sigma_b, rel=0.2)
    assert bound.releases == (Release("gaussian", z),)
    apart = [ReleaseRecord("u", Release("gaussian", each), 0.1, 1) for each in (z_delta, 2 * sigma_b)]
    ((_, together),) = compose(apart)
    assert together == pytest.approx(z, rel=1e-12), "the same as two releases of one sample"


def test_the_norm_finds_the_quantile_of_the_norms() -> None:
    stage = adaptive_clip(0.01, quantile=0.8)
    bound = chain(stage, 0.01, 100.0)
    norms, states = np.linspace(1.0, 2.0, 100), bound.init()
    for number in range(120):
        plans = bound.plan(states, Key.from_seed(number))
        parts = [bound.encode(plans, Part({"w": np.eye(1, 4000)[0] * n}), {}, KEYS)[0].values for n in norms]
        total = {name: sum(part[name] for part in parts) / 100 for name in parts[0]}
        exact = np.minimum(norms, plans[0]).mean()
        found, states = bound.decode(states, plans, Total(total, 100.0, 100), Key.from_seed(number))
        assert found.values["w"][0] == pytest.approx(exact, rel=0.01)
        assert found.values.keys() == {"w"}
    assert states[0] == pytest.approx(1.8, rel=0.02)


@pytest.mark.parametrize("plan", [0.0, -1.0, math.inf, math.nan, None])
def test_a_client_refuses_a_norm_that_is_none(plan: Any) -> None:
    stage = adaptive_clip()(SPEC)
    with pytest.raises(InvalidInput, match="must be a number above 0"):
        stage.encode(plan, Part({"w": np.ones(4000)}), {}, KEYS)  # type: ignore[misc]


def test_what_it_can_not_clip_is_refused() -> None:
    with pytest.raises(CompositionError, match="is there twice"):
        PartSpec(SPEC, (adaptive_clip(), adaptive_clip())).chain()
    with pytest.raises(CompositionError, match="needs real numbers"):
        adaptive_clip()(Spec.of({"w": np.zeros(2, np.int64)}))
    with pytest.raises(InvalidInput, match="count_fraction"):
        adaptive_clip(count_fraction=0.0)


def test_a_budget_takes_it_for_its_norm() -> None:
    given = hanse.Experiment(
        algorithm=fed_avg(0.5, 0.2),
        data=digits(),
        partition=iid(60),
        rounds=3,
        privacy=central(epsilon=4.0, delta=1e-3, max_norm=adaptive_clip(0.3)),
    )
    ready = prepare_run(given)
    made: Any = ready.experiment.algorithm
    assert made.uplink[0] == adaptive_clip(0.3)
    said = hanse.perform(given).privacy
    assert said is not None
    assert 0 < said["epsilon"] < 4.0
