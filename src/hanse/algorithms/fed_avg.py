"""Federated averaging.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient learning of deep networks
from decentralized data", AISTATS 2017, arXiv 1602.05629, Algorithm 1.
"""

from dataclasses import field
from typing import Any

from hanse.algorithms.client_optimisers import sgd
from hanse.algorithms.local import LocalTraining, check_sampling
from hanse.algorithms.optimisers import OptimiserState, ServerOptimiser, check_server
from hanse.algorithms.own_training import make_training_parts, refuse_weights
from hanse.algorithms.schedules import Rate
from hanse.algorithms.works import exchange, make_update_part
from hanse.core import Key, Program, Reducer, Tensors, Transform, mean, value

__all__ = ["fed_avg"]


@value
class fed_avg(LocalTraining[OptimiserState]):
    """Each client of a random cohort trains locally; the server adds the mean of their updates.

        w <- w + server_lr * sum_k n_k (w_k - w) / sum_k n_k

    Converges to a point near the optimum of the weighted objective: at a fixed step, clients that
    differ and take several local steps pull it away from the optimum itself (client drift), the further
    the more steps they take. With steps that decay (`lr=inverse_time(...)`) and clients that take equally
    many, it converges to the optimum, as O(1/T) where that is strongly convex (Li et al., ICLR 2020, arXiv
    1907.02189); where client k takes tau_k, clients count by n_k tau_k instead: see `fed_nova`.
    With one epoch, full batches and every client it is gradient descent on the pooled data.

    Args:
      lr: the clients' step size: a number or a schedule.
      fraction: of the clients that each round trains, C in the paper; at least one. None: a tenth of them,
        but at least 10, or all if they are fewer. A run stores the number that this comes to.
      epochs: local passes over the data, E.
      batch_size: local batch, B; None: all of a client's examples.
      weighting: `by_examples()` (the paper's) or `uniform()`.
      close: when a round closes.
      client: the clients' training, in place of lr, epochs and batch_size: `sgd()` with momentum and weight
        decay, `adam()`, `adamw()`, ...
      server_lr: step size on the mean update: a number or a schedule; 1 is the paper's.
      server: how the server uses the mean update: `sgd()` (the paper's: it steps along it),
        `momentum()`, `adam()`, ...; one with a step size of its own, `adam(0.01)`, replaces server_lr.
      uplink: transforms of the updates, first to last.
      into: the reducer.
      downlink: transforms of the broadcast; clients receive the difference to what they hold.
      sampling_rate: the probability with which each client takes part in a round, independently of others,
        in place of `fraction`. Only the server's secret decides it, as amplification of privacy needs.
      separation: a client that took part in a round is asked again so many rounds later at the earliest, as
        noise needs that is correlated over rounds (`tree`, `banded`). None: whenever it is drawn.
    """

    server_lr: Rate = 1.0
    server: ServerOptimiser = sgd()
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    downlink: tuple[Transform, ...] = ()
    sampling_rate: float | None = field(default=None, kw_only=True)
    separation: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sampling(self.fraction, self.sampling_rate, self.separation)
        check_server(self.server, self.server_lr)

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return OptimiserState(params, moments=self.server.init(params))

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        update = make_update_part(state.params, self.uplink, self.into, self.weighting)
        work = self.work(state.num_rounds)
        got = yield from exchange(
            refuse_weights(work) if update.chain().releases else work,
            {"params": state.params},
            key,
            fraction=self.fraction,
            rate=self.sampling_rate,
            without=state.find_resting(self.separation),
            close=self.close,
            downlink=self.downlink,
            update=update,
            **make_training_parts(self.training),
        )
        state = state.let_rest(got.parties, self.separation)
        return state.advance(self.server, self.server_lr, got["update"].values)
