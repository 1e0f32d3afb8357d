"""Weights of pairs of examples that a model puts in the right order: Harrell's concordance."""

import numpy as np

from hanse.core import Array

__all__ = ["count_pairs"]


def count_pairs(risks: Array, times: Array, events: Array, strata: Array, weights: Array) -> Array:
    """Sums the weights of pairs in the right order, and of all comparable pairs; of a pair, the product.

    A pair of one stratum is comparable if one has its event while the other is still at risk: its time is
    earlier, or equal and the other was censored then. It is in the right order if the one with the event has
    the higher risk; equal risks count 1/2. It takes O(n log n): a tree of sums over the ranks of risks.

    >>> count_pairs(np.array([3.0, 1, 2]), np.arange(3.0), np.ones(3, bool), np.zeros(3), np.ones(3))
    array([2., 3.])

    References: Harrell, Califf, Pryor, Lee, Rosati, "Evaluating the yield of medical tests", JAMA 1982.
    """
    totals = np.zeros(2)
    for stratum in np.unique(strata):
        own = strata == stratum
        totals += _count_in_stratum(risks[own], times[own], events[own], weights[own])
    return totals


def _count_in_stratum(risks: Array, times: Array, events: Array, weights: Array) -> Array:
    """Goes from the latest to the earliest example, and holds the weights of those before by risk."""
    ranks = np.unique(risks, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((events, -times))  # the latest first; at one time the censored before events
    tree, at = [0.0] * (int(ranks.max(initial=0)) + 2), [0.0] * (int(ranks.max(initial=0)) + 1)
    whole = right = comparable = 0.0
    waiting: list[tuple[int, float]] = []  # events of one time, which are not comparable with each other
    before = None
    for row in order.tolist():
        rank, weight, time = int(ranks[row]), float(weights[row]), float(times[row])
        if waiting and (time != before or not events[row]):
            for held, held_weight in waiting:
                whole += held_weight
                at[held] += held_weight
                _add(tree, held, held_weight)
            waiting = []
        before = time
        if not events[row]:
            whole += weight
            at[rank] += weight
            _add(tree, rank, weight)
            continue
        comparable += weight * whole
        right += weight * (_sum_below(tree, rank) + at[rank] / 2)
        waiting.append((rank, weight))
    return np.array([right, comparable])


def _add(tree: list[float], rank: int, weight: float) -> None:
    """Adds a weight at a rank of a Fenwick tree."""
    rank += 1
    while rank < len(tree):
        tree[rank] += weight
        rank += rank & -rank


def _sum_below(tree: list[float], rank: int) -> float:
    """Sums the weights at lower ranks."""
    total = 0.0
    while rank:
        total += tree[rank]
        rank -= rank & -rank
    return total
