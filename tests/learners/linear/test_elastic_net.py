import numpy as np
import pytest
from sklearn.linear_model import ElasticNet as Theirs

from hanse.algorithms import Subproblem, newton
from hanse.core import Examples, InvalidInput, Key, Tensors
from hanse.core.exchange import pack, unpack
from hanse.learners import elastic_net, least_squares, logistic
from hanse.learners.linear.elastic_net import ElasticNet

KEY = Key.from_seed(6)
D = 8


def examples() -> Examples:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, D))
    return Examples(x, x[:, :3] @ np.array([2.0, -1, 0.5]) + 0.1 * rng.normal(size=60) + 1)


def solved(model: elastic_net) -> tuple[ElasticNet, Tensors]:
    learner = model.bind((D,), None)
    start = learner.init(KEY)
    update = newton(200, tolerance=1e-10).minimise(learner, start, Subproblem(examples(), KEY))
    return learner, {name: start[name] + update[name] for name in start}


def model(smoothing: float) -> elastic_net:
    return elastic_net(0.08, least_squares(0.02, dtype="float64"), smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [1e-1, 1e-3, 1e-5])
def test_the_optimum_is_scikit_learns_up_to_the_smoothing(smoothing: float) -> None:
    data = examples()
    theirs = Theirs(alpha=0.1, l1_ratio=0.8, tol=1e-12, max_iter=100_000).fit(data.x, data.y)
    learner, params = solved(model(smoothing))
    np.testing.assert_allclose(params["weights"], theirs.coef_, atol=smoothing)
    np.testing.assert_allclose(params["bias"], theirs.intercept_, atol=smoothing)
    exact = 0.08 * np.abs(theirs.coef_).sum() + 0.02 / 2 * (theirs.coef_**2).sum()
    exact += np.square(theirs.predict(data.x) - data.y).mean() / 2
    assert exact - 0.08 * smoothing * D / 2 <= learner.objective(params, data) <= exact + 1e-12


def test_a_regularised_intercept_is_the_weight_of_a_column_of_ones() -> None:
    data = examples()
    ones = np.column_stack([data.x, np.ones(60)])
    theirs = Theirs(alpha=0.1, l1_ratio=0.8, tol=1e-12, max_iter=100_000, fit_intercept=False)
    theirs.fit(ones, data.y)
    linear = least_squares(0.02, dtype="float64", regularise_intercept=True)
    learner, params = solved(elastic_net(0.08, linear, smoothing=1e-5))
    np.testing.assert_allclose(np.append(params["weights"], params["bias"]), theirs.coef_, atol=1e-5)
    exact = 0.08 * np.abs(theirs.coef_).sum() + 0.02 / 2 * (theirs.coef_**2).sum()
    exact += np.square(theirs.predict(ones) - data.y).mean() / 2
    assert learner.objective(params, data) == pytest.approx(exact, abs=0.08 * 1e-5 * (D + 1))
    small = {"weights": params["weights"], "bias": np.asarray(5e-6)}
    assert learner.sparse(small)["bias"] == 0


def test_sparse_sets_to_zero_what_the_elastic_net_does() -> None:
    data = examples()
    theirs = Theirs(alpha=0.1, l1_ratio=0.8, tol=1e-12, max_iter=100_000).fit(data.x, data.y)
    learner, params = solved(model(1e-4))
    assert (params["weights"] != 0).all()
    np.testing.assert_array_equal(learner.sparse(params)["weights"] != 0, theirs.coef_ != 0)
    assert 0 < np.count_nonzero(theirs.coef_) < D


def test_without_l1_it_is_the_linear_model() -> None:
    data, params = examples(), {"weights": np.ones(D), "bias": np.asarray(0.5)}
    plain = least_squares(0.02, dtype="float64")
    net, linear = elastic_net(0.0, plain).bind((D,), None), plain.bind((D,), None)
    assert net.objective(params, data) == linear.objective(params, data)
    np.testing.assert_array_equal(
        net.gradient(params, data)["weights"], linear.gradient(params, data)["weights"]
    )


def test_any_linear_model_will_do() -> None:
    learner = elastic_net(0.1, logistic()).bind((3,), 2)
    assert learner.metrics == ("loss", "correct")
    assert learner.gradient(learner.init(KEY), Examples(np.eye(3), np.array([0, 1, 1])))[
        "weights"
    ].dtype == np.dtype("float32")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l1": -1.0}, r"l1 is -1\.0; write a number of at least 0"),
        ({"l1": np.inf}, "l1 is inf"),
        ({"l1": 0.1, "smoothing": 0.0}, r"smoothing is 0\.0; write a number above 0"),
    ],
)
def test_wrong_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        elastic_net(**settings)  # type: ignore[arg-type]


def test_it_is_a_value() -> None:
    assert unpack(pack(model(0.1))) == model(0.1)
