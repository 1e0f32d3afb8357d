"""Models on PyTorch: users' own modules, unchanged, and the ready networks."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch

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
    copy_examples,
)
from hanse.learners.engines import Precision, full
from hanse.learners.examples import (
    Classes,
    Features,
    check_predictions,
    check_rows,
    convert_examples,
)
from hanse.learners.model import batches
from hanse.learners.torch.arithmetic import compute_exactly, draw_from
from hanse.learners.torch.clipping import check_examples_apart, clip_and_sum
from hanse.learners.torch.losses import BatchLoss, Tensor
from hanse.learners.torch.optimisers import make_optimiser
from hanse.learners.torch.precision import PRECISIONS, check_on_device, multiply_in
from hanse.learners.torch.states import check_repeats
from hanse.learners.torch.workbench import ROWS_AT_ONCE, Workbench, to_array
from hanse.learners.within import descend_within

__all__ = ["TorchLearner"]

MEASURING = Key.from_seed(0).fold_in("measuring")
"""The key of what a module draws when it is measured."""

PROBED_BATCHES = 2
"""The number of batches on which a user's own module is tried."""

PROBED_ROWS = 32
"""The most examples of each."""


class TorchLearner(DifferentiableLearner):
    """A module on PyTorch. Made by `bind_network` and `bind_own`.

    Args:
      bench: the module to compute with.
      make: makes another one like it.
      start: initial parameters from a key.
      features: the requirement on rows of features.
      loss: the loss of a batch, and the requirement on labels.
      l2: strength of the regulariser.
      precision: of local training.
      is_own: whether the module and its loss are a user's own, which may keep state.
    """

    def __init__(
        self,
        bench: Workbench,
        make: Callable[[], Workbench],
        start: Callable[[Key], Tensors],
        features: Features,
        loss: BatchLoss,
        l2: float,
        precision: Precision,
        *,
        is_own: bool = False,
    ) -> None:
        self._bench, self._make, self._start = bench, make, start
        self._precision = precision
        if not isinstance(precision, full):
            check_on_device(precision, bench.dtype, bench.device)
        self._features, self._labels, self._loss, self._l2 = features, loss.labels, loss, l2
        self._is_own, self._may_keep_state, self._some_ignored = is_own, is_own, False
        self._lock = threading.Lock()
        self._unused: Workbench | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the labels."""
        return self._labels.metrics

    def init(self, key: Key) -> Tensors:
        """Returns initial parameters."""
        return self._start(key)

    def objective(self, params: Tensors, data: Examples) -> float:
        """Returns the mean loss plus the regulariser."""
        sums = self.evaluate(params, data)
        weights = (params[name] for name, w in self._bench.trained.items() if w.ndim >= 2)
        squares = sum(float(np.square(w, dtype=np.float64).sum()) for w in weights)
        mean = sums["loss"] / sums["count"] if sums["count"] else 0.0
        return mean + self._l2 / 2 * squares

    def summarise(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Turns sums into means; none is defined where all targets are ignored."""
        return super().summarise(sums) if sums["count"] else {}

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        """Returns the gradient of the objective by the parameters. Not in training mode; 0 for buffers."""
        x, y = self._check(data)
        with self._measuring(params):
            self._check_measuring(params, x[:PROBED_ROWS], y[:PROBED_ROWS])
            self._bench.evaluate(x)
            gradients = [torch.zeros_like(w) for w in self._bench.trained.values()]
            for rows, share in self._shares(y):
                for total, gradient in zip(gradients, self._gradients(x[rows], y[rows]), strict=True):
                    total.add_(gradient, alpha=share)
            return self._with_regulariser(gradients, params, params)

    def clipped_sum(
        self, params: Tensors, data: Examples, max_norm: float, *, key: Key | None = None
    ) -> Tensors:
        """Sums clipped gradients, in full precision: see `hanse.learners.torch.clipping`."""
        x, y = self._check(data)
        check_examples_apart(self._bench)
        with self._measuring(params):
            self._check_measuring(params, x[:PROBED_ROWS], y[:PROBED_ROWS])
        with self._at(params), draw_from(key or MEASURING, self._bench.device):
            if key is None:
                self._bench.evaluate(x)
            else:
                self._bench.train(len(y))
            totals = clip_and_sum(self._bench, self._loss, x, y, max_norm, not self._is_own)
            found = {n: to_array(total) for n, total in zip(self._bench.trained, totals, strict=True)}
        return {name: found[name] for name in params}

    def regulariser_gradient(self, params: Tensors) -> Tensors:
        """Returns l2 times the weights that are trained; biases are not regularised."""
        regular = {name for name, w in self._bench.trained.items() if w.ndim >= 2}
        dtype = self._bench.dtype
        return {n: np.asarray((self._l2 if n in regular else 0.0) * w, dtype) for n, w in params.items()}

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        """Returns the product of the objective's Hessian with a vector in the shapes of the parameters."""
        x, y = self._check(data)
        with self._measuring(params):
            self._bench.evaluate(x)
            weights = tuple(self._bench.trained.values())
            towards = [
                self._bench.tensor(np.asarray(vector[n], self._bench.dtype)) for n in self._bench.trained
            ]
            curved = [torch.zeros_like(w) for w in weights]
            for rows, share in self._shares(y):
                gradients = self._gradients(x[rows], y[rows], create_graph=True)
                along = sum(
                    torch.vdot(g.reshape(-1), v.reshape(-1)) for g, v in zip(gradients, towards, strict=True)
                )
                products = torch.autograd.grad(along, weights, allow_unused=True, materialize_grads=True)
                for total, product in zip(curved, products, strict=True):
                    total.add_(product, alpha=share)
            return self._with_regulariser(curved, vector, params)

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Sums `metrics` over examples, and adds their "count". No regulariser."""
        x, y = self._check(data)
        totals, count = np.zeros(len(self.metrics)), 0.0
        with self._measuring(params):
            self._bench.evaluate(x)
            with torch.inference_mode():
                for rows in self._parts(len(y)):
                    counted = self._loss.count(y[rows])
                    if not counted:
                        continue
                    outputs, labels = self._outputs(x[rows]), self._bench.tensor(y[rows])
                    totals[0] += float(self._loss.mean(outputs, labels)) * counted
                    totals[1:] += self._loss.sum_metrics(outputs, labels)
                    count += counted
        return {**dict(zip(self.metrics, totals.tolist(), strict=True)), "count": count}

    def predict(self, params: Tensors, x: Array) -> Array:
        """Returns probabilities of classes, numbers, or the module's own outputs. See `Learner.predict`."""
        x = self._features.convert(check_rows(x))
        with self._measuring(params):
            self._bench.evaluate(x)
            with torch.inference_mode():
                found = [to_array(self._loss.predict(self._outputs(x[r]))) for r in self._parts(len(x))]
        return check_predictions(np.concatenate(found), len(x), self._labels)

    @property
    def is_repeatable(self) -> bool:
        """True on a processor: on a GPU some of PyTorch's operations add up in an order of their own."""
        return bool(self._bench.device.type == "cpu")

    @property
    def prediction(self) -> Prediction:
        """The prediction of the labels."""
        return self._labels.prediction

    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        """Trains locally in training mode. See `DifferentiableLearner.local_sgd`."""
        x, y = self._check(problem.data)
        steps, key = problem.steps, problem.key
        start = {name: np.asarray(value, self._bench.dtype) for name, value in params.items()}
        with self._at(start), draw_from(key.fold_in("torch"), self._bench.device):
            self._some_ignored = self._loss.find_ignored_targets(y) is not None
            self._check_training(start, x, y, problem)
            if problem.space is not None:
                return self._sgd_within(start, x, y, problem)
            weights, drifts = tuple(self._bench.trained.values()), self._drifts(start, problem)
            optimiser = None if steps.is_plain else make_optimiser(self._bench.trained, steps, start)
            for rows in batches(len(y), steps, key):
                gradients = list(self._training_gradients(x[rows], y[rows]))
                with torch.no_grad():
                    if optimiser is None:
                        for weight, _, decay, pull in drifts:
                            if decay:
                                weight.mul_(1 - steps.lr * decay)
                            if pull is not None:
                                weight.add_(pull)
                        torch._foreach_add_(weights, gradients, alpha=-steps.lr)
                    else:
                        for weight, i, decay, pull in drifts:
                            gradients[i] = gradients[i].add(weight, alpha=decay)
                            if pull is not None:
                                gradients[i].sub_(pull, alpha=1 / steps.lr)
                        for weight, gradient in zip(weights, gradients, strict=True):
                            weight.grad = gradient
                        optimiser.step()
                del gradients  # otherwise memory would hold two sets of them at a time
            for weight in weights:
                weight.grad = None
            self._bench.check_infinite()
            update = self._bench.read(tuple(start))
        for name, tensor in update.items():
            tensor -= start[name]
        return update

    def convert(self, data: Examples) -> Examples:
        """Returns examples in the dtypes that the module takes."""
        return Examples(*self._check(data))

    @contextmanager
    def lend(self, params: Tensors, data: Examples, key: Key) -> Iterator[Lent]:
        """Lends a module in training mode, with PyTorch's generator seeded. See `Learner.lend`.

        Each loan is of another module, as new, so nothing that a loop does to it reaches another client.
        """
        given = copy_examples(self.convert(data))
        with self._lock:
            bench = self._make_lent()
        with self._lock, compute_exactly(self._bench.device):
            frozen = self._bench.frozen
            bench.load(params)
            bench.load_frozen(frozen)
            with draw_from(key.fold_in("torch"), self._bench.device):
                yield Lent(bench.lend(), given, bench.read_lent, _from_tensor, bench.tensor)
            bench.check_frozen(frozen)
            bench.check_infinite()

    def _make_lent(self) -> Workbench:
        """Makes a bench for one loan: a copy of one that is never used, if that is as good as a new one."""
        if self._unused is None:
            self._unused = self._make()
        return self._unused.copy() if self._unused.can_copy else self._make()

    def _drifts(
        self, start: Tensors, problem: LocalProblem
    ) -> list[tuple[Tensor, int, float, Tensor | None]]:
        """Returns the part of a step that does not depend on the batch, one affine map a parameter it moves:

        w <- (1 - lr decay) w + pull,   decay = l2 + mu,   pull = lr (mu w0 - offset)

        Returns: parameters with their numbers, decay and pull.
        """
        lr, mu, offset = problem.steps.lr, problem.steps.proximal, problem.offset
        drifts = []
        for i, (name, weight) in enumerate(self._bench.trained.items()):
            decay = mu + self._l2 if weight.ndim >= 2 else mu
            pull = None
            if mu or offset is not None:
                pull = lr * (mu * start[name] - (0 if offset is None else offset[name]))
                pull = self._bench.tensor(np.asarray(pull, self._bench.dtype))
            if decay or pull is not None:
                drifts.append((weight, i, decay, pull))
        return drifts

    def _sgd_within(self, start: Tensors, x: Array, y: Array, problem: LocalProblem) -> Tensors:
        def gradient(here: Tensors, rows: Array | slice, number: int) -> Tensors:
            self._bench.load(here)
            return self._with_regulariser(self._training_gradients(x[rows], y[rows]), here, start)

        return descend_within(start, problem, gradient)

    def _check_training(self, start: Tensors, x: Array, y: Array, problem: LocalProblem) -> None:
        """Checks once, on the first batches, that training repeats itself."""

        def compute() -> Sequence[Tensor]:
            self._bench.load(start)
            with draw_from(problem.key.fold_in("torch"), self._bench.device):
                some = islice(batches(len(y), problem.steps, problem.key), PROBED_BATCHES)
                return [
                    gradient
                    for rows in some
                    for gradient in self._training_gradients(x[rows][:PROBED_ROWS], y[rows][:PROBED_ROWS])
                ]

        self._check_state(start, compute)

    def _check_measuring(self, params: Tensors, x: Array, y: Array) -> None:
        """Checks once, on some examples, that measuring repeats itself."""

        def compute() -> Sequence[Tensor]:
            self._bench.load(params)
            self._bench.evaluate(x)
            with draw_from(MEASURING, self._bench.device):
                return self._gradients(x, y)

        self._check_state(params, compute)

    def _check_state(self, params: Tensors, compute: Callable[[], Sequence[Tensor]]) -> None:
        """Checks once that a user's own module keeps no state but what is loaded."""
        if self._may_keep_state:
            check_repeats(self._bench.module, getattr(self._loss.mean, "function", None), compute)
            self._may_keep_state = False
            self._bench.load(params)

    def _training_gradients(self, x: Array, y: Array) -> Sequence[Tensor]:
        if self._some_ignored and not self._loss.count(y):  # their mean would be 0 / 0
            return [torch.zeros_like(weight) for weight in self._bench.trained.values()]
        self._bench.train(len(y))
        if isinstance(self._precision, full):
            return self._gradients(x, y)
        forward = PRECISIONS[type(self._precision)](self._bench.device.type)
        with multiply_in(self._precision, self._bench.device):
            return self._gradients(x, y, forward=forward)

    def _gradients(
        self,
        x: Array,
        y: Array,
        *,
        forward: AbstractContextManager[Any] | None = None,
        create_graph: bool = False,
    ) -> Sequence[Tensor]:
        """Returns the gradient of the mean loss by each trained parameter; 0 for those that are not used."""
        with nullcontext() if forward is None else forward:
            loss = self._loss.mean(self._outputs(x), self._bench.tensor(y))
        gradients: Sequence[Tensor] = torch.autograd.grad(
            loss,
            tuple(self._bench.trained.values()),
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
        return gradients

    def _outputs(self, x: Array) -> Any:
        batch = self._bench.tensor(x)
        try:
            return self._bench.module(batch)
        except Exception as error:
            if len(x) == 1 and "more than 1 value per channel" in str(error):
                raise InvalidInput(
                    "the module's batch normalisation can't normalise one example alone, since it keeps no "
                    "running statistics. Choose a batch_size that leaves no batch of one example, leave out "
                    "clients with one example, or write track_running_stats=True"
                ) from error
            error.add_note(f"while the module computed on features of shape {x.shape} and dtype {x.dtype}")
            raise

    def _with_regulariser(self, gradients: Sequence[Tensor], at: Tensors, order: Tensors) -> Tensors:
        """Returns gradients as arrays, in the order of the parameters; 0 for buffers."""
        arrays = {
            name: to_array(gradient) for name, gradient in zip(self._bench.trained, gradients, strict=True)
        }
        for name, gradient in arrays.items():
            if self._l2 and gradient.ndim >= 2:
                gradient += self._l2 * at[name]
        return {
            name: arrays[name] if name in arrays else np.zeros(value.shape, self._bench.dtype)
            for name, value in order.items()
        }

    @contextmanager
    def _at(self, params: Tensors) -> Iterator[None]:
        """Computes at these parameters, alone and in one thread."""
        with self._lock, compute_exactly(self._bench.device):
            self._bench.load(params)
            yield

    @contextmanager
    def _measuring(self, params: Tensors) -> Iterator[None]:
        """Computes at these parameters; what draws at random also when it is measured, draws the same."""
        with self._at(params), draw_from(MEASURING, self._bench.device):
            yield

    def _parts(self, num_rows: int) -> Iterator[slice]:
        """Yields rows that are computed together; no single row is left over that has no statistics."""
        starts = list(range(0, num_rows, ROWS_AT_ONCE))
        if self._bench.needs_several and num_rows % ROWS_AT_ONCE == 1 and len(starts) > 1:
            starts.pop()
        for start, end in zip(starts, (*starts[1:], num_rows), strict=True):
            yield slice(start, end)

    def _shares(self, y: Array) -> Iterator[tuple[slice, float]]:
        """Yields parts of the examples, with their shares of those that are not ignored."""
        total = self._loss.count(y)
        for rows in self._parts(len(y)):
            counted = self._loss.count(y[rows])
            if counted:
                yield rows, counted / total

    def _check(self, data: Examples) -> tuple[Array, Array]:
        y = np.asarray(data.y)
        ignored = self._loss.find_ignored_targets(y) if isinstance(self._labels, Classes) else None
        if ignored is None:
            return convert_examples(data, self._features, self._labels, self._bench.dtype)
        data = Examples(data.x, np.where(ignored, 0, y))
        x, classes = convert_examples(data, self._features, self._labels, self._bench.dtype)
        return x, np.where(ignored, y, classes)


def _from_tensor(obj: Any) -> Array | None:
    return to_array(obj) if isinstance(obj, torch.Tensor) else None
