"""Columns of a file of text: each becomes numbers, or words where cells are no numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, isinf, nan

import numpy as np

from hanse.core import Array
from hanse.data.labels import spell
from hanse.data.separators import Separators, classify
from hanse.data.tables import SAMPLE

NO_NUMBER = "\0"
"""A cell that no file holds, in place of one that has other separators than the file's numbers."""


@dataclass(frozen=True)
class Words:
    """The meaning of cells that are not just numbers; the same for many columns of a file."""

    missing: frozenset[str]
    separators: Separators
    strip: str
    is_role: bool = False

    @cached_property
    def are_plain(self) -> bool:
        """Whether each cell that Python reads as a finite number means that number."""
        return self.separators.are_plain and not any(map(_is_finite, self.missing))


class Column:
    """A column as it is read: numbers as long as its cells are numbers, text otherwise."""

    def __init__(self, name: str, words: Words, *, categorical: bool, numbers: bool) -> None:
        self.name, self._words = name, words
        self._missing, self._separators = words.missing, words.separators
        self._must_be_categories, self._must_be_numbers = categorical, numbers
        self._chunks: list[Array] = []
        self._num_rows = self.num_numbers = self._num_categories = 0
        self._has_gaps = False
        self.first_word = (0, "")
        self.words: dict[str, None] = {}
        """Some of the words that are no numbers."""
        self.marks: Counter[str] = Counter()
        """The number of words that are numbers with other separators, by `classify`."""

    def add(self, cells: Sequence[str]) -> None:
        """Adds the next cells."""
        numbers = None
        if not self._must_be_categories:
            numbers = self._as_plain_numbers(cells)
            numbers = self._as_numbers(list(map(str.strip, cells))) if numbers is None else numbers
        self._chunks.append(self._as_categories(cells) if numbers is None else numbers)
        self._num_rows += len(cells)

    def _as_plain_numbers(self, cells: Sequence[str]) -> Array | None:
        """Returns the cells as numbers, in a fraction of the time; or None if some need a closer look."""
        if not self._words.are_plain:
            return None
        try:
            numbers = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            return None
        if not np.isfinite(numbers).all() or "_" in "".join(cells):
            return None
        self.num_numbers += len(cells)
        return numbers

    def add_numbers(self, numbers: Array) -> None:
        """Adds the next cells, which are numbers and have no gaps."""
        self._chunks.append(numbers)
        self._num_rows += len(numbers)
        self.num_numbers += len(numbers)

    @property
    def plain_dtype(self) -> str:
        """The dtype that NumPy may read the next cells in, if they are like the last ones."""
        has_numbers = bool(self._chunks) and self._chunks[-1].dtype.kind == "f" and not self._has_gaps
        return "f8" if has_numbers and self._words.are_plain else "O"

    def _as_categories(self, cells: Sequence[str]) -> Array:
        strip = self._words.strip + " "
        categories = {}
        for cell in set(cells):
            word = cell.strip()
            categories[cell] = "" if word in self._missing else spell(self._plain(word.strip(strip)))
        return np.array([categories[cell] for cell in cells])

    def _plain(self, word: str) -> str:
        """Returns a label or key that is a number without the file's separators."""
        return self._separators.to_plain(word) or word if self._words.is_role else word

    def _as_numbers(self, cells: Sequence[str]) -> Array | None:
        """Returns the cells as numbers; or None, and counts them, if some of them are text."""
        missing, written = self._missing, cells
        if not self._separators.are_plain:
            cells = [
                cell if cell in missing else self._separators.to_plain(cell) or NO_NUMBER for cell in cells
            ]
        try:
            numbers = np.array([nan if cell in missing else float(cell) for cell in cells])
        except ValueError:
            numbers = np.array([nan])
        present = len(cells) - sum(map(missing.__contains__, cells))
        if np.count_nonzero(np.isfinite(numbers)) == present and "_" not in "".join(cells):
            self.num_numbers += present
            self._has_gaps = True
            return numbers
        self._count_categories(written)
        return None

    def _count_categories(self, cells: Sequence[str]) -> None:
        for cell, count in Counter(cells).items():
            if cell in self._missing:
                continue
            if is_number(self._separators.to_plain(cell) or ""):
                self.num_numbers += count
                if "." in cell:
                    self.marks["point"] += count
                continue
            if not self._num_categories:
                self.first_word = (self._num_rows + cells.index(cell), cell)
            self._num_categories += count
            if len(self.words) <= MAX_WORDS:
                self.words[cell] = None
            kind = classify(cell)
            if kind is not None:
                self.marks[kind] += count

    @property
    def is_mixed(self) -> bool:
        """True if the column is text, but some of its cells were already read as numbers."""
        return len({chunk.dtype.kind for chunk in self._chunks}) > 1

    @property
    def num_marked(self) -> int:
        """The number of words that are numbers with other separators."""
        return self.marks.total() - self.marks["point"]

    @property
    def is_wrong(self) -> bool:
        """Whether text is where numbers should be."""
        if self._must_be_categories or not self._num_categories:
            return False
        is_marked = self.is_marked and 10 * self.num_marked >= self.num_numbers
        return is_marked or self._must_be_numbers or self.num_numbers > self._num_categories

    @property
    def has_decimals(self) -> bool:
        """Whether some of its numbers have a decimal point that separates no groups of three digits."""
        numbers = np.concatenate([np.empty(0), *(c for c in self._chunks if c.dtype.kind == "f")])
        decimals = [repr(number).partition(".")[2] for number in numbers[:SAMPLE].tolist() if number % 1 > 0]
        of_three = sum(len(digits) == 3 for digits in decimals)
        return self.marks["point"] > 0 or 2 * of_three < len(decimals)

    @property
    def is_marked(self) -> bool:
        """Whether its words are numbers with other separators, but for one in ten."""
        return 10 * (self._num_categories - self.num_marked) <= self.num_marked

    def count_distinct(self) -> int:
        """Returns the number of distinct cells."""
        return len({cell for chunk in self._chunks for cell in np.unique(chunk).tolist()})

    def take_values(self) -> Array:
        """Returns all cells, as float64 or text, and keeps none."""
        chunks, self._chunks = self._chunks, []
        return np.concatenate(chunks) if chunks else np.empty(0)


NO_WORDS = Words(frozenset(), Separators(), "")


class Dropped(Column):
    """A column that nobody reads."""

    def __init__(self, name: str) -> None:
        super().__init__(name, NO_WORDS, categorical=True, numbers=False)

    def add(self, cells: Sequence[str]) -> None:
        self._num_rows += len(cells)

    @property
    def plain_dtype(self) -> str:
        return "U1"

    def take_values(self) -> Array:
        return np.broadcast_to(nan, self._num_rows)


MAX_WORDS = 5
"""Words in a column of numbers that a message suggests to count as missing are at most so many."""


def is_number(cell: str) -> bool:
    """Returns whether Python reads a cell as a number that is not infinite."""
    try:
        return not isinf(float(cell)) and "_" not in cell
    except ValueError:
        return False


def _is_finite(cell: str) -> bool:
    try:
        return isfinite(float(cell))
    except ValueError:
        return False
