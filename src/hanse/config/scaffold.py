"""A first settings file for a file of data, or for a file of each party, with a comment on each guess."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hanse.config.guesses import SETTLE, Said, guess_reader
from hanse.config.plain_data import as_key
from hanse.config.writing import inline
from hanse.core import Array, InvalidInput
from hanse.data import (
    IDENTIFIES,
    NeedsSetting,
    Tabular,
    class_names,
    find_gaps,
    is_numbering,
    names_places,
    npz,
    parquet,
    party_files,
    read_bytes,
    to_categories,
)

__all__ = [
    "Guess",
    "find_label",
    "guess",
    "guess_parties",
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
      data: settings of the data set, with a comment on each; a mapping stands for a list, with a comment on
        each entry.
      key: whether a column names the party that each row belongs to.
      num_parties: the number of these parties.
      is_number: whether the value to predict is a number.
      columns: a list of the columns, for a comment.
      parties: settings of the file of each party, where each has one.
    """

    data: Sequence[Said]
    key: bool
    num_parties: int
    is_number: bool
    columns: str = ""
    parties: Mapping[str, Sequence[Said]] = field(default_factory=dict)


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
    start += [line for line in said if line[0] != "drop"]
    return _table(path, columns, start, dict.fromkeys(reader.drop, UNREAD), label, key)


UNREAD = f"{SETTLE}: it could not be read as numbers; mend it, or keep it by categorical"


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
    for name, (reader, said) in opened.items():
        inside = Path(os.path.relpath(reader.path, common)).as_posix()
        drop |= dict.fromkeys(reader.drop, f"{UNREAD} (in {reader.path})")
        readers[name] = replace(reader, path=inside, drop=())
        parties[name] = [
            ("name", type(reader).__name__, ""),
            ("path", inside, ""),
            *(one for one in said if one[0] != "drop"),
        ]
    all_files = party_files(common, parties=readers, drop=tuple(drop))
    mixed: dict[str, str] = {}
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
                drop[found[-1]] = f"{', '.join(lack)} {'has' if len(lack) == 1 else 'have'} no such column"
            elif option == "categorical":
                mixed[found[-1]] = f"{SETTLE}: numbers in some files and words in others; or mend one of them"
            else:
                raise
            all_files = replace(all_files, **error.settings)
    start: list[Said] = [
        ("name", "party_files", "a file of each party; their own settings are below"),
        ("path", _relative(common, folder), "the folder of the files; it starts at the folder of this file"),
    ]
    found = _table("the files", columns, start, drop, label, all_files.key, mixed)
    data = [line for line in found.data if line[0] not in ("key", "test_fraction")]
    data.append(("test_fraction", 0.0, "no common test set: each party tests on rows of its own"))
    return replace(found, data=data, parties=parties)


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
    key = key or _key(kept, label)
    is_sure = label is not None
    label = label or find_label(kept, key)
    distinct = {name: len(np.unique(column)) for name, column in columns.items() if column.ndim == 1}
    is_number = columns[label].dtype.kind != "U" and distinct.get(label, 0) > MAX_CLASSES
    features = [name for name in kept if name not in (label, key)]
    drop = dict(drop)
    for name in features:
        reason = _why_to_drop(name, columns[name])
        if reason is not None:
            drop[name] = reason
    places = {
        name: "its numbers name places and measure nothing; or write it into numeric"
        for name in features
        if name not in drop and _names_places(name, columns[name])
    }
    others = [name for name in list_labels(kept) if name not in (label, key)][:4]
    what = "the number to predict" if is_number else "the class to predict"
    if not is_sure and not has_label_name(label):
        what = (
            f"{SETTLE}: {what}; nothing says that it is this column"
            + f" and not {', '.join(others)}" * bool(others)
        )
    said = [*start, ("target" if is_number else "label", label, what)]
    if not is_number:
        parties = to_categories(columns[key]) if key is not None and start[0][1] == "party_files" else None
        said += _guess_classes(whose, columns[label], parties)
    gaps = [name for name in (label, key) if name is not None and find_gaps(columns[name]).any()]
    if gaps:
        num = sum(int(np.count_nonzero(find_gaps(columns[name]))) for name in gaps)
        comment = f"{SETTLE}: {num} rows have no {' or '.join(gaps)} and are left out; or fill it in"
        said.append(("incomplete", "skip", comment))
    if key is not None:
        said.append(("key", key, f"the party that each row belongs to: {distinct[key]} parties"))
    drop.pop(label, None)
    if drop:
        said.append(("drop", drop, "columns that are left out"))
    categories = {**{name: why for name, why in (mixed or {}).items() if name in features}, **places}
    categories = {name: why for name, why in categories.items() if name not in drop}
    if categories:
        said.append(("categorical", categories, "columns that are read as categories"))
    kinds = (
        f"{name} ({'words' if column.dtype.kind == 'U' else 'numbers'})"
        for name, column in columns.items()
        if name not in drop
    )
    return Guess(said, key is not None, distinct.get(key or "", 0), is_number, ", ".join(kinds))


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
        if parties is not None:
            lack = [
                f"{party} has no {' and no '.join(map(repr, missing))}"
                for party in np.unique(parties).tolist()
                if (missing := [name for name in names if name not in words[parties == party]])
            ]
            comment += "".join(f"; {line}" for line in lack)
        if len({name.casefold() for name in names}) < len(names):
            comment = f"{SETTLE}: some differ by capitals only; write them alike in the files. {comment}"
        yield "classes", [*names], comment


def _why_to_drop(name: str, column: Array) -> str | None:
    """Returns why a column should be left out; None: it may describe the rows."""
    if seems_to_identify(name, column):
        return "almost each row has another value: it identifies rows and does not describe them"
    if column.ndim == 1 and find_gaps(column).all():
        return "it is empty in every row"
    if column.ndim == 1 and len(np.unique(column[~find_gaps(column)])) == 1:
        return "it has the same value in every row"
    return None


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


def starting_file(guess: Guess) -> str:
    """Writes the settings as TOML with comments."""
    return "\n".join(_lines(guess)) + "\n"


def _lines(guess: Guess) -> Iterator[str]:
    few = guess.key and guess.num_parties <= 20
    yield from (
        "# A first run on your data. A setting that is left out has its default; --set changes any of them.",
        f"# Each guess has a comment. Where it says {SETTLE}, only you can know: confirm or change the guess",
        "# and remove the two words. Until then hanse data describe lists it.",
        "",
        "rounds = 50            # at most; with [stop] it may end sooner",
        "seed = 0               # decides every draw: the same seed gives the same bits",
        'baselines = ["centralised", "on_site"]   # what the run is compared with; [] for none',
    )
    if not guess.key or guess.parties:
        yield "client_test_fraction = 0.2   # each client keeps some examples to test on"
    yield from ("", "[data]")
    if guess.columns:
        yield f"# Columns: {_one_line(guess.columns)}"
    yield from _settings(guess.data)
    for name, own in guess.parties.items():
        yield from ("", f"[data.parties.{as_key(name)}]")
        yield from _settings(own)
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


def _settings(lines: Sequence[Said]) -> Iterator[str]:
    """Writes settings, and lists with a comment on each entry."""
    for name, said, comment in lines:
        behind = f"   # {_one_line(comment)}" if comment else ""
        if not isinstance(said, dict) or name == "dates":
            yield f"{name} = {inline(said)}{behind}"
            continue
        yield f"{name} = [{behind}"
        yield from (f"  {inline(entry)},   # {_one_line(why)}" for entry, why in said.items())
        yield "]"


def _one_line(words: str) -> str:
    """Writes a comment that no line end or control character cuts."""
    short = words if len(words) < 400 else words[:397] + "..."
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: json.dumps(found[0])[1:-1], short)
