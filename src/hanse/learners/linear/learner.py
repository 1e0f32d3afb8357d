"""Linear models bound to data: exact derivatives, and local descent that is fused into few calls.

Small batches are common in federated learning, and there the calls cost more than the arithmetic.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    DifferentiableLearner,
    Examples,
    Key,
    LocalProblem,
    Prediction,
    Steps,
    Tensors,
    sgd_rule,
)
from hanse.learners.examples import check_rows, check_some, convert_flat
from hanse.learners.losses import Loss
from hanse.learners.model import batches, orders
from hanse.learners.within import descend_within

__all__ = ["Linear"]

HELD_BYTES = 512 * 1024
"""Most bytes of weights that descend side by side: with their examples they fit a processor's cache."""

_quietly = np.errstate(over="ignore", invalid="ignore")
"""Some overflow is intended (see `losses`); metrics stop a run that diverges, not warnings."""


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
    def clipped_sum(
        self, params: Tensors, data: Examples, max_norm: float, *, key: Key | None = None
    ) -> Tensors:
        """Sums clipped gradients in closed form: |gradient|² = |residual|² (|row|² + 1), + 1 for the bias."""
        x, y = self._check(data)
        residuals = self.loss.gradient(self._scores(params, x), y)
        flat = residuals.reshape(len(x), -1)
        rows = np.einsum("ij,ij->i", x, x) + (1 if self.intercept else 0)
        norms = np.sqrt(np.einsum("ij,ij->i", flat, flat) * rows)
        known = np.isfinite(norms)
        flat[~known] = 0
        flat *= np.where(known & (norms > max_norm), max_norm / np.where(norms > 0, norms, 1), 1)[:, None]
        total = {"weights": x.T @ residuals}
        if self.intercept:
            total["bias"] = np.asarray(np.add.reduce(residuals, axis=0))
        return total

    def regulariser_gradient(self, params: Tensors) -> Tensors:
        """Returns l2 times the parameters that are regularised."""
        return {
            name: np.asarray((self.l2 if name in self.regularised else 0.0) * value, self.dtype)
            for name, value in params.items()
        }

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
