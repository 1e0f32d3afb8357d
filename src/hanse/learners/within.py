"""Descent in a restricted space, for learners that compute a gradient at given parameters."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

from hanse.core.tensors import Array, Tensors
from hanse.core.work import Space

__all__ = ["descend_within"]

Rows: TypeAlias = Array | slice


def descend_within(
    space: Space,
    start: Tensors,
    slope: Callable[[Tensors, Rows, int], Tensors],
    batches: Iterable[Rows],
    lr: float,
    *,
    proximal: float = 0.0,
    offset: Tensors | None = None,
) -> Tensors:
    """Runs stochastic gradient descent on the coordinates of a space, as `Space` documents it.

    Args:
      space: where to train.
      start: the parameters that its updates are added to.
      slope: the gradient at given parameters on given rows, in a step of given number.
      batches: the rows of each step.
      lr: step size.
      proximal: pulls towards the start.
      offset: added to each gradient.

    Returns: the coordinates.
    """
    coordinates = space.zero()
    for number, rows in enumerate(batches):
        update = space.expand(coordinates)
        here = _each(lambda w, u: w + u, start, update)
        gradient = _each(lambda g, u: g + proximal * u, slope(here, rows, number), update)
        if offset is not None:
            gradient = _each(lambda g, o: g + o, gradient, offset)
        coordinates = _each(lambda z, g: z - lr * g, coordinates, space.pullback(gradient))
    return coordinates


def _each(function: Callable[..., Any], first: Tensors, *others: Tensors) -> Tensors:
    """Applies a function name by name; arithmetic on () arrays gives scalars, which become arrays again."""
    return {name: np.asarray(function(v, *(other[name] for other in others))) for name, v in first.items()}
