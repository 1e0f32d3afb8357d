"""Solvers of a client's local problem, as values: Newton's method, or local steps.

From w0 on they minimise the client's objective with a linear term and a proximal term:

    F_k(w) + <offset, w> + (proximal/2) |w - w0|²
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hanse.algorithms.schedules import Rate, check_rate, rate
from hanse.core import (
    DifferentiableLearner,
    Examples,
    InvalidInput,
    Key,
    LocalProblem,
    Part,
    PartSpec,
    Spec,
    Steps,
    Tensors,
    TensorSpec,
    add,
    add_scaled,
    check_count,
    check_positive,
    dot,
    l2_norm,
    value,
    zeros_like,
)

__all__ = [
    "PROGRESS",
    "Solver",
    "Subproblem",
    "check_solver",
    "conjugate_gradients",
    "local_steps",
    "measure_progress",
    "newton",
]


@dataclass(frozen=True)
class Subproblem:
    """A client's local problem.

    Args:
      data: its examples.
      key: its draws come from here.
      offset: the linear term; None: none.
      proximal: strength of the proximal term.
    """

    data: Examples
    key: Key
    offset: Tensors | None = None
    proximal: float = 0.0

    def gradient(self, learner: DifferentiableLearner, start: Tensors, update: Tensors) -> Tensors:
        """Computes the gradient, at this update from `start`, of what a solver minimises."""
        tilt = zeros_like(start) if self.offset is None else self.offset
        tilted = add(learner.gradient(add(start, update), self.data), tilt)
        return add_scaled(tilted, self.proximal, update)


class Solver(ABC):
    """Minimises F_k(w) + <offset, w> + (proximal/2) |w - w0|²."""

    @abstractmethod
    def minimise(self, learner: DifferentiableLearner, start: Tensors, problem: Subproblem) -> Tensors:
        """Returns the update w - w0, where w0 is `start` and w is the solution."""

    def at(self, num_rounds: int) -> "Solver":
        """Returns the solver after this many closed rounds; only one with a step size may change."""
        return self


PROGRESS = PartSpec(Spec(dict.fromkeys(("gradient_before", "gradient_after"), TensorSpec((), "float64"))))
"""The part in which clients say how far their solvers came: see `measure_progress`."""


def measure_progress(
    learner: DifferentiableLearner, start: Tensors, update: Tensors, problem: Subproblem
) -> Part:
    """Measures the norm of a local problem's gradient before it was solved and after."""
    gradients = {
        "gradient_before": problem.gradient(learner, start, zeros_like(start)),
        "gradient_after": problem.gradient(learner, start, update),
    }
    return Part({name: np.asarray(l2_norm(g), np.float64) for name, g in gradients.items()})


def check_solver(algorithm: str, solver: Any) -> None:
    """Raises InvalidInput if a solver does not minimise what the algorithm states."""
    if not isinstance(solver, Solver):
        raise InvalidInput(
            f"solver is of type {type(solver).__name__}, and {algorithm}() needs one that minimises the "
            "objective that it states; write newton(), or sgd(0.1)"
        )
    for name in ("weight_decay", "proximal"):
        if getattr(solver, name, 0):
            raise InvalidInput(
                f"{type(solver).__name__}({name}={getattr(solver, name)}) adds a term to the objective that "
                f"{algorithm}() states; leave {name} out, and regularise by the model's l2"
            )


@value
class local_steps(Solver):
    """Stochastic gradient descent: an approximate solution, on every learner.

    Args:
      lr: step size: a number or a schedule.
      epochs: passes over the client's examples.
      batch_size: examples a step; None: all of them.
    """

    lr: Rate = 0.1
    epochs: int = 10
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        Steps(rate(self.lr, 0), self.epochs, self.batch_size)

    def minimise(self, learner: DifferentiableLearner, start: Tensors, problem: Subproblem) -> Tensors:
        steps = Steps(rate(self.lr, 0), self.epochs, self.batch_size, problem.proximal)
        return learner.local_sgd(start, LocalProblem(problem.data, steps, problem.key, problem.offset))

    def at(self, num_rounds: int) -> Solver:
        return replace(self, lr=rate(self.lr, num_rounds))


ARMIJO = 1e-4
SMALLEST_STEP = 2.0**-30


@value
class newton(Solver):
    """Newton's method with conjugate gradients and a line search: for smooth, convex objectives.

    Args:
      num_iterations: iterations, at most.
      tolerance: it stops once the gradient has shrunk by this factor.
      num_products: Hessian-vector products in each iteration, at most.
    References: Nocedal, Wright, "Numerical optimization", 2nd ed. 2006, algorithm 7.1.
    """

    num_iterations: int = 50
    tolerance: float = 1e-9
    num_products: int = 250

    def __post_init__(self) -> None:
        check_count("num_iterations", self.num_iterations)
        check_count("num_products", self.num_products)
        check_positive("tolerance", self.tolerance)

    def minimise(self, learner: DifferentiableLearner, start: Tensors, problem: Subproblem) -> Tensors:
        data, proximal = problem.data, problem.proximal
        tilt = zeros_like(start) if problem.offset is None else problem.offset

        def objective(update: Tensors) -> float:
            held = dot(tilt, update) + proximal / 2 * dot(update, update)
            return learner.objective(add(start, update), data) + held

        def gradient(update: Tensors) -> Tensors:
            return problem.gradient(learner, start, update)

        update: Tensors = zeros_like(start)
        full_gradient, here = gradient(update), objective(update)
        first = l2_norm(full_gradient)
        for _ in range(self.num_iterations):
            shrunk = l2_norm(full_gradient) / (first or 1.0)
            if shrunk <= self.tolerance:
                break
            at = add(start, update)

            def multiply_hessian(vector: Tensors, at: Tensors = at) -> Tensors:
                return add_scaled(learner.hessian_vector(at, data, vector), proximal, vector)

            direction = conjugate_gradients(
                multiply_hessian, full_gradient, self.num_products, min(0.1, shrunk**0.5)
            )
            length, there = _line_search(
                lambda a, u=update, d=direction: objective(add_scaled(u, -a, d)),  # type: ignore[misc]
                here,
                dot(direction, full_gradient),
                start,
            )
            if length is None:  # rounding hides any further descent
                break
            update, here = add_scaled(update, -length, direction), there
            full_gradient = gradient(update)
        return update


def _line_search(
    along: Callable[[float], float], here: float, descent: float, params: Tensors
) -> tuple[float | None, float]:
    """Halves the step until Armijo's condition holds, up to rounding; returns it and the objective there."""
    slack = 10 * max(float(np.finfo(w.dtype).eps) for w in params.values()) * max(1.0, abs(here))
    step = 1.0
    while step >= SMALLEST_STEP:
        there = along(step)
        if there <= here - ARMIJO * step * descent + slack:
            return step, there
        step /= 2
    return None, here


def conjugate_gradients(
    apply: Callable[[Tensors], Tensors], right: Tensors, num_iterations: int, tolerance: float
) -> Tensors:
    """Solves A x = b, where `apply` is v -> A v for a symmetric positive definite A.

    Stops after this many products, once the residual has shrunk by the tolerance, or where A turns out not
    to be positive definite. Then it returns the solution so far, or b itself at the start.
    """
    solution: Tensors = zeros_like(right)
    residual = towards = right
    rho = dot(residual, residual)
    enough = tolerance**2 * rho
    for i in range(num_iterations):
        if rho <= enough:
            break
        multiply_hessian = apply(towards)
        curvature = dot(towards, multiply_hessian)
        if not curvature > 0:
            return solution if i else right
        alpha = rho / curvature
        solution = add_scaled(solution, alpha, towards)
        residual = add_scaled(residual, -alpha, multiply_hessian)
        rho, before = dot(residual, residual), rho
        towards = add_scaled(residual, rho / before, towards)
    return solution
