"""A model that is measured by how it ranks examples, as a user would write it beside a settings file."""

from typing import Any

import numpy as np

from hanse.core import Array, DifferentiableLearner, Examples, Key, LocalProblem, Tensors, value
from hanse.learners import Model, softmax


class Ranking(DifferentiableLearner):
    """Softmax regression. Measures the AUC of class 0, and the mean probability of the right class."""

    metrics = ("loss", "auc", "confidence")
    higher_is_better = frozenset({"confidence"})  # everybody knows that of "auc"

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def init(self, key: Key) -> Tensors:
        return self.inner.init(key)

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        sums, found = self.inner.evaluate(params, data), self.inner.predict(params, data.x)
        inside, outside = found[data.y == 0, 0], found[data.y != 0, 0]
        auc = (inside[:, None] > outside).mean() if len(inside) and len(outside) else 0.5
        right = found[np.arange(len(data)), data.y].sum()
        return {
            "loss": sums["loss"],
            "auc": float(auc) * len(data),
            "confidence": float(right),
            "count": sums["count"],
        }

    def predict(self, params: Tensors, x: Array) -> Array:
        return self.inner.predict(params, x)

    def objective(self, params: Tensors, data: Examples) -> float:
        return self.inner.objective(params, data)

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        return self.inner.gradient(params, data)

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        return self.inner.hessian_vector(params, data, vector)

    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        return self.inner.local_sgd(params, problem)


@value
class own_ranking(Model):
    """Ranks examples."""

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Ranking:
        return Ranking(softmax().bind(feature_shape, num_classes))
