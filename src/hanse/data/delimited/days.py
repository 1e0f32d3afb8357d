"""Columns of dates, which become numbers of days."""

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from math import nan

import numpy as np

from hanse.core import Array
from hanse.data.delimited.columns import Column, Words

__all__ = ["FIRST_DAY", "FORMATS", "Days", "count_days", "find_date_in_numbers", "find_formats", "part_dates"]

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
    "%m.%Y",
    "%m/%Y",
    "%Y-%m",
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


_LIKE_NUMBERS = (
    ("%Y%m%d", re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")),
    ("%m.%Y", re.compile(r"(0[1-9]|1[0-2])\.(19|20)\d\d")),
)


def find_date_in_numbers(words: Collection[str]) -> str | None:
    """Returns the form in which all of some numbers are dates; None if there is none.

    >>> find_date_in_numbers(["20240131", "19991231"]), find_date_in_numbers(["01.2024", "3.5"])
    ('%Y%m%d', None)
    """
    for form, pattern in _LIKE_NUMBERS:
        if words and all(pattern.fullmatch(word) and _is_date(word, form) for word in words):
            return form
    return None


def part_dates(words: Collection[str]) -> tuple[str, list[str]] | None:
    """Returns the form of most dates, and the words that are none of this form; None if few are dates.

    >>> part_dates(["01.03.2024", "02.03.2024", "2024-03-03"])
    ('%d.%m.%Y', ['2024-03-03'])
    """
    some = sorted(words)[:: max(1, len(words) // 20)]
    if 2 * sum(bool(find_formats([word])) for word in some) < len(some):
        return None
    fit = {form: sum(_is_date(word, form) for word in words) for form in FORMATS}
    best = max(FORMATS, key=fit.__getitem__)
    return (best, [word for word in sorted(words) if not _is_date(word, best)]) if fit[best] > 1 else None


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

    def sum_up(self) -> None:
        return None

    @property
    def plain_dtype(self) -> str:
        return "O"

    @property
    def is_marked(self) -> bool:
        return False
