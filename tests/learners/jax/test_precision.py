"""Precisions of local training on JAX, and what a GPU is asked for."""

from typing import Any

import numpy as np
import pytest

import hanse
from hanse.core import Examples, InvalidInput, Key, LocalProblem, Steps, Tensors
from hanse.learners import Precision, bfloat16, full, jax_engine, jax_model, mlp, tf32

jax = pytest.importorskip("jax")
setup = pytest.importorskip("hanse.learners.jax.setup")

KEY = Key.from_seed(3)
RNG = np.random.default_rng(0)
DATA = Examples(RNG.normal(size=(24, 5)).astype(np.float32), RNG.integers(3, size=24))


def train(precision: Precision, **settings: Any) -> tuple[Any, Tensors]:
    learner: Any = mlp((16,), engine=jax_engine(precision=precision), **settings).bind((5,), 3)
    return learner, learner.local_sgd(learner.init(KEY), LocalProblem(DATA, Steps(0.1, 3, 8), KEY))


def test_bfloat16_trains_about_alike_and_measures_in_full() -> None:
    (exact, due), (lower, got) = train(full()), train(bfloat16())
    params = exact.init(KEY)
    for name, value in due.items():
        assert got[name].dtype == np.float32
        assert got[name].tobytes() != value.tobytes()
        assert np.abs(got[name] - value).max() < 0.02 * np.abs(value).max() + 1e-3
    assert exact.evaluate(params, DATA) == lower.evaluate(params, DATA)
    for name, value in exact.gradient(params, DATA).items():
        assert lower.gradient(params, DATA)[name].tobytes() == value.tobytes()


def test_tf32_on_a_processor_is_float32_and_says_so() -> None:
    _, due = train(full())
    with pytest.warns(UserWarning, match=r"no GPU is used here, so that tf32\(\) trains in float32"):
        _, got = train(tf32())
    for name, value in due.items():
        assert got[name].tobytes() == value.tobytes()


@pytest.mark.parametrize("precision", [tf32(), bfloat16()])
def test_precisions_are_for_float32(precision: Precision) -> None:
    with pytest.raises(InvalidInput, match=rf'precision is {type(precision).__name__}\(\) .*dtype="float32"'):
        train(precision, dtype="float64")


def test_a_model_of_ones_own_is_lowered_too() -> None:
    seen = []

    def apply(params: Any, x: Any) -> Any:
        seen.append((params["w"].dtype.name, x.dtype.name))
        return x @ params["w"]

    def init(key: Any) -> Any:
        return {"w": jax.random.normal(key, (5, 3))}

    learner: Any = jax_model(init, apply, precision=bfloat16()).bind((5,), 3)
    learner.local_sgd(learner.init(KEY), LocalProblem(DATA, Steps(0.1), KEY))
    assert set(seen) == {("bfloat16", "bfloat16")}
    seen.clear()
    learner.evaluate(learner.init(KEY), DATA)
    assert set(seen) == {("float32", "float32")}


def test_settings_name_a_precision() -> None:
    assert jax_engine() == jax_engine(precision=full())
    model = mlp(engine=jax_engine(precision=bfloat16()))
    settings = hanse.Experiment(model=model).settings()
    assert hanse.Experiment.from_settings(settings).model == model


# On a GPU, which is not here


@pytest.mark.parametrize(("precision", "asked"), [(full(), "HIGHEST"), (tf32(), "HIGH,")])
def test_a_gpu_is_asked_for_the_precision(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, asked: str
) -> None:
    monkeypatch.setattr(setup, "on_processor", lambda: False)

    def multiply(a: Any) -> Any:
        return a @ a

    with setup.precision("float32", precision):
        assert asked in str(jax.make_jaxpr(multiply)(np.ones((2, 2), np.float32))).replace(")", ",")
    assert "HIGH" not in str(jax.make_jaxpr(lambda a: a @ a)(np.ones((2, 2), np.float32)))


@pytest.mark.parametrize(
    ("flags", "repeats"),
    [
        ("", False),
        ("--xla_gpu_deterministic_ops=true", True),
        ("--other --xla_gpu_deterministic_ops", True),
        ("--xla_gpu_deterministic_ops=false", False),
    ],
)
def test_a_gpu_repeats_if_it_was_told_to(monkeypatch: pytest.MonkeyPatch, flags: str, repeats: bool) -> None:
    learner: Any = mlp((3,)).bind((5,), 3)
    assert learner.is_repeatable
    monkeypatch.setattr(setup, "on_processor", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert learner.is_repeatable == repeats
    monkeypatch.setattr(setup, "_started_before", True)
    assert not learner.is_repeatable


def test_a_gpu_is_told_before_it_starts_unless_the_user_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "find_spec", lambda name: object())
    monkeypatch.setattr(jax._src.xla_bridge, "backends_are_initialized", lambda: False)
    for given, due in (
        ("", "--xla_gpu_deterministic_ops=true"),
        ("--a=1", "--a=1 --xla_gpu_deterministic_ops=true"),
        ("--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
    ):
        monkeypatch.setenv("XLA_FLAGS", given)
        setup._make_deterministic()
        assert setup.os.environ["XLA_FLAGS"] == due
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(setup, "_started_before", False)
    monkeypatch.setattr(jax._src.xla_bridge, "backends_are_initialized", lambda: True)
    setup._make_deterministic()
    assert setup._started_before
    assert not setup.os.environ["XLA_FLAGS"]
