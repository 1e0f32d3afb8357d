"""The search for the strength of a lie that does the most harm under the rule in place."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from hanse.attacks.attack import Collusion
from hanse.core import Array, Part

__all__ = ["Harm", "find_strongest", "keep_bound", "measure_distance", "measure_retreat"]

Harm = Callable[[Array, Array], float]
"""A function from the mean of honest messages and the total of the rule to how much harm that does."""

STRENGTHS = tuple(2.0**power for power in range(-3, 5))
"""The strengths that are tried first, as multiples of a direction."""

REFINEMENTS = (0.7, 0.85, 1.2, 1.4)
"""Multiples of the best of them that are tried then."""


def measure_distance(mean: Array, total: Array) -> float:
    """Measures how far a total is from the mean of honest messages."""
    return float(np.linalg.norm(total - mean))


def measure_retreat(mean: Array, total: Array) -> float:
    """Measures how far a total falls behind the mean of honest messages, in the direction of this mean."""
    return float((mean - total) @ mean) / max(float(np.linalg.norm(mean)), 1e-300)


def keep_bound(seen: Collusion, vector: Array) -> Array:
    """Scales a vector down to the largest norm that the server takes, if there is one."""
    norm = float(np.linalg.norm(vector))
    if seen.max_norm is None or norm <= seen.max_norm:
        return vector
    return vector * (seen.max_norm / norm)


def find_strongest(
    seen: Collusion, directions: Sequence[Array], harm: Harm = measure_distance
) -> tuple[Array, float]:
    """Finds the lie mean + strength * direction that does the most harm if all liars send it.

    Args:
      directions: those that are tried, from the mean of honest messages.
      harm: measures what a total does.

    Returns: the lie, and its harm.
    """
    mean = seen.rows.mean(axis=0)
    known = [Part(values) for values in seen.honest]
    honest = [known[i % len(known)] for i in range(max(1, seen.num_honest))]

    def measure(direction: Array, strength: float) -> tuple[float, Array]:
        lie = keep_bound(seen, mean + strength * direction)
        total = seen.aggregate([*honest, *seen.send(lie)])
        if total is None:
            return -math.inf, lie
        found = harm(mean, seen.flatten(total))
        return (found if math.isfinite(found) else -math.inf), lie

    best, lie = -math.inf, keep_bound(seen, mean)
    for direction in directions:
        tried = [(*measure(direction, strength), strength) for strength in STRENGTHS]
        top = max(tried, key=lambda one: one[0])
        more = [(*measure(direction, top[2] * factor), top[2] * factor) for factor in REFINEMENTS]
        here = max([top, *more], key=lambda one: one[0])
        if here[0] > best:
            best, lie = here[0], here[1]
    return lie, best
