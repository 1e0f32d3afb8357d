"""FedProx: federated averaging whose clients are held near the server's model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated optimization in heterogeneous networks", MLSys 2020,
arXiv 1812.06127, Algorithm 2.
"""

from typing import Any

from hanse.algorithms.local import LocalTraining
from hanse.algorithms.optimisers import OptimiserState, sgd
from hanse.algorithms.works import exchange, local_sgd
from hanse.core import (
    Key,
    PartSpec,
    Program,
    Reducer,
    Spec,
    Tensors,
    Transform,
    check_not_negative,
    mean,
    value,
)

__all__ = ["fed_prox"]


@value
class fed_prox(LocalTraining[OptimiserState]):
    """Each client approximately minimises its objective plus a term that holds it near the server's model.

        w_k ~ argmin F_k(v) + (mu/2) |v - w|²;   w <- sum_k n_k w_k / sum_k n_k

    Converges to a point near the optimum of the weighted objective, nearer for a larger mu, which also
    makes it slower. With exact local solutions it stops where sum_k n_k (prox_k(w) - w) = 0. With mu = 0
    it is `fed_avg`; with one epoch and full batches the term has no effect.

    Args:
      lr: the clients' step size: a number or a schedule.
      fraction: of the clients in each round; at least one.
      epochs: local passes over the data; they set how well the local problem is solved.
      batch_size: examples a local step; None: all of a client's.
      weighting: `by_examples()` or `uniform()`.
      close: when a round closes.
      mu: strength of the term.
      uplink: transforms of the updates, first to last.
      into: the reducer.
      downlink: transforms of the broadcast; clients receive the difference to what they hold.
    """

    mu: float = 0.01
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    downlink: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("mu", self.mu)

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return OptimiserState(params)

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        got = yield from exchange(
            local_sgd(self.steps(state.num_rounds, proximal=self.mu), self.weighting),
            {"params": state.params},
            key,
            fraction=self.fraction,
            close=self.close,
            downlink=self.downlink,
            update=PartSpec(Spec.of(state.params), self.uplink, self.into),
        )
        return state.advance(sgd(), 1.0, got["update"].values)
