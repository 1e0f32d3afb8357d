"""Vocabularies of columns of categories, learned from the counts of all clients."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    Contribution,
    Examples,
    Keys,
    Memory,
    Part,
    Reducer,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Total,
    Work,
    value,
)
from hanse.preprocessing.schema import Schema

__all__ = [
    "TABLE",
    "Fill",
    "Vocabulary",
    "as_counts",
    "category_counts",
    "most_frequent",
    "own_category",
    "tally",
]

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


def as_counts(tensors: Tensors) -> Iterator[tuple[tuple[int, str], int]]:
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
        for entry, count in as_counts(part.values):
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
            categories, times = np.unique(self.schema.category_in(data.x, name), return_counts=True)
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
      drop_first: whether the first place is left out of the code, so that its category has only 0.
    """

    categories: tuple[str, ...]
    has_other: bool = False
    gap: int = -1
    drop_first: bool = False

    @classmethod
    def of(
        cls,
        counts: Mapping[str, int],
        fill: Fill,
        *,
        max_categories: int,
        min_count: int,
        drop_first: bool = False,
    ) -> "Vocabulary":
        """Chooses the places from the counts of all clients' categories; an empty one is a gap."""
        present = [(word, count) for word, count in counts.items() if word and count]
        kept = [w for w, count in _by_frequency(present, max_categories) if count >= min_count]
        categories = tuple(sorted(kept))
        has_other = len(categories) < len(present)
        gap = fill.place(categories, counts, len(categories) + has_other)
        return cls(categories, has_other, gap, drop_first)

    @property
    def _num_places(self) -> int:
        return max(len(self.categories) + self.has_other, self.gap + 1)

    @property
    def num_columns(self) -> int:
        """The number of columns of the code."""
        return max(self._num_places - self.drop_first, 0)

    def names(self, column: str) -> tuple[str, ...]:
        """Returns the names of the columns of the code."""
        places = [*self.categories, *["(other)"] * self.has_other]
        places += ["(missing)"] * (self._num_places - len(places))
        return tuple(f"{column}={word}" for word in places[self.drop_first :])

    def encode(self, column: Array) -> Array:
        """Encodes (n,) categories as (n, num_columns) numbers."""
        code = np.zeros((len(column), self._num_places))
        place = np.full(len(column), len(self.categories) if self.has_other else -1)
        if self.categories:
            known = np.array(self.categories)
            near = np.minimum(np.searchsorted(known, column), len(known) - 1)
            place = np.where(known[near] == column, near, place)
        place = np.where(column == "", self.gap, place)
        rows = np.flatnonzero(place >= 0)
        code[rows, place[rows]] = 1
        return code[:, self.drop_first :]
