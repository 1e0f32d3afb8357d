"""Membership inference: guesses of which rows a model was trained on, and how good they are.

    score = log N(phi; mu_in, s_in) - log N(phi; mu_out, s_out),    phi = log(p_y / (1 - p_y))

phi is the confidence of the model in a row's label. Shadow models, of which some were trained on the row and
some were not, show how confident a model is in either case.

References: Carlini, Chien, Nasr, Song, Terzis, Tramer, "Membership inference attacks from first principles",
S&P 2022, arXiv 2112.03570, Algorithm 1 and section VI; Yeom, Giacomelli, Fredrikson, Jha, "Privacy risk in
machine learning", CSF 2018, arXiv 1709.01604 (a threshold on the loss).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Learner, Tensors

__all__ = ["Membership", "bound_share", "compare_shadows", "measure_confidence", "measure_membership"]

FEWEST_OWN_SPREADS = 32
"""The fewest shadow models on either side of a row for a spread of its own; else all rows share one."""

LARGEST_CONFIDENCE = 40.0
"""The bound on confidences: probabilities of exactly 0 and 1 have no logarithm."""


def measure_confidence(learner: Learner, params: Tensors, data: Examples) -> Array:
    """Measures how confident a model is in the label of each row, (n,): higher, the better it fits.

    For classes it is the log odds of the label, for scores its margin over the next class, and for numbers
    the logarithm of the inverse squared error.

    Raises: InvalidInput: if a row has several labels, such as a text, or the label is a time of survival.
    """
    found, labels = np.asarray(learner.predict(params, data.x), np.float64), np.asarray(data.y)
    if labels.ndim != 1 or learner.prediction == "risks":
        raise InvalidInput(
            f"membership is guessed from one label a row, and the labels have shape {labels.shape} "
            f"({learner.prediction}); audit a model that predicts a class or a number for each row"
        )
    if found.ndim == 1 or found.shape[1] == 1:
        return np.asarray(-np.log((found.reshape(-1) - labels) ** 2 + 1e-12))
    own = np.arange(len(labels)), labels.astype(int)
    if learner.prediction == "probabilities":
        others = found.copy()
        others[own] = 0.0
        tiny = np.finfo(np.float64).tiny
        odds = np.log(np.maximum(found[own], tiny)) - np.log(np.maximum(others.sum(axis=1), tiny))
        return np.asarray(np.clip(odds, -LARGEST_CONFIDENCE, LARGEST_CONFIDENCE))
    rivals = found.copy()
    rivals[own] = -np.inf
    return np.asarray(found[own] - rivals.max(axis=1))


def compare_shadows(target: Array, shadows: Array, is_in: Array, *, online: bool = True) -> Array:
    """Scores each row by the likelihood ratio of its confidence, (n,): higher, the more like a member.

    Args:
      target: the confidences of the model under attack, (n,).
      shadows: those of the shadow models, (m, n).
      is_in: whether each shadow model was trained on each row, (m, n).
      online: whether the models that were trained on a row are used, too; otherwise only those that were
        not, and the score is the standardised excess over them.

    Raises: InvalidInput: if the shapes differ, or a row lacks two shadow models on a side that is needed.
    """
    target, shadows = np.asarray(target, np.float64), np.asarray(shadows, np.float64)
    is_in = np.asarray(is_in, bool)
    if shadows.ndim != 2 or shadows.shape != is_in.shape or target.shape != shadows.shape[1:]:
        raise InvalidInput(
            f"confidences of shapes {target.shape} and {shadows.shape}, memberships {is_in.shape}; give "
            "(n,), (m, n) and (m, n)"
        )
    sides = (is_in, ~is_in) if online else (~is_in,)
    fewest = min(int(side.sum(axis=0).min(initial=len(shadows))) for side in sides)
    if fewest < 2:
        raise InvalidInput(
            f"a row has {fewest} shadow models on one side, and a spread needs 2; train more shadow models"
        )
    scaled = [_standardise(target, shadows, side) for side in sides]
    if not online:
        return scaled[0][0]
    (inside, spread_in), (outside, spread_out) = scaled
    return np.asarray((outside**2 - inside**2) / 2 + np.log(spread_out) - np.log(spread_in))


def _standardise(target: Array, shadows: Array, side: Array) -> tuple[Array, Array]:
    """Returns confidences in standard deviations from the mean of one side's models, and the deviations."""
    counts = side.sum(axis=0)
    means = np.where(side, shadows, 0.0).sum(axis=0) / counts
    squares = np.where(side, (shadows - means) ** 2, 0.0).sum(axis=0)
    if counts.min() < FEWEST_OWN_SPREADS:
        variances = np.full(len(target), squares.sum() / (counts - 1).sum())
    else:
        variances = squares / (counts - 1)
    spread = np.sqrt(variances) + 1e-6
    return (target - means) / spread, spread


@dataclass(frozen=True)
class Membership:
    """The success of guesses who is a member: 0.5 is the AUC of a coin.

    Args:
      auc, auc_low, auc_high: the probability that a member scores above a row that is none, with its 95%
        interval (DeLong et al. 1988).
      tpr: the share of members that are found, by the share of others that are taken for members: at 1% and
        0.1%, each with its 95% interval (Clopper and Pearson 1934). None: there are too few others to tell.
      members, others: the numbers of rows.
      curve: points (false positive rate, true positive rate), in order.
    """

    auc: float
    auc_low: float
    auc_high: float
    tpr: dict[str, tuple[float, float, float] | None]
    members: int
    others: int
    curve: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the outcome as plain data, without the curve."""
        return {
            "auc": self.auc,
            "auc_interval": [self.auc_low, self.auc_high],
            "tpr": {at: None if found is None else list(found) for at, found in self.tpr.items()},
            "members": self.members,
            "others": self.others,
        }


RATES = {"1%": 0.01, "0.1%": 0.001}
"""The false positive rates at which true positives are counted."""


def measure_membership(scores: Array, is_member: Array) -> Membership:
    """Measures how well scores tell members from others.

    >>> found = measure_membership(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, False, True, False]))
    >>> found.auc, found.tpr["1%"]
    (0.75, None)

    Raises: InvalidInput: if scores are not finite, or either kind of row is missing.
    """
    scores, is_member = np.asarray(scores, np.float64), np.asarray(is_member, bool)
    if scores.shape != is_member.shape or scores.ndim != 1 or not np.isfinite(scores).all():
        raise InvalidInput(
            f"scores of shape {scores.shape} and memberships {is_member.shape}; give one finite score a row"
        )
    inside, outside = np.sort(scores[is_member]), np.sort(scores[~is_member])
    if not len(inside) or not len(outside):
        raise InvalidInput(
            f"{len(inside)} members and {len(outside)} others; membership is measured with both"
        )
    beats, is_beaten = _count_wins(inside, outside), _count_wins(outside, inside)
    auc = float(beats.mean())
    error = math.sqrt(_find_variance(beats) + _find_variance(is_beaten))
    tpr = {
        at: _find_true_positives(inside, outside, rate) if len(outside) * rate >= 1 else None
        for at, rate in RATES.items()
    }
    thresholds = np.unique(scores)[::-1]
    false = 1 - np.searchsorted(outside, thresholds) / len(outside)
    true = 1 - np.searchsorted(inside, thresholds) / len(inside)
    curve = tuple(zip(false.tolist(), true.tolist(), strict=True))
    low, high = max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error)
    return Membership(auc, low, high, tpr, len(inside), len(outside), curve)


def _count_wins(scores: Array, others: Array) -> Array:
    """Returns the share of the others that each score is above; ties count half."""
    below = np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")
    return np.asarray(below / (2 * len(others)))


def _find_variance(shares: Array) -> float:
    return float(shares.var(ddof=1) / len(shares)) if len(shares) > 1 else 0.25


def _find_true_positives(inside: Array, outside: Array, rate: float) -> tuple[float, float, float]:
    """Returns the share of members above all but `rate` of the others, and its interval."""
    threshold = outside[len(outside) - 1 - math.floor(len(outside) * rate + 1e-9)]
    found = int((inside > threshold).sum())
    return (found / len(inside), *bound_share(found, len(inside)))


def bound_share(found: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Computes the interval of Clopper and Pearson for a share of which `found` of `total` were seen.

    >>> [round(end, 4) for end in bound_share(0, 10)]
    [0.0, 0.3085]
    """
    tail = (1 - confidence) / 2
    low = 0.0 if found == 0 else _solve(lambda p: _sum_chances(total, p, found, total) - tail)
    high = 1.0 if found == total else _solve(lambda p: tail - _sum_chances(total, p, 0, found))
    return low, high


def _solve(rises: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) > 0 else (middle, high)
    return low


def _sum_chances(total: int, share: float, first: int, last: int) -> float:
    """Computes the probability of `first` to `last` successes of `total`."""
    logs = np.array([math.lgamma(k + 1) for k in range(total + 1)])
    counts = np.arange(first, last + 1)
    ways = logs[total] - logs[counts] - logs[total - counts]
    return float(np.exp(ways + counts * math.log(share) + (total - counts) * math.log1p(-share)).sum())
