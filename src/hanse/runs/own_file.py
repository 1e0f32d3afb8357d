"""A party's own file, read as the data of a run that others have described."""

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
    """What a run's examples look like. All of it is names and shapes: how a file is read is its owner's word.

    Args:
      kind: what the run's own data are called; None: they were given in Python.
      is_table: whether the data are a table of columns.
      label, target: the columns to predict.
      unused: columns that are left out where there is no encoder.
      arrays: the names of features and labels in an .npz file.
      feature_shape, num_classes: of the examples that the model takes.
      classes: what the classes are called, if they have names.
      encoder: what makes numbers of a table's columns; None: they are numbers.
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
        """Take the names of columns from the settings of a run's data, and nothing else.

        Raises: InvalidInput: if they are no words.
        """
        kind = None if said.get(IN_PYTHON) else str(said.get("name"))
        target = said.get("target")
        target = tuple(target) if isinstance(target, list) else target
        targets = target if isinstance(target, tuple) else (target,)
        unused = (said.get("key"), *(said.get("drop") or ()))
        arrays = (said.get("x", "x"), said.get("y", "y")) if kind == "npz" else ("x", "y")
        names = (said.get("label"), *targets, *unused, *arrays)
        if not all(name is None or isinstance(name, str) for name in names):
            raise InvalidInput("the run names columns by something else than words")
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
    """Read the examples in a party's own file: an .npz, a CSV or Parquet file with the run's columns.

    All rows are taken; columns that the run does not use are left where they are.

    Args:
      path: of the file; or of a .toml file whose table `data` names it, and says how it is to be read.
      wanted: what the examples have to look like.
      reader: how a file of its kind is read; None: with the reader's defaults.

    Raises: InvalidInput: if it can't be read, or does not suit the run.
    """
    if Path(path).suffix == ".toml":
        reader = _read_described(path)
        path = reader.path
    if isinstance(reader, npz) or Path(path).suffix == ".npz":
        examples = _arrays(path, wanted, reader if isinstance(reader, npz) else None)
    elif wanted.is_table:
        examples = _rows(path, wanted, reader if isinstance(reader, Tabular) else None)
    else:
        raise InvalidInput(
            f"{path}: the run's data are {_describe_data(wanted.kind)}, no table of columns; "
            "give an .npz file with "
            f"an array x of rows of shape {wanted.feature_shape} and an array y"
        )
    return _check_suits(examples, wanted, path)


def _describe_data(kind: str | None) -> str:
    return "not described by a file" if kind is None else f"{kind}()"


def _read_described(path: str) -> Tabular | npz:
    """The reader that an owner's own settings file describes."""
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
        raise InvalidInput(f"{path} holds {', '.join(names) or 'nothing'}; arrays {x} and {y} are due")
    if len(found[x]) != len(found[y]):
        raise InvalidInput(f"{path}: {len(found[x])} rows of {x} and {len(found[y])} of {y}; give as many")
    labels = found[y]
    if labels.dtype.kind in "US":
        if not wanted.classes:
            raise InvalidInput(f"{path}: {y} holds words; the run's labels are numbers")
        labels = classes_of(to_categories(labels), wanted.classes, lambda row: f"{path}: {y}[{row}]")
    examples = Examples(found[x], labels)
    return examples if wanted.encoder is None else wanted.encoder(examples)


def _rows(path: str, wanted: Wanted, reader: Tabular | None) -> Examples:
    """Columns are of the kinds that the run says, whatever these few rows look like."""
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
    """The owner's way of reading, for the columns of the run. Raises: InvalidInput: if he predicts others."""
    kind = parquet if path.endswith(PARQUET) else csv
    reader = reader if isinstance(reader, kind) else kind(path)
    own, asked = {reader.label, *reader.targets} - {None}, {*wanted.predicted}
    if own and own != asked:
        raise InvalidInput(
            f"{path} is there to predict {', '.join(sorted(map(str, own)))}; the run wants "
            f"{', '.join(sorted(asked))}"
        )
    texts = () if wanted.encoder is None else wanted.encoder.schema.categories  # judged where the run began
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
            f"{path}: features are {examples.x.dtype}, and the run says of no column how it becomes numbers; "
            "only numbers are computed with for others"
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
