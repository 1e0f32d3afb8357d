"""Thresholds against published figures, closed forms and draws."""

import math
import random

import pytest

from hanse.core import CompositionError, InvalidInput, Key
from hanse.privacy.secure_sums import Assumptions, draw_neighbours, find_range, find_thresholds
from hanse.privacy.secure_sums.thresholds import compute_disconnection, compute_tail


def assume(colluders: float, drop_out: float, num_listed: int | None = None) -> Assumptions:
    return Assumptions(colluders, drop_out, 2**-20, 2**-40, num_listed)


def test_ranges_of_a_thousand_clients() -> None:
    assert find_range(assume(0.2, 0.1), 1000, 80) == (48, 54)
    assert find_range(assume(1 / 3, 0.1), 1000, 120) == (81, 87)
    least, largest = find_range(assume(0.1, 0.1), 1000, 40)
    assert least > largest, "no t at k = 40 is safe against a tenth"
    fails = [1000 * compute_tail(999, lost, 40, 40 - 27 + 1) for lost in (100, 200)]
    assert fails == [pytest.approx(0.0107, abs=1e-4), pytest.approx(17.49, abs=0.01)]


def test_tails_are_those_of_draws_without_replacement() -> None:
    assert compute_tail(10, 3, 4, 0) == 1.0
    assert compute_tail(10, 3, 4, 4) == 0.0
    assert compute_tail(10, 3, 4, 3) == pytest.approx(7 / math.comb(10, 4))
    rng, hits = random.Random(0), 0
    for _ in range(20_000):
        hits += sum(one < 6 for one in rng.sample(range(20), 8)) >= 3
    assert compute_tail(20, 6, 8, 3) == pytest.approx(hits / 20_000, abs=0.01)


def test_others_stay_connected_unless_neighbours_on_the_circle_are_gone() -> None:
    assert compute_disconnection(100, 4, 10) == 0.0, "5 stand together, and 4 are gone"
    assert compute_disconnection(100, 50, 4) == 1.0
    assert compute_disconnection(1000, 100, 20) == pytest.approx(
        1000 * math.comb(100, 10) / math.comb(1000, 10)
    )


def test_complete_graphs_have_the_papers_thresholds() -> None:
    assert find_range(assume(0.0, 0.0), 10, 9) == (3, 10), "in a total of two, each knows the other's part"
    assert find_range(assume(0.25, 0.0, num_listed=4), 3, 2) == (3, 3)
    assert find_range(assume(0.3, 0.2), 10, 9) == (5, 8), "two honest ones beside 3 colluders"
    assert find_range(assume(0.0, 0.2, num_listed=10), 10, 9) == (6, 8), "2 t > n"
    assert find_range(assume(0.3, 0.0, num_listed=10), 10, 9) == (7, 10), "2 t > n + colluders"
    assert find_range(assume(0.1, 0.0, num_listed=50), 10, 9) == (8, 10), "5 of the roster may be in any 10"


@pytest.mark.parametrize("num_clients", [3, 5, 10, 40, 100, 500, 1000])
def test_found_thresholds_hold_and_fewer_neighbours_do_not(num_clients: int) -> None:
    assumed = assume(0.1, 0.2)
    found = find_thresholds(assumed, num_clients)
    least, largest = find_range(assumed, num_clients, found.num_neighbours)
    assert least <= found.num_shares == (least + largest) // 2 <= largest
    if not found.is_complete:
        assert found.num_neighbours <= (num_clients - 1) / 2
        less = find_range(assumed, num_clients, found.num_neighbours - 2)
        assert less[0] > less[1]


def test_what_can_not_be_met_is_refused_with_the_reason() -> None:
    with pytest.raises(CompositionError, match="hides nothing: let at least 3 take part"):
        find_thresholds(assume(0.0, 0.0), 2)
    with pytest.raises(CompositionError, match="at least 3 shares must be needed, and only 2 are left"):
        find_thresholds(assume(0.0, 0.4), 3)
    with pytest.raises(
        CompositionError, match=r"at least 9 .* only 5 are left.*smaller colluders or drop_out"
    ):
        find_thresholds(assume(0.7, 0.5), 10)
    with pytest.raises(CompositionError, match=r"40 neighbours do not suffice .*leave num_neighbours out"):
        find_thresholds(assume(0.1, 0.1), 1000, 40)
    with pytest.raises(CompositionError, match="one list of survivors signed"):
        find_thresholds(assume(0.1, 0.2, num_listed=100), 11)
    with pytest.raises(InvalidInput, match="colluders is 1"):
        assume(1, 0.0)
    with pytest.raises(InvalidInput, match="failure is 0"):
        Assumptions(0.1, 0.1, 0, 2**-40)


def test_neighbours_know_each_other_and_are_drawn_anew() -> None:
    thresholds = find_thresholds(assume(0.1, 0.2), 200)
    drawn = [draw_neighbours(thresholds, Key.from_seed(seed)) for seed in (1, 2)]
    for neighbours in drawn:
        for seat, around in enumerate(neighbours):
            assert len(set(around)) == thresholds.num_neighbours
            assert seat not in around
            assert all(seat in neighbours[other] for other in around)
    assert drawn[0] != drawn[1]
