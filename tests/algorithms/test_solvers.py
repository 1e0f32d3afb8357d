from typing import Any

import numpy as np
import pytest
from support import KEYS, Few, Quadratic

from hanse.algorithms import Subproblem, local_steps, newton, step_decay
from hanse.algorithms.solvers import conjugate_gradients
from hanse.core import Examples, LocalProblem, Steps, Tensors
from hanse.learners import logistic

KEY = KEYS.public


def matrix(n: int = 6) -> np.ndarray:
    a = np.random.default_rng(0).normal(size=(n, n))
    return a @ a.T + 0.1 * np.eye(n)


def apply(a: np.ndarray) -> Any:
    return lambda v: {"w": a @ v["w"]}


def test_conjugate_gradients_solve() -> None:
    a, b = matrix(), np.arange(6.0)
    got = conjugate_gradients(apply(a), {"w": b}, 100, 1e-13)["w"]
    np.testing.assert_allclose(got, np.linalg.solve(a, b), rtol=1e-9)


def test_conjugate_gradients_keep_within_their_products() -> None:
    calls: list[Tensors] = []

    def counted(v: Tensors) -> Tensors:
        calls.append(v)
        return {"w": matrix() @ v["w"]}

    conjugate_gradients(counted, {"w": np.arange(6.0)}, 3, 1e-13)
    assert len(calls) == 3


def test_where_nothing_is_asked_nothing_is_done() -> None:
    got = conjugate_gradients(apply(matrix()), {"w": np.zeros(6)}, 10, 1e-6)
    assert not got["w"].any()


def test_negative_curvature_ends_conjugate_gradients_with_a_direction_of_descent() -> None:
    b = np.array([1.0, 2.0])
    got = conjugate_gradients(apply(np.diag([-1.0, -2.0])), {"w": b}, 10, 1e-6)["w"]
    np.testing.assert_array_equal(got, b)
    got = conjugate_gradients(apply(np.diag([5.0, -0.1])), {"w": b}, 10, 1e-6)["w"]
    assert got @ b > 0


def tilted_optimum(data: Examples, w0: np.ndarray, offset: np.ndarray, mu: float) -> np.ndarray:
    x = np.column_stack([data.x, np.ones(len(data))])
    curvature = x.T @ x / len(data) + mu * np.eye(4)
    return np.linalg.solve(curvature, x.T @ data.y / len(data) - offset + mu * w0)


@pytest.mark.parametrize("solver", [newton(), local_steps(0.2, epochs=2000)], ids=["newton", "local_steps"])
@pytest.mark.parametrize("mu", [0.0, 2.0])
def test_both_solve_the_tilted_problem(solver: newton, mu: float) -> None:
    data, w0, offset = Few().client(4), np.array([1.0, 2, 3, 4]), np.array([0.5, 0, -1, 2])
    start = {"w": w0[:3], "b": np.asarray(w0[3])}
    tilt = {"w": offset[:3], "b": np.asarray(offset[3])}
    update = solver.minimise(Quadratic(), start, Subproblem(data, KEY, tilt, mu))
    there = np.append(start["w"] + update["w"], start["b"] + update["b"])
    np.testing.assert_allclose(there, tilted_optimum(data, w0, offset, mu), atol=1e-7)


def separable() -> Examples:
    x = np.random.default_rng(1).normal(size=(30, 3))
    return Examples(x, (x[:, 0] > 0).astype(int))


def test_the_line_search_tames_newton_where_a_full_step_diverges() -> None:
    learner = logistic(1e-3, dtype="float64").bind((3,), 2)
    start = {"weights": np.array([-30.0, 5, 0]), "bias": np.asarray(3.0)}
    update = newton(100).minimise(learner, start, Subproblem(separable(), KEY))
    there = {name: start[name] + update[name] for name in start}
    assert max(np.abs(v).max() for v in learner.gradient(there, separable()).values()) < 1e-8


def test_single_precision_ends_at_its_own_accuracy() -> None:
    learner = logistic(1e-2).bind((3,), 2)
    update = newton(100, tolerance=1e-30).minimise(learner, learner.init(KEY), Subproblem(separable(), KEY))
    assert update["weights"].dtype == np.float32
    assert max(np.abs(v).max() for v in learner.gradient(update, separable()).values()) < 1e-4


def test_at_the_optimum_it_stays() -> None:
    data = Few().pooled
    best = Few().optimum()
    start = {"w": best[:3], "b": np.asarray(best[3])}
    update = newton().minimise(Quadratic(), start, Subproblem(data, KEY))
    assert max(np.abs(v).max() for v in update.values()) < 1e-9


def test_local_steps_follow_a_schedule_by_rounds() -> None:
    solver = local_steps(step_decay(0.2, every=1), epochs=3)
    assert solver.at(2) == local_steps(0.05, epochs=3)
    assert newton().at(2) == newton()
    data, start = Few().client(0), Quadratic().init(KEY)
    update = solver.at(1).minimise(Quadratic(), start, Subproblem(data, KEY))
    expected = Quadratic().local_sgd(start, LocalProblem(data, Steps(0.1, epochs=3), KEY))
    np.testing.assert_array_equal(update["w"], expected["w"])
