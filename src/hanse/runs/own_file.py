"""Reading a party's own file as the data of a run that others have described."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hanse.config import IN_PYTHON, WrongSetting, build
from hanse.core import Examples, InvalidInput
from hanse.core.exchange import find_classes
from hanse.data import Dataset, Rows, Tabular, assemble, classes_of, csv, npz, parquet, to_categories
from hanse.preprocessing import Encoder

__all__ = ["Wanted", "read_examples"]

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Wanted:
    """The form of a run's examples, in names and shapes only: the owner of a file says how it is read.

    Args:
      kind: the name of the run's own data; None: they were given in Python.
      is_table: whether the data are a table of columns.
      label, target: the columns to predict.
      unused: columns that are left out where there is no encoder.
      arrays: the names of features and labels in an .npz file.
      feature_shape, num_classes: the form of the examples that the model takes.
      classes: the names of the classes, if they have names.
      encoder: turns a table's columns into numbers; None: they are numbers.
    """

    kind: str | None
    is_table: bool
    feature_shape: tuple[int, ...]
    num_classes: int | None
    classes: tuple[str, ...] = ()
    encoder: Encoder | None = None
    label: str | None = None
    target: str | tuple[str, ...] | None = None
    unused: frozenset[str] = frozenset()
    arrays: tuple[str, str] = ("x", "y")

    @classmethod
    def of(
        cls,
        said: Mapping[str, Any],
        feature_shape: tuple[int, ...],
        num_classes: int | None,
        classes: tuple[str, ...],
        encoder: Encoder | None,
    ) -> "Wanted":
        """Takes the names of columns from the settings of a run's data, and nothing else.

        Raises: InvalidInput: if a name is not a string.
        """
        kind = None if said.get(IN_PYTHON) else str(said.get("name"))
        target = said.get("target")
        target = tuple(target) if isinstance(target, list) else target
        targets = target if isinstance(target, tuple) else (target,)
        unused = (said.get("key"), *(said.get("drop") or ()))
        arrays = (said.get("x", "x"), said.get("y", "y")) if kind == "npz" else ("x", "y")
        names = (said.get("label"), *targets, *unused, *arrays)
        if not all(name is None or isinstance(name, str) for name in names):
            raise InvalidInput("the run names columns by something other than strings")
        return cls(
            kind,
            kind in find_classes(Tabular),
            tuple(feature_shape),
            num_classes,
            tuple(classes),
            encoder,
            label=said.get("label"),
            target=target,
            unused=frozenset(name for name in unused if name is not None),
            arrays=arrays,
        )

    @property
    def predicted(self) -> tuple[str, ...]:
        """The columns to predict."""
        targets = (self.target,) if isinstance(self.target, str) else self.target or ()
        return (*(() if self.label is None else (self.label,)), *targets)


def read_examples(path: str, wanted: Wanted, reader: Dataset | None = None) -> Examples:
    """Reads the examples in a party's own file: an .npz, a CSV or Parquet file with the run's columns.

    All rows are taken; columns that the run does not use are left where they are.

    Args:
      path: of the file; or of a .toml file whose table `data` names it, and says how it is read.
      wanted: the form that the examples must have.
      reader: reads files of this kind; None: the reader with its defaults.

    Raises: InvalidInput: if it can't be read, or does not suit the run.
    """
    if Path(path).suffix == ".toml":
        reader = _read_description(path)
        path = reader.path
    if isinstance(reader, npz) or Path(path).suffix == ".npz":
        examples = _arrays(path, wanted, reader if isinstance(reader, npz) else None)
    elif wanted.is_table:
        examples = _rows(path, wanted, reader if isinstance(reader, Tabular) else None)
    else:
        raise InvalidInput(
            f"{path}: the run's data are {_describe_data(wanted.kind)}, not a table of columns; give an "
            f".npz file with an array x of rows of shape {wanted.feature_shape} and an array y"
        )
    return _check_suits(examples, wanted, path)


def _describe_data(kind: str | None) -> str:
    return "not described by a file" if kind is None else f"{kind}()"


def _read_description(path: str) -> Tabular | npz:
    """Makes the reader that an owner's own settings file describes."""
    try:
        said = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("data")
        reader = build(Dataset, said, "data")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, WrongSetting) as error:
        raise InvalidInput(f"{path}: {error}") from None
    if not isinstance(reader, Tabular | npz):
        raise InvalidInput(
            f'{path}: data is {type(reader).__name__}; a client reads a file of its own: write name = "csv", '
            '"parquet" or "npz"'
        )
    return reader


def _arrays(path: str, wanted: Wanted, reader: npz | None) -> Examples:
    x, y = wanted.arrays if reader is None else (reader.x, reader.y)
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files if name in (x, y)}
            names = stored.files
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} can't be read: {error}") from None
    if found.keys() != {x, y}:
        raise InvalidInput(f"{path} holds {', '.join(names) or 'nothing'}; arrays {x} and {y} are needed")
    if len(found[x]) != len(found[y]):
        raise InvalidInput(f"{path}: {len(found[x])} rows of {x} and {len(found[y])} of {y}; give as many")
    labels = found[y]
    if labels.dtype.kind in "US":
        if not wanted.classes:
            raise InvalidInput(f"{path}: {y} holds words, but the run's labels are numbers")
        labels = classes_of(to_categories(labels), wanted.classes, lambda row: f"{path}: {y}[{row}]")
    examples = Examples(found[x], labels)
    return examples if wanted.encoder is None else wanted.encoder(examples)


def _rows(path: str, wanted: Wanted, reader: Tabular | None) -> Examples:
    """Reads a table; its columns are of the kinds that the run names, whatever these few rows look like."""
    like, schema = None, None if wanted.encoder is None else wanted.encoder.schema
    if schema is not None:
        kinds = dict.fromkeys(schema.numbers, np.zeros(0)) | dict.fromkeys(
            schema.categories, np.zeros(0, "U1")
        )
        like = Rows(path, kinds, np.zeros(0, np.int64))
    reader = _for_run(path, wanted, reader)
    rows = reader.rows(path, like)
    roles = wanted.predicted
    due = (
        [name for name in rows.columns if name not in wanted.unused]
        if schema is None
        else [*schema.numbers, *schema.categories]
    )
    missing = [name for name in (*roles, *due) if name not in rows.columns]
    if missing:
        raise InvalidInput(
            f"{path} has no column {missing[0]!r}; the run wants {', '.join(dict.fromkeys((*roles, *due)))}"
        )
    columns = {name: column for name, column in rows.columns.items() if name in (*roles, *due)}
    found = assemble(reader, replace(rows, columns=columns), None).train
    return found if wanted.encoder is None else wanted.encoder(found)


def _for_run(path: str, wanted: Wanted, reader: Tabular | None) -> Tabular:
    """Adapts the owner's reader to the run's columns. Raises: InvalidInput: if it predicts other columns."""
    kind = parquet if path.endswith(PARQUET) else csv
    reader = reader if isinstance(reader, kind) else kind(path)
    own, asked = {reader.label, *reader.targets} - {None}, {*wanted.predicted}
    if own and own != asked:
        raise InvalidInput(
            f"{path} is read to predict {', '.join(sorted(map(str, own)))}; the run wants "
            f"{', '.join(sorted(asked))}"
        )
    texts = () if wanted.encoder is None else wanted.encoder.schema.categories  # decided where the run began
    if isinstance(reader, csv):
        reader = replace(reader, numeric=())
    return replace(
        reader,
        label=wanted.label,
        target=wanted.target,
        key=None,
        drop=(),
        categorical=texts,
        classes=wanted.classes,
        test=None,
        test_fraction=0.0,
    )


def _check_suits(examples: Examples, wanted: Wanted, path: str) -> Examples:
    if examples.x.dtype.kind not in "fiub":
        raise InvalidInput(
            f"{path}: features are {examples.x.dtype}, but the run has no encoder that turns columns into "
            "numbers; give features that are numbers"
        )
    shape = tuple(examples.x.shape[1:])
    if shape != wanted.feature_shape:
        raise InvalidInput(f"{path}: rows of x have shape {shape}; the run wants {wanted.feature_shape}")
    if wanted.num_classes is not None:
        y = examples.y
        if y.dtype.kind not in "iu" or not np.all((y >= 0) & (y < wanted.num_classes)):
            raise InvalidInput(
                f"{path}: y is {y.dtype}; the run wants whole numbers from 0 to {wanted.num_classes - 1}"
            )
    return examples
