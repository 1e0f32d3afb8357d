"""Local training for learners that compute a gradient at given parameters, also in a restricted space."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from hanse.core import Array, InvalidInput, LocalProblem, Tensors, add, add_scaled
from hanse.core.exchange import Everything
from hanse.learners.model import batches

__all__ = ["descend_within"]

Rows: TypeAlias = Array | slice


def descend_within(
    start: Tensors, problem: LocalProblem, gradient_at: Callable[[Tensors, Rows, int], Tensors]
) -> Tensors:
    """Runs the steps of a problem on the coordinates of its space, as `Space` documents it.

    Args:
      start: the parameters that the updates of the space are added to.
      gradient_at: the gradient at given parameters on given rows, in a step of given number, from 0.

    Returns: the coordinates; without a space, the update.
    """
    steps, offset = problem.steps, problem.offset
    space = problem.space or Everything(start)
    if problem.space is not None and (steps.lr_scales or steps.rule.weight_decay):
        name = "lr_scales" if steps.lr_scales else "weight_decay"
        raise InvalidInput(
            f"{name} is for parameters, but the update is trained inside a restricted space; leave one of "
            "them out"
        )
    coordinates = space.zero()
    rates = steps.lr_of(coordinates)
    slots = steps.rule.start(coordinates)
    for number, rows in enumerate(batches(len(problem.data), steps, problem.key)):
        update = space.expand(coordinates)
        here = add(start, update)
        gradient = add_scaled(gradient_at(here, rows, number), steps.proximal, update)
        if offset is not None:
            gradient = add(gradient, offset)
        held = here if problem.space is None else coordinates  # weight decay is of parameters
        direction, slots = steps.rule.direction(number + 1, held, space.pullback(gradient), slots)
        coordinates = {
            name: np.asarray(w - w.dtype.type(rates[name]) * direction[name])
            for name, w in coordinates.items()
        }
    return coordinates
