"""FedNova: normalised averaging.

Wang, Liu, Liang, Joshi, Poor, "Tackling the objective inconsistency problem in heterogeneous federated
optimization", NeurIPS 2020, arXiv 2007.07481, equations 5 to 7 and section 4.
"""

import numpy as np

from hanse.algorithms.client_optimisers import sgd
from hanse.algorithms.lengths import check_linear, measure_length
from hanse.algorithms.local import LocalTraining
from hanse.algorithms.optimisers import OptimiserState, ServerOptimiser, check_server
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
    check_not_negative,
    divide,
    scale,
    value,
)

__all__ = ["fed_nova"]


@value
class normalised_sgd(Work[DifferentiableLearner, Examples]):
    """Takes local steps; emits the mean step as "direction", and how many it stands for as "length".

    The length is |a_k|_1, where a_k holds how much each gradient counts in the update: see `measure_length`.
    """

    steps: Steps
    weighting: Weighting

    def cost(self, num_examples: int) -> float:
        return self.steps.count_visits(num_examples)

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        update = learner.local_sgd(shared["params"], LocalProblem(data, self.steps, keys.public))
        length = measure_length(self.steps, len(data))
        weight = self.weighting.of(len(data))
        return {
            "direction": Part(divide(update, length), weight),
            "length": Part({"length": np.array(length)}, weight),
        }, memory


@value
class fed_nova(LocalTraining[OptimiserState]):
    """Clients that take more local steps do not count more: updates are averaged per step.

        d_k = (w_k - w) / tau_k;   w <- w + server_lr (sum_k p_k tau_k) sum_k p_k d_k

    Here tau_k is the number of client k's local steps (with momentum, the sum of the weights with which its
    gradients count in w_k - w) and p_k its share of the weights. Converges to a point
    near the optimum of the weighted objective, however unequal the tau_k are: only the drift of `fed_avg`
    remains, which shrinks with lr. (Plain averaging with unequal tau_k tends, as lr shrinks, to the
    optimum of another objective, in which clients count by p_k tau_k.)

    Args:
      lr: the clients' step size: a number or a schedule.
      fraction: of the clients in each round; at least one. None: as in `fed_avg`.
      epochs: local passes over the data; with `batch_size` they determine tau_k.
      batch_size: examples a local step; None: all of a client's.
      weighting: `by_examples()` or `uniform()`.
      close: when a round closes.
      client: the clients' training, in place of lr, epochs and batch_size: `sgd()`, also with momentum.
      server_lr: step size on the mean direction: a number or a schedule.
      server: how the server uses the mean direction, as in `fed_avg`.
      mu: strength of a proximal term, as in `fed_prox`.
      uplink: transforms of the directions, first to last.
      downlink: transforms of the broadcast; clients receive the difference to what they hold.
    """

    server_lr: Rate = 1.0
    server: ServerOptimiser = sgd()
    mu: float = 0.0
    uplink: tuple[Transform, ...] = ()
    downlink: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_server(self.server, self.server_lr)
        check_not_negative("mu", self.mu)
        check_linear(self, self.steps(0, proximal=self.mu))

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return OptimiserState(params, moments=self.server.init(params))

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        got = yield from exchange(
            normalised_sgd(self.steps(state.num_rounds, proximal=self.mu), self.weighting),
            {"params": state.params},
            key,
            fraction=self.fraction,
            close=self.close,
            downlink=self.downlink,
            direction=PartSpec(Spec.of(state.params), self.uplink),
            length=PartSpec(Spec({"length": TensorSpec((), "float64")})),
        )
        length = float(got["length"].values["length"])
        update = scale(got["direction"].values, length)
        return state.advance(self.server, self.server_lr, update)
