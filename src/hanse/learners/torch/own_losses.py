"""Users' own losses, and those of PyTorch, unchanged: labels come in the form that they take."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from hanse.core import InvalidInput
from hanse.learners.examples import Classes, Labels
from hanse.learners.torch.losses import BatchLoss, Tensor

__all__ = ["fit_loss"]

BINARY = (nn.BCEWithLogitsLoss, nn.BCELoss, nn.SoftMarginLoss)
"""Losses that take one score for two classes, and labels as real numbers in the shape of the scores."""

NUMBERS = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.PoissonNLLLoss,
    nn.MultiLabelSoftMarginLoss,
)
"""Losses that take real numbers in the shape of the scores."""

FUNCTIONS: Mapping[Any, type] = {
    functional.cross_entropy: nn.CrossEntropyLoss,
    functional.nll_loss: nn.NLLLoss,
    functional.multi_margin_loss: nn.MultiMarginLoss,
    functional.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
    functional.binary_cross_entropy: nn.BCELoss,
    functional.soft_margin_loss: nn.SoftMarginLoss,
    functional.mse_loss: nn.MSELoss,
    functional.l1_loss: nn.L1Loss,
    functional.smooth_l1_loss: nn.SmoothL1Loss,
    functional.huber_loss: nn.HuberLoss,
    functional.poisson_nll_loss: nn.PoissonNLLLoss,
    functional.multilabel_soft_margin_loss: nn.MultiLabelSoftMarginLoss,
}
"""PyTorch's functions, and the classes whose losses they compute."""


@dataclass(frozen=True)
class OwnLoss:
    """A user's own loss, checked to be one number.

    Args:
      function: from outputs and labels to the mean loss of a batch.
      name: of it, for messages.
    """

    function: Callable[[Any, Any], Any]
    name: str

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        try:
            loss = self.function(outputs, labels)
        except Exception as error:
            error.add_note(f"while the loss {self.name} computed on {_describe(outputs, labels)}")
            raise
        if not isinstance(loss, torch.Tensor):
            raise InvalidInput(
                f"the loss {self.name} returned {loss!r}, a {type(loss).__name__}; return a tensor of "
                "PyTorch, which knows where it came from"
            )
        if loss.ndim and loss.numel() != 1:
            raise InvalidInput(
                f"the loss {self.name} returned the shape {tuple(loss.shape)} for "
                f"{_describe(outputs, labels)}; return one number, the mean over the batch"
            )
        return loss.reshape(()) if loss.ndim else loss


@dataclass(frozen=True)
class KnownLoss(OwnLoss):
    """A loss of PyTorch's own, which is given labels in the form that it takes.

    Args:
      kind: its class.
      labels: the requirement on labels.
    """

    kind: type
    labels: Labels

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if not isinstance(outputs, torch.Tensor):
            raise InvalidInput(
                f"the module returned {_describe_one(outputs)}, and {self.name} takes a tensor of scores; "
                "give a function of your own as the loss, which is given all that the module returns"
            )
        fitted = self._fit(outputs, labels) if self.kind in (*BINARY, *NUMBERS) else labels
        try:
            return super().__call__(outputs, fitted)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"{self.name} can't be computed on {_describe(outputs, labels)}: {error}"
            ) from error

    def _fit(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Returns labels as real numbers in the shape of the scores: PyTorch would broadcast other ones."""
        if not labels.is_floating_point():
            labels = labels.to(torch.float64 if scores.dtype == torch.float64 else torch.float32)
            if self.kind is nn.SoftMarginLoss and isinstance(self.labels, Classes):
                labels = 2 * labels - 1
        if scores.shape != labels.shape:
            if _without_one(scores) != _without_one(labels):
                raise InvalidInput(
                    f"{self.name} needs as many labels as scores, and was given {_describe(scores, labels)}; "
                    "return one score for each label"
                )
            labels = labels.reshape(scores.shape)
        return labels


def fit_loss(function: Any, labels: Labels) -> BatchLoss:
    """Makes the loss and the metrics of a batch from a loss of the user's own.

    Raises: InvalidInput: if it can't be used with these labels, or is no mean.
    """
    plain, settings = function, getattr(function, "__dict__", {})
    if isinstance(function, partial):
        plain, settings = function.func, function.keywords
    kind = FUNCTIONS.get(plain, type(plain)) if isinstance(plain, Hashable) else type(plain)
    is_known = kind in FUNCTIONS.values() or (issubclass(kind, _Loss) and kind.__module__ == _Loss.__module__)
    name = kind.__name__ if is_known else _name(plain)
    _check_loss(function, settings, name)
    ignored = settings.get("ignore_index", -100 if kind in (nn.CrossEntropyLoss, nn.NLLLoss) else None)
    ignored = ignored if type(ignored) is int else None
    if not is_known:
        return BatchLoss(OwnLoss(function, name), labels, ignored=ignored)
    if isinstance(labels, Classes):
        _check_classes(kind, name, labels.num_classes)
    threshold = 0.5 if kind is nn.BCELoss else 0.0
    return BatchLoss(KnownLoss(function, name, kind, labels), labels, ignored=ignored, threshold=threshold)


def _check_loss(function: Any, settings: Mapping[str, Any], name: str) -> None:
    if isinstance(function, nn.Module) and any(p.requires_grad for p in function.parameters()):
        raise InvalidInput(
            f"the loss {name} has parameters, which nobody would train; make them a part of the module"
        )
    reduction = settings.get("reduction", "mean")
    if reduction not in ("mean", "batchmean"):
        raise InvalidInput(
            f"the loss {name} has reduction={reduction!r}; the mean over a batch is needed: write "
            'reduction="mean"'
        )


def _check_classes(kind: type, name: str, num_classes: int) -> None:
    if kind in NUMBERS:
        raise InvalidInput(
            f"{name} compares numbers, and the labels are classes; write nn.CrossEntropyLoss(), or give "
            "labels as floats: labels.astype(float)"
        )
    if kind in BINARY and num_classes != 2:
        raise InvalidInput(
            f"{name} separates 2 classes, and the labels have {num_classes}; write nn.CrossEntropyLoss()"
        )


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _without_one(tensor: Tensor) -> tuple[int, ...]:
    """Returns the shape, without a last axis of length one."""
    shape = tuple(tensor.shape)
    return shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape


def _describe(outputs: Any, labels: Tensor) -> str:
    return f"scores of {_describe_one(outputs)} and labels of {_describe_one(labels)}"


def _describe_one(found: Any) -> str:
    if isinstance(found, torch.Tensor):
        return f"shape {tuple(found.shape)} and dtype {str(found.dtype).removeprefix('torch.')}"
    size = f" of {len(found)}" if hasattr(found, "__len__") else ""
    return f"a {type(found).__name__}{size}"
