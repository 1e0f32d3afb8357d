"""What a network asks of examples, and what it measures on them, whatever the engine."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hanse.core.errors import InvalidInput
from hanse.core.learner import Examples
from hanse.core.tensors import Array
from hanse.learners.losses import cross_entropy

__all__ = ["Anything", "Characters", "Classes", "Features", "Labels", "Numbers", "Reals", "Text", "checked"]


class Features(ABC):
    """What rows of features have to be."""

    shape: tuple[int, ...]

    @abstractmethod
    def checked(self, x: Array) -> Array:
        """Features as the engine takes them. Raises: InvalidInput: if they can't be used."""


@dataclass(frozen=True)
class Reals(Features):
    """Finite numbers.

    Args:
      shape: of one row.
      dtype: that they are converted to.
      keep_integers: whether integers stay integers, to be looked up in an embedding.
    """

    shape: tuple[int, ...]
    dtype: str
    keep_integers: bool = False

    def checked(self, x: Array) -> Array:
        """Converted, in their shape."""
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
    """Characters as integers.

    Args:
      shape: (length,).
      num_characters: they are numbered from 0 to this, exclusive.
    """

    shape: tuple[int, ...]
    num_characters: int

    def checked(self, x: Array) -> Array:
        """(n, length) integers."""
        return _characters(x, "feature", self.shape, self.num_characters)


class Labels(ABC):
    """What labels have to be, and what is summed up over examples."""

    metrics: ClassVar[tuple[str, ...]]

    @abstractmethod
    def checked(self, y: Array, dtype: str) -> Array:
        """Labels as the engine takes them. Raises: InvalidInput: if they can't be used."""


@dataclass(frozen=True)
class Classes(Labels):
    """One of several classes; cross-entropy."""

    metrics = ("loss", "correct")
    num_classes: int

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise InvalidInput(
                f"a network separates at least 2 classes, the labels have {self.num_classes}; "
                "write num_classes=None for real targets"
            )

    def checked(self, y: Array, dtype: str) -> Array:
        """(n,) integers."""
        return cross_entropy(self.num_classes).targets(y, dtype)


@dataclass(frozen=True)
class Numbers(Labels):
    """One real number; half of the squared error."""

    metrics = ("loss", "squared_error")

    def checked(self, y: Array, dtype: str) -> Array:
        """(n,) numbers."""
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
    """A character for each position of a text; the mean cross-entropy over positions."""

    metrics = ("loss", "correct")
    length: int
    num_characters: int

    def checked(self, y: Array, dtype: str) -> Array:
        """(n, length) integers."""
        return _characters(y, "label", (self.length,), self.num_characters)


@dataclass(frozen=True)
class Anything(Labels):
    """Numbers of any shape, for a loss of one's own."""

    metrics = ("loss",)

    def checked(self, y: Array, dtype: str) -> Array:
        """Real numbers converted; integers as they are."""
        if y.dtype.kind in "iu":
            return y.astype(np.int64, copy=False)
        y = y.astype(dtype, copy=False)
        check_finite(y, "label")
        return y


def checked(data: Examples, features: Features, labels: Labels, dtype: str) -> tuple[Array, Array]:
    """Features and labels as an engine takes them. Raises: InvalidInput: if they can't be used."""
    if len(data) == 0:
        raise InvalidInput("no examples; give at least 1")
    return features.checked(np.asarray(data.x)), labels.checked(np.asarray(data.y), dtype)


def check_finite(values: Array, noun: str) -> None:
    """Raises: InvalidInput: naming the first entry that is NaN or infinite."""
    if math.isfinite(np.vdot(values, values)):  # much cheaper than isfinite(values), and mostly enough
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
