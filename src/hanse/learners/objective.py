"""A user's own objective, given as functions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from hanse.core import (
    Array,
    Examples,
    InvalidInput,
    Key,
    Tensors,
    add_scaled,
    divide,
    l2_norm,
    subtract,
    zeros_like,
)
from hanse.learners.descent import ByGradient
from hanse.learners.examples import check_predictions, check_rows, check_some
from hanse.learners.model import Model

__all__ = ["Objective", "objective"]

Value: TypeAlias = Callable[[Tensors, Array, Array], float]
Predict: TypeAlias = Callable[[Tensors, Array], Array]
Gradient: TypeAlias = Callable[[Tensors, Array, Array], Tensors]
HessianVector: TypeAlias = Callable[[Tensors, Array, Array, Tensors], Tensors]


@dataclass(frozen=True)
class objective(Model):
    """Any function of parameters and a client's examples whose mean is minimised.

    >>> def value(params, x, y):
    ...     return float(np.abs(x @ params["w"] - y).mean())
    >>> def gradient(params, x, y):
    ...     return {"w": x.T @ np.sign(x @ params["w"] - y) / len(x)}
    >>> learner = objective({"w": np.zeros(2)}, value, gradient).bind((2,), None)
    >>> learner.gradient({"w": np.zeros(2)}, Examples(np.eye(2), np.ones(2)))
    {'w': array([-0.5, -0.5])}

    Every algorithm runs on it. To save and resume a run, its model needs a name: mark a
    class of your own with `@value` and let its `bind` return `objective(...).bind(...)`.

    Args:
      start: the initial parameters: arrays of floats by name.
      value: (params, x, y) -> the mean over the examples x, y, regulariser included.
      gradient: (params, x, y) -> its gradient, in the names and shapes of the parameters.
      hessian_vector: (params, x, y, vector) -> its Hessian times a vector; None: from the difference of
        two gradients, to about half the digits.
      predict: (params, x) -> predictions, as `hanse.core.Learner.predict` returns them; None: the model
        can't predict.
    """

    start: Tensors
    value: Value
    gradient: Gradient
    hessian_vector: HessianVector | None = None
    predict: Predict | None = None

    def __post_init__(self) -> None:
        for name, tensor in self.start.items():
            if np.asarray(tensor).dtype.kind != "f":
                raise InvalidInput(
                    f"start[{name!r}] is {tensor!r}; give an array of floats, such as numpy.zeros(3)"
                )

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> "Objective":
        """Returns the functions as a learner; they see the features in their own shape."""
        return Objective(self)


@dataclass(frozen=True)
class Objective(ByGradient):
    """A user's objective as a learner. Made by `objective.bind`."""

    metrics = ("loss",)
    given: objective

    def init(self, key: Key) -> Tensors:
        """Returns the user's initial parameters."""
        return {name: np.array(tensor) for name, tensor in self.given.start.items()}

    def objective(self, params: Tensors, data: Examples) -> float:
        """Returns the user's value. Raises: InvalidInput: if it is not a number."""
        check_some(data)
        found = self.given.value(params, data.x, data.y)
        if np.ndim(found) != 0:
            raise InvalidInput(f"value() gave shape {np.shape(found)}; return one number, the mean")
        return float(found)

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        """Returns the user's gradient. Raises: InvalidInput: if it does not fit the parameters."""
        check_some(data)
        return _fitting("gradient", self.given.gradient(params, data.x, data.y), params)

    def clipped_sum(
        self, params: Tensors, data: Examples, max_norm: float, *, key: Key | None = None
    ) -> Tensors:
        """Sums clipped gradients of single examples, one by one, with any regulariser in `value`."""
        check_some(data)
        total = zeros_like(params)
        for row in range(len(data)):
            gradient = self.gradient(params, data.take(np.array([row])))
            norm = l2_norm(gradient)
            if math.isfinite(norm):
                total = add_scaled(total, min(1.0, max_norm / norm) if norm else 0.0, gradient)
        return total

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        """Returns the user's product, or a central difference of gradients along the vector."""
        if self.given.hessian_vector is not None:
            check_some(data)
            product = self.given.hessian_vector(params, data.x, data.y, vector)
            return _fitting("hessian_vector", product, params)
        size = l2_norm(vector)
        if size == 0:
            return vector
        eps = max(float(np.finfo(w.dtype).eps) for w in params.values())
        step = math.cbrt(eps) * max(1.0, l2_norm(params)) / size
        ahead = self.gradient(add_scaled(params, step, vector), data)
        behind = self.gradient(add_scaled(params, -step, vector), data)
        return divide(subtract(ahead, behind), 2 * step)

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Returns the value times the number of examples (its regulariser included), and that number."""
        return {"loss": self.objective(params, data) * len(data), "count": float(len(data))}

    def predict(self, params: Tensors, x: Array) -> Array:
        """Returns the user's predictions. Raises: InvalidInput: if there is no function for them."""
        if self.given.predict is None:
            raise InvalidInput(
                "objective() was given no predict; write objective(start, value, gradient, predict=...), "
                "a function (params, x) -> predictions"
            )
        x = check_rows(x)
        return check_predictions(np.asarray(self.given.predict(params, x)), len(x))


def _fitting(name: str, found: Tensors, params: Tensors) -> Tensors:
    if found.keys() != params.keys():
        raise InvalidInput(f"{name}() gave {sorted(found)}; the parameters are {sorted(params)}")
    for key, tensor in params.items():
        if np.shape(found[key]) != tensor.shape:
            raise InvalidInput(
                f"{name}() gave shape {np.shape(found[key])} for {key!r}; the parameter has {tensor.shape}"
            )
    return {key: np.asarray(found[key], tensor.dtype) for key, tensor in params.items()}
