"""Linear models in NumPy: least squares, logistic and softmax regression.

Derivatives are written by hand and exact. Small batches are common in federated learning, and there
the calls cost more than the arithmetic, so local descent is fused into few calls.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import accumulate, repeat
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    DifferentiableLearner,
    Examples,
    InvalidInput,
    Key,
    LocalProblem,
    Prediction,
    Steps,
    Tensors,
    check_count,
    check_not_negative,
    sgd_rule,
    value,
)
from hanse.learners.examples import check_rows, check_some, convert_flat
from hanse.learners.losses import Loss, cross_entropy, half_square, log_loss, weighted_loss
from hanse.learners.model import Model, batches, orders
from hanse.learners.settings import check_class_weights, check_dtype, check_num_weights
from hanse.learners.within import descend_within

__all__ = ["Linear", "LinearModel", "least_squares", "logistic", "softmax"]

HELD_BYTES = 512 * 1024
"""Most bytes of weights that descend side by side: with their examples they fit a processor's cache."""

_quietly = np.errstate(over="ignore", invalid="ignore")
"""Some overflow is intended (see `losses`); metrics stop a run that diverges, not warnings."""


@dataclass(frozen=True)
class LinearModel(Model):
    """A linear model before it knows its data. Features of any shape are flattened.

        minimise  (1/n) Σ loss(x_i W + b, y_i) + (l2/2) |W|²

    Parameters are "weights", (d,) or (d, k), and "bias", () or (k,); they start at zero.

    Args:
      l2: strength of the regulariser.
      intercept: whether there is a bias.
      dtype: of the parameters and the arithmetic, "float32" or "float64".
      regularise_intercept: whether the bias is regularised like the weights, by (l2/2) |b|².
    Raises: InvalidInput: if l2 is negative or not finite, the dtype unknown, or an intercept regularised
      that is not there.
    """

    l2: float = 0.0
    _: KW_ONLY
    intercept: bool = True
    dtype: str = "float32"
    regularise_intercept: bool = False

    def __post_init__(self) -> None:
        check_not_negative("l2", self.l2)
        check_dtype(self.dtype)
        if self.regularise_intercept and not self.intercept:
            raise InvalidInput(
                "regularise_intercept is true, but intercept is false; write intercept=True, or leave out "
                "regularise_intercept"
            )

    @abstractmethod
    def loss(self, num_classes: int | None) -> Loss:
        """Returns the loss for such labels. Raises: InvalidInput: if there is none."""

    def suit_targets(self, target_shape: tuple[int, ...]) -> "LinearModel":
        """Returns the model for real targets of this shape in each row; by default itself."""
        return self

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> "Linear":
        """Binds the model to examples of this shape and these classes."""
        num_features = math.prod(feature_shape)
        if num_features < 1:
            raise InvalidInput(f"features of shape {feature_shape}; give at least 1 feature a row")
        return Linear(
            num_features,
            self.loss(num_classes),
            self.l2,
            self.intercept,
            self.dtype,
            ("weights", "bias") if self.regularise_intercept else ("weights",),
        )


@value
class least_squares(LinearModel):
    """Linear regression: loss = |x W + b - y|² / 2. It is refused where labels are classes, not numbers.

    Targets of shape (n, k) give k outputs, as several columns in `target` do, or classes as rows of ones and
    zeros. A run finds k in its data. scikit-learn's `Ridge(alpha)` over n pooled rows has l2 = alpha / n.

    >>> least_squares().bind((3,), None).metrics
    ('loss', 'squared_error')
    >>> least_squares(num_outputs=2).bind((3,), None).metrics
    ('loss', 'squared_error', 'squared_error_0', 'squared_error_1')

    Args:
      num_outputs: k, for targets of shape (n, k); None: one number a row, (n,), or as the data of a run say.
    """

    _: KW_ONLY
    num_outputs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_outputs is not None:
            check_count("num_outputs", self.num_outputs)

    def suit_targets(self, target_shape: tuple[int, ...]) -> "least_squares":
        """Returns the model with as many outputs as there are targets in a row."""
        if self.num_outputs is not None or len(target_shape) != 1:
            return self
        return replace(self, num_outputs=target_shape[0])

    def loss(self, num_classes: int | None) -> Loss:
        """Returns the loss for real targets. Raises: InvalidInput: if the labels are classes."""
        if num_classes is not None:
            instead = "logistic()" if num_classes == 2 else "softmax()"
            raise InvalidInput(
                f"least_squares() predicts numbers, and the labels are classes (0 to {num_classes - 1}); "
                f"write {instead} to tell them apart; or, if they are numbers to predict, give them as "
                "floats, labels.astype(float), or name their column as target = ... in place of label"
            )
        return half_square(self.num_outputs)


@dataclass(frozen=True)
class WeightedModel(LinearModel):
    """A linear model of classes, whose losses may be weighted by the true class: c_y loss(x_i W + b, y_i).

    The objective stays a mean over examples, so clients' objectives add up to that of the pooled data.
    torch's `CrossEntropyLoss(weight=c)` divides each batch by the weights of its examples instead. The metric
    "loss" is weighted, too; the accuracy is not.

    Args:
      class_weights: c, one number for each class, which multiplies the losses of its examples; None: all 1.
    Raises: InvalidInput: if they are negative, or when bound, if there are more or fewer than classes.
    """

    _: KW_ONLY
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "class_weights", check_class_weights(self.class_weights))

    @abstractmethod
    def plain_loss(self, num_classes: int | None) -> log_loss | cross_entropy:
        """Returns the loss without weights. Raises: InvalidInput: if there is none for such labels."""

    def loss(self, num_classes: int | None) -> Loss:
        """Returns the loss for such labels."""
        loss = self.plain_loss(num_classes)
        weights = check_num_weights(self.class_weights, num_classes)
        return loss if weights is None else weighted_loss(loss, weights)


@value
class logistic(WeightedModel):
    """Logistic regression for the classes 0 and 1: loss = log(1 + exp(-m)), m = ±(x w + b).

    >>> logistic(1e-3).bind((3,), 2).metrics
    ('loss', 'correct')
    """

    def plain_loss(self, num_classes: int | None) -> log_loss | cross_entropy:
        """Returns the loss for two classes."""
        if num_classes is None:
            raise InvalidInput(f"logistic() separates 2 classes, {_NO_CLASSES}")
        if num_classes != 2:
            raise InvalidInput(
                f"logistic() separates 2 classes, the labels have {num_classes}; write softmax()"
            )
        return log_loss()


@value
class softmax(WeightedModel):
    """Multinomial logistic regression for k classes: loss = log(Σ exp s) - s_y, s = x W + b.

    >>> softmax(intercept=False).bind((8, 8), 10).init(Key.from_seed(0))["weights"].shape
    (64, 10)
    """

    def plain_loss(self, num_classes: int | None) -> log_loss | cross_entropy:
        """Returns the loss for two classes or more."""
        if num_classes is None:
            raise InvalidInput(f"softmax() separates classes, {_NO_CLASSES}")
        if num_classes < 2:
            raise InvalidInput(f"softmax() separates classes, the labels have {num_classes}; give at least 2")
        return cross_entropy(num_classes)


_NO_CLASSES = (
    "the labels are not classes; write least_squares(), or give them as integers from 0 (labels.astype(int))"
)


@dataclass(frozen=True)
class Linear(DifferentiableLearner):
    """A linear model bound to its data. Made by `LinearModel.bind`.

    Args:
      num_features: d.
      loss: by the scores; it fixes the number of outputs.
      l2: strength of the regulariser.
      intercept: whether there is a bias.
      dtype: of the parameters and the arithmetic.
      regularised: the names of the parameters that are regularised.
    """

    num_features: int
    loss: Loss
    l2: float
    intercept: bool
    dtype: str
    regularised: tuple[str, ...] = ("weights",)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the loss."""
        return self.loss.metrics

    def init(self, key: Key) -> Tensors:
        """Returns zeros, since the objective is convex."""
        weights = np.zeros((self.num_features, *self.loss.outputs), self.dtype)
        if not self.intercept:
            return {"weights": weights}
        return {"weights": weights, "bias": np.zeros(self.loss.outputs, self.dtype)}

    def convert(self, data: Examples) -> Examples:
        """Returns (n, d) features in the dtype of the parameters, and the labels as they are."""
        return Examples(self._check(data)[0], np.asarray(data.y))

    @_quietly
    def objective(self, params: Tensors, data: Examples) -> float:
        """Returns the mean loss plus the regulariser, summed in float64."""
        x, y = self._check(data)
        losses = self.loss.losses(self._scores(params, x), y)
        squares = sum(float(np.square(params[name], dtype=np.float64).sum()) for name in self.regularised)
        return float(losses.mean(dtype=np.float64)) + squares * self.l2 / 2

    @_quietly
    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        """Returns the gradient of the objective by the parameters."""
        return self._gradient(params, *self._check(data))

    @_quietly
    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        """Returns the product of the objective's Hessian with a vector in the shapes of the parameters."""
        x, y = self._check(data)
        products = self.loss.hessian_vector(self._scores(params, x), y, self._scores(vector, x))
        return self._pull_back(x, products, vector)

    @_quietly
    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Sums `metrics` over examples, and adds their "count". No regulariser."""
        x, y = self._check(data)
        sums = self.loss.measure(self._scores(params, x), y)
        return {**dict(zip(self.metrics, sums, strict=True)), "count": float(len(y))}

    @_quietly
    def predict(self, params: Tensors, x: Array) -> Array:
        """Returns probabilities or scores of classes, (n, k), or numbers, (n,). See `Learner.predict`."""
        rows = convert_flat(check_rows(x), self.num_features, self.dtype)
        return self.loss.predict(self._scores(params, rows))

    @property
    def prediction(self) -> Prediction:
        """The prediction of the loss."""
        return self.loss.prediction

    @_quietly
    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        """Trains locally. See `DifferentiableLearner.local_sgd`."""
        x, y = self._check(problem.data)
        start = {name: np.asarray(value, self.dtype) for name, value in params.items()}
        if problem.space is None and _is_fused(problem.steps):
            return self._run_fused_sgd(start, x, y, problem)

        def gradient(here: Tensors, rows: Array | slice, number: int) -> Tensors:
            return self._gradient(here, x[rows], y[rows])

        return descend_within(start, problem, gradient)

    def _run_fused_sgd(self, start: Tensors, x: Array, y: Array, problem: LocalProblem) -> Tensors:
        """Descends in place. The part that does not depend on the batch is one affine map a step:

        w <- (1 - lr (l2 + mu + weight_decay)) w + lr (mu w0 - offset)

        With momentum it changes the last step: s <- momentum s + change, w <- w + s.
        """
        steps, offset = problem.steps, problem.offset
        lr, mu, momentum = steps.lr, steps.proximal, _momentum_of(steps)
        decay = mu + steps.rule.weight_decay
        now = {name: value.copy() for name, value in start.items()}
        moved = {name: np.zeros_like(value) for name, value in now.items()} if momentum else now
        drifts: list[tuple[Array, Array, float, Any]] = []
        if self.l2 or decay or offset is not None:
            for name, value in start.items():
                own_decay = decay + self.l2 if name in self.regularised else decay
                pull = mu * value if offset is None else mu * value - offset[name]
                drifts.append((now[name], moved[name], lr * own_decay, lr * pull))
        weights, bias = moved["weights"], moved.get("bias")
        for rows in batches(len(y), steps, problem.key):
            x_batch = x[rows]
            gradients = self.loss.gradient(self._scores(now, x_batch), y[rows])
            gradients *= lr / len(x_batch)
            if momentum:
                for step in moved.values():
                    step *= momentum
            for tensor, step, shrink, shift in drifts:
                if momentum:
                    step -= shrink * tensor
                else:
                    step *= 1 - shrink
                step += shift
            weights -= x_batch.T @ gradients
            if bias is not None:
                bias -= np.add.reduce(gradients, axis=0)
            if momentum:
                for name, step in moved.items():
                    now[name] += step
        for name, tensor in now.items():
            tensor -= start[name]
        return now

    @property
    def together(self) -> bool:
        """Always true: each client's descent is the same, and the work around it is done once for all."""
        return True

    @_quietly
    def local_sgd_many(self, params: Tensors, problems: Sequence[LocalProblem]) -> Tensors | None:
        """Runs each client's descent in its place in the stack, with the same bits as `local_sgd`."""
        steps = problems[0].steps
        if steps.proximal or self.l2 or steps.rule.weight_decay or not _is_fused(steps):
            return None
        data = [problem.data for problem in problems]
        start = {name: np.asarray(value, self.dtype) for name, value in params.items()}
        many = {name: np.empty((len(data), *value.shape), self.dtype) for name, value in start.items()}
        if len({examples.y.dtype for examples in data}) > 1:
            return None
        targets = self.loss.targets(np.concatenate([examples.y for examples in data]), self.dtype)
        sizes = [len(examples.y) for examples in data]
        own_targets = [targets[end - size : end] for end, size in zip(accumulate(sizes), sizes, strict=True)]
        at_once = max(1, HELD_BYTES // max(1, start["weights"].nbytes))
        for first in range(0, len(data), at_once):
            some = slice(first, first + at_once)
            own = {name: values[some] for name, values in many.items()}
            for name, w0 in start.items():
                own[name][...] = w0
            self._descend(
                own["weights"],
                own.get("bias"),
                [
                    self._epochs(problem, y)
                    for problem, y in zip(problems[some], own_targets[some], strict=True)
                ],
                steps,
            )
            for name, w0 in start.items():
                own[name] -= w0
        return many

    def _epochs(self, problem: LocalProblem, y: Array) -> Iterator[tuple[Array, Array]]:
        """Yields a client's batches. Each epoch's rows are put in order at once."""
        num, steps = len(y), problem.steps
        x = np.asarray(problem.data.x, self.dtype).reshape(num, -1)
        size = min(steps.batch_size or num, num)
        if size == num:
            yield from repeat((x, y), steps.count_epochs(num))
        rest = steps.count_steps(num)
        for order in orders(num, steps, problem.key):
            x_epoch, y_epoch = x.take(order, axis=0), y.take(order, axis=0)
            for start in range(0, min(num, rest * size), size):
                yield x_epoch[start : start + size], y_epoch[start : start + size]
            rest -= -(-num // size)

    def _descend(
        self,
        weights: Array,
        biases: Array | None,
        clients: Sequence[Iterator[tuple[Array, Array]]],
        steps: Steps,
    ) -> None:
        """Runs several clients' descent in place, side by side; the loss is one call for all clients.

        Args:
          weights, biases: with a leading client axis.
          clients: the batches of each.
          steps: plain, or with momentum.
        """
        own, outputs, lr, momentum = list(weights), self.loss.outputs, steps.lr, _momentum_of(steps)
        moved = list(np.zeros_like(weights)) if momentum else own
        moved_biases = biases if biases is None or not momentum else np.zeros_like(biases)
        while now := [
            (i, *batch) for i, rest in enumerate(clients) if (batch := next(rest, None)) is not None
        ]:
            who, sizes = [i for i, _, _ in now], [len(y) for _, _, y in now]
            places = [slice(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True)]
            scores = np.empty((places[-1].stop, *outputs), self.dtype)
            for (i, x, _), place in zip(now, places, strict=True):
                np.matmul(x, own[i], out=scores[place])
            if biases is not None:
                scores += np.repeat(biases[who], sizes, axis=0)
            gradients = self.loss.gradient(scores, np.concatenate([y for _, _, y in now]))
            alike = sizes.count(sizes[0]) == len(sizes)
            if alike:
                gradients *= lr / sizes[0]
            else:
                scales = np.repeat(np.array([lr / size for size in sizes], self.dtype), sizes)
                gradients *= scales.reshape(-1, *[1] * len(outputs))
            for (i, x, _), place in zip(now, places, strict=True):
                if momentum:
                    moved[i] *= momentum
                    moved[i] -= x.T @ gradients[place]
                    own[i] += moved[i]
                else:
                    own[i] -= x.T @ gradients[place]
            if biases is None or moved_biases is None:
                continue
            if momentum:
                moved_biases[who] *= momentum
            if alike:
                moved_biases[who] -= np.add.reduce(gradients.reshape(len(who), sizes[0], *outputs), axis=1)
            else:
                for i, place in zip(who, places, strict=True):
                    moved_biases[i] -= np.add.reduce(gradients[place], axis=0)
            if momentum:
                biases[who] += moved_biases[who]

    def _scores(self, params: Tensors, x: Array) -> Array:
        """Returns fresh scores, (n,) or (n, k)."""
        scores: Array = x @ params["weights"]
        if self.intercept:
            scores += params["bias"]
        return scores

    def _gradient(self, params: Tensors, x: Array, y: Array) -> Tensors:
        return self._pull_back(x, self.loss.gradient(self._scores(params, x), y), params)

    def _pull_back(self, x: Array, gradients: Array, at: Tensors) -> Tensors:
        """Turns derivatives by the scores into derivatives by the parameters, and adds the regulariser's."""
        weights = x.T @ gradients
        weights /= len(x)
        if self.l2:
            weights += self.l2 * at["weights"]
        if not self.intercept:
            return {"weights": weights}
        bias = np.asarray(np.add.reduce(gradients, axis=0) / len(x))
        if self.l2 and "bias" in self.regularised:
            bias = bias + self.l2 * at["bias"]
        return {"weights": weights, "bias": bias}

    def _check(self, data: Examples) -> tuple[Array, Array]:
        """Returns (n, d) features in the dtype of the arithmetic, and targets."""
        check_some(data)
        x = convert_flat(np.asarray(data.x), self.num_features, self.dtype)
        return x, self.loss.targets(data.y, self.dtype)


def _is_fused(steps: Steps) -> bool:
    """Returns whether fused descent takes these steps: plain ones, or with momentum and weight decay."""
    return type(steps.rule) is sgd_rule and not steps.lr_scales


def _momentum_of(steps: Steps) -> float:
    assert isinstance(steps.rule, sgd_rule)
    return steps.rule.momentum
