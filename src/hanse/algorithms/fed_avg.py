"""Federated averaging.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient learning of deep networks
from decentralized data", AISTATS 2017, arXiv 1602.05629, Algorithm 1.
"""

from typing import Any

from hanse.algorithms.works import Weighting, by_examples, local_sgd
from hanse.core.algorithm import Algorithm, Model
from hanse.core.chain import Transform
from hanse.core.errors import InvalidInput
from hanse.core.keys import Key
from hanse.core.learner import Steps
from hanse.core.program import Channel, Close, Program, gather, sample
from hanse.core.reducers import Reducer, mean
from hanse.core.spec import Spec
from hanse.core.tensors import Tensors, tree_map
from hanse.core.values import value

__all__ = ["fed_avg"]


@value
class fed_avg(Algorithm[Model]):
    """Each of a random cohort trains locally; the server adds the mean of their updates.

        w <- w + server_lr * sum_k n_k (w_k - w) / sum_k n_k

    Converges to a point near the optimum of the weighted objective: at a fixed step, clients that
    differ and take several local steps pull it away from the optimum itself (client drift).
    With one epoch, full batches and every client it is gradient descent on the pooled data.

    Args:
      lr: the clients' step size.
      fraction: of the clients that each round trains, C in the paper; at least one.
      epochs: local passes over the data, E.
      batch_size: local batch, B; None: all of a client's examples.
      server_lr: step size on the mean update; 1 is the paper's.
      weighting: `by_examples()` (the paper's) or `uniform()`.
      uplink: transforms of the updates, first to last.
      into: the reducer.
      close: when a round closes.
    """

    lr: float = 0.1
    fraction: float = 0.1
    epochs: int = 1
    batch_size: int | None = 10
    server_lr: float = 1.0
    weighting: Weighting = by_examples()
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    close: Close = Close()

    def __post_init__(self) -> None:
        Steps(self.lr, self.epochs, self.batch_size)
        check_fraction(self.fraction)
        if not self.server_lr > 0:
            raise InvalidInput(f"server_lr is {self.server_lr}; write a step size above 0")

    def init(self, params: Tensors, key: Key) -> Model:
        return Model(params)

    def round(self, state: Model, key: Key) -> Program[Model]:
        params = state.params
        work = local_sgd(Steps(self.lr, self.epochs, self.batch_size), self.weighting)
        update = Channel(Spec.of(params), self.uplink, self.into)
        chosen = yield from sample(key, fraction=self.fraction)
        got = yield from gather(work, chosen.cohort, {"params": params}, key, close=self.close, update=update)
        moved = got["update"].values
        return Model(tree_map(lambda w, u: w + w.dtype.type(self.server_lr) * u, params, moved))


def check_fraction(fraction: float) -> None:
    """Raises: InvalidInput: if it is no share of the clients."""
    if not 0 < fraction <= 1:
        raise InvalidInput(f"fraction is {fraction}; write a share of the clients above 0 and at most 1")
