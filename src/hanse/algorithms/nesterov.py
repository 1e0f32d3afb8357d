"""Nesterov's accelerated gradient descent, with the clients' gradients.

Nesterov, "Introductory lectures on convex optimization", 2004, scheme 2.2.9 (constant step, strongly convex);
first in "A method of solving a convex programming problem with convergence rate O(1/k²)", 1983.
"""

from typing import Any

from hanse.algorithms.schedules import Rate, check_rate, rate
from hanse.algorithms.works import Weighting, by_examples, exchange, gradient
from hanse.core import (
    Algorithm,
    Close,
    Key,
    PartSpec,
    Program,
    Reducer,
    Spec,
    Tensors,
    Transform,
    add_scaled,
    check_below_one,
    check_fraction,
    mean,
    subtract,
    value,
)

__all__ = ["nesterov"]


@value
class Accelerated:
    """The model, the point ahead of it where the next gradient is taken, and the number of closed rounds."""

    params: Tensors
    ahead: Tensors
    num_rounds: int = 0


@value
class nesterov(Algorithm[Accelerated]):
    """Gradient descent that looks ahead.

        w' = y - lr * mean(grad F_k(y));   y <- w' + momentum (w' - w);   w <- w'

    Converges to the optimum of the weighted objective (with `by_examples()` the pooled one) with every
    client in each round. If its second derivatives are between l and L, lr = 1/L and momentum
    (√L - √l) / (√L + √l) need about √(L/l) rounds where gradient descent needs L/l.

    Args:
      lr: step size: a number or a schedule.
      momentum: from 0 (gradient descent) to below 1.
      fraction: of the clients in each round; the guarantees are for 1.
      weighting: `by_examples()` or `uniform()`.
      uplink: transforms of the gradients, first to last.
      into: the reducer.
      close: when a round closes.
    """

    lr: Rate = 0.1
    momentum: float = 0.9
    fraction: float = 1.0
    weighting: Weighting = by_examples()
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    close: Close = Close()

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        check_fraction(self.fraction)
        check_below_one("momentum", self.momentum)

    def init(self, params: Tensors, key: Key) -> Accelerated:
        return Accelerated(params, params)

    def round(self, state: Accelerated, key: Key) -> Program[Accelerated]:
        got = yield from exchange(
            gradient(self.weighting),
            {"params": state.ahead},
            key,
            fraction=self.fraction,
            close=self.close,
            gradient=PartSpec(Spec.of(state.params), self.uplink, self.into),
        )
        params = add_scaled(state.ahead, -rate(self.lr, state.num_rounds), got["gradient"].values)
        step = subtract(params, state.params)
        return Accelerated(params, add_scaled(params, self.momentum, step), state.num_rounds + 1)
