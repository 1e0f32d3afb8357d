import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from hanse.core import (
    Examples,
    InvalidInput,
    Key,
    Learner,
    LocalProblem,
    Steps,
    Tensors,
    dot,
    l2_norm,
    tree_map,
)
from hanse.core.exchange import Everything, find_classes, pack, unpack
from hanse.learners import Model, least_squares, logistic, softmax
from hanse.learners.linear.models import LinearModel

KEY = Key.from_seed(3)
MODELS: list[type[LinearModel]] = [least_squares, logistic, softmax]
each_model = pytest.mark.parametrize("model", MODELS)


def problem(model: type[LinearModel], n: int, d: int, seed: int = 0) -> tuple[Examples, int | None]:
    """Examples that a linear model explains in part, of features of unlike sizes."""
    rng = np.random.default_rng(seed)
    num_classes = {least_squares: None, logistic: 2, softmax: 4}[model]
    x = rng.normal(size=(n, d)) * np.geomspace(0.5, 2, d)
    scores = x @ rng.normal(size=(d, num_classes or 1)) + rng.gumbel(size=(n, num_classes or 1))
    return Examples(x, scores.argmax(1) if num_classes else scores[:, 0]), num_classes


def add(a: Tensors, b: Tensors, scale: float) -> Tensors:
    return tree_map(lambda u, v: np.asarray(u + scale * v), a, b)


def conjugate_gradients(learner: Learner, params: Tensors, data: Examples, gradient: Tensors) -> Tensors:
    """Solves H v = slope."""
    solution: Tensors = tree_map(np.zeros_like, gradient)
    rest = gradient
    direction, square = rest, dot(rest, rest)
    for _ in range(200):
        image = learner.hessian_vector(params, data, direction)
        step = square / dot(direction, image)
        solution, rest = add(solution, direction, step), add(rest, image, -step)
        if dot(rest, rest) < 1e-20 * dot(gradient, gradient):
            break
        direction, square = add(rest, direction, dot(rest, rest) / square), dot(rest, rest)
    return solution


def newton(learner: Learner, data: Examples) -> Tensors:
    """Newton's method with halved steps, down to a gradient of rounding errors."""
    params = learner.init(KEY)
    for _ in range(50):
        gradient = learner.gradient(params, data)
        if l2_norm(gradient) < 1e-10:
            break
        direction, step = conjugate_gradients(learner, params, data, gradient), 1.0
        while (
            learner.objective(add(params, direction, -step), data) > learner.objective(params, data) + 1e-14
        ):
            step /= 2
        params = add(params, direction, -step)
    return params


# The optimum, against other solvers


def test_least_squares_ends_where_the_normal_equations_do() -> None:
    data, _ = problem(least_squares, 60, 4)
    learner = least_squares(0.1, dtype="float64").bind((4,), None)
    with_one = np.column_stack([data.x, np.ones(60)])
    gram = with_one.T @ with_one / 60 + 0.1 * np.diag([1, 1, 1, 1, 0])
    solution = np.linalg.solve(gram, with_one.T @ data.y / 60)
    params = newton(learner, data)
    np.testing.assert_allclose(np.append(params["weights"], params["bias"]), solution, rtol=1e-8)


def test_gradient_descent_ends_at_the_optimum() -> None:
    data, _ = problem(least_squares, 60, 4)
    learner = least_squares(0.1, dtype="float64").bind((4,), None)
    step = learner.local_sgd(learner.init(KEY), LocalProblem(data, Steps(0.2, epochs=2000), KEY))
    assert learner.objective(step, data) == pytest.approx(
        learner.objective(newton(learner, data), data), abs=1e-8
    )


def test_a_regularised_intercept_is_the_weight_of_a_column_of_ones() -> None:
    data, _ = problem(least_squares, 60, 4)
    learner = least_squares(0.1, regularise_intercept=True, dtype="float64").bind((4,), None)
    theirs = Ridge(alpha=0.1 * 60, fit_intercept=False, tol=1e-12).fit(
        np.column_stack([data.x, np.ones(60)]), data.y
    )
    params = newton(learner, data)
    np.testing.assert_allclose(np.append(params["weights"], params["bias"]), theirs.coef_, rtol=1e-8)
    here = {"weights": np.zeros(4), "bias": np.array(3.0)}
    free = least_squares(0.1, dtype="float64").bind((4,), None)
    assert learner.objective(here, data) - free.objective(here, data) == pytest.approx(0.1 / 2 * 9)


def test_a_logistic_model_with_a_regularised_intercept_is_that_of_liblinear() -> None:
    data, num_classes = problem(logistic, 150, 4)
    data = Examples(data.x + 1, data.y)  # so that the intercept is not near 0
    learner = logistic(0.02, regularise_intercept=True, dtype="float64").bind((4,), num_classes)
    other = LogisticRegression(C=1 / (0.02 * 150), tol=1e-12, solver="liblinear", max_iter=10_000)
    other.fit(data.x, data.y)
    theirs = {"weights": other.coef_[0], "bias": np.asarray(other.intercept_[0])}
    params = newton(learner, data)
    np.testing.assert_allclose(params["bias"], theirs["bias"], rtol=1e-5)
    np.testing.assert_allclose(params["weights"], theirs["weights"], rtol=1e-5)
    free = newton(logistic(0.02, dtype="float64").bind((4,), num_classes), data)
    assert abs(free["bias"] - params["bias"]) > 0.01


def test_an_intercept_that_is_not_there_is_not_regularised() -> None:
    with pytest.raises(InvalidInput, match="regularise_intercept is true, but intercept is false; write"):
        softmax(intercept=False, regularise_intercept=True)


@pytest.mark.parametrize("model", [logistic, softmax])
def test_classifiers_end_where_scikit_learn_does(model: type[LinearModel]) -> None:
    data, num_classes = problem(model, 150, 4)
    l2 = 0.02
    learner = model(l2, dtype="float64").bind((4,), num_classes)
    other = LogisticRegression(C=1 / (l2 * 150), tol=1e-12, solver="newton-cg", max_iter=1000)
    other.fit(data.x, data.y)
    theirs = learner.init(KEY)
    shapes = {name: value.shape for name, value in theirs.items()}
    theirs = {
        "weights": other.coef_.T.reshape(shapes["weights"]),
        "bias": other.intercept_.reshape(shapes["bias"]),
    }
    ours = learner.objective(newton(learner, data), data)
    assert ours == pytest.approx(learner.objective(theirs, data), abs=1e-8)


def test_softmax_ends_where_an_independent_objective_does() -> None:
    data, num_classes = problem(softmax, 80, 3)
    assert num_classes == 4
    learner = softmax(0.05, dtype="float64").bind((3,), num_classes)

    def objective(flat: np.ndarray) -> float:
        weights, bias = flat[:12].reshape(3, 4), flat[12:]
        probabilities = scipy.special.softmax(data.x @ weights + bias, axis=1)
        return float(-np.log(probabilities[np.arange(80), data.y]).mean() + 0.025 * np.sum(weights**2))

    best = scipy.optimize.minimize(
        objective, np.zeros(16), method="BFGS", options={"gtol": 1e-7, "maxiter": 500}
    )
    assert learner.objective(newton(learner, data), data) == pytest.approx(best.fun, abs=1e-8)


# Shapes and values of all kinds


@each_model
@given(
    n=st.integers(1, 12),
    shape=st.lists(st.integers(1, 3), min_size=0, max_size=3).map(tuple),
    l2=st.sampled_from([0.0, 0.5]),
    intercept=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_derivatives_agree_with_differences(
    model: type[LinearModel], n: int, shape: tuple[int, ...], l2: float, intercept: bool, seed: int
) -> None:
    flat, num_classes = problem(model, n, int(np.prod(shape)), seed)
    data = Examples(flat.x.reshape(n, *shape), flat.y)
    learner = model(l2, intercept=intercept, dtype="float64").bind(shape, num_classes)
    rng = np.random.default_rng(seed)
    params, direction = (tree_map(lambda v: rng.normal(size=v.shape), learner.init(KEY)) for _ in range(2))
    params, direction = tree_map(np.asarray, params), tree_map(np.asarray, direction)
    step = 1e-5
    ahead, behind = add(params, direction, step), add(params, direction, -step)
    gradient = (learner.objective(ahead, data) - learner.objective(behind, data)) / (2 * step)
    assert dot(learner.gradient(params, data), direction) == pytest.approx(gradient, rel=1e-5, abs=1e-6)
    image = learner.hessian_vector(params, data, direction)
    for name, value in image.items():
        difference = (learner.gradient(ahead, data)[name] - learner.gradient(behind, data)[name]) / (2 * step)
        np.testing.assert_allclose(value, difference, rtol=1e-5, atol=1e-6)


@each_model
@given(
    n=st.integers(1, 12),
    steps=st.builds(
        Steps,
        lr=st.floats(1e-3, 0.1),
        epochs=st.integers(1, 3),
        batch_size=st.none() | st.integers(1, 13),
        proximal=st.sampled_from([0.0, 0.5]),
    ),
    l2=st.sampled_from([0.0, 0.5]),
    intercept=st.booleans(),
    offset=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_fused_descent_is_plain_descent(
    model: type[LinearModel], n: int, steps: Steps, l2: float, intercept: bool, offset: bool, seed: int
) -> None:
    data, num_classes = problem(model, n, 3, seed)
    learner = model(l2, intercept=intercept, dtype="float64").bind((3,), num_classes)
    rng = np.random.default_rng(seed)
    params = tree_map(lambda v: np.asarray(rng.normal(size=v.shape)), learner.init(KEY))
    added = params if offset else None
    fused = learner.local_sgd(params, LocalProblem(data, steps, KEY, offset=added))
    plain = learner.local_sgd(params, LocalProblem(data, steps, KEY, offset=added, space=Everything(params)))
    for name in fused:
        np.testing.assert_allclose(fused[name], plain[name], rtol=1e-9, atol=1e-9)


@each_model
def test_single_precision_follows_double(model: type[LinearModel]) -> None:
    data, num_classes = problem(model, 40, 6)
    single, double = (model(0.1, dtype=dtype).bind((6,), num_classes) for dtype in ("float32", "float64"))
    steps = Steps(0.05, epochs=3, batch_size=7)
    start = single.init(KEY)
    ours, exact = (learner.local_sgd(start, LocalProblem(data, steps, KEY)) for learner in (single, double))
    for name in ours:
        assert [str(tensors[name].dtype) for tensors in (ours, exact)] == ["float32", "float64"]
        np.testing.assert_allclose(ours[name], exact[name], rtol=1e-4, atol=1e-5)
    assert single.gradient(start, data)["weights"].dtype == np.float32
    assert single.objective(start, data) == pytest.approx(double.objective(start, data), rel=1e-6)


def test_features_may_be_bytes_and_of_any_shape() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(10, 4, 4), dtype=np.uint8), rng.integers(3, size=10)
    learner = softmax().bind((4, 4), 3)
    flat = Examples(images.reshape(10, 16).astype(np.float32), labels)
    a, b = (
        learner.local_sgd(learner.init(KEY), LocalProblem(d, Steps(1e-4, batch_size=3), KEY))
        for d in (Examples(images, labels), flat)
    )
    np.testing.assert_array_equal(a["weights"], b["weights"])


def test_large_but_finite_features_are_no_error() -> None:
    data = Examples(np.full((2, 1), 1e30, np.float32), np.array([0, 1]))
    assert (
        softmax().bind((1,), 2).evaluate({"weights": np.zeros((1, 2)), "bias": np.zeros(2)}, data)["count"]
        == 2
    )


@each_model
def test_a_run_that_diverges_does_so_quietly(model: type[LinearModel]) -> None:
    data, num_classes = problem(model, 20, 3)
    learner = model(10.0).bind((3,), num_classes)
    params = learner.local_sgd(learner.init(KEY), LocalProblem(data, Steps(100.0, epochs=100), KEY))
    assert not np.isfinite(params["weights"]).all()
    assert not np.isfinite(learner.evaluate(params, data)["loss"])
    assert not np.isfinite(learner.objective(params, data))


# Models as values


@each_model
def test_models_are_registered_values(model: type[LinearModel]) -> None:
    assert find_classes(Model)[model.__name__] is model  # type: ignore[type-abstract]
    chosen = model(0.5, intercept=False, dtype="float64")
    assert unpack(pack(chosen)) == chosen


@each_model
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l2": -1.0}, "l2 is -1.0"),
        ({"l2": float("nan")}, "l2 is nan"),
        ({"l2": float("inf")}, "l2 is inf"),
        ({"dtype": "float23"}, "'float23'; did you mean 'float32'"),
    ],
)
def test_impossible_settings_are_refused(
    model: type[LinearModel], settings: dict[str, float | str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        model(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "feature_shape", "num_classes", "message"),
    [
        (softmax(), (4,), None, r"write least_squares\(\)"),
        (softmax(), (4,), 1, "the labels have 1"),
        (logistic(), (4,), None, r"write least_squares\(\)"),
        (logistic(), (4,), 3, r"the labels have 3; write softmax\(\)"),
        (least_squares(), (0, 4), None, r"\(0, 4\)"),
        (least_squares(), (4,), 2, r"classes \(0 to 1\); write logistic\(\) .* labels.astype\(float\)"),
        (
            least_squares(),
            (4,),
            5,
            r"classes \(0 to 4\); write softmax\(\) .* target = ... in place of label",
        ),
    ],
)
def test_models_refuse_data_that_do_not_suit(
    model: LinearModel, feature_shape: tuple[int, ...], num_classes: int | None, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.bind(feature_shape, num_classes)
