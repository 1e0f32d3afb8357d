"""A proposal for a client's data contract: what is found in a file, and what to let runs use of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hanse.config import (
    find_label,
    guess,
    guess_reader,
    has_label_name,
    is_unsettled,
    list_labels,
    seems_to_identify,
)
from hanse.core import Array, InvalidInput, nearest
from hanse.data import Tabular, csv, find_gaps, names_places, npz, parquet, to_categories
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
    path, unread = reader.path, reader.drop
    rows = reader.rows(path, None)
    columns = {name: column for name, column in rows.columns.items() if name not in unread}
    if not len(rows):
        raise InvalidInput(f"{path} holds column names and no rows; give at least 1")
    if not columns:
        raise InvalidInput(f"{path} has no column that can be read; see its first lines")
    wanted = wanted if wanted is not None and wanted.is_table else None
    named = label or reader.label or (reader.targets[0] if len(reader.targets) == 1 else None)
    if wanted is not None:
        _check_has_all(path, rows.columns, wanted)
        predicted, is_class = wanted.predicted, wanted.label is not None
    elif reader.targets and label is None:
        predicted, is_class = reader.targets, False
    else:
        chosen = named or find_label(columns)
        if chosen not in columns:
            raise InvalidInput(f"{path} has no column {chosen!r} for label; {nearest(chosen, columns)}")
        predicted = (chosen,)
        is_class = (
            reader.label == chosen or columns[chosen].dtype.kind == "U" or chosen in list_labels(columns)
        )
    roles: dict[str, Any] = {"label": None, "target": None, "classes": (), "group": None}
    notes, unsure = [*_note_guesses(guesses, unread)], [*_settle_guesses(guesses)]
    if is_class:
        roles |= {"label": predicted[0]}
        words = to_categories(columns[predicted[0]])
        own = tuple(sorted({*words.tolist()} - {""}))
        roles["classes"] = _choose_classes(path, predicted[0], own, reader.classes, wanted)
        lone = f"column {predicted[0]!r} holds one class only, {own[0]!r}" if len(own) == 1 else ""
        if lone and wanted is None:
            unsure.append(f"{lone}, so nothing can be learned: name another column with --label COLUMN")
        elif lone:
            notes.append(f"{lone}; the run knows {', '.join(map(repr, roles['classes'][:6]))}")
    else:
        roles |= {"target": predicted[0] if len(predicted) == 1 else tuple(predicted)}
    if wanted is None and named is None and not has_label_name(predicted[0]):
        unsure.append(f"nothing says that {predicted[0]!r} is the column to predict: write --label COLUMN")
    group = wanted.group if wanted is not None and wanted.group is not None else reader.group
    roles["group"] = group
    seen = tuple(_see(name, column) for name, column in columns.items())
    odd = {one.name for one in seen if one.is_odd and one.name not in (*reader.numeric, *reader.categorical)}
    features = [n for n in columns if n not in (*predicted, group)]
    is_text = {name: columns[name].dtype.kind == "U" for name in features}
    if wanted is not None and wanted.columns is not None and wanted.encoder is not None:
        features = [name for name in wanted.columns if name in columns]
        is_text = {name: name in wanted.encoder.schema.categories for name in features}
    notes += [
        f"column {n!r} seems to identify rows or places, so no run may use it" for n in features if n in odd
    ]
    for name in predicted:
        gaps = int(np.count_nonzero(find_gaps(columns[name])))
        if gaps:
            notes.append(f"column {name!r} is empty in {gaps} of {len(rows)} rows")
    kept = [name for name in features if name not in odd]
    by_kind: dict[str, Any] = {
        option: tuple(name for name in kept if is_text[name] == text)
        for option, text in (("numeric", False), ("categorical", True))
    }
    if isinstance(reader, csv):  # a run that knows them as words reads them as words
        reader = replace(
            reader, dates={n: f for n, f in reader.dates.items() if n not in by_kind["categorical"]}
        )
    chosen_reader = replace(
        reader,
        **roles,
        **by_kind,
        key=None,
        drop=(),
        test=None,
        test_fraction=0.2,
        validation=None,
        validation_fraction=0.0,
    )
    contract = Contract(file, chosen_reader, max(1, len(rows) // 2))
    return Proposal(contract, len(rows), seen, tuple(list_labels(columns)), tuple(notes), tuple(unsure))


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


def _choose_classes(
    path: str, label: str, own: tuple[str, ...], said: tuple[str, ...], wanted: Wanted | None
) -> tuple[str, ...]:
    """Chooses the classes: those that the owner said, or those of the run, or else those of the file.

    Raises: InvalidInput: if the file holds a class that the run does not know.
    """
    new = [] if wanted is None else [word for word in own if word not in wanted.names]
    if wanted is not None and new:
        raise InvalidInput(
            f"{path}: column {label!r} holds {new[0]!r}, which is not a class of {wanted.whose}; write one "
            f"of {', '.join(map(repr, wanted.names[:6]))}"
        )
    return said or (own if wanted is None else wanted.names)


def _note_guesses(guesses: Sequence[tuple[str, object, str]], unread: Sequence[str]) -> Iterator[str]:
    for name, said, comment in guesses:
        if name not in ("drop", "missing") and not is_unsettled((name, said, comment)):
            yield f"the file is read with {name} = {said!r}" + (f", {comment}" if comment else "")
    if unread:
        yield f"could not be read as numbers, so no run may use: {', '.join(map(repr, unread))}"


def _settle_guesses(guesses: Sequence[tuple[str, object, str]]) -> Iterator[str]:
    for name, said, comment in guesses:
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
