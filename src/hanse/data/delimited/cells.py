"""Lines and cells of a file of text, read by the standard library's `csv`, or by NumPy where that is safe."""

import csv as _csv
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOWrapper
from itertools import chain, islice
from math import isfinite

import numpy as np

from hanse.core import InvalidInput
from hanse.data.delimited.columns import Column
from hanse.data.files import UnreadableRows

__all__ = ["DELIMITERS", "Cells", "Lines"]

DELIMITERS = ",;\t|"

CHUNK = 8192
"""Number of lines that are made into arrays at a time, unless there are many columns."""

CHUNK_CELLS = 2**18
"""Number of cells that are held one by one at a time; so a number takes about eight times its memory."""

LINE_CELLS = 16 * CHUNK_CELLS
"""Number of cells of the lines that are held at a time."""


_SEPARATOR = re.compile(r'"?sep=(.)"?[,;\s]*', re.IGNORECASE)
"""The line by which Excel says, before the names, what is between cells."""


class Lines:
    """The lines of a file from the first one that is not blank, without comments and without `sep=;`."""

    def __init__(self, text: TextIOWrapper, comment: str | None) -> None:
        self.num_skipped = 0
        """The number of blank lines and comments that were left out before the last line."""
        self.has_comments = comment is not None
        self._rest = text if comment is None else self._leave_out(comment, text)
        self.first, said = "", None
        for line in self._rest:
            said = said or _SEPARATOR.fullmatch(line)
            if line.strip() and (said is None or said.string != line):
                self.first = line
                break
            self.num_skipped += 1
        self.delimiter = max(DELIMITERS, key=self.first.count) if said is None else said[1]
        """Between cells: what the file says, or else what is most frequent in the first line."""

    def __iter__(self) -> Iterator[str]:
        return chain([self.first], self._rest)

    def _leave_out(self, comment: str, text: Iterable[str]) -> Iterator[str]:
        for line in text:
            if line.startswith(comment):
                self.num_skipped += 1
            else:
                yield line


class Cells:
    """The cells of a file.

    Args:
      path: names the file in messages.
      lines: of the file.
      delimiter: between cells.
    """

    def __init__(self, path: str, lines: Lines, delimiter: str) -> None:
        self.path, self.delimiter = path, delimiter
        self.last_row: Sequence[str] = ()
        self._lines, self._rest, self._num_read = lines, iter(lines), 0

    def read_header(self) -> list[str]:
        """Reads the first row. Raises: UnreadableRows: if it is a title above empty cells."""
        place, row = next(self._rows([]), (0, []))
        if len(row) > 2 and len([cell for cell in row if cell.strip()]) == 1 and not self._lines.has_comments:
            raise self._explain_width(place, [], row)
        return row

    def read_into(self, columns: Sequence[Column]) -> Sequence[int]:
        """Reads all further rows that are not empty into columns, and returns the lines where they end."""
        places = array("q")
        while True:
            num_lines = max(1, min(CHUNK, (LINE_CELLS if places else CHUNK_CELLS) // len(columns)))
            texts = [] if self._lines.has_comments else list(islice(self._rest, num_lines))
            before = self._num_read + self._lines.num_skipped
            if texts and places and _read_plainly(texts, columns, self.delimiter):
                self._num_read += len(texts)
                self.last_row = texts[-1].strip("\r\n").split(self.delimiter)
                places.extend(range(before + 1, before + len(texts) + 1))
            elif self._read_closely(texts, num_lines, columns, places):
                return places

    def _read_closely(
        self, texts: list[str], num_lines: int, columns: Sequence[Column], places: "array[int]"
    ) -> bool:
        """Reads these lines, or so many, up to the end of a row; returns whether the file ends there.

        All cells are in one list: the garbage collector would look at one for each row again and again.
        """
        cells: list[str] = []
        began, ended = self._num_read, True
        for place, row in self._rows(texts):
            if any(row):
                if len(row) != len(columns) or (not places and self._is_title(row)):
                    raise self._explain_width(place, row, [column.name for column in columns])
                places.append(place)
                cells += row
                if len(cells) >= CHUNK_CELLS:
                    self.last_row = cells[-len(columns) :]
                    _add(cells, columns)
            if self._num_read - began >= num_lines:
                ended = False
                break
        if cells:
            self.last_row = cells[-len(columns) :]
            _add(cells, columns)
        return ended

    def _rows(self, texts: list[str]) -> Iterator[tuple[int, list[str]]]:
        """Yields rows, of lines that were taken and of those after them, with the line where each ends."""
        reader = _csv.reader(
            chain(texts, self._rest), delimiter=self.delimiter, skipinitialspace=True, strict=True
        )
        before = self._num_read
        try:
            for row in reader:
                self._num_read = before + reader.line_num
                yield self._num_read + self._lines.num_skipped, row
        except _csv.Error as error:
            line = before + reader.line_num + self._lines.num_skipped
            raise InvalidInput(_broken(self.path, line, str(error))) from None

    def _explain_width(self, line: int, row: Sequence[str], names: Sequence[str]) -> InvalidInput:
        what = (
            f"{self.path}, line {line}: {len(row)} cells ({', '.join(row[:3])}, ...), and {len(names)} "
            f"columns ({', '.join(names[:3])}, ...) separated by {self.delimiter!r}"
        )
        concealed = (
            f"{self.path}, line {line}: {len(row)} cells, and {len(names)} columns separated by "
            f"{self.delimiter!r}; a cell that contains the delimiter must be in quotes"
        )
        first, delimiter = self._lines.first, self.delimiter
        whole = delimiter.join(row)
        other = next(
            (d for d in DELIMITERS if d != delimiter and 0 < first.count(d) == whole.count(d)), None
        )  # of the names and of this row
        if other is not None:
            cure = f"write delimiter = {json.dumps(other)}, which separates both"
            return UnreadableRows(f"{what}; {cure}", f"{concealed}, or {cure}", delimiter=other)
        other = next((d for d in DELIMITERS if d != delimiter and whole.count(d) == len(names) - 1 > 0), None)
        if other is not None:
            cure = f"separate all lines by {delimiter!r}, as the first one, not by {other!r}"
            return UnreadableRows(f"{what}; {cure}", f"{concealed}; {cure}")
        mark = self._find_mark(row)
        if mark is not None:
            cure = "a line that is no row, such as a title or a note, is left out if you write comment ="
            said = f"{cure} {json.dumps(mark, ensure_ascii=False)}, with which it begins"
            concealed = f"{concealed}; {cure} ... with what it begins with"
            return UnreadableRows(f"{what}; {said}", concealed, comment=mark)
        return UnreadableRows(f"{what}; a cell that contains the delimiter must be in quotes", concealed)

    def _is_title(self, row: Sequence[str]) -> bool:
        """Returns whether the first line seems to be a title, since the next one has another delimiter."""
        return len(row) == 1 and any(d in row[0] and d not in self._lines.first for d in DELIMITERS)

    def _find_mark(self, row: Sequence[str]) -> str | None:
        """Returns what a title in the first line, or a note in place of a row, begins with; or None."""
        title = self._lines.first.strip("\r\n").split(self.delimiter)
        for line in (title, row):
            if not self._lines.has_comments and len([cell for cell in line if cell.strip()]) == 1:
                return line[0].strip()[:30].strip() or None
        return None


def _add(cells: list[str], columns: Sequence[Column]) -> None:
    """Adds the cells of whole rows to the columns, and keeps none."""
    for i, column in enumerate(columns):
        column.add(cells[i :: len(columns)])
    cells.clear()


def _read_plainly(texts: list[str], columns: Sequence[Column], delimiter: str) -> bool:
    """Reads lines with NumPy, in a fraction of the time; or reads nothing and returns false.

    It does so only if each line is a row without quotes, and each cell of the columns of numbers is a number.
    """
    kinds = [column.plain_dtype for column in columns]
    if "f8" not in kinds or delimiter == " " or texts[0].isspace() or any('"' in text for text in texts):
        return False
    dtype = np.dtype([(str(i), kind) for i, kind in enumerate(kinds)])
    try:
        block = np.loadtxt(texts, dtype, delimiter=delimiter, comments=None, ndmin=1)
    except ValueError:  # such as another number of cells, or a gap
        return False
    numbers = {i: np.ascontiguousarray(block[str(i)]) for i, kind in enumerate(kinds) if kind == "f8"}
    if len(block) != len(texts) or not all(isfinite(np.vdot(own, own)) for own in numbers.values()):
        return False  # a blank line, or numbers that are not finite or too large to be sure
    for i, column in enumerate(columns):
        if i in numbers:
            column.add_numbers(numbers[i])
        else:
            column.add(block[str(i)].tolist())
    return True


def _broken(path: str, line: int, why: str) -> str:
    if "field limit" in why or "unexpected end" in why:
        return f"{path}, line {line}: a quote was opened before here and not closed; close it, or double it"
    return f"{path}, line {line}: {why}; a quote inside a quoted cell is written twice"
