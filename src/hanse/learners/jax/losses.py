"""Losses, metrics and predictions by example, on JAX."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from hanse.learners.examples import Anything, Characters, Classes, Labels, Numbers
from hanse.learners.jax.programs import Traced

__all__ = ["LOSSES", "PREDICTIONS", "WeightedCrossEntropy"]


def _cross_entropy(scores: Traced, classes: Traced) -> Traced:
    chosen = jnp.take_along_axis(scores, classes[..., None], -1)[..., 0]
    return jax.nn.logsumexp(scores, -1) - chosen


@dataclass(frozen=True)
class WeightedCrossEntropy:
    """Cross-entropy times the weight of the true class. Equal ones share their compiled programs."""

    weights: tuple[float, ...]

    def __call__(self, scores: Traced, classes: Traced) -> Traced:
        return _cross_entropy(scores, classes) * jnp.array(self.weights, scores.dtype)[classes]


def _correct(scores: Traced, classes: Traced) -> Traced:
    if scores.ndim == 1 or scores.shape[-1] == 1:  # one score for two classes, as binary losses want
        right = (scores.reshape(classes.shape) > 0) == (classes > 0)
    else:
        right = scores.argmax(-1) == classes
    return right.astype(scores.dtype)


def _text_cross_entropy(scores: Traced, characters: Traced) -> Traced:
    return _cross_entropy(scores, characters).mean(-1)


def _text_correct(scores: Traced, characters: Traced) -> Traced:
    return _correct(scores, characters).mean(-1)


def _square_error(scores: Traced, targets: Traced) -> Traced:
    return jnp.square(scores - targets)


def _half_square(scores: Traced, targets: Traced) -> Traced:
    return _square_error(scores, targets) / 2


LOSSES: Mapping[type[Labels], tuple[Callable[[Traced, Traced], Traced], ...]] = {
    Classes: (_cross_entropy, _correct),
    Characters: (_text_cross_entropy, _text_correct),
    Numbers: (_half_square, _square_error),
    Anything: (_half_square,),
}
"""The loss and then the other metrics, in the order of `Labels.metrics`."""


def _probabilities(scores: Traced) -> Traced:
    if scores.ndim == 1 or scores.shape[-1] == 1:  # one score for two classes, as binary losses want
        ones = jax.nn.sigmoid(scores.reshape(-1))
        return jnp.stack([1 - ones, ones], 1)
    return jax.nn.softmax(scores, -1)


def _outputs(scores: Traced) -> Traced:
    return scores[:, 0] if scores.ndim == 2 and scores.shape[1] == 1 else scores


PREDICTIONS: Mapping[type[Labels], Callable[[Traced], Traced]] = {
    Classes: _probabilities,
    Characters: _probabilities,
    Numbers: _outputs,
    Anything: _outputs,
}
"""Probabilities, or numbers, from scores."""
