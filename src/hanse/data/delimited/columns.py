"""Columns of a file of text: each becomes numbers, or words where cells are no numbers."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import isfinite, isinf, nan
from typing import Any

import numpy as np

from hanse.core import Array
from hanse.data.delimited.limits import Censored, find_limit, read_limit
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
    censored: Censored | None = None

    @cached_property
    def are_plain(self) -> bool:
        """Whether each cell that Python reads as a finite number means that number."""
        return self.separators.are_plain and not any(map(_is_finite, self.missing))

    def to_plain(self, word: str) -> str | None:
        """Returns a number as Python writes it, "" for a gap; None if a word has other marks."""
        if word in self.missing:
            return ""
        limit = None if self.censored is None else find_limit(word)
        if limit is None or self.censored is None:
            return self.separators.to_plain(word)
        plain = self.separators.to_plain(limit)
        return None if plain is None or not is_number(plain) else read_limit(word, plain, self.censored)


class Column:
    """A column as it is read: numbers as long as its cells are numbers, text otherwise."""

    def __init__(self, name: str, words: Words, *, categorical: bool, numbers: bool) -> None:
        self.name, self._words = name, words
        self._missing, self._separators = words.missing, words.separators
        self._must_be_categories, self._must_be_numbers = categorical, numbers
        self._chunks: list[Array] = []
        self._num_rows = self.num_numbers = self._num_categories = 0
        self._has_gaps = self._has_pointed = False
        self.first_word = (0, "")
        self.words: dict[str, None] = {}
        """Some of the words that are no numbers."""
        self.wrong_rows: list[int] = []
        """The first rows that hold such a word."""
        self.marks: Counter[str] = Counter()
        """The number of words that are numbers with other separators, by `classify`."""
        self.limits: Counter[str] = Counter()
        """The number of words that are a number behind a mark such as "<" and can't be read."""

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
        if not self._separators.are_plain or self._words.censored is not None:
            plain = {cell: self._words.to_plain(cell) for cell in set(cells)}
            cells = [NO_NUMBER if (word := plain[cell]) is None else word for cell in cells]
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

    def _note_rows(self, cells: Sequence[str], words: Container[str]) -> None:
        """Notes the rows of some words, which are among the next cells."""
        if len(self.wrong_rows) < MAX_ROWS:
            found = (self._num_rows + row for row, cell in enumerate(cells) if cell in words)
            self.wrong_rows += islice(found, MAX_ROWS - len(self.wrong_rows))

    def _count_categories(self, cells: Sequence[str]) -> None:
        words = set[str]()
        for cell, count in Counter(cells).items():
            if cell in self._missing:
                continue
            plain = self._words.to_plain(cell)
            if plain == "" or is_number(plain or ""):  # a gap, where limits are read as gaps
                self.num_numbers += count
                if "." in cell and classify(cell) is None:
                    self.marks["point"] += count
                self._has_pointed |= "." in cell and classify(cell) is not None
                continue
            if not self._num_categories:
                self.first_word = (self._num_rows + cells.index(cell), cell)
            self._num_categories += count
            words.add(cell)
            if len(self.words) <= MAX_WORDS:
                self.words[cell] = None
            limit = find_limit(cell)
            kind = classify(cell if limit is None else limit)
            is_limit = limit is not None and is_number(self._separators.to_plain(limit) or "")
            if is_limit and not (kind and self._separators.are_plain):
                self.limits[cell] += count
            elif kind is not None:
                self.marks[kind] += count
        self._note_rows(cells, words)

    @property
    def num_wrong(self) -> int:
        """The number of cells that are no numbers."""
        return self._num_categories

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
        limits = self.limits.total() if self.num_numbers else 0  # without a number they name ranges
        num_others = self._num_categories - limits
        return is_marked or self._must_be_numbers or self.num_numbers + limits > num_others

    @property
    def has_decimals(self) -> bool:
        """Whether some of its numbers have a decimal point that separates no groups of three digits."""
        numbers = np.concatenate([np.empty(0), *(c for c in self._chunks if c.dtype.kind == "f")])
        decimals = [repr(number).partition(".")[2] for number in numbers[:SAMPLE].tolist() if number % 1 > 0]
        of_three = sum(len(digits) == 3 for digits in decimals)
        return self.marks["point"] > 0 or 2 * of_three < len(decimals)

    @property
    def is_marked(self) -> bool:
        """Whether its words are numbers with other separators, or limits, but for one in ten."""
        num_others = self._num_categories - self.num_marked - self.limits.total()
        return 10 * num_others <= self.num_marked > 0

    @property
    def mixes_marks(self) -> bool:
        """Whether numbers such as 1,234 and 1.234 stand side by side."""
        return self._has_pointed and self.marks["1,234"] > 0

    def count_distinct(self) -> int:
        """Returns the number of distinct cells."""
        return len(self._distinct())

    def _distinct(self) -> set[Any]:
        return {cell for chunk in self._chunks for cell in np.unique(chunk).tolist()}

    def count(self, cell: str) -> int:
        """Counts the rows that hold this word."""
        return sum(int(np.count_nonzero(chunk == cell)) for chunk in self._chunks if chunk.dtype.kind == "U")

    def sum_up(self) -> tuple[float, float] | None:
        """Returns the last number and the sum of those above it; None if they are few, or it is a gap."""
        chunks = [chunk for chunk in self._chunks if len(chunk)]
        if self._num_rows <= FEWEST_ROWS or any(chunk.dtype.kind != "f" for chunk in chunks) or not chunks:
            return None
        last = float(chunks[-1][-1])
        return None if np.isnan(last) else (last, float(sum(map(np.nansum, chunks))) - last)

    @property
    def holds_truths(self) -> bool:
        """Whether its cells are 0 and 1 in some rows, and words such as yes in others."""
        cells = {spell(str(cell)) for cell in self._distinct()} - {"", "nan"}
        return bool(cells & {"0", "1"}) and all(cell.lower() in TRUTHS for cell in cells)

    def take_values(self) -> Array:
        """Returns all cells, as float64 or text, and keeps none."""
        chunks, self._chunks = self._chunks, []
        return np.concatenate(chunks) if chunks else np.empty(0)


TRUTHS = frozenset(
    ["0", "1", "y", "n", "yes", "no", "j", "ja", "nein", "true", "false", "+", "-", "pos", "neg"]
)
"""Answers to a question, as people write them."""

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


class Raw(Column):
    """A column of which only the distinct cells are kept, as they are written."""

    def __init__(self, name: str) -> None:
        super().__init__(name, NO_WORDS, categorical=True, numbers=False)
        self.cells = set[str]()

    def add(self, cells: Sequence[str]) -> None:
        self.cells.update(map(str.strip, cells))


FEWEST_ROWS = 10
"""The sum of fewer numbers may be one of the numbers."""

MAX_ROWS = 10
"""A message names at most so many rows."""

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
