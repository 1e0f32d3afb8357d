"""A first settings file for a file of data, with a comment on each guess."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from hanse.config.writing import inline
from hanse.core import Array, InvalidInput
from hanse.data import (
    DELIMITERS,
    IDENTIFIES,
    NeedsSetting,
    csv,
    is_numbering,
    names_places,
    npz,
    parquet,
    read_bytes,
    tell_encoding,
    text_lines,
)

__all__ = [
    "Guess",
    "find_label",
    "guess",
    "guess_reader",
    "has_label_name",
    "list_labels",
    "seems_to_identify",
    "starting_file",
]

LABELS = (
    "label",
    "class",
    "target",
    "y",
    "outcome",
    "diagnosis",
    "died",
    "income",
    "response",
    "result",
    "price",
)
KEYS = ("hospital", "site", "centre", "center", "client", "user", "user_id", "writer", "role", "institution",
        "clinic", "bank", "branch", "region", "school", "device", "owner")  # fmt: skip
TABLES = (".csv", ".tsv", ".txt", ".data", ".tab")
MAX_CLASSES, MAX_KEYS = 30, 500


@dataclass(frozen=True)
class Guess:
    """A guess at the contents of a file.

    Args:
      data: settings of the data set, with a comment on each.
      key: whether a column names the party that each row belongs to.
      num_parties: the number of these parties.
      is_number: whether the value to predict is a number.
      columns: a list of the columns, for a comment.
    """

    data: Sequence[tuple[str, object, str]]
    key: bool
    num_parties: int
    is_number: bool
    columns: str = ""


def guess(path: str, *, label: str | None = None, key: str | None = None) -> Guess:
    """Guesses the contents of a file.

    Args:
      path: a CSV file or another delimited text, .npz, .parquet or .libsvm.
      label, key: columns that the user names, so that they are not guessed.

    Raises: InvalidInput: if it can't be read, or holds nothing to learn from.
    """
    name = path.removesuffix(".gz").lower()
    if name.endswith(".npz"):
        return _arrays(path, label, key)
    if name.endswith((".parquet", ".pq")):
        columns: Mapping[str, Array] = parquet(path).rows(path, None).columns
        return _table("parquet", path, columns, [], label, key)
    if name.endswith((".libsvm", ".svm")):
        return Guess([("name", "libsvm", ""), ("path", path, "")], False, 0, False)
    if not name.endswith(TABLES):
        raise InvalidInput(
            f"{path}: the format of such a file is unknown; give one that ends in "
            f"{', '.join(TABLES)} (.gz too), .npz, .parquet or .libsvm; or read other data with "
            "your own function: see hanse.data.custom"
        )
    reader, said = guess_reader(path)
    return _table("csv", path, reader.rows(path, None).columns, said, label, key)


NUM_GUESSES = 40
"""The most settings that are tried one after the other, so that a file can be read."""


def guess_reader(path: str) -> tuple[csv, list[tuple[str, object, str]]]:
    """Chooses settings that read a file, as the messages about it ask for; returns them with comments.

    Raises: InvalidInput: if it can't be read.
    """
    encoding = tell_encoding(read_bytes(path)) or "utf-8"
    names = _missing_names(path, encoding)
    reader, comments = csv(path, encoding=encoding, columns=names), dict[str, str]()
    if names:
        comments["columns"] = "the file names no columns: write their names"
    if encoding != "utf-8":
        comments["encoding"] = "of the file's text"
    for _ in range(NUM_GUESSES):
        try:
            reader.rows(path, None)
            break
        except NeedsSetting as error:
            if not error.settings:
                raise
            reader = replace(reader, **error.settings)
            comments |= {name: COMMENTS.get(name, "") for name in error.settings}
    said = [(name, getattr(reader, name), comment) for name, comment in comments.items()]
    return reader, said


COMMENTS = {
    "decimal": "the decimal point of the file's numbers",
    "thousands": "between groups of three digits",
    "missing": "SETTLE THIS: cells that are read as missing; replace them in the file if they mean something",
    "drop": "left out: SETTLE THIS, they could not be read as numbers",
    "delimiter": "between cells",
}


def _missing_names(path: str, encoding: str) -> tuple[str, ...]:
    """Makes up names for columns if the first line of a file holds data."""
    with text_lines(path, encoding) as text:
        first = next((line for line in text if line.strip()), "")
    cells = first.strip().split(max(DELIMITERS, key=first.count))
    if not any(re.fullmatch(r"[-+]?\d+(\.\d+)?", cell.strip()) for cell in cells):
        return ()
    return tuple(f"c{i}" for i in range(1, len(cells) + 1))


def _table(
    kind: str,
    path: str,
    columns: Mapping[str, Array],
    reading: Sequence[tuple[str, object, str]],
    label: str | None,
    key: str | None,
) -> Guess:
    if not columns or not len(next(iter(columns.values()))):
        raise InvalidInput(f"{path} holds no rows; give at least 1")
    for option, given in (("--label", label), ("--key", key)):
        if given is not None and given not in columns:
            raise InvalidInput(f"{path} has no column {given!r} for {option}; it has {', '.join(columns)}")
    key = key or _key(columns, label)
    label = label or find_label(columns, key)
    distinct = {name: len(np.unique(column)) for name, column in columns.items() if column.ndim == 1}
    is_number = columns[label].dtype.kind != "U" and distinct.get(label, 0) > MAX_CLASSES
    dropped = cast(tuple[str, ...], next((said for name, said, _ in reading if name == "drop"), ()))
    features = [name for name in columns if name not in (label, key, *dropped)]
    drop = [name for name in features if seems_to_identify(name, columns[name])]
    places = [name for name in features if _names_places(name, columns[name])]
    said: list[tuple[str, object, str]] = [("name", kind, ""), ("path", path, "")]
    said += [line for line in reading if line[0] != "drop"]
    what = "the number to predict" if is_number else f"the class to predict: {distinct[label]} different"
    said.append(("target" if is_number else "label", label, what))
    if key is not None:
        said.append(("key", key, f"the party that each row belongs to: {distinct[key]} parties"))
    if drop or dropped:
        unread = f"; SETTLE THIS: {', '.join(dropped)} could not be read" if dropped else ""
        what = f"left out: they identify rows and do not describe them{unread}"
        said.append(("drop", [*drop, *dropped], what))
    if places:
        said.append(("categorical", places, "they name places and measure nothing"))
    kinds = (
        f"{name} ({'words' if column.dtype.kind == 'U' else 'numbers'})" for name, column in columns.items()
    )
    return Guess(said, key is not None, distinct.get(key or "", 0), is_number, ", ".join(kinds))


def list_labels(columns: Mapping[str, Array]) -> list[str]:
    """Lists the columns that look like labels, those with a typical name first."""
    few = [n for n, c in columns.items() if c.ndim == 1 and 2 <= len(np.unique(c)) <= MAX_CLASSES]
    typical = [name for name in columns if has_label_name(name)]
    return [*typical, *(name for name in reversed(few) if name not in typical)]


def has_label_name(name: str) -> bool:
    """Returns whether a column has a typical name of a label."""
    return name.lower() in LABELS


def find_label(columns: Mapping[str, Array], key: str | None = None) -> str:
    """Chooses the column with a typical name, or else the last one of numbers or of few different words."""
    names = [name for name in columns if name != key]
    for name in names:
        if has_label_name(name):
            return name
    last = names[-1]
    if columns[last].dtype.kind != "U" and not seems_to_identify(last, columns[last]):
        return last
    few = (n for n in reversed(names) if 2 <= len(np.unique(columns[n])) <= MAX_CLASSES)
    return next(few, last)


def _key(columns: Mapping[str, Array], label: str | None) -> str | None:
    for known in KEYS:
        for name, column in columns.items():
            if name.lower() == known and name != label and 2 <= len(np.unique(column)) <= MAX_KEYS:
                return name if not _gaps(column) else None
    return None


def _gaps(column: Array) -> bool:
    return bool((column == "").any() if column.dtype.kind == "U" else np.isnan(column).any())


def seems_to_identify(name: str, column: Array) -> bool:
    """Returns whether a column seems to identify rows or persons, and not to describe them."""
    distinct = len(np.unique(column)) if column.ndim == 1 else 0
    if column.dtype.kind == "U":
        return bool(distinct > IDENTIFIES and 2 * distinct > np.count_nonzero(column != ""))
    is_id = bool(re.fullmatch(r"(.*_)?id|index|row|unnamed: 0", name.lower()))
    return (is_id and distinct == len(column)) or (column.ndim == 1 and is_numbering(name, column))


def _names_places(name: str, column: Array) -> bool:
    return column.ndim == 1 and column.dtype.kind != "U" and names_places(name, column)


def _arrays(path: str, label: str | None, key: str | None) -> Guess:
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
    said: list[tuple[str, object, str]] = [("name", "npz", ""), ("path", path, "")]
    said += [("x", x, "the array of features"), ("y", y, "the array of labels")]
    if key:
        said.append(("key", key, "the array that names the party of each row"))
    num_parties = len(np.unique(stored[key])) if key else 0
    return Guess(said, key is not None, num_parties, stored[y].dtype.kind == "f", shapes)


def starting_file(guess: Guess) -> str:
    """Writes the settings as TOML with comments."""
    return "\n".join(_lines(guess)) + "\n"


def _lines(guess: Guess) -> Iterator[str]:
    few = guess.key and guess.num_parties <= 20
    yield from (
        "# A first run on your data. A setting that is left out has its default; --set changes any of them.",
        "",
        "rounds = 50            # at most; with [stop] it may end sooner",
        "seed = 0               # decides every draw: the same seed gives the same bits",
        'baselines = ["centralised", "on_site"]   # what the run is compared with; [] for none',
    )
    if not guess.key:
        yield "client_test_fraction = 0.2   # each client keeps some examples to test on"
    yield from ("", "[data]")
    if guess.columns:
        yield f"# Columns: {_one_line(guess.columns)}"
    for name, said, comment in guess.data:
        yield f"{name} = {inline(said)}" + (f"   # {comment}" if comment else "")
    yield from ("", "[partition]             # which client has which rows")
    if guess.key:
        yield f'name = "by_key"         # one client for each of the {guess.num_parties} parties'
    else:
        yield from (
            'name = "dirichlet"      # no column names a party: clients that differ are made up'
            if not guess.is_number
            else 'name = "iid"            # no column names a party: clients are made up',
            "num_clients = 10",
        )
        if not guess.is_number:
            yield "alpha = 0.5             # a smaller alpha makes their labels differ more"
    yield from ("", "[model]")
    yield (
        'name = "least_squares"'
        if guess.is_number
        else 'name = "softmax"         # for any number of classes'
    )
    yield "l2 = 1e-4               # regulariser"
    yield from (
        "",
        "[algorithm]",
        'name = "fed_avg"',
        f"lr = {0.02 if guess.is_number else 0.1}                # the clients' step size: vary this first",
        f"fraction = {1.0 if few or not guess.key else 0.2}          # the share of clients in each round",
        "epochs = 1              # local passes over the data",
        "batch_size = 32",
    )


def _one_line(words: str) -> str:
    return json.dumps(words if len(words) < 400 else words[:397] + "...", ensure_ascii=False)[1:-1]
