"""Preprocessing learned before training: means and deviations, vocabularies, and values for gaps.

It is learned from counts and sums of all clients, and each party applies it to its own rows, so every party
gives the model the same numbers for the same row.

Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
COMPSTAT 1982.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
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
    Tensors,
    TensorSpec,
    Total,
    Work,
    gather,
    nearest,
    sample,
    value,
)
from hanse.core import sum as sum_

__all__ = [
    "Encoder",
    "Fill",
    "Moments",
    "Preprocessing",
    "Scaling",
    "Schema",
    "Statistics",
    "Vocabulary",
    "merged_moments",
    "moments",
    "most_frequent",
    "own_category",
    "standardised",
    "tabular",
    "tally",
    "two_sums",
    "unscaled",
]

Cohort: TypeAlias = tuple[PartyId, ...]


@value
class Schema:
    """The columns of examples. Features without names are numbers, called "0", "1", ...

    >>> Schema.of(np.zeros(2, [("age", float), ("job", "U9")]))
    Schema(numbers=('age',), categories=('job',))

    Args:
      numbers: columns of numbers; a gap is NaN.
      categories: columns of categories; a gap is an empty string.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...] = ()

    @classmethod
    def of(cls, x: Array) -> "Schema":
        """Reads the columns of (n, ...) features."""
        names = x.dtype.names
        if names is None:
            return cls(tuple(str(i) for i in range(x[:1].size if len(x) else 0)))
        is_text = {name: x.dtype[name].kind == "U" for name in names}
        return cls(*(tuple(name for name in names if is_text[name] == kind) for kind in (False, True)))

    def numbers_in(self, x: Array) -> Array:
        """Returns the columns of numbers, (n, columns) in float64.

        Raises: InvalidInput: if `x` has other columns.
        """
        own = Schema.of(x)
        if x.dtype.names is None:
            if own != self:
                raise InvalidInput(f"{len(own.numbers)} features a row, but {len(self.numbers)} are needed")
            return x.reshape(len(x), -1).astype(np.float64, copy=False)
        self._check(own)
        if not self.numbers:
            return np.empty((len(x), 0))
        return np.column_stack([x[name] for name in self.numbers])

    def _check(self, own: "Schema") -> None:
        """Checks that each column is there and of its kind."""
        for noun, due, found in (
            ("numbers", self.numbers, own.numbers),
            ("categories", self.categories, own.categories),
        ):
            for name in due:
                if name not in (*own.numbers, *own.categories):
                    known = nearest(name, (*own.numbers, *own.categories))
                    raise InvalidInput(f"the table has no column {name!r}, which all parties need; {known}")
                if name not in found:
                    option = "numeric" if noun == "numbers" else "categorical"
                    raise InvalidInput(
                        f"column {name!r} holds {noun} elsewhere but not here; say so to every party's "
                        f'reader: {option} = ["{name}"]'
                    )


# Numbers


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
        """The standard deviation of each column, or 1 where all its numbers are the same to rounding.

        The bound is that of scikit-learn: the variance that rounding may leave in a sum of so many equal
        numbers.
        """
        count = np.maximum(self.count, 1)
        variance = self.m2 / count
        eps = float(np.finfo(np.float64).eps)
        constant = variance <= count * eps * variance + np.square(count * self.mean * eps)
        return np.where(constant, 1.0, np.sqrt(np.maximum(variance, 0.0)))


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


# Categories

Counts: TypeAlias = Mapping[tuple[int, str], int]
"""The count of each category, by the number of its column and its name."""

TABLE = Spec(
    {
        "bytes": TensorSpec(("num_bytes",), "uint8"),
        "ends": TensorSpec(("num_entries",), "int64"),
        "columns": TensorSpec(("num_entries",), "int64"),
        "counts": TensorSpec(("num_entries",), "int64"),
    },
    kind="table",
)
"""Categories one after the other in UTF-8, where each ends, its column, and its count there."""


MAX_COUNT = 2**40
"""The largest count taken from one client, so that those of a million clients can be added up."""


def _as_tensors(counts: Counts) -> Tensors:
    entries = sorted(counts.items())
    categories = [word.encode() for (_, word), _ in entries]
    return {
        "bytes": np.frombuffer(b"".join(categories), np.uint8),
        "ends": np.cumsum([len(word) for word in categories], dtype=np.int64),
        "columns": np.array([column for (column, _), _ in entries], np.int64),
        "counts": np.array([count for _, count in entries], np.int64),
    }


def _as_counts(tensors: Tensors) -> Iterator[tuple[tuple[int, str], int]]:
    """Reads a table of counts: ends that don't fit give other categories, never an error."""
    text = tensors["bytes"].tobytes()
    begin = 0
    for end, column, count in zip(
        tensors["ends"].tolist(), tensors["columns"].tolist(), tensors["counts"].tolist(), strict=True
    ):
        yield (column, text[begin:end].decode(errors="replace")), min(max(0, count), MAX_COUNT)
        begin = end


@dataclass
class _Tally:
    counts: Counter[tuple[int, str]]
    num_parts: int


@value
class tally(Reducer[_Tally]):
    """Tables of counts, added up entry by entry, exactly; entries that are missing count 0.

    Runs at: server.
    Reveals: to the server each client's categories and their counts.
    Raises: CompositionError: if messages are not tables of counts.
    """

    def accepts(self, spec: Spec) -> None:
        if spec.kind != "table" or spec.tensors.keys() != TABLE.tensors.keys():
            raise CompositionError(
                f"tally() adds up tables of counts, but these are {spec.kind}: {', '.join(spec.tensors)}; "
                "send what category_counts emits, without transforms"
            )

    def lift(self, part: Part) -> _Tally:
        counts: Counter[tuple[int, str]] = Counter()
        for entry, count in _as_counts(part.values):
            counts[entry] += count
        return _Tally(counts, 1)

    def merge(self, left: _Tally, right: _Tally) -> _Tally:
        left.counts.update(right.counts)
        return _Tally(left.counts, left.num_parts + right.num_parts)

    def result(self, accumulator: _Tally) -> Total:
        return Total(_as_tensors(accumulator.counts), float(accumulator.num_parts), accumulator.num_parts)


@value
class category_counts(Work[Any, Examples]):
    """Counts each category in each of the client's columns of categories; emits "counts".

    Args:
      schema: the columns.
      max_categories: of a column with more categories, only so many are sent, the most frequent.
    """

    schema: Schema
    max_categories: int = 10_000

    def run(
        self, learner: Any, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        self.schema.numbers_in(data.x)
        counts: dict[tuple[int, str], int] = {}
        for number, name in enumerate(self.schema.categories):
            categories, times = np.unique(data.x[name], return_counts=True)
            own = zip(categories.tolist(), times.tolist(), strict=True)
            counts |= {(number, word): n for word, n in _by_frequency(own, self.max_categories)}
        return {"counts": Part(_as_tensors(counts))}, memory


def _by_frequency(counts: Iterable[tuple[str, int]], at_most: int) -> Iterator[tuple[str, int]]:
    """Sorts the most frequent first, and equally frequent ones by name."""
    return islice(sorted(counts, key=lambda entry: (-entry[1], entry[0])), at_most)


class Fill(ABC):
    """A replacement for missing categories, as a value such as `most_frequent()`."""

    @abstractmethod
    def place(self, categories: tuple[str, ...], counts: Mapping[str, int], num_columns: int) -> int:
        """Returns the column of the code that a gap sets, from 0; `num_columns` adds one; -1 sets none."""


@value
class most_frequent(Fill):
    """The most frequent category of the column; of equally frequent ones the first by name."""

    def place(self, categories: tuple[str, ...], counts: Mapping[str, int], num_columns: int) -> int:
        return max(range(len(categories)), key=lambda i: (counts[categories[i]], -i), default=-1)


@value
class own_category(Fill):
    """A category of its own for gaps, in columns that have gaps at any client."""

    def place(self, categories: tuple[str, ...], counts: Mapping[str, int], num_columns: int) -> int:
        return num_columns if counts.get("", 0) else -1


@value
class Vocabulary:
    """The code of a column of categories: a 1 in the place of the category, 0 elsewhere.

    Args:
      categories: the categories that have a place, in the order of their names.
      has_other: whether a further place stands for all other categories; if not, these have no 1.
      gap: the place of a missing category, or -1.
    """

    categories: tuple[str, ...]
    has_other: bool = False
    gap: int = -1

    @classmethod
    def of(
        cls, counts: Mapping[str, int], fill: Fill, *, max_categories: int, min_count: int
    ) -> "Vocabulary":
        """Chooses the places from the counts of all clients' categories; an empty one is a gap."""
        present = [(word, count) for word, count in counts.items() if word and count]
        kept = [w for w, count in _by_frequency(present, max_categories) if count >= min_count]
        categories = tuple(sorted(kept))
        has_other = len(categories) < len(present)
        return cls(categories, has_other, fill.place(categories, counts, len(categories) + has_other))

    @property
    def num_columns(self) -> int:
        """The number of places of the code."""
        return max(len(self.categories) + self.has_other, self.gap + 1)

    def names(self, column: str) -> tuple[str, ...]:
        """Returns the names of the places."""
        places = [*self.categories, *["(other)"] * self.has_other]
        return tuple(f"{column}={word}" for word in places + ["(missing)"] * (self.num_columns - len(places)))

    def encode(self, column: Array) -> Array:
        """Encodes (n,) categories as (n, num_columns) numbers."""
        code = np.zeros((len(column), self.num_columns))
        place = np.full(len(column), len(self.categories) if self.has_other else -1)
        if self.categories:
            known = np.array(self.categories)
            near = np.minimum(np.searchsorted(known, column), len(known) - 1)
            place = np.where(known[near] == column, near, place)
        place = np.where(column == "", self.gap, place)
        rows = np.flatnonzero(place >= 0)
        code[rows, place[rows]] = 1
        return code


# Both


class Scaling(ABC):
    """A scaling of numbers, as a value such as `standardised()`."""

    @abstractmethod
    def shift_and_scale(self, learned: Moments) -> tuple[Array, Array]:
        """Returns, by column, what is subtracted and what the difference is divided by."""


@value
class standardised(Scaling):
    """Numbers less their mean, over their standard deviation (without gaps; 1 if all are the same)."""

    def shift_and_scale(self, learned: Moments) -> tuple[Array, Array]:
        return learned.mean, learned.std


@value
class unscaled(Scaling):
    """Numbers as they are."""

    def shift_and_scale(self, learned: Moments) -> tuple[Array, Array]:
        return np.zeros_like(learned.mean), np.ones_like(learned.mean)


@value
class Encoder:
    """The learned preprocessing that each party applies to its rows: first numbers, then codes.

        (x - shift) / scale, where x is `fill` in a gap

    Features that have no names keep their shape.

    Args:
      schema: the columns.
      fill, shift, scale: (columns of numbers,).
      vocabularies: of the columns of categories.
      dtype: of the result.
    """

    schema: Schema
    fill: Array
    shift: Array
    scale: Array
    vocabularies: tuple[Vocabulary, ...] = ()
    dtype: str = "float32"

    def __call__(self, examples: Examples) -> Examples:
        """Returns the examples with features of numbers.

        Raises: InvalidInput: if they have other columns.
        """
        x = examples.x
        numbers = self.schema.numbers_in(x)
        scaled = (np.where(np.isnan(numbers), self.fill, numbers) - self.shift) / self.scale
        if x.dtype.names is None:
            return Examples(scaled.reshape(x.shape).astype(self.dtype), examples.y)
        codes = [v.encode(x[n]) for n, v in zip(self.schema.categories, self.vocabularies, strict=True)]
        return Examples(np.concatenate([scaled, *codes], axis=1).astype(self.dtype), examples.y)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the resulting features."""
        codes = (v.names(n) for n, v in zip(self.schema.categories, self.vocabularies, strict=True))
        return tuple(name for names in (self.schema.numbers, *codes) for name in names)


class Preprocessing(ABC):
    """A treatment of features before training, as a value such as `tabular()`."""

    @abstractmethod
    def program(self, schema: Schema, key: Key) -> Program[Encoder]:
        """Learns an encoder from the clients, whose features have these columns.

        Raises: RoundAbandoned: if too few of them answer.
        """


@value
class tabular(Preprocessing):
    """Standardises numbers, codes categories one-hot, and fills gaps: with the mean, or as `missing` says.

    It learns in one exchange for numbers and one for categories. The result equals what the pooled rows
    would give: to rounding for numbers, exactly for categories.

    >>> tabular(max_categories=20).numbers
    standardised()

    Args:
      numbers: `standardised()` or `unscaled()`.
      missing: what replaces a missing category, `most_frequent()` or `own_category()`.
      max_categories: of a column; the most frequent ones have a place in the code, all others share one.
      min_count: categories that fewer rows of all clients together hold have no place of their own.
      statistics: how means and deviations are learned: `merged_moments()` or `two_sums(...)`.
      fraction: of the clients, to learn from.
      dtype: of the resulting features, "float32" or "float64".
      close: when an exchange closes.
    Reveals: to the server what `statistics` reveals of numbers, and each client's categories with their
      counts; to the clients what is learned.
    Raises: InvalidInput: if a setting is out of range.
    """

    numbers: Scaling = standardised()
    missing: Fill = most_frequent()
    max_categories: int = 100
    min_count: int = 1
    statistics: Statistics = merged_moments()
    fraction: float = 1.0
    dtype: str = "float32"
    close: Close = Close()

    def __post_init__(self) -> None:
        for name in ("max_categories", "min_count"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; write at least 1")
        if self.dtype not in ("float32", "float64"):
            raise InvalidInput(f"dtype is {self.dtype!r}; {nearest(self.dtype, ('float32', 'float64'))}")

    def program(self, schema: Schema, key: Key) -> Program[Encoder]:
        chosen = yield from sample(key.fold_in("cohort"), fraction=self.fraction)
        learned = Moments(*(np.empty(0) for _ in range(3)))
        if schema.numbers:
            learned = yield from self.statistics.program(
                schema, chosen.cohort, key.fold_in("numbers"), self.close
            )
        vocabularies: tuple[Vocabulary, ...] = ()
        if schema.categories:
            vocabularies = yield from self._vocabularies(schema, chosen.cohort, key.fold_in("words"))
        shift, scale = self.numbers.shift_and_scale(learned)
        return Encoder(schema, learned.mean, shift, scale, vocabularies, self.dtype)

    def _vocabularies(self, schema: Schema, cohort: Cohort, key: Key) -> Program[tuple[Vocabulary, ...]]:
        part_spec = PartSpec(TABLE, into=tally())
        got = yield from gather(category_counts(schema), cohort, {}, key, close=self.close, counts=part_spec)
        counts: tuple[dict[str, int], ...] = tuple({} for _ in schema.categories)
        for (column, word), count in _as_counts(got["counts"].values):
            if 0 <= column < len(counts):
                counts[column][word] = count
        limits = {"max_categories": self.max_categories, "min_count": self.min_count}
        return tuple(Vocabulary.of(own, self.missing, **limits) for own in counts)
