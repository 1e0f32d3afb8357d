"""Least squares of several outputs end where scikit-learn's do, by every way of training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import mean_squared_error

import hanse
from hanse.algorithms import fed_avg, fed_sgd, giant, nesterov
from hanse.core import Array, Examples, InvalidInput, Key, LocalProblem, Steps, Stop
from hanse.data import arrays, csv, digits, iid
from hanse.learners import dual, elastic_net, least_squares
from hanse.release import open_release, predictions, release
from hanse.store import Runs

RNG = np.random.default_rng(0)
N, D, K = 240, 5, 3
X = RNG.normal(size=(N, D)) + 0.1
Y = X @ RNG.normal(size=(D, K)) + RNG.normal(size=(N, K)) + [1.0, -2.0, 3.0]
DATA = arrays(X, Y, test_fraction=0.0)
ONE_HOT = np.eye(4)[RNG.integers(0, 4, N)]


def train(y: Array, l2: float, algorithm: Any, rounds: int, num_clients: int = 4) -> Any:
    return hanse.run(
        data=arrays(X, y, test_fraction=0.0),
        partition=iid(num_clients),
        model=least_squares(l2, dtype="float64"),
        algorithm=algorithm,
        rounds=rounds,
        evaluate_every=rounds,
    )


@pytest.mark.parametrize("y", [Y, Y[:, :1], ONE_HOT], ids=["numbers", "one column", "one-hot"])
@pytest.mark.parametrize("l2", [0.0, 0.2])
def test_giant_ends_at_scikit_learns_solution(y: Array, l2: float) -> None:
    result = train(y, l2, giant(tolerance=1e-13, steps=(1.0,)), 15)
    theirs = (Ridge(l2 * N) if l2 else LinearRegression()).fit(X, y)
    np.testing.assert_allclose(
        result.params["weights"], theirs.coef_.reshape(y.shape[1], D).T, rtol=0, atol=1e-8
    )
    np.testing.assert_allclose(result.params["bias"], theirs.intercept_, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("algorithm", "rounds"),
    [(fed_sgd(lr=0.5), 60), (nesterov(lr=0.3, momentum=0.2), 80)],
    ids=["fed_sgd", "nesterov"],
)
def test_first_order_methods_end_there_too(algorithm: Any, rounds: int) -> None:
    result = train(Y, 0.3, algorithm, rounds)
    theirs = Ridge(0.3 * N).fit(X, Y)
    np.testing.assert_allclose(result.params["weights"], theirs.coef_.T, rtol=0, atol=1e-8)


def test_each_output_is_what_it_would_be_alone() -> None:
    algorithm = fed_avg(lr=0.05, fraction=1.0, epochs=2, batch_size=7)
    together = train(Y, 0.1, algorithm, 3)
    for k in range(K):
        alone = train(Y[:, k], 0.1, algorithm, 3)
        np.testing.assert_allclose(together.params["weights"][:, k], alone.params["weights"], atol=1e-12)
        loss = together.final.metrics[f"squared_error_{k}"]
        assert loss == pytest.approx(alone.final.metrics["squared_error"], rel=1e-12)
    assert together.final.metrics["loss"] == pytest.approx(1.5 * together.final.metrics["squared_error"])


def test_metrics_and_predictions_are_those_of_scikit_learn() -> None:
    learner = least_squares(num_outputs=K, dtype="float64").bind((D,), None)
    params = {"weights": RNG.normal(size=(D, K)), "bias": RNG.normal(size=K)}
    found = learner.predict(params, X)
    np.testing.assert_allclose(found, X @ params["weights"] + params["bias"])
    metrics = learner.summarise(learner.evaluate(params, Examples(X, Y)))
    assert list(metrics) == ["loss", "squared_error", *(f"squared_error_{k}" for k in range(K))]
    assert metrics["squared_error"] == pytest.approx(mean_squared_error(Y, found))
    each = mean_squared_error(Y, found, multioutput="raw_values")
    assert [metrics[f"squared_error_{k}"] for k in range(K)] == pytest.approx(each.tolist())
    assert metrics["loss"] == pytest.approx(each.sum() / 2)
    assert least_squares(num_outputs=11).bind((D,), None).metrics == ("loss", "squared_error")


def test_clients_computed_together_have_the_bits_of_each() -> None:
    learner = least_squares(num_outputs=K).bind((D,), None)
    params = learner.init(Key.from_seed(0))
    problems = [
        LocalProblem(Examples(X[rows], Y[rows]), Steps(0.03, epochs=2, batch_size=4), Key.from_seed(n))
        for n, rows in enumerate([slice(0, 9), slice(9, 30), slice(30, 33)])
    ]
    many = learner.local_sgd_many(params, problems)
    assert many is not None
    for n, problem in enumerate(problems):
        for name, update in learner.local_sgd(params, problem).items():
            assert many[name][n].tobytes() == update.tobytes()


def test_gradient_and_curvature_are_those_of_the_objective() -> None:
    learner = least_squares(0.3, num_outputs=K, dtype="float64").bind((D,), None)
    data, step = Examples(X, Y), 1e-5
    params = {"weights": RNG.normal(size=(D, K)), "bias": RNG.normal(size=K)}
    way = {"weights": RNG.normal(size=(D, K)), "bias": RNG.normal(size=K)}
    ahead, behind = ({n: params[n] + s * way[n] for n in params} for s in (step, -step))
    slope = (learner.objective(ahead, data) - learner.objective(behind, data)) / (2 * step)
    gradient = learner.gradient(params, data)
    assert sum(float((gradient[n] * way[n]).sum()) for n in params) == pytest.approx(slope)
    change = learner.hessian_vector(params, data, way)
    for n in params:
        curved = (learner.gradient(ahead, data)[n] - learner.gradient(behind, data)[n]) / (2 * step)
        np.testing.assert_allclose(change[n], curved, atol=1e-8)


def test_the_elastic_net_takes_several_targets_too() -> None:
    result = hanse.run(
        data=DATA, partition=iid(4), model=elastic_net(0.0, least_squares(0.3, dtype="float64")),
        algorithm=fed_sgd(lr=0.5), rounds=60,
    )  # fmt: skip
    theirs = Ridge(0.3 * N).fit(X, Y)
    np.testing.assert_allclose(result.params["weights"], theirs.coef_.T, rtol=0, atol=1e-8)


def test_several_columns_of_a_table_are_trained_released_and_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heads = ["u", "v", "w", "x", "y", "days", "cost", "rest"]
    rows = [",".join(map(repr, row)) for row in np.column_stack([X, Y]).tolist()]
    Path("t.csv").write_text("\n".join([",".join(heads), *rows]))
    experiment = hanse.Experiment(
        data=csv("t.csv", target=("days", "cost"), drop=("rest",)), partition=iid(3),
        model=least_squares(), algorithm=fed_avg(lr=0.1, fraction=1.0), rounds=10,
    )  # fmt: skip
    result = hanse.perform(experiment, store="s.db")
    assert result.final is not None
    assert {"squared_error_0", "squared_error_1"} < result.final.metrics.keys()
    model = open_release(release(Runs("s.db"), str(result.run), tmp_path / "model"))
    found = predictions(model, "t.csv")
    assert list(found.columns()) == ["row", "prediction_days", "prediction_cost"]
    assert found.values.shape == (N, 2)
    assert found.metrics is not None
    errors = ((found.values - Y[:, :2]) ** 2).mean(axis=0)
    assert found.metrics["squared_error_1"] == pytest.approx(errors[1], rel=1e-4)
    kept = hanse.resume(str(result.run), store="s.db")
    assert kept.params_sha256 == result.params_sha256


@pytest.mark.parametrize(
    ("model", "y", "message"),
    [
        (least_squares(), Y, r"shape \(240, 3\) .* for 3 write num_outputs=3"),
        (least_squares(), Y[:, :1], r"one number a row: write labels.ravel\(\)"),
        (least_squares(num_outputs=2), Y, "needs 2 numbers a row, as num_outputs says"),
        (least_squares(num_outputs=2), Y[:, 0], "needs 2 numbers a row"),
        (least_squares(num_outputs=3), np.where(Y[5, 1] == Y, np.nan, Y), "the label in row 5 is .*nan"),
    ],
)
def test_other_targets_are_refused(model: least_squares, y: Array, message: str) -> None:
    learner = model.bind((D,), None)
    with pytest.raises(InvalidInput, match=message):
        learner.evaluate(learner.init(Key.from_seed(0)), Examples(X, y))


def test_no_outputs_and_duals_of_several_are_refused() -> None:
    with pytest.raises(InvalidInput, match="num_outputs is 0"):
        least_squares(num_outputs=0)
    ridge = least_squares(0.1, intercept=False, num_outputs=2)
    with pytest.raises(InvalidInput, match="there are 2 targets; train on one of them"):
        dual(ridge).bind((D,), None)


def test_one_target_keeps_its_form() -> None:
    result = train(Y[:, 0], 0.1, fed_sgd(lr=0.1), 1)
    assert result.params["weights"].shape == (D,)
    assert sorted(result.final.metrics) == ["loss", "squared_error"]
    assert hanse.run(data=digits(), stop=Stop("loss"), rounds=1).params["weights"].shape == (64, 10)
