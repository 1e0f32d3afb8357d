"""A client's data contract: the file that its owner brings into runs, how it is read, and what may be used.

It is the owner's own file, `hanse.toml` in the client's folder. A plan is compared with it before the file is
opened, and supplies no path, no setting of a reader and no function.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hanse.config import WrongSetting, build, parse, to_plain
from hanse.core import InvalidInput, nearest
from hanse.data import Dataset, Tabular, npz
from hanse.network.protocol import Forbidden
from hanse.preprocessing import Encoder
from hanse.runs.conditions import Condition, read_conditions
from hanse.runs.own_file import read_description
from hanse.runs.wanted import Wanted

__all__ = ["CONTRACT", "Contract", "Difference"]

CONTRACT = "hanse.toml"
"""The name of the file in a client's folder."""

UNUSED: Mapping[str, str] = {
    "test": 'write test = "FILE" at the top of the file instead',
    "test_fraction": "write client_test_fraction at the top of the file instead",
    "validation": "leave it out: clients hold no validation examples",
    "validation_fraction": "leave it out: clients hold no validation examples",
    "key": "leave it out: all rows are this client's",
    "drop": "leave it out: columns that are in neither numeric nor categorical are not used",
}
"""Settings of a reader that would mean nothing for a client, and what to write instead."""


@dataclass(frozen=True)
class Difference:
    """A point in which a plan does not suit a contract.

    Args:
      wants: what the run wants.
      allows: what the contract allows.
      cure: what to write to allow it.
    """

    wants: str
    allows: str
    cure: str

    def __str__(self) -> str:
        return f"  {self.wants}; {self.allows}.\n    {self.cure}"


@dataclass(frozen=True)
class Contract:
    """The data that a client's owner lets runs use.

    Args:
      file: the TOML file that says so.
      reader: reads the owner's file. Its columns `numeric` and `categorical` are all that a run may use;
        `label` or `target`, `classes` and `group` are those of the runs that it may take part in.
      min_rows: with fewer rows the file is taken to be broken, and nothing is trained.
      test: a file of its own test examples; None: rows are held out as the run says.
      client_test_fraction: the share of rows that are held out; None: as the run says.
      where: conditions that rows have to pass.
    """

    file: Path
    reader: Tabular | npz
    min_rows: int = 1
    test: str | None = None
    client_test_fraction: float | None = None
    where: tuple[Condition, ...] = ()

    @classmethod
    def at(cls, folder: Path) -> "Contract | None":
        """Reads the contract in a client's folder; None: there is none.

        Raises: InvalidInput: naming the setting, or the line, and what to write instead.
        """
        file = folder / CONTRACT
        return cls.read(file) if file.exists() else None

    @classmethod
    def read(cls, file: Path) -> "Contract":
        """Reads a contract. Paths in it start at its folder. Raises: InvalidInput."""
        said = parse(file)
        known = ("data", *(field.name for field in fields(cls) if field.name not in ("file", "reader")))
        for name in said:
            if name not in known:
                raise InvalidInput(f"{file}: {name} is unknown; {nearest(name, known)}")
        reader = _read_reader(file, said.get("data"))
        test, fraction = said.get("test"), said.get("client_test_fraction")
        min_rows = said.get("min_rows", 1)
        if type(min_rows) is not int or min_rows < 1:
            raise InvalidInput(f"{file}: min_rows is {min_rows!r}; write a whole number from 1, such as 50")
        if test is not None and not isinstance(test, str):
            raise InvalidInput(f'{file}: test is {test!r}; write the path of a file: "..."')
        if fraction is not None and not (type(fraction) in (int, float) and 0 <= fraction < 1):
            raise InvalidInput(
                f"{file}: client_test_fraction is {fraction!r}; write a share from 0 up to 1, such as 0.2"
            )
        if test is not None and fraction:
            raise InvalidInput(f"{file}: test and client_test_fraction are two ways to test; write one")
        where = read_conditions(said.get("where", []), f"{file}: where")
        if isinstance(reader, Tabular):
            for one in where:
                if one.compares_numbers and one.column in (*reader.categorical, reader.label, reader.group):
                    raise InvalidInput(
                        f"{file}: where compares {one.column!r} with a number, but it holds categories; "
                        "write among = [...]"
                    )
        test = None if test is None else str(file.absolute().parent / test)
        fraction = None if fraction is None else float(fraction)
        return cls(file, reader, min_rows, test, fraction, where)

    def check_source(self, data: str | None, test: str | None) -> None:
        """Checks that files that were named on a command line are those of the contract.

        Args:
          data: a file, or a .toml file that describes one; None: none was named.
          test: a file of test examples; None: none was named.

        Raises: InvalidInput: if they are others. A client never changes to another file silently.
        """
        change = f"Edit {self.file}, or move it away to make another one from the file that you name"
        path, described = data, None
        if data is not None and data.endswith(".toml"):
            described = read_description(data)
            path = described.path
        if path is not None and Path(path).resolve() != Path(self.reader.path).resolve():
            raise InvalidInput(f"--data names {path}, but {self.file} names {self.reader.path}. {change}")
        for name, said in _list_changed(described).items() if described is not None else ():
            own = to_plain(self.reader).get(name)
            if name not in (*UNUSED, "path") and said != own:
                raise InvalidInput(
                    f"{data} says {name} = {_inline(said)}, but {self.file} does not. {change}"
                )
        if test is not None and (self.test is None or Path(test).resolve() != Path(self.test).resolve()):
            own_test = f"names {self.test}" if self.test else "names no test file"
            raise InvalidInput(f"--test names {test}, but {self.file} {own_test}. {change}")

    # -- comparison with a plan ----------------------------------------------------------------

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns that a run may use; None: the data are arrays."""
        own = self.reader
        return frozenset((*own.numeric, *own.categorical)) if isinstance(own, Tabular) else None

    def limit(self, wanted: Wanted) -> Wanted:
        """Limits what a run wants to the columns that it may use."""
        return replace(wanted, allowed=self.columns)

    def compare(self, wanted: Wanted) -> list[Difference]:
        """Compares what a run wants with what the contract allows. No data are opened."""
        if wanted.encoder is not None and not isinstance(wanted.encoder, Encoder):
            return [
                Difference(
                    f"the run encodes columns by {type(wanted.encoder).__name__}()",
                    "only an Encoder() turns columns into numbers here",
                    "Nothing allows that",
                )
            ]
        own = self.reader
        if isinstance(own, Tabular) != wanted.is_table:
            kinds = {True: "a table of columns", False: "arrays"}
            needed = 'name = "csv" or "parquet"' if wanted.is_table else 'name = "npz"'
            return [
                Difference(
                    f"the run uses {kinds[wanted.is_table]}",
                    f"the data here are {kinds[not wanted.is_table]}",
                    f"To take part with another file, write {needed} and its path into [data]",
                )
            ]
        if isinstance(own, npz):
            return list(_compare_arrays(own, wanted))
        return [*_compare_labels(own, wanted), *_compare_columns(own, wanted)]

    def check(self, wanted: Wanted) -> None:
        """Checks what a run wants. Raises: Forbidden: naming each difference, and what would allow it."""
        found = self.compare(wanted)
        if found:
            listed = "\n".join(map(str, found))
            raise Forbidden(f"the run does not suit {self.file}:\n{listed}")

    def check_size(self, num_rows: int) -> None:
        """Checks the number of the file's rows. Raises: InvalidInput: if its owner expects more."""
        if num_rows < self.min_rows:
            raise InvalidInput(
                f"{self.reader.path} has {num_rows} rows to use, and {self.file} wants {self.min_rows}: the "
                f"file may have been cut off. If it is right, write min_rows = {max(1, num_rows)}"
            )

    # -- writing -------------------------------------------------------------------------------

    def write(self) -> None:
        """Writes the contract for its owner alone, and replaces no file.

        Raises: FileExistsError.
        """
        number = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(number, "w", encoding="utf-8", newline="\n") as file:
            file.write("\n".join(self._lines()) + "\n")

    def _lines(self) -> Iterator[str]:
        yield from HEAD
        fraction, where = self.client_test_fraction, [one.to_settings() for one in self.where]
        yield from _align(
            [
                (f"min_rows = {self.min_rows}", "with fewer, the file is taken to be broken"),
                (
                    f"{_mute(self.test)}test = {json.dumps(self.test or 'test.csv', ensure_ascii=False)}",
                    "test examples in a file of their own",
                ),
                (
                    f"{_mute(fraction)}client_test_fraction = {fraction or 0.2}",
                    "rows held out for tests; else as the run says",
                ),
                (
                    f"{_mute(where)}where = {_inline(where or [{'column': 'age', 'at_least': 18}])}",
                    "the rows to use; also at_most, among, not_among",
                ),
            ]
        )
        yield from ("", "[data]")
        said = to_plain(self.reader)
        shown = {"name": said["name"], "path": said["path"], **_list_changed(self.reader)}
        order = [n for n in shown if n not in COMMENTS] + [n for n in COMMENTS if n in shown]
        yield from _align([(f"{name} = {_inline(shown[name])}", COMMENTS.get(name, "")) for name in order])


HEAD = (
    "# The data that this client brings into runs. Only its owner writes this file.",
    "# A run that wants anything else is refused before a file is opened, and the",
    "# refusal says what to write here to allow it. Paths start at this folder.",
    "",
)

COMMENTS = {
    "x": "the array of features",
    "y": "the array of labels",
    "num_classes": "labels are whole numbers below it",
    "label": "the column that a run may learn to predict",
    "target": "what a run may learn to predict",
    "classes": "its values at all parties: agree on them",
    "group": "rows of one group are held out together",
    "numeric": "columns of numbers that a run may use",
    "categorical": "columns of categories that a run may use",
}


def _list_changed(reader: Tabular | npz) -> dict[str, Any]:
    """Returns the settings of a reader that are not the defaults."""
    plain = to_plain(type(reader)(reader.path))
    return {name: said for name, said in to_plain(reader).items() if said != plain[name]}


def _mute(given: Any) -> str:
    return "" if given else "# "


def _inline(said: Any) -> str:
    if isinstance(said, dict):
        return "{" + ", ".join(f"{name} = {_inline(one)}" for name, one in said.items()) + "}"
    if isinstance(said, list | tuple):
        return "[" + ", ".join(map(_inline, said)) + "]"
    if isinstance(said, str | bool | int | float):
        return json.dumps(said, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(said)  # a day


def _align(lines: list[tuple[str, str]]) -> Iterator[str]:
    """Puts a comment after each setting, or above it where the line would be long."""
    short = [len(said) for said, about in lines if about and len(said) + len(about) <= 74]
    for said, about in lines:
        if not about:
            yield said
        elif max(short, default=0) + len(about) <= 74 and len(said) <= max(short, default=0):
            yield f"{said:<{max(short)}}   # {about}"
        else:
            yield from (f"# {about}:", said)


# -- reading -----------------------------------------------------------------------------------


def _read_reader(file: Path, said: Any) -> Tabular | npz:
    example = 'write [data] with name = "csv", path = "...", label = "..." and the columns'
    if not isinstance(said, dict):
        raise InvalidInput(f"{file} has no table [data]; {example}")
    for name, cure in UNUSED.items():
        if name in said:
            raise InvalidInput(f"{file}: data.{name} is not used by a client; {cure}")
    try:
        reader = build(Dataset, said, "data")
    except (WrongSetting, InvalidInput) as error:
        raise InvalidInput(f"{file}: {error}") from None
    if not isinstance(reader, Tabular | npz):
        raise InvalidInput(
            f'{file}: data is {type(reader).__name__}; a client reads a file of its own: write name = "csv", '
            '"parquet" or "npz"'
        )
    if isinstance(reader, Tabular):
        if reader.label is None and not reader.targets:
            raise InvalidInput(f"{file}: data names nothing to predict; write label = ... or target = ...")
        if not (*reader.numeric, *reader.categorical):
            raise InvalidInput(
                f"{file}: data allows no columns; list them in numeric = [...] and categorical = [...]"
            )
        roles = {*reader.predicted, reader.group} & {*reader.numeric, *reader.categorical}
        if roles:
            raise InvalidInput(f"{file}: column {min(map(str, roles))!r} has two roles; give it one")
    return replace(reader, path=str(file.absolute().parent / reader.path))


# -- comparison --------------------------------------------------------------------------------


def _list(names: Any) -> str:
    return json.dumps(list(names), ensure_ascii=False)


def _words(names: Any) -> str:
    found = [repr(name) for name in names]
    return ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "") or "nothing"


def _compare_arrays(own: npz, wanted: Wanted) -> Iterator[Difference]:
    if own.num_classes is not None and wanted.num_classes != own.num_classes:
        runs = "numbers" if wanted.num_classes is None else f"{wanted.num_classes} classes"
        cure = (
            "leave num_classes out" if wanted.num_classes is None else f"num_classes = {wanted.num_classes}"
        )
        yield Difference(
            f"the run learns {runs}", f"the labels here are {own.num_classes} classes", f"To allow it: {cure}"
        )
    yield from _compare_groups(own.group, wanted)


def _compare_groups(own: str | None, wanted: Wanted) -> Iterator[Difference]:
    if wanted.group is not None and wanted.group != own:
        yield Difference(
            f"the run holds out rows by the group {wanted.group!r}",
            f"the group here is {own!r}" if own else "no group is named here",
            f"To allow it: group = {json.dumps(wanted.group, ensure_ascii=False)}",
        )


def _compare_labels(own: Tabular, wanted: Wanted) -> Iterator[Difference]:
    ours = (own.label,) if own.label is not None else own.targets
    if {*wanted.predicted} != {*ours} or (wanted.label is None) != (own.label is None):
        option, said = ("label", wanted.label) if wanted.label is not None else ("target", wanted.target)
        form = _list(said) if isinstance(said, tuple) else json.dumps(said, ensure_ascii=False)
        yield Difference(
            f"the run predicts {_words(wanted.predicted)} ({option})",
            f"{_words(ours)} may be predicted here ({'label' if own.label is not None else 'target'})",
            f"To allow it: {option} = {form}" if said else "The run names nothing to predict",
        )
    elif own.label is not None and own.classes and {*own.classes} != {*wanted.names}:
        new = [name for name in own.classes if name not in wanted.names]
        also = f", if no row here is {_words(new)}; or let the coordinator add it to the run" if new else ""
        yield Difference(
            f"the run's classes of {own.label!r} are {_words(wanted.names)}",
            f"they are {_words(own.classes)} here",
            f"To allow it: classes = {_list(wanted.names)}{also}",
        )
    yield from _compare_groups(own.group, wanted)


def _compare_columns(own: Tabular, wanted: Wanted) -> Iterator[Difference]:
    if wanted.columns is None or wanted.encoder is None:
        return  # of a table without an encoder, the allowed columns are read and no others
    schema = wanted.encoder.schema
    for option, noun, names in (
        ("numeric", "numbers", schema.numbers),
        ("categorical", "categories", schema.categories),
    ):
        allowed, other = (
            (own.numeric, own.categorical) if option == "numeric" else (own.categorical, own.numeric)
        )
        unknown = [name for name in names if name not in (*allowed, *other)]
        if unknown:
            yield Difference(
                f"the run uses {'columns' if len(unknown) > 1 else 'the column'} {_words(unknown)} ({noun})",
                "not allowed here",
                f"To allow it: {option} = {_list((*allowed, *unknown))}",
            )
        turned = [name for name in names if name in other]
        if turned:
            theirs = "categories" if option == "numeric" else "numbers"
            rest = [name for name in other if name not in turned]
            yield Difference(
                f"the run reads {_words(turned)} as {noun}",
                f"they are {theirs} here",
                f"To allow it: {option} = {_list((*allowed, *turned))}"
                f" and {'categorical' if option == 'numeric' else 'numeric'} = {_list(rest)}",
            )
