from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core import Array, Examples, InvalidInput, Key
from hanse.core.exchange import pack, unpack
from hanse.learners import dual, hinge_svm, least_squares, linear_svm, logistic, softmax
from hanse.learners.linear.duals import Dual, best_dual
from hanse.learners.linear.models import LinearModel
from hanse.learners.linear.svm import hinge, squared_hinge
from hanse.learners.losses import half_square, logistic_loss

KEY = Key.from_seed(8)
L2, N, D = 0.05, 40, 5
OPTIONS: Any = {"intercept": False, "dtype": "float64"}
MODELS: dict[str, LinearModel] = {
    "ridge": least_squares(L2, **OPTIONS),
    "logistic": logistic(L2, **OPTIONS),
    "linear_svm": linear_svm(L2, **OPTIONS),
    "hinge_svm": hinge_svm(L2, **OPTIONS),
}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def examples(model: LinearModel) -> Examples:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(N, D))
    scores = x @ np.arange(D) + rng.normal(size=N)
    return Examples(x, scores if isinstance(model, least_squares) else (scores > 0).astype(int))


def bound(model: LinearModel) -> Dual:
    return dual(model).bind((D,), None if isinstance(model, least_squares) else 2)


def ascend(model: LinearModel, epochs: int, *, coupling: float = 1.0) -> tuple[Array, Array]:
    learner, data = bound(model), examples(model)
    start = learner.init(KEY)
    update, alpha = learner.dual_ascent(
        start, data, None, KEY, epochs=epochs, num_examples=N, coupling=coupling
    )
    return update["weights"], alpha


@each_model
def test_the_update_is_what_the_duals_stand_for(model: LinearModel) -> None:
    weights, alpha = ascend(model, 2)
    np.testing.assert_allclose(weights, examples(model).x.T @ alpha / (L2 * N), rtol=1e-12)


@each_model
def test_one_client_alone_reaches_the_optimum(model: LinearModel) -> None:
    weights, alpha = ascend(model, 1500)
    learner, data = bound(model), examples(model)
    primal = learner.objective({"weights": weights}, data)
    assert primal + _conjugates(model, alpha, data.y) + L2 / 2 * weights @ weights == pytest.approx(
        0, abs=1e-7
    ), "the duality gap closes"


def _conjugates(model: LinearModel, alpha: Array, y: Array) -> float:
    """The mean of loss*(-alpha)."""
    if isinstance(model, least_squares):
        return float((alpha**2 / 2 - alpha * y).mean())
    beta = alpha * (2 * y - 1)
    if isinstance(model, hinge_svm):
        assert (beta >= 0).all()
        assert (beta <= 1).all()
        return float(-beta.mean())
    if isinstance(model, linear_svm):
        return float((beta**2 / 2 - beta).mean())
    return float((beta * np.log(beta) + (1 - beta) * np.log1p(-beta)).mean())


@each_model
def test_the_dual_never_falls(model: LinearModel) -> None:
    data = examples(model)
    duals = []
    for epochs in range(1, 6):
        weights, alpha = ascend(model, epochs)
        duals.append(-_conjugates(model, alpha, data.y) - L2 / 2 * weights @ weights)
    assert (np.diff(duals) >= -1e-12).all()


@pytest.mark.parametrize("loss", [half_square(), logistic_loss(), hinge(), squared_hinge()])
@given(
    score=st.floats(-50, 50),
    share=st.floats(0.01, 0.99),
    target=st.sampled_from([-1.0, 1.0]),
    q=st.floats(1e-6, 1e4),
)
def test_a_coordinate_lands_where_its_slope_says(
    loss: Any, score: float, share: float, target: float, q: float
) -> None:
    before = share * target
    alpha = best_dual(loss)(score, before, target, q)
    there = score + q * (alpha - before)
    with np.errstate(over="ignore"):
        gradient = -loss.gradient(np.array([there]), np.array([target]))[0]
    if isinstance(loss, hinge):
        shortfall = 1 - target * there
        assert alpha * target == pytest.approx(np.clip(alpha * target, 0, 1), abs=1e-12)
        assert alpha * target == 1 or shortfall <= 1e-7 * max(1, q)
        assert alpha * target == 0 or shortfall >= -1e-7 * max(1, q)
    else:
        assert alpha == pytest.approx(gradient, rel=1e-6, abs=1e-8 * max(1.0, q))


@pytest.mark.parametrize("score", [-800.0, 800.0])
def test_scores_of_any_size_are_fine(score: float) -> None:
    for sign in (-1.0, 1.0):
        assert 0 <= sign * best_dual(logistic_loss())(score, 0.5 * sign, sign, 1.0) <= 1


def test_a_row_of_zeros_is_no_trouble() -> None:
    assert best_dual(hinge())(0.0, 0.2, -1.0, 0.0) == -1.0
    assert best_dual(hinge())(-1.5, 0.2, -1.0, 0.0) == 0.0
    assert best_dual(logistic_loss())(0.0, 0.2, 1.0, 0.0) == 0.5


def test_a_larger_coupling_takes_smaller_steps() -> None:
    alone, coupled = ascend(MODELS["ridge"], 1)[0], ascend(MODELS["ridge"], 1, coupling=16.0)[0]
    assert np.linalg.norm(coupled) < np.linalg.norm(alone)


def test_single_precision_stays_so() -> None:
    learner = dual(logistic(L2, intercept=False)).bind((D,), 2)
    data = examples(MODELS["logistic"])
    update, alpha = learner.dual_ascent(
        learner.init(KEY), data, None, KEY, epochs=1, num_examples=N, coupling=1.0
    )
    assert (update["weights"].dtype, alpha.dtype) == (np.float32, np.float64)


def test_examples_that_changed_are_refused() -> None:
    learner, data = bound(MODELS["ridge"]), examples(MODELS["ridge"])
    with pytest.raises(InvalidInput, match="40 examples, and 39 dual variables"):
        learner.dual_ascent(
            learner.init(KEY), data, np.zeros(39), KEY, epochs=1, num_examples=N, coupling=1.0
        )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (logistic(0.1), r"no free intercept; write logistic\(\.\.\., intercept=False\)"),
        (logistic(intercept=False), r"l2 is 0\.0, so logistic has no dual here; write l2 above 0"),
    ],
)
def test_models_without_a_dual_are_refused(model: LinearModel, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        dual(model)


def test_losses_without_a_dual_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no dual is known here for the loss cross_entropy; use least_sq"):
        dual(softmax(0.1, intercept=False)).bind((3,), 3)


def test_a_dual_is_a_value() -> None:
    assert unpack(pack(dual(MODELS["ridge"]))) == dual(MODELS["ridge"])
