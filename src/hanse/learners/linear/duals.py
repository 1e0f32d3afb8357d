"""The duals of regularised linear models: local coordinate ascent, as `hanse.algorithms.cocoa` needs it.

    primal:  (1/n) sum_i loss(x_i w, y_i) + (l2/2) |w|²,        w = (1 / (l2 n)) sum_i alpha_i x_i
    dual:   -(1/n) sum_i loss*(-alpha_i, y_i) - (l2/2) |w|²

References: Shalev-Shwartz, Zhang, "Stochastic dual coordinate ascent methods for regularized loss
minimization", JMLR 2013, arXiv 1209.1873.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import TypeAlias

import numpy as np

from hanse.core import (
    Array,
    DifferentiableLearner,
    Examples,
    InvalidInput,
    Key,
    LocalProblem,
    Prediction,
    Tensors,
    value,
)
from hanse.learners.linear.learner import Linear
from hanse.learners.linear.models import LinearModel
from hanse.learners.linear.svm import hinge, squared_hinge
from hanse.learners.losses import Loss, half_square, logistic_loss
from hanse.learners.model import Model

__all__ = ["Dual", "dual"]


@value
class dual(Model):
    """A linear model that also offers its dual: one variable an example, which stays with the example.

    It supports least squares (ridge), logistic regression and both SVMs, with l2 > 0 and without
    intercept; a column of ones among the features acts as a regularised intercept.

    >>> from hanse.learners import logistic
    >>> dual(logistic(1e-3, intercept=False)).bind((3,), 2).metrics
    ('loss', 'correct')

    Args:
      model: the primal.
    Raises: InvalidInput: if it has an intercept, or l2 = 0; when it is bound, if its loss has no dual here.
    """

    model: LinearModel

    def __post_init__(self) -> None:
        name = type(self.model).__name__
        if self.model.intercept:
            raise InvalidInput(
                f"the dual has no free intercept; write {name}(..., intercept=False), and put a column of "
                "ones among the features where one is needed"
            )
        if not self.model.l2 > 0:
            raise InvalidInput(f"l2 is {self.model.l2}, so {name} has no dual here; write l2 above 0")

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> "Dual":
        """Binds the model to examples of this shape and these classes."""
        primal = self.model.bind(feature_shape, num_classes)
        return Dual(primal, best_dual.dispatch(type(primal.loss))(primal.loss))


BestDual: TypeAlias = Callable[[float, float, float, float], float]
"""(score, alpha, target, q) -> the best alpha, where the score moves by q times the change of alpha.

That is alpha = -loss'(z) at the resulting score z = score + q (alpha - old alpha).
"""


@singledispatch
def best_dual(loss: Loss) -> BestDual:
    """Returns what maximises a loss's dual along one coordinate. Raises: InvalidInput: if that is unknown."""
    raise InvalidInput(
        f"no dual is known here for the loss {type(loss).__name__}; use least_squares, logistic (without "
        "class_weights), linear_svm or hinge_svm"
    )


@best_dual.register
def _of_half_square(loss: half_square) -> BestDual:
    if loss.num_outputs is not None:
        raise InvalidInput(
            f"the dual is known for one number a row, and there are {loss.num_outputs} targets; train on one "
            "of them, or without dual()"
        )
    return lambda score, alpha, target, q: (target - score + q * alpha) / (1 + q)


@best_dual.register
def _of_hinge(loss: hinge) -> BestDual:
    def best(score: float, alpha: float, sign: float, q: float) -> float:
        short = 1 - sign * score
        if q == 0:
            return sign if short > 0 else 0.0
        return sign * min(1.0, max(0.0, sign * alpha + short / q))

    return best


@best_dual.register
def _of_squared_hinge(loss: squared_hinge) -> BestDual:
    return lambda score, alpha, sign, q: sign * max(0.0, (1 - sign * score + q * sign * alpha) / (1 + q))


@best_dual.register
def _of_logistic_loss(loss: logistic_loss) -> BestDual:
    def best(score: float, alpha: float, sign: float, q: float) -> float:
        return sign * _logistic_of_minus(_margin_after(sign * score - q * sign * alpha, q))

    return best


def _margin_after(begin: float, q: float) -> float:
    """Solves m - q / (1 + exp(m)) = begin for m by Newton's method.

    The function increases; it is convex below 0 and concave above. So Newton's steps never overshoot if
    they start between 0 and the root.
    """
    m = max(0.0, begin) if begin > -q / 2 else min(0.0, begin + q)
    for _ in range(100):
        p = _logistic_of_minus(m)
        step = (begin + q * p - m) / (1 + q * p * (1 - p))
        m += step
        if abs(step) <= 1e-15 * max(1.0, abs(m)):
            break
    return m


def _logistic_of_minus(m: float) -> float:
    """Computes 1 / (1 + exp(m)) for m of any size."""
    if m > 0:
        e = math.exp(-m)
        return e / (1 + e)
    return 1 / (1 + math.exp(m))


@dataclass(frozen=True)
class Dual(DifferentiableLearner):
    """A linear model and its dual. Made by `dual(...).bind`.

    Args:
      primal: the model.
      best: maximises the dual along one coordinate.
    """

    primal: Linear
    best: BestDual

    def dual_ascent(
        self,
        params: Tensors,
        data: Examples,
        dual: Array | None,
        key: Key,
        *,
        epochs: int,
        num_examples: float,
        coupling: float,
    ) -> tuple[Tensors, Array]:
        """Runs passes of SDCA over a block, each in a fresh order. See `hanse.algorithms.cocoa.DualLearner`.

        Returns: the change of w that the block's change makes, and the change, (n,) in float64.
        """
        x, targets = self.primal._check(data)
        before = np.zeros(len(x)) if dual is None else dual
        if before.shape != (len(x),):
            raise InvalidInput(
                f"{len(x)} examples, and {len(before)} dual variables from an earlier round; "
                "a client's examples must stay the same while the dual is solved"
            )
        scale = 1.0 / (self.primal.l2 * num_examples)
        step = coupling * scale
        q = (np.einsum("ij,ij->i", x, x, dtype=np.float64) * step).tolist()
        signs, alpha = targets.tolist(), before.tolist()
        now = np.array(params["weights"], np.float64)
        rows = np.asarray(x, np.float64)
        for epoch in range(epochs):
            for i in key.fold_in("epoch", epoch).rng().permutation(len(x)).tolist():
                row = rows[i]
                best = self.best(float(row @ now), alpha[i], signs[i], q[i])
                change = best - alpha[i]
                if change:
                    now += (step * change) * row
                    alpha[i] = best
        changes = np.array(alpha) - before
        update = (rows.T @ changes * scale).astype(x.dtype)
        return {"weights": update}, changes

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the primal."""
        return self.primal.metrics

    def init(self, key: Key) -> Tensors:
        """Returns zeros, which are w of dual variables that are 0."""
        return self.primal.init(key)

    def objective(self, params: Tensors, data: Examples) -> float:
        """Returns the objective of the primal."""
        return self.primal.objective(params, data)

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        """Returns the gradient of the primal."""
        return self.primal.gradient(params, data)

    def clipped_sum(
        self, params: Tensors, data: Examples, max_norm: float, *, key: Key | None = None
    ) -> Tensors:
        """Sums clipped gradients of the primal's loss."""
        return self.primal.clipped_sum(params, data, max_norm)

    def regulariser_gradient(self, params: Tensors) -> Tensors:
        """Returns the gradient of the primal's regulariser."""
        return self.primal.regulariser_gradient(params)

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        """Returns the product of the primal's Hessian with a vector."""
        return self.primal.hessian_vector(params, data, vector)

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Evaluates the primal."""
        return self.primal.evaluate(params, data)

    def predict(self, params: Tensors, x: Array) -> Array:
        """Predicts with the primal."""
        return self.primal.predict(params, x)

    @property
    def prediction(self) -> Prediction:
        """The prediction of the primal."""
        return self.primal.prediction

    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        """Trains locally on the primal."""
        return self.primal.local_sgd(params, problem)
