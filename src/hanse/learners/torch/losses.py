"""Losses and metrics of a batch, on PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch.nn import functional

from hanse.core import InvalidInput
from hanse.learners.examples import Anything, Characters, Classes, Labels, Numbers

__all__ = ["LOSSES", "Checked", "Measure", "Tensor", "make_loss", "to_prediction"]

Tensor: TypeAlias = Any


def _cross_entropy(scores: Tensor, classes: Tensor) -> Tensor:
    return functional.cross_entropy(scores, classes)


def _num_correct(scores: Tensor, classes: Tensor) -> Tensor:
    if scores.ndim == 1 or scores.shape[-1] == 1:  # one score for two classes, as binary losses want
        return ((scores.reshape(-1) > 0) == (classes > 0)).sum()
    return (scores.argmax(-1) == classes).sum()


def _text_cross_entropy(scores: Tensor, characters: Tensor) -> Tensor:
    return functional.cross_entropy(scores.flatten(0, 1), characters.flatten())


def _text_correct(scores: Tensor, characters: Tensor) -> Tensor:
    return _num_correct(scores, characters).double() / characters.shape[1]


def _half_square(scores: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(scores, targets) / 2


def _square_error(scores: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(scores, targets, reduction="sum")


Measure: TypeAlias = Callable[[Tensor, Tensor], Tensor]

LOSSES: Mapping[type[Labels], tuple[Measure, ...]] = {
    Classes: (_cross_entropy, _num_correct),
    Characters: (_text_cross_entropy, _text_correct),
    Numbers: (_half_square, _square_error),
    Anything: (_half_square,),
}
"""The mean loss, and then sums of the other metrics, in the order of `Labels.metrics`."""


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


def to_prediction(scores: Tensor, labels: Labels) -> Tensor:
    """Returns probabilities of classes (the last axis), or numbers, or outputs as the module gives them."""
    if isinstance(labels, Classes):
        if scores.ndim == 1 or scores.shape[-1] == 1:  # one score for two classes, as binary losses want
            ones = scores.reshape(-1).sigmoid()
            return torch.stack([1 - ones, ones], 1)
        return scores.softmax(-1)
    if isinstance(labels, Characters):
        return scores.softmax(-1)
    return scores.squeeze(-1) if scores.ndim == 2 and scores.shape[-1] == 1 else scores


class Checked:
    """A loss that checks the shape of the scores first, since a wrong one would be broadcast."""

    def __init__(self, loss: Measure, outputs: tuple[int, ...]) -> None:
        self._loss, self._outputs = loss, outputs

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        due = (len(labels), *self._outputs)
        if not self._outputs and scores.shape == (len(labels), 1):
            scores = scores.squeeze(-1)
        if scores.shape != due:
            raise InvalidInput(
                f"scores of shape {tuple(scores.shape)} for {len(labels)} examples; {due} is needed: "
                "one score a class, or one number a row"
            )
        return self._loss(scores, labels)
