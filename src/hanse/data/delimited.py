"""Text files of rows and columns, such as CSV, read by the standard library's `csv`."""

import csv as _csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY
from io import TextIOWrapper
from math import isinf, nan
from typing import Any

import numpy as np

from hanse.core import Array, InvalidInput, nearest, value
from hanse.data.files import text_lines
from hanse.data.tables import Rows, Tabular

__all__ = ["csv"]

DELIMITERS = ",;\t|"
MISSING = ("?", "NA", "N/A", "NaN", "nan", "NULL", "null")

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
      path, label, target, key, drop, categorical, classes, test, test_fraction: see `Tabular`.
      numeric: columns to read as numbers, whatever most of their cells look like.
      missing: cells that mark a missing value, besides an empty cell. In label and key columns only an
        empty cell does.
      columns: the columns' names, for a file whose first line holds data.
      delimiter: between cells; None: whichever of , ; tab | is most frequent in the first line.
      decimal: the decimal point, "." or ",".
      comment: lines that start with it are skipped.
      strip: characters to strip, besides spaces, from both ends of text.
      encoding: of the text.
    Raises: InvalidInput: naming the file, the line, the column, and what to write instead.
    """

    _: KW_ONLY
    numeric: tuple[str, ...] = ()
    missing: tuple[str, ...] = MISSING
    columns: tuple[str, ...] = ()
    delimiter: str | None = None
    decimal: str = "."
    comment: str | None = None
    strip: str = ""
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decimal not in (".", ","):
            raise InvalidInput(f'decimal is {self.decimal!r}; write "." or ","')
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise InvalidInput(f'delimiter is {self.delimiter!r}; write one character, such as ";"')
        both = {*self.numeric} & {self.label, self.key, *self.categorical, *self.drop}
        if both:
            raise InvalidInput(
                f"column {min(map(str, both))!r} is numeric and also label, key, categorical or dropped; "
                "choose one"
            )

    def rows(self, path: str, like: Rows | None) -> Rows:
        """Reads a file, and reads it again if only its end shows that a column is categorical."""
        categorical, numbers = {*self.as_categories}, {*self.numeric}
        if like is not None:
            for name, column in like.columns.items():
                (categorical if column.dtype.kind == "U" else numbers).add(name)
        columns, lines = self._read(path, categorical, numbers)
        mixed = {column.name for column in columns if column.is_mixed}
        if mixed:
            columns, lines = self._read(path, categorical | mixed, numbers)
        return Rows(path, {column.name: column.values() for column in columns}, np.array(lines, np.int64))

    def _read(self, path: str, categorical: set[str], numbers: set[str]) -> "tuple[list[_Column], list[int]]":
        with text_lines(path, self.encoding) as text:
            lines = _Lines(text, self.comment)
            try:
                columns, numbered = self._parse(path, lines, categorical, numbers)
            except _csv.Error as error:
                raise InvalidInput(_broken(path, lines.number, str(error))) from None
        for column in columns:
            column.check(path, numbered)
        return columns, numbered

    def _parse(
        self, path: str, lines: "_Lines", categorical: set[str], numbers: set[str]
    ) -> "tuple[list[_Column], list[int]]":
        delimiter = self.delimiter or max(DELIMITERS, key=lines.first.count)
        reader = _csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        names = self.columns or self._header(path, next(reader, []))
        self._check_options(path, names)
        columns = [self._column(name, categorical, numbers) for name in names]
        numbered: list[int] = []
        for chunk in _chunks(reader, lines):
            for line, row in chunk:
                if len(row) != len(names):
                    raise InvalidInput(_describe_ragged_row(path, line, row, names, delimiter))
            for column, cells in zip(columns, zip(*(row for _, row in chunk), strict=True), strict=True):
                column.add(cells)
            numbered += [line for line, _ in chunk]
        return columns, numbered

    def _header(self, path: str, cells: Sequence[str]) -> tuple[str, ...]:
        if not cells:
            raise InvalidInput(f"{path} is empty; give a line of column names and at least 1 row")
        names = tuple(cell.strip() or f"column {i}" for i, cell in enumerate(cells, start=1))
        sought = self.label or next(iter(self.targets), None)
        if sought is not None and sought not in names and any(_is_number(name) for name in names):
            raise InvalidInput(
                f"{path}: the first line holds data, not names ({', '.join(names[:4])}, ...); name the "
                f'{len(names)} columns: columns = ["...", ...]'
            )
        for i, cell in enumerate(cells, start=1):
            if not cell.strip() and f"column {i}" not in self.drop:
                raise InvalidInput(
                    f"{path}: column {i} has no name (row numbers that were saved?); name it, or write "
                    f'drop = ["column {i}"]'
                )
        return names

    def _check_options(self, path: str, names: Sequence[str]) -> None:
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidInput(f"{path}: two columns are called {twice!r}; name each once")
        for name in self.numeric:
            if name not in names:
                raise InvalidInput(f"{path} has no column {name!r} for numeric; {nearest(name, names)}")

    def _column(self, name: str, categorical: set[str], numbers: set[str]) -> "_Column":
        if name in self.drop:
            return _Dropped(name)
        is_role = name in (self.label, self.key)
        return _Column(
            name,
            missing=frozenset({""} if is_role else {"", *self.missing}),
            decimal=self.decimal,
            strip=self.strip,
            categorical=name in categorical,
            numbers=name in numbers,
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
        decimal: str,
        strip: str,
        categorical: bool,
        numbers: bool,
    ) -> None:
        self.name = name
        self._missing, self._decimal, self._strip = missing, decimal, strip
        self._must_be_categories, self._must_be_numbers = categorical, numbers
        self._chunks: list[Array] = []
        self._num_rows = self._num_numbers = self._num_categories = self._num_commas = 0
        self._first_word = (0, "")

    def add(self, cells: Sequence[str]) -> None:
        """Adds the next cells."""
        cells = [cell.strip() for cell in cells]
        numbers = None if self._must_be_categories else self._as_numbers(cells)
        self._chunks.append(self._as_categories(cells) if numbers is None else numbers)
        self._num_rows += len(cells)

    def _as_categories(self, cells: Sequence[str]) -> Array:
        categories = {
            cell: "" if cell in self._missing else cell.strip(self._strip + " ") for cell in set(cells)
        }
        return np.array([categories[cell] for cell in cells])

    def _as_numbers(self, cells: Sequence[str]) -> Array | None:
        """Returns the cells as numbers; or None, and counts them, if some of them are text."""
        missing = self._missing
        if self._decimal == ",":
            cells = [cell.replace(".", "?").replace(",", ".") for cell in cells]
        try:
            numbers = np.array([nan if cell in missing else float(cell) for cell in cells])
        except ValueError:
            numbers = np.array([nan])
        present = len(cells) - sum(map(missing.__contains__, cells))
        if np.count_nonzero(np.isfinite(numbers)) == present and "_" not in "".join(cells):
            self._num_numbers += present
            return numbers
        self._count_categories(cells)
        return None

    def _count_categories(self, cells: Sequence[str]) -> None:
        for cell, count in Counter(cells).items():
            if cell in self._missing:
                continue
            if _is_number(cell):
                self._num_numbers += count
                continue
            if not self._num_categories:
                self._first_word = (self._num_rows + cells.index(cell), cell)
            self._num_categories += count
            self._num_commas += count * _is_number(cell.replace(",", ".", 1))

    @property
    def is_mixed(self) -> bool:
        """True if the column is text, but some of its cells were already read as numbers."""
        return len({chunk.dtype.kind for chunk in self._chunks}) > 1

    def check(self, path: str, lines: Sequence[int]) -> None:
        """Checks that no text is where numbers should be. Raises: InvalidInput: if there is some."""
        row, word = self._first_word
        if self._must_be_categories or not self._num_categories:
            return
        where = f"{path}, line {lines[row]}: column {self.name!r} is {word!r}"
        if self._num_commas == self._num_categories and 10 * self._num_commas >= self._num_numbers:
            raise InvalidInput(f'{where}; write decimal = "," if the comma is the decimal point')
        if self._must_be_numbers or self._num_numbers > self._num_categories:
            others = f", and {self._num_numbers} other cells of it are numbers" if self._num_numbers else ""
            raise InvalidInput(
                f"{where}{others}; write a number there, or "
                f'missing = ["{word}"] if that means that it is missing, or categorical = ["{self.name}"] if '
                "these are categories"
            )

    def values(self) -> Array:
        """Returns all cells, as float64 or text."""
        return np.concatenate(self._chunks) if self._chunks else np.empty(0)


class _Dropped(_Column):
    """A column that nobody reads."""

    def __init__(self, name: str) -> None:
        super().__init__(name, missing=frozenset(), decimal=".", strip="", categorical=True, numbers=False)

    def add(self, cells: Sequence[str]) -> None:
        self._num_rows += len(cells)

    def values(self) -> Array:
        return np.broadcast_to(nan, self._num_rows)


def _is_number(cell: str) -> bool:
    try:
        return not isinf(float(cell)) and "_" not in cell
    except ValueError:
        return False


def _describe_ragged_row(
    path: str, line: int, row: Sequence[str], names: Sequence[str], delimiter: str
) -> str:
    other = next((d for d in DELIMITERS if d != delimiter and row and d in row[0]), None)
    hint = "a cell that contains the delimiter must be in quotes"
    if len(names) == 1 or (len(row) == 1 and other is not None):
        hint = f'write delimiter = "{other or ";"}" if that separates the cells'
    return (
        f"{path}, line {line}: {len(row)} cells ({', '.join(row[:3])}, ...), and {len(names)} columns "
        f"({', '.join(names[:3])}, ...) separated by {delimiter!r}; {hint}"
    )


def _broken(path: str, line: int, why: str) -> str:
    if "field limit" in why or "unexpected end" in why:
        return f"{path}, line {line}: a quote was opened before here and not closed; close it, or double it"
    return f"{path}, line {line}: {why}; a quote inside a quoted cell is written twice"
