"""The length of local training: how many gradients an update is worth."""

from typing import Any

import numpy as np

from hanse.core import InvalidInput, Steps, nesterov_rule, sgd_rule

__all__ = ["check_linear", "measure_length"]


def measure_length(steps: Steps, num_examples: int) -> float:
    """Returns |a|_1, where update = -lr sum_i a_i g_i: the weights with which gradients count in it.

    a_i is 1 for plain steps; (1 - lr mu)^(steps after it) with a proximal term; with momentum, a gradient
    also moves the steps after its own.

    References: Wang, Liu, Liang, Joshi, Poor, arXiv 2007.07481, section 4.1.
    """
    count, pull = steps.count_steps(num_examples), steps.proximal + steps.rule.weight_decay
    assert isinstance(steps.rule, sgd_rule)
    momentum = steps.rule.momentum
    if not momentum:
        return float(np.sum((1.0 - steps.lr * pull) ** np.arange(count)))
    length = velocity = 0.0
    ahead = isinstance(steps.rule, nesterov_rule)
    for _ in range(count):  # the update in a field of gradients that are 1 everywhere, in units of -lr
        gradient = 1.0 - steps.lr * pull * length
        velocity = momentum * velocity + gradient
        length += gradient + momentum * velocity if ahead else velocity
    return length


def check_linear(algorithm: Any, steps: Steps) -> None:
    """Raises InvalidInput unless updates are weighted sums of gradients, with the same weights everywhere."""
    if not isinstance(steps.rule, sgd_rule) or steps.lr_scales:
        what = "lr_scales" if steps.lr_scales else type(algorithm.client).__name__ + "()"
        raise InvalidInput(
            f"{type(algorithm).__name__}() needs updates that are weighted sums of gradients, which {what} "
            "does not give: use client=sgd(...), with momentum if you like"
        )
