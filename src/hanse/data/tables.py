"""Tables: rows of named columns, as files hold them, and their conversion into examples.

Features are a structured array with a column of float64 (missing: NaN) or of text (missing: empty) for each
column of the file. No model takes a table; preprocessing makes numbers of it, the same way at every party.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from os import fspath

import numpy as np

from hanse.core import Array, Examples, InvalidInput, nearest
from hanse.data.checks import check_test_fraction
from hanse.data.datasets import Dataset, TrainTest, hold_out
from hanse.data.labels import class_names, classes_of, to_categories

__all__ = ["Rows", "Tabular", "as_table"]


@dataclass(frozen=True)
class Rows:
    """The contents of a file, column by column.

    Args:
      file: its name.
      columns: (n,) float64 (missing: NaN) or text (missing: empty), or (n, ...) numbers, by name.
      lines: (n,) the place of each row.
      noun: what `lines` counts.
    """

    file: str
    columns: Mapping[str, Array]
    lines: Array
    noun: str = "line"

    def __len__(self) -> int:
        return len(self.lines)

    def at(self, row: int) -> str:
        """Returns the place of a row, for messages."""
        return f"{self.file}, {self.noun} {self.lines[row]}"


def as_table(columns: Mapping[str, Array]) -> Array:
    """Joins columns of equal length into a structured array.

    >>> as_table({"age": np.array([31.0]), "job": np.array(["cook"])}).dtype.names
    ('age', 'job')
    """
    table = np.empty(
        len(next(iter(columns.values()))), [(name, column.dtype) for name, column in columns.items()]
    )
    for name, column in columns.items():
        table[name] = column
    return table


IDENTIFIES = 50
"""A text column with more distinct values than this, most of which occur once, identifies its rows."""

SAMPLE = 10_000
"""Number of rows that this check looks at."""


@dataclass(frozen=True)
class Tabular(Dataset):
    """A file of rows and named columns. All columns are features except those with another role.

    Args:
      path: of the file.
      label: the column of the class, as text or numbers.
      target: instead of `label`, the column of the number to predict; or several, such as the time and
        event of a survival model.
      key: the column of each row's owner (a hospital, a user); `by_key()` makes the owners the clients.
      drop: columns to leave out.
      categorical: columns to read as categories, even if they look like numbers.
      classes: all labels, in order; by default those in the file. Needed where parties read files of
        their own, and may not hold every label.
      test: a file of test examples; without it, some rows are held out.
      test_fraction: of the rows, held out at random, the same in every run, where `test` is not given.
    """

    path: str
    label: str | None = None
    _: KW_ONLY
    target: str | tuple[str, ...] | None = None
    key: str | None = None
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    test: str | None = None
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        for name in ("path", "test"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, fspath(getattr(self, name)))
        if self.label is not None and self.target is not None:
            raise InvalidInput(
                f"label is {self.label!r} and target is {self.target!r}; give one: label for classes, target "
                "for a number to predict"
            )
        roles = [name for name in (self.label, *self.targets, self.key, *self.drop) if name is not None]
        twice = [name for name in roles if roles.count(name) > 1]
        if twice:
            raise InvalidInput(f"column {twice[0]!r} is given two roles; give it one")
        check_test_fraction(self.test_fraction)

    @abstractmethod
    def rows(self, path: str, like: Rows | None) -> Rows:
        """Reads a file.

        Args:
          path: of the file.
          like: what the training file holds, when the test file is read.
        """

    def load(self) -> TrainTest:
        """Reads the file, and the test file if there is one."""
        train = self.rows(self.path, None)
        test = None if self.test is None else self.rows(self.test, train)
        return assemble(self, train, test)

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of numbers to predict."""
        if isinstance(self.target, str):
            return (self.target,)
        return self.target or ()

    @property
    def as_categories(self) -> tuple[str, ...]:
        """Columns that are read as text, whatever they look like."""
        return tuple(name for name in (self.label, self.key, *self.categorical) if name is not None)


def assemble(what: Tabular, train: Rows, test: Rows | None) -> TrainTest:
    """Makes examples of rows. Raises: InvalidInput: naming file, row and column."""
    _check_columns(what, train)
    names = [name for name in train.columns if name not in (what.label, *what.targets, what.key, *what.drop)]
    if not names:
        raise InvalidInput(f"{train.file} has no column left for features; drop fewer")
    for name in names:
        if train.columns[name].dtype.kind == "U" and name not in what.categorical:
            _check_category(train, name)
    classes = what.classes
    if what.label is not None and not classes:
        classes = class_names(_categories_of(train, what.label), whose=f"{train.file}: column {what.label!r}")
    data = _examples(what, train, names, classes)
    if test is None:
        return hold_out(data, what.test_fraction, "rows")
    held_out = _examples(what, test, names, classes)
    return TrainTest(
        data.train,
        held_out.train,
        data.num_classes,
        keys=data.keys,
        test_keys=held_out.keys,
        classes=classes,
    )


def _check_columns(what: Tabular, rows: Rows) -> None:
    known = rows.columns
    options = {
        "label": (what.label,),
        "target": what.targets,
        "key": (what.key,),
        "drop": what.drop,
        "categorical": what.categorical,
    }
    for option, names in options.items():
        for name in names:
            _check_column(name, option, rows)
    if what.label is None and not what.targets:
        raise InvalidInput(
            f"{rows.file}: which column should the model learn? Write label = ... for classes or "
            f"target = ... for a number; the columns are {', '.join(known)}"
        )
    if len(rows) == 0:
        raise InvalidInput(f"{rows.file} holds column names and no rows; give at least 1")


def _check_column(name: str | None, option: str, rows: Rows) -> None:
    if name is not None and name not in rows.columns:
        raise InvalidInput(f"{rows.file} has no column {name!r} for {option}; {nearest(name, rows.columns)}")


def _check_category(rows: Rows, name: str) -> None:
    """Refuses names and numbers of persons, which teach nothing and would all be revealed."""
    column = rows.columns[name][:SAMPLE]
    distinct, num_present = len(np.unique(column)), np.count_nonzero(column != "")
    if distinct > IDENTIFIES and 2 * distinct > num_present:
        example = str(column[column != ""][0])
        raise InvalidInput(
            f"{rows.file}: column {name!r} holds {distinct} different categories in {num_present} rows, such "
            f"as {example!r}, so it seems to identify rows rather than describe them; write "
            f'drop = ["{name}"], or categorical = ["{name}"] to keep it'
        )


def _examples(what: Tabular, rows: Rows, names: list[str], classes: tuple[str, ...]) -> TrainTest:
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise InvalidInput(
            f"{rows.file} has no column {missing[0]!r}, which {what.path} has; "
            f"{nearest(missing[0], rows.columns)}"
        )
    x = _features(rows, names)
    keys = None if what.key is None else _categories_of(rows, what.key)
    if what.label is not None:
        y = classes_of(_categories_of(rows, what.label), classes, _place(rows, what.label))
        return TrainTest(Examples(x, y), None, len(classes), keys=keys, classes=classes)
    targets = [_numbers(rows, name) for name in what.targets]
    y = targets[0] if isinstance(what.target, str) else np.column_stack(targets)
    return TrainTest(Examples(x, y), None, keys=keys)


def _features(rows: Rows, names: list[str]) -> Array:
    """Returns the columns as a table; or a column of arrays, such as images or embeddings, itself."""
    arrays = [name for name in names if rows.columns[name].ndim > 1]
    if not arrays:
        return as_table({name: rows.columns[name] for name in names})
    if len(names) > 1:
        raise InvalidInput(
            f"{rows.file}: column {arrays[0]!r} holds arrays, and there are other columns; drop it, or "
            f"them: drop = {[name for name in names if name != arrays[0]]}"
        )
    return rows.columns[arrays[0]]


def _place(rows: Rows, name: str) -> Callable[[int], str]:
    return lambda row: f"{rows.at(row)}: column {name!r}"


def _categories_of(rows: Rows, name: str) -> Array:
    """Returns a column as text, and refuses empty cells."""
    _check_column(name, "label or key", rows)
    column = rows.columns[name]
    gaps = column == "" if column.dtype.kind == "U" else np.isnan(column)
    if gaps.any():
        raise InvalidInput(
            f"{rows.at(int(gaps.argmax()))}: column {name!r} is empty (it is in {np.count_nonzero(gaps)} "
            "rows); fill it in, or leave these rows out"
        )
    return to_categories(column)


def _numbers(rows: Rows, name: str) -> Array:
    _check_column(name, "target", rows)
    column = rows.columns[name]
    if column.dtype.kind == "U":
        raise InvalidInput(
            f"{rows.at(0)}: target column {name!r} is {str(column[0])!r}; a target is a number, and text "
            f'is a class: write label = "{name}"'
        )
    gaps = np.isnan(column)
    if gaps.any():
        raise InvalidInput(
            f"{rows.at(int(gaps.argmax()))}: column {name!r} is empty (it is in {np.count_nonzero(gaps)} "
            "rows); fill it in, or leave these rows out"
        )
    return column
