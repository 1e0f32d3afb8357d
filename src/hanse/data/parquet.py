"""Parquet files, read by pyarrow."""

from collections import Counter
from typing import Any

import numpy as np

from hanse.core import Array, InvalidInput, value
from hanse.data.delimited.days import FIRST_DAY
from hanse.data.files import ShowsCell, extra, read_bytes
from hanse.data.labels import spell, to_categories
from hanse.data.tables import Rows, Tabular

__all__ = ["column_of", "parquet", "rows_of"]


@value
class parquet(Tabular):
    """A Parquet file. Needs the extra "parquet". Dates become numbers, the days since 2000-01-01.

    >>> parquet("stays.parquet", target="days", key="hospital").label is None
    True

    Args:
      path, label, target, key, drop, categorical, classes, test, test_fraction, numeric, incomplete,
        uninformative, validation, validation_fraction, group: see `Tabular`.
    Raises: InvalidInput: naming the file, the row, the column, and what to write instead; if pyarrow is not
      installed.
    """

    def rows(self, path: str, like: Rows | None) -> Rows:
        """Reads a file."""
        arrow = extra("pyarrow", "parquet", "parquet()")
        reader = extra("pyarrow.parquet", "parquet", "parquet()")
        try:
            content = arrow.BufferReader(read_bytes(path))
            twice = [name for name, n in Counter(reader.read_schema(content).names).items() if n > 1]
            if twice:
                raise InvalidInput(f"{path}: two columns are called {twice[0]!r}; name each once")
            content.seek(0)
            table = reader.read_table(content)
        except arrow.ArrowException as error:
            raise InvalidInput(f"{path} is no Parquet file ({error}); name one, or write csv(...)") from None
        return rows_of(table, path, self, like)


def rows_of(table: Any, file: str, what: Tabular, like: Rows | None = None) -> Rows:
    """Reads the rows of an Arrow table.

    Args:
      like: the columns of the training data, whose kinds these have; others are left out.
    Raises: InvalidInput: if a column holds neither numbers nor text, or no numbers where these have to be.
    """
    names = [name for name in table.column_names if like is None or name in like.columns]
    if like is None:
        is_text = dict.fromkeys(what.as_categories, True) | dict.fromkeys(what.numeric, False)
    else:
        is_text = {name: column.dtype.kind == "U" for name, column in like.columns.items()}
    columns = {
        name: np.broadcast_to(np.nan, len(table))
        if name in what.drop
        else column_of(table.column(name), f"{file}: column {name!r}", is_text.get(name))
        for name in names
    }
    return Rows(file, columns, np.arange(1, len(table) + 1), noun="row")


def column_of(column: Any, whose: str, is_text: bool | None) -> Array:
    """Reads an Arrow column as (n,) float64 (missing: NaN) or text (missing: empty); lists as (n, length).

    Args:
      whose: begins messages.
      is_text: whether it is one of text, if that is known: then numbers are spelt as in text, and text is
        read as numbers. None: what it holds decides.
    """
    arrow = extra("pyarrow", "parquet", "parquet()")
    types = arrow.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if types.is_null(kind):
        return np.full(len(column), "") if is_text else np.full(len(column), np.nan)
    is_number = (
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    )
    if types.is_date(kind) or types.is_timestamp(kind):
        if is_text:
            return np.array([word or "" for word in column.cast(arrow.string()).to_pylist()], str)
        moments = np.asarray(column.cast(arrow.timestamp("us")).to_numpy(), "datetime64[us]")
        days: Array = (moments - np.datetime64(FIRST_DAY, "us")) / np.timedelta64(1, "D")
        return days
    if is_number and not is_text:
        numbers: Array = np.asarray(column.cast(arrow.float64(), safe=False).to_numpy(), np.float64)
        return numbers
    if types.is_floating(kind):
        return to_categories(np.asarray(column.to_numpy()))
    if is_number or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        words = column.cast(arrow.string()).to_pylist()
        spelt = {word: "" if word is None else spell(word) for word in set(words)}
        found = np.array([spelt[word] for word in words], str)
        return _as_numbers(found, whose) if is_text is False else found
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _lists(column, whose)
    raise InvalidInput(
        f"{whose} holds {kind}, which is neither numbers nor text; drop it, or convert it first"
    )


def _as_numbers(words: Array, whose: str) -> Array:
    """Reads text as numbers, and truth values as 0 and 1."""
    numbers = np.full(len(words), np.nan)
    truth = {"False": 0.0, "True": 1.0}
    for row, word in enumerate(words.tolist()):
        try:
            numbers[row] = truth[word] if word in truth else float(word or "nan")
        except ValueError:
            where, cure = (
                f"{whose}, row {row + 1} is",
                "where a number has to be; write one, or leave it empty",
            )
            raise ShowsCell(f"{where} {word!r}, {cure}", f"{where} something else, {cure}") from None
    return numbers


def _lists(column: Any, whose: str) -> Array:
    """Reads lists of one length as numbers, (n, length)."""
    lists = column.to_pylist()
    try:
        return np.array(lists, np.float32)
    except (ValueError, TypeError):
        raise InvalidInput(
            f"{whose} holds {column.type} of different lengths or kinds; give lists of numbers, of one length"
        ) from None
