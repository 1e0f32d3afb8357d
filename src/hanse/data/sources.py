"""Sources that give the examples of many parties when they are asked for."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from hanse.core import Array, Examples, Key
from hanse.data.partitions import Assignment, Partition

__all__ = [
    "Generated",
    "HoldingOut",
    "Listed",
    "Partitioned",
    "RowWise",
    "Source",
    "content",
    "draw_groups",
    "held_out",
]

RowWise: TypeAlias = Callable[[Examples], Examples]
"""A function of examples that treats each row by itself, in order."""


class Source(ABC):
    """A source that gives examples when they are asked for."""

    @property
    @abstractmethod
    def num_clients(self) -> int:
        """Number of clients, which are numbered from 0."""

    @property
    @abstractmethod
    def server(self) -> Examples | None:
        """The test set, if there is one."""

    @abstractmethod
    def client(self, number: int) -> Examples:
        """Returns a client's examples; `number` is in range."""

    @abstractmethod
    def sizes(self) -> Array:
        """Returns the number of examples that each client holds, (num_clients,)."""

    def test(self, number: int) -> Examples | None:
        """Returns a client's own test examples, if it has any."""
        return None

    def test_sizes(self) -> Array:
        """Returns the number of each client's own test examples, (num_clients,)."""
        return np.zeros(self.num_clients, np.int64)

    def labels(self, number: int) -> Array:
        """Returns a client's labels alone."""
        return self.client(number).y

    def groups(self, number: int) -> Array | None:
        """Returns the group of each of a client's examples, if they belong to groups."""
        return None

    def map(self, function: RowWise) -> "Source":
        """Applies a function to the examples of all parties."""
        return _Mapped(self, function)

    def contents(self) -> Any:
        """Returns a value that differs where the data differ; here, what some clients hold, evenly spread."""
        probes = np.linspace(0, self.num_clients - 1, min(NUM_PROBES, self.num_clients)).astype(int)
        return self.num_clients, tuple(content(self.client(int(number))) for number in probes)


NUM_PROBES = 16
"""Number of clients whose contents a fingerprint covers, where it can't cover all."""


def content(examples: Examples) -> Any:
    """Returns a value that differs where examples differ."""
    names = examples.x.dtype.names
    x = examples.x if names is None else {name: examples.x[name] for name in names}
    return x, examples.y


@dataclass(frozen=True)
class Partitioned(Source):
    """A data set that is divided among clients."""

    train: Examples
    assignment: Assignment
    partition: Partition
    key: Key
    server: Examples | None = None
    own_rows: Assignment | None = None
    train_groups: Array | None = None

    @property
    def num_clients(self) -> int:
        return self.assignment.num_clients

    def client(self, number: int) -> Examples:
        return self._seen("train", self.train.take(self.assignment.client(number)), number)

    def _seen(self, word: str, examples: Examples, number: int) -> Examples:
        if not self.partition.alters:
            return examples
        return self.partition.seen(examples, number, self.num_clients, self.key.fold_in(word, number))

    def sizes(self) -> Array:
        return self.assignment.sizes()

    def labels(self, number: int) -> Array:
        labels: Array = self.train.y[self.assignment.client(number)]
        return labels

    def groups(self, number: int) -> Array | None:
        return None if self.train_groups is None else self.train_groups[self.assignment.client(number)]

    def test(self, number: int) -> Examples | None:
        if self.server is None or self.own_rows is None:
            return None
        return self._seen("test", self.server.take(self.own_rows.client(number)), number)

    def test_sizes(self) -> Array:
        return super().test_sizes() if self.own_rows is None else self.own_rows.sizes()

    def map(self, function: RowWise) -> Source:
        if self.partition.alters:
            return super().map(function)
        server = None if self.server is None else function(self.server)
        return replace(self, train=function(self.train), server=server)

    def contents(self) -> Any:
        whole = content(self.train), self.assignment
        return (whole, super().contents()) if self.partition.alters else whole


@dataclass(frozen=True)
class Listed(Source):
    """Clients that are given as a list."""

    clients: tuple[Examples, ...]
    tests: tuple[Examples | None, ...]
    server: Examples | None = None

    @property
    def num_clients(self) -> int:
        return len(self.clients)

    def client(self, number: int) -> Examples:
        return self.clients[number]

    def sizes(self) -> Array:
        return np.array([len(examples) for examples in self.clients])

    def test(self, number: int) -> Examples | None:
        return self.tests[number]

    def test_sizes(self) -> Array:
        return np.array([0 if test is None else len(test) for test in self.tests])

    def map(self, function: RowWise) -> Source:
        clients = tuple(function(examples) for examples in self.clients)
        tests = tuple(None if test is None else function(test) for test in self.tests)
        return Listed(clients, tests, None if self.server is None else function(self.server))

    def contents(self) -> Any:
        tests = tuple(None if test is None else content(test) for test in self.tests)
        return tuple(content(examples) for examples in self.clients), tests


@dataclass(frozen=True)
class Generated(Source):
    """Clients that a function makes."""

    size: int
    make: Callable[[int], Examples]
    server: Examples | None = None

    @property
    def num_clients(self) -> int:
        return self.size

    def client(self, number: int) -> Examples:
        return self.make(number)

    def sizes(self) -> Array:
        return np.array([len(self.make(number)) for number in range(self.num_clients)])


class _Mapped(Source):
    """Another source's examples, to which a function is applied when they are asked for."""

    def __init__(self, source: Source, function: RowWise) -> None:
        self._inner, self._function = source, function
        self._server = self._made(source.server)

    def _made(self, examples: Examples | None) -> Examples | None:
        return None if examples is None else self._function(examples)

    @property
    def num_clients(self) -> int:
        return self._inner.num_clients

    @property
    def server(self) -> Examples | None:
        return self._server

    def client(self, number: int) -> Examples:
        return self._function(self._inner.client(number))

    def sizes(self) -> Array:
        return self._inner.sizes()

    def labels(self, number: int) -> Array:
        return self._inner.labels(number)

    def groups(self, number: int) -> Array | None:
        return self._inner.groups(number)

    def test(self, number: int) -> Examples | None:
        return self._made(self._inner.test(number))

    def test_sizes(self) -> Array:
        return self._inner.test_sizes()


def _num_held_out(sizes: Array, fraction: float) -> Array:
    num_test = np.rint(fraction * sizes).astype(np.int64)
    return np.where(num_test < sizes, num_test, 0)


def held_out(size: int, fraction: float, key: Key) -> tuple[Array, Array]:
    """Draws a client's rows to train on and those that it holds out to test on, by its own key."""
    num_test = int(_num_held_out(np.array(size), fraction))
    order = key.rng().permutation(size)
    return np.sort(order[num_test:]), np.sort(order[:num_test])


def draw_groups(groups: Array, fraction: float, key: Key) -> frozenset[str]:
    """Draws the groups whose rows a client holds out: by name, so that all clients draw the same ones.

    A client that would have nothing left to train on holds out none.
    """
    names = {*groups.tolist()}
    drawn = frozenset(
        name for name in names if int.from_bytes(key.fold_in("group", name).digest[:8]) < fraction * 2**64
    )
    return drawn if len(drawn) < len(names) else frozenset()


@dataclass(frozen=True)
class HoldingOut(Source):
    """Clients that train on some of another source's examples and test on the others."""

    inner: Source
    fraction: float
    key: Key

    @property
    def num_clients(self) -> int:
        return self.inner.num_clients

    @property
    def server(self) -> Examples | None:
        return self.inner.server

    @cached_property
    def tested_groups(self) -> frozenset[str] | None:
        """The groups that all clients hold out; None: examples belong to no groups."""
        each = [own for n in range(self.num_clients) if (own := self.inner.groups(n)) is not None]
        if not each:
            return None
        drawn = [(draw_groups(own, self.fraction, self.key), own) for own in each]
        tested = frozenset[str]().union(*(found for found, _ in drawn))
        # who would train on nothing holds out none, and then nobody else tests on these groups either
        return tested.difference(*(own.tolist() for found, own in drawn if not found))

    def _held_out(self) -> Array:
        sizes = self.inner.sizes()
        if self.tested_groups is None:
            return _num_held_out(sizes, self.fraction)
        return np.array([len(self._rows(number, size)[1]) for number, size in enumerate(sizes.tolist())])

    def _rows(self, number: int, size: int) -> tuple[Array, Array]:
        """Draws a client's rows to train on and to test on."""
        groups = self.inner.groups(number)
        if groups is None or self.tested_groups is None:
            return held_out(size, self.fraction, self.key.fold_in(number))
        is_tested = np.isin(groups, list(self.tested_groups))
        return np.flatnonzero(~is_tested), np.flatnonzero(is_tested)

    def client(self, number: int) -> Examples:
        examples = self.inner.client(number)
        return examples.take(self._rows(number, len(examples))[0])

    def sizes(self) -> Array:
        return np.asarray(self.inner.sizes() - self._held_out())

    def labels(self, number: int) -> Array:
        labels = self.inner.labels(number)
        kept: Array = labels[self._rows(number, len(labels))[0]]
        return kept

    def test(self, number: int) -> Examples | None:
        examples = self.inner.client(number)
        return examples.take(self._rows(number, len(examples))[1])

    def test_sizes(self) -> Array:
        return self._held_out()

    def map(self, function: RowWise) -> Source:
        return replace(self, inner=self.inner.map(function))

    def contents(self) -> Any:
        groups = () if self.tested_groups is None else (tuple(sorted(self.tested_groups)),)
        return self.inner.contents(), self.fraction, self.key, *groups
