"""SCAFFOLD: stochastic controlled averaging.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic controlled averaging for federated
learning", ICML 2020, arXiv 1910.06378, Algorithm 1, option II.
"""

from dataclasses import field

import numpy as np

from hanse.algorithms.client_optimisers import sgd
from hanse.algorithms.lengths import check_linear, measure_length
from hanse.algorithms.local import LocalTraining
from hanse.algorithms.optimisers import Moments, OptimiserState, ServerOptimiser, check_server
from hanse.algorithms.schedules import Rate
from hanse.algorithms.works import Weighting, exchange
from hanse.core import (
    Contribution,
    DifferentiableLearner,
    Examples,
    Key,
    Keys,
    LocalProblem,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    Steps,
    Tensors,
    TensorSpec,
    Transform,
    Work,
    add,
    add_scaled,
    negate,
    scale,
    subtract,
    value,
    zeros_like,
)
from hanse.core import sum as sum_

__all__ = ["scaffold"]


@value
class Controlled:
    """The model, the server's control variate c, the weight of the clients in c, and the server's memory."""

    params: Tensors
    control: Tensors
    seen: float = 0.0
    num_rounds: int = 0
    moments: Moments = field(default_factory=dict)


@value
class controlled_sgd(Work[DifferentiableLearner, Examples]):
    """Takes local steps along g - c_k + c; remembers c_k.

    Emits "update", the change of the "control" variate, and "seen", the client's weight if it is new.
    """

    steps: Steps
    weighting: Weighting

    def cost(self, num_examples: int) -> float:
        return self.steps.count_visits(num_examples)

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        params, control = shared["params"], shared["control"]
        own = memory.get("control")
        seen = np.array(0.0 if own else self.weighting.of(len(data)))
        own = own or zeros_like(params)
        offset = subtract(control, own)
        update = learner.local_sgd(params, LocalProblem(data, self.steps, keys.public, offset))
        per_step = 1.0 / (measure_length(self.steps, len(data)) * self.steps.lr)
        change = add_scaled(negate(control), -per_step, update)
        weight = self.weighting.of(len(data))
        kept = {**memory, "control": add(own, change)}
        parts = {"update": Part(update, weight), "control": Part(change, weight)}
        return {**parts, "seen": Part({"weight": seen})}, kept


@value
class scaffold(LocalTraining[Controlled]):
    """Control variates correct each client's steps by how its gradient differs from everybody's.

        w_k <- w_k - lr (grad F_k(w_k) - c_k + c);   c_k <- c_k - c + (w - w_k) / (steps lr)
        w <- w + server_lr * mean(w_k - w);          c <- mean(c_k)

    Converges to the optimum of the objective in which clients count by `weighting` (with `by_examples()`
    the pooled one), however they differ, however many local steps they take and whoever takes part.
    To that end c averages, by the same weighting, the variates of all clients seen so far; the paper's
    c + |S|/N mean(change) is the same where every client counts alike and has been seen.

    Args:
      lr: the clients' step size: a number or a schedule.
      fraction: of the clients in each round; at least one. None: as in `fed_avg`.
      epochs: local passes over the data.
      batch_size: examples a local step; None: all of a client's.
      weighting: `by_examples()` or `uniform()`.
      close: when a round closes.
      client: the clients' training, in place of lr, epochs and batch_size: `sgd()`, also with momentum;
        then c_k is the mean gradient as the momentum weighs it.
      server_lr: step size on the mean update: a number or a schedule.
      server: how the server uses the mean update, as in `fed_avg`.
      uplink: transforms of updates and of control variates, first to last.
      downlink: transforms of the broadcast; clients receive the difference to what they hold.
    """

    server_lr: Rate = 1.0
    server: ServerOptimiser = sgd()
    uplink: tuple[Transform, ...] = ()
    downlink: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_server(self.server, self.server_lr)
        check_linear(self, self.steps(0))

    def init(self, params: Tensors, key: Key) -> Controlled:
        return Controlled(params, zeros_like(params), moments=self.server.init(params))

    def round(self, state: Controlled, key: Key) -> Program[Controlled]:
        like_params = Spec.of(state.params)
        got = yield from exchange(
            controlled_sgd(self.steps(state.num_rounds), self.weighting),
            {"params": state.params, "control": state.control},
            key,
            fraction=self.fraction,
            close=self.close,
            downlink=self.downlink,
            update=PartSpec(like_params, self.uplink),
            control=PartSpec(like_params, self.uplink, into=sum_()),
            seen=PartSpec(Spec({"weight": TensorSpec((), "float64")}), into=sum_()),
        )
        seen = state.seen + float(got["seen"].values["weight"])
        old, new = state.seen / seen, 1.0 / seen
        trained = OptimiserState(state.params, state.num_rounds, state.moments)
        trained = trained.advance(self.server, self.server_lr, got["update"].values)
        return Controlled(
            trained.params,
            add_scaled(scale(state.control, old), new, got["control"].values),
            seen,
            trained.num_rounds,
            trained.moments,
        )
