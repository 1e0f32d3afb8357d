"""A party's own file, read as the data of a run that others have described."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hanse.algorithms.preprocessing import Encoder
from hanse.core.errors import InvalidInput
from hanse.core.learner import Examples
from hanse.data import Dataset, Tabular, csv, npz, parquet
from hanse.data.tables import Rows, assembled

__all__ = ["Wanted", "opened"]

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Wanted:
    """What a run's examples look like.

    Args:
      data: how the run's own data are read, as far as a file describes them.
      feature_shape, num_classes: of the examples that the model takes.
      classes: what the classes are called, if they have names.
      encoder: what makes numbers of a table's columns; None: they are numbers.
    """

    data: Dataset | None
    feature_shape: tuple[int, ...]
    num_classes: int | None
    classes: tuple[str, ...] = ()
    encoder: Encoder | None = None


def opened(path: str, wanted: Wanted) -> Examples:
    """The examples in a party's own file: an .npz, or a CSV or Parquet file with the run's columns.

    All rows are taken; columns that the run does not use are left where they are.

    Raises: InvalidInput: if it can't be read, or does not suit the run.
    """
    if Path(path).suffix == ".npz":
        examples = _arrays(path, wanted)
    elif isinstance(wanted.data, Tabular):
        examples = _rows(path, wanted.data, wanted)
    else:
        raise InvalidInput(
            f"{path}: the run's data are {_called(wanted.data)}, no table of columns; give an .npz file with "
            f"an array x of rows of shape {wanted.feature_shape} and an array y"
        )
    return _suited(examples, wanted, path)


def _called(data: Dataset | None) -> str:
    return "not described by a file" if data is None else f"{type(data).__name__}()"


def _arrays(path: str, wanted: Wanted) -> Examples:
    x, y = (wanted.data.x, wanted.data.y) if isinstance(wanted.data, npz) else ("x", "y")
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} can't be read: {error}") from None
    if found.keys() < {x, y}:
        raise InvalidInput(f"{path} holds {', '.join(found) or 'nothing'}; arrays {x} and {y} are due")
    if len(found[x]) != len(found[y]):
        raise InvalidInput(f"{path}: {len(found[x])} rows of {x} and {len(found[y])} of {y}; give as many")
    examples = Examples(found[x], found[y])
    return examples if wanted.encoder is None else wanted.encoder(examples)


def _rows(path: str, data: Tabular, wanted: Wanted) -> Examples:
    """Columns are of the kinds that the run says, whatever these few rows look like."""
    like, schema = None, None if wanted.encoder is None else wanted.encoder.schema
    if schema is not None:
        kinds = dict.fromkeys(schema.numbers, np.zeros(0)) | dict.fromkeys(schema.texts, np.zeros(0, "U1"))
        like = Rows(path, kinds, np.zeros(0, np.int64))
    reader = _reader(path, data)
    rows = reader.rows(path, like)
    roles = [name for name in (data.label, *data.targets) if name is not None]
    unused = {data.key, *data.drop}
    due = [n for n in rows.columns if n not in unused] if schema is None else [*schema.numbers, *schema.texts]
    missing = [name for name in (*roles, *due) if name not in rows.columns]
    if missing:
        raise InvalidInput(
            f"{path} has no column {missing[0]!r}; the run wants {', '.join(dict.fromkeys((*roles, *due)))}"
        )
    columns = {name: column for name, column in rows.columns.items() if name in (*roles, *due)}
    texts = () if schema is None else schema.texts  # which were judged where the run began
    what = replace(
        reader, key=None, drop=(), categorical=texts, classes=wanted.classes, test=None, test_fraction=0.0
    )
    found = assembled(what, replace(rows, columns=columns), None).train
    return found if wanted.encoder is None else wanted.encoder(found)


def _reader(path: str, data: Tabular) -> Tabular:
    """The run's way of reading, for a file of this name: a CSV may stand in for Parquet, and vice versa."""
    if isinstance(data, csv) and not path.endswith(PARQUET):
        return replace(data, path=path, numeric=())
    if isinstance(data, parquet) and path.endswith(PARQUET):
        return replace(data, path=path)
    kind = parquet if path.endswith(PARQUET) else csv
    named = ("label", "target", "key", "drop", "categorical", "classes")
    return kind(path, **{name: getattr(data, name) for name in named})


def _suited(examples: Examples, wanted: Wanted, path: str) -> Examples:
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
