"""Reading a party's own file as the data of a run that others have described."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hanse.config import Warn, WrongSetting, build, inline, parse, to_plain, warn_user
from hanse.core import Array, Examples, InvalidInput
from hanse.data import (
    Dataset,
    NeedsSetting,
    Rows,
    ShowsCell,
    Tabular,
    as_table,
    assemble,
    check_examples,
    classes_of,
    csv,
    find_gaps,
    npz,
    parquet,
    to_categories,
)
from hanse.runs.conditions import Condition, choose_rows
from hanse.runs.wanted import Wanted

__all__ = ["PARQUET", "Unlabelled", "read_description", "read_examples", "read_rows", "read_with_groups"]

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Unlabelled:
    """A file's rows, of which some or all may have no label.

    Args:
      x: the features, encoded, of all rows.
      has_label: (n,) whether a row has a label.
      labelled: the examples of the rows that have one; None: no row has.
      notes: what the owner of the file should know.
      ids: (n,) the words of the column that names the rows; None: no column was named.
    """

    x: Array
    has_label: Array
    labelled: Examples | None
    notes: tuple[str, ...]
    ids: Array | None = None


def read_examples(
    path: str, wanted: Wanted, reader: Dataset | None = None, *, is_test: bool = False, warn: Warn = warn_user
) -> Examples:
    """Reads the examples in a party's own file: an .npz, a CSV or Parquet file with the run's columns.

    All rows are taken; columns that the run does not use are left where they are.

    Args:
      path: of the file; or of a .toml file whose table `data` names it, and says how it is read.
      wanted: the form that the examples must have.
      reader: reads files of this kind; None: the reader with its defaults.
      is_test: whether they only measure a model: then a column may be empty.
      warn: is called with what the owner of the file should know.

    Raises: InvalidInput: if it can't be read, or does not suit the run; it shows no cell.
    """
    return read_with_groups(path, wanted, reader, is_test=is_test, warn=warn)[0]


def read_with_groups(
    path: str,
    wanted: Wanted,
    reader: Dataset | None = None,
    *,
    is_test: bool = False,
    warn: Warn = warn_user,
    where: Sequence[Condition] = (),
    said_in: str | None = None,
) -> tuple[Examples, Array | None]:
    """Reads the examples in a party's own file, and the group of each if `wanted` names groups.

    Args:
      path, wanted, reader, is_test, warn: see `read_examples`.
      where: conditions; rows that do not pass all of them are left out.
      said_in: the owner's file that names the reader, for messages; None: the file at `path` may do so.
    """
    groups = None
    with _remedy_at_hand(path, reader, said_in) as opened:
        path, reader = opened or (path, reader)
        if _is_archive(path, reader):
            own = _own_archive(path, wanted, reader)
            names = (own.x, own.y, *(() if wanted.group is None else (wanted.group,)))
            stored = _stored(own, names, [condition.column for condition in where])
            if where:
                stored = own.take_rows(stored, choose_rows(where, stored, path))
            stored, notes = own.complete(stored, names)
            if wanted.num_classes is not None:  # a gap in a number is no class, either
                stored, more = _complete_numbers(own, stored, names)
                notes += more
            groups = None if wanted.group is None else to_categories(stored[wanted.group])
            y = _find_labels(stored[own.y], wanted, lambda row: own.at(own.y, row, stored))
            examples = _pair(stored[own.x], y, own)
        else:
            rows, own_reader = _open_table(path, wanted, reader, needs_labels=True, where=where)
            found = assemble(own_reader, rows, None)
            examples, notes, groups = found.train, tuple(found.notes), found.groups
            _check_columns(examples.x, wanted, path, own_reader, is_test)
        for line in notes:
            warn(line)
        encoded = examples if wanted.encoder is None else wanted.encoder(examples)
        return _check_suits(encoded, wanted, path), groups


def read_rows(
    path: str, wanted: Wanted, reader: Dataset | None = None, *, ids: str | None = None
) -> Unlabelled:
    """Reads a file's rows to predict them: labels are read where there are some.

    Args:
      path, wanted, reader: see `read_examples`.
      ids: the column, or array, that names the rows.

    Raises:
      InvalidInput: if it can't be read, does not suit the model, or a label is no class of the model. Rows
        that can't be read are named by their lines, and none of their cells is shown.
    """
    names: Array | None = None
    with _remedy_at_hand(path, reader, None) as opened:
        path, reader = opened or (path, reader)
        if _is_archive(path, reader):
            own = _own_archive(path, wanted, reader)
            stored = _stored(own, (own.x,), () if ids is None else (ids,))
            x, y = stored[own.x], stored.get(own.y)
            names = None if ids is None else _check_ids(stored.get(ids), ids, path, len(x))
            has_label = np.zeros(len(x), bool) if y is None else ~find_gaps(y)
            if y is not None:
                _pair(x, y, own)
                places = np.flatnonzero(has_label)
                y = _find_labels(y[has_label], wanted, lambda row: own.at(own.y, int(places[row]), {}))
        else:
            rows, own_reader = _open_table(path, wanted, reader, needs_labels=False, ids=ids)
            if ids is not None:
                names = _check_ids(rows.columns.get(ids), ids, path, len(rows))
                if ids not in (*wanted.predicted, *(wanted.columns or ())):
                    rows = replace(rows, columns={n: c for n, c in rows.columns.items() if n != ids})
            x, y, has_label = _features_and_labels(rows, own_reader, wanted)
    if not len(x):
        raise InvalidInput(f"{path} holds no rows to predict; give at least 1")
    new = () if wanted.encoder is None or not x.dtype.names else wanted.encoder.find_new_columns(x)
    notes = [f"{path}: none of the categories in column {name!r} is known to the model" for name in new]
    if wanted.encoder is not None:
        x = wanted.encoder(Examples(x, np.zeros(len(x), np.int64))).x
    labelled = None
    if y is not None and has_label.any():
        labelled = Examples(x[has_label], y)
        if y.ndim == 1 or wanted.num_classes is None:
            check_examples(labelled, wanted.num_classes, whose=path)
        if not has_label.all():
            missing = np.count_nonzero(~has_label)
            notes.append(f"{path}: {missing} of {len(x)} rows have no label; the others are measured")
    return Unlabelled(x, has_label, labelled, tuple(notes), names)


def _check_ids(names: Array | None, ids: str, path: str, num_rows: int) -> Array:
    """Returns the names of rows as words. Raises: InvalidInput: if there is not one for each row."""
    if names is None:
        raise InvalidInput(f"{path} has no column {ids!r} to name the rows by; leave it out to number them")
    if names.shape != (num_rows,):
        raise InvalidInput(
            f"{path}: {ids} has shape {names.shape}, but one name for each of {num_rows} rows is needed"
        )
    return names.astype(str) if names.dtype.kind == "U" else to_categories(names)


@contextmanager
def _remedy_at_hand(
    path: str, reader: Dataset | None, said_in: str | None
) -> "Iterator[tuple[str, Tabular | npz] | None]":
    """Reads a description of a file; says where a setting is written that reads a file in another way.

    Rows that can't be read are named by their lines, and none of their cells is shown: what a model or a
    run refuses may stand in a log that others read.
    """
    is_description = said_in is None and Path(path).suffix == ".toml"
    described = read_description(path) if is_description else None
    try:
        yield None if described is None else (described.path, described)
    except (NeedsSetting, ShowsCell) as error:
        said = error.concealed if isinstance(error, ShowsCell) else str(error)
        if not isinstance(error, NeedsSetting):
            raise InvalidInput(said) from None
        hidden = HOLD_CELLS if isinstance(error, ShowsCell) else ()
        more = {name: one for name, one in error.settings.items() if name not in hidden}
        where = (
            f"Such a setting is written into {said_in or path}"
            if is_description or said_in is not None
            else f"Such a setting is written into a file of your own, which is given in place of {path}: "
            f"own.toml, with data = {_describe_reading(path, reader, more)}"
        )
        raise InvalidInput(f"{said}. {where}") from None


READING = (
    "x", "y", "columns", "delimiter", "decimal", "thousands", "encoding", "comment", "strip", "missing",
    "censored", "dates", "incomplete", "uninformative",
)  # fmt: skip
"""Settings that say how a file is read. Others, such as the columns to leave out, are the run's."""

HOLD_CELLS = ("missing", "strip", "comment")
"""Settings that repeat what stands in a file; a message that shows no cell leaves them to its reader."""


def _describe_reading(path: str, reader: Dataset | None, more: Mapping[str, Any]) -> str:
    """Writes a table that reads a file as a reader does, and with further settings."""
    own: Tabular | npz
    if _is_archive(path, reader):
        own = reader if isinstance(reader, npz) else npz(path)
    else:
        own = _choose_reader(path, reader if isinstance(reader, Tabular) else None)
    own = replace(own, path=path, **more)
    said, plain = to_plain(own), to_plain(type(own)(path))
    shown = {name: said[name] for name in READING if name in said and said[name] != plain[name]}
    return inline({"name": said["name"], "path": path, **shown})


def _is_archive(path: str, reader: Dataset | None) -> bool:
    return Path(path).suffix == ".npz" or (isinstance(reader, npz) and reader.path == path)


def read_description(path: str) -> Tabular | npz:
    """Makes the reader that an owner's own settings file describes. Raises: InvalidInput."""
    try:
        reader = build(Dataset, parse(path).get("data"), "data")
    except WrongSetting as error:
        raise InvalidInput(f"{path}: {error}") from None
    if not isinstance(reader, Tabular | npz):
        raise InvalidInput(
            f'{path}: data is {type(reader).__name__}; a client reads a file of its own: write name = "csv", '
            '"parquet" or "npz"'
        )
    return reader


# -- archives ----------------------------------------------------------------------------------


def _own_archive(path: str, wanted: Wanted, reader: Dataset | None) -> npz:
    x, y = wanted.arrays
    own = replace(reader, path=path) if isinstance(reader, npz) else npz(path, x=x, y=y)
    return replace(own, group=wanted.group)


def _stored(own: npz, needed: Sequence[str], also: Sequence[str] = ()) -> Mapping[str, Array]:
    """Reads the arrays of features and labels, and others that are named."""
    stored = own.read_arrays({own.x, own.y, *needed, *also})
    if not stored.keys() >= {*needed}:
        stored = own.read_arrays()
        name = next(name for name in needed if name not in stored)
        nouns = {own.x: ("x", "features"), own.y: ("y", "labels")}
        option, noun = nouns.get(name, ("group", "groups"))
        raise NeedsSetting(
            f"{own.path} has no array {name!r}; it has {', '.join(sorted(stored)) or 'none'}: write "
            f"numpy.savez(path, {name}={noun}), or {option} = ... with the array's name"
        )
    return stored


def _complete_numbers(
    own: npz, stored: Mapping[str, Array], names: Sequence[str]
) -> tuple[Mapping[str, Array], tuple[str, ...]]:
    """Treats numbers that are not there as empty labels in words are."""
    y = stored[own.y]
    if y.dtype.kind != "f" or y.ndim > 1 or not find_gaps(y).any():
        return stored, ()
    words = np.where(find_gaps(y), "", "number")
    kept, notes = own.complete({**stored, own.y: words, "numbers": y}, (*names, "numbers"))
    return {**kept, own.y: kept["numbers"]}, notes


def _pair(x: Array, y: Array, own: npz) -> Examples:
    if len(x) != len(y):
        raise InvalidInput(f"{own.path}: {len(x)} rows of {own.x} and {len(y)} of {own.y}; give as many")
    return Examples(x, y)


def _find_labels(labels: Array, wanted: Wanted, where: Callable[[int], str]) -> Array:
    """Returns the classes of the run that labels name; or the labels themselves if they are no classes."""
    if wanted.num_classes is not None and labels.ndim == 1:
        return classes_of(labels, wanted.names, where)
    if labels.dtype.kind in "US":
        why = f"but {wanted.whose}'s labels are numbers"
        raise ShowsCell(f"{where(0)} is {str(labels.ravel()[0])!r}, {why}", f"{where(0)} is a word, {why}")
    return labels


# -- tables ------------------------------------------------------------------------------------


def _open_table(
    path: str,
    wanted: Wanted,
    reader: Dataset | None,
    *,
    needs_labels: bool,
    where: Sequence[Condition] = (),
    ids: str | None = None,
) -> tuple[Rows, Tabular]:
    """Reads a table; its columns are of the kinds that the run names, whatever these few rows look like."""
    if not wanted.is_table or (wanted.encoder is None and not needs_labels):
        raise InvalidInput(
            f"{path}: {wanted.whose}'s data are {_describe_data(wanted.kind)}, not a table of columns; give "
            f"an .npz file with an array {wanted.arrays[0]} of rows of shape {wanted.feature_shape}"
            + f" and an array {wanted.arrays[1]}"
            * needs_labels
        )
    own = _for_run(path, wanted, reader if isinstance(reader, Tabular) else None)
    roles, features = wanted.predicted, wanted.columns
    groups = (wanted.group,) if wanted.group is not None and needs_labels else ()
    like = None
    if wanted.encoder is not None and features is not None:
        words = {*wanted.encoder.schema.categories, wanted.label, wanted.group}
        named = (*features, *roles, *groups)
        by_words = {one.column for one in where if not one.compares_numbers} - {*named}
        sought = dict.fromkeys((*named, *(one.column for one in where)))
        if ids is not None and ids not in sought:
            words, sought = {*words, ids}, {**sought, ids: None}
        kinds = {name: np.zeros(0, "U1" if name in words | by_words else float) for name in sought}
        like = Rows(path, kinds, np.zeros(0, np.int64))
    rows = own.rows(path, like)
    if features is None:
        allowed = rows.columns.keys() if wanted.allowed is None else wanted.allowed
        features = tuple(n for n in rows.columns if n in allowed and n not in (*wanted.unused, *roles))
    needed = (*roles, *features, *groups) if needs_labels else features
    missing = [name for name in needed if name not in rows.columns]
    if missing:
        raise InvalidInput(
            f"{path} has no column {missing[0]!r}; {wanted.whose} wants {', '.join(dict.fromkeys(needed))}"
        )
    if where:
        rows = rows.take(choose_rows(where, rows.columns, path))
    columns = {
        name: column for name, column in rows.columns.items() if name in (*roles, *features, *groups, ids)
    }
    return replace(rows, columns=columns), own


def _describe_data(kind: str | None) -> str:
    return "not described by a file" if kind is None else f"{kind}()"


def _for_run(path: str, wanted: Wanted, reader: Tabular | None) -> Tabular:
    """Adapts the owner's reader to the run's columns. Raises: InvalidInput: if it predicts other columns."""
    reader = _choose_reader(path, reader)
    own, asked = {reader.label, *reader.targets} - {None}, {*wanted.predicted}
    if own and own != asked:
        raise InvalidInput(
            f"{path} is read to predict {', '.join(sorted(map(str, own)))}; the run wants "
            f"{', '.join(sorted(asked))}"
        )
    schema = None if wanted.encoder is None else wanted.encoder.schema  # decided where the run began
    return replace(
        reader,
        path=path,
        label=wanted.label,
        target=wanted.target,
        key=None,
        group=wanted.group,
        drop=(),
        categorical=() if schema is None else schema.categories,
        numeric=() if schema is None else schema.numbers,
        classes=wanted.classes,
        test=None,
        test_fraction=0.0,
        validation=None,
        validation_fraction=0.0,
    )


def _choose_reader(path: str, reader: Tabular | None) -> Tabular:
    """Chooses the reader of a file: the one that is given, unless it reads files of another kind."""
    kind = parquet if path.endswith(PARQUET) else csv
    return reader if isinstance(reader, kind) or (reader and reader.path == path) else kind(path)


def _features_and_labels(rows: Rows, own: Tabular, wanted: Wanted) -> tuple[Array, Array | None, Array]:
    """Returns the features of all rows, the labels of those that have one, and which these are."""
    roles = wanted.predicted
    x = as_table({name: column for name, column in rows.columns.items() if name not in roles})
    has_label = np.zeros(len(rows), bool)
    if all(name in rows.columns for name in roles):
        known = wanted.classes if wanted.label is not None else ()
        gaps = [find_gaps(rows.columns[name], known) for name in roles]
        has_label = ~np.logical_or.reduce(gaps)
    if not has_label.any():
        return x, None, has_label
    return x, assemble(own, rows.take(has_label), None).train.y, has_label


def _check_columns(x: Array, wanted: Wanted, path: str, own: Tabular, is_test: bool) -> None:
    """Checks that each column has a value somewhere, and a category that the run knows.

    One row alone says nothing about its columns, and test examples may have gaps in all rows.
    """
    if wanted.encoder is None or not x.dtype.names or len(x) < 2:
        return
    for name in () if is_test else wanted.encoder.find_empty_columns(x):
        if name not in own.uninformative:
            raise NeedsSetting(
                f"{path}: column {name!r} has no value in any of its {len(x)} rows; fill it in, or write "
                f"{own.say('uninformative', name)} if that is right: then each row has a gap there",
                uninformative=(*own.uninformative, name),
            )
    for name in wanted.encoder.find_new_columns(x):
        if name not in own.uninformative:
            place = wanted.encoder.schema.categories.index(name)
            theirs = ", ".join(map(repr, wanted.encoder.vocabularies[place].categories[:3])) or "none"
            raise NeedsSetting(
                f"{path}: {wanted.whose} knows none of the categories in column {name!r}, but {theirs}, ...; "
                f"write them as {wanted.whose} does, or write {own.say('uninformative', name)} if they are "
                "right: then no row has a known category there",
                uninformative=(*own.uninformative, name),
            )


def _check_suits(examples: Examples, wanted: Wanted, path: str) -> Examples:
    if examples.x.dtype.kind not in "fiub":
        raise InvalidInput(
            f"{path}: features are {examples.x.dtype}, but {wanted.whose} has no encoder that turns columns "
            "into numbers; give features that are numbers"
        )
    shape = tuple(examples.x.shape[1:])
    if shape != wanted.feature_shape:
        raise InvalidInput(
            f"{path}: rows of x have shape {shape}; {wanted.whose} wants {wanted.feature_shape}"
        )
    y = examples.y
    if wanted.num_classes is not None and y.ndim > 1:
        if y.dtype.kind not in "iu" or not np.all((y >= 0) & (y < wanted.num_classes)):
            raise InvalidInput(
                f"{path}: y is {y.dtype}; {wanted.whose} wants whole numbers from 0 to "
                f"{wanted.num_classes - 1}"
            )
        return examples
    check_examples(examples, wanted.num_classes, whose=path)
    return examples
