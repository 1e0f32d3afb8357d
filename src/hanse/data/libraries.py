"""Data sets of other libraries, where these are installed."""

from dataclasses import KW_ONLY, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hanse.core import Array, Examples, InvalidInput, nearest, value
from hanse.data.checks import check_test_fraction
from hanse.data.datasets import Dataset, TrainTest, hold_out
from hanse.data.files import extra
from hanse.data.parquet import rows_of
from hanse.data.tables import Rows, Tabular

__all__ = ["hugging_face", "scikit_learn"]


@value
class scikit_learn(Dataset):
    """A data set that comes with scikit-learn. Needs the extra "sklearn".

    >>> scikit_learn("wine").load().classes
    ('class_0', 'class_1', 'class_2')

    Args:
      which: "iris", "wine", "breast_cancer" and "digits" have classes, "diabetes" a number to predict.
      test_fraction: of the examples, held out at random, the same in every run.
    Raises: InvalidInput: if scikit-learn is not installed.
    """

    which: Literal["iris", "wine", "breast_cancer", "digits", "diabetes"] = "iris"
    _: KW_ONLY
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        known = ("iris", "wine", "breast_cancer", "digits", "diabetes")
        if self.which not in known:
            raise InvalidInput(f"which is {self.which!r}; {nearest(self.which, known)}")
        check_test_fraction(self.test_fraction)

    def load(self) -> TrainTest:
        """Loads the data set from scikit-learn."""
        bunch = getattr(extra("sklearn.datasets", "sklearn", "scikit_learn()"), f"load_{self.which}")()
        classes = tuple(str(name) for name in bunch.get("target_names", ()))
        data = TrainTest(Examples(bunch.data, bunch.target), None, len(classes) or None, classes=classes)
        return hold_out(data, self.test_fraction, self.which)


@value
class hugging_face(Tabular):
    """A data set of the Hugging Face hub, or of a folder that `save_to_disk` wrote. Needs the extra
    "huggingface".

    A single column of images or of lists of numbers gives features of its shape (bytes scaled to [0, 1],
    as float32); columns of numbers and text give a table.

    >>> hugging_face("ylecun/mnist", label="label", test="test").train
    'train'

    Args:
      path: "owner/name" on the hub, or a folder.
      label, target, key, drop, categorical, classes, test_fraction, numeric, incomplete,
        uninformative: see `Tabular`.
      test: the split of test examples; without it, some are held out.
      train: the split to train on.
      subset: the data set's configuration, where it has several.
    Raises: InvalidInput: if the library is not installed, or has no such data set, split or column.
    """

    _: KW_ONLY
    train: str = "train"
    subset: str | None = None

    def load(self) -> TrainTest:
        """Loads the data set from the library, which downloads it the first time."""
        names = getattr(self._split(self.train).features.get(self.label), "names", None)
        if names is None or self.classes:
            return super().load()
        return replace(self, classes=tuple(names)).load()

    def rows(self, path: str, like: Rows | None) -> Rows:
        """Reads a split."""
        split = self._split(self.train if like is None else path)
        flat = [name for name, kind in split.features.items() if not _is_image(kind) or name in self.drop]
        what = f"{self.path} ({split.split})"
        rows = rows_of(split.with_format("arrow").select_columns(flat)[:], what, self, like)
        images = {name: _images(split, name, what) for name in split.features if name not in flat}
        named = {
            name: _name_classes(rows.columns[name], kind, f"{what}: column {name!r}")
            for name, kind in split.features.items()
            if name in rows.columns
        }
        found = named | images
        return replace(rows, columns={name: found[name] for name in split.features if name in found})

    def _split(self, name: str) -> Any:
        library = extra("datasets", "huggingface", "hugging_face()")
        try:
            if Path(self.path).is_dir() and (Path(self.path) / "dataset_dict.json").is_file():
                splits = library.load_from_disk(self.path)
            else:
                splits = library.load_dataset(self.path, self.subset)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"no data set {self.path!r}: {error}") from error
        if name not in splits:
            raise InvalidInput(f"{self.path} has no split {name!r}; {nearest(name, splits)}")
        return splits[name]


def _is_image(kind: Any) -> bool:
    return type(kind).__name__ == "Image"


def _images(split: Any, name: str, whose: str) -> Array:
    """Reads images as float32 in [0, 1], (n, height, width) or (n, height, width, colours)."""
    images = [np.asarray(image) for image in split[name]]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise InvalidInput(
            f"{whose}: column {name!r} holds images of {len(shapes)} sizes, such as {min(shapes)} and "
            f"{max(shapes)}; resize them to one size first"
        )
    return np.stack(images) / np.float32(255)


def _name_classes(column: Array, kind: Any, whose: str) -> Array:
    """Replaces classes by their names, and -1, which means that there is none, by an empty string."""
    names = getattr(kind, "names", None)
    if names is None or column.ndim > 1:
        return column
    numbers = np.where(column == "", "-1", column) if column.dtype.kind == "U" else column
    numbers = np.nan_to_num(numbers.astype(np.float64), nan=-1)
    wrong = (numbers < -1) | (numbers >= len(names)) | (numbers % 1 != 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInput(
            f"{whose}, row {row + 1} is {numbers[row]:g}; its {len(names)} classes are the numbers 0 to "
            f"{len(names) - 1}, and -1 where there is none"
        )
    return np.array([*names, ""])[numbers.astype(np.int64)]
