"""Text files of rows and columns, such as CSV, read by the standard library's `csv`."""

import csv as _csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY
from io import TextIOWrapper
from math import isinf, nan
from typing import Any

import numpy as np

from hanse.core import Array, InvalidInput, nearest, value
from hanse.data.files import NeedsSetting, explain_encoding, text_lines
from hanse.data.labels import spell
from hanse.data.separators import Separators, choose_separators, classify
from hanse.data.tables import SAMPLE, Rows, Tabular

__all__ = ["csv"]

DELIMITERS = ",;\t|"
MISSING = ("?", "NA", "N/A", "NaN", "nan", "NULL", "null")

NO_NUMBER = "\0"
"""A cell that no file holds, in place of one that has other separators than the file's numbers."""

CHUNK = 8192
"""Number of rows that are made into arrays at a time."""


@value
class csv(Tabular):
    """A CSV file; .gz is unpacked. The first line names the columns.

    A column in which more cells are numbers than text is numeric, and text in it is an error; any other
    column is categorical. Spaces around a cell are ignored, and so are empty lines.

    >>> csv("stays.csv.gz", label="died", key="hospital", drop=("patient_id",)).delimiter is None
    True

    Args:
      path, label, target, key, drop, categorical, classes, test, test_fraction, numeric, incomplete,
        uninformative: see `Tabular`.
      missing: cells that mark a missing value, besides an empty cell. In label and key columns an empty cell
        does, and words such as NaN, null and None.
      columns: the columns' names, for a file whose first line holds data.
      delimiter: between cells; None: whichever of , ; tab | is most frequent in the first line.
      decimal: the decimal point, "." or ",".
      thousands: the separator of groups of three digits, such as "," in 12,345; None: there is none.
      comment: lines that start with it are skipped.
      strip: characters to strip, besides spaces, from both ends of text.
      encoding: of the text.
    Raises: InvalidInput: naming the file, the line, the column, and what to write instead.
    """

    _: KW_ONLY
    missing: tuple[str, ...] = MISSING
    columns: tuple[str, ...] = ()
    delimiter: str | None = None
    decimal: str = "."
    comment: str | None = None
    strip: str = ""
    encoding: str = "utf-8"
    thousands: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decimal not in (".", ","):
            raise InvalidInput(f'decimal is {self.decimal!r}; write "." or ","')
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise InvalidInput(f'delimiter is {self.delimiter!r}; write one character, such as ";"')
        Separators(self.decimal, self.thousands)  # raises if they can't be used

    @property
    def separators(self) -> Separators:
        """The marks within numbers."""
        return Separators(self.decimal, self.thousands)

    def can_strip(self, chars: str, files: Sequence[Rows]) -> bool:
        """Returns whether all text but the labels stays as it is if these characters are stripped from it."""
        columns = [
            column
            for rows in files
            for name, column in rows.columns.items()
            if name != self.label and column.dtype.kind == "U"
        ]
        return not self.strip and all((np.char.strip(column, chars) == column).all() for column in columns)

    def rows(self, path: str, like: Rows | None) -> Rows:
        """Reads a file, and reads it again if only its end shows that a column is categorical."""
        categorical, numbers, only = {*self.as_categories}, {*self.numeric}, None
        if like is not None:
            only = {*like.columns}
            categorical -= only
            for name, column in like.columns.items():
                (categorical if column.dtype.kind == "U" else numbers).add(name)
        columns, lines = self._read(path, categorical, numbers, only)
        mixed = {column.name for column in columns if column.is_mixed}
        if mixed:
            columns, lines = self._read(path, categorical | mixed, numbers, only)
        kept = [column for column in columns if only is None or column.name in only]
        return Rows(path, {column.name: column.values() for column in kept}, np.array(lines, np.int64))

    def _read(
        self, path: str, categorical: set[str], numbers: set[str], only: set[str] | None
    ) -> "tuple[list[_Column], list[int]]":
        with text_lines(path, self.encoding) as text:
            lines = _Lines(text, self.comment)
            if "\0" in lines.first:
                raise explain_encoding(path, self.encoding)
            delimiter = self.delimiter or max(DELIMITERS, key=lines.first.count)
            try:
                columns, numbered = self._parse(path, lines, delimiter, categorical, numbers, only)
            except _csv.Error as error:
                raise InvalidInput(_broken(path, lines.number, str(error))) from None
        if any(column.is_wrong for column in columns):
            _explain(path, numbered, columns, self, delimiter)
        return columns, numbered

    def _parse(
        self,
        path: str,
        lines: "_Lines",
        delimiter: str,
        categorical: set[str],
        numbers: set[str],
        only: set[str] | None,
    ) -> "tuple[list[_Column], list[int]]":
        reader = _csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        names = self.columns or self._header(path, next(reader, []), only)
        self._check_options(path, names, only)
        columns = [self._column(name, categorical, numbers, only) for name in names]
        numbered: list[int] = []
        for chunk in _chunks(reader, lines):
            for line, row in chunk:
                if len(row) != len(names):
                    raise _ragged(path, line, row, names, delimiter, lines.first)
            for column, cells in zip(columns, zip(*(row for _, row in chunk), strict=True), strict=True):
                column.add(cells)
            numbered += [line for line, _ in chunk]
        return columns, numbered

    def _header(self, path: str, cells: Sequence[str], only: set[str] | None) -> tuple[str, ...]:
        if not cells:
            raise InvalidInput(f"{path} is empty; give a line of column names and at least 1 row")
        other = max(DELIMITERS, key=cells[0].count)
        if len(cells) == 1 and self.delimiter is not None and other in cells[0]:
            raise NeedsSetting(
                f"{path}: the first line has no {self.delimiter!r}; write delimiter = {json.dumps(other)}",
                delimiter=other,
            )
        names = tuple(cell.strip() or f"column {i}" for i, cell in enumerate(cells, start=1))
        sought = self.label or next(iter(self.targets), None)
        if sought is not None and sought not in names and any(_is_number(name) for name in names):
            raise NeedsSetting(
                f"{path}: the first line holds data, not names ({', '.join(names[:4])}, ...); name the "
                f'{len(names)} columns: columns = ["...", ...]'
            )
        for i, cell in enumerate(cells, start=1):
            if not cell.strip() and f"column {i}" not in self.drop and only is None:
                raise NeedsSetting(
                    f"{path}: column {i} has no name (row numbers that were saved?); name it, or write "
                    f"{self.say('drop', f'column {i}')}",
                    drop=(*self.drop, f"column {i}"),
                )
        return names

    def _check_options(self, path: str, names: Sequence[str], only: set[str] | None) -> None:
        if len({*names}) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise InvalidInput(f"{path}: two columns are called {twice!r}; name each once")
        for name in self.numeric:
            if only is None and name not in names:
                raise InvalidInput(f"{path} has no column {name!r} for numeric; {nearest(name, names)}")

    def _column(
        self, name: str, categorical: set[str], numbers: set[str], only: set[str] | None
    ) -> "_Column":
        if name in self.drop or (only is not None and name not in only):
            return _Dropped(name)
        is_role = name in (self.label, self.key)
        return _Column(
            name,
            missing=frozenset({""} if is_role else {"", *self.missing}),
            separators=self.separators,
            strip=self.strip,
            categorical=name in categorical,
            numbers=name in numbers,
            is_role=is_role,
        )


class _Lines:
    """The lines of a file, without comments, and the number of the last one that was read."""

    def __init__(self, text: TextIOWrapper, comment: str | None) -> None:
        self._text, self._comment = text, comment
        self.number, self._again = 0, ""
        self.first = next((line for line in self if line.strip()), "")
        self._again = self.first

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.number and self._again:
            line, self._again = self._again, ""
            return line
        for line in self._text:
            self.number += 1
            if self._comment is None or not line.startswith(self._comment):
                return line
        raise StopIteration


def _chunks(reader: Any, lines: _Lines) -> Iterator[list[tuple[int, list[str]]]]:
    """Yields rows that are not empty, each with the line where it ends, some thousand at a time."""
    chunk = []
    for row in reader:
        if any(row):
            chunk.append((lines.number, row))
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Column:
    """A column as it is read: numbers as long as its cells are numbers, text otherwise."""

    def __init__(
        self,
        name: str,
        *,
        missing: frozenset[str],
        separators: Separators,
        strip: str,
        categorical: bool,
        numbers: bool,
        is_role: bool = False,
    ) -> None:
        self.name = name
        self._missing, self._separators, self._strip = missing, separators, strip
        self._must_be_categories, self._must_be_numbers, self._is_role = categorical, numbers, is_role
        self._chunks: list[Array] = []
        self._num_rows = self.num_numbers = self._num_categories = 0
        self.first_word = (0, "")
        self.words: dict[str, None] = {}
        """Some of the words that are no numbers."""
        self.marks: Counter[str] = Counter()
        """The number of words that are numbers with other separators, by `classify`."""

    def add(self, cells: Sequence[str]) -> None:
        """Adds the next cells."""
        cells = [cell.strip() for cell in cells]
        numbers = None if self._must_be_categories else self._as_numbers(cells)
        self._chunks.append(self._as_categories(cells) if numbers is None else numbers)
        self._num_rows += len(cells)

    def _as_categories(self, cells: Sequence[str]) -> Array:
        strip = self._strip + " "
        categories = {
            cell: "" if cell in self._missing else spell(self._plain(cell.strip(strip)))
            for cell in set(cells)
        }
        return np.array([categories[cell] for cell in cells])

    def _plain(self, word: str) -> str:
        """Returns a label or key that is a number without the file's separators."""
        return self._separators.to_plain(word) or word if self._is_role else word

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
            return numbers
        self._count_categories(written)
        return None

    def _count_categories(self, cells: Sequence[str]) -> None:
        for cell, count in Counter(cells).items():
            if cell in self._missing:
                continue
            if _is_number(self._separators.to_plain(cell) or ""):
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

    def values(self) -> Array:
        """Returns all cells, as float64 or text."""
        return np.concatenate(self._chunks) if self._chunks else np.empty(0)


class _Dropped(_Column):
    """A column that nobody reads."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name, missing=frozenset(), separators=Separators(), strip="", categorical=True, numbers=False
        )

    def add(self, cells: Sequence[str]) -> None:
        self._num_rows += len(cells)

    def values(self) -> Array:
        return np.broadcast_to(nan, self._num_rows)


MAX_WORDS = 5
"""Words in a column of numbers that a message suggests to count as missing are at most so many."""

FEW = 30
"""A column of at most so many distinct cells may be one of categories, although most of them are numbers."""


def _explain(path: str, lines: Sequence[int], columns: Sequence[_Column], what: csv, delimiter: str) -> None:
    """Raises: NeedsSetting: at the first column with text where numbers should be."""
    column = next(column for column in columns if column.is_wrong)
    row, word = column.first_word
    where = f"{path}, line {lines[row]}: column {column.name!r} is {word!r}"
    if column.is_marked:
        everywhere = sum((other.marks for other in columns), Counter())
        has_decimals = any(other.has_decimals for other in columns)
        remedy = choose_separators(column.marks, everywhere, what.separators, delimiter, has_decimals)
        if remedy is not None:
            raise NeedsSetting(f"{where}; {remedy[0]}", **remedy[1])
    numbers = f", and {column.num_numbers} other cells of it are numbers" if column.num_numbers else ""
    remedies = [f"{what.say('drop', column.name)} to leave the column out"]
    first: dict[str, Any] = {"drop": (*what.drop, column.name)}
    if len(column.words) <= MAX_WORDS:
        first = {"missing": (*what.missing, *column.words)}
        words = " and ".join(map(repr, column.words))
        missing = json.dumps(first["missing"], ensure_ascii=False)
        remedies.insert(0, f"missing = {missing} if {words} mean that it is missing")
    if column.count_distinct() <= FEW:
        remedies.append(f"{what.say('categorical', column.name)} if these are categories")
    raise NeedsSetting(f"{where}{numbers}; write a number there, or {', or '.join(remedies)}", **first)


def _is_number(cell: str) -> bool:
    try:
        return not isinf(float(cell)) and "_" not in cell
    except ValueError:
        return False


def _ragged(
    path: str, line: int, row: Sequence[str], names: Sequence[str], delimiter: str, first: str
) -> InvalidInput:
    what = (
        f"{path}, line {line}: {len(row)} cells ({', '.join(row[:3])}, ...), and {len(names)} columns "
        f"({', '.join(names[:3])}, ...) separated by {delimiter!r}"
    )
    whole = delimiter.join(row)
    other = next(
        (d for d in DELIMITERS if d != delimiter and 0 < first.count(d) == whole.count(d)), None
    )  # of the names and of this row
    if other is not None:
        return NeedsSetting(
            f"{what}; write delimiter = {json.dumps(other)}, which separates both", delimiter=other
        )
    other = next((d for d in DELIMITERS if d != delimiter and whole.count(d) == len(names) - 1 > 0), None)
    if other is not None:
        return InvalidInput(
            f"{what}; separate all lines by {delimiter!r}, as the first one, not by {other!r}"
        )
    return InvalidInput(f"{what}; a cell that contains the delimiter must be in quotes")


def _broken(path: str, line: int, why: str) -> str:
    if "field limit" in why or "unexpected end" in why:
        return f"{path}, line {line}: a quote was opened before here and not closed; close it, or double it"
    return f"{path}, line {line}: {why}; a quote inside a quoted cell is written twice"
