from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hanse.core import Array, Examples, InvalidInput, Key, LocalProblem, Steps, Tensors
from hanse.learners import logistic, objective

KEY = Key.from_seed(7)
D = 4
START = {"w": np.zeros(D)}


def value(params: Tensors, x: Array, y: Array) -> float:
    margins = (2 * y - 1) * (x @ params["w"])
    return float(np.logaddexp(0, -margins).mean() + 0.05 * params["w"] @ params["w"])


def gradient(params: Tensors, x: Array, y: Array) -> Tensors:
    signs = 2 * y - 1
    slopes = -signs / (1 + np.exp(signs * (x @ params["w"])))
    return {"w": x.T @ slopes / len(x) + 0.1 * params["w"]}


def examples() -> Examples:
    rng = np.random.default_rng(1)
    return Examples(rng.normal(size=(30, D)), rng.integers(2, size=30))


OURS = objective(START, value, gradient).bind((D,), None)
THEIRS = logistic(0.1, intercept=False, dtype="float64").bind((D,), 2)
WEIGHTS = np.array([0.5, -1, 0.3, 2])


def test_a_known_model_given_as_functions_is_that_model() -> None:
    data, w, weights = examples(), {"w": WEIGHTS}, {"weights": WEIGHTS}
    assert OURS.objective(w, data) == pytest.approx(THEIRS.objective(weights, data), rel=1e-12)
    np.testing.assert_allclose(
        OURS.gradient(w, data)["w"], THEIRS.gradient(weights, data)["weights"], rtol=1e-10
    )
    steps = Steps(0.3, epochs=3, batch_size=7, proximal=0.2)
    np.testing.assert_allclose(
        OURS.local_sgd(w, LocalProblem(data, steps, KEY))["w"],
        THEIRS.local_sgd(weights, LocalProblem(data, steps, KEY))["weights"],
        rtol=1e-10,
    )


def test_differences_of_gradients_stand_in_for_a_missing_hessian() -> None:
    data, vector = examples(), np.array([1.0, 0, -2, 1e3])
    exact = THEIRS.hessian_vector({"weights": WEIGHTS}, data, {"weights": vector})["weights"]
    differences = OURS.hessian_vector({"w": WEIGHTS}, data, {"w": vector})["w"]
    np.testing.assert_allclose(differences, exact, rtol=1e-7)
    assert not OURS.hessian_vector({"w": WEIGHTS}, data, {"w": np.zeros(D)})["w"].any()


def test_a_hessian_that_is_given_is_used() -> None:
    def product(params: Tensors, x: Array, y: Array, vector: Tensors) -> Tensors:
        return {"w": 3 * vector["w"]}

    learner = objective(START, value, gradient, product).bind((D,), None)
    np.testing.assert_array_equal(learner.hessian_vector(START, examples(), {"w": WEIGHTS})["w"], 3 * WEIGHTS)


def test_evaluate_gives_sums() -> None:
    data = examples()
    assert OURS.evaluate({"w": WEIGHTS}, data) == {
        "loss": pytest.approx(30 * value({"w": WEIGHTS}, data.x, data.y)),
        "count": 30.0,
    }


def test_each_learner_starts_afresh() -> None:
    start = OURS.init(KEY)
    start["w"][:] = 5
    assert not OURS.init(KEY)["w"].any()


Use = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("given", "use", "message"),
    [
        (
            {"value": lambda params, x, y: np.ones(3)},
            lambda it: it.objective(START, examples()),
            r"value\(\) gave shape \(3,\); return one number",
        ),
        (
            {"gradient": lambda params, x, y: {"v": np.ones(D)}},
            lambda it: it.gradient(START, examples()),
            r"gradient\(\) gave \['v'\]; the parameters are \['w'\]",
        ),
        (
            {"gradient": lambda params, x, y: {"w": np.ones(2)}},
            lambda it: it.gradient(START, examples()),
            r"gradient\(\) gave shape \(2,\) for 'w'; the parameter has \(4,\)",
        ),
        ({}, lambda it: it.gradient(START, examples().take(np.arange(0))), "no examples"),
    ],
)
def test_functions_that_do_not_fit_are_told_so(given: dict[str, Any], use: Use, message: str) -> None:
    learner = objective(**{"start": START, "value": value, "gradient": gradient, **given}).bind((D,), None)
    with pytest.raises(InvalidInput, match=message):
        use(learner)


def test_parameters_are_arrays_of_floats() -> None:
    with pytest.raises(InvalidInput, match=r"start\['w'\] is array\(\[0, 0\]\); give an array of floats"):
        objective({"w": np.zeros(2, int)}, value, gradient)
