"""Requirements of networks on examples, and their metrics, on any engine."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Prediction
from hanse.learners.losses import cross_entropy

__all__ = [
    "Anything",
    "Characters",
    "Classes",
    "Features",
    "Labels",
    "Numbers",
    "Reals",
    "Text",
    "check_predictions",
    "check_rows",
    "check_some",
    "convert_examples",
    "convert_flat",
]


class Features(ABC):
    """A requirement on rows of features."""

    shape: tuple[int, ...]

    @abstractmethod
    def convert(self, x: Array) -> Array:
        """Returns features as the engine takes them. Raises: InvalidInput: if they can't be used."""


@dataclass(frozen=True)
class Reals(Features):
    """Features that are finite numbers.

    Args:
      shape: of one row.
      dtype: that they are converted to.
      keep_integers: whether integers stay integers, to be looked up in an embedding.
    """

    shape: tuple[int, ...]
    dtype: str
    keep_integers: bool = False

    def convert(self, x: Array) -> Array:
        """Converts features and keeps their shape."""
        if x.shape[1:] != self.shape:
            raise InvalidInput(
                f"examples of {math.prod(x.shape[1:])} features (shape {x.shape[1:]}); the model was bound "
                f"to {self.shape}: bind it with feature_shape={x.shape[1:]}"
            )
        if self.keep_integers and x.dtype.kind in "iu":
            return x.astype(np.int64, copy=False)
        x = x.astype(self.dtype, copy=False)
        check_finite(x, "feature")
        return x


@dataclass(frozen=True)
class Text(Features):
    """Features that are characters, as integers.

    Args:
      shape: (length,).
      num_characters: they are numbered from 0 to this, exclusive.
    """

    shape: tuple[int, ...]
    num_characters: int

    def convert(self, x: Array) -> Array:
        """Returns (n, length) integers."""
        return _characters(x, "feature", self.shape, self.num_characters)


class Labels(ABC):
    """A requirement on labels, and the metrics that are summed over examples."""

    metrics: ClassVar[tuple[str, ...]]
    prediction: ClassVar[Prediction]

    @abstractmethod
    def convert(self, y: Array, dtype: str) -> Array:
        """Returns labels as the engine takes them. Raises: InvalidInput: if they can't be used."""


@dataclass(frozen=True)
class Classes(Labels):
    """Labels that are one of several classes; the loss is cross-entropy.

    Args:
      num_classes: they are numbered from 0 to this, exclusive.
      weights: of the classes, which multiply the loss; None: all 1.
    """

    metrics = ("loss", "correct")
    prediction = "probabilities"
    num_classes: int
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise InvalidInput(
                f"a network separates at least 2 classes, the labels have {self.num_classes}; "
                "write num_classes=None for real targets"
            )

    def convert(self, y: Array, dtype: str) -> Array:
        """Returns (n,) integers."""
        return cross_entropy(self.num_classes).targets(y, dtype)


@dataclass(frozen=True)
class Numbers(Labels):
    """Labels that are one real number; the loss is half of the squared error."""

    metrics = ("loss", "squared_error")
    prediction = "numbers"

    def convert(self, y: Array, dtype: str) -> Array:
        """Returns (n,) numbers."""
        if y.ndim != 1 or y.dtype.kind not in "biuf":
            raise InvalidInput(
                f"labels of shape {y.shape} and dtype {y.dtype}; one number a row is needed: "
                "write labels.ravel().astype(float)"
            )
        y = y.astype(dtype, copy=False)
        check_finite(y, "label")
        return y


@dataclass(frozen=True)
class Characters(Labels):
    """Labels that are a character for each position; the loss is the mean cross-entropy over positions."""

    metrics = ("loss", "correct")
    prediction = "probabilities"
    length: int
    num_characters: int

    def convert(self, y: Array, dtype: str) -> Array:
        """Returns (n, length) integers."""
        return _characters(y, "label", (self.length,), self.num_characters)


@dataclass(frozen=True)
class Anything(Labels):
    """Labels that are numbers of any shape, for a user's own loss."""

    metrics = ("loss",)
    prediction = "numbers"

    def convert(self, y: Array, dtype: str) -> Array:
        """Converts real numbers and keeps integers as they are."""
        if y.dtype.kind in "iu":
            return y.astype(np.int64, copy=False)
        y = y.astype(dtype, copy=False)
        check_finite(y, "label")
        return y


def convert_examples(data: Examples, features: Features, labels: Labels, dtype: str) -> tuple[Array, Array]:
    """Returns features and labels as an engine takes them. Raises: InvalidInput: if they can't be used."""
    check_some(data)
    return features.convert(np.asarray(data.x)), labels.convert(np.asarray(data.y), dtype)


def check_some(data: Examples) -> None:
    """Checks that there are examples. Raises: InvalidInput: if there are none."""
    if len(data) == 0:
        raise InvalidInput("no examples; give at least 1")


def check_rows(x: Array) -> Array:
    """Returns rows of features as an array. Raises: InvalidInput: if there are none."""
    x = np.asarray(x)
    if x.ndim == 0 or len(x) == 0:
        raise InvalidInput(f"features of shape {x.shape} hold no rows to predict; give at least 1")
    return x


def check_predictions(found: Array, num_rows: int, labels: Labels | None = None) -> Array:
    """Returns predictions. Raises: InvalidInput: if they are not one a row, with one number a class."""
    due = (num_rows, labels.num_classes) if isinstance(labels, Classes) else (num_rows, *found.shape[1:])
    if found.shape != due:
        raise InvalidInput(
            f"the model's predictions for {num_rows} rows have shape {found.shape}; {due} is needed: give "
            "each row a score a class (or, for two classes, one score), or numbers"
        )
    return found


def convert_flat(x: Array, num_features: int, dtype: str) -> Array:
    """Returns features as (n, d) numbers in `dtype`. Raises: InvalidInput: if they can't be used."""
    width = math.prod(x.shape[1:])
    if width != num_features:
        raise InvalidInput(
            f"examples of {width} features (shape {x.shape[1:]}); the model was bound to {num_features}: "
            f"bind it with feature_shape={x.shape[1:]}"
        )
    x = np.asarray(x, dtype).reshape(len(x), width)
    check_finite(x, "feature")
    return x


def check_finite(values: Array, noun: str) -> None:
    """Checks that all entries are finite. Raises: InvalidInput: naming the first that is not."""
    if math.isfinite(np.vdot(values, values)):  # much cheaper than isfinite(values), and usually enough
        return
    wrong = np.argwhere(~np.isfinite(values.reshape(len(values), -1)))
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise InvalidInput(
            f"the {noun} in row {row}, column {column} (flattened) is "
            f"{values.reshape(len(values), -1)[row, column]}; give a finite number there, or drop row {row}"
        )


def _characters(values: Array, noun: str, shape: tuple[int, ...], num_characters: int) -> Array:
    if values.shape[1:] != shape or values.dtype.kind not in "iu":
        raise InvalidInput(
            f"{noun}s of shape {values.shape} and dtype {values.dtype}; rows of {shape[0]} characters are "
            "needed, as integers"
        )
    wrong = np.argwhere((values < 0) | (values >= num_characters))
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise InvalidInput(
            f"the {noun} in row {row}, column {column} is {values[row, column]}; {num_characters} characters "
            f"are the integers 0 to {num_characters - 1}: write char_lstm({int(values.max()) + 1}) or more"
        )
    return values.astype(np.int64, copy=False)
