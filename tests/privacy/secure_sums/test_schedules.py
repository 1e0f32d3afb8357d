"""Clients leave a secure sum at every exchange: the total is exact, or there is none."""

import random
from contextlib import suppress
from itertools import count, product
from math import comb
from typing import Any

import numpy as np
import pytest
from support import KEYS, simulation

from benchmarks.privacy.schedules import (
    KEY,
    NEVER,
    NUMBERS,
    Leaving,
    Numbered,
    check,
    check_simulated,
    draw_many,
    draw_schedule,
    emit_numbers,
    numbers_of,
)
from hanse.algorithms import fed_avg
from hanse.core import Keys, Part, PartSpec, RoundAbandoned, gather
from hanse.core.exchange import Progress, drive
from hanse.privacy.secure_sums import secure_mean, secure_sum
from hanse.privacy.secure_sums.reducers import advertise_keys, deal_shares, reveal_shares
from hanse.simulation import InProcess, Simulation, unstable
from hanse.transforms import clip

SIX = ((3, 3), (4, 3), (5, 3), (6, 4))
"""How many of six clients are ready, and how many of those have to stay."""


def test_all_schedules_of_six_clients_are_exact_or_abandoned() -> None:
    exact = sum(check(leaves, secure_sum()) for leaves in product(range(NEVER + 1), repeat=6))
    ways = {(n, t): comb(6, n) * sum(comb(n, k) * 3 ** (n - k) for k in range(t, n + 1)) for n, t in SIX}
    assert exact == sum(ways.values()) == 1005


def test_random_schedules_of_clients_with_few_neighbours_are_exact_or_abandoned() -> None:
    sums = secure_sum(colluders=0.0, drop_out=0.1, num_neighbours=14)
    assert not sums.find_thresholds(40).is_complete
    rng = random.Random(3)
    exact = [check(draw_schedule(40, rng, leaving=share), sums) for share in (0.0, 0.1, 0.2, 0.6)]
    assert exact == [True, True, True, False]


@pytest.mark.parametrize(
    "into",
    [secure_sum(max_value=1e12, max_weight=1e3), secure_mean(max_value=1e12, max_weight=1e3)],
    ids=["sum", "mean"],
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


def spoil(kind: Any, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Lets one client of each six answer a phase as it should not."""
    asked, answer = count(), kind.run

    def run(*given: Any) -> Any:
        contribution, memory = answer(*given)
        return (change(contribution) if next(asked) % 6 == 5 else contribution), memory

    monkeypatch.setattr(kind, "run", run)


def cut(contribution: Any) -> Any:
    """Leaves the last row out."""
    return {name: Part({n: v[:-1] for n, v in p.values.items()}) for name, p in contribution.items()}


def weaken(contribution: Any) -> Any:
    """Advertises a sealing key with which all agree on 0."""
    keys = contribution["advert"].values["keys"].copy()
    keys[:32] = 0
    return {"advert": Part({"keys": keys})}


def repeat(contribution: Any) -> Any:
    """Advertises one key for both purposes."""
    keys = contribution["advert"].values["keys"].copy()
    keys[32:64] = keys[:32]
    return {"advert": Part({"keys": keys})}


@pytest.mark.parametrize(
    ("kind", "change", "num_counted"),
    [
        (deal_shares, cut, 5),
        (reveal_shares, cut, 6),
        (advertise_keys, weaken, 5),
        (advertise_keys, repeat, 5),
    ],
    ids=["deals too few", "reveals too few", "weak key", "one key twice"],
)
def test_a_client_that_breaks_the_protocol_is_lost_alone(
    kind: Any, change: Any, num_counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(kind, monkeypatch, change)
    into = secure_sum(max_value=1e12, max_weight=1e3)
    runtime = Simulation(
        InProcess(None, Numbered(), Keys.from_seed(3)), 6, Keys.from_seed(3), Leaving([NEVER] * 6)
    )
    part_spec = PartSpec(NUMBERS, into=into)
    got: Any = drive(gather(emit_numbers(), tuple(range(6)), {}, KEY, numbers=part_spec), runtime)
    expected = sum(numbers_of(client).weight for client in got.parties)
    assert (len(got.parties), got["numbers"].weight) == (num_counted, expected)


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
