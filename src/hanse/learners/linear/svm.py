"""Linear support vector machines for two classes, in NumPy."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from hanse.core import Array, InvalidInput, value
from hanse.learners.linear.models import LinearModel
from hanse.learners.losses import Loss, logistic_loss

__all__ = ["hinge", "hinge_svm", "linear_svm", "squared_hinge"]


@dataclass(frozen=True)
class _Margin(Loss, ABC):
    """A loss of the amount by which the margin m = ±s falls short of 1; targets are the classes' signs."""

    metrics = ("loss", "correct")
    prediction = "scores"

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of one score."""
        return ()

    def targets(self, labels: Array, dtype: str) -> Array:
        """Returns the sign of each example: -1 for class 0, 1 for class 1."""
        return logistic_loss().targets(labels, dtype)

    @abstractmethod
    def of_shortfall(self, shortfall: Array) -> Array:
        """Returns the losses of margins that fall short of 1 by so much, 0 or more, (n,)."""

    def losses(self, scores: Array, targets: Array) -> Array:
        """Returns the losses, (n,)."""
        return self.of_shortfall(np.maximum(0, 1 - targets * scores))

    def predict(self, scores: Array) -> Array:
        """Returns the scores of both classes, (n, 2): minus and plus the margin for class 1."""
        return np.stack([-scores, scores], axis=1)

    def measure(self, scores: Array, targets: Array) -> tuple[float, ...]:
        """Sums the loss and the examples on the right side; a score of 0 counts as class 0."""
        right = (scores > 0) == (targets > 0)
        return float(self.losses(scores, targets).sum(dtype=np.float64)), float(right.sum())


@dataclass(frozen=True)
class hinge(_Margin):
    """The hinge loss: loss = max(0, 1 - m)"""

    def of_shortfall(self, shortfall: Array) -> Array:
        """Returns the shortfalls, (n,)."""
        return shortfall

    def gradient(self, scores: Array, targets: Array) -> Array:
        """Returns -y where the margin falls short, else 0, (n,): a subgradient at the kink."""
        return np.asarray(np.where(targets * scores < 1, -targets, 0), scores.dtype)

    def hessian_vector(self, scores: Array, targets: Array, direction: Array) -> Array:
        """Returns zeros, (n,): the second derivative wherever there is one."""
        return np.zeros_like(direction)


@dataclass(frozen=True)
class squared_hinge(_Margin):
    """The squared hinge loss: loss = max(0, 1 - m)² / 2"""

    def of_shortfall(self, shortfall: Array) -> Array:
        """Returns half the squares of the shortfalls, (n,)."""
        return np.asarray(shortfall * shortfall / 2)

    def gradient(self, scores: Array, targets: Array) -> Array:
        """Returns -y max(0, 1 - m), (n,)."""
        return np.asarray(-targets * np.maximum(0, 1 - targets * scores))

    def hessian_vector(self, scores: Array, targets: Array, direction: Array) -> Array:
        """Returns the direction where the margin falls short, else 0, (n,)."""
        return np.asarray((targets * scores < 1) * direction)


@value
class linear_svm(LinearModel):
    """Linear SVM for the classes 0 and 1, squared hinge: loss = max(0, 1 - m)² / 2, m = ±(x w + b).

    It is smooth, so that every algorithm applies, Newton's methods included. scikit-learn's
    `LinearSVC(loss="squared_hinge", C=C)` is the same with l2 = 1 / (2 C n) and `regularise_intercept`.

    >>> linear_svm(1e-3).bind((3,), 2).metrics
    ('loss', 'correct')
    """

    def loss(self, num_classes: int | None) -> Loss:
        """Returns the loss for two classes."""
        _check_two_classes("linear_svm", num_classes)
        return squared_hinge()


@value
class hinge_svm(LinearModel):
    """Linear SVM for the classes 0 and 1, plain hinge: loss = max(0, 1 - m), m = ±(x w + b).

    It has a kink, so gradients are subgradients, local steps need a decaying step size, and Newton's
    methods do not apply. Its dual is a box: see `dual` and `hanse.algorithms.cocoa`.
    """

    def loss(self, num_classes: int | None) -> Loss:
        """Returns the loss for two classes."""
        _check_two_classes("hinge_svm", num_classes)
        return hinge()


def _check_two_classes(name: str, num_classes: int | None) -> None:
    if num_classes != 2:
        given = "are not classes" if num_classes is None else f"have {num_classes}"
        raise InvalidInput(
            f"{name}() separates 2 classes, the labels {given}; give 0 and 1 as integers "
            "(y = (y > 0).astype(int)), or write softmax() for more classes"
        )
