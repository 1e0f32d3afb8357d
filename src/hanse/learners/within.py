"""Descent in a restricted space, for learners that compute a gradient at given parameters."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from hanse.core import Array, Space, Tensors, add, add_scaled

__all__ = ["descend_within"]

Rows: TypeAlias = Array | slice


def descend_within(
    space: Space,
    start: Tensors,
    gradient_at: Callable[[Tensors, Rows, int], Tensors],
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
      gradient_at: the gradient at given parameters on given rows, in a step of given number.
      batches: the rows of each step.
      lr: step size.
      proximal: pulls towards the start.
      offset: added to each gradient.

    Returns: the coordinates.
    """
    coordinates = space.zero()
    for number, rows in enumerate(batches):
        update = space.expand(coordinates)
        here = add(start, update)
        gradient = add_scaled(gradient_at(here, rows, number), proximal, update)
        if offset is not None:
            gradient = add(gradient, offset)
        coordinates = add_scaled(coordinates, -lr, space.pullback(gradient))
    return coordinates
