"""What several engines can express, they compute alike."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hanse.core import Examples, InvalidInput, Key, Learner, LocalProblem, Steps, Tensors, tree_map
from hanse.learners import least_squares, softmax
from hanse.learners.engines import Engine, jax_engine, torch_engine
from hanse.learners.networks import Network, char_lstm, cnn, mlp
from hanse.learners.own import jax_model, torch_module

KEY = Key.from_seed(5)
ENGINES: dict[str, Engine] = {"jax": jax_engine(), "torch": torch_engine()}
STEPS = {
    "one full batch": Steps(0.1),
    "small batches": Steps(0.1, epochs=2, batch_size=4),
    "proximal": Steps(0.1, epochs=2, batch_size=5, proximal=0.7),
}
by_engine = pytest.mark.parametrize("engine", ENGINES)
by_steps = pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
by_dtype = pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-11), ("float32", 1e-5)])


def on(engine: str, network: Network, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
    pytest.importorskip(engine)
    return replace(network, engine=ENGINES[engine]).bind(feature_shape, num_classes)  # type: ignore[type-var]


def problem(n: int, num_classes: int | None) -> Examples:
    rng = KEY.fold_in("problem", n).rng()
    y = rng.integers(num_classes, size=n) if num_classes else rng.normal(size=n)
    return Examples(rng.normal(size=(n, 5)), y)


def some(learner: Learner, name: str) -> Tensors:
    rng = KEY.fold_in(name).rng()
    return tree_map(lambda v: rng.normal(size=v.shape).astype(v.dtype) / 2, learner.init(KEY))


def assert_close(a: Tensors, b: Tensors, close: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_allclose(a[name], b[name], rtol=close, atol=close, err_msg=name)


def as_linear(tensors: Tensors) -> Tensors:
    """The parameters of a network without hidden layers, as the linear models lay them out."""
    weights, bias = tensors["output.weight"].T, tensors["output.bias"]
    if weights.shape[1] == 1:
        weights, bias = weights[:, 0], bias[0]
    return {"weights": np.asarray(weights), "bias": np.asarray(bias)}


@by_engine
@by_steps
@by_dtype
@pytest.mark.parametrize("num_classes", [4, None])
def test_a_network_without_hidden_layers_is_a_linear_model(
    engine: str, steps: Steps, dtype: str, close: float, num_classes: int | None
) -> None:
    linear = softmax if num_classes else least_squares
    exact = linear(0.2, dtype=dtype).bind((5,), num_classes)
    ours = on(engine, mlp((), l2=0.2, dtype=dtype), (5,), num_classes)
    data, params, offset = problem(23, num_classes), some(ours, "params"), some(ours, "offset")
    theirs = as_linear(params)
    assert ours.metrics == exact.metrics
    assert ours.evaluate(params, data) == pytest.approx(exact.evaluate(theirs, data), rel=close)
    assert ours.objective(params, data) == pytest.approx(exact.objective(theirs, data), rel=close)
    assert_close(as_linear(ours.gradient(params, data)), exact.gradient(theirs, data), close)
    assert_close(
        as_linear(ours.hessian_vector(params, data, offset)),
        exact.hessian_vector(theirs, data, as_linear(offset)),
        close,
    )
    update = ours.local_sgd(params, LocalProblem(data, steps, KEY, offset=offset))
    assert_close(
        as_linear(update),
        exact.local_sgd(theirs, LocalProblem(data, steps, KEY, offset=as_linear(offset))),
        close,
    )


def text(n: int, num_classes: int | None) -> Examples:
    rng = KEY.fold_in("text", n).rng()
    x = rng.integers(7, size=(n, 6))
    return Examples(x, rng.integers(num_classes, size=n) if num_classes else (x + 1) % 7)


NETWORKS: dict[str, tuple[Network, tuple[int, ...], int | None]] = {
    "mlp": (mlp((6, 4), l2=0.1), (5,), 4),
    "mlp of weighted classes": (mlp((6, 4), l2=0.1, class_weights=(0.1, 3.0, 1.0, 0.0)), (5,), 4),
    "cnn of weighted classes": (cnn((3, 4), hidden=6, class_weights=(0.1, 3.0, 1.0)), (9, 7, 2), 3),
    "char_lstm of weighted classes": (
        char_lstm(7, embedding=3, hidden=5, layers=1, class_weights=(0.1, 3.0, 1.0, 0.7)),
        (6,),
        4,
    ),
    "mlp of numbers": (mlp((6,)), (5,), None),
    "cnn": (cnn((3, 4), hidden=6, l2=0.1), (9, 7, 2), 3),
    "char_lstm": (char_lstm(7, embedding=3, hidden=5, l2=0.1), (6,), None),
    "char_lstm of classes": (char_lstm(7, embedding=3, hidden=5, layers=1), (6,), 4),
}
IN_FLOAT32 = ("mlp", "mlp of weighted classes", "mlp of numbers", "cnn", "char_lstm")
"""Each kind of network and of loss once: engines compile anew for each dtype, which takes seconds."""


def examples(network: Network, feature_shape: tuple[int, ...], num_classes: int | None) -> Examples:
    if isinstance(network, char_lstm):
        return text(23, num_classes)
    rng = KEY.fold_in("examples").rng()
    y = rng.integers(num_classes, size=23) if num_classes else rng.normal(size=23)
    return Examples(rng.normal(size=(23, *feature_shape)), y)


@pytest.mark.parametrize(
    ("network", "feature_shape", "num_classes", "dtype", "close"),
    [
        pytest.param(*given, dtype, close, id=f"{dtype}-{name}")
        for name, given in NETWORKS.items()
        for dtype, close in (("float64", 1e-11), ("float32", 1e-5))
        if dtype == "float64" or name in IN_FLOAT32
    ],
)
def test_engines_agree(
    network: Network,
    feature_shape: tuple[int, ...],
    num_classes: int | None,
    dtype: str,
    close: float,
) -> None:
    network = replace(network, dtype=dtype)  # type: ignore[type-var]
    data = examples(network, feature_shape, num_classes)
    one, other = (on(engine, network, feature_shape, num_classes) for engine in ENGINES)
    start = one.init(KEY)
    assert list(start) == list(other.init(KEY))
    assert_close(start, other.init(KEY), 0.0)
    params, vector = some(one, "params"), some(one, "vector")
    steps = Steps(0.1, epochs=2, batch_size=5, proximal=0.3)
    assert one.metrics == other.metrics
    assert one.evaluate(params, data) == pytest.approx(other.evaluate(params, data), rel=close)
    assert one.objective(params, data) == pytest.approx(other.objective(params, data), rel=close)
    assert_close(one.gradient(params, data), other.gradient(params, data), close)
    assert_close(
        one.hessian_vector(params, data, vector), other.hessian_vector(params, data, vector), 10 * close
    )
    assert_close(
        one.local_sgd(params, LocalProblem(data, steps, KEY, offset=vector)),
        other.local_sgd(params, LocalProblem(data, steps, KEY, offset=vector)),
        10 * close,
    )


def test_own_models_of_both_engines_agree() -> None:
    jax = pytest.importorskip("jax")
    torch = pytest.importorskip("torch")

    def init(key: Any) -> Any:
        return {"0": {"weight": jax.numpy.zeros((3, 5)), "bias": jax.numpy.zeros(3)}}

    def apply(params: Any, x: Any) -> Any:
        return jax.nn.softplus(x @ params["0"]["weight"].T + params["0"]["bias"])

    def module() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Softplus())

    ours = jax_model(init, apply, l2=0.1).bind((5,), 3)
    theirs = torch_module(module, l2=0.1).bind((5,), 3)
    data, params = problem(23, 3), some(theirs, "params")
    steps = Steps(0.1, epochs=2, batch_size=4)
    assert_close(
        tree_map(np.asarray, {name: ours.gradient(params, data)[name] for name in params}),
        theirs.gradient(params, data),
        1e-5,
    )
    assert_close(
        ours.local_sgd(params, LocalProblem(data, steps, KEY)),
        theirs.local_sgd(params, LocalProblem(data, steps, KEY)),
        1e-5,
    )


# Characters


@by_engine
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 5), int), np.zeros((3, 6), int), r"features of shape \(3, 5\).*rows of 6 characters"),
        (np.zeros((3, 6)), np.zeros((3, 6), int), "features of shape.*float64"),
        (np.zeros((3, 6), int), np.zeros(3, int), r"labels of shape \(3,\)"),
        (np.full((3, 6), 7), np.zeros((3, 6), int), r"row 0, column 0 is 7; 7 characters.*char_lstm\(8\)"),
        (np.zeros((3, 6), int), np.full((3, 6), -1), "the label in row 0, column 0 is -1"),
    ],
)
def test_text_that_can_not_be_used_is_refused(engine: str, x: Any, y: Any, message: str) -> None:
    learner = on(engine, char_lstm(7, embedding=3, hidden=5), (6,), None)
    with pytest.raises(InvalidInput, match=message):
        learner.evaluate(learner.init(KEY), Examples(x, y))


@by_engine
def test_a_character_model_learns_what_follows(engine: str) -> None:
    learner = on(engine, char_lstm(7, embedding=4, hidden=12, layers=1), (6,), None)
    start, data = learner.init(KEY), text(40, None)
    update = learner.local_sgd(start, LocalProblem(data, Steps(2.0, epochs=15, batch_size=10), KEY))
    end = tree_map(np.add, start, update)
    assert learner.evaluate(end, data)["correct"] > 0.95 * len(data)
    assert learner.evaluate(end, data)["loss"] < 0.5 * learner.evaluate(start, data)["loss"]


# Sizes


@by_engine
@pytest.mark.parametrize("batch_size", [None, 300, 2500])
def test_large_batches_are_taken_in_parts(engine: str, batch_size: int | None) -> None:
    exact = softmax(dtype="float64").bind((5,), 3)
    learner = on(engine, mlp((), dtype="float64"), (5,), 3)
    data, params = problem(5000, 3), some(learner, "params")
    theirs, steps = as_linear(params), Steps(0.1, epochs=2, batch_size=batch_size)
    assert_close(as_linear(learner.gradient(params, data)), exact.gradient(theirs, data), 1e-11)
    assert learner.evaluate(params, data) == pytest.approx(exact.evaluate(theirs, data))
    assert_close(
        as_linear(learner.local_sgd(params, LocalProblem(data, steps, KEY))),
        exact.local_sgd(theirs, LocalProblem(data, steps, KEY)),
        1e-11,
    )


@by_engine
@pytest.mark.parametrize("num_examples", [1, 2, 3, 9, 10, 11, 20, 21, 33])
def test_clients_of_any_size(engine: str, num_examples: int) -> None:
    exact = softmax(dtype="float64").bind((5,), 3)
    learner = on(engine, mlp((), dtype="float64"), (5,), 3)
    data, params = problem(num_examples, 3), some(learner, "params")
    steps = Steps(0.1, epochs=3, batch_size=10)
    assert_close(
        as_linear(learner.local_sgd(params, LocalProblem(data, steps, KEY))),
        exact.local_sgd(as_linear(params), LocalProblem(data, steps, KEY)),
        1e-11,
    )


@by_engine
def test_images_may_be_bytes(engine: str) -> None:
    learner = on(engine, cnn((2, 2), kernel=3, hidden=3), (4, 4), 3)
    rng = KEY.rng()
    images, labels = rng.integers(256, size=(9, 4, 4), dtype=np.uint8), rng.integers(3, size=9)
    params, steps = learner.init(KEY), Steps(1e-3, batch_size=3)
    assert_close(
        learner.local_sgd(params, LocalProblem(Examples(images, labels), steps, KEY)),
        learner.local_sgd(params, LocalProblem(Examples(images.astype(np.float32), labels), steps, KEY)),
        0.0,
    )


@by_engine
def test_a_run_that_diverges_does_so_quietly(engine: str) -> None:
    learner = on(engine, mlp((8,)), (5,), None)
    data = problem(20, None)
    params = learner.local_sgd(learner.init(KEY), LocalProblem(data, Steps(100.0, epochs=100), KEY))
    assert not np.isfinite(params["output.weight"]).all()
    assert not np.isfinite(learner.objective(params, data))


@by_engine
def test_the_same_bits_from_call_to_call(engine: str) -> None:
    network, data = mlp((64, 64)), problem(100, 4)
    updates = []
    for _ in range(3):
        learner = on(engine, network, (5,), 4)
        updates.append(learner.local_sgd(learner.init(KEY), LocalProblem(data, Steps(0.1, 2, 7), KEY)))
    for name in updates[0]:
        np.testing.assert_array_equal(updates[0][name], updates[1][name])
        np.testing.assert_array_equal(updates[0][name], updates[2][name])
