"""Tables: rows of named columns, as files hold them, and their conversion into examples.

Features are a structured array with a column of float64 (missing: NaN) or of text (missing: empty) for each
column of the file. No model takes a table; preprocessing makes numbers of it, the same way at every party.
"""

import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from os import fspath
from typing import Literal

import numpy as np

from hanse.core import Array, Examples, InvalidInput, nearest
from hanse.data.checks import check_fractions
from hanse.data.datasets import Dataset, TrainTest, hold_out
from hanse.data.files import NeedsSetting
from hanse.data.labels import (
    check_groups_apart,
    check_test_keys,
    class_names,
    classes_of,
    find_gaps,
    to_categories,
)

__all__ = ["Rows", "Tabular", "as_table", "assemble"]


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

    def take(self, rows: Array) -> "Rows":
        """Returns the rows at these positions, or where a mask is true."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, columns=columns, lines=self.lines[rows])


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

NUMBERED = re.compile(
    r"(.*[ _.-])?(id|index|row|nr|no|number|nummer|mrn|barcode|case|record|subject|patient)\.?|unnamed: 0"
    r"|.*(fall|case|record|patient|patienten|akten|sample|subject|person|customer|account)[ _.-]*"
    r"(id|nr|no|num|number|nummer)\.?",
    re.IGNORECASE,
)
"""Names of columns that number the rows, if each row has another whole number."""

PLACES = re.compile(r"(.*[ _.-])?(plz|zip([ _-]?code)?|post(al)?[ _-]?code|postleitzahl)", re.IGNORECASE)
"""Names of columns whose whole numbers name places."""


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
      numeric: columns to read as numbers, whatever most of their cells look like, and to keep although
        their numbers seem to identify rows or places.
      incomplete: "skip" leaves out rows with a gap in label, target or key, and counts them; "refuse" refuses
        the file.
      uninformative: columns that may tell nothing in a party's own file, where no row has a value there, or
        only categories that the run does not know.
      validation: a file of examples to choose by: then `stop` and sweeps watch these, and test examples are
        only reported.
      validation_fraction: of the rows, held out to choose by where `validation` is not given.
      group: the column of what each row belongs to, such as a patient: rows of one group are held out
        together, for tests and for choices, also by `client_test_fraction`. It is no feature.
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
    numeric: tuple[str, ...] = ()
    incomplete: Literal["refuse", "skip"] = "refuse"
    uninformative: tuple[str, ...] = ()
    validation: str | None = None
    validation_fraction: float = 0.0
    group: str | None = None

    def __post_init__(self) -> None:
        check_incomplete(self.incomplete)
        for name in ("path", "test", "validation"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, fspath(getattr(self, name)))
        if self.label is not None and self.target is not None:
            raise InvalidInput(
                f"label is {self.label!r} and target is {self.target!r}; give one: label for classes, target "
                "for a number to predict"
            )
        roles = [n for n in (self.label, *self.targets, self.key, self.group, *self.drop) if n is not None]
        twice = [name for name, count in Counter(roles).items() if count > 1]
        if twice:
            raise InvalidInput(f"column {twice[0]!r} is given two roles; give it one")
        both = {*self.numeric} & {self.label, self.key, self.group, *self.categorical, *self.drop}
        if both:
            raise InvalidInput(
                f"column {min(map(str, both))!r} is numeric and also label, key, group, categorical or "
                "dropped; choose one"
            )
        check_fractions(self.test_fraction, self.validation_fraction)

    def say(self, option: str, *names: str) -> str:
        """Writes a setting that lists columns, with those that it lists already, as a message names it."""
        return f"{option} = {json.dumps([*getattr(self, option), *names], ensure_ascii=False)}"

    @abstractmethod
    def rows(self, path: str, like: Rows | None) -> Rows:
        """Reads a file.

        Args:
          path: of the file.
          like: the columns of the training file, when another file is read: others are left out, and these
            are read as numbers or as categories as they are there.
        """

    def load(self) -> TrainTest:
        """Reads the file, and the files of test and validation examples if there are some."""
        if self.test is None and self.validation is None:
            return assemble(self, self.rows(self.path, None), None)  # nobody else holds the columns
        train = self.rows(self.path, None)
        others = (None if path is None else self.rows(path, train) for path in (self.test, self.validation))
        return assemble(self, train, *others)

    def can_strip(self, chars: str, files: Sequence[Rows]) -> bool:
        """Returns whether stripping these characters from text would change nothing but labels."""
        return False

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of numbers to predict."""
        if isinstance(self.target, str):
            return (self.target,)
        return self.target or ()

    @property
    def predicted(self) -> tuple[str | None, ...]:
        """The columns of labels and numbers to predict."""
        return (self.label, *self.targets)

    @property
    def as_categories(self) -> tuple[str, ...]:
        """Columns that are read as text, whatever they look like."""
        named = (self.label, self.key, self.group, *self.categorical)
        return tuple(name for name in named if name is not None)


def check_incomplete(said: str) -> None:
    """Checks what is to be done with incomplete rows. Raises: InvalidInput: if it is another word."""
    if said not in ("refuse", "skip"):
        raise InvalidInput(f'incomplete is {said!r}; write "refuse" or "skip"')


def assemble(what: Tabular, train: Rows, test: Rows | None, validation: Rows | None = None) -> TrainTest:
    """Makes examples of rows. Raises: InvalidInput: naming file, row and column."""
    _check_columns(what, train)
    roles = {*what.predicted, what.key, what.group, *what.drop}
    categorical, numeric = {*what.categorical}, {*what.numeric}
    names = [name for name in train.columns if name not in roles]
    if not names:
        raise InvalidInput(f"{train.file} has no column left for features; drop fewer")
    for name in names:
        if train.columns[name].dtype.kind == "U" and name not in categorical:
            _check_category(what, train, name)
    unsure = [name for name in names if name not in numeric]
    notes = [note for name in unsure if (note := _note_on_numbers(what, train, name))]
    train = _complete(what, train, notes)
    classes = what.classes
    if what.label is not None and not classes:
        classes = class_names(_categories_of(what, train, what.label), whose=_whose(train, what.label))
    data = _examples(what, train, names, classes, ())
    if test is validation is None:
        del train  # whose columns take as much memory as the table that was made of them
        data = replace(data, notes=tuple(notes))
        return hold_out(data, what.test_fraction, "rows", what.validation_fraction)
    held_out = chosen_by = None
    if test is not None:
        test = _complete(what, test, notes)
        held_out = _examples(what, test, names, classes, (train,))
        if what.key is not None and held_out.keys is not None:
            remedy = f"Remove the column from {test.file} if they shall test the model at the server alone"
            check_test_keys(data.keys, held_out.keys, _place(test, what.key), remedy)
        data = replace(data, test=held_out.train, test_keys=held_out.keys)
    if validation is not None:
        validation = _complete(what, validation, notes)
        chosen_by = _examples(what, validation, names, classes, (train,))
        data = replace(data, validation=chosen_by.train)
    if what.group is not None:
        sides = [data.groups]
        for rows, side in ((test, held_out), (validation, chosen_by)):
            if rows is not None and side is not None and side.groups is not None:
                for groups in sides:
                    check_groups_apart(groups, side.groups, _place(rows, what.group))
                sides.append(side.groups)
    return hold_out(replace(data, notes=tuple(notes)), what.test_fraction, "rows", what.validation_fraction)


def _whose(rows: Rows, name: str) -> str:
    return f"{rows.file}: column {name!r}"


def _complete(what: Tabular, rows: Rows, notes: list[str]) -> Rows:
    """Leaves out rows with a gap in label, target, key or group, and notes it; or refuses the first."""
    for name in (what.label, *what.targets, what.key, what.group):
        if name is None or name not in rows.columns:
            continue
        gaps = find_gaps(rows.columns[name], what.classes if name == what.label else ())
        if (name in what.targets and rows.columns[name].dtype.kind == "U") or not gaps.any():
            continue
        row, count = int(gaps.argmax()), np.count_nonzero(gaps)
        if what.incomplete == "refuse" or count == len(gaps):
            remedy = "" if count == len(gaps) else ', or write incomplete = "skip" to leave these rows out'
            raise NeedsSetting(
                f"{rows.at(row)}: column {name!r} is empty (it is in {count} of {len(gaps)} rows); fill it in"
                f"{remedy}{_explain_word(rows.columns[name][row], name == what.label)}",
                **({"incomplete": "skip"} if remedy else {}),
            )
        notes.append(f"{rows.file}: {count} of {len(gaps)} rows have no {name!r} and are left out")
        rows = rows.take(~gaps)
    return rows


def _explain_word(cell: object, is_label: bool) -> str:
    word = str(cell).strip()
    if not word or not isinstance(cell, str):
        return ""
    cure = "list it in classes = [...]" if is_label else "rename it"
    return f". {word!r} counts as empty; if it is a name, {cure}"


def _check_columns(what: Tabular, rows: Rows) -> None:
    known = rows.columns
    options = {
        "label": (what.label,),
        "target": what.targets,
        "key": (what.key,),
        "group": (what.group,),
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


def _check_category(what: Tabular, rows: Rows, name: str) -> None:
    """Refuses names and numbers of persons, which teach nothing and would all be revealed."""
    column = rows.columns[name][:SAMPLE]
    distinct, num_present = len(np.unique(column)), np.count_nonzero(column != "")
    if distinct > IDENTIFIES and 2 * distinct > num_present:
        example = str(column[column != ""][0])
        raise NeedsSetting(
            f"{rows.file}: column {name!r} holds {distinct} different categories in {num_present} rows, such "
            f"as {example!r}, so it seems to identify rows rather than describe them; write "
            f"{what.say('drop', name)}, or {what.say('categorical', name)} to keep it",
            drop=(*what.drop, name),
        )


def _note_on_numbers(what: Tabular, rows: Rows, name: str) -> str | None:
    """Refuses numbers that by their name identify rows or places; notes those that may do so."""
    column = rows.columns[name]
    if column.ndim > 1 or column.dtype.kind == "U":
        return None
    has_places = names_places(name, column)
    if not has_places and not is_numbering(name, column):
        return None
    drop, keep = what.say("drop", name), f"{what.say('numeric', name)} to keep it as a number"
    if has_places:
        raise NeedsSetting(
            f"{rows.file}: column {name!r} seems to hold numbers of places, such as "
            f"{column[np.isfinite(column)][0]:.0f}, which measure nothing; write "
            f"{what.say('categorical', name)}, {drop}, or {keep}",
            categorical=(*what.categorical, name),
        )
    found = f"{rows.file}: column {name!r} holds another whole number in each row, such as {column[0]:.0f}"
    if NUMBERED.fullmatch(name.strip()) is None:
        return f"{found}; if it identifies rows and does not describe them, write {drop}"
    raise NeedsSetting(
        f"{found}, so it seems to identify rows rather than describe them; write {drop}, or {keep}",
        drop=(*what.drop, name),
    )


def is_numbering(name: str, column: Array) -> bool:
    """Returns whether a column of numbers only numbers its rows.

    It does if each row has another whole number, and these follow each other closely or the name says so.
    """
    first = column[: IDENTIFIES + 1]
    if len(first) <= IDENTIFIES or not _are_whole(first) or len(np.unique(first)) < len(first):
        return False
    column = column[:SAMPLE]
    is_unique = _are_whole(column) and len(np.unique(column)) == len(column)
    return is_unique and (
        float(np.ptp(column)) < 2 * len(column) or NUMBERED.fullmatch(name.strip()) is not None
    )


def names_places(name: str, column: Array) -> bool:
    """Returns whether a column of numbers holds postcodes, by its name."""
    found = PLACES.fullmatch(name.strip()) is not None and column[np.isfinite(column)]
    return found is not False and len(found) > 0 and _are_whole(found)


def _are_whole(numbers: Array) -> bool:
    return bool((np.isfinite(numbers) & (numbers == np.rint(numbers))).all())


def _examples(
    what: Tabular, rows: Rows, names: list[str], classes: tuple[str, ...], others: Sequence[Rows]
) -> TrainTest:
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise InvalidInput(
            f"{rows.file} has no column {missing[0]!r}, which {what.path} has; "
            f"{nearest(missing[0], rows.columns)}"
        )
    x = _features(rows, names)
    keys = None
    if what.key is not None and (what.key in rows.columns or not others):  # a test file may leave it out
        keys = _categories_of(what, rows, what.key)
    groups = None
    if what.group is not None:
        _check_column(what.group, "group", rows)
        groups = _categories_of(what, rows, what.group)
    if what.label is not None:
        _check_column(what.label, "label", rows)
        y = classes_of(
            rows.columns[what.label],
            classes,
            _place(rows, what.label),
            can_strip=lambda chars: what.can_strip(chars, (rows, *others)),
        )
        return TrainTest(Examples(x, y), None, len(classes), keys=keys, groups=groups, classes=classes)
    targets = [_numbers(rows, name) for name in what.targets]
    y = targets[0] if isinstance(what.target, str) else np.column_stack(targets)
    return TrainTest(Examples(x, y), None, keys=keys, groups=groups)


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


def _categories_of(what: Tabular, rows: Rows, name: str) -> Array:
    """Returns a column as text; it has no gaps."""
    _check_column(name, "label or key", rows)
    return to_categories(rows.columns[name], what.classes if name == what.label else ())


def _numbers(rows: Rows, name: str) -> Array:
    _check_column(name, "target", rows)
    column = rows.columns[name]
    if column.dtype.kind == "U":
        raise InvalidInput(
            f"{rows.at(0)}: target column {name!r} is {str(column[0])!r}; a target is a number, and text "
            f'is a class: write label = "{name}" in place of target'
        )
    return column
