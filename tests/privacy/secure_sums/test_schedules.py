"""Clients leave a secure sum at every exchange: the total is exact, or there is none."""

import random
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
import pytest
from support import KEYS, simulation

from benchmarks.privacy.schedules import NEVER, check, check_simulated, draw_many, draw_schedule
from hanse.algorithms import fed_avg
from hanse.core import RoundAbandoned
from hanse.core.exchange import Progress, drive
from hanse.privacy.secure_sums import secure_mean, secure_sum
from hanse.simulation import unstable
from hanse.transforms import clip


def test_all_schedules_of_six_clients_are_exact_or_abandoned() -> None:
    exact = sum(check(leaves, secure_sum()) for leaves in product(range(NEVER + 1), repeat=6))
    assert exact == 1725


def test_random_schedules_of_clients_with_few_neighbours_are_exact_or_abandoned() -> None:
    sums = secure_sum(colluders=0.0, drop_out=0.1, num_neighbours=14)
    assert not sums.find_thresholds(40).is_complete
    rng = random.Random(3)
    exact = [check(draw_schedule(40, rng, leaving=share), sums) for share in (0.0, 0.1, 0.2, 0.6)]
    assert exact == [True, True, True, False]


@pytest.mark.parametrize(
    "into", [secure_sum(max_value=1e12), secure_mean(max_value=1e12)], ids=["sum", "mean"]
)
def test_schedules_through_the_runtime_equal_the_plain_sum(into: Any) -> None:
    closed = [check_simulated(leaves, into) for leaves in draw_many(15, 2)]
    assert 3 < sum(closed) < 14


def test_fed_avg_with_secure_means_ends_where_plain_means_do() -> None:
    """To within the steps of the scale, also with clients that fall silent."""
    ends = {}
    for into in (None, secure_mean()):
        chosen = {} if into is None else {"into": into}
        algorithm = fed_avg(0.05, fraction=1.0, uplink=(clip(1.0),), **chosen)
        begin = Progress(0, algorithm.init({"w": np.zeros(3), "b": np.zeros(())}, KEYS.public))
        runtime = simulation()
        state = begin.state
        for number in range(5):
            state = drive(algorithm.round(state, KEYS.public.fold_in(number)), runtime)
        ends[into is None] = state.params
    for name in ("w", "b"):
        np.testing.assert_allclose(ends[True][name], ends[False][name], rtol=0, atol=1e-9)


def test_a_round_goes_on_without_clients_that_fall_silent() -> None:
    algorithm = fed_avg(0.05, fraction=1.0, uplink=(clip(1.0),), into=secure_mean())
    state = algorithm.init({"w": np.zeros(3), "b": np.zeros(())}, KEYS.public)
    runtime, closed = simulation(devices=unstable(0.08)), 0
    for number in range(6):
        with suppress(RoundAbandoned):
            state = drive(algorithm.round(state, KEYS.public.fold_in(number)), runtime)
            closed += 1
    assert closed >= 4
    assert np.isfinite(state.params["w"]).all()
