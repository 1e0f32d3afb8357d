"""Models on PyTorch: users' own modules, unchanged, and the ready networks."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

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
from hanse.learners.engines import Precision, full, torch_engine
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
from hanse.learners.memory import keep_freed_memory
from hanse.learners.model import batches
from hanse.learners.networks import Network
from hanse.learners.own import averaged_buffers, torch_module
from hanse.learners.torch.losses import LOSSES, Checked, Measure, Tensor, make_loss, to_prediction
from hanse.learners.torch.networks import network_module
from hanse.learners.torch.optimisers import make_optimiser
from hanse.learners.torch.precision import PRECISIONS, check_bfloat16
from hanse.learners.torch.workbench import ROWS_AT_ONCE, Workbench, to_array
from hanse.learners.within import descend_within

__all__ = ["TorchLearner", "bind_network", "bind_own"]


@contextmanager
def _drawing_from(key: Key) -> Iterator[None]:
    """Seeds PyTorch's own generator from a key meanwhile, and restores it afterwards."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(int.from_bytes(key.digest[:8], "little"))
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """Computes in one thread, for the same bits everywhere: sums over threads round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# Learners


class TorchLearner(DifferentiableLearner):
    """A module on PyTorch. Made by `bind_network` and `bind_own`.

    Args:
      bench: the module to compute with.
      make: makes another one like it.
      start: initial parameters from a key.
      features: the requirement on rows of features.
      labels: the requirement on labels.
      loss: the mean loss of a batch.
      l2: strength of the regulariser.
      precision: of local training.
    """

    def __init__(
        self,
        bench: Workbench,
        make: Callable[[], Workbench],
        start: Callable[[Key], Tensors],
        features: Features,
        labels: Labels,
        loss: Measure,
        l2: float,
        precision: Precision,
    ) -> None:
        self._bench, self._make, self._start = bench, make, start
        self._precision = PRECISIONS[type(precision)]
        if not isinstance(precision, full):
            check_bfloat16(bench.dtype)
        self._features, self._labels, self._loss, self._l2 = features, labels, loss, l2
        self._measures = LOSSES[type(labels)][1:]
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
        return sums["loss"] / sums["count"] + self._l2 / 2 * squares

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        """Returns the gradient of the objective by the parameters. Not in training mode; 0 for buffers."""
        x, y = self._check(data)
        with self._at(params):
            self._bench.evaluate(x)
            gradients = [torch.zeros_like(w) for w in self._bench.trained.values()]
            for rows in _parts(len(y)):
                share = len(y[rows]) / len(y)
                for total, gradient in zip(gradients, self._gradients(x[rows], y[rows]), strict=True):
                    total.add_(gradient, alpha=share)
            return self._with_regulariser(gradients, params, params)

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        """Returns the product of the objective's Hessian with a vector in the shapes of the parameters."""
        x, y = self._check(data)
        with self._at(params):
            self._bench.evaluate(x)
            weights = tuple(self._bench.trained.values())
            towards = [
                self._bench.tensor(np.asarray(vector[n], self._bench.dtype)) for n in self._bench.trained
            ]
            curved = [torch.zeros_like(w) for w in weights]
            for rows in _parts(len(y)):
                gradients = self._gradients(x[rows], y[rows], create_graph=True)
                along = sum(
                    torch.vdot(g.reshape(-1), v.reshape(-1)) for g, v in zip(gradients, towards, strict=True)
                )
                products = torch.autograd.grad(along, weights, allow_unused=True, materialize_grads=True)
                for total, product in zip(curved, products, strict=True):
                    total.add_(product, alpha=len(y[rows]) / len(y))
            return self._with_regulariser(curved, vector, params)

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Sums `metrics` over examples, and adds their "count". No regulariser."""
        x, y = self._check(data)
        totals = np.zeros(len(self.metrics))
        with self._at(params):
            self._bench.evaluate(x)
            with torch.inference_mode():
                for rows in _parts(len(y)):
                    scores, labels = self._scores(x[rows]), self._bench.tensor(y[rows])
                    totals[0] += float(self._loss(scores, labels)) * len(labels)
                    totals[1:] += [float(measure(scores, labels)) for measure in self._measures]
        return {**dict(zip(self.metrics, totals.tolist(), strict=True)), "count": float(len(y))}

    def predict(self, params: Tensors, x: Array) -> Array:
        """Returns probabilities of classes, numbers, or the module's own outputs. See `Learner.predict`."""
        x = self._features.convert(check_rows(x))
        with self._at(params):
            self._bench.evaluate(x)
            with torch.inference_mode():
                found = [to_array(to_prediction(self._scores(x[r]), self._labels)) for r in _parts(len(x))]
        return check_predictions(np.concatenate(found), len(x), self._labels)

    @property
    def prediction(self) -> Prediction:
        """The prediction of the labels."""
        return self._labels.prediction

    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        """Trains locally in training mode. See `DifferentiableLearner.local_sgd`."""
        x, y = self._check(problem.data)
        steps, key = problem.steps, problem.key
        start = {name: np.asarray(value, self._bench.dtype) for name, value in params.items()}
        with self._at(start), _drawing_from(key.fold_in("torch")):
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
        with self._lock, _one_thread():
            frozen = self._bench.frozen
            bench.load(params)
            bench.load_frozen(frozen)
            with _drawing_from(key.fold_in("torch")):
                yield Lent(bench.lend(), given, bench.read_lent, _from_tensor, bench.tensor)
            bench.check_frozen(frozen)

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

    def _training_gradients(self, x: Array, y: Array) -> Sequence[Tensor]:
        self._bench.train(len(y))
        return self._gradients(x, y, precision=self._precision)

    def _gradients(
        self,
        x: Array,
        y: Array,
        *,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        create_graph: bool = False,
    ) -> Sequence[Tensor]:
        """Returns the gradient of the mean loss by each trained parameter; 0 for those that are not used."""
        with precision():
            loss = self._loss(self._scores(x), self._bench.tensor(y))
        gradients: Sequence[Tensor] = torch.autograd.grad(
            loss,
            tuple(self._bench.trained.values()),
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
        return gradients

    def _scores(self, x: Array) -> Tensor:
        batch = self._bench.tensor(x)
        try:
            return self._bench.module(batch)
        except Exception as error:
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
        with self._lock, _one_thread():
            self._bench.load(params)
            yield

    def _check(self, data: Examples) -> tuple[Array, Array]:
        return convert_examples(data, self._features, self._labels, self._bench.dtype)


def _from_tensor(obj: Any) -> Array | None:
    return to_array(obj) if isinstance(obj, torch.Tensor) else None


def _parts(num_rows: int) -> Iterator[slice]:
    return (slice(i, i + ROWS_AT_ONCE) for i in range(0, num_rows, ROWS_AT_ONCE))


def bind_network(network: Network, feature_shape: tuple[int, ...], num_classes: int | None) -> TorchLearner:
    """Binds a ready network to examples."""
    keep_freed_memory()
    bound = network.bound(feature_shape, num_classes)

    def make() -> Workbench:
        with _drawing_from(Key.from_seed(0)):
            return Workbench(network_module(bound), sends_buffers=False)

    loss = make_loss(bound.labels)
    precision = network.engine.precision if isinstance(network.engine, torch_engine) else full()
    return TorchLearner(make(), make, bound.init, bound.features, bound.labels, loss, network.l2, precision)


def bind_own(model: torch_module, feature_shape: tuple[int, ...], num_classes: int | None) -> TorchLearner:
    """Binds a user's own module to examples."""
    keep_freed_memory()
    sends_buffers = isinstance(model.buffers, averaged_buffers)

    def made(key: Key) -> Workbench:
        with _drawing_from(key):
            module = model.factory()
        if not isinstance(module, nn.Module):
            raise InvalidInput(
                f"the factory gave {module!r}; give the class of your module, or a function that returns one"
            )
        return Workbench(module, sends_buffers)

    def start(key: Key) -> Tensors:
        drawn = made(key)
        return drawn.read(tuple(drawn.to_device))

    bench = made(Key.from_seed(0))
    labels: Labels = Numbers() if num_classes is None else Classes(num_classes)
    if model.loss is not None:
        loss = model.loss
        labels = labels if num_classes is not None else Anything()
    else:
        loss = Checked(LOSSES[type(labels)][0], () if num_classes is None else (num_classes,))
    features = Reals(feature_shape, bench.dtype, keep_integers=bench.embeds)
    return TorchLearner(
        bench,
        lambda: made(Key.from_seed(0)),
        start,
        features,
        labels,
        loss,
        model.l2,
        model.precision,
    )
