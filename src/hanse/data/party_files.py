"""Tables of several parties in one place: a file for each, which is read in its own way."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hanse.core import Array, InvalidInput, value
from hanse.data.delimited import csv
from hanse.data.files import NeedsSetting
from hanse.data.labels import find_gaps
from hanse.data.tables import Rows, Tabular

__all__ = ["party_files"]

_OF_ALL = ("label", "target", "drop", "classes", "incomplete", "group", "numeric", "categorical")
_OF_ONE = ("key", "test", "validation")
_SHIFT = 40


@dataclass(frozen=True)
class _PartyRows(Rows):
    """Rows of several files; the upper bits of each of their `lines` are the number of the file."""

    files: tuple[str, ...] = ()

    def at(self, row: int) -> str:
        number, line = divmod(int(self.lines[row]), 1 << _SHIFT)
        return f"{self.files[number]}, {self.noun} {line}"


@value
class party_files(Tabular):
    """Tables of several parties, each in a file of its own, to try out what they will do together.

    All files have the same columns, in any order; `drop` leaves out columns that only some have. The names of
    the files' parties are the key: `by_key()` makes each a client.

    >>> from hanse.data import csv
    >>> files = {"north": csv("n.csv"), "west": csv("w.csv", decimal=",", delimiter=";")}
    >>> party_files("stays", parties=files, label="died").key
    'party'

    Args:
      path: the folder that the files are in.
      parties: how the file of each party is read, such as `csv("n.csv")`, by the party's name. What is
        predicted, left out and the like is said once, for all.
      label, target, drop, categorical, classes, test_fraction, numeric, incomplete, uninformative,
        validation_fraction, group: see `Tabular`.
      key: what the parties are called; no file may have such a column.
    Raises: InvalidInput: naming the file, the column, and what to write instead.
    """

    key: str = "party"
    parties: Mapping[str, Tabular] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parties:
            raise InvalidInput(
                'parties is empty; name a file for each, such as {north = {name = "csv", path = "n.csv"}}'
            )
        for name in ("test", "validation"):
            if getattr(self, name) is not None:
                raise InvalidInput(
                    f"party_files() takes no file for {name}; write {name}_fraction, or client_test_fraction "
                    "beside [data], to hold out rows of each party"
                )
        for name, reader in self.parties.items():
            if isinstance(reader, party_files):
                raise InvalidInput(f"parties: {name} names files of several parties; name one file")
            plain = type(reader)(reader.path)
            for option in (*_OF_ALL, *_OF_ONE):
                if getattr(reader, option) != getattr(plain, option):
                    cure = "leave it out" if option in _OF_ONE else "write it beside parties, for all of them"
                    raise InvalidInput(f"parties: {name} has a setting {option} of its own; {cure}")

    def reader(self, party: str) -> Tabular:
        """Returns the reader of a party's file, with the settings of all."""
        own = self.parties[party]
        said = {option: getattr(self, option) for option in _OF_ALL}
        return replace(own, path=str(Path(self.path) / own.path), **said)

    def rows(self, path: str, like: Rows | None) -> Rows:
        """Reads the files of all parties."""
        readers = {name: self.reader(name) for name in self.parties}
        found = {name: reader.rows(reader.path, like) for name, reader in readers.items()}
        kinds = self._decide_kinds(found)
        for name, rows in found.items():
            if any(rows.columns[column].dtype.kind != kinds[column].dtype.kind for column in kinds):
                due = Rows(rows.file, {**rows.columns, **kinds}, rows.lines)
                found[name] = readers[name].rows(rows.file, due)
        columns = {name: np.concatenate([rows.columns[name] for rows in found.values()]) for name in kinds}
        sizes = [len(rows) for rows in found.values()]
        unused = {name for rows in found.values() for name in rows.columns if name in self.drop}
        columns |= {name: np.broadcast_to(np.nan, sum(sizes)) for name in unused}
        columns[self.key] = np.repeat(np.array([*found], str), sizes)
        lines = [rows.lines + (number << _SHIFT) for number, rows in enumerate(found.values())]
        files = tuple(rows.file for rows in found.values())
        noun = next(iter(found.values())).noun
        return _PartyRows(self.path, columns, np.concatenate(lines), noun, files)

    def _decide_kinds(self, found: Mapping[str, Rows]) -> dict[str, Array]:
        """Decides whether each column that all have holds numbers or text. Raises: InvalidInput."""
        every = dict.fromkeys(name for rows in found.values() for name in rows.columns)
        kinds = {}
        for name in every:
            have = {party: rows for party, rows in found.items() if name in rows.columns}
            lack = [rows.file for party, rows in found.items() if party not in have]
            if name == self.key:
                raise InvalidInput(
                    f"{next(iter(have.values())).file} has a column {name!r}, which names the parties here; "
                    'write key = "..." with another name'
                )
            if name in self.drop:
                continue
            if lack:
                why = f"{lack[0]} has no column {name!r}, which {next(iter(have.values())).file} has"
                if name in (*self.predicted, self.group):
                    raise InvalidInput(f"{why}; give this column the same name in all files")
                raise NeedsSetting(
                    f"{why}; write {self.say('drop', name)}, or give the column the same name in all files",
                    drop=(*self.drop, name),
                )
            by_text: dict[bool, str] = {}
            for rows in have.values():
                column = rows.columns[name]
                if not find_gaps(column).all():
                    by_text.setdefault(column.dtype.kind == "U", rows.file)
            if len(by_text) > 1 and name not in self.predicted:
                raise self._explain_kinds(name, by_text)
            kinds[name] = np.zeros(0, "U1" if by_text.get(True) else float)
        return kinds

    def _explain_kinds(self, name: str, by_text: Mapping[bool, str]) -> InvalidInput:
        """Explains that a column holds words in one file and numbers in another."""
        why = f"column {name!r} holds words in {by_text[True]} and numbers in {by_text[False]}; write"
        cures = [f"{self.say('categorical', name)} if they are categories"]
        options = {"categorical": (*self.categorical, name), "drop": (*self.drop, name)}
        if any(name in reader.dates for reader in self.parties.values() if isinstance(reader, csv)):
            cures, options = [], {"drop": options["drop"]}
        cures += [self.say("drop", name), "mend one of the files"]
        first = next(iter(options))
        return NeedsSetting(f"{why} {', or '.join(cures)}", **{first: options[first]})
