"""SCAFFOLD: stochastic controlled averaging.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic controlled averaging for federated
learning", ICML 2020, arXiv 1910.06378, Algorithm 1, option II.
"""

import numpy as np

from hanse.algorithms.fed_avg import check_fraction
from hanse.algorithms.works import Weighting, by_examples
from hanse.core.algorithm import Algorithm
from hanse.core.chain import Transform
from hanse.core.errors import InvalidInput
from hanse.core.keys import Key, Keys
from hanse.core.learner import Examples, Learner, Steps
from hanse.core.program import Channel, Close, Program, gather, sample
from hanse.core.reducers import sum as sum_
from hanse.core.spec import Spec, TensorSpec
from hanse.core.tensors import Tensors, tree_map, zeros_like
from hanse.core.values import value
from hanse.core.work import Contribution, Memory, Part, Shared, Work

__all__ = ["scaffold"]


@value
class Controlled:
    """The model, the server's control variate c, and the weight of the clients that it averages."""

    params: Tensors
    control: Tensors
    seen: float


@value
class controlled_sgd(Work[Learner, Examples]):
    """Local steps along g - c_k + c; remembers c_k.

    Emits "update", the change of the "control" variate, and "seen", the client's weight if it is new.
    """

    steps: Steps
    weighting: Weighting

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        params, control = shared["params"], shared["control"]
        own = memory.get("control")
        seen = np.array(0.0 if own else self.weighting.of(len(data)))
        own = own or zeros_like(params)
        offset = tree_map(lambda c, c_k: c - c_k, control, own)
        update = learner.local_sgd(params, data, self.steps, keys.public, offset=offset)
        scale = 1.0 / (self.steps.num_steps(len(data)) * self.steps.lr)
        change = tree_map(lambda c, u: -c - u.dtype.type(scale) * u, control, update)
        weight = self.weighting.of(len(data))
        kept = {**memory, "control": tree_map(lambda c_k, d: c_k + d, own, change)}
        parts = {"update": Part(update, weight), "control": Part(change, weight)}
        return {**parts, "seen": Part({"weight": seen})}, kept


@value
class scaffold(Algorithm[Controlled]):
    """Control variates correct each client's steps by how its gradient differs from everybody's.

        w_k <- w_k - lr (grad F_k(w_k) - c_k + c);   c_k <- c_k - c + (w - w_k) / (steps lr)
        w <- w + server_lr * mean(w_k - w);          c <- mean(c_k)

    Converges to the optimum of the objective in which clients count by `weighting` (with `by_examples()`
    the pooled one), however they differ, however many local steps they take and whoever takes part.
    For that, c averages, by the same weighting, the variates of all clients seen so far; the paper's
    c + |S|/N mean(change) is the same where every client counts alike and has been seen.

    Args:
      lr: the clients' step size.
      fraction: of the clients in each round; at least one.
      epochs: local passes over the data.
      batch_size: local batch; None: all of a client's examples.
      server_lr: step size on the mean update.
      weighting: `by_examples()` or `uniform()`.
      uplink: transforms of updates and of control variates, first to last.
      close: when a round closes.
    """

    lr: float = 0.1
    fraction: float = 1.0
    epochs: int = 1
    batch_size: int | None = 10
    server_lr: float = 1.0
    weighting: Weighting = by_examples()
    uplink: tuple[Transform, ...] = ()
    close: Close = Close()

    def __post_init__(self) -> None:
        Steps(self.lr, self.epochs, self.batch_size)
        check_fraction(self.fraction)
        if not self.server_lr > 0:
            raise InvalidInput(f"server_lr is {self.server_lr}; write a step size above 0")

    def init(self, params: Tensors, key: Key) -> Controlled:
        return Controlled(params, zeros_like(params), 0.0)

    def round(self, state: Controlled, key: Key) -> Program[Controlled]:
        params, control = state.params, state.control
        work = controlled_sgd(Steps(self.lr, self.epochs, self.batch_size), self.weighting)
        like_params = Spec.of(params)
        chosen = yield from sample(key, fraction=self.fraction)
        got = yield from gather(
            work,
            chosen.cohort,
            {"params": params, "control": control},
            key,
            close=self.close,
            update=Channel(like_params, self.uplink),
            control=Channel(like_params, self.uplink, into=sum_()),
            seen=Channel(Spec({"weight": TensorSpec((), "float64")}), into=sum_()),
        )
        seen = state.seen + float(got["seen"].values["weight"])
        old, new = state.seen / seen, 1.0 / seen
        return Controlled(
            tree_map(lambda w, u: w + w.dtype.type(self.server_lr) * u, params, got["update"].values),
            tree_map(
                lambda c, d: c.dtype.type(old) * c + c.dtype.type(new) * d,
                control,
                got["control"].values,
            ),
            seen,
        )
