"""Parquet files, read by pyarrow."""

from typing import Any

import numpy as np

from hanse.core import Array, InvalidInput, value
from hanse.data.files import extra, read_bytes
from hanse.data.tables import Rows, Tabular

__all__ = ["column_of", "parquet", "rows_of"]


@value
class parquet(Tabular):
    """A Parquet file. Needs the extra "parquet".

    >>> parquet("stays.parquet", target="days", key="hospital").label is None
    True

    Args:
      path, label, target, key, drop, categorical, classes, test, test_fraction: see `Tabular`.
    Raises: InvalidInput: naming the file, the row, the column, and what to write instead; if pyarrow is not
      installed.
    """

    def rows(self, path: str, like: Rows | None) -> Rows:
        """Reads a file."""
        arrow = extra("pyarrow", "parquet", "parquet()")
        reader = extra("pyarrow.parquet", "parquet", "parquet()")
        try:
            table = reader.read_table(arrow.BufferReader(read_bytes(path)))
        except arrow.ArrowException as error:
            raise InvalidInput(f"{path} is no Parquet file ({error}); name one, or write csv(...)") from None
        return rows_of(table, path, self)


def rows_of(table: Any, file: str, what: Tabular) -> Rows:
    """Reads the rows of an Arrow table. Raises: InvalidInput: if a column holds neither numbers nor text."""
    columns = {
        name: np.broadcast_to(np.nan, len(table))
        if name in what.drop
        else column_of(table.column(name), f"{file}: column {name!r}", categorical=name in what.as_categories)
        for name in table.column_names
    }
    return Rows(file, columns, np.arange(1, len(table) + 1), noun="row")


def column_of(column: Any, whose: str, *, categorical: bool) -> Array:
    """Reads an Arrow column as (n,) float64 (missing: NaN) or text (missing: empty); lists as (n, length)."""
    arrow = extra("pyarrow", "parquet", "parquet()")
    types = arrow.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    is_number = (
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    )
    if is_number and not categorical:
        numbers: Array = np.asarray(column.cast(arrow.float64(), safe=False).to_numpy(), np.float64)
        return numbers
    if is_number or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        categories = column.cast(arrow.string()).to_pylist()
        return np.array(["" if word is None else word for word in categories], str)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _lists(column, whose)
    raise InvalidInput(
        f"{whose} holds {kind}, which is neither numbers nor text; drop it, or convert it first"
    )


def _lists(column: Any, whose: str) -> Array:
    """Reads lists of one length as numbers, (n, length)."""
    lists = column.to_pylist()
    try:
        return np.array(lists, np.float32)
    except (ValueError, TypeError):
        raise InvalidInput(
            f"{whose} holds {column.type} of different lengths or kinds; give lists of numbers, of one length"
        ) from None
