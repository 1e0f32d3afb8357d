"""A first settings file for a file of data, or for a file of each party, with a comment on each guess."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hanse.config.first_file import Guess
from hanse.config.guesses import SETTLE, Said, guess_reader
from hanse.config.roles import (
    KEYS,
    MAX_CLASSES,
    explain_drop,
    find_group,
    find_key,
    find_label,
    has_label_name,
    list_labels,
    names_place,
    seems_to_identify,
)
from hanse.config.words import find_variants
from hanse.core import Array, InvalidInput
from hanse.data import (
    NeedsSetting,
    Tabular,
    class_names,
    csv,
    find_gaps,
    npz,
    parquet,
    party_files,
    read_bytes,
    to_categories,
)

__all__ = ["guess", "guess_parties"]

TABLES = (".csv", ".tsv", ".txt", ".data", ".tab")


def guess(path: str, *, label: str | None = None, key: str | None = None, folder: str = "") -> Guess:
    """Guesses the contents of a file.

    Args:
      path: a CSV file or another delimited text, .npz, .parquet or .libsvm.
      label, key: columns that the user names, so that they are not guessed.
      folder: of the settings file, where its paths start; the current folder if empty.

    Raises: InvalidInput: if it can't be read, or holds nothing to learn from.
    """
    written = _relative(path, folder)
    name = path.removesuffix(".gz").lower()
    if name.endswith(".npz"):
        return _arrays(path, written, label, key)
    if name.endswith((".libsvm", ".svm")):
        return Guess([("name", "libsvm", ""), ("path", written, "")], False, 0, False)
    reader, said = _open(path)
    columns = reader.rows(path, None).columns
    start: list[Said] = [
        ("name", type(reader).__name__, ""),
        ("path", written, "it starts at the folder of this file"),
    ]
    start += [line for line in said if line[0] not in ("drop", "categorical")]
    return _table(path, columns, start, _reasons(said, "drop"), label, key, _reasons(said, "categorical"))


def _reasons(said: Sequence[Said], option: str) -> Mapping[str, str]:
    """Returns why the reader of a file leaves columns out, or reads them as categories."""
    found = next((reasons for name, reasons, _ in said if name == option), {})
    return found if isinstance(found, dict) else {}


def _relative(path: str, folder: str) -> str:
    """Writes a path as it is found from the folder of the settings file."""
    return Path(os.path.relpath(path, folder or ".")).as_posix()


def _open(path: str) -> tuple[Tabular, Sequence[Said]]:
    """Chooses how a table is read. Raises: InvalidInput: if it is none."""
    name = path.removesuffix(".gz").lower()
    if name.endswith((".parquet", ".pq")):
        return parquet(path), ()
    if not name.endswith(TABLES):
        raise InvalidInput(
            f"{path}: the format of such a file is unknown; give one that ends in "
            f"{', '.join(TABLES)} (.gz too), .npz, .parquet or .libsvm; or read other data with "
            "your own function: see hanse.data.custom"
        )
    return guess_reader(path)


def guess_parties(paths: Sequence[str], *, label: str | None = None, folder: str = "") -> Guess:
    """Guesses the contents of several files, of which each is a party's own; they have columns in common.

    Args:
      paths: of the files; the parties are called as they are.
      label, folder: see `guess`.

    Raises: InvalidInput: if one can't be read, or they have no columns in common.
    """
    names = [Path(path).name.partition(".")[0] for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"two files are called {twice}; name each party's file after the party")
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    opened = {name: _open(path) for name, path in zip(names, paths, strict=True)}
    parties: dict[str, Sequence[Said]] = {}
    readers: dict[str, Tabular] = {}
    drop: dict[str, str] = {}
    mixed: dict[str, str] = {}
    for name, (reader, said) in opened.items():
        inside = Path(os.path.relpath(reader.path, common)).as_posix()
        drop |= {column: f"{why} (in {inside})" for column, why in _reasons(said, "drop").items()}
        mixed |= {column: f"{why} (in {inside})" for column, why in _reasons(said, "categorical").items()}
        readers[name] = replace(reader, path=inside, drop=(), categorical=())
        parties[name] = [
            ("name", type(reader).__name__, ""),
            ("path", inside, ""),
            *(one for one in said if one[0] not in ("drop", "categorical")),
        ]
    mixed = {column: why for column, why in mixed.items() if column not in drop}
    dated = {column for reader in readers.values() if isinstance(reader, csv) for column in reader.dates}
    drop |= {
        column: f"{why}; another file has dates there" for column, why in mixed.items() if column in dated
    }
    mixed = {column: why for column, why in mixed.items() if column not in drop}
    all_files = party_files(common, parties=readers, drop=tuple(drop), categorical=tuple(mixed))
    while True:
        try:
            columns = all_files.rows(common, None).columns
            break
        except NeedsSetting as error:
            option, found = next(iter(error.settings.items()), ("", [""]))
            if option == "drop" and found[-1] == label:
                raise InvalidInput(
                    f"{str(error).partition(';')[0]}; --label has to name a column that all files have"
                ) from None
            if option == "drop":
                lack = [name for name, (reader, _) in opened.items() if found[-1] not in _columns_of(reader)]
                drop[found[-1]] = (
                    f"{', '.join(lack)} {'has' if len(lack) == 1 else 'have'} no such column"
                    if lack
                    else f"{SETTLE}: dates in some files and words in others; or mend one of them"
                )
            elif option == "categorical":
                mixed[found[-1]] = f"{SETTLE}: numbers in some files and words in others; or mend one of them"
            else:
                raise
            all_files = replace(all_files, **error.settings)
    mixed |= _compare_words(columns, columns[all_files.key], mixed)
    start: list[Said] = [
        ("name", "party_files", "a file of each party; their own settings are below"),
        ("path", _relative(common, folder), "the folder of the files; it starts at the folder of this file"),
    ]
    found = _table("the files", columns, start, drop, label, all_files.key, mixed)
    data = [line for line in found.data if line[0] not in ("key", "test_fraction")]
    data.append(("test_fraction", 0.0, "no common test set: each party tests on rows of its own"))
    return replace(found, data=data, parties=parties)


def _compare_words(columns: Mapping[str, Array], parties: Array, known: Mapping[str, str]) -> dict[str, str]:
    """Finds columns in which parties seem to write the same in different words, with the reason."""
    found = {}
    for name, column in columns.items():
        if column.ndim > 1 or column.dtype.kind != "U" or seems_to_identify(name, column):
            continue
        same = find_variants([word for word in np.unique(column).tolist() if word])
        if same:
            why = f"{' and '.join(map(repr, same))} seem to mean the same; write them alike in all files"
            found[name] = f"{SETTLE}: {why}"
            continue
        own = [{*column[parties == party].tolist()} - {""} for party in np.unique(parties)]
        if name not in known and all(a.isdisjoint(b) for i, a in enumerate(own) for b in own[:i] if a and b):
            found[name] = f"{SETTLE}: no two files have a word in common; do they write the same alike?"
    return found


def _columns_of(reader: Tabular) -> Mapping[str, Array]:
    return reader.rows(reader.path, None).columns


def _table(
    whose: str,
    columns: Mapping[str, Array],
    start: Sequence[Said],
    drop: Mapping[str, str],
    label: str | None,
    key: str | None,
    mixed: Mapping[str, str] | None = None,
) -> Guess:
    """Guesses the roles of columns.

    Args:
      whose: names the file in messages.
      start: the settings by which the columns were read.
      drop, mixed: columns to leave out, and to read as categories, with the reason.
    """
    if not columns or not len(next(iter(columns.values()))):
        raise InvalidInput(f"{whose} holds no rows; give at least 1")
    for option, given in (("--label", label), ("--key", key)):
        if given is not None and given not in columns:
            raise InvalidInput(f"{whose} has no column {given!r} for {option}; it has {', '.join(columns)}")
    kept = {name: column for name, column in columns.items() if name not in drop or name in (label, key)}
    key = key or find_key(kept, label)
    if label is None and set(kept) <= {key}:
        out = [f"{name} ({why})" for name, why in drop.items()]
        also = f"; left out: {', '.join(out[:3])}" * bool(out) + ", ..." * (len(out) > 3)
        raise InvalidInput(f"{whose}: no column is left to predict{also}; give a table that has one")
    is_sure = label is not None
    label = label or find_label(kept, key)
    group = find_group({name: column for name, column in kept.items() if name not in (label, key)})
    features = [name for name in kept if name not in (label, key, group)]
    drop, mixed = dict(drop), mixed or {}
    for name in features:
        reason = explain_drop(name, columns[name])
        if reason is not None:
            drop[name] = mixed.get(name, reason)
    drop.pop(label, None)
    is_number = columns[label].dtype.kind != "U" and _count(columns[label]) > MAX_CLASSES
    others = [name for name in list_labels(kept) if name not in (label, key, group)][:4]
    said = [*start, _say_label(label, others, is_sure=is_sure, is_number=is_number)]
    if not is_number:
        parties = to_categories(columns[key]) if key is not None and start[0][1] == "party_files" else None
        said += _guess_classes(whose, columns[label], parties)
    said += _say_roles(columns, label, key, group)
    if drop:
        said.append(("drop", drop, "columns that are left out"))
    features = [name for name in features if name not in drop]
    places = {name: PLACES for name in features if names_place(name, columns[name])}
    categories = {**{name: why for name, why in mixed.items() if name in features}, **places}
    if categories:
        said.append(("categorical", categories, "columns that are read as categories"))
    kinds = (
        f"{name} ({'words' if column.dtype.kind == 'U' else 'numbers'})"
        for name, column in columns.items()
        if name not in drop
    )
    num_parties = 0 if key is None else _count(columns[key])
    return Guess(said, key is not None, num_parties, is_number, ", ".join(kinds))


PLACES = "its numbers name places and measure nothing; or write it into numeric"


def _count(column: Array) -> int:
    """Counts the distinct values of a column; a column of arrays has none."""
    return len(np.unique(column)) if column.ndim == 1 else 0


def _say_label(label: str, others: Sequence[str], *, is_sure: bool, is_number: bool) -> Said:
    """Names the column to predict, and marks it if nothing says that it is this one."""
    what = "the number to predict" if is_number else "the class to predict"
    if not is_sure and not has_label_name(label):
        also = f" and not {', '.join(others)}" * bool(others)
        what = f"{SETTLE}: {what}; nothing says that it is this column{also}"
    return "target" if is_number else "label", label, what


def _say_roles(
    columns: Mapping[str, Array], label: str, key: str | None, group: str | None
) -> Iterator[Said]:
    """Names the columns of parties and of persons, and what happens to rows with a gap in a role."""
    gaps = [name for name in (label, key, group) if name is not None and find_gaps(columns[name]).any()]
    if gaps:
        num = np.count_nonzero(np.logical_or.reduce([find_gaps(columns[name]) for name in gaps]))
        comment = f"{SETTLE}: {num} rows have no {' or '.join(gaps)} and are left out; or fill it in"
        yield "incomplete", "skip", comment
    if key is not None:
        yield "key", key, f"the party that each row belongs to: {_count(columns[key])} parties"
    if group is not None:
        yield (
            "group",
            group,
            f"{SETTLE}: {_count(columns[group])} persons or cases have {len(columns[group])} rows, and those "
            "of one are held out together; if it is no person, remove this line, and the column is a feature",
        )


def _guess_classes(whose: str, column: Array, parties: Array | None) -> Iterator[Said]:
    """Lists the classes in the order that all parties have to use.

    Args:
      parties: the party of each row, where each has a file; None: they have not.
    """
    words = to_categories(column)
    parties = None if parties is None else parties[words != ""]
    words = words[words != ""]
    if len(np.unique(words)) < 2:
        classes = [*map(str, np.unique(words))]
        yield (
            "classes",
            classes,
            f"{SETTLE}: the only class here; add those that other parties have, in one order for all",
        )
        return
    names = class_names(words, whose=whose)
    if len(names) <= MAX_CLASSES:
        comment = "in this order at all parties, whichever of them a party has"
        if len(names) == 2:
            comment += f"; sensitivity, f1 and others are about the last, {names[1]!r}"
        if parties is not None:
            lack = [
                f"{party} has no {' and no '.join(map(repr, missing))}"
                for party in np.unique(parties).tolist()
                if (missing := [name for name in names if name not in words[parties == party]])
            ]
            comment += "".join(f"; {line}" for line in lack)
        same = find_variants(names)
        if same:
            why = f"{' and '.join(map(repr, same))} seem to mean the same; write them alike in the files"
            comment = f"{SETTLE}: {why}. They stand {comment}"
        yield "classes", [*names], comment


def _arrays(path: str, written: str, label: str | None, key: str | None) -> Guess:
    read_bytes(path)
    stored = npz(path).read_arrays()
    shapes = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in stored.items())
    plain = [name for name in stored if not name.startswith("test_")]
    x: str | None = next((n for n in ("x", "X", "images", "features", "data") if n in plain), None)
    x = x or max(plain, key=lambda name: int(stored[name].size), default=None)
    y = label or next((n for n in ("y", "Y", "labels", "label", "targets", "target") if n in plain), None)
    y = y or next((n for n in plain if n != x and x and len(stored[n]) == len(stored[x])), None)
    for option, given in (("--label", y), ("--key", key)):
        if given is not None and given not in stored:
            raise InvalidInput(f"{path} has no array {given!r} for {option}; it has {shapes}")
    if x is None or y is None:
        raise InvalidInput(f"{path} needs an array of features and one of labels; it has {shapes or 'none'}")
    key = key or next((n for n in ("keys", "key", *KEYS) if n in plain and n not in (x, y)), None)
    said: list[Said] = [("name", "npz", ""), ("path", written, "it starts at the folder of this file")]
    said += [("x", x, "the array of features"), ("y", y, "the array of labels")]
    if key:
        said.append(("key", key, "the array that names the party of each row"))
    num_parties = len(np.unique(stored[key])) if key else 0
    return Guess(said, key is not None, num_parties, stored[y].dtype.kind == "f", shapes)
