"""FedDyn: dynamic regularisation.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama, "Federated learning based on dynamic
regularization", ICLR 2021, arXiv 2111.04263, Algorithm 1.
"""

import numpy as np

from hanse.algorithms.local import LocalTraining
from hanse.algorithms.works import Weighting, uniform
from hanse.core import (
    Contribution,
    Examples,
    Key,
    Keys,
    Learner,
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
    """

    params: Tensors
    gradients: Tensors
    seen: float = 0.0
    num_seen: float = 0.0
    num_rounds: int = 0


@value
class dynamic_sgd(Work[Learner, Examples]):
    """Takes local steps on F_k(v) - <g_k, v> + (alpha/2) |v - w|²; remembers g_k.

    Emits "update", and "seen": the client's weight and 1 if it is new.
    """

    steps: Steps
    weighting: Weighting

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        params = shared["params"]
        gradient, new = memory.get("slope"), "slope" not in memory
        gradient = gradient or zeros_like(params)
        update = learner.local_sgd(params, data, self.steps, keys.public, offset=negate(gradient))
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
      fraction: of the clients in each round; at least one.
      epochs: local passes over the data; they set how well the local problem is solved.
      batch_size: examples a local step; None: all of a client's.
      weighting: `uniform()` or `by_examples()`.
      close: when a round closes.
      alpha: strength of the regulariser; small is fast, too small diverges.
    """

    weighting: Weighting = uniform()
    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def init(self, params: Tensors, key: Key) -> Regularised:
        return Regularised(params, zeros_like(params))

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
        params = add_scaled(add(state.params, update.values), -1 / (self.alpha * everybody), gradients)
        return Regularised(params, gradients, seen, num_seen, state.num_rounds + 1)
