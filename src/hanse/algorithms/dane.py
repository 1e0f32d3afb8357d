"""DANE: distributed approximate Newton.

Shamir, Srebro, Zhang, "Communication-efficient distributed optimization using an approximate Newton-type
method", ICML 2014, arXiv 1312.7853, Figure 1.
"""

from typing import ClassVar

from hanse.algorithms.client_optimisers import sgd
from hanse.algorithms.optimisers import OptimiserState
from hanse.algorithms.solvers import PROGRESS, Solver, Subproblem, check_solver, measure_progress, newton
from hanse.algorithms.works import gradient
from hanse.core import (
    Algorithm,
    Close,
    Contribution,
    DifferentiableLearner,
    Examples,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    Tensors,
    Work,
    add_scaled,
    check_fraction,
    check_not_negative,
    check_positive,
    gather,
    negate,
    sample,
    value,
)
from hanse.core.exchange import TRAINING

__all__ = ["dane"]


@value
class tilted_minimum(Work[DifferentiableLearner, Examples]):
    """Minimises F_k(v) - <grad F_k(w) - eta g, v> + (mu/2) |v - w|²; emits "update", v - w."""

    solver: Solver
    mu: float
    eta: float

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        params = shared["params"]
        offset = negate(add_scaled(learner.gradient(params, data), -self.eta, shared["gradient"]))
        problem = Subproblem(data, keys.public, offset, self.mu)
        update = self.solver.minimise(learner, params, problem)
        solved = measure_progress(learner, params, update, problem)
        return {"update": Part(update, float(len(data))), TRAINING: solved}, memory


@value
class dane(Algorithm[OptimiserState]):
    """Each client minimises its own objective, tilted so that its gradient at w is the global one.

        g = mean(grad F_k(w))
        w_k = argmin F_k(v) - <grad F_k(w) - eta g, v> + (mu/2) |v - w|²;   w <- mean(w_k)

    If it converges, it converges to the pooled optimum. With clients that are alike it is nearly Newton's
    method. With clients that differ it diverges unless mu is large enough, about as large as the difference
    of their Hessians. A round takes two exchanges; every client counts in proportion to its examples.

    Args:
      mu: holds the local solutions near w: slower, and safer.
      eta: scale of the global gradient.
      solver: how a client minimises: `newton()`, or `local_steps()` on any learner.
      fraction: of the clients in each round; the guarantees are for 1.
      close: when each of the two exchanges closes.
    """

    remedy: ClassVar[str] = "write a larger mu, about as large as the clients' Hessians differ"

    mu: float = 0.0
    eta: float = 1.0
    solver: Solver = newton()
    fraction: float = 1.0
    close: Close = Close()

    def __post_init__(self) -> None:
        check_not_negative("mu", self.mu)
        check_positive("eta", self.eta)
        check_fraction(self.fraction)
        check_solver("dane", self.solver)

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return OptimiserState(params)

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        params, close = state.params, self.close
        like_params = PartSpec(Spec.of(params))
        cohort = (yield from sample(key, fraction=self.fraction)).cohort

        shared = {"params": params}
        got = yield from gather(gradient(), cohort, shared, key.fold_in(1), close=close, gradient=like_params)
        shared = {"params": params, "gradient": got["gradient"].values}
        work = tilted_minimum(self.solver.at(state.num_rounds), self.mu, self.eta)
        got = yield from gather(
            work, cohort, shared, key.fold_in(2), close=close, update=like_params, training=PROGRESS
        )
        return state.advance(sgd(), 1.0, got["update"].values)
