"""Models on JAX: one compiled call runs the local training of a client, or on a GPU of many clients.

A client's batches are padded to one of a few numbers, and each batch to one of a few sizes, so that
clients of unequal size share a few compiled programs, and the number of steps is not compiled in. Compiled
programs are kept between runs, in the user's cache folder.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hanse.core import (
    Array,
    DifferentiableLearner,
    Examples,
    InvalidInput,
    Key,
    Lent,
    LocalProblem,
    Prediction,
    Tensors,
    num_bytes,
)
from hanse.learners.engines import Precision, bfloat16, check_precision, full, jax_engine
from hanse.learners.examples import (
    Anything,
    Classes,
    Features,
    Labels,
    Numbers,
    Reals,
    check_predictions,
    check_rows,
    convert_examples,
)
from hanse.learners.jax import programs as compiled
from hanse.learners.jax.batches import group_for_vmap, in_order, join_examples, schedule
from hanse.learners.jax.losses import LOSSES, PREDICTIONS, WeightedCrossEntropy
from hanse.learners.jax.networks import network_scores
from hanse.learners.jax.programs import Params, Program, StepSettings, Traced, jax_key, power_of_two
from hanse.learners.jax.setup import is_deterministic, on_processor, precision, prepare
from hanse.learners.networks import Network
from hanse.learners.own import jax_model
from hanse.learners.within import descend_within

__all__ = ["JaxLearner", "bind_network", "bind_own"]


@dataclass(frozen=True)
class JaxLearner(DifferentiableLearner):
    """A model on JAX. Made by `bind_network` and `bind_own`.

    Args:
      program: the functions that are compiled.
      start: initial parameters from a key.
      features: the requirement on rows of features.
      labels: the requirement on labels.
      dtype: of the parameters and the arithmetic.
      training: the functions of local training.
      precision: of local training.
    """

    program: Program
    start: Callable[[Key], Tensors]
    features: Features
    labels: Labels
    dtype: str
    training: Program
    precision: Precision

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the labels."""
        return self.labels.metrics

    def init(self, key: Key) -> Tensors:
        """Returns initial parameters."""
        with precision(self.dtype):
            return self.start(key)

    def objective(self, params: Tensors, data: Examples) -> float:
        """Returns the mean loss plus the regulariser."""
        sums = self.evaluate(params, data)
        weights = (v for v in params.values() if v.ndim >= 2)
        squares = sum(float(np.square(v, dtype=np.float64).sum()) for v in weights)
        return sums["loss"] / sums["count"] + self.program.l2 / 2 * squares

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        """Returns the gradient of the objective by the parameters. Not in training mode."""
        x, y = self._check(data)
        with precision(self.dtype):
            return self._gradient(self.program, self._own(params), x, y, None)

    def clipped_sum(
        self, params: Tensors, data: Examples, max_norm: float, *, key: Key | None = None
    ) -> Tensors:
        """Sums clipped gradients, vmapped over some examples at a time."""
        x, y = self._check(data)
        program, chosen = (self.program, full()) if key is None else (self.training, self.precision)
        own = None if key is None or self.program.train is None else _seed_of(key)
        at_once = compiled.ROWS_CLIPPED_AT_ONCE
        with precision(self.dtype, chosen):
            rows = self._weigh(x, y, 1.0, at_once * -(-compiled.pad_size(len(y)) // at_once))
            found = compiled.sum_clipped_gradients(program, self._own(params), *rows, max_norm, own)
            return _copy_to_host(found, params)

    def regulariser_gradient(self, params: Tensors) -> Tensors:
        """Returns l2 times the weights; biases are not regularised."""
        l2 = self.program.l2
        return {n: np.asarray((l2 if w.ndim >= 2 else 0.0) * w, self.dtype) for n, w in params.items()}

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        """Returns the product of the objective's Hessian with a vector in the shapes of the parameters."""
        x, y = self._check(data)
        with precision(self.dtype):
            rows = self._weigh(x, y, 1 / len(y), self.program.pad_rows(len(y)))
            return _copy_to_host(
                compiled.hessian_vector(self.program, self._own(params), *rows, self._own(vector)), params
            )

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Sums `metrics` over examples, and adds their "count". No regulariser."""
        x, y = self._check(data)
        size, totals = self.program.rows_at_once, np.zeros(len(self.metrics))
        with precision(self.dtype):
            ours = self._own(params)
            for i in range(0, len(y), size):
                part = slice(i, i + size)
                padded = min(power_of_two(len(y[part])), size)
                rows = self._weigh(x[part], y[part], 1.0, padded)
                totals += [float(total) for total in compiled.measure(self.program, ours, *rows)]
        return {**dict(zip(self.metrics, totals.tolist(), strict=True)), "count": float(len(y))}

    def predict(self, params: Tensors, x: Array) -> Array:
        """Returns probabilities of classes, numbers, or the model's own outputs. See `Learner.predict`."""
        x = _narrow(self.features.convert(check_rows(x)))
        size, found = self.program.rows_at_once, []
        with precision(self.dtype):
            ours = self._own(params)
            for i in range(0, len(x), size):
                part = x[i : i + size]
                padded = _pad(part, min(power_of_two(len(part)), size))
                found.append(np.asarray(compiled.apply_prediction(self.program, ours, padded))[: len(part)])
        return check_predictions(np.concatenate(found), len(x), self.labels)

    @property
    def prediction(self) -> Prediction:
        """The prediction of the labels."""
        return self.labels.prediction

    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        """Trains locally. See `DifferentiableLearner.local_sgd`."""
        x, y = self._check(problem.data)
        start = self._own(params)
        with precision(self.dtype, self.precision):
            if problem.space is not None:
                return self._sgd_within(start, x, y, problem)
            given = None if problem.offset is None else self._own(problem.offset)
            end = self._descend(start, x, y, problem, given)
            return {name: np.asarray(np.subtract(end[name], value)) for name, value in start.items()}

    @property
    def is_repeatable(self) -> bool:
        """True on a processor, and on a GPU that was told in time to repeat its bits."""
        return is_deterministic()

    def convert(self, data: Examples) -> Examples:
        """Returns examples in the dtypes that JAX computes with."""
        return Examples(*self._check(data))

    @contextmanager
    def lend(self, params: Tensors, data: Examples, key: Key) -> Iterator[Lent]:
        """Lends the parameters, as arrays by name, in the precision of the model. See `Learner.lend`."""
        with precision(self.dtype), super().lend(self._own(params), data, key) as lent:
            yield replace(lent, to_array=_to_array, to_tensor=jnp.asarray)

    @property
    def together(self) -> bool:
        """Always true: parameters are brought to the device once, and on a GPU the clients are vmapped."""
        return True

    @property
    def rounds_together(self) -> bool:
        """True if clients are vmapped: then products are larger and are summed in another order."""
        return can_vmap()

    def local_sgd_many(self, params: Tensors, problems: Sequence[LocalProblem]) -> Tensors | None:
        """Runs `local_sgd` for several clients: vmapped on a GPU, else one by one with equal bits."""
        start = self._own(params)
        if len(problems) * num_bytes(start) > MOST_BYTES:
            return None
        checked = [self._check(problem.data) for problem in problems]
        many = {name: np.empty((len(problems), *value.shape), self.dtype) for name, value in start.items()}
        with precision(self.dtype, self.precision):
            begin = compiled.to_device(start)
            if can_vmap():
                self._descend_lanes(many, begin, checked, problems)
                return many
            for i, ((x, y), problem) in enumerate(zip(checked, problems, strict=True)):
                end = self._descend(begin, x, y, problem, None)
                for name, value in start.items():
                    np.subtract(end[name], value, out=many[name][i, ...])
        return many

    def _descend(
        self, start: Params, x: Array, y: Array, problem: LocalProblem, offset: Params | None
    ) -> Params:
        """Descends locally in one compiled call, or in several where many epochs take much memory."""
        settings = StepSettings.of(problem.steps, start)
        now, slots, number, key = start, None if settings.rule else (), 0, problem.key
        own = None if self.program.train is None else _seed_of(key)
        for some, num_steps in in_order(x, y, schedule(self.program, len(y), problem.steps, key), self.dtype):
            now, slots = compiled.descend(
                self.training, now, slots, start, some, number, num_steps, settings, offset, own
            )
            number += num_steps
        return now

    def _descend_lanes(
        self,
        many: Tensors,
        start: Params,
        checked: Sequence[tuple[Array, Array]],
        problems: Sequence[LocalProblem],
    ) -> None:
        """Writes the updates of clients that compute each step together."""
        steps, seeds = problems[0].steps, [_seed_of(problem.key) for problem in problems]
        clients = [
            (x, y, schedule(self.program, len(y), steps, problem.key))
            for (x, y), problem in zip(checked, problems, strict=True)
        ]
        x, y = (compiled.to_device(rows) for rows in join_examples(clients))
        groups = list(group_for_vmap(self.program, clients, self.dtype))
        updates = [
            compiled.descend_lanes(
                self.training,
                start,
                x,
                y,
                group.rows,
                group.weights,
                group.num_batches,
                group.num_steps,
                StepSettings.of(steps, start),
                group.of(seeds) if self.program.train is not None else None,
            )
            for group in groups
        ]
        for group, update in zip(groups, updates, strict=True):
            for name, of_all in many.items():
                of_all[group.members] = update[name][: len(group.members)]

    def _sgd_within(self, start: Tensors, x: Array, y: Array, problem: LocalProblem) -> Tensors:
        def gradient(here: Tensors, rows: Array | slice, number: int) -> Tensors:
            own = None if self.program.train is None else _seed_of(problem.key.fold_in("step", number))
            return self._gradient(self.training, self._own(here), x[rows], y[rows], own)

        return descend_within(start, problem, gradient)

    def _gradient(self, program: Program, params: Tensors, x: Array, y: Array, key: Array | None) -> Tensors:
        rows = self._weigh(x, y, 1 / len(y), program.pad_rows(len(y)))
        return _copy_to_host(compiled.loss_gradient(program, params, *rows, key), params)

    def _weigh(self, x: Array, y: Array, weight: float, size: int) -> tuple[Array, Array, Array]:
        """Pads rows and labels, and makes their weights; the weights of padding are 0."""
        weights = np.zeros(size, self.dtype)
        weights[: len(y)] = weight
        return _pad(x, size), _pad(y, size), weights

    def _own(self, tensors: Tensors) -> dict[str, Array]:
        return {name: np.asarray(value, self.dtype) for name, value in tensors.items()}

    def _check(self, data: Examples) -> tuple[Array, Array]:
        x, y = convert_examples(data, self.features, self.labels, self.dtype)
        return _narrow(x), _narrow(y)


def bind_network(network: Network, feature_shape: tuple[int, ...], num_classes: int | None) -> JaxLearner:
    """Binds a ready network to examples."""
    prepare()
    bound = network.bound(feature_shape, num_classes)
    losses, *measures = LOSSES[type(bound.labels)]
    if isinstance(bound.labels, Classes) and bound.labels.weights is not None:
        losses = WeightedCrossEntropy(bound.labels.weights)
    scores = network_scores(bound)
    predicts = PREDICTIONS[type(bound.labels)]
    program = Program(scores, None, losses, tuple(measures), predicts, network.l2, network.rows_at_once)
    chosen = network.engine.precision if isinstance(network.engine, jax_engine) else full()
    training = _lower(program, chosen, network.dtype)
    return JaxLearner(program, bound.init, bound.features, bound.labels, network.dtype, training, chosen)


OWN_ROWS_AT_ONCE = 512
"""Rows computed at once by models of unknown size."""


def bind_own(model: jax_model, feature_shape: tuple[int, ...], num_classes: int | None) -> JaxLearner:
    """Binds a user's own model to examples."""
    prepare()
    labels: Labels = Numbers() if num_classes is None else Classes(num_classes)
    if model.loss is not None and num_classes is None:
        labels = Anything()
    losses, *measures = (
        LOSSES[type(labels)] if model.loss is None else (model.loss, *LOSSES[type(labels)][1:])
    )
    with precision(model.dtype):
        tree = jax.eval_shape(model.init, jax_key(_seed_of(Key.from_seed(0))))
    structure, names = jax.tree.structure(tree), tuple(name for name, _ in _name_leaves(tree))
    outputs = None if model.loss is not None else () if num_classes is None else (num_classes,)
    scores = Own(model.apply, structure, names, outputs)
    train = None if model.train is None else Own(model.train, structure, names, outputs)
    predicts = PREDICTIONS[type(labels)]
    program = Program(scores, train, losses, tuple(measures), predicts, model.l2, OWN_ROWS_AT_ONCE)
    features = Reals(feature_shape, model.dtype, keep_integers=True)
    training = _lower(program, model.precision, model.dtype)
    return JaxLearner(program, OwnStart(model), features, labels, model.dtype, training, model.precision)


def _lower(program: Program, precision: Precision, dtype: str) -> Program:
    """Returns the program of local training in a precision. Raises: InvalidInput: if the dtype forbids it."""
    check_precision(precision, dtype, on_gpu=not on_processor())
    if not isinstance(precision, bfloat16):
        return program
    train = None if program.train is None else InBfloat16(program.train)
    return replace(program, scores=InBfloat16(program.scores), train=train)


@dataclass(frozen=True)
class InBfloat16:
    """A function from parameters and features to scores, computed in bfloat16. Equal ones share programs."""

    function: Callable[..., Traced]

    def __call__(self, params: Params, x: Traced, *key: Traced) -> Traced:
        def lower(array: Traced) -> Traced:
            return array.astype(jnp.bfloat16) if jnp.issubdtype(array.dtype, jnp.floating) else array

        scores = self.function(jax.tree.map(lower, params), lower(x), *key)
        return scores.astype(jnp.float32)


@dataclass(frozen=True)
class OwnStart:
    """Initial parameters of a user's own model, as named tensors."""

    model: jax_model

    def __call__(self, key: Key) -> Tensors:
        tree = self.model.init(jax_key(_seed_of(key)))
        return {name: np.array(leaf, self.model.dtype) for name, leaf in _name_leaves(tree)}


@dataclass(frozen=True)
class Own:
    """A user's own function of parameters, as a function of named tensors.

    Args:
      function: of the user.
      structure: of its parameters.
      names: of their leaves.
      outputs: the shape of one row's scores; None: the loss decides.
    """

    function: Callable[..., Any]
    structure: Any
    names: tuple[str, ...]
    outputs: tuple[int, ...] | None

    def __call__(self, params: Params, x: Traced, *key: Traced) -> Traced:
        scores = self.function(self.structure.unflatten([params[name] for name in self.names]), x, *key)
        if not hasattr(scores, "shape"):
            raise InvalidInput(
                f"the model returned a {type(scores).__name__}; return an array of scores: one a class, or "
                "one number a row"
            )
        if self.outputs == () and scores.shape == (len(x), 1):
            scores = scores[:, 0]
        if self.outputs is not None and scores.shape != (len(x), *self.outputs):
            raise InvalidInput(
                f"scores of shape {scores.shape} for {len(x)} examples; {(len(x), *self.outputs)} is needed: "
                "one score a class, or one number a row"
            )
        return scores


def _name_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a tree, each with the path to it."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield ".".join(map(_step, path)) or "params", leaf


def _step(step: Any) -> str:
    return next(str(getattr(step, name)) for name in ("key", "idx", "name") if hasattr(step, name))


# From NumPy and back


def _pad(rows: Array, size: int) -> Array:
    """Pads rows with zeros at the end."""
    if len(rows) == size:
        return rows
    padded = np.zeros((size, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded


def can_vmap() -> bool:
    """Returns whether it is faster to compute several clients together than one after the other."""
    return not on_processor()


def _narrow(values: Array) -> Array:
    """Converts integers to 32 bits, which JAX uses; other values stay as they are."""
    return values.astype(np.int32) if values.dtype.kind in "iu" else values


MOST_BYTES = 512 << 20
"""Most bytes of updates that are computed together."""


def _to_array(tensor: Any) -> Array | None:
    return np.array(tensor) if isinstance(tensor, jax.Array) else None


def _copy_to_host(tensors: Params, like: Tensors) -> dict[str, Array]:
    """Copies tensors, since JAX's own can't be written; keeps the order of names, which JAX sorts."""
    return {name: np.array(tensors[name]) for name in like}


def _seed_of(key: Key) -> Array:
    """Returns the two integers from which JAX makes a key."""
    return np.frombuffer(key.digest[:8], np.uint32)
