"""A metric as a value, such as `auroc()`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from hanse.core import Array, InvalidInput, Prediction, fields
from hanse.core.exchange import find_classes
from hanse.evaluation.metrics.scored import CLASSES, ScoredRows, make_constant_rows, score_rows
from hanse.evaluation.metrics.statistics import ClassCounts, Errors, Pairs, Statistic

__all__ = ["UNDEFINED", "Metric"]

UNDEFINED = math.nan
"""The value of a metric that examples do not define, such as the AUROC where one class is absent."""


class Metric(ABC):
    """A figure about predictions, as a value such as `auroc()`. It never depends on an order of examples."""

    kinds: ClassVar[tuple[Prediction, ...]] = CLASSES
    """The predictions that it is computed from."""

    is_higher_better: ClassVar[bool] = True
    """Whether a higher value is better."""

    is_number: ClassVar[bool] = True
    """Whether it is one number, so that records can hold it and runs can stop by it."""

    is_binned: ClassVar[bool] = False
    """Whether sums tell it only up to an error, since they count scores in bins."""

    @property
    def key(self) -> str:
        """The name of the metric in records: as one writes it in settings."""
        said = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(type(self))
            if getattr(self, f.name) != f.default
        ]
        return type(self).__name__ + (f"({', '.join(said)})" if said else "")

    @property
    @abstractmethod
    def statistics(self) -> tuple[Statistic, ...]:
        """The sums that it follows from."""

    @abstractmethod
    def conclude(self, sums: Mapping[str, Array]) -> tuple[float, float]:
        """Returns the metric, given the sums of all examples, and by how much it may be wrong at most."""

    def find_table(self, sums: Mapping[str, Array]) -> Array | None:
        """Returns the metric as a table; None: it is a number."""
        return None

    def measure(self, rows: ScoredRows) -> float:
        """Computes the metric over examples, exactly."""
        return self.conclude(self.add_up(rows))[0] if len(rows.labels) else UNDEFINED

    def add_up(self, rows: ScoredRows) -> dict[str, Array]:
        """Computes the sums over examples, and those that describe a constant predictor of them."""
        return {one.name: one.sum(rows) for one in self.list_sums()}

    def list_sums(self) -> tuple[Statistic, ...]:
        """Lists the sums that are to be sent: also what the line of a constant predictor needs."""
        more = () if self.kinds[0] not in CLASSES else (ClassCounts(),)
        return tuple(dict.fromkeys((*self.statistics, *more)))

    def compute(
        self,
        labels: Array,
        predictions: Array,
        weights: Array | None = None,
        *,
        kind: Prediction | None = None,
    ) -> float:
        """Computes the metric; UNDEFINED, which is NaN, where the examples do not define it.

        For the arguments see `score_rows`.
        """
        rows = score_rows(labels, predictions, weights, kind=kind)
        self.check_kind(rows.kind)
        self.check_classes(rows.num_classes if rows.kind in CLASSES else None)
        return self.measure(rows)

    def measure_constant(self, rows: ScoredRows) -> float:
        """Computes the metric of a constant predictor: of the classes' shares, or of the mean."""
        if not len(rows.labels) or not rows.weights.sum():
            return UNDEFINED
        if rows.kind in CLASSES:
            return self.measure(make_constant_rows(rows.count_classes()))
        middle = np.zeros_like(rows.predictions)
        if rows.kind == "numbers":
            middle += rows.weights @ rows.labels / rows.weights.sum()
        return self.measure(ScoredRows(rows.labels, middle, rows.weights, rows.kind))

    def conclude_constant(self, sums: Mapping[str, Array]) -> float:
        """Computes the metric of a constant predictor from sums; UNDEFINED where sums do not tell it."""
        if ClassCounts.name in sums:
            return self.measure(make_constant_rows(np.asarray(sums[ClassCounts.name])))
        known = dict(sums)
        if Errors.name in sums:
            weight, _, _, y, yy = np.asarray(sums[Errors.name]).T
            left = np.maximum(yy - np.square(y) / np.where(weight > 0, weight, 1), 0.0)
            known[Errors.name] = np.stack([weight, left, np.full_like(y, np.nan), y, yy], axis=1)
        if Pairs.name in sums:
            comparable = float(sums[Pairs.name][1])
            known[Pairs.name] = np.array([comparable / 2, comparable])
        return self.conclude(known)[0]

    def check_kind(self, kind: Prediction) -> None:
        """Checks that a model predicts what is needed. Raises: InvalidInput: if it does not."""
        if kind not in self.kinds:
            suited = [name for name, cls in find_classes(Metric).items() if kind in cls.kinds]
            raise InvalidInput(
                f"{self.key} is computed from {' or '.join(self.kinds)}, and the model predicts {kind}; "
                f"write one of {', '.join(sorted(suited))}"
            )

    def check_classes(self, num_classes: int | None) -> None:  # noqa: B027 (most suit any number)
        """Checks that it is defined for so many classes. Raises: InvalidInput: if it is not."""
