"""The learners that the contract's tests run over. A new one adds its cases to CASES."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from hanse.core import Examples, Key, Learner, Tensors, tree_map
from hanse.learners import (
    Model,
    dual,
    elastic_net,
    hinge_svm,
    least_squares,
    linear_svm,
    logistic,
    softmax,
)
from hanse.learners.engines import Engine, jax_engine, torch_engine
from hanse.learners.networks import char_lstm, cnn, mlp
from hanse.learners.own import jax_model, torch_module

NUM_FEATURES = 5
NUM_EXAMPLES = 23
KEY = Key.from_seed(11)


@dataclass(frozen=True)
class Case:
    """A model in double precision, and the labels that suit it."""

    model: Model
    num_classes: int | None
    same: float = 1e-10
    """Relative difference between two ways to compute the same."""
    feature_shape: tuple[int, ...] = (NUM_FEATURES,)
    engine: str = "numpy"
    """What has to be installed."""

    @property
    def learner(self) -> Learner:
        return self.model.bind(self.feature_shape, self.num_classes)

    def examples(self, n: int = NUM_EXAMPLES) -> Examples:
        rng = KEY.fold_in("examples", n).rng()
        y = rng.integers(self.num_classes, size=n) if self.num_classes else rng.normal(size=n)
        return Examples(rng.normal(size=(n, *self.feature_shape)), y)

    def random(self, name: str) -> Tensors:
        """Values in the shapes of the parameters."""
        rng = KEY.fold_in("random", name).rng()
        return tree_map(
            lambda v: np.asarray(rng.normal(size=v.shape).astype(v.dtype)), self.learner.init(KEY)
        )


@dataclass(frozen=True)
class TextCase(Case):
    """Features are characters; and so are labels, unless there are classes."""

    def examples(self, n: int = NUM_EXAMPLES) -> Examples:
        rng = KEY.fold_in("text", n).rng()
        x = rng.integers(6, size=(n, *self.feature_shape))
        return Examples(x, rng.integers(self.num_classes, size=n) if self.num_classes else (x + 1) % 6)


def own_module() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(NUM_FEATURES, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def own_init(key: Any) -> Any:
    import jax

    shapes = {"hidden": [(NUM_FEATURES, 6), (6,)], "output": [(6, 4), (4,)]}
    draw = {name: [jax.random.normal(key, shape) for shape in pair] for name, pair in shapes.items()}
    return {name: {"w": weights, "b": bias} for name, (weights, bias) in draw.items()}


def own_apply(params: Any, x: Any) -> Any:
    import jax.numpy as jnp

    hidden = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return hidden @ params["output"]["w"] + params["output"]["b"]


def network_cases(on: Engine) -> dict[str, Case]:
    name, double = on.module, {"engine": on, "dtype": "float64"}
    small = cnn((2, 3), kernel=3, hidden=4, **double)
    lstm = char_lstm(6, embedding=3, hidden=4, l2=0.3, **double)
    return {
        f"{name} mlp": Case(mlp((6, 4), **double), 4, engine=name),
        f"{name} mlp, l2": Case(mlp((6,), l2=0.3, **double), None, engine=name),
        f"{name} cnn": Case(small, 3, engine=name, feature_shape=(5, 4)),
        f"{name} char_lstm": TextCase(lstm, None, engine=name),
        f"{name} mlp, class weights": Case(
            mlp((6,), class_weights=(2.0, 0.5, 3.0), **double), 3, engine=name
        ),
    }


CASES = {
    "least_squares": Case(least_squares(dtype="float64"), None),
    "least_squares, l2": Case(least_squares(0.3, intercept=False, dtype="float64"), None),
    "logistic": Case(logistic(dtype="float64"), 2),
    "logistic, l2": Case(logistic(0.3, dtype="float64"), 2),
    "softmax": Case(softmax(dtype="float64"), 4),
    "softmax, l2": Case(softmax(0.3, dtype="float64"), 4),
    "softmax, no intercept": Case(softmax(0.3, intercept=False, dtype="float64"), 2),
    "logistic, class weights": Case(logistic(class_weights=(0.5, 3.0), dtype="float64"), 2),
    "softmax, class weights": Case(softmax(0.3, class_weights=(2.0, 0.5, 3.0), dtype="float64"), 3),
    "linear_svm": Case(linear_svm(0.3, dtype="float64"), 2),
    "hinge_svm": Case(hinge_svm(0.3, dtype="float64"), 2),
    "elastic_net": Case(elastic_net(0.2, least_squares(0.3, dtype="float64"), smoothing=0.1), None),
    "elastic_net of softmax": Case(elastic_net(0.2, softmax(dtype="float64"), smoothing=0.1), 4),
    "dual": Case(dual(logistic(0.3, intercept=False, dtype="float64")), 2),
}

CASES |= network_cases(jax_engine()) | network_cases(torch_engine())
CASES |= {
    "jax_model": Case(jax_model(own_init, own_apply, l2=0.3, dtype="float64"), 4, engine="jax"),
    "torch_module": Case(torch_module(own_module, l2=0.3), 4, engine="torch"),
}


def each(cases: dict[str, Case]) -> pytest.MarkDecorator:
    def marks(case: Case) -> list[pytest.MarkDecorator]:
        missing = find_spec(case.engine) is None
        return [pytest.mark.skip(f"{case.engine} is not installed")] if missing else []

    params = [pytest.param(case, id=name, marks=marks(case)) for name, case in cases.items()]
    return pytest.mark.parametrize("case", params)
