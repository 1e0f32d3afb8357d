"""Parallel gradient descent on a parameter server, and its stochastic form over clients.

The map-reduce of broadcast, map (gradients), reduce (mean or sum) and update; "FedSGD" in McMahan et
al., arXiv 1602.05629, section 2.
"""

from typing import Any

from hanse.algorithms.fed_avg import check_fraction
from hanse.algorithms.works import Weighting, by_examples, gradient
from hanse.core.algorithm import Algorithm, Model
from hanse.core.chain import Transform
from hanse.core.errors import InvalidInput
from hanse.core.keys import Key
from hanse.core.program import Channel, Close, Program, gather, sample
from hanse.core.reducers import Reducer, mean
from hanse.core.spec import Spec
from hanse.core.tensors import Tensors, tree_map
from hanse.core.values import value

__all__ = ["fed_sgd"]


@value
class fed_sgd(Algorithm[Model]):
    """Each of a cohort computes one full-batch gradient; the server takes one step along their reduction.

        w <- w - lr * reduce_k(n_k, grad F_k(w))

    With every client (fraction 1) and `mean()` it is gradient descent on the pooled objective and
    converges to its optimum. With `sum()` the step is taken along the sum over examples, so lr is
    smaller by their number; with `sum()` and `uniform()` along the plain sum of the clients' gradients.

    Args:
      lr: step size.
      fraction: of the clients in each round; at least one.
      weighting: `by_examples()` or `uniform()`.
      uplink: transforms of the gradients, first to last.
      into: `mean()`, `sum()` or another reducer.
      close: when a round closes.
    """

    lr: float = 0.1
    fraction: float = 1.0
    weighting: Weighting = by_examples()
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    close: Close = Close()

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        if not self.lr > 0:
            raise InvalidInput(f"lr is {self.lr}; write a step size above 0")

    def init(self, params: Tensors, key: Key) -> Model:
        return Model(params)

    def round(self, state: Model, key: Key) -> Program[Model]:
        params = state.params
        channel = Channel(Spec.of(params), self.uplink, self.into)
        chosen = yield from sample(key, fraction=self.fraction)
        got = yield from gather(
            gradient(self.weighting),
            chosen.cohort,
            {"params": params},
            key,
            close=self.close,
            gradient=channel,
        )
        slope = got["gradient"].values
        return Model(tree_map(lambda w, g: w - w.dtype.type(self.lr) * g, params, slope))
