"""The elastic net: a linear model with a penalty on the sum of its absolute weights as well."""

import math
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Key, Prediction, Tensors, check_not_negative, value
from hanse.learners.descent import ByGradient
from hanse.learners.linear.learner import Linear
from hanse.learners.linear.models import LinearModel, least_squares
from hanse.learners.model import Model

__all__ = ["ElasticNet", "elastic_net"]


@value
class elastic_net(Model):
    """Linear regression, or any linear model, with l1 and l2 regularisers.

        minimise  (1/n) Σ loss(x_i W + b, y_i) + (l2/2) |W|² + l1 Σ h(w_j)

        h(w) = |w| - s/2 where |w| > s,   w² / (2 s) else,   s = smoothing

    h is the absolute value with its kink rounded off (Huber's function), so that every algorithm applies,
    Newton's methods included, and the optimum is that of a smooth, convex problem. It is within
    l1 s d / 2 of the elastic net's own optimum, which is the limit of a small s; the curvature grows as
    l1 / s. Entries that the elastic net sets to zero end up within s of zero: `sparse` makes them zeros.

    scikit-learn's `ElasticNet(alpha, l1_ratio)` has l1 = alpha l1_ratio and l2 = alpha (1 - l1_ratio).

    >>> elastic_net(0.1, least_squares(0.05)).bind((3,), None).metrics
    ('loss', 'squared_error')

    Args:
      l1: strength of the l1 regulariser; of the bias, too, if the model has `regularise_intercept`.
      model: the linear model; its l2 is the other regulariser.
      smoothing: s, in the units of the weights.
    Raises: InvalidInput: if l1 is negative, or smoothing not above 0.
    References: Zou, Hastie, "Regularization and variable selection via the elastic net", JRSS B 2005.
    """

    l1: float
    model: LinearModel = least_squares()
    _: KW_ONLY
    smoothing: float = 1e-3

    def __post_init__(self) -> None:
        check_not_negative("l1", self.l1)
        if not 0 < self.smoothing < math.inf:
            raise InvalidInput(f"smoothing is {self.smoothing}; write a number above 0, such as 0.001")

    def suit_targets(self, target_shape: tuple[int, ...]) -> "elastic_net":
        """Returns the elastic net of the linear model for these targets."""
        return replace(self, model=self.model.suit_targets(target_shape))

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> "ElasticNet":
        """Binds the model to examples of this shape and these classes."""
        return ElasticNet(self.model.bind(feature_shape, num_classes), self.l1, self.smoothing)


@dataclass(frozen=True)
class ElasticNet(ByGradient):
    """An elastic net bound to its data. Made by `elastic_net.bind`."""

    linear: Linear
    l1: float
    smoothing: float

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the linear model."""
        return self.linear.metrics

    def init(self, key: Key) -> Tensors:
        """Returns zeros, since the objective is convex."""
        return self.linear.init(key)

    def objective(self, params: Tensors, data: Examples) -> float:
        """Returns the mean loss plus both regularisers."""
        s, penalty = self.smoothing, 0.0
        for name in self.linear.regularised:
            size = np.abs(params[name]).astype(np.float64)
            penalty += float(np.where(size > s, size - s / 2, size * size / (2 * s)).sum())
        return self.linear.objective(params, data) + self.l1 * penalty

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        """Returns the gradient of the objective by the parameters."""
        return self._more(self.linear.gradient(params, data), self._slopes(params))

    def clipped_sum(
        self, params: Tensors, data: Examples, max_norm: float, *, key: Key | None = None
    ) -> Tensors:
        """Sums clipped gradients of the linear model's loss."""
        return self.linear.clipped_sum(params, data, max_norm)

    def regulariser_gradient(self, params: Tensors) -> Tensors:
        """Returns the gradient of both regularisers."""
        return self._more(self.linear.regulariser_gradient(params), self._slopes(params))

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        """Returns the product of the objective's (generalised) Hessian with a vector."""
        s = self.smoothing
        products = {name: (np.abs(params[name]) <= s) * vector[name] / s for name in self.linear.regularised}
        return self._more(self.linear.hessian_vector(params, data, vector), products)

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Sums `metrics` over examples, and adds their "count". No regulariser."""
        return self.linear.evaluate(params, data)

    def predict(self, params: Tensors, x: Array) -> Array:
        """Predicts with the linear model."""
        return self.linear.predict(params, x)

    @property
    def prediction(self) -> Prediction:
        """The prediction of the linear model."""
        return self.linear.prediction

    def sparse(self, params: Tensors) -> Tensors:
        """Moves every weight towards 0 by s, and sets those within s of 0 to 0.

        At the optimum these are the weights of an elastic net whose l2 part is moved by as much.
        """
        drawn = dict(params)
        for name in self.linear.regularised:
            tensor = params[name]
            size = np.maximum(0, np.abs(tensor) - tensor.dtype.type(self.smoothing))
            drawn[name] = np.asarray(np.sign(tensor) * size)
        return drawn

    def _slopes(self, params: Tensors) -> Tensors:
        return {name: np.clip(params[name] / self.smoothing, -1, 1) for name in self.linear.regularised}

    def _more(self, tensors: Tensors, added: Tensors) -> Tensors:
        more = dict(tensors)
        for name, tensor in added.items():
            kind = tensors[name].dtype
            more[name] = np.asarray(tensors[name] + kind.type(self.l1) * tensor.astype(kind))
        return more
