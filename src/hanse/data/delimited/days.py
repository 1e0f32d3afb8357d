"""Columns of dates, which become numbers of days."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from math import nan

import numpy as np

from hanse.core import Array
from hanse.data.delimited.columns import Column, Words

__all__ = ["FIRST_DAY", "FORMATS", "Days", "count_days", "find_formats"]

FIRST_DAY = datetime(2000, 1, 1)
"""The day 0, the same at all parties."""

FORMATS = (
    "%Y-%m-%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%Y/%m/%d",
    "%d-%m-%Y",
    "%d.%m.%y",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M:%S",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
)
"""Forms of dates that are recognised, as `datetime.strptime` names them."""


def count_days(word: str, form: str) -> float:
    """Returns the days from 2000-01-01 to a date. Raises: ValueError: if it is no date of this form.

    >>> count_days("02.01.2000 12:00", "%d.%m.%Y %H:%M"), count_days("1999-12-31", "%Y-%m-%d")
    (1.5, -1.0)
    """
    return (datetime.strptime(word, form).replace(tzinfo=None) - FIRST_DAY).total_seconds() / 86_400


def find_formats(words: Iterable[str]) -> tuple[str, ...]:
    """Returns the forms in which all words are dates; none if there is no word.

    >>> find_formats(["03/04/2024", "05/06/2024"]), find_formats(["2024-01-31", "x"])
    (('%d/%m/%Y', '%m/%d/%Y'), ())
    """
    left: tuple[str, ...] = FORMATS
    first = True
    for word in words:
        left = tuple(form for form in left if word[:1].isdigit() and _is_date(word, form))
        first = False
        if not left:
            break
    return () if first else left


def _is_date(word: str, form: str) -> bool:
    try:
        return count_days(word, form) is not None
    except ValueError:
        return False


class Days(Column):
    """A column of dates, read as numbers of days since 2000-01-01."""

    def __init__(self, name: str, words: Words, form: str) -> None:
        super().__init__(name, words, categorical=False, numbers=True)
        self.form = form

    def add(self, cells: Sequence[str]) -> None:
        found = {cell: self._read(cell.strip()) for cell in set(cells)}
        wrong = [row for row, cell in enumerate(cells) if found[cell] is None]
        if wrong and not self._num_categories:
            self.first_word = (self._num_rows + wrong[0], cells[wrong[0]].strip())
        for row in wrong:
            self.words[cells[row].strip()] = None
        self._note_rows(cells, {cells[row] for row in wrong})
        self._num_categories += len(wrong)
        self.num_numbers += len(cells) - len(wrong)
        self._num_rows += len(cells)
        days: Array = np.array([nan if (day := found[cell]) is None else day for cell in cells])
        self._chunks.append(days)

    def _read(self, word: str) -> float | None:
        if word in self._missing:
            return nan
        try:
            return count_days(word, self.form)
        except ValueError:
            return None

    @property
    def plain_dtype(self) -> str:
        return "O"

    @property
    def is_marked(self) -> bool:
        return False
