"""The interface of models to data: the operations that works are made of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from hanse.core.checks import check_count
from hanse.core.errors import InvalidInput
from hanse.core.keys import Key
from hanse.core.tensors import Array, Tensors
from hanse.core.values import value
from hanse.core.work import Space

__all__ = ["Examples", "Learner", "Population", "Steps"]


@dataclass(frozen=True)
class Examples:
    """Rows of features and their labels.

    Args:
      x: (n, ...) features.
      y: (n, ...) labels, classes as integers from 0.
    """

    x: Array
    y: Array

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise InvalidInput(
                f"{len(self.x)} rows of features and {len(self.y)} labels; give one label a row"
            )

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Array) -> "Examples":
        """Returns the examples at these positions."""
        return Examples(self.x[rows], self.y[rows])


class Population(ABC):
    """The clients and their data, loaded lazily: a client costs nothing until it is used."""

    @property
    @abstractmethod
    def num_clients(self) -> int:
        """The number of clients. They are numbered from 0 to this, exclusive."""

    @abstractmethod
    def client(self, number: int) -> Examples:
        """Returns one client's own examples."""

    @abstractmethod
    def role(self, name: str) -> Examples:
        """Returns a role's examples: "server" holds the global test set. Raises: InvalidInput: if none."""


@value
class Steps:
    """The settings of local stochastic gradient descent.

    Args:
      lr: step size.
      epochs: passes over the client's examples, each in a fresh order.
      batch_size: examples a step; the last batch of an epoch may be smaller. None: all of them.
      proximal: mu of a term mu/2 |w - w0|^2 that holds the client near where it started.
    """

    lr: float
    epochs: int = 1
    batch_size: int | None = None
    proximal: float = 0.0

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise InvalidInput(f"lr is {self.lr}; write a step size above 0")
        check_count("epochs", self.epochs)
        if self.batch_size is not None and self.batch_size < 1:
            raise InvalidInput(
                f"batch_size is {self.batch_size}; write at least 1, or leave it out for full batches"
            )
        if not self.proximal >= 0:
            raise InvalidInput(f"proximal is {self.proximal}; write a number of at least 0")

    def num_steps(self, num_examples: int) -> int:
        """Returns the number of steps on this many examples."""
        batch = self.batch_size or max(1, num_examples)
        return self.epochs * -(-num_examples // batch)


class Learner(ABC):
    """A model and its loss on one engine. Parameters are named tensors; it keeps none of its own.

    The objective of a client is the mean loss over its examples plus the regulariser, so the
    mean of objectives weighted by examples is the objective of the pooled data.
    """

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names that `evaluate` sums up, "loss" first; every learner adds "count"."""

    @property
    def together(self) -> bool:
        """Returns whether training several clients together is faster than one by one, on this machine."""
        return False

    @property
    def rounds_together(self) -> bool:
        """Returns whether `local_sgd_many` rounds differently, depending on who is computed with whom."""
        return False

    @abstractmethod
    def init(self, key: Key) -> Tensors:
        """Draws initial parameters."""

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
    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        """Sums each of `metrics`, and "count", over examples, without the regulariser."""

    @abstractmethod
    def local_sgd(
        self,
        params: Tensors,
        data: Examples,
        steps: Steps,
        key: Key,
        *,
        offset: Tensors | None = None,
        space: Space | None = None,
    ) -> Tensors:
        """Runs local stochastic gradient descent; epoch e visits `key.fold_in("epoch",
        e).rng().permutation(n)`.

        A full batch needs no order and draws none.

        Args:
          params: the start, w0.
          offset: added to each gradient (a control variate).
          space: the space to train in; the gradient step is then taken on its coordinates.

        Returns: the update w - w0, or its coordinates in `space`.
        """

    def local_sgd_many(
        self, params: Tensors, data: Sequence[Examples], steps: Steps, keys: Sequence[Key]
    ) -> Tensors | None:
        """Runs `local_sgd` at several clients, to within rounding; None: they are computed one by one.

        If examples can't be used, it may return numbers that are not finite instead of raising an error.

        Returns: the updates, with a leading client axis.
        """
        return None
