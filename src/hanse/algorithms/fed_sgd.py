"""Parallel gradient descent on a parameter server, and its stochastic form over clients.

It is the map-reduce of broadcast, map (gradients), reduce (mean or sum) and update; "FedSGD" in McMahan et
al., arXiv 1602.05629, section 2.
"""

from typing import Any

from hanse.algorithms.client_optimisers import sgd
from hanse.algorithms.optimisers import OptimiserState, ServerOptimiser
from hanse.algorithms.schedules import Rate, check_rate
from hanse.algorithms.works import Weighting, by_examples, exchange, gradient
from hanse.core import (
    Algorithm,
    Close,
    InvalidInput,
    Key,
    PartSpec,
    Program,
    Reducer,
    Spec,
    Tensors,
    Transform,
    check_fraction,
    mean,
    value,
)

__all__ = ["fed_sgd"]


@value
class fed_sgd(Algorithm[OptimiserState]):
    """Each client of a cohort computes one full-batch gradient; the server steps along their reduction.

        w <- w - lr * reduce_k(n_k, grad F_k(w))

    With every client (fraction 1) and `mean()` it is gradient descent on the pooled objective and
    converges to its optimum (with `uniform()`, to that of the uniformly weighted one). With `sum()` the
    step is taken along the sum over examples, so lr is smaller by their number; with `sum()` and
    `uniform()` along the plain sum of the clients' gradients.

    Args:
      lr: step size: a number or a schedule.
      fraction: of the clients in each round; at least one.
      weighting: `by_examples()` or `uniform()`.
      uplink: transforms of the gradients, first to last.
      into: `mean()`, `sum()` or another reducer.
      close: when a round closes.
      server: how the server uses the gradient: `sgd()` steps along it; `adam()` makes it Adam with
        data in parallel.
    """

    lr: Rate = 0.1
    fraction: float = 1.0
    weighting: Weighting = by_examples()
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    close: Close = Close()
    server: ServerOptimiser = sgd()

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        check_rate("lr", self.lr)
        self.server.check_server()
        if self.server.lr is not None:
            raise InvalidInput(
                f"fed_sgd() has lr={self.lr} and server = {type(self.server).__name__}({self.server.lr}); "
                "the step size is lr: leave the server's out"
            )

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return OptimiserState(params, moments=self.server.init(params))

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        got = yield from exchange(
            gradient(self.weighting),
            {"params": state.params},
            key,
            fraction=self.fraction,
            close=self.close,
            gradient=PartSpec(Spec.of(state.params), self.uplink, self.into),
        )
        return state.descend(self.server, self.lr, got["gradient"].values)
