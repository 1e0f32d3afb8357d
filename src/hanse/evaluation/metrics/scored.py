"""Examples with their predictions: what every metric is computed from."""

import math
from dataclasses import dataclass

import numpy as np

from hanse.core import Array, InvalidInput, Prediction

__all__ = ["CLASSES", "ScoredRows", "make_constant_rows", "score_rows"]

CLASSES: tuple[Prediction, ...] = ("probabilities", "scores")
"""The predictions of models of classes."""


@dataclass(frozen=True)
class ScoredRows:
    """Labels and predictions in the form in which metrics take them. `score_rows` makes it.

    Args:
      labels: (n,) classes, (n, m) numbers, or (n, 3) times, events and strata.
      predictions: (n, k) of classes, (n, m) numbers, or (n,) risks, as float64.
      weights: (n,) weights of the examples.
      kind: the meaning of the predictions.
      smallest: probabilities below it count as it, where their logarithm is taken.
    """

    labels: Array
    predictions: Array
    weights: Array
    kind: Prediction
    smallest: float = float(np.finfo(np.float64).eps)

    @property
    def num_classes(self) -> int:
        """The number of classes, or of numbers in a row."""
        return self.predictions.shape[1] if self.predictions.ndim == 2 else 1

    @property
    def predicted(self) -> Array:
        """The classes with the highest predictions; of equal ones the first."""
        return np.asarray(self.predictions.argmax(axis=1))

    def find_ranking(self, number: int) -> Array:
        """Returns the numbers by which examples are ranked for a class."""
        if self.kind == "scores" and self.num_classes == 2:
            return np.asarray(self.predictions[:, number] - self.predictions[:, 1 - number])
        return np.asarray(self.predictions[:, number])

    def count_classes(self) -> Array:
        """Sums the weights of the examples of each class, (k,)."""
        return np.bincount(self.labels, self.weights, self.num_classes)


def score_rows(
    labels: Array, predictions: Array, weights: Array | None = None, *, kind: Prediction | None = None
) -> ScoredRows:
    """Joins labels and predictions, and checks that they belong together.

    Args:
      labels: (n, ...) classes as integers from 0, numbers, or times and events in columns. Labels below 0, of
        places of a text that count in nothing, are left out.
      predictions: as `Learner.predict` returns them; of two classes also (n,) probabilities of class 1.
      weights: (n,) of the examples, at least 0; None: all 1.
      kind: the meaning of the predictions; None: "probabilities", where they have one axis more than labels,
        and else "numbers".

    Raises: InvalidInput: if their forms do not fit each other, or a number is not finite.
    """
    y, found = np.asarray(labels), np.asarray(predictions)
    kind = kind or ("probabilities" if found.ndim == y.ndim + 1 else "numbers")
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(y),) or not (np.isfinite(w).all() and (w >= 0).all()):
        raise InvalidInput(
            f"weights of shape {w.shape} for {len(y)} labels; give one finite number of at least 0 for each"
        )
    smallest = float(np.finfo(found.dtype if found.dtype.kind == "f" else np.float64).eps)
    found = found.astype(np.float64)
    if not np.isfinite(found).all():
        raise InvalidInput("some predictions are not finite; metrics need finite numbers")
    if kind in CLASSES:
        return _score_classes(y, found, w, kind, smallest)
    if kind == "risks":
        if y.ndim != 2 or y.shape[1] not in (2, 3) or found.shape != (len(y),):
            raise InvalidInput(
                f"labels of shape {y.shape} and risks of shape {found.shape}; give times and events in two "
                "columns, perhaps strata in a third, and one risk a row"
            )
        y = np.asarray(y, np.float64)
        return ScoredRows(y if y.shape[1] == 3 else np.column_stack([y, np.zeros(len(y))]), found, w, kind)
    if y.shape != found.shape:
        raise InvalidInput(
            f"labels of shape {y.shape} and predicted numbers of shape {found.shape}; give one prediction "
            'for each number, or kind="probabilities" if they are those of classes'
        )
    rows = (len(y), math.prod(y.shape[1:]))
    return ScoredRows(y.reshape(rows).astype(np.float64), found.reshape(rows), w, kind)


def _score_classes(y: Array, found: Array, w: Array, kind: Prediction, smallest: float) -> ScoredRows:
    if found.shape == y.shape and y.ndim == 1 and kind == "probabilities":
        found = np.column_stack([1 - found, found])
    if found.shape[:-1] != y.shape or y.dtype.kind not in "biu":
        raise InvalidInput(
            f"labels of shape {y.shape} and dtype {y.dtype}, and predictions of shape {found.shape}; give "
            "classes as integers, and one number for each class in the last axis"
        )
    places = y.size // len(y) if len(y) else 1
    y, found, w = y.reshape(-1).astype(np.intp), found.reshape(-1, found.shape[-1]), np.repeat(w, places)
    if (y < 0).any():
        y, found, w = y[y >= 0], found[y >= 0], w[y >= 0]
    if len(y) and y.max() >= found.shape[1]:
        raise InvalidInput(f"a label is {y.max()}, and predictions are of {found.shape[1]} classes")
    return ScoredRows(y, found, w, kind, smallest)


def make_constant_rows(counts: Array) -> ScoredRows:
    """Makes the examples of a constant predictor, which knows nothing but how frequent classes are.

    There is one example of each class, weighted by all of them; its probabilities are the classes' shares.
    """
    whole = counts.sum()
    shares = counts / whole if whole else np.full(len(counts), 1 / len(counts))
    rows = np.tile(shares, (len(counts), 1))
    return ScoredRows(np.arange(len(counts)), rows, counts, "probabilities")
