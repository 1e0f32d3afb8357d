"""Losses and metrics of a batch, on PyTorch."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from hanse.core import Array, InvalidInput
from hanse.learners.examples import Anything, Characters, Classes, Labels, Numbers

__all__ = ["LOSSES", "BatchLoss", "Checked", "Measure", "Tensor", "make_loss"]

Tensor: TypeAlias = Any


def _cross_entropy(scores: Tensor, classes: Tensor) -> Tensor:
    return functional.cross_entropy(scores, classes)


def _text_cross_entropy(scores: Tensor, characters: Tensor) -> Tensor:
    return functional.cross_entropy(scores.flatten(0, 1), characters.flatten())


def _text_correct(scores: Tensor, characters: Tensor) -> Tensor:
    return (scores.argmax(-1) == characters).sum().double() / characters.shape[1]


def _half_square(scores: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(scores, targets) / 2


def _square_error(scores: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(scores.reshape(targets.shape), targets, reduction="sum")


Measure: TypeAlias = Callable[[Tensor, Tensor], Tensor]

LOSSES: Mapping[type[Labels], tuple[Measure, ...]] = {
    Classes: (_cross_entropy,),  # `BatchLoss` counts what is correct
    Characters: (_text_cross_entropy, _text_correct),
    Numbers: (_half_square, _square_error),
    Anything: (_half_square,),
}
"""The mean loss, and then sums of the other metrics, in the order of `Labels.metrics`."""


@dataclass(frozen=True)
class BatchLoss:
    """The loss of a batch, its metrics, and what its scores predict.

    Args:
      mean: from outputs and labels to the mean loss over what is not ignored.
      labels: the requirement on labels.
      ignored: the integer of targets that count nothing; None: all count.
      threshold: where there is one score for two classes, the score above which class 1 is predicted: 0 for
        logits, 1/2 for probabilities.
    """

    mean: Measure
    labels: Labels
    _: KW_ONLY
    ignored: int | None = None
    threshold: float = 0.0

    def find_ignored_targets(self, labels: Array) -> Array | None:
        """Returns which labels are ignored; None: none of them."""
        if self.ignored is None or labels.dtype.kind not in "iu":
            return None
        ignored: Array = labels == self.ignored
        return ignored if ignored.any() else None

    def count(self, labels: Array) -> float:
        """Counts the examples that are not ignored, those with several targets by the share of these."""
        ignored = self.find_ignored_targets(labels)
        if ignored is None:
            return float(len(labels))
        return len(labels) * (1 - int(np.count_nonzero(ignored)) / ignored.size)

    def sum_metrics(self, outputs: Any, labels: Tensor) -> list[float]:
        """Sums the metrics other than the loss."""
        others = LOSSES[type(self.labels)][1:]
        if not isinstance(self.labels, Classes):
            return [float(measure(find_scores(outputs), labels)) for measure in others]
        scores = find_scores(outputs)
        if _is_single(scores):
            right = (scores.reshape(-1) > self.threshold) == (labels > 0)
        else:
            right = scores.argmax(-1) == labels
        if right.shape != labels.shape or (_is_single(scores) and self.labels.num_classes > 2):
            k = self.labels.num_classes
            raise InvalidInput(
                f"scores of shape {tuple(scores.shape)} for {len(labels)} examples of {k} classes; "
                f"{(len(labels), k)} is needed to measure the accuracy: give labels as floats if they are "
                "no classes"
            )
        if self.ignored is not None:
            right = right & (labels != self.ignored)
        return [float(right.sum())]

    def predict(self, outputs: Any) -> Tensor:
        """Returns probabilities of classes (the last axis), or numbers, or scores as they are."""
        scores = find_scores(outputs)
        if isinstance(self.labels, Classes) and _is_single(scores):
            ones = scores.reshape(-1)
            ones = ones if self.threshold else ones.sigmoid()
            return torch.stack([1 - ones, ones], 1)
        if isinstance(self.labels, Classes | Characters):
            return scores.softmax(-1)
        return scores.squeeze(-1) if scores.ndim == 2 and scores.shape[-1] == 1 else scores


def _is_single(scores: Tensor) -> bool:
    """Returns whether there is one score for two classes, as binary losses want."""
    return bool(scores.ndim == 1 or scores.shape[-1] == 1)


def find_scores(outputs: Any) -> Tensor:
    """Returns the scores among the outputs of a module: the first of several, or those called "logits"."""
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif isinstance(outputs, tuple | list) and outputs:
        found = outputs[0]
    if not isinstance(found, torch.Tensor):
        raise InvalidInput(
            f"the module returned a {type(outputs).__name__} that does not begin with scores; return a "
            'tensor of scores, a tuple whose first entry they are, or a dictionary that calls them "logits"'
        )
    return found


def make_loss(labels: Labels) -> Measure:
    """Returns the mean loss of a batch for such labels."""
    weights = labels.weights if isinstance(labels, Classes) else None
    if weights is None:
        return LOSSES[type(labels)][0]
    by_class = torch.tensor(weights, dtype=torch.float64)

    def loss(scores: Tensor, classes: Tensor) -> Tensor:
        losses = functional.cross_entropy(scores, classes, reduction="none")
        return (losses * by_class.to(losses)[classes]).mean()

    return loss


class Checked:
    """A loss that checks the shape of the scores first, since a wrong one would be broadcast."""

    def __init__(self, loss: Measure, outputs: tuple[int, ...]) -> None:
        self._loss, self._outputs = loss, outputs

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        if not isinstance(scores, torch.Tensor):
            raise InvalidInput(
                f"the module returned a {type(scores).__name__}; return a tensor of scores, or give a loss "
                "of your own, which is given all that the module returns: the first is taken for the scores"
            )
        due = (len(labels), *self._outputs)
        if not self._outputs and scores.shape == (len(labels), 1):
            scores = scores.squeeze(-1)
        if scores.shape != due:
            raise InvalidInput(
                f"scores of shape {tuple(scores.shape)} for {len(labels)} examples; {due} is needed: "
                "one score a class, or one number a row"
            )
        return self._loss(scores, labels)
