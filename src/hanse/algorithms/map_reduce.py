"""Parallel gradient descent by map and reduce, as lectures write it.

Dean, Ghemawat, "MapReduce: Simplified data processing on large clusters", OSDI 2004; for gradients: Chu, Kim,
Lin, Yu, Bradski, Ng, Olukotun, "Map-reduce for machine learning on multicore", NeurIPS 2006.
"""

from typing import Any

import numpy as np

from hanse.algorithms.client_optimisers import sgd
from hanse.algorithms.optimisers import OptimiserState
from hanse.algorithms.schedules import Rate, check_rate
from hanse.algorithms.works import Weighting, by_examples, gradient
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
    gather,
    mean,
    sample,
    stack,
    value,
)

__all__ = ["map_reduce"]


@value
class map_reduce(Algorithm[OptimiserState]):
    """Broadcast the parameters, map them to gradients, reduce the gradients, update the parameters.

        broadcast   w to all workers
        map         g_k = grad F_k(w), each worker on its own data
        reduce      g = sum_k n_k g_k / sum_k n_k     with `mean()`
                    g = sum_k n_k g_k                 with `sum()` or `stack()`
        update      w <- w - lr g

    It is gradient descent on the pooled objective, to rounding, on however many workers, and converges to its
    optimum. With `mean()` and `sum()` the gradients are added up on the way. `stack()` collects all of them
    at the server, which then adds them itself: the same sum, but the server holds every gradient. The step
    along a sum is as many times longer as there are examples, so write a smaller lr. `fed_sgd` is the same
    on a part of the clients, with optimisers at the server.

    Args:
      lr: step size: a number or a schedule.
      weighting: `by_examples()`, or `uniform()` with n_k = 1.
      uplink: transforms of the gradients, first to last.
      into: how gradients are reduced: `mean()`, `sum()`, `stack()` or another reducer.
      close: when a round closes.
    """

    lr: Rate = 0.1
    weighting: Weighting = by_examples()
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    close: Close = Close()

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return OptimiserState(params)

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        workers = yield from sample(key, fraction=1.0)
        broadcast = {"params": state.params}
        reduced = PartSpec(Spec.of(state.params), self.uplink, self.into)
        got = yield from gather(
            gradient(self.weighting), workers.cohort, broadcast, key, close=self.close, gradient=reduced
        )
        total = got["gradient"].values
        if isinstance(self.into, stack):
            total = _add_up(total)
        return state.descend(sgd(), self.lr, total)


def _add_up(collected: Tensors) -> Tensors:
    """Adds up the gradients that were collected, each times its weight."""
    weights = collected["weight"]
    return {
        name: np.asarray(np.tensordot(weights.astype(gradients.dtype), gradients, 1))
        for name, gradients in collected.items()
        if name != "weight"
    }
