"""Harrell's concordance: how often the example with the higher risk has its event first."""

import numpy as np

from hanse.core import Array

__all__ = ["count_concordant"]


def count_concordant(risks: Array, times: Array, events: Array, strata: Array) -> tuple[float, float]:
    """Counts the comparable pairs of examples that risks put in the right order, and all comparable pairs.

    A pair of one stratum is comparable if one of them has its event while the other is still at risk: its
    time is earlier, or equal and the other was censored then. Two events at one time are not comparable.
    A pair is in the right order if the one with the event has the higher risk; equal risks count 1/2.

    It takes O(n log n): for each event, one descent by the bits of its risk's rank counts the examples that
    outlive it with a lower risk.

    >>> count_concordant(np.array([3.0, 1, 2]), np.array([1.0, 2, 3]), np.array([1, 1, 0]), np.zeros(3))
    (2.0, 3.0)

    Args:
      risks, times, strata: (n,).
      events: (n,) 1: it happened at the time; 0: censored then.
    Returns: the pairs in the right order, and the comparable ones.
    References: Harrell, Califf, Pryor, Lee, Rosati, "Evaluating the yield of medical tests", JAMA 1982.
    """
    events = np.asarray(events, bool)
    order = np.lexsort(
        (events, -times, strata)
    )  # in each stratum the latest first; the censored before events
    times, events, strata = times[order], events[order], strata[order]
    ranks = np.unique(risks, return_inverse=True)[1].reshape(-1)[order]
    first = _starts_of_runs(strata)[events]
    last = _starts_of_runs(strata, times, events)[events]
    lower, equal = _count_lower(ranks, first, last, ranks[events])
    return float(lower.sum() + equal.sum() / 2), float((last - first).sum())


def _starts_of_runs(*columns: Array) -> Array:
    """Returns for each row where the run of rows that are equal to it begins."""
    new = np.zeros(len(columns[0]), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.asarray(np.flatnonzero(new)[np.cumsum(new) - 1])


def _count_lower(ranks: Array, first: Array, last: Array, own: Array) -> tuple[Array, Array]:
    """Counts in each ranks[first:last] the entries below `own`, and those equal to it.

    At each bit, from the highest, ranks without it move to the front, in their order. So the entries of a
    range that share the higher bits of `own` stay a range.
    """
    lower = np.zeros_like(first)
    for bit in reversed(range(int(ranks.max(initial=0)).bit_length())):
        has_bit = (ranks >> bit & 1).astype(bool)
        num_before = np.append(0, np.cumsum(has_bit))
        num_without = len(ranks) - num_before[-1]
        with_first, with_last = num_before[first], num_before[last]
        first, last = first - with_first, last - with_last
        goes_up = (own >> bit & 1).astype(bool)
        lower += np.where(goes_up, last - first, 0)
        first = np.where(goes_up, num_without + with_first, first)
        last = np.where(goes_up, num_without + with_last, last)
        ranks = np.concatenate([ranks[~has_bit], ranks[has_bit]])
    return lower, last - first
