"""Federated data: clients and their examples. A client costs nothing until it is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Key, Population, check_count, nearest, own_test, player
from hanse.core.exchange import digest
from hanse.data.checks import check_examples, check_test_fraction, count_classes
from hanse.data.datasets import TrainTest
from hanse.data.groups import order_keys
from hanse.data.partitions import Assignment, Partition
from hanse.data.sources import Generated, HoldingOut, Listed, Partitioned, RowWise, Source, content

__all__ = ["VALIDATION", "FederatedData", "from_clients", "generate", "own_test", "partition_data"]

VALIDATION = "validation"
"""The role that holds the examples to choose by."""


class FederatedData(Population[Examples]):
    """Clients that hold examples, and a test set that the role "server" holds.

    There may also be examples to choose by, rounds, stops and settings, which the role "validation" holds.
    Made by `partition_data`, `from_clients` and `generate`. A client may have test examples of its own,
    which the role `own_test(number)` holds.

    Args:
      source: of the examples.
      num_classes: of the labels; None: they are not classes.
      names: of the clients, if they have names.
      classes: the names of the classes, if they have names.
      notes: what the owner of the data should know, such as how many rows were left out.
      validation: the examples to choose by, if there are some.
    """

    def __init__(
        self,
        source: Source,
        *,
        num_classes: int | None = None,
        names: tuple[str, ...] = (),
        classes: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
        validation: Examples | None = None,
    ) -> None:
        self._source = source
        self._num_clients = source.num_clients
        self.num_classes = num_classes
        self.names = names
        self.classes = classes
        self.notes = notes
        self.validation = validation

    def __repr__(self) -> str:
        return f"<FederatedData: {self.num_clients} clients, num_classes={self.num_classes}>"

    @property
    def num_clients(self) -> int:
        """Number of clients, which are numbered from 0."""
        return self._num_clients

    @property
    def test(self) -> Examples | None:
        """The test set, which the role "server" holds."""
        return self._source.server

    def client(self, number: int) -> Examples:
        """Returns a client's examples. Raises: InvalidInput: if there is no such client, or it holds none."""
        self._check_number(number)
        examples = self._source.client(number)
        if len(examples.y) == 0:
            raise InvalidInput(f"client {number} holds no examples; give it some, or leave it out")
        return examples

    def labels(self, number: int) -> Array:
        """Returns a client's labels, without taking its features. Raises: InvalidInput: as `client`."""
        self._check_number(number)
        return self._source.labels(number)

    def _check_number(self, number: int) -> None:
        if not 0 <= number < self._num_clients:
            raise InvalidInput(f"client {number} is unknown; write a number from 0 to {self.num_clients - 1}")

    def role(self, name: str) -> Examples:
        """Returns a role's examples: "server" holds the test set, "validation" the examples to choose by, and
        "test/3" the own test examples of client 3.

        Raises: InvalidInput: if it holds none.
        """
        whose = player(name)
        if whose is not None:
            return self._own_test(whose)
        if name == VALIDATION and self.validation is not None:
            return self.validation
        if name != "server":
            raise InvalidInput(f"role {name!r} holds no examples: {nearest(name, ['server', own_test(0)])}")
        if self.test is None:
            raise InvalidInput(
                'role "server" holds no examples, because these data have no test set; give test examples, '
                "or evaluate at the clients"
            )
        return self.test

    def _own_test(self, number: int) -> Examples:
        self._check_number(number)
        examples = self._source.test(number)
        if examples is None or len(examples) == 0:
            raise InvalidInput(
                f"client {number} has no test examples of its own; use the clients that `tested()` names, or "
                "let each client hold some out: partitioned(..., client_test_fraction=0.2)"
            )
        return examples

    def find_test_clients(self) -> tuple[int, ...]:
        """Returns the clients that have test examples of their own. Makes all generated clients."""
        return tuple(np.flatnonzero(self.test_sizes()).tolist())

    def test_sizes(self) -> Array:
        """Returns each client's number of own test examples, (num_clients,). Makes all generated clients."""
        return self._source.test_sizes()

    def sizes(self) -> Array:
        """Returns each client's number of examples, (num_clients,). Makes all generated clients."""
        return self._source.sizes()

    @property
    def num_examples(self) -> int:
        """Number of examples that all clients hold together. All generated clients are made for it."""
        return int(self.sizes().sum())

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, if the features are a table, which is prepared before training."""
        return self._sample().x.dtype.names or ()

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of a row of features. Raises: InvalidInput: if they are a table, which no model takes."""
        if self.columns:
            some = ", ".join(self.columns[:4]) + (", ..." if len(self.columns) > 4 else "")
            raise InvalidInput(
                f"the features are a table ({some}), and models take numbers; prepare it first, for example "
                "with tabular()"
            )
        return self._sample().x.shape[1:]

    @property
    def target_shape(self) -> tuple[int, ...]:
        """The shape of the label of one row: () for one number or class."""
        labels = self.labels(0) if self.test is None else self.test.y
        return labels.shape[1:]

    def _sample(self) -> Examples:
        return self.client(0) if self.test is None else self.test

    def map(self, function: RowWise) -> "FederatedData":
        """Applies a function to the examples of all clients, of the test set and of the validation set.

        Args:
          function: treats each row by itself, as preprocessing does; it is called on all rows at once
            where they are in one array.
        """
        validation = None if self.validation is None else function(self.validation)
        return self._with_source(self._source.map(function), validation)

    def _with_source(self, source: Source, validation: Examples | None) -> "FederatedData":
        """Returns the same clients with other examples."""
        return FederatedData(
            source,
            num_classes=self.num_classes,
            names=self.names,
            classes=self.classes,
            notes=self.notes,
            validation=validation,
        )

    def holding_out(self, fraction: float, key: Key) -> "FederatedData":
        """Lets each client hold out a random share of its examples as its own test examples.

        A client that would have nothing left to train on, or to test on, holds out none. Where examples
        belong to groups, whole groups are drawn, the same at all clients.

        Raises: InvalidInput: if so large a share leaves nothing to train on, or there are too few groups.
        """
        check_test_fraction(fraction)
        source = HoldingOut(self._source, fraction, key)
        if fraction and source.tested_groups is not None and not source.tested_groups:
            raise InvalidInput(
                f"client_test_fraction is {fraction}, and the clients have too few groups to hold out some "
                "and to train on others; write a larger fraction, give more groups, or leave group out"
            )
        return self._with_source(source, self.validation)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all data, in hexadecimal: a run resumes only on the data it started with."""
        test = None if self.test is None else content(self.test)
        more = () if self.validation is None else (content(self.validation),)
        return digest((self._source.contents(), test, self.num_classes, *more))


def partition_data(
    data: TrainTest, partition: Partition, key: Key, *, client_test_fraction: float = 0.0
) -> FederatedData:
    """Divides the training examples among clients; a client's rows are copied when it is asked for.

    >>> from hanse.data import arrays, iid
    >>> data = arrays(np.arange(6.0)[:, None], np.zeros(6), test_fraction=0.0)
    >>> partition_data(data.load(), iid(3), Key.from_seed(0)).sizes()
    array([2, 2, 2])

    Args:
      data: the examples to divide; its test examples go to the role "server", its validation examples to
        the role "validation". Where clients are the data's keys, test examples of the same key are also the
        client's own.
      partition: the division among clients.
      key: the same key gives the same clients.
      client_test_fraction: of each client's examples, held out as test examples of its own.

    Raises: InvalidInput: if the partition is impossible.
    """
    assignment = partition.split(data, key)
    own_rows = _own_rows(assignment, data.test_keys) if not client_test_fraction else None
    source = Partitioned(
        data.train, assignment, partition, key.fold_in("seen"), data.test, own_rows, data.groups
    )
    shared = FederatedData(
        source,
        num_classes=data.num_classes,
        names=assignment.names,
        classes=data.classes,
        notes=data.notes,
        validation=data.validation,
    )
    if not client_test_fraction:
        return shared
    return shared.holding_out(client_test_fraction, key.fold_in("client tests"))


def _own_rows(assignment: Assignment, test_keys: Array | None) -> Assignment | None:
    """Assigns test rows to the clients that their keys name."""
    if test_keys is None or not assignment.names:
        return None
    number = {name: client for client, name in enumerate(assignment.names)}
    names, place = order_keys(test_keys)
    owners = np.array([number.get(name, -1) for name in names])[place]
    known = np.flatnonzero(owners >= 0)
    shared = Assignment.by_owner(owners[known], len(assignment.names))
    return replace(shared, rows=known[shared.rows])


def from_clients(
    clients: Sequence[Examples],
    *,
    test: Examples | None = None,
    client_tests: Sequence[Examples | None] = (),
    num_classes: int | None = None,
    names: Sequence[str] = (),
    validation: Examples | None = None,
) -> FederatedData:
    """Checks a list of clients and makes them federated data.

    >>> mine = [Examples(np.ones((n, 2)), np.arange(n) % 2) for n in (3, 5)]
    >>> from_clients(mine).sizes()
    array([3, 5])

    Args:
      clients: the examples of each client.
      test: held by the role "server".
      client_tests: each client's own test examples, or None; empty: nobody has any.
      num_classes: of the labels; by default, of integer labels, the largest plus one.
      names: of the clients.
      validation: examples to choose by, held by the role "validation".

    Raises: InvalidInput: if there is no client; if `client_tests` or `names` are fewer or more; if one of
      them (named by its number) holds no examples, or examples that are not finite, of another shape
      than client 0's, or with labels out of range.
    """
    if len(clients) == 0:
        raise InvalidInput("an empty list of clients; give the examples of at least 1")
    for argument, given in (("client_tests", client_tests), ("names", names)):
        if given and len(given) != len(clients):
            raise InvalidInput(
                f"{len(clients)} clients and {len(given)} {argument}; give one a client, or none"
            )
    tests = tuple(client_tests) or (None,) * len(clients)
    named = {f"client {number}": examples for number, examples in enumerate(clients)}
    named |= {f"the test of client {i}": own for i, own in enumerate(tests) if own is not None}
    if test is not None:
        named["test"] = test
    if validation is not None:
        named["validation"] = validation
    if num_classes is None:
        num_classes = count_classes(*(examples.y for examples in named.values()))
    for whose, examples in named.items():
        check_examples(examples, num_classes, whose=whose)
        if examples.x.shape[1:] != clients[0].x.shape[1:]:
            raise InvalidInput(
                f"{whose}: features of shape {examples.x.shape[1:]}; client 0 has "
                f"{clients[0].x.shape[1:]}: give the same columns"
            )
    source = Listed(tuple(clients), tests, test)
    return FederatedData(source, num_classes=num_classes, names=tuple(names), validation=validation)


def generate(
    num_clients: int,
    make: Callable[[int], Examples],
    *,
    test: Examples | None = None,
    num_classes: int | None = None,
    validation: Examples | None = None,
) -> FederatedData:
    """Describes clients that a function makes when they are asked for: a million cost nothing.

    The fingerprint covers 16 of them, evenly spread, and the test set.

    >>> def make(number):
    ...     rng = Key.from_seed(7).fold_in(number).rng()
    ...     return Examples(rng.random((20, 3)), rng.integers(2, size=20))
    >>> generate(1_000_000, make, num_classes=2).client(999_999).x.shape
    (20, 3)

    Args:
      num_clients: number of clients.
      make: from a client's number to its examples; always the same for the same number.
      test: held by the role "server".
      num_classes: of the labels; None: they are not classes.
      validation: examples to choose by, held by the role "validation".

    Raises: InvalidInput: if there is no client; on access, if a client holds no examples.
    """
    check_count("num_clients", num_clients)
    source = Generated(num_clients, make, test)
    return FederatedData(source, num_classes=num_classes, validation=validation)
