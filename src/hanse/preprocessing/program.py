"""Preprocessing learned before training: means and deviations, vocabularies, and values for gaps.

It is learned from counts and sums of all clients, and each party applies it to its own rows, so every party
gives the model the same numbers for the same row.
"""

from abc import ABC, abstractmethod

import numpy as np

from hanse.core import (
    Array,
    Close,
    Examples,
    InvalidInput,
    Key,
    PartSpec,
    Program,
    check_count,
    gather,
    nearest,
    sample,
    value,
)
from hanse.data import find_gaps
from hanse.preprocessing.moments import Cohort, Moments, Scaling, Statistics, merged_moments, standardised
from hanse.preprocessing.schema import Schema
from hanse.preprocessing.vocabularies import (
    TABLE,
    Fill,
    Vocabulary,
    as_counts,
    category_counts,
    most_frequent,
    tally,
)

__all__ = ["Encoder", "Preprocessing", "tabular"]


@value
class Encoder:
    """The learned preprocessing that each party applies to its rows: first numbers, then codes.

        (x - shift) / scale, where x is `fill` in a gap

    Features that have no names keep their shape.

    Args:
      schema: the columns.
      fill, shift, scale: (columns of numbers,).
      vocabularies: the vocabularies of the columns of categories.
      dtype: the dtype of the result.
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
        codes = [
            v.encode(self.schema.category_in(x, n))
            for n, v in zip(self.schema.categories, self.vocabularies, strict=True)
        ]
        return Examples(np.concatenate([scaled, *codes], axis=1).astype(self.dtype), examples.y)

    def find_empty_columns(self, x: Array) -> tuple[str, ...]:
        """Lists the columns of a table that hold no value in any row."""
        names, present = (*self.schema.numbers, *self.schema.categories), {*(x.dtype.names or ())}
        return tuple(name for name in names if name in present and find_gaps(x[name]).all())

    def find_new_columns(self, x: Array) -> tuple[str, ...]:
        """Lists the columns of a table all of whose categories are new to the encoder."""
        found = list[str]()
        for name, vocabulary in zip(self.schema.categories, self.vocabularies, strict=True):
            words = np.unique(self.schema.category_in(x, name))
            words = words[words != ""]
            if len(words) and not np.isin(words, vocabulary.categories).any():
                found.append(name)
        return tuple(found)

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

    >>> tabular(max_categories=20).missing
    most_frequent()

    Args:
      numbers: `standardised()` or `unscaled()`.
      missing: what replaces a missing category, `most_frequent()` or `own_category()`.
      max_categories: the most categories of a column that have their own place in the code, by frequency; all
        others share one.
      min_count: categories that fewer rows of all clients together hold have no place of their own.
      statistics: how means and deviations are learned: `merged_moments()` or `two_sums(...)`.
      fraction: the share of clients to learn from.
      dtype: the dtype of the resulting features, "float32" or "float64".
      close: when an exchange closes.
      drop_first: whether a code leaves out the first category by name, which then has only 0: for regressions
        without a regulariser. A category that no client had when it was learned counts as that one.
    Reveals: to the server what `statistics` reveals of numbers, and each client's categories with their
      counts; to the clients the learned encoder.
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
    drop_first: bool = False

    def __post_init__(self) -> None:
        for name in ("max_categories", "min_count"):
            check_count(name, getattr(self, name))
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
        for (column, word), count in as_counts(got["counts"].values):
            if 0 <= column < len(counts):
                counts[column][word] = count
        return tuple(
            Vocabulary.of(
                own,
                self.missing,
                max_categories=self.max_categories,
                min_count=self.min_count,
                drop_first=self.drop_first,
            )
            for own in counts
        )
