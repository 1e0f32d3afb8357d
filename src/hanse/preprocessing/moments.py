"""Means and deviations of columns of numbers, learned from the counts and sums of all clients.

Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
COMPSTAT 1982.
"""

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np

from hanse.core import (
    Array,
    Close,
    CompositionError,
    Contribution,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    PartyId,
    Program,
    Reducer,
    Shared,
    Spec,
    TensorSpec,
    Total,
    Work,
    gather,
    value,
)
from hanse.core import sum as sum_
from hanse.preprocessing.schema import Schema

__all__ = [
    "Cohort",
    "Moments",
    "Scaling",
    "Statistics",
    "column_deviations",
    "column_moments",
    "column_sums",
    "merged_moments",
    "moments",
    "standardised",
    "two_sums",
    "unscaled",
]

Cohort: TypeAlias = tuple[PartyId, ...]


@value
class Moments:
    """The count of each column's numbers, their mean, and the sum of squared differences from it."""

    count: Array
    mean: Array
    m2: Array

    @classmethod
    def of(cls, values: Array) -> "Moments":
        """Computes the moments of (n, columns) numbers, and leaves gaps out.

        Differences are taken from a value of the column, so that a large mean costs no digits.
        """
        columns = np.ascontiguousarray(values.T)
        present = ~np.isnan(columns)
        count = present.sum(axis=1)
        there = np.maximum(count, 1)
        shift = np.where(count > 0, columns[np.arange(len(columns)), present.argmax(axis=1)], 0.0)
        moved = np.where(present, columns - shift[:, None], 0.0)
        mean = moved.sum(axis=1) / there
        spread = np.where(present, moved - mean[:, None], 0.0)
        m2 = np.square(spread).sum(axis=1) - np.square(spread.sum(axis=1)) / there
        return cls(count.astype(np.float64), shift + mean, m2)

    def merge(self, other: "Moments") -> "Moments":
        """Computes the moments of both sets of numbers together, by Chan, Golub and LeVeque's formula.

        n = n_a + n_b,   d = mean_b - mean_a,   mean = mean_a + d n_b / n,   m2 = m2_a + m2_b + d² n_a n_b / n
        """
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = np.where((self.count > 0) & (other.count > 0), other.mean - self.mean, 0.0)
        mean = np.where(self.count > 0, self.mean + apart * share, other.mean)
        return Moments(count, mean, self.m2 + other.m2 + np.square(apart) * self.count * share)

    @property
    def std(self) -> Array:
        """The standard deviation of each column, or 1 where all its numbers are the same to rounding."""
        return self.deviations(0)

    def deviations(self, ddof: int) -> Array:
        """Computes each column's standard deviation, or 1 where all its numbers are the same to rounding.

        The bound is that of scikit-learn: the variance that rounding may leave in a sum of so many equal
        numbers.

        Args:
          ddof: what is taken off the count of numbers, by which squared differences are divided.
        """
        count = np.maximum(self.count, 1)
        variance = self.m2 / count
        eps = float(np.finfo(np.float64).eps)
        constant = variance <= count * eps * variance + np.square(count * self.mean * eps)
        divided = self.m2 / np.maximum(count - ddof, 1)
        return np.where(constant, 1.0, np.sqrt(np.maximum(divided, 0.0)))


@value
class moments(Reducer[tuple[Moments, int]]):
    """Counts, means and squared differences from the mean, merged pair by pair.

    They are exact to rounding, however far the mean is from 0. Weights are ignored.

    >>> from hanse.core import reduce
    >>> parts = [Moments.of(np.array([[2020.0], [2021.0]])), Moments.of(np.array([[2022.0]]))]
    >>> reduce(moments(), [Part(vars(part)) for part in parts]).values
    {'count': array([3.]), 'mean': array([2021.]), 'm2': array([2.])}

    Runs at: server.
    Reveals: to the server each client's counts, means and deviations; of one example, the example.
    Raises: CompositionError: if messages are of another kind.
    References: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
      variances", COMPSTAT 1982.
    """

    def accepts(self, spec: Spec) -> None:
        if spec.kind != "real" or not spec.summable or spec.tensors.keys() != {"count", "mean", "m2"}:
            raise CompositionError(
                f"moments() merges count, mean and m2, but these are {spec.kind}: {', '.join(spec.tensors)}; "
                "send them without transforms, or add up two_sums()"
            )

    def lift(self, part: Part) -> tuple[Moments, int]:
        count, mean, m2 = (part.values[name] for name in ("count", "mean", "m2"))
        return Moments(np.maximum(count, 0.0), mean, np.maximum(m2, 0.0)), 1

    def merge(self, left: tuple[Moments, int], right: tuple[Moments, int]) -> tuple[Moments, int]:
        return left[0].merge(right[0]), left[1] + right[1]

    def result(self, accumulator: tuple[Moments, int]) -> Total:
        learned, num_parts = accumulator
        return Total(vars(learned), float(num_parts), num_parts)


@value
class column_moments(Work[Any, Examples]):
    """Computes counts, means and deviations of the client's columns of numbers; emits "moments"."""

    schema: Schema

    def run(
        self, learner: Any, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        return {"moments": Part(vars(Moments.of(self.schema.numbers_in(data.x))))}, memory


@value
class column_sums(Work[Any, Examples]):
    """Computes counts and sums of the client's columns of numbers; emits "sums"."""

    schema: Schema

    def run(
        self, learner: Any, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        own = Moments.of(self.schema.numbers_in(data.x))
        return {"sums": Part({"count": own.count, "sum": own.mean * own.count})}, memory


@value
class column_deviations(Work[Any, Examples]):
    """Sums squared differences from the broadcast mean of all clients; emits "deviations"."""

    schema: Schema

    def run(
        self, learner: Any, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        apart = self.schema.numbers_in(data.x) - shared["all"]["mean"]
        m2 = np.square(np.nan_to_num(np.ascontiguousarray(apart.T))).sum(axis=1)
        return {"deviations": Part({"m2": m2})}, memory


class Statistics(ABC):
    """A program that learns means and deviations, as a value such as `merged_moments()`."""

    @abstractmethod
    def program(self, schema: Schema, cohort: Cohort, key: Key, close: Close) -> Program[Moments]:
        """Learns means and deviations from a cohort."""


def _columns(schema: Schema, *names: str) -> Spec:
    return Spec({name: TensorSpec((len(schema.numbers),), "float64") for name in names})


@value
class merged_moments(Statistics):
    """One exchange, merged pair by pair. The server sees each client's means and deviations."""

    def program(self, schema: Schema, cohort: Cohort, key: Key, close: Close) -> Program[Moments]:
        part_spec = PartSpec(_columns(schema, "count", "mean", "m2"), into=moments())
        got = yield from gather(column_moments(schema), cohort, {}, key, close=close, moments=part_spec)
        return Moments(**got["moments"].values)


@value
class two_sums(Statistics):
    """Two exchanges of sums: the mean first, then squared differences from it.

    Args:
      into: the reducer that adds up; one that hides contributions shows the server no client's sums.
    """

    into: Reducer[Any] = sum_()

    def program(self, schema: Schema, cohort: Cohort, key: Key, close: Close) -> Program[Moments]:
        sums = PartSpec(_columns(schema, "count", "sum"), into=self.into)
        got = yield from gather(column_sums(schema), cohort, {}, key.fold_in("sums"), close=close, sums=sums)
        count, total = (got["sums"].values[name] for name in ("count", "sum"))
        mean = total / np.maximum(count, 1)
        part_spec = PartSpec(_columns(schema, "m2"), into=self.into)
        got = yield from gather(
            column_deviations(schema),
            got.parties,
            {"all": {"mean": mean}},
            key.fold_in("deviations"),
            close=close,
            deviations=part_spec,
        )
        return Moments(count, mean, got["deviations"].values["m2"])


class Scaling(ABC):
    """A scaling of numbers, as a value such as `standardised()`."""

    @abstractmethod
    def shift_and_scale(self, learned: Moments) -> tuple[Array, Array]:
        """Returns, by column, what is subtracted and what the difference is divided by."""


@value
class standardised(Scaling):
    """Numbers less their mean, over their standard deviation (without gaps; 1 if all are the same).

    >>> learned = Moments.of(np.array([[1.0], [3.0]]))
    >>> standardised(ddof=1).shift_and_scale(learned)[1].round(3)
    array([1.414])

    Args:
      ddof: 0 divides squared differences by the count n of numbers, as scikit-learn's `StandardScaler` does;
        1 divides them by n - 1, as pandas and R do (the sample standard deviation).
    Raises: InvalidInput: if ddof is neither 0 nor 1.
    """

    ddof: int = 0

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1):
            raise InvalidInput(f"ddof is {self.ddof}; write 0 to divide by n, or 1 to divide by n - 1")

    def shift_and_scale(self, learned: Moments) -> tuple[Array, Array]:
        return learned.mean, learned.deviations(self.ddof)


@value
class unscaled(Scaling):
    """Numbers as they are."""

    def shift_and_scale(self, learned: Moments) -> tuple[Array, Array]:
        return np.zeros_like(learned.mean), np.ones_like(learned.mean)
