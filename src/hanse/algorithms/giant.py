"""GIANT: globally improved approximate Newton.

Wang, Roosta, Xu, Mahoney, "GIANT: Globally improved approximate Newton method for distributed
optimization", NeurIPS 2018, arXiv 1709.03528, Algorithms 1 and 2.
"""

import numpy as np

from hanse.algorithms.solvers import conjugate_gradients
from hanse.algorithms.works import gradient
from hanse.core import (
    Algorithm,
    Close,
    Contribution,
    DifferentiableLearner,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Memory,
    ModelState,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Work,
    add_scaled,
    check_below_one,
    check_count,
    check_fraction,
    check_positive,
    dot,
    gather,
    sample,
    value,
)

__all__ = ["giant"]


@value
class newton_direction(Work[DifferentiableLearner, Examples]):
    """Solves H_k p = g by conjugate gradients, where g is the global gradient; emits "direction"."""

    num_iterations: int
    tolerance: float

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        params, gradient = shared["params"], shared["gradient"]
        solution = conjugate_gradients(
            lambda v: learner.hessian_vector(params, data, v), gradient, self.num_iterations, self.tolerance
        )
        return {"direction": Part(solution, float(len(data)))}, memory


@value
class objectives_along(Work[DifferentiableLearner, Examples]):
    """Evaluates the client's objective at params - step * direction for several steps; emits "objectives"."""

    steps: tuple[float, ...]

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        params, direction = shared["params"], shared["direction"]
        losses = [
            learner.objective(add_scaled(params, -step, direction), data) for step in (0.0, *self.steps)
        ]
        return {"objectives": Part({"objectives": np.array(losses)}, float(len(data)))}, memory


@value
class giant(Algorithm[ModelState]):
    """An approximate Newton step from the mean of the clients' directions, with a line search.

        g = mean(grad F_k(w));   p = mean(H_k(w)^-1 g);   w <- w - a p

    a is the largest of `steps` that satisfies Armijo's condition F(w - a p) <= F(w) - c a <p, g>, or the
    smallest. Converges to the pooled optimum of a strongly convex objective, as near as differences of
    the objective can tell (half the digits). A round takes three exchanges; every client counts in
    proportion to its examples.

    Args:
      fraction: of the clients in each round; the guarantees are for 1.
      num_iterations: steps of conjugate gradients, at most.
      tolerance: conjugate gradients stop once the residual has shrunk by this factor.
      steps: step sizes that the line search tries, largest first.
      armijo: c.
      close: when each of the three exchanges closes.
    """

    fraction: float = 1.0
    num_iterations: int = 100
    tolerance: float = 1e-6
    steps: tuple[float, ...] = tuple(0.5**i for i in range(10))
    armijo: float = 0.1
    close: Close = Close()

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        check_count("num_iterations", self.num_iterations)
        check_positive("tolerance", self.tolerance)
        check_below_one("armijo", self.armijo)
        if not self.steps or min(self.steps) <= 0:
            raise InvalidInput(f"steps is {self.steps}; write step sizes above 0, largest first")

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        params, close = state.params, self.close
        like_params = PartSpec(Spec.of(params))
        per_step = PartSpec(Spec({"objectives": TensorSpec((1 + len(self.steps),), "float64")}))
        cohort = (yield from sample(key, fraction=self.fraction)).cohort

        shared = {"params": params}
        got = yield from gather(gradient(), cohort, shared, key.fold_in(1), close=close, gradient=like_params)
        mean_gradient = got["gradient"].values
        solve = newton_direction(self.num_iterations, self.tolerance)
        shared = {"params": params, "gradient": mean_gradient}
        got = yield from gather(solve, cohort, shared, key.fold_in(2), close=close, direction=like_params)
        direction = got["direction"].values
        search = objectives_along(self.steps)
        shared = {"params": params, "direction": direction}
        got = yield from gather(search, cohort, shared, key.fold_in(3), close=close, objectives=per_step)
        losses = got["objectives"].values["objectives"]

        descent = self.armijo * dot(direction, mean_gradient)
        enough = (
            a for a, loss in zip(self.steps, losses[1:], strict=True) if loss <= losses[0] - a * descent
        )
        return ModelState(add_scaled(params, -next(enough, self.steps[-1]), direction))
