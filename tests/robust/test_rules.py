"""Rules against known vectors, independent loops, and the laws that hold for them."""

from typing import Any

import loops as independent
import numpy as np
import pytest
from rules import RULES, fold, parts

from hanse.core import mean, reduce, stack
from hanse.robust import (
    bucketing,
    bulyan,
    centred_clipping,
    geometric_median,
    krum,
    median,
    minimum_diameter,
    multi_krum,
    nearest_neighbour_mixing,
    norm_bound,
    trimmed_mean,
)

LINE = np.array([[i, 10.0 * i] for i in range(1, 9)] + [[1000.0, -1000.0]])

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


def each_rule_but(*words: str) -> pytest.MarkDecorator:
    """Every rule whose name and words hold none of these."""
    said = {name: f"{name} {rule}" for name, rule in RULES.items()}
    some = {name: rule for name, rule in RULES.items() if not any(word in said[name] for word in words)}
    return pytest.mark.parametrize("rule", some.values(), ids=some.keys())


def rows_of(seed: int, n: int = 11, d: int = 5) -> Any:
    return np.random.default_rng(seed).normal(size=(n, d)) * [1, 2, 3, 4, 5][:d] + 1


# -- known vectors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "due"),
    [
        (geometric_median(), (4, 40)),
        (trimmed_mean(2), (5, 40)),
        (median(), (5, 40)),
        (centred_clipping(5.0, 10), (4.1442, 28.4922)),
        (minimum_diameter(1), (4.5, 45)),
        (multi_krum(1, 8), (4.5, 45)),
    ],
    ids=str,
)
def test_points_of_a_line_and_one_far_away(rule: Any, due: Any) -> None:
    np.testing.assert_allclose(fold(rule, LINE), due, atol=1e-4)


def test_mixed_points_of_a_line() -> None:
    mixed = reduce(nearest_neighbour_mixing(2, stack()), parts(LINE)).values
    np.testing.assert_allclose([mixed["a"][0], mixed["b"][0, 0, 0]], (4, 40), atol=1e-4)
    np.testing.assert_allclose([mixed["a"][8], mixed["b"][8, 0, 0]], (145.857, -112.857), atol=1e-3)


def test_krum_without_ties_by_hand() -> None:
    # n = 5, f = 1: two neighbours. Scores: 0: .01+4, 1: .01+3.61, 2: 3.61+2.25, 3: 2.25+11.56, 4: far
    rows = [[0.0, 0.0], [0.1, 0.0], [2.0, 0.0], [3.5, 0.0], [90.0, 90.0]]
    total = reduce(krum(1), parts(rows))
    assert (float(total.values["a"]), total.left_out) == (0.1, (0, 2, 3, 4))


def test_equal_scores_go_to_the_first_positions() -> None:
    rows = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0], [50.0, 50.0]])
    assert reduce(krum(1), parts(rows)).left_out == (1, 2, 3, 4)
    assert reduce(krum(1), parts(rows[::-1])).left_out == (0, 2, 3, 4)
    assert reduce(minimum_diameter(1), parts([[0.0, 0.0]] * 4)).left_out == (3,)


# -- independent loops -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_rules_agree_with_independent_loops(seed: int) -> None:
    rows = rows_of(seed)
    rows[seed % 11] *= 50
    loops = {
        median(): independent.median(rows),
        trimmed_mean(3): independent.trimmed_mean(rows, 3),
        krum(3): independent.krum(rows, 3)[1],
        multi_krum(2, 6): independent.multi_krum(rows, 2, 6)[1],
        centred_clipping(4.0, 7): independent.centred_clipping(rows, 4.0, 7),
        minimum_diameter(3): independent.minimum_diameter(rows, 3)[1],
        bulyan(2): independent.bulyan(rows, 2)[1],
        nearest_neighbour_mixing(2, trimmed_mean(2)): independent.trimmed_mean(
            independent.mixing(rows, 2), 2
        ),
        nearest_neighbour_mixing(2, mean()): independent.mixing(rows, 2).mean(axis=0),
        nearest_neighbour_mixing(3, krum(3)): independent.krum(independent.mixing(rows, 3), 3)[1],
    }
    for rule, due in loops.items():
        np.testing.assert_allclose(fold(rule, rows), due, rtol=1e-9, atol=1e-9, err_msg=str(rule))


@pytest.mark.parametrize("seed", range(3))
def test_the_geometric_median_agrees_with_a_search(seed: int) -> None:
    rows = rows_of(seed, 7, 3)
    np.testing.assert_allclose(fold(geometric_median(), rows), independent.geometric_median(rows), atol=1e-4)
    rows[:4] = rows[3]  # a majority in one place
    np.testing.assert_array_equal(fold(geometric_median(), rows), rows[3])


@pytest.mark.parametrize("seed", range(3))
def test_those_left_out_are_named(seed: int) -> None:
    rows = rows_of(seed)
    rest = set(range(11))
    named = {
        krum(2): rest - {independent.krum(rows, 2)[0]},
        multi_krum(2, 6): rest - set(independent.multi_krum(rows, 2, 6)[0]),
        minimum_diameter(2): rest - set(independent.minimum_diameter(rows, 2)[0]),
        bulyan(2): rest - set(independent.bulyan(rows, 2)[0]),
        median(): set(),
        norm_bound(9.0, krum(2)): None,
    }
    for rule, due in named.items():
        left_out = reduce(rule, parts(rows)).left_out
        assert left_out == tuple(sorted(due if due is not None else left_out))
        assert due is not None or len(left_out) == 10


def test_all_clients_of_a_bucket_that_is_left_out_are_named() -> None:
    rows = rows_of(4) / 100
    rows[7] = 1e6
    total = reduce(bucketing(2, minimum_diameter(1)), parts(rows))
    assert len(total.left_out) == 2
    assert 7 in total.left_out
    kept = [i for i in range(11) if i not in total.left_out]
    near = np.concatenate([total.values["a"].reshape(-1), total.values["b"].reshape(-1)])
    assert np.abs(near - rows[kept].mean(axis=0)).max() < 0.1


def test_buckets_are_means_that_are_drawn_anew_from_other_messages() -> None:
    rows = rows_of(1)
    bucketed = [reduce(bucketing(2, stack()), parts(r)).values["a"] for r in (rows, rows, rows + 1)]
    assert len(bucketed[0]) == 6
    np.testing.assert_array_equal(bucketed[0], bucketed[1])
    assert np.abs(bucketed[2] - 1 - bucketed[0]).max() > 0.1
    pairs = {(a + b) / 2 for a in rows[:, 0] for b in rows[:, 0]}
    assert all(np.isclose(x, list(pairs)).any() for x in bucketed[0])
    sizes = np.array([2, 2, 2, 2, 2, 1])
    np.testing.assert_allclose(sizes @ bucketed[0] / 11, rows[:, 0].mean())


# -- laws --------------------------------------------------------------------------------------


@each_rule_but("bucketing", "bulyan")  # positions decide: of buckets, and between each other's nearest
def test_no_order_changes_the_total(rule: Any) -> None:
    rows = rows_of(7)
    order = np.random.default_rng(0).permutation(11)
    np.testing.assert_allclose(fold(rule, rows[order]), fold(rule, rows), rtol=1e-9, atol=1e-12)


@each_rule_but("bound", "centred", "bucketing")  # they have a centre, or draw from the messages
def test_what_is_added_to_all_is_added_to_the_total(rule: Any) -> None:
    rows, shift = rows_of(8), np.array([3.0, -2.0, 0.0, 7.0, 1.0])
    np.testing.assert_allclose(fold(rule, rows + shift), fold(rule, rows) + shift, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "rule",
    [
        trimmed_mean(0),
        multi_krum(0, 11),
        minimum_diameter(0),
        bulyan(0),
        nearest_neighbour_mixing(0, median()),
        centred_clipping(1e3),
        norm_bound(1e3),
        norm_bound(1e3, trimmed_mean(0)),
        bucketing(11, median()),
        bucketing(1, trimmed_mean(0)),
    ],
    ids=str,
)
def test_without_liars_to_withstand_it_is_the_mean(rule: Any) -> None:
    rows = rows_of(9)
    np.testing.assert_allclose(fold(rule, rows), rows.mean(axis=0), rtol=1e-9)


@each_rule_but("mixing_mean")  # the mean of mixtures withstands nothing
@pytest.mark.parametrize("size", [1e4, 1e30, 1e200, 1e305])
def test_two_liars_do_not_lead_it_away(rule: Any, size: float) -> None:
    rng = np.random.default_rng(3)
    rows = 1 + rng.normal(size=(11, 5)) / 10
    rows[[2, 9]] = rng.normal(size=(2, 5)) * size
    dtype = "float32" if size < 1e38 else "float64"
    bound = 4.0 if "norm_bound" in str(rule) or "centred" in str(rule) else 1.0
    if str(rule).startswith("bucketing(size=2, then=multi_krum"):
        rows[9] = 1.0  # two liars may spoil two buckets, and it withstands one
    assert np.abs(fold(rule, rows, dtype) - 1).max() < bound


@every_rule
def test_equal_messages_are_the_total(rule: Any) -> None:
    rows = np.tile([0.5, -0.25, 0.5, 0.0, 1.0], (11, 1))
    np.testing.assert_allclose(fold(rule, rows), rows[0], rtol=1e-12)
    np.testing.assert_array_equal(fold(rule, 0 * rows), 0 * rows[0])


@every_rule
def test_a_weight_that_a_liar_declares_changes_nothing(rule: Any) -> None:
    rows = rows_of(2)
    heavy = reduce(rule, parts(rows, weights=[1e7] + [1.0] * 10))
    light = reduce(rule, parts(rows))
    heeds = rule == norm_bound(2.0)  # into mean()
    assert np.array_equal(heavy.values["b"], light.values["b"]) != heeds
    assert heavy.count == light.count == 11
    assert ("counts each client alike" in rule.disclosure) != heeds


@pytest.mark.parametrize(
    "then", [mean(), trimmed_mean(1), stack(), krum(1), norm_bound(1.0, median())], ids=str
)
def test_long_messages_are_clipped_and_then_folded(then: Any) -> None:
    rows = rows_of(5) * np.linspace(0.01, 9, 11)[:, None]
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    clipped = rows * np.minimum(1, 4.0 / norms)
    assert (norms < 4).any()
    weights = np.arange(1.0, 12)
    given = reduce(norm_bound(4.0, then), parts(rows, weights=weights)).values
    due = reduce(then, parts(clipped, weights=weights)).values
    for name, values in due.items():
        np.testing.assert_allclose(given[name], values, rtol=1e-12)
