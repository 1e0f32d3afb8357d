"""Sums over examples from which metrics follow. Those of several parties are added up."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from hanse.core import Array
from hanse.evaluation.metrics.concordance import count_pairs
from hanse.evaluation.metrics.scored import ScoredRows

__all__ = [
    "Calibration",
    "ClassCounts",
    "Confusion",
    "Errors",
    "Histogram",
    "Logarithms",
    "Pairs",
    "Squares",
    "Statistic",
    "Threshold",
]


class Statistic(ABC):
    """An array that is a sum over examples."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the array in a message."""

    @abstractmethod
    def find_shape(self, width: int) -> tuple[int, ...]:
        """Returns the shape of the array, given the number of classes or of numbers in a row."""

    @abstractmethod
    def sum(self, rows: ScoredRows) -> Array:
        """Computes the array over examples."""


@dataclass(frozen=True)
class ClassCounts(Statistic):
    """The weight of each class, (k,)."""

    name = "class_counts"

    def find_shape(self, width: int) -> tuple[int, ...]:
        return (width,)

    def sum(self, rows: ScoredRows) -> Array:
        return rows.count_classes()


@dataclass(frozen=True)
class Confusion(Statistic):
    """The weight of the examples of each class (row) that are predicted as each class (column), (k, k)."""

    name = "confusion"

    def find_shape(self, width: int) -> tuple[int, ...]:
        return (width, width)

    def sum(self, rows: ScoredRows) -> Array:
        k = rows.num_classes
        return np.bincount(rows.labels * k + rows.predicted, rows.weights, k * k).reshape(k, k)


@dataclass(frozen=True)
class Threshold(Statistic):
    """The weight of the examples of other classes and of a class, each below a threshold and from it on."""

    threshold: float
    positive: int

    @property
    def name(self) -> str:
        return f"from_{repr(self.threshold).removesuffix('.0')}_of_{self.positive}"

    def find_shape(self, width: int) -> tuple[int, ...]:
        return (2, 2)

    def sum(self, rows: ScoredRows) -> Array:
        is_class, is_above = (
            rows.labels == self.positive,
            rows.predictions[:, self.positive] >= self.threshold,
        )
        return np.bincount(is_class * 2 + is_above, rows.weights, 4).reshape(2, 2)


@dataclass(frozen=True)
class Histogram(Statistic):
    """The weight of the examples in each bin of scores, for each class: of other classes, and of it.

    Of two classes, only the second is counted.
    """

    bins: int

    @property
    def name(self) -> str:
        return f"histogram_{self.bins}"

    def find_shape(self, width: int) -> tuple[int, ...]:
        return (1 if width == 2 else width, self.bins, 2)

    def sum(self, rows: ScoredRows) -> Array:
        numbers = [1] if rows.num_classes == 2 else range(rows.num_classes)
        return np.stack([self._count(rows, number) for number in numbers])

    def _count(self, rows: ScoredRows, number: int) -> Array:
        ranking = rows.find_ranking(number)
        if rows.kind == "scores":  # of any size: a monotone function brings them between 0 and 1
            ranking = np.exp(-np.logaddexp(0.0, -ranking))
        at = np.clip((ranking * self.bins).astype(np.intp), 0, self.bins - 1)
        return np.bincount(at * 2 + (rows.labels == number), rows.weights, 2 * self.bins).reshape(-1, 2)


@dataclass(frozen=True)
class Calibration(Statistic):
    """The weight, the claimed and the true positives by claimed probability, (bins, 3).

    Of two classes, the claim is the probability of class 1; of more, that of the predicted class.
    """

    bins: int

    @property
    def name(self) -> str:
        return f"calibration_{self.bins}"

    def find_shape(self, width: int) -> tuple[int, ...]:
        return (self.bins, 3)

    def sum(self, rows: ScoredRows) -> Array:
        if rows.num_classes == 2:
            claimed, holds = rows.predictions[:, 1], rows.labels == 1
        else:
            claimed, holds = rows.predictions.max(axis=1), rows.labels == rows.predicted
        edges = np.linspace(0.0, 1.0, self.bins + 1)
        at = np.searchsorted(edges[1:-1], claimed)  # a bin holds its upper edge, as scikit-learn's do
        columns = [rows.weights, rows.weights * claimed, rows.weights * holds]
        return np.column_stack([np.bincount(at, column, self.bins) for column in columns])


@dataclass(frozen=True)
class Logarithms(Statistic):
    """The weight of examples, and of their surprise: -log of the probability of the true class, (2,)."""

    name = "surprise"

    def find_shape(self, width: int) -> tuple[int, ...]:
        return (2,)

    def sum(self, rows: ScoredRows) -> Array:
        own = rows.predictions[np.arange(len(rows.labels)), rows.labels]
        surprise = -np.log(np.clip(own, rows.smallest, 1 - rows.smallest))
        return np.array([rows.weights.sum(), rows.weights @ surprise])


@dataclass(frozen=True)
class Squares(Statistic):
    """The weight of examples, and of their squared errors of probabilities, (2,)."""

    name = "squares"

    def find_shape(self, width: int) -> tuple[int, ...]:
        return (2,)

    def sum(self, rows: ScoredRows) -> Array:
        if rows.num_classes == 2:
            squares = np.square(rows.predictions[:, 1] - (rows.labels == 1))
        else:
            squares = np.square(rows.predictions - np.eye(rows.num_classes)[rows.labels]).sum(axis=1)
        return np.array([rows.weights.sum(), rows.weights @ squares])


@dataclass(frozen=True)
class Errors(Statistic):
    """For each number of a row the sums of 1, squared and absolute errors, labels, their squares, (m, 5)."""

    name = "errors"

    def find_shape(self, width: int) -> tuple[int, ...]:
        return (width, 5)

    def sum(self, rows: ScoredRows) -> Array:
        y, error = rows.labels, rows.labels - rows.predictions
        columns = (np.ones_like(y), np.square(error), np.abs(error), y, np.square(y))
        return np.stack([rows.weights @ column for column in columns], axis=1)


@dataclass(frozen=True)
class Pairs(Statistic):
    """The weight of the pairs of examples in the right order, and of those that can be compared, (2,)."""

    name = "pairs"

    def find_shape(self, width: int) -> tuple[int, ...]:
        return (2,)

    def sum(self, rows: ScoredRows) -> Array:
        if rows.kind == "risks":
            times, events, strata = rows.labels.T
            return count_pairs(rows.predictions, times, events > 0, strata, rows.weights)
        y, found = rows.labels[:, 0], rows.predictions[:, 0]
        return count_pairs(-found, y, np.ones(len(y), bool), np.zeros(len(y)), rows.weights)
