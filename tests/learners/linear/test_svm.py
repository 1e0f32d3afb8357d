import numpy as np
import pytest
import scipy.optimize
from sklearn.svm import LinearSVC

from hanse.core import Examples, InvalidInput, Key
from hanse.learners import hinge_svm, linear_svm
from hanse.learners.linear.svm import hinge, squared_hinge

KEY = Key.from_seed(2)


def examples(n: int = 200, d: int = 4) -> Examples:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, d))
    return Examples(x, (x @ np.arange(1, d + 1) + rng.normal(size=n) > 0.3).astype(int))


def test_losses_by_hand() -> None:
    scores, targets = np.array([-2.0, 0.5, 1.0, 3.0]), np.ones(4)
    np.testing.assert_allclose(hinge().losses(scores, targets), [3, 0.5, 0, 0])
    np.testing.assert_allclose(squared_hinge().losses(scores, targets), [4.5, 0.125, 0, 0])
    np.testing.assert_allclose(hinge().losses(scores, -targets), [0, 1.5, 2, 4])
    np.testing.assert_allclose(hinge().gradient(scores, targets), [-1, -1, 0, 0])
    np.testing.assert_allclose(squared_hinge().gradient(scores, targets), [-3, -0.5, 0, 0])


def test_the_optimum_is_scikit_learns() -> None:
    data, l2 = examples(), 0.01
    learner = linear_svm(l2, intercept=False, dtype="float64").bind((4,), 2)
    theirs = LinearSVC(C=1 / (2 * l2 * len(data)) * 1.0, fit_intercept=False, tol=1e-10, max_iter=100_000)
    weights = theirs.fit(data.x, data.y).coef_[0]
    assert np.abs(learner.gradient({"weights": weights}, data)["weights"]).max() < 1e-6
    found = scipy.optimize.minimize(
        lambda w: learner.objective({"weights": w}, data),
        np.zeros(4),
        jac=lambda w: learner.gradient({"weights": w}, data)["weights"],
        tol=1e-12,
    )
    np.testing.assert_allclose(found.x, weights, rtol=1e-5)


def test_with_a_regularised_intercept_it_is_scikit_learns_own_default() -> None:
    data, l2 = examples(), 0.01
    learner = linear_svm(l2, regularise_intercept=True, dtype="float64").bind((4,), 2)
    theirs = LinearSVC(C=1 / (2 * l2 * len(data)), tol=1e-10, max_iter=100_000).fit(data.x, data.y)
    optimum = {"weights": theirs.coef_[0], "bias": np.asarray(theirs.intercept_[0])}
    assert all(np.abs(g).max() < 1e-6 for g in learner.gradient(optimum, data).values())


def test_the_smooth_svm_takes_newtons_steps() -> None:
    data = examples()
    learner = linear_svm(0.01, dtype="float64").bind((4,), 2)
    params = dict(learner.init(KEY))
    for _ in range(10):
        columns = []
        for i in range(5):
            e = np.eye(5)[i]
            product = learner.hessian_vector(params, data, {"weights": e[:4], "bias": np.asarray(e[4])})
            columns.append(np.append(product["weights"], product["bias"]))
        gradient = learner.gradient(params, data)
        step = np.linalg.solve(np.array(columns), np.append(gradient["weights"], gradient["bias"]))
        params = {"weights": params["weights"] - step[:4], "bias": np.asarray(params["bias"] - step[4])}
    assert np.abs(learner.gradient(params, data)["weights"]).max() < 1e-12


def test_metrics_count_the_right_side() -> None:
    learner = hinge_svm(intercept=False).bind((1,), 2)
    data = Examples(np.array([[1.0], [2.0], [-1.0]]), np.array([1, 0, 0]))
    sums = learner.evaluate({"weights": np.ones(1)}, data)
    assert sums == {"loss": 0.0 + 3.0 + 0.0, "correct": 2.0, "count": 3.0}


def test_the_squared_hinge_curves_where_margins_fall_short() -> None:
    scores, signs, direction = np.array([0.5, 2.0, -3.0, -0.5]), np.array([1.0, 1, -1, -1]), np.arange(1.0, 5)
    assert squared_hinge().hessian_vector(scores, signs, direction).tolist() == [1, 0, 0, 4]


@pytest.mark.parametrize("model", [linear_svm(), hinge_svm()])
@pytest.mark.parametrize(("num_classes", "given"), [(None, "are not classes"), (3, "have 3")])
def test_other_labels_are_refused(model: linear_svm, num_classes: int | None, given: str) -> None:
    with pytest.raises(InvalidInput, match=rf"separates 2 classes, the labels {given}; .*softmax"):
        model.bind((4,), num_classes)
