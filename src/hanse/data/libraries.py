"""Data sets of other libraries, where these are installed."""

from dataclasses import KW_ONLY, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hanse.core import Array, Examples, InvalidInput, nearest, value
from hanse.data.checks import check_fractions
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
      validation_fraction: of the examples, held out to choose by: then `stop` and sweeps watch these.
    Raises: InvalidInput: if scikit-learn is not installed.
    """

    which: Literal["iris", "wine", "breast_cancer", "digits", "diabetes"] = "iris"
    _: KW_ONLY
    test_fraction: float = 0.2
    validation_fraction: float = 0.0

    def __post_init__(self) -> None:
        known = ("iris", "wine", "breast_cancer", "digits", "diabetes")
        if self.which not in known:
            raise InvalidInput(f"which is {self.which!r}; {nearest(self.which, known)}")
        check_fractions(self.test_fraction, self.validation_fraction)

    def load(self) -> TrainTest:
        """Loads the data set from scikit-learn."""
        bunch = getattr(extra("sklearn.datasets", "sklearn", "scikit_learn()"), f"load_{self.which}")()
        classes = tuple(str(name) for name in bunch.get("target_names", ()))
        data = TrainTest(Examples(bunch.data, bunch.target), None, len(classes) or None, classes=classes)
        return hold_out(data, self.test_fraction, self.which, self.validation_fraction)


@value
class hugging_face(Tabular):
    """A data set of the Hugging Face hub, or of a folder that `save_to_disk` wrote. Needs the extra
    "huggingface".

    A single column of images or of lists of numbers gives features of its shape; columns of numbers and text
    give a table. Images are float32, black as 0 and white as 1: grey, of 1, 8 or 16 bits, (height, width);
    coloured, also by a palette, (height, width, colours). Images of floats keep their numbers.

    >>> hugging_face("ylecun/mnist", label="label", test="test").train
    'train'

    Args:
      path: "owner/name" on the hub, or a folder.
      label, target, key, drop, categorical, classes, test_fraction, numeric, incomplete,
        uninformative, validation_fraction, group: see `Tabular`.
      test: the split of test examples; without it, some are held out.
      validation: the split of examples to choose by.
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
        split_name = self.train if like is None else path
        split = self._split(split_name)
        flat = [name for name, kind in split.features.items() if not _is_image(kind) or name in self.drop]
        what = f"{self.path} ({split_name})"
        rows = rows_of(split.with_format("arrow").select_columns(flat)[:], what, self, like)
        images = {name: _images(split, name, what) for name in split.features if name not in flat}
        named = {
            name: _name_classes(rows.columns[name], kind, name, what)
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


SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images whose white is 65535."""


def _images(split: Any, name: str, whose: str) -> Array:
    """Reads images as float32, (n, height, width) or (n, height, width, colours)."""
    found = list[Array]()
    images = iter(split[name])
    for row in range(1, len(split) + 1):
        where = f"{whose}, row {row}: column {name!r}"
        try:
            image = next(images)
        except OSError as error:  # Pillow's errors, too
            raise InvalidInput(f"{where} holds no image that can be read ({error}); leave it out") from error
        if image is None:
            raise InvalidInput(f"{where} is empty; fill it in, or leave this row out")
        found.append(_pixels(image, where))
        if found[-1].shape != found[0].shape:
            raise InvalidInput(
                f"{where} holds an image of shape {found[-1].shape}, row 1 one of {found[0].shape}; bring "
                'all to one size and one mode first, such as image.convert("RGB").resize((32, 32))'
            )
    return np.stack(found)


def _pixels(image: Any, where: str) -> Array:
    """Returns the brightness of an image of Pillow, black as 0 and white as 1; keeps floats as they are."""
    if image.mode in ("P", "PA"):  # numbers of colours
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        white = 255
    elif image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format == "PNG"):  # Pillow before 11
        white = 65535
    elif image.mode == "F":
        white = 1
    else:
        raise InvalidInput(
            f"{where} holds an image of mode {image.mode!r}, whose numbers are no brightness from black to "
            'white; convert it first, such as image.convert("RGB")'
        )
    return np.asarray(np.asarray(image).astype(np.float32) / np.float32(white))


def _name_classes(column: Array, kind: Any, name: str, whose: str) -> Array:
    """Replaces classes by their names; where there is none, which is null or -1, by an empty string.

    Raises: InvalidInput: at other numbers, such as the -100 of labels that a loss should ignore.
    """
    names = getattr(kind, "names", None)
    if names is None or column.ndim > 1:
        return column
    numbers = np.where(column == "", "-1", column) if column.dtype.kind == "U" else column
    numbers = numbers.astype(np.float64)
    numbers = np.where(np.isnan(numbers), -1, numbers)
    wrong = (numbers < -1) | (numbers >= len(names)) | (numbers % 1 != 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInput(
            f"{whose}, row {row + 1}: column {name!r} is {numbers[row]:g}; its {len(names)} classes are "
            f"the integers 0 to {len(names) - 1}, and -1 for none: correct it, or leave the "
            f"{np.count_nonzero(wrong)} such rows out"
        )
    return np.array([*names, ""])[numbers.astype(np.int64)]
