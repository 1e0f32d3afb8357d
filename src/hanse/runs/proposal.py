"""A proposal for a client's data contract: what is found in a file, and what to let runs use of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hanse.config import (
    find_group,
    find_label,
    guess,
    guess_reader,
    has_label_name,
    is_unsettled,
    list_labels,
    seems_to_identify,
)
from hanse.core import Array, InvalidInput, nearest
from hanse.data import Rows, Tabular, csv, find_gaps, names_places, npz, parquet, to_categories
from hanse.runs.contract import Contract
from hanse.runs.own_file import PARQUET, read_description
from hanse.runs.wanted import Wanted

__all__ = ["Proposal", "Seen", "propose"]


@dataclass(frozen=True)
class Seen:
    """A column or an array that a file holds.

    Args:
      kind: "numbers", "categories" or "arrays".
      about: its values in a few words.
      is_odd: whether it seems to identify rows or to name places.
    """

    name: str
    kind: str
    about: str
    is_odd: bool = False


@dataclass(frozen=True)
class Proposal:
    """A proposal for a contract, which is not written yet.

    Args:
      contract: the contract.
      num_rows: the number of the file's rows.
      columns: the columns or arrays of the file.
      labels: columns that could be predicted, the likeliest first.
      notes: what its owner should know.
      unsure: guesses that would do harm if they were wrong, each with what to write; nobody may make them
        but the owner.
    """

    contract: Contract
    num_rows: int
    columns: tuple[Seen, ...]
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


def propose(source: str, file: Path, wanted: Wanted | None = None, label: str | None = None) -> Proposal:
    """Looks into a client's own file, and proposes what runs may use of it.

    Args:
      source: a CSV file, .npz or .parquet; or a .toml file whose table `data` names one and how it is read.
      file: where the contract will be written.
      wanted: what a run wants, of which no more than this is proposed; None: no run is known yet.
      label: the column to predict, if its owner named one.

    Raises: InvalidInput: if the file can't be read, or lacks what the run wants.
    """
    guesses: list[tuple[str, object, str]] = []
    reader: Tabular | npz
    if source.endswith(".toml"):
        reader = read_description(source)
    elif source.endswith(".npz"):
        reader = npz(source)
    elif source.endswith(PARQUET):
        reader = parquet(source)
    else:
        reader, guesses = guess_reader(source)
    if isinstance(reader, npz):
        found = _propose_arrays(reader, source, file, wanted, label)
    else:
        found = _propose_table(reader, guesses, file, wanted, label)
    own = found.contract.reader
    reader = replace(own, path=str(Path(own.path).absolute()))
    return replace(found, contract=replace(found.contract, reader=reader))


# -- tables ------------------------------------------------------------------------------------


def _propose_table(
    reader: Tabular,
    guesses: Sequence[tuple[str, object, str]],
    file: Path,
    wanted: Wanted | None,
    label: str | None,
) -> Proposal:
    """Proposes the roles of columns, and which of them a run may use."""
    path, unread = reader.path, reader.drop
    rows = reader.rows(path, None)
    columns = {name: column for name, column in rows.columns.items() if name not in unread}
    if not len(rows):
        raise InvalidInput(f"{path} holds column names and no rows; give at least 1")
    if not columns:
        raise InvalidInput(f"{path} has no column that can be read; see its first lines")
    wanted = wanted if wanted is not None and wanted.is_table else None
    guessed = frozenset(reader.categorical if guesses else ())
    found = _Found(reader, rows, columns, wanted, guessed)
    predicted, is_class, doubts = found.choose_predicted(label)
    notes, unsure = [*_note_guesses(guesses, unread)], [*_settle_guesses(guesses), *doubts]
    group = found.choose_group(predicted)
    roles: dict[str, Any] = {"label": None, "target": None, "classes": (), "group": group}
    if is_class:
        classes, lone, noted = found.choose_classes(predicted[0], file)
        roles |= {"label": predicted[0], "classes": classes}
        unsure += lone
        notes += noted
    else:
        roles |= {"target": predicted[0] if len(predicted) == 1 else tuple(predicted)}
    if group is not None and group != reader.group and wanted is None:
        notes.append(
            f"column {group!r} seems to name persons, so no run may use it but to keep their rows apart"
        )
    by_kind, odd = found.choose_features((*predicted, group))
    notes += [f"column {name!r} seems to identify rows or places, so no run may use it" for name in odd]
    for name in predicted:
        gaps = int(np.count_nonzero(find_gaps(columns[name])))
        if gaps:
            notes.append(f"column {name!r} is empty in {gaps} of {len(rows)} rows")
    if isinstance(reader, csv):  # a run that knows them as words reads them as words
        reader = replace(
            reader, dates={n: f for n, f in reader.dates.items() if n not in by_kind["categorical"]}
        )
    contract = Contract(file, _limit_reader(reader, {**roles, **by_kind}), max(1, len(rows) // 2))
    seen = tuple(_see(name, column) for name, column in columns.items())
    return Proposal(contract, len(rows), seen, tuple(list_labels(columns)), tuple(notes), tuple(unsure))


def _limit_reader(reader: Tabular, chosen: Mapping[str, Any]) -> Tabular:
    """Returns a reader of the chosen columns, without the settings that mean nothing for a client."""
    unused: dict[str, Any] = {"key": None, "drop": (), "test": None, "test_fraction": 0.2}
    unused |= {"validation": None, "validation_fraction": 0.0}
    return replace(reader, **unused, **chosen)


@dataclass(frozen=True)
class _Found:
    """A table that was read, and what a run wants of it.

    Args:
      columns: of the rows, but for those that can't be read.
      wanted: None: no run of tables is known.
      guessed: columns that the reader has as categories, although nobody said so.
    """

    reader: Tabular
    rows: Rows
    columns: Mapping[str, Array]
    wanted: Wanted | None
    guessed: frozenset[str] = frozenset()

    def choose_predicted(self, label: str | None) -> tuple[tuple[str, ...], bool, list[str]]:
        """Chooses the columns to predict; returns also whether they are classes, and what is unsure."""
        reader, columns, wanted = self.reader, self.columns, self.wanted
        if wanted is not None:
            _check_has_all(reader.path, self.rows.columns, wanted)
            return wanted.predicted, wanted.label is not None, []
        if reader.targets and label is None:
            return reader.targets, False, []
        named = label or reader.label or (reader.targets[0] if len(reader.targets) == 1 else None)
        chosen = named or find_label(columns)
        if chosen not in columns:
            raise InvalidInput(
                f"{reader.path} has no column {chosen!r} for label; {nearest(chosen, columns)}"
            )
        is_class = (
            reader.label == chosen or columns[chosen].dtype.kind == "U" or chosen in list_labels(columns)
        )
        if named is not None or has_label_name(chosen):
            return (chosen,), is_class, []
        doubt = f"nothing says that {chosen!r} is the column to predict: write --label COLUMN"
        return (chosen,), is_class, [doubt]

    def choose_classes(self, label: str, file: Path) -> tuple[tuple[str, ...], list[str], list[str]]:
        """Chooses the classes; returns also what is unsure about them, and what their owner should know.

        They are those that the owner said, or those of the run, or else those of the file.

        Raises: InvalidInput: if the file holds a class that the run does not know.
        """
        wanted, said = self.wanted, self.reader.classes
        words = to_categories(self.columns[label])
        own = tuple(sorted({*words.tolist()} - {""}))
        lone = f"column {label!r} holds one class only, {own[0]!r}" if len(own) == 1 else ""
        if wanted is None:
            unsure = [f"{lone}, so nothing can be learned: name another column with --label COLUMN"]
            agree = (
                f"the classes {', '.join(map(repr, own[:6]))}{', ...' * (len(own) > 6)} are this file's: "
                f"agree on them with the other parties, and write those of all into classes in {file}"
            )
            return said or own, unsure if lone else [], [] if said else [agree]
        new = np.flatnonzero((words != "") & ~np.isin(words, wanted.names))
        if len(new):
            raise InvalidInput(
                f"{self.rows.at(int(new[0]))}: column {label!r} holds no class of {wanted.whose} (so in "
                f"{len(new)} rows); write one of {', '.join(map(repr, wanted.names[:6]))}, or let the "
                f"coordinator add the missing class to classes in the settings of {wanted.whose}"
            )
        classes = said or wanted.names
        note = [f"{lone}; the run knows {', '.join(map(repr, classes[:6]))}"] if lone else []
        return classes, [], note

    def choose_group(self, predicted: Sequence[str]) -> str | None:
        """Chooses the column of the person whom each row is of; None: there is none."""
        if self.wanted is not None and self.wanted.group is not None:
            return self.wanted.group
        if self.reader.group is not None or self.wanted is not None:
            return self.reader.group
        return find_group({name: one for name, one in self.columns.items() if name not in predicted})

    def choose_features(self, taken: Sequence[str | None]) -> tuple[dict[str, Any], list[str]]:
        """Chooses the columns of numbers and of categories that runs may use; lists the others."""
        reader, columns, wanted = self.reader, self.columns, self.wanted
        features = [name for name in columns if name not in taken]
        is_text = {name: columns[name].dtype.kind == "U" for name in features}
        if wanted is not None and wanted.columns is not None and wanted.encoder is not None:
            features = [name for name in wanted.columns if name in columns]
            is_text = {name: name in wanted.encoder.schema.categories for name in features}
        named = {*reader.numeric, *reader.categorical} - self.guessed
        odd = [name for name in features if name not in named and _see(name, columns[name]).is_odd]
        kept = [name for name in features if name not in odd]
        by_kind = {
            option: tuple(name for name in kept if is_text[name] == text)
            for option, text in (("numeric", False), ("categorical", True))
        }
        return by_kind, odd


def _check_has_all(path: str, columns: Mapping[str, Array], wanted: Wanted) -> None:
    """Checks that a file has the columns that a run wants. Raises: InvalidInput: naming the first."""
    group = () if wanted.group is None else (wanted.group,)
    needed = dict.fromkeys((*wanted.predicted, *(wanted.columns or ()), *group))
    for name in needed:
        if name not in columns:
            raise InvalidInput(
                f"{path} has no column {name!r}; {wanted.whose} wants {', '.join(needed)}; "
                f"{nearest(name, columns)}"
            )


def _note_guesses(guesses: Sequence[tuple[str, object, str]], unread: Sequence[str]) -> Iterator[str]:
    for name, said, comment in guesses:
        if name not in ("drop", "categorical", "missing") and not is_unsettled((name, said, comment)):
            yield f"the file is read with {name} = {said!r}" + (f", {comment}" if comment else "")
    if unread:
        yield f"could not be read as numbers, so no run may use: {', '.join(map(repr, unread))}"


def _settle_guesses(guesses: Sequence[tuple[str, object, str]]) -> Iterator[str]:
    for name, said, comment in guesses:
        if name == "categorical" and isinstance(said, dict):
            for column, why in said.items():
                yield f"column {column!r} is read as categories: {why.partition(': ')[2]}"
        if not is_unsettled((name, said, comment)) or name == "drop":
            continue
        if name == "missing" and isinstance(said, tuple):
            cells = ", ".join(map(repr, said[-3:]))
            yield f"the cells {cells} would be read as missing: if they mean something, replace them"
        else:
            yield f"{name} = {said!r} is a guess: {comment.partition(': ')[2]}"


MOST_WORDS = 3
"""The number of a column's values that are shown."""


def _see(name: str, column: Array) -> Seen:
    """Describes a column to its owner."""
    if column.ndim > 1:
        return Seen(name, "arrays", f"of shape {column.shape[1:]}")
    gaps = find_gaps(column)
    kept = column[~gaps]
    empty = f", {np.count_nonzero(gaps)} empty" if gaps.any() else ""
    is_odd = seems_to_identify(name, column) or (column.dtype.kind != "U" and names_places(name, column))
    if column.dtype.kind == "U":
        words, counts = np.unique(kept, return_counts=True)
        shown = ", ".join(map(str, words[np.argsort(-counts, kind="stable")][:MOST_WORDS]))
        about = f"{len(words)} different" + ("" if is_odd or not shown else f": {shown:.40}")
        return Seen(name, "categories", about + empty, is_odd)
    about = f"{kept.min():g} to {kept.max():g}" if len(kept) and not is_odd else f"{len(kept)} values"
    return Seen(name, "numbers", about + empty, is_odd)


# -- archives ----------------------------------------------------------------------------------


def _propose_arrays(
    reader: npz, source: str, file: Path, wanted: Wanted | None, label: str | None
) -> Proposal:
    stored = reader.read_arrays()
    x, y = reader.x, label or reader.y
    if source == reader.path and (x not in stored or y not in stored):
        said = {name: one for name, one, _ in guess(source, label=label).data}
        x, y = str(said["x"]), str(said["y"])
    missing = next((name for name in (x, y) if name not in stored), None)
    if missing is not None:
        raise InvalidInput(f"{reader.path} has no array {missing!r}; {nearest(missing, stored)}")
    labels, count = stored[y], len(stored[x])
    if count == 0:
        raise InvalidInput(f"{reader.path} holds no rows in {x!r}; give at least 1")
    notes, unsure = list[str](), list[str]()
    distinct = np.unique(labels) if labels.dtype.kind in "iuUS" and labels.ndim == 1 else None
    own = None if distinct is None else len(distinct)
    if distinct is not None and labels.dtype.kind in "iu":
        own = int(distinct.max()) + 1
    if distinct is not None and len(distinct) == 1:
        lone = f"array {y!r} holds one class only, {distinct[0]}"
        if wanted is None:
            unsure.append(f"{lone}, so nothing can be learned: name another array with --label ARRAY")
        else:
            notes.append(lone)
    if wanted is not None and own is not None and wanted.num_classes is not None:
        own = max(own, wanted.num_classes) if own <= wanted.num_classes else own
    group = reader.group if wanted is None or wanted.group is None else wanted.group
    seen = tuple(Seen(name, "arrays", f"{one.dtype} {one.shape}") for name, one in stored.items())
    chosen = npz(reader.path, x=x, y=y, num_classes=own, incomplete=reader.incomplete, group=group)
    contract = Contract(file, chosen, max(1, count // 2))
    return Proposal(contract, count, seen, (y,), tuple(notes), tuple(unsure))
