"""FedDyn: dynamic regularisation.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama, "Federated learning based on dynamic
regularization", ICLR 2021, arXiv 2111.04263, Algorithm 1.
"""

from dataclasses import field

import numpy as np

from hanse.algorithms.client_optimisers import sgd
from hanse.algorithms.local import LocalTraining
from hanse.algorithms.optimisers import Moments, OptimiserState, ServerOptimiser, check_server
from hanse.algorithms.schedules import Rate
from hanse.algorithms.solvers import check_solver
from hanse.algorithms.works import Weighting, uniform
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
    Work,
    add,
    add_scaled,
    check_positive,
    gather,
    negate,
    sample,
    subtract,
    value,
    zeros_like,
)
from hanse.core import sum as sum_

__all__ = ["fed_dyn"]


@value
class Regularised:
    """The model, the weighted sum of the clients' gradients, and the weight and number of these clients.

    Args:
      params: w.
      gradients: sum over clients of p_k g_k, unnormalised; g_k is 0 for clients never seen.
      seen: the weight of the clients seen so far, and `num_seen` their number.
      num_rounds: the rounds that closed.
      moments: what the server's optimiser remembers.
    """

    params: Tensors
    gradients: Tensors
    seen: float = 0.0
    num_seen: float = 0.0
    num_rounds: int = 0
    moments: Moments = field(default_factory=dict)


@value
class dynamic_sgd(Work[DifferentiableLearner, Examples]):
    """Takes local steps on F_k(v) - <g_k, v> + (alpha/2) |v - w|²; remembers g_k.

    Emits "update", and "seen": the client's weight and 1 if it is new.
    """

    steps: Steps
    weighting: Weighting

    def cost(self, num_examples: int) -> float:
        return self.steps.count_visits(num_examples)

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        params = shared["params"]
        gradient, new = memory.get("slope"), "slope" not in memory
        gradient = gradient or zeros_like(params)
        problem = LocalProblem(data, self.steps, keys.public, negate(gradient))
        update = learner.local_sgd(params, problem)
        weight = self.weighting.of(len(data))
        seen = {"weight": np.array(weight * new), "count": np.array(1.0 * new)}
        kept = {**memory, "slope": add_scaled(gradient, -self.steps.proximal, update)}
        return {"update": Part(update, weight), "seen": Part(seen)}, kept


@value
class fed_dyn(LocalTraining[Regularised]):
    """Each client's objective is tilted, round by round, until all have their minimum at one place.

        w_k ~ argmin F_k(v) - <g_k, v> + (alpha/2) |v - w|²;   g_k <- g_k - alpha (w_k - w)
        h = sum_k p_k g_k over all clients;                    w <- mean(w_k) - h / alpha

    Converges to the optimum of the objective in which clients count by `weighting` (with `uniform()`,
    which is the paper's, all alike; with `by_examples()` the pooled one), however they differ and however
    well they solve their local problems: it stops only where w_k = w, grad F_k(w) = g_k, and h = 0.

    A client that was never seen is assumed to have the mean weight of the others. There is no `uplink`,
    because the server's h must agree with what the clients remember.

    Args:
      lr: the clients' step size: a number or a schedule.
      fraction: of the clients in each round; at least one. None: as in `fed_avg`.
      epochs: local passes over the data; they set how well the local problem is solved.
      batch_size: examples a local step; None: all of a client's.
      weighting: `uniform()` or `by_examples()`.
      close: when a round closes.
      alpha: strength of the regulariser; small is fast, too small diverges.
      client: the clients' training, in place of lr, epochs and batch_size: `sgd()` or `adam()`,
        without weight decay, which would change the objective.
      server_lr: step size on the server's move: a number or a schedule; 1 is the paper's.
      server: how the server uses its move, as in `fed_avg`.
    """

    weighting: Weighting = uniform()
    alpha: float = 0.1
    server_lr: Rate = 1.0
    server: ServerOptimiser = sgd()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_server(self.server, self.server_lr)
        self.steps(0, proximal=self.alpha)
        check_solver("fed_dyn", self.training)

    def init(self, params: Tensors, key: Key) -> Regularised:
        return Regularised(params, zeros_like(params), moments=self.server.init(params))

    def round(self, state: Regularised, key: Key) -> Program[Regularised]:
        chosen = yield from sample(key, fraction=self.fraction)
        got = yield from gather(
            dynamic_sgd(self.steps(state.num_rounds, proximal=self.alpha), self.weighting),
            chosen.cohort,
            {"params": state.params},
            key,
            close=self.close,
            update=PartSpec(Spec.of(state.params)),
            seen=PartSpec(
                Spec({name: TensorSpec((), "float64") for name in ("weight", "count")}), into=sum_()
            ),
        )
        update, new = got["update"], got["seen"].values
        seen, num_seen = state.seen + float(new["weight"]), state.num_seen + float(new["count"])
        gradients = add_scaled(state.gradients, -self.alpha * update.weight, update.values)
        everybody = seen / num_seen * chosen.num_clients
        minimum = add_scaled(add(state.params, update.values), -1 / (self.alpha * everybody), gradients)
        if self.server == sgd() and self.server_lr == 1.0:  # the paper's step, without a rounding more
            return Regularised(minimum, gradients, seen, num_seen, state.num_rounds + 1)
        trained = OptimiserState(state.params, state.num_rounds, state.moments)
        trained = trained.advance(self.server, self.server_lr, subtract(minimum, state.params))
        return Regularised(trained.params, gradients, seen, num_seen, trained.num_rounds, trained.moments)
