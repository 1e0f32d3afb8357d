import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.algorithms import evaluation, fed_avg
from hanse.core import Examples, InvalidInput, Key, Keys, LocalProblem, Steps, Tensors, tree_map
from hanse.core.exchange import Progress, drive, training
from hanse.data import from_clients
from hanse.learners import softmax
from hanse.learners.own import jax_model
from hanse.simulation import InProcess, Simulation

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
lax = pytest.importorskip("jax.lax")

KEY = Key.from_seed(7)


def init(key: Any) -> Any:
    return {
        "layers": [{"w": 0.1 * jax.random.normal(key, (5, 6))}, {"w": jnp.zeros((6, 3))}],
        "b": jnp.zeros(3),
    }


def apply(params: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ params["layers"][0]["w"])
    return hidden @ params["layers"][1]["w"] + params["b"]


def problem(n: int, seed: int = 0, num_classes: int | None = 3) -> Examples:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, 3))).argmax(1) if num_classes else x.sum(1)
    return Examples(x, y)


# Functions of one's own


def test_parameters_are_named_by_the_path_to_them() -> None:
    learner = jax_model(init, apply).bind((5,), 3)
    start = learner.init(KEY)
    assert {name: v.shape for name, v in start.items()} == {
        "b": (3,),
        "layers.0.w": (5, 6),
        "layers.1.w": (6, 3),
    }
    again, other = learner.init(KEY), learner.init(KEY.fold_in("other"))
    np.testing.assert_array_equal(start["layers.0.w"], again["layers.0.w"])
    assert (start["layers.0.w"] != other["layers.0.w"]).all()


def test_parameters_may_be_a_single_array() -> None:
    model = jax_model(lambda key: jnp.zeros((5, 3)), lambda w, x: x @ w)
    exact = softmax(intercept=False).bind((5,), 3)
    learner, steps = model.bind((5,), 3), Steps(0.1, 2, 7)
    update = learner.local_sgd(learner.init(KEY), LocalProblem(problem(30), steps, KEY))
    expected = exact.local_sgd(exact.init(KEY), LocalProblem(problem(30), steps, KEY))
    np.testing.assert_allclose(update["params"], expected["weights"], rtol=1e-5, atol=1e-6)


def test_a_loss_of_ones_own() -> None:
    def huber(scores: Any, y: Any) -> Any:
        error = jnp.abs(scores[:, 0] - y)
        return jnp.where(error < 1, error**2 / 2, error - 0.5)

    def linear(params: Any, x: Any) -> Any:
        return x @ params["w"]

    learner = jax_model(lambda key: {"w": jnp.zeros((5, 1))}, linear, loss=huber).bind((5,), None)
    data = problem(50, num_classes=None)
    assert learner.metrics == ("loss",)
    update = learner.local_sgd(
        learner.init(KEY), LocalProblem(data, Steps(0.2, epochs=60, batch_size=10), KEY)
    )
    np.testing.assert_allclose(update["w"], np.ones((5, 1)), atol=1e-3)
    assert learner.evaluate(update, data)["loss"] == pytest.approx(0, abs=1e-3)


def test_a_binary_loss_of_ones_own_counts_what_is_correct() -> None:
    def log_loss(scores: Any, y: Any) -> Any:
        return jnp.logaddexp(0, -(2 * y - 1) * scores)

    model = jax_model(lambda key: {"w": jnp.zeros(5)}, lambda params, x: x @ params["w"], loss=log_loss)
    learner, data = model.bind((5,), 2), problem(50)
    data = Examples(data.x, (data.x[:, 0] > 0).astype(int))
    assert learner.evaluate({"w": np.eye(5)[0]}, data)["correct"] == 50
    assert learner.evaluate({"w": -np.eye(5)[0]}, data)["correct"] == 0


def test_one_score_a_row_may_have_an_axis_of_its_own() -> None:
    flat = jax_model(lambda key: {"w": jnp.ones(5)}, lambda p, x: x @ p["w"]).bind((5,), None)
    column = jax_model(lambda key: {"w": jnp.ones(5)}, lambda p, x: (x @ p["w"])[:, None]).bind((5,), None)
    data = problem(20, num_classes=None)
    assert flat.objective(flat.init(KEY), data) == column.objective(column.init(KEY), data)


@pytest.mark.parametrize(
    ("function", "loss", "num_classes", "message"),
    [
        (lambda p, x: x @ p["w"][:, :2], None, 3, r"scores of shape \(8, 2\) for 8.*\(8, 3\) is needed"),
        (lambda p, x: x @ p["w"], None, None, r"\(8, 3\) for 8 examples; \(8,\) is needed"),
        (lambda p, x: x @ p["w"], lambda s, y: s.mean(), 3, r"has shape \(\); return one an example"),
    ],
)
def test_scores_and_losses_of_wrong_shapes_are_refused(
    function: Any, loss: Any, num_classes: int | None, message: str
) -> None:
    learner = jax_model(lambda key: {"w": jnp.zeros((5, 3))}, function, loss=loss).bind((5,), num_classes)
    with pytest.raises(InvalidInput, match=message):
        learner.gradient(learner.init(KEY), problem(8, num_classes=num_classes))


def test_dropout_draws_from_the_clients_key() -> None:
    def train(params: Any, x: Any, key: Any) -> Any:
        return apply(params, x * jax.random.bernoulli(key, 0.5, x.shape))

    dropping, plain = jax_model(init, apply, train=train).bind((5,), 3), jax_model(init, apply).bind((5,), 3)
    start, data = plain.init(KEY), problem(40)

    def update(learner: Any, steps: Steps, key: Key) -> Any:
        return learner.local_sgd(start, LocalProblem(data, steps, key))["layers.1.w"]

    full = Steps(0.1, epochs=2)
    np.testing.assert_array_equal(update(dropping, full, KEY), update(dropping, full, KEY))
    assert (update(dropping, full, KEY) != update(dropping, full, KEY.fold_in("other"))).any()
    assert (update(dropping, full, KEY) != update(plain, full, KEY)).any()
    once, twice = (update(dropping, Steps(0.1, epochs=n), KEY) for n in (1, 2))
    assert not np.allclose(2 * once, twice, rtol=1e-3)  # each step draws anew
    assert dropping.objective(start, data) == plain.objective(start, data)
    assert dropping.evaluate(start, data) == plain.evaluate(start, data)


def test_integers_stay_integers() -> None:
    model = jax_model(lambda key: {"table": jnp.zeros((9, 3))}, lambda p, x: p["table"][x].sum(1))
    learner = model.bind((4,), 3)
    rng = np.random.default_rng(0)
    data = Examples(rng.integers(9, size=(30, 4)), rng.integers(3, size=30))
    assert learner.gradient(learner.init(KEY), data)["table"].shape == (9, 3)


# What is compiled


def test_clients_of_unequal_size_share_what_is_compiled() -> None:
    traced = []

    def counted(params: Any, x: Any) -> Any:
        traced.append(x.shape)
        return apply(params, x)

    learner = jax_model(init, counted).bind((5,), 3)
    start = learner.init(KEY)
    for n in range(1, 301):
        learner.local_sgd(start, LocalProblem(problem(n), Steps(0.1, batch_size=10), KEY))
    assert len(traced) <= 20
    seen = len(traced)
    for epochs in (1, 2, 3):
        learner.local_sgd(start, LocalProblem(problem(300), Steps(0.3, epochs=epochs, batch_size=10), KEY))
    assert len(traced) - seen <= 2  # the number of steps is not compiled in
    seen = len(traced)
    for n in range(257, 513):
        learner.gradient(start, problem(n))
    assert len(traced) - seen <= 4
    seen = len(traced)
    for n in range(1, 301):
        learner.evaluate(start, problem(n))
    assert len(traced) - seen <= 7


def test_binding_again_compiles_nothing() -> None:
    traced = []

    def counted(params: Any, x: Any) -> Any:
        traced.append(x.shape)
        return apply(params, x)

    for _ in range(3):
        learner = jax_model(init, counted).bind((5,), 3)
        learner.local_sgd(learner.init(KEY), LocalProblem(problem(12), Steps(0.1), KEY))
    assert len(traced) == 1


def run(program: str, **environment: str) -> str:
    env = {name: v for name, v in os.environ.items() if not name.startswith(("JAX", "XDG"))} | environment
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


TRAIN = """
import numpy as np, hashlib
from hanse.core import Key
from hanse.core import Examples, LocalProblem, Steps
from hanse.learners import mlp
rng = np.random.default_rng(0)
data = Examples(rng.random((60, 30), dtype=np.float32), rng.integers(10, size=60))
learner = mlp((200, 200)).bind((30,), 10)
update = learner.local_sgd(
    learner.init(Key.from_seed(0)), LocalProblem(data, Steps(0.1, batch_size=10), Key.from_seed(1))
)
print(hashlib.sha256(b"".join(v.tobytes() for v in update.values())).hexdigest())
"""


def test_compiled_programs_are_kept_between_runs_and_give_the_same_bits(tmp_path: Path) -> None:
    first = run(TRAIN, XDG_CACHE_HOME=str(tmp_path))
    kept = list((tmp_path / "hanse" / "jax").glob("*/*-cache"))
    assert kept
    assert run(TRAIN, XDG_CACHE_HOME=str(tmp_path)) == first
    assert list((tmp_path / "hanse" / "jax").glob("*/*-cache")) == kept


def test_somebody_elses_choice_of_cache_and_threads_stands(tmp_path: Path) -> None:
    program = TRAIN + "\nimport jax, os\nprint(jax.config.jax_compilation_cache_dir, os.environ.get('NPROC'))"
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    said = run(program, XDG_CACHE_HOME=ours, JAX_COMPILATION_CACHE_DIR=theirs, NPROC="2").splitlines()[-1]
    assert said == f"{theirs} 2"
    assert not (tmp_path / "ours").exists()
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert run(program, XDG_CACHE_HOME=str(blocked)).splitlines()[-1] == "None None"


# The networks' own forms


def test_a_convolution_as_a_product_is_a_convolution() -> None:
    networks = pytest.importorskip("hanse.learners.jax.networks")
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 7, 6, 3)), jnp.float32)
    kernels = jnp.asarray(rng.normal(size=(4, 3, 5, 5)), jnp.float32)
    order = ("NHWC", "OIHW", "NHWC")
    due = jax.lax.conv_general_dilated(images, kernels, (1, 1), "SAME", dimension_numbers=order)
    np.testing.assert_allclose(networks._convolve(images, kernels), due, rtol=1e-4, atol=1e-4)


def test_the_loop_of_an_lstm_has_the_gradient_of_its_definition() -> None:
    networks = pytest.importorskip("hanse.learners.jax.networks")
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(6, 3, 8)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(8, 2)), jnp.float32)

    def plain(inputs: Any, weights: Any) -> Any:
        hidden = cell = jnp.zeros((3, 2))
        shown = []
        for given in inputs:
            enter, forget, new, output = jnp.split(given + hidden @ weights.T, 4, -1)
            cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
            hidden = jax.nn.sigmoid(output) * jnp.tanh(cell)
            shown.append(hidden)
        return jnp.stack(shown)

    towards = jnp.asarray(rng.normal(size=(6, 3, 2)), jnp.float32)
    results = []
    for function in (networks._recurrent, plain):
        shown, pullback = jax.vjp(function, inputs, weights)
        results.append((shown, *pullback(towards)))
    for ours, due in zip(*results, strict=True):
        np.testing.assert_allclose(ours, due, rtol=1e-4, atol=1e-5)


# In a federation


def test_federated_averaging_with_functions_of_ones_own() -> None:
    clients = [problem(n, seed) for seed, n in enumerate((20, 33, 7, 50))]
    data = from_clients(clients, test=problem(200, 0))
    keys = Keys.from_seed(1)
    learner = jax_model(init, apply).bind((5,), 3)

    def trained() -> Tensors:
        algorithm = fed_avg(lr=0.5, fraction=1.0, epochs=3, batch_size=8)
        begin = Progress(0, algorithm.init(learner.init(keys.public), keys.public))
        led = training(algorithm, begin, keys.public, rounds=15, evaluate=evaluation(learner))
        end = drive(led, Simulation(InProcess(learner, data, keys), 4, keys))
        assert end.best is not None
        return end.state.params  # type: ignore[no-any-return]

    end = trained()
    start = learner.evaluate(learner.init(keys.public), clients[3])
    assert learner.evaluate(end, clients[3])["loss"] < 0.7 * start["loss"]
    for name, difference in tree_map(np.subtract, end, trained()).items():
        assert not difference.any(), name
