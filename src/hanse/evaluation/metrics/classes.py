"""Metrics of models of classes. Each follows scikit-learn where that gives a number.

Of two classes, class 1 is the positive one. Of more, a metric is the mean over each class against the rest,
and undefined where one of them has no example: a mean over fewer classes would compare different things.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from hanse.core import Array, InvalidInput, Prediction, value
from hanse.evaluation.metrics.metric import UNDEFINED, Metric
from hanse.evaluation.metrics.scored import ScoredRows
from hanse.evaluation.metrics.statistics import (
    Calibration,
    Confusion,
    Histogram,
    Logarithms,
    Squares,
    Statistic,
    Threshold,
)

__all__ = [
    "MOST_CLASSES",
    "accuracy",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "calibration_error",
    "confusion_matrix",
    "f1",
    "log_loss",
    "perplexity",
    "sensitivity",
    "specificity",
]

MOST_CLASSES = 10
"""The most classes of which a confusion matrix is shown, and measured unasked."""

MOST_BINS = 100_000
BINS = 1000
"""The bins of scores in which parties count their examples, where they compute a ranking together."""

PROBABILITIES: tuple[Prediction, ...] = ("probabilities",)


def _read_confusion(sums: Mapping[str, Array]) -> Array:
    return np.asarray(sums[Confusion.name])


class _FromConfusion(Metric):
    """A metric of predicted classes."""

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (Confusion(),)


@value
class accuracy(_FromConfusion):
    """The share of the examples whose class is predicted: sum_c n_cc / n.

    >>> accuracy().compute(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]))
    0.5
    """

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        table = _read_confusion(sums)
        return (float(np.trace(table) / table.sum()), 0.0) if table.sum() > 0 else (UNDEFINED, 0.0)


@value
class balanced_accuracy(_FromConfusion):
    """The mean over classes of the share of their examples that is predicted: mean_c n_cc / n_c.

    >>> balanced_accuracy().compute(np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 0, 0]])
    0.5
    """

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        table = _read_confusion(sums)
        sizes = table.sum(axis=1)
        return (float(np.mean(np.diag(table) / sizes)), 0.0) if sizes.min() > 0 else (UNDEFINED, 0.0)


@value
class f1(_FromConfusion):
    """The harmonic mean of precision and recall of class 1, or its mean over more than two classes.

        F = 2 TP / (2 TP + FP + FN)

    >>> f1().compute(np.array([0, 1, 1]), np.eye(2)[[1, 1, 1]])
    0.8
    """

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        table = _read_confusion(sums)
        right, sizes = np.diag(table), table.sum(axis=1)
        if len(table) == 2:
            right, sizes, named = right[1:], sizes[1:], table.sum(axis=0)[1:]
        else:
            named = table.sum(axis=0)
        return (float(np.mean(2 * right / (sizes + named))), 0.0) if sizes.min() > 0 else (UNDEFINED, 0.0)


@value
class confusion_matrix(_FromConfusion):
    """The weight of the examples of each class (row) that are predicted as each class (column).

    It is a table, so results hold it, and no record of a round.
    """

    is_number: ClassVar[bool] = False

    def find_table(self, sums: Mapping[str, Array]) -> Array | None:
        return _read_confusion(sums)

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        return UNDEFINED, 0.0


class _AtThreshold(Metric):
    """A rate at a threshold of the probability of one class."""

    kinds = PROBABILITIES
    of: ClassVar[int]
    threshold: float
    positive: int | None

    def __post_init__(self) -> None:
        if isinstance(self.threshold, bool) or not 0 <= self.threshold <= 1:
            raise InvalidInput(f"threshold is {self.threshold}; write a probability, such as 0.5")
        object.__setattr__(self, "threshold", float(self.threshold))  # 1 and 1.0 have one name
        if self.positive is not None and (type(self.positive) is not int or self.positive < 0):
            raise InvalidInput(f"positive is {self.positive}; write the number of a class, from 0")

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (Threshold(self.threshold, 1 if self.positive is None else self.positive),)

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        row = np.asarray(sums[self.statistics[0].name])[self.of]
        return (float(row[self.of] / row.sum()), 0.0) if row.sum() > 0 else (UNDEFINED, 0.0)

    def check_classes(self, num_classes: int | None) -> None:
        if num_classes is None:
            return
        if self.positive is None and num_classes > 2:
            raise InvalidInput(
                f"{self.key}: of {num_classes} classes none is the positive one by itself; name it, such as "
                f"{type(self).__name__}(positive=1)"
            )
        if self.positive is not None and self.positive >= num_classes:
            raise InvalidInput(f"{self.key}: the classes are 0 to {num_classes - 1}; name one of them")


@value
class sensitivity(_AtThreshold):
    """The share of the examples of the positive class whose probability of it reaches a threshold.

        TP / (TP + FN)

    >>> sensitivity(threshold=0.3).compute(
    ...     np.array([0, 1, 1]), np.array([0.5, 0.3, 0.2]), kind="probabilities"
    ... )
    0.5

    Args:
      threshold: a probability; from it on, an example is called positive.
      positive: the number of the positive class; None: class 1 of two.
    """

    of: ClassVar[int] = 1
    threshold: float = 0.5
    positive: int | None = None


@value
class specificity(_AtThreshold):
    """The share of the examples of other classes whose probability of the positive one is below a threshold.

        TN / (TN + FP)

    Args:
      threshold: a probability; from it on, an example is called positive.
      positive: the number of the positive class; None: class 1 of two.
    """

    of: ClassVar[int] = 0
    threshold: float = 0.5
    positive: int | None = None


def check_bins(bins: int) -> None:
    """Checks a number of bins. Raises: InvalidInput."""
    if type(bins) is not int or not 1 <= bins <= MOST_BINS:
        raise InvalidInput(f"bins is {bins}; write a whole number from 1 to {MOST_BINS:,}")


class _Ranking(Metric):
    """A metric of the order in which scores put examples, from their counts in bins or from all of them."""

    is_binned: ClassVar[bool] = True
    bins: int

    def __post_init__(self) -> None:
        check_bins(self.bins)

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (Histogram(self.bins),)

    def measure(self, rows: ScoredRows) -> float:
        numbers = [1] if rows.num_classes == 2 else range(rows.num_classes)
        found = [self.rank(*_group(rows, number)) for number in numbers]
        return float(np.mean(found))

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        """Returns the middle of what is possible, given the counts in bins, and the distance to its ends."""
        lows, highs = zip(*map(self.bound, np.asarray(sums[self.statistics[0].name])), strict=True)
        low, high = float(np.mean(lows)), float(np.mean(highs))
        return (low + high) / 2, (high - low) / 2

    def rank(self, others: Array, own: Array) -> float:
        """Computes it from weights at each value of the score, in rising order. Abstract."""
        raise NotImplementedError

    def bound(self, counts: Array) -> tuple[float, float]:
        """Computes the least and the largest value that fit the counts in bins. Abstract."""
        raise NotImplementedError


def _group(rows: ScoredRows, number: int) -> tuple[Array, Array]:
    """Sums weights at each value of the score of a class, in rising order: of other classes, and of it."""
    values, at = np.unique(rows.find_ranking(number), return_inverse=True)
    is_own = rows.labels == number
    own = np.bincount(at, rows.weights * is_own, len(values))
    return np.bincount(at, rows.weights * ~is_own, len(values)), own


@value
class auroc(_Ranking):
    """The area under the ROC curve: the chance that an example of a class scores higher than another one.

        sum over pairs of [s_i > s_j] + [s_i = s_j] / 2, over all pairs

    From counts in bins, pairs of one bin may lie either way: the error is at most half of them.

    >>> auroc().compute(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8]), kind="probabilities")
    0.875

    Args:
      bins: the bins of scores in which parties count, where they compute it together.
    """

    bins: int = BINS

    def rank(self, others: Array, own: Array) -> float:
        pairs = own.sum() * others.sum()
        if not pairs > 0:
            return UNDEFINED
        return float(own @ (np.cumsum(others) - others / 2) / pairs)

    def bound(self, counts: Array) -> tuple[float, float]:
        others, own = counts.T
        middle, pairs = self.rank(others, own), own.sum() * others.sum()
        unknown = float(own @ others / pairs) / 2 if pairs > 0 else UNDEFINED
        return middle - unknown, middle + unknown


@value
class average_precision(_Ranking):
    """The mean precision over the recalls of all thresholds: sum_t (R_t - R_(t-1)) P_t.

    From counts in bins, the error covers every order of the examples of one bin.

    >>> average_precision().compute(
    ...     np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.35, 0.8]), kind="probabilities"
    ... )
    1.0

    Args:
      bins: the bins of scores in which parties count, where they compute it together.
    """

    bins: int = BINS

    def rank(self, others: Array, own: Array) -> float:
        if not (own.sum() > 0 and others.sum() > 0):
            return UNDEFINED
        own, others = own[::-1], others[::-1]
        above, wrong = np.cumsum(own), np.cumsum(others)
        return float(own @ _divide(above, above + wrong) / own.sum())

    def bound(self, counts: Array) -> tuple[float, float]:
        others, own = counts[::-1].T
        whole = own.sum()
        if not (whole > 0 and others.sum() > 0):
            return UNDEFINED, UNDEFINED
        above, wrong = np.cumsum(own), np.cumsum(others)
        before, below = above - own, wrong - others
        best = own @ _divide(above, above + below)  # the whole class first, as one tie
        # the others first, and then the class bit by bit: the integral of (before + x) / (before + wrong + x)
        begun = before + wrong
        worst = own - wrong * np.log1p(_divide(own, begun))
        return float(worst.sum() / whole), float(best / whole)


def _divide(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


@value
class log_loss(Metric):
    """The logarithmic loss: the mean of -log of the probability of the true class, in nats.

    Probabilities below the rounding unit of their type (2e-16, or 1e-7 of single precision) count as that.

    >>> round(log_loss().compute(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])), 4)
    0.6931
    """

    kinds = PROBABILITIES
    is_higher_better: ClassVar[bool] = False

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (Logarithms(),)

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        weight, surprise = sums[Logarithms.name]
        return (float(surprise / weight), 0.0) if weight > 0 else (UNDEFINED, 0.0)


@value
class perplexity(log_loss):
    """The perplexity of a language model: exp of the logarithmic loss of each place of a text.

    >>> round(perplexity().compute(np.array([[0, 1]]), np.full((1, 2, 4), 0.25)), 9)
    4.0
    """

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        return float(np.exp(super().conclude(sums)[0])), 0.0


@value
class brier(Metric):
    """The Brier score: the mean squared error of the probability of class 1, or summed over more classes.

    >>> brier().compute(np.array([0, 1]), np.array([0.5, 0.5]), kind="probabilities")
    0.25
    """

    kinds = PROBABILITIES
    is_higher_better: ClassVar[bool] = False

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (Squares(),)

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        weight, squares = sums[Squares.name]
        return (float(squares / weight), 0.0) if weight > 0 else (UNDEFINED, 0.0)


@value
class calibration_error(Metric):
    """The expected calibration error: the mean distance of claims from what came true, by bins of the claim.

        sum_b n_b / n |mean claim in b - share that holds in b|

    Of two classes, the claim is the probability of class 1; of more, that of the predicted class.

    >>> calibration_error().compute(np.array([0, 1]), np.array([0.5, 0.5]), kind="probabilities")
    0.0

    Args:
      bins: the bins of equal width.
    References: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017.
    """

    kinds = PROBABILITIES
    is_higher_better: ClassVar[bool] = False
    bins: int = 15

    def __post_init__(self) -> None:
        check_bins(self.bins)

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (Calibration(self.bins),)

    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        weight, claimed, holds = np.asarray(sums[self.statistics[0].name]).T
        if not weight.sum() > 0:
            return UNDEFINED, 0.0
        return float(np.abs(claimed - holds).sum() / weight.sum()), 0.0
