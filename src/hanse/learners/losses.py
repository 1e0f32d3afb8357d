"""Losses of a linear model's scores, with first and second derivatives, in NumPy.

Scores are (n,) for one output and (n, k) for k. All losses are stable for scores of any size; some of
them overflow on the way, on purpose, and callers silence that warning.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from hanse.core import Array, InvalidInput, Prediction

__all__ = ["Loss", "cross_entropy", "half_square", "logistic_loss", "weighted_loss"]


MAX_OUTPUTS = 10
"""The most outputs whose errors are measured one by one."""


class Loss(ABC):
    """The loss of one example by its scores and its label."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names of the sums that `measure` returns, "loss" first."""

    prediction: ClassVar[Prediction]
    """The meaning of the numbers that `predict` returns."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[int, ...]:
        """The shape of one example's scores: () or (k,)."""

    @abstractmethod
    def targets(self, labels: Array, dtype: str) -> Array:
        """Returns labels as the other methods need them. Raises: InvalidInput: if they don't suit."""

    @abstractmethod
    def losses(self, scores: Array, targets: Array) -> Array:
        """Returns the loss of each example, (n,)."""

    @abstractmethod
    def gradient(self, scores: Array, targets: Array) -> Array:
        """Returns the derivatives of the losses by the scores, in their shape. Overwrites the scores."""

    @abstractmethod
    def hessian_vector(self, scores: Array, targets: Array, direction: Array) -> Array:
        """Returns the losses' Hessians by the scores times a direction, in the shape of the scores."""

    @abstractmethod
    def predict(self, scores: Array) -> Array:
        """Returns what the scores predict: probabilities of classes, (n, k), or numbers, (n,)."""

    @abstractmethod
    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """Returns the sums of `metrics` over all examples."""


@dataclass(frozen=True)
class half_square(Loss):
    """The squared loss: loss = |s - y|² / 2

    Args:
      num_outputs: k, of targets of shape (n, k); None: one number a row, (n,).
    """

    prediction = "numbers"
    num_outputs: int | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The loss, the squared error as a mean over the outputs, and that of each if they are few."""
        k = self.num_outputs or 1
        few = k if 1 < k <= MAX_OUTPUTS else 0
        return ("loss", "squared_error", *(f"squared_error_{i}" for i in range(few)))

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of one row's scores."""
        return () if self.num_outputs is None else (self.num_outputs,)

    def targets(self, labels: Array, dtype: str) -> Array:
        """Returns real numbers in `dtype`."""
        if labels.shape[1:] != self.outputs or labels.dtype.kind not in "biuf":
            if self.num_outputs is None:
                needed = "one number a row: write labels.ravel().astype(float)"
                if labels.ndim == 2 and labels.shape[1] > 1:
                    needed = f"one number a row; for {labels.shape[1]} write num_outputs={labels.shape[1]}"
            else:
                needed = f"{self.num_outputs} numbers a row, as num_outputs says"
            raise InvalidInput(
                f"labels of shape {labels.shape} and dtype {labels.dtype}; least_squares() needs {needed}"
            )
        finite = np.isfinite(labels).reshape(len(labels), -1).all(axis=1)
        if not finite.all():
            row = int(finite.argmin())
            raise InvalidInput(
                f"the label in row {row} is {labels[row]}; give a finite number, or drop the row"
            )
        return labels.astype(dtype, copy=False)

    def losses(self, scores: Array, targets: Array) -> Array:
        """Returns half squared errors, summed over the outputs, (n,)."""
        errors = scores - targets
        halves = np.asarray(errors * errors / 2)
        return halves if self.num_outputs is None else np.asarray(halves.sum(axis=1))

    def gradient(self, scores: Array, targets: Array) -> Array:
        """Returns errors, in the shape of the scores."""
        scores -= targets
        return scores

    def hessian_vector(self, scores: Array, targets: Array, direction: Array) -> Array:
        """Returns the direction, since the Hessian is the identity."""
        return direction

    def predict(self, scores: Array) -> Array:
        """Returns the scores, (n,) or (n, k)."""
        return scores

    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """Sums half squared errors, and squared errors."""
        squares = np.square(scores - targets, dtype=np.float64).sum(axis=0)
        whole = float(squares.sum())
        each = squares.tolist() if len(self.metrics) > 2 else ()
        return whole / 2, whole / (self.num_outputs or 1), *each


@dataclass(frozen=True)
class logistic_loss(Loss):
    """The logistic loss: log(1 + exp(-m)), with the margin m = ±s, + for class 1; targets are the signs."""

    metrics = ("loss", "correct")
    prediction = "probabilities"

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of one score."""
        return ()

    def targets(self, labels: Array, dtype: str) -> Array:
        """Returns the sign of each example: -1 for class 0, 1 for class 1."""
        signs = _classes(labels, 2).astype(dtype)
        signs *= 2
        signs -= 1
        return signs

    def losses(self, scores: Array, targets: Array) -> Array:
        """Returns losses in nats, (n,)."""
        return np.asarray(np.logaddexp(0, -targets * scores))

    def gradient(self, scores: Array, targets: Array) -> Array:
        """Returns -y / (1 + exp(m)), (n,); where exp overflows, the derivative is 0 as it should be."""
        scores *= targets
        np.exp(scores, out=scores)
        scores += 1
        return np.divide(-targets, scores, out=scores)

    def hessian_vector(self, scores: Array, targets: Array, direction: Array) -> Array:
        """Returns e / (1 + e)² times the direction, (n,), with e = exp(-|s|)."""
        shrunk = np.exp(-np.abs(scores))
        return np.asarray(shrunk / np.square(1 + shrunk) * direction)

    def predict(self, scores: Array) -> Array:
        """Returns the probabilities of both classes, (n, 2)."""
        return _to_probabilities(np.stack([np.zeros_like(scores), scores], axis=1))

    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """Sums the loss and the examples on the right side; a score of 0 counts as class 0."""
        right = (scores > 0) == (targets > 0)
        return float(self.losses(scores, targets).sum(dtype=np.float64)), float(right.sum())


@dataclass(frozen=True)
class cross_entropy(Loss):
    """The cross-entropy: loss = log(sum exp s) - s_y; targets are the classes.

    Args:
      num_classes: k.
    """

    metrics = ("loss", "correct")
    prediction = "probabilities"
    num_classes: int

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of scores, one a class."""
        return (self.num_classes,)

    def targets(self, labels: Array, dtype: str) -> Array:
        """Returns classes, numbered from 0."""
        return _classes(labels, self.num_classes)

    def losses(self, scores: Array, targets: Array) -> Array:
        """Returns losses in nats, (n,)."""
        scores = scores - scores.max(axis=1, keepdims=True)
        totals = np.exp(scores).sum(axis=1)
        return np.asarray(np.log(totals) - scores[np.arange(len(targets)), targets])

    def gradient(self, scores: Array, targets: Array) -> Array:
        """Returns probabilities, less 1 at the true class, (n, k)."""
        _to_probabilities(scores)
        scores.reshape(-1)[_starts(scores.size, self.num_classes) + targets] -= 1
        return scores

    def hessian_vector(self, scores: Array, targets: Array, direction: Array) -> Array:
        """Returns p (d - sum p d), (n, k)."""
        probabilities = _to_probabilities(scores.copy())
        mean = (probabilities * direction).sum(axis=1, keepdims=True)
        return np.asarray(probabilities * (direction - mean))

    def predict(self, scores: Array) -> Array:
        """Returns probabilities, (n, k)."""
        return _to_probabilities(scores)

    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """Sums the loss and the examples whose true class scores highest; of equal scores the first wins."""
        right = scores.argmax(axis=1) == targets
        return float(self.losses(scores, targets).sum(dtype=np.float64)), float(right.sum())


@dataclass(frozen=True)
class weighted_loss(Loss):
    """A loss of classes, times the weight of the true class: loss = c_y loss(s, y)

    Args:
      loss: of the classes.
      weights: c, one a class.
    """

    metrics = ("loss", "correct")
    prediction = "probabilities"
    loss: "logistic_loss | cross_entropy"
    weights: tuple[float, ...]

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of one example's scores."""
        return self.loss.outputs

    def targets(self, labels: Array, dtype: str) -> Array:
        """Returns the targets of the loss."""
        return self.loss.targets(labels, dtype)

    def losses(self, scores: Array, targets: Array) -> Array:
        """Returns weighted losses in nats, (n,)."""
        losses = self.loss.losses(scores, targets)
        return losses * self._weights_of(targets, losses)

    def gradient(self, scores: Array, targets: Array) -> Array:
        """Returns weighted derivatives, in the shape of the scores."""
        gradient = self.loss.gradient(scores, targets)
        gradient *= self._weights_of(targets, gradient)
        return gradient

    def hessian_vector(self, scores: Array, targets: Array, direction: Array) -> Array:
        """Returns weighted products, in the shape of the scores."""
        product = self.loss.hessian_vector(scores, targets, direction)
        return product * self._weights_of(targets, product)

    def predict(self, scores: Array) -> Array:
        """Returns the probabilities of the loss, which the weights have shifted in training, (n, k)."""
        return self.loss.predict(scores)

    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """Sums the weighted loss, and the examples on the right side, which are not weighted."""
        _, right = self.loss.measure(scores, targets)
        return float(self.losses(scores, targets).sum(dtype=np.float64)), right

    def _weights_of(self, targets: Array, like: Array) -> Array:
        """Returns each example's weight, to multiply an array with."""
        classes = targets if self.outputs else (targets > 0).astype(np.intp)  # signs are targets, too
        weights: Array = np.array(self.weights, like.dtype)[classes]
        return weights if like.ndim == 1 else weights[:, None]


@lru_cache(maxsize=64)
def _starts(size: int, step: int) -> Array:
    """Returns the index where each row starts."""
    return np.arange(0, size, step)


def _to_probabilities(scores: Array) -> Array:
    """Applies softmax in place. The ufuncs' methods save a microsecond a call over the arrays' methods."""
    scores -= np.maximum.reduce(scores, axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=1, keepdims=True)
    return scores


def _classes(labels: Array, num_classes: int) -> Array:
    """Returns labels as (n,) indices. As unsigned, negative ones are too large too: one test finds both."""
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
