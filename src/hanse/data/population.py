"""Who holds which data. A client costs nothing until it is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hanse.core.errors import InvalidInput, nearest
from hanse.core.keys import Key
from hanse.core.learner import Examples, Population
from hanse.core.tensors import Array
from hanse.core.values import digest
from hanse.data.checks import check_examples, count_classes
from hanse.data.datasets import TrainTest
from hanse.data.partitions import Assignment, Partition

__all__ = ["FederatedData", "Source", "from_clients", "generated", "partitioned"]


class Source(ABC):
    """Where clients' examples come from when they are asked for."""

    @property
    @abstractmethod
    def num_clients(self) -> int:
        """Clients are numbered from 0 to this, exclusive."""

    @abstractmethod
    def client(self, number: int) -> Examples:
        """One client's examples; `number` is in range."""

    @abstractmethod
    def sizes(self) -> Array:
        """(num_clients,) examples that each client holds."""

    @abstractmethod
    def contents(self) -> Any:
        """A value that differs where the data differ."""


class FederatedData(Population):
    """Clients that hold examples, and a test set that the role "server" holds.

    Made by `partitioned`, `from_clients` and `generated`.

    Args:
      source: of the clients' examples.
      test: held by the role "server".
      num_classes: of the labels; None: they are no classes.
    """

    def __init__(
        self, source: Source, *, test: Examples | None = None, num_classes: int | None = None
    ) -> None:
        self._source = source
        self.test = test
        self.num_classes = num_classes

    def __repr__(self) -> str:
        return f"<FederatedData: {self.num_clients} clients, num_classes={self.num_classes}>"

    @property
    def num_clients(self) -> int:
        """Clients are numbered from 0 to this, exclusive."""
        return self._source.num_clients

    def client(self, number: int) -> Examples:
        """One client's own examples. Raises: InvalidInput: if there is no such client, or it holds none."""
        if not 0 <= number < self.num_clients:
            raise InvalidInput(f"client {number} is unknown; write a number from 0 to {self.num_clients - 1}")
        examples = self._source.client(number)
        if len(examples) == 0:
            raise InvalidInput(f"client {number} holds no examples; give it some, or leave it out")
        return examples

    def role(self, name: str) -> Examples:
        """A role's examples: "server" holds the test set. Raises: InvalidInput: if it holds none."""
        if name != "server":
            raise InvalidInput(f"role {name!r} holds no examples: {nearest(name, ['server'])}")
        if self.test is None:
            raise InvalidInput(
                'role "server" holds no examples, for these data have no test set; give test examples, '
                "or evaluate at the clients"
            )
        return self.test

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Of one row of features."""
        examples = self.client(0) if self.test is None else self.test
        return examples.x.shape[1:]

    def sizes(self) -> Array:
        """(num_clients,) examples that each client holds. Generated clients are all made for it."""
        return self._source.sizes()

    @property
    def num_examples(self) -> int:
        """That all clients hold together. Generated clients are all made for it."""
        return int(self.sizes().sum())

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256, in hexadecimal, of who holds what: a run resumes only on the data it began with."""
        test = None if self.test is None else _content(self.test)
        return digest((self._source.contents(), test, self.num_classes))


def _content(examples: Examples) -> tuple[Array, Array]:
    return examples.x, examples.y


@dataclass(frozen=True)
class _Partitioned(Source):
    train: Examples
    assignment: Assignment

    @property
    def num_clients(self) -> int:
        return self.assignment.num_clients

    def client(self, number: int) -> Examples:
        return self.train.take(self.assignment.client(number))

    def sizes(self) -> Array:
        return self.assignment.sizes()

    def contents(self) -> Any:
        return _content(self.train), self.assignment


@dataclass(frozen=True)
class _Listed(Source):
    clients: tuple[Examples, ...]

    @property
    def num_clients(self) -> int:
        return len(self.clients)

    def client(self, number: int) -> Examples:
        return self.clients[number]

    def sizes(self) -> Array:
        return np.array([len(examples) for examples in self.clients])

    def contents(self) -> Any:
        return tuple(_content(examples) for examples in self.clients)


NUM_PROBES = 16
"""Generated clients whose contents a fingerprint covers."""


@dataclass(frozen=True)
class _Generated(Source):
    size: int
    make: Callable[[int], Examples]

    @property
    def num_clients(self) -> int:
        return self.size

    def client(self, number: int) -> Examples:
        return self.make(number)

    def sizes(self) -> Array:
        return np.array([len(self.make(number)) for number in range(self.num_clients)])

    def contents(self) -> Any:
        probes = np.linspace(0, self.num_clients - 1, min(NUM_PROBES, self.num_clients)).astype(int)
        return self.num_clients, tuple(_content(self.make(int(number))) for number in probes)


def partitioned(data: TrainTest, partition: Partition, key: Key) -> FederatedData:
    """The training examples, shared out; a client's rows are copied when it is asked for.

    >>> from hanse.data import arrays, iid
    >>> data = arrays(np.arange(6.0)[:, None], np.zeros(6))
    >>> partitioned(data.load(), iid(3), Key.from_seed(0)).sizes()
    array([2, 2, 2])

    Args:
      data: what to share out; its test examples go to the role "server".
      partition: how.
      key: the same key gives the same clients.

    Raises: InvalidInput: if the partition is impossible.
    """
    assignment = partition.split(data.train.y, key)
    source = _Partitioned(data.train, assignment)
    return FederatedData(source, test=data.test, num_classes=data.num_classes)


def from_clients(
    clients: Sequence[Examples], *, test: Examples | None = None, num_classes: int | None = None
) -> FederatedData:
    """One's own list of clients, checked.

    >>> mine = [Examples(np.ones((n, 2)), np.arange(n) % 2) for n in (3, 5)]
    >>> from_clients(mine).sizes()
    array([3, 5])

    Args:
      clients: each one's examples.
      test: held by the role "server".
      num_classes: of the labels; by default, of integer labels, the largest and one more.

    Raises: InvalidInput: if there is no client; if one of them (named by its number) holds no examples,
      or examples that are not finite, of another shape than client 0's, or with labels out of range.
    """
    if len(clients) == 0:
        raise InvalidInput("an empty list of clients; give the examples of at least 1")
    named = {f"client {number}": examples for number, examples in enumerate(clients)}
    if test is not None:
        named["test"] = test
    if num_classes is None:
        num_classes = count_classes(*(examples.y for examples in named.values()))
    for whose, examples in named.items():
        check_examples(examples, num_classes, whose=whose)
        if examples.x.shape[1:] != clients[0].x.shape[1:]:
            raise InvalidInput(
                f"{whose}: features of shape {examples.x.shape[1:]}; client 0 has "
                f"{clients[0].x.shape[1:]}: give the same columns"
            )
    return FederatedData(_Listed(tuple(clients)), test=test, num_classes=num_classes)


def generated(
    num_clients: int,
    make: Callable[[int], Examples],
    *,
    test: Examples | None = None,
    num_classes: int | None = None,
) -> FederatedData:
    """Clients that a function makes when they are asked for: a million cost nothing.

    The fingerprint covers 16 of them, evenly spread, and the test set.

    >>> def make(number):
    ...     rng = Key.from_seed(7).fold(number).rng()
    ...     return Examples(rng.random((20, 3)), rng.integers(2, size=20))
    >>> generated(1_000_000, make, num_classes=2).client(999_999).x.shape
    (20, 3)

    Args:
      num_clients: how many.
      make: from a client's number to its examples; always the same for the same number.
      test: held by the role "server".
      num_classes: of the labels; None: they are no classes.

    Raises: InvalidInput: if there is no client; when asked for, a client that holds no examples.
    """
    if num_clients < 1:
        raise InvalidInput(f"num_clients is {num_clients}; write at least 1")
    return FederatedData(_Generated(num_clients, make), test=test, num_classes=num_classes)
