"""Text files of rows and columns, such as CSV, read into a table."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, field

import numpy as np

from hanse.core import InvalidInput, nearest, value
from hanse.data.delimited.cells import DELIMITERS, Cells, Lines
from hanse.data.delimited.columns import MAX_WORDS, Column, Dropped, Raw, Words, is_number
from hanse.data.delimited.days import Days
from hanse.data.delimited.limits import CENSORED, Censored, find_limit
from hanse.data.delimited.totals import check_last_row
from hanse.data.files import NeedsSetting, UnreadableRows, explain_encoding, text_lines
from hanse.data.separators import Separators, choose_separators
from hanse.data.tables import Rows, Tabular

__all__ = ["csv", "read_names", "read_words"]

MISSING = ("?", "NA", "N/A", "NaN", "nan", "NULL", "null")


@value
class csv(Tabular):
    """A CSV file; .gz is unpacked. The first line names the columns.

    A column in which more cells are numbers than text is numeric, and text in it is an error; any other
    column is categorical. Spaces around a cell are ignored, and so are empty lines.

    >>> csv("stays.csv.gz", label="died", key="hospital", drop=("patient_id",)).delimiter is None
    True

    Args:
      path, label, target, key, drop, categorical, classes, test, test_fraction, numeric, incomplete,
        uninformative, validation, validation_fraction, group: see `Tabular`.
      missing: cells that mark a missing value, besides an empty cell. In label and key columns an empty cell
        does, and words such as NaN, null and None.
      columns: the columns' names, for a file whose first line holds data.
      delimiter: between cells; None: whichever of , ; tab | is most frequent in the first line.
      decimal: the decimal point, "." or ",".
      thousands: the separator of groups of three digits, such as "," in 12,345; None: there is none.
      comment: lines that start with it are skipped.
      strip: characters to strip, besides spaces, from both ends of text.
      encoding: of the text.
      censored: how a cell such as "<5" or ">100" in a column of numbers is read: "limit" (5, 100), "half"
        (2.5, 100) or "missing" (a gap); None: it is refused.
      dates: columns of dates and the form of each, such as {admitted = "%d.%m.%Y"} (as in Python's strptime);
        they become numbers, the days since 2000-01-01.
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
    censored: Censored | None = None
    dates: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decimal not in (".", ","):
            raise InvalidInput(f'decimal is {self.decimal!r}; write "." or ","')
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise InvalidInput(f'delimiter is {self.delimiter!r}; write one character, such as ";"')
        Separators(self.decimal, self.thousands)  # raises if they can't be used
        if self.censored not in (None, *CENSORED):
            raise InvalidInput(
                f"censored is {self.censored!r}; write one of {', '.join(map(json.dumps, CENSORED))}"
            )
        both = {*self.dates} & {*self.categorical}
        if both:
            raise InvalidInput(
                f"column {min(both)!r} is in dates and in categorical; write it into one of them"
            )

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
        return Rows(path, {column.name: column.take_values() for column in kept}, np.array(lines, np.int64))

    def _read(
        self, path: str, categorical: set[str], numbers: set[str], only: set[str] | None
    ) -> tuple[list[Column], Sequence[int]]:
        with text_lines(path, self.encoding) as text:
            lines = Lines(text, self.comment)
            if "\0" in lines.first:
                raise explain_encoding(path, self.encoding)
            cells = Cells(path, lines, self.delimiter or lines.delimiter)
            names = self.columns or self._header(path, cells.read_header(), only)
            self._check_options(path, names, only)
            columns = self._columns(names, categorical, numbers, only)
            numbered = cells.read_into(columns)
        has_comments = self.comment is not None
        check_last_row(
            path, numbered, cells.last_row, columns, missing=self.missing, has_comments=has_comments
        )
        if any(column.is_wrong for column in columns):
            _explain(path, numbered, columns, self, cells.delimiter, can_drop=only is None)
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
        names = name_cells(cells)
        sought = self.label or next(iter(self.targets), None)
        if sought is not None and sought not in names and any(is_number(name) for name in names):
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
        known = {*names}
        if len(known) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise InvalidInput(f"{path}: two columns are called {twice!r}; name each once")
        for option, named in (("numeric", self.numeric), ("dates", self.dates)):
            for name in named:
                if only is None and name not in known:
                    raise InvalidInput(f"{path} has no column {name!r} for {option}; {nearest(name, names)}")

    def _columns(
        self, names: Sequence[str], categorical: set[str], numbers: set[str], only: set[str] | None
    ) -> "list[Column]":
        roles, read = {self.label, self.key, self.group}, {*names} if only is None else only
        read = read.difference(self.drop)
        plain = Words(frozenset(["", *self.missing]), self.separators, self.strip, censored=self.censored)
        of_role = Words(frozenset([""]), self.separators, self.strip, is_role=True)

        def column(name: str) -> Column:
            if name not in read:
                return Dropped(name)
            if name in self.dates and name not in categorical:
                return Days(name, plain, self.dates[name])
            words = of_role if name in roles else plain
            return Column(name, words, categorical=name in categorical, numbers=name in numbers)

        return [column(name) for name in names]


def read_names(reader: csv) -> tuple[str, str]:
    """Reads the line that should name the columns, and what is between its cells."""
    with text_lines(reader.path, reader.encoding) as text:
        lines = Lines(text, reader.comment)
        return lines.first, reader.delimiter or lines.delimiter


def read_words(reader: csv) -> dict[str, set[str]]:
    """Reads the distinct cells of each column that is not left out, as they are written."""
    with text_lines(reader.path, reader.encoding) as text:
        lines = Lines(text, reader.comment)
        cells = Cells(reader.path, lines, reader.delimiter or lines.delimiter)
        names = reader.columns or name_cells(cells.read_header())
        columns = [Raw(name) for name in names]
        cells.read_into(columns)
        return {column.name: column.cells for column in columns}


def name_cells(header: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of columns; one without a name is called by its number."""
    return tuple(cell.strip() or f"column {i}" for i, cell in enumerate(header, start=1))


FEW = 30
"""A column of at most so many distinct cells may be one of categories, although most of them are numbers."""


def _explain(
    path: str, lines: Sequence[int], columns: Sequence[Column], what: csv, delimiter: str, *, can_drop: bool
) -> None:
    """Explains why a file can't be read, and how it can be.

    Args:
      lines: of the rows.
      can_drop: whether the reader's owner chooses the columns.

    Raises: UnreadableRows: at the first column with text where numbers should be.
    """
    column = next(column for column in columns if column.is_wrong)
    row, word = column.first_word
    where = f"{path}, line {lines[row]}: column {column.name!r} is {word!r}"
    noun = "a date" if isinstance(column, Days) else "a number"
    concealed = _conceal(path, lines, column, noun)
    can_drop = can_drop and column.name not in (*what.predicted, *what.numeric)
    drop = what.say("drop", column.name)
    if column.is_marked and column.mixes_marks:
        why = "which mark of 1,234 and 1.234 is the decimal point can't be told: write all numbers alike"
        raise UnreadableRows(
            f"{where}, and other cells have a point; {why}" + f", or {drop}" * can_drop,
            f"{concealed}; {why}",
            **({"drop": (*what.drop, column.name)} if can_drop else {}),
        )
    if column.is_marked:
        everywhere = sum((other.marks for other in columns), Counter())
        has_decimals = any(other.has_decimals for other in columns)
        remedy = choose_separators(column.marks, everywhere, what.separators, delimiter, has_decimals)
        if remedy is not None:
            raise UnreadableRows(f"{where}; {remedy[0]}", f"{concealed}: {remedy[0]}", **remedy[1])
    if isinstance(column, Days):
        where = f"{where}, which is no date of the form {column.form}"
    if column.limits and what.censored is None:
        word = next(iter(column.limits))
        raise UnreadableRows(
            f"{where}; a number behind a mark such as {word[0]!r} is a limit (so in {column.limits.total()} "
            'cells): write censored = "missing" to read such cells as gaps'
            + f", or {drop} to leave the column out"
            * can_drop
            + f'. The word "limit" in place of "missing" reads {word!r} as {find_limit(word)}, and "half" '
            'halves a limit behind "<"',
            f'{concealed}: censored = "limit", "half" or "missing"',
            censored="missing",
        )
    remedies: dict[str, tuple[str, ...]] = {}
    if len(column.words) <= MAX_WORDS:
        remedies["missing"] = (*what.missing, *column.words)
    if can_drop:
        remedies["drop"] = (*what.drop, column.name)
    if can_drop and column.name not in what.dates and column.count_distinct() <= FEW:
        remedies["categorical"] = (*what.categorical, column.name)
        if column.holds_truths:  # a gap in place of yes would be another answer
            remedies = {"categorical": remedies["categorical"], **remedies}
    words = " and ".join(map(repr, column.words))
    meanings = {
        "missing": f"if {words} mean that it is missing",
        "drop": "to leave the column out",
        "categorical": "if these are categories",
    }
    told = [
        f"{option} = {json.dumps(said, ensure_ascii=False)} {meanings[option]}"
        for option, said in remedies.items()
    ]
    if column.name in what.numeric:
        told.append("take it out of numeric")
    numbers = f", and {column.num_numbers} other cells of it are numbers" if column.num_numbers else ""
    raise UnreadableRows(
        f"{where}{numbers}; write {', or '.join([f'{noun} there', *told])}",
        f"{concealed}: missing = [...]{', or drop' * can_drop}",
        **dict([*remedies.items()][:1]),
    )


def _conceal(path: str, lines: Sequence[int], column: Column, noun: str) -> str:
    """Names the lines where a column holds something else, and shows no cell."""
    wrong = [lines[row] for row in column.wrong_rows]
    some = f"line{'s' * (len(wrong) > 1)} {', '.join(map(str, wrong))}"
    some += ", ..." * (column.num_wrong > len(wrong))
    return (
        f"{path}: column {column.name!r} holds something else than {noun} in {column.num_wrong} "
        f"rows: {some}; mend them, or say how such cells are read"
    )
