"""The interface of models to data: the operations that works are made of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

import numpy as np

from hanse.core.errors import InvalidInput
from hanse.core.keys import Key
from hanse.core.local import Examples, LocalProblem
from hanse.core.tensors import Array, Tensors, zeros_like
from hanse.core.work import PartyId

__all__ = [
    "DifferentiableLearner",
    "Learner",
    "Lent",
    "OwnLearners",
    "Population",
    "Prediction",
    "bind_learner",
    "copy_examples",
]

D = TypeVar("D", covariant=True)

Prediction: TypeAlias = Literal["probabilities", "scores", "numbers", "risks"]
"""The meaning of predicted numbers: those of classes are probabilities or scores."""

_MEANS = {"correct": "accuracy"}
"""Names of metrics whose mean over examples is not called like their sum."""


class Population(ABC, Generic[D]):
    """The clients and their data, loaded lazily: a client costs nothing until it is used.

    What a client holds is whatever its works take: examples, columns of a table with the rows' ids, texts.
    """

    @property
    @abstractmethod
    def num_clients(self) -> int:
        """The number of clients. They are numbered from 0 to this, exclusive."""

    @abstractmethod
    def client(self, number: int) -> D:
        """Returns one client's own data, the same whenever it is asked for."""

    @abstractmethod
    def role(self, name: str) -> D:
        """Returns a role's data: "server" holds the global test set. Raises: InvalidInput: if it has none."""


@dataclass(frozen=True)
class OwnLearners:
    """Learners that differ from party to party: each is made where its party's data are, from these data.

    It stands where one learner would serve all parties, for example in a simulation, or as what a network
    client makes of a plan. A party's learner may be made anew at any time, so it keeps nothing.

    Args:
      make: makes the learner of a party from its data; for other processes, a function of a module.
        It raises InvalidInput if the data can't be used.
    """

    make: Callable[[PartyId, Any], Any]


def bind_learner(learner: Any, party: PartyId, data: Any) -> Any:
    """Returns the learner of a party: its own if learners differ, or the one that serves all.

    >>> widths = OwnLearners(lambda party, data: f"{data.shape[1]} columns at {party}")
    >>> bind_learner(widths, "server", np.zeros((2, 3)))
    '3 columns at server'
    """
    return learner.make(party, data) if isinstance(learner, OwnLearners) else learner


@dataclass(frozen=True)
class Lent:
    """A model on loan to a training loop of a user's own.

    Args:
      model: what the loop trains: parameters by name, which it may change, or the engine's own object.
      data: the client's examples as the learner computes with them, copied.
      read: reads the trained parameters from what the loop returned; None stands for the model itself.
      to_array: converts a tensor of the engine to an array; None: it is none of them.
      to_tensor: converts such an array back.
    """

    model: Any
    data: Examples
    read: Callable[[Any], Any]
    to_array: Callable[[Any], Array | None] = lambda tensor: None
    to_tensor: Callable[[Array], Any] = lambda array: array


class Learner(ABC):
    """A model bound to the form of its data. Parameters are named tensors; it keeps none of its own."""

    higher_is_better: ClassVar[frozenset[str]] = frozenset()
    """The names of its metrics that are better when higher. Well-known names, such as "accuracy", "auc", "f1"
    or "r2", need not be here."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names that `evaluate` sums up, "loss" first; every learner adds "count"."""

    @abstractmethod
    def init(self, key: Key) -> Tensors:
        """Draws initial parameters."""

    @abstractmethod
    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Sums each of `metrics`, and "count", over examples, without the regulariser."""

    def summarise(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Turns the sums of `evaluate`, over any number of parties, into the metrics that people read.

        By default they are means over examples, and that of "correct" is called "accuracy". A metric that
        these examples do not define is left out.
        """
        return {_MEANS.get(name, name): float(sums[name] / sums["count"]) for name in self.metrics}

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the metrics that `summarise` returns."""
        return tuple(self.summarise(dict.fromkeys((*self.metrics, "count"), 1.0)))

    @abstractmethod
    def predict(self, params: Tensors, x: Array) -> Array:
        """Predicts the labels of rows of features. Each row is predicted by itself.

        Returns: for classes, (n, k) probabilities, or scores where the model has no probabilities: the
          class of the largest entry is the predicted one. Where a row has several labels, one for each
          place of a text, (n, ..., k). For numbers, (n,) or (n, ...) numbers. For survival, (n,) risk
          scores.
        Raises: InvalidInput: if the rows do not suit the model, or there are none.
        """

    @property
    def prediction(self) -> Prediction:
        """The meaning of the numbers that `predict` returns; "scores" claims least."""
        return "scores"

    @property
    def is_repeatable(self) -> bool:
        """Returns whether computing the same twice gives the same bits, on this machine."""
        return True

    def convert(self, data: Examples) -> Examples:
        """Returns examples as the learner computes with them. Raises: InvalidInput: if they can't be used."""
        return data

    @contextmanager
    def lend(self, params: Tensors, data: Examples, key: Key) -> Iterator[Lent]:
        """Lends the model to a training loop of a user's own, for as long as the context lasts.

        Args:
          params: that the loop starts from.
          key: seeds the engine's generator meanwhile, if it has one.
        """
        model = {name: np.array(tensor) for name, tensor in params.items()}
        yield Lent(model, copy_examples(self.convert(data)), lambda found: model if found is None else found)


def copy_examples(data: Examples) -> Examples:
    """Copies examples, so that changes to them stay where they are made."""
    return Examples(np.array(data.x, order="C"), np.array(data.y, order="C"))


class DifferentiableLearner(Learner):
    """A learner that can be trained by gradients.

    The objective of a client is the mean loss over its examples plus the regulariser, so the
    mean of objectives weighted by examples is the objective of the pooled data.
    """

    @property
    def together(self) -> bool:
        """Returns whether training several clients together is faster than one by one, on this machine."""
        return False

    @property
    def rounds_together(self) -> bool:
        """Returns whether `local_sgd_many` rounds differently, depending on who is computed with whom."""
        return False

    @abstractmethod
    def objective(self, params: Tensors, data: Examples) -> float:
        """Computes the mean loss plus the regulariser."""

    @abstractmethod
    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        """Computes the gradient of the objective with respect to the parameters."""

    @abstractmethod
    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        """Multiplies the objective's Hessian by a vector in the shapes of the parameters."""

    @abstractmethod
    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        """Trains locally from `params`, w0, by the steps that the problem asks for.

        Returns: the update w - w0, or its coordinates in the problem's space.
        """

    def local_sgd_many(self, params: Tensors, problems: Sequence[LocalProblem]) -> Tensors | None:
        """Runs `local_sgd` at several clients, to within rounding; None: they are computed one by one.

        The problems share their steps and have neither offset nor space. If examples can't be used, it may
        return numbers that are not finite instead of raising an error.

        Returns: the updates, with a leading client axis.
        """
        return None

    def clipped_sum(
        self, params: Tensors, data: Examples, max_norm: float, *, key: Key | None = None
    ) -> Tensors:
        """Sums the gradients of single examples, each shortened to a norm of at most `max_norm`.

        An example's gradient is that of its loss, without the regulariser. Its norm is that of all parameters
        together. If it is not finite, it counts as 0.

        Args:
          key: draws what the model draws in training, such as dropout; None: not in training mode.

        Raises: InvalidInput: if one example's gradient depends on others, or can't be computed alone.
        """
        raise InvalidInput(
            f"{type(self).__name__} has no gradients of single examples, which privacy of examples needs; "
            "use a model that adds up a loss over examples, such as softmax(), mlp() or torch_module(...)"
        )

    def regulariser_gradient(self, params: Tensors) -> Tensors:
        """Computes the gradient of the part of the objective that no example changes. By default it is 0."""
        return zeros_like(params)
