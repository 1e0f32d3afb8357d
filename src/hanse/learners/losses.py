"""What a linear model's scores cost, with first and second derivatives, in NumPy.

Scores are (n,) for one output and (n, k) for k. All are stable for scores of any size; some of them
overflow on the way, on purpose, and callers silence that warning.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from hanse.core.errors import InvalidInput
from hanse.core.tensors import Array

__all__ = ["Loss", "cross_entropy", "half_square", "log_loss"]


class Loss(ABC):
    """The loss of one example by its scores and its label."""

    metrics: ClassVar[tuple[str, ...]]
    """What `measure` sums up, "loss" first."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[int, ...]:
        """The shape of one example's scores: () or (k,)."""

    @abstractmethod
    def targets(self, labels: Array, dtype: str) -> Array:
        """Labels, checked, as the other methods want them. Raises: InvalidInput: if they don't suit."""

    @abstractmethod
    def losses(self, scores: Array, targets: Array) -> Array:
        """(n,) the loss of each example."""

    @abstractmethod
    def slopes(self, scores: Array, targets: Array) -> Array:
        """The derivatives of the losses by the scores, in their shape. Overwrites the scores."""

    @abstractmethod
    def curvatures(self, scores: Array, direction: Array) -> Array:
        """The losses' Hessians by the scores times a direction, in the shape of the scores."""

    @abstractmethod
    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """The sums of `metrics` over all examples."""


@dataclass(frozen=True)
class half_square(Loss):
    """loss = (s - y)² / 2"""

    metrics = ("loss", "squared_error")

    @property
    def outputs(self) -> tuple[int, ...]:
        """One score."""
        return ()

    def targets(self, labels: Array, dtype: str) -> Array:
        """Real numbers in `dtype`."""
        if labels.ndim != 1 or labels.dtype.kind not in "biuf":
            raise InvalidInput(
                f"labels of shape {labels.shape} and dtype {labels.dtype}; least_squares() needs one number "
                "a row: write labels.ravel().astype(float)"
            )
        finite = np.isfinite(labels)
        if not finite.all():
            row = int(finite.argmin())
            raise InvalidInput(
                f"the label in row {row} is {labels[row]}; give a finite number, or drop the row"
            )
        return labels.astype(dtype, copy=False)

    def losses(self, scores: Array, targets: Array) -> Array:
        """(n,) half squared errors."""
        errors = scores - targets
        return np.asarray(errors * errors / 2)

    def slopes(self, scores: Array, targets: Array) -> Array:
        """(n,) errors."""
        scores -= targets
        return scores

    def curvatures(self, scores: Array, direction: Array) -> Array:
        """(n,) the direction: the Hessian is 1."""
        return direction

    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """Half squared errors, and squared errors."""
        squares = float(np.square(scores - targets, dtype=np.float64).sum())
        return squares / 2, squares


@dataclass(frozen=True)
class log_loss(Loss):
    """loss = log(1 + exp(-m)) with the margin m = ±s, positive for class 1; targets are the signs."""

    metrics = ("loss", "correct")

    @property
    def outputs(self) -> tuple[int, ...]:
        """One score."""
        return ()

    def targets(self, labels: Array, dtype: str) -> Array:
        """The sign of each example: -1 for class 0, 1 for class 1."""
        signs = _classes(labels, 2).astype(dtype)
        signs *= 2
        signs -= 1
        return signs

    def losses(self, scores: Array, targets: Array) -> Array:
        """(n,) in nats."""
        return np.asarray(np.logaddexp(0, -targets * scores))

    def slopes(self, scores: Array, targets: Array) -> Array:
        """(n,) -y / (1 + exp(m)); where exp overflows, the slope is 0 as it should be."""
        scores *= targets
        np.exp(scores, out=scores)
        scores += 1
        return np.divide(-targets, scores, out=scores)

    def curvatures(self, scores: Array, direction: Array) -> Array:
        """(n,) e / (1 + e)² times the direction, e = exp(-|s|)."""
        shrunk = np.exp(-np.abs(scores))
        return np.asarray(shrunk / np.square(1 + shrunk) * direction)

    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """The loss, and examples on the right side; a score of 0 counts as class 0."""
        right = (scores > 0) == (targets > 0)
        return float(self.losses(scores, targets).sum(dtype=np.float64)), float(right.sum())


@dataclass(frozen=True)
class cross_entropy(Loss):
    """loss = log(sum exp s) - s_y; targets are the classes.

    Args:
      num_classes: k.
    """

    metrics = ("loss", "correct")
    num_classes: int

    @property
    def outputs(self) -> tuple[int, ...]:
        """One score a class."""
        return (self.num_classes,)

    def targets(self, labels: Array, dtype: str) -> Array:
        """Classes from 0."""
        return _classes(labels, self.num_classes)

    def losses(self, scores: Array, targets: Array) -> Array:
        """(n,) in nats."""
        scores = scores - scores.max(axis=1, keepdims=True)
        totals = np.exp(scores).sum(axis=1)
        return np.asarray(np.log(totals) - scores[np.arange(len(targets)), targets])

    def slopes(self, scores: Array, targets: Array) -> Array:
        """(n, k) probabilities, less 1 at the true class."""
        _to_probabilities(scores)
        scores.reshape(-1)[_starts(scores.size, self.num_classes) + targets] -= 1
        return scores

    def curvatures(self, scores: Array, direction: Array) -> Array:
        """(n, k) p (d - sum p d)."""
        probabilities = _to_probabilities(scores.copy())
        mean = (probabilities * direction).sum(axis=1, keepdims=True)
        return np.asarray(probabilities * (direction - mean))

    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """The loss, and examples whose true class scores highest; of equal scores the first wins."""
        right = scores.argmax(axis=1) == targets
        return float(self.losses(scores, targets).sum(dtype=np.float64)), float(right.sum())


@lru_cache(maxsize=64)
def _starts(size: int, step: int) -> Array:
    """Where each row begins."""
    return np.arange(0, size, step)


def _to_probabilities(scores: Array) -> Array:
    """Softmax in place. The ufuncs' own methods save a microsecond a call over the arrays'."""
    scores -= np.maximum.reduce(scores, axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=1, keepdims=True)
    return scores


def _classes(labels: Array, num_classes: int) -> Array:
    """Labels as (n,) indices. Seen as unsigned, negative ones are too large as well: one test finds both."""
    if labels.ndim != 1 or labels.dtype.kind not in "biu":
        raise InvalidInput(
            f"labels of shape {labels.shape} and dtype {labels.dtype}; classes are one integer a row: "
            "write labels.ravel().astype(int), or least_squares() for real targets"
        )
    classes = labels.astype(np.intp, copy=False)
    unsigned = classes.view(np.uintp)
    if np.maximum.reduce(unsigned) >= num_classes:
        row = int((unsigned >= num_classes).argmax())
        raise InvalidInput(
            f"the label in row {row} is {labels[row]}; {num_classes} classes are the integers 0 to "
            f"{num_classes - 1}: renumber them with numpy.unique(labels, return_inverse=True)[1], or "
            f"bind the model with num_classes={int(labels.max()) + 1}"
        )
    return classes
