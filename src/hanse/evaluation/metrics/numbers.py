"""Metrics of models of numbers, and of risks. Of several numbers in a row, each is the mean over them."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from hanse.core import Array, Prediction, value
from hanse.evaluation.metrics.metric import UNDEFINED, Metric
from hanse.evaluation.metrics.scored import ScoredRows
from hanse.evaluation.metrics.statistics import Errors, Pairs, Statistic

__all__ = ["concordance", "mae", "r2", "rmse"]


class _FromErrors(Metric):
    """A metric of the errors of predicted numbers."""

    kinds: ClassVar[tuple[Prediction, ...]] = ("numbers",)
    is_higher_better: ClassVar[bool] = False

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (Errors(),)


@value
class rmse(_FromErrors):
    """The root of the mean squared error.

    >>> rmse().compute(np.array([0.0, 0.0]), np.array([3.0, -3.0]))
    3.0
    """

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        weight, squares, *_ = np.asarray(sums[Errors.name]).T
        return (float(np.mean(np.sqrt(squares / weight))), 0.0) if weight.min() > 0 else (UNDEFINED, 0.0)


@value
class mae(_FromErrors):
    """The mean absolute error.

    >>> mae().compute(np.array([0.0, 0.0]), np.array([3.0, -4.0]))
    3.5
    """

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        weight, _, distances, *_ = np.asarray(sums[Errors.name]).T
        return (float(np.mean(distances / weight)), 0.0) if weight.min() > 0 else (UNDEFINED, 0.0)


@value
class r2(_FromErrors):
    """The share of the labels' variance that is predicted: 1 - sum (y - s)² / sum (y - mean y)².

    It is undefined where all labels are equal. From sums of several parties, it loses digits where the mean
    of the labels is far larger than their spread: about twice as many as the quotient of the two has.

    >>> r2().compute(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    0.5
    """

    is_higher_better: ClassVar[bool] = True

    def measure(self, rows: ScoredRows) -> float:
        if not rows.weights.sum() > 0:
            return UNDEFINED
        y, w = rows.labels, rows.weights
        spread = w @ np.square(y - w @ y / w.sum())
        known = y[w > 0]
        spread = np.where(known.max(axis=0) > known.min(axis=0), spread, 0.0)  # else rounding is all there is
        return self._divide(w @ np.square(y - rows.predictions), spread)

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        weight, squares, _, y, yy = np.asarray(sums[Errors.name]).T
        if not weight.min() > 0:
            return UNDEFINED, 0.0
        spread = yy - np.square(y) / weight
        known = np.where(spread > 1e-14 * yy, spread, 0.0)  # else rounding is all that is left
        return self._divide(squares, known), 0.0

    def _divide(self, squares: Array, spread: Array) -> float:
        return float(np.mean(1 - squares / spread)) if (spread > 0).all() else UNDEFINED


@value
class concordance(Metric):
    """The concordance: how often the example with the higher risk has its event first.

    Of predicted numbers, how often the example with the larger label has the larger prediction: every label
    counts as an event. Equal predictions count 1/2. Of several parties, only pairs of one party are compared.

    >>> concordance().compute(np.array([[1.0, 1], [2, 1], [3, 0]]), np.array([3.0, 1, 2]), kind="risks")
    0.6666666666666666
    >>> concordance().compute(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]))
    0.8333333333333334

    References: Harrell, Califf, Pryor, Lee, Rosati, "Evaluating the yield of medical tests", JAMA 1982.
    """

    kinds: ClassVar[tuple[Prediction, ...]] = ("risks", "numbers")

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (Pairs(),)

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        right, comparable = sums[Pairs.name]
        return (float(right / comparable), 0.0) if comparable > 0 else (UNDEFINED, 0.0)
