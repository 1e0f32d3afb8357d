"""Ways to share out examples among clients. Each is a disjoint cover that leaves no client empty."""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY

import numpy as np

from hanse.core.errors import InvalidInput
from hanse.core.keys import Key
from hanse.core.tensors import Array
from hanse.core.values import value

__all__ = ["Assignment", "Partition", "dirichlet", "iid", "shards"]


@value
class Assignment:
    """Which rows each client holds.

    >>> Assignment.by_owner(np.array([1, 0, 1]), 2).client(1)
    array([0, 2])

    Args:
      rows: (n,) positions of examples, client by client.
      offsets: (num_clients + 1,) where each client's rows begin, and the end.
    """

    rows: Array
    offsets: Array

    @classmethod
    def by_owner(cls, owners: Array, num_clients: int, order: Array | None = None) -> "Assignment":
        """From the owner of each row: (n,) integers. A client's rows stand in the given order."""
        order = np.arange(len(owners)) if order is None else order
        rows = order[np.argsort(owners[order], kind="stable")]
        sizes = np.bincount(owners, minlength=num_clients)
        return cls(rows, np.concatenate([[0], np.cumsum(sizes)]))

    @property
    def num_clients(self) -> int:
        """Clients are numbered from 0 to this, exclusive."""
        return len(self.offsets) - 1

    def sizes(self) -> Array:
        """(num_clients,) examples that each client holds."""
        return np.diff(self.offsets)

    def client(self, number: int) -> Array:
        """A client's rows: a view."""
        return self.rows[self.offsets[number] : self.offsets[number + 1]]


class Partition(ABC):
    """How examples are shared out: a value such as `iid(10)`."""

    @abstractmethod
    def split(self, labels: Array, key: Key) -> Assignment:
        """Shares out rows by their labels. Equal keys give equal assignments.

        Raises: InvalidInput: if there are too few rows, or the labels don't suit.
        """


@value
class iid(Partition):
    """Shuffled, then cut into parts of equal size, to within one example.

    >>> iid(3).split(np.zeros(10), Key.from_seed(0)).sizes()
    array([3, 3, 4])

    Args:
      num_clients: who share the examples.
    Raises: InvalidInput: if there are fewer examples than clients.
    """

    num_clients: int

    def __post_init__(self) -> None:
        _check_clients(self.num_clients)

    def split(self, labels: Array, key: Key) -> Assignment:
        """Uses no labels, only their number."""
        _check_enough(len(labels), self.num_clients, 1)
        return Assignment(key.rng().permutation(len(labels)), _cuts(len(labels), self.num_clients))


@value
class shards(Partition):
    """Sorted by label and cut into shards of equal size, to within one; each client gets some at random.

    With 200 shards of MNIST and two a client, most clients see two digits only. Labels may be real
    numbers.

    >>> shards(2, 1).split(np.array([0, 1, 0, 1]), Key.from_seed(0)).sizes()
    array([2, 2])

    Args:
      num_clients: who share the examples.
      shards_per_client: how many each gets; fewer means more unlike clients.
    Raises: InvalidInput: if there are fewer examples than shards, or several labels a row.
    References: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-efficient learning of
      deep networks from decentralized data", AISTATS 2017, arXiv 1602.05629, section 3.
    """

    num_clients: int
    shards_per_client: int = 2

    def __post_init__(self) -> None:
        _check_clients(self.num_clients)
        if self.shards_per_client < 1:
            raise InvalidInput(f"shards_per_client is {self.shards_per_client}; write at least 1")

    def split(self, labels: Array, key: Key) -> Assignment:
        """Examples of one label stay in their order."""
        _check_one_label(labels, "shards")
        _check_enough(len(labels), self.num_clients, 1)
        most = len(labels) // self.num_clients
        if self.shards_per_client > most:
            raise InvalidInput(
                f"{self.num_clients} clients x {self.shards_per_client} shards of {len(labels)} examples "
                f"leaves some shards empty; write shards_per_client={most} or less, or fewer clients"
            )
        num_shards = self.num_clients * self.shards_per_client
        holders = key.rng().permutation(num_shards) % self.num_clients
        owners = np.empty(len(labels), np.int64)
        sizes: Array = np.diff(_cuts(len(labels), num_shards))
        owners[np.argsort(labels, kind="stable")] = np.repeat(holders, sizes)
        return Assignment.by_owner(owners, self.num_clients)


@value
class dirichlet(Partition):
    """Unlike in labels and in size: each class is divided by proportions of its own.

        p_c ~ Dirichlet(alpha, ..., alpha) over the clients,   client k gets about p_ck n_c of class c

    A small alpha gives each class to few clients; a large one divides all alike. Clients left with
    fewer than `min_examples` are then helped, without drawing again: the largest clients give up
    their last rows (which are in random order), always the largest first, down to a common size,
    and these fill up the needy in the order of their numbers.

    >>> dirichlet(4, 0.1, min_examples=5).split(np.arange(40) % 2, Key.from_seed(3)).sizes()
    array([ 5,  5,  5, 25])

    Args:
      num_clients: who share the examples.
      alpha: concentration, above 0; 0.1 is very skewed, 100 nearly even.
      min_examples: each client holds at least so many.
    Raises: InvalidInput: if there are fewer than `num_clients * min_examples` examples, or the labels
      are not one integer a row.
    References: Yurochkin et al., "Bayesian nonparametric federated learning of neural networks", ICML
      2019, arXiv 1905.12022, section 4 (proportions by class, as here). Hsu, Qi, Brown, "Measuring the
      effects of non-identical data distribution for federated visual classification", arXiv
      1909.06335 (the same law by client, with equal sizes).
    """

    num_clients: int
    alpha: float
    _: KW_ONLY
    min_examples: int = 1

    def __post_init__(self) -> None:
        _check_clients(self.num_clients)
        if not 0 < self.alpha <= MAX_ALPHA:
            instead = f"iid({self.num_clients})" if self.alpha > 0 else "a number above 0, such as 0.5"
            raise InvalidInput(f"alpha is {self.alpha}; write {instead}")
        if self.min_examples < 1:
            raise InvalidInput(f"min_examples is {self.min_examples}; write at least 1")

    def split(self, labels: Array, key: Key) -> Assignment:
        """Divides class by class."""
        _check_one_label(labels, "dirichlet")
        if labels.dtype.kind not in "biu":
            raise InvalidInput(
                f"dirichlet divides classes, and the labels are {labels.dtype}; write labels.astype(int) "
                f"if they are classes, shards({self.num_clients}) or iid({self.num_clients}) if not"
            )
        _check_enough(len(labels), self.num_clients, self.min_examples)
        rng = key.rng()
        shuffled = rng.permutation(len(labels))
        by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
        owners = np.empty(len(labels), np.int64)
        owners[by_class] = np.concatenate(
            [self._owners(int(count), rng) for count in np.unique(labels, return_counts=True)[1]]
        )
        assigned = Assignment.by_owner(owners, self.num_clients, rng.permutation(len(labels)))
        return _filled_up(assigned, self.min_examples)

    def _owners(self, num_rows: int, rng: np.random.Generator) -> Array:
        """(num_rows,) the owners of one class, in the order of their numbers."""
        proportions = rng.dirichlet(np.full(self.num_clients, self.alpha))
        ends = np.rint(np.cumsum(proportions[:-1]) * num_rows)
        return np.searchsorted(ends, np.arange(num_rows), side="right")


MAX_ALPHA = 1e9
"""Proportions drawn with a larger alpha differ by less than one example in ten thousand."""


def _filled_up(assigned: Assignment, min_examples: int) -> Assignment:
    """Moves the last rows of the largest clients to those that hold fewer than `min_examples`."""
    sizes = assigned.sizes()
    lacks = np.maximum(min_examples - sizes, 0)
    gives = _levelled(sizes, int(lacks.sum()), min_examples)
    clients = np.arange(len(sizes))
    owners = np.repeat(clients, sizes)
    place = np.arange(len(owners)) - assigned.offsets[owners]
    given = place >= (sizes - gives)[owners]
    owners[given] = np.repeat(clients, lacks)
    moved = Assignment.by_owner(owners, len(sizes))
    return Assignment(assigned.rows[moved.rows], moved.offsets)


def _levelled(sizes: Array, needed: int, least: int) -> Array:
    """What each client gives, if `needed` rows come one by one from whoever is then the largest."""
    low, high = least, int(sizes.max()) + 1
    while high - low > 1:
        middle = (low + high) // 2
        enough = np.maximum(sizes - middle, 0).sum() >= needed
        low, high = (middle, high) if enough else (low, middle)
    gives: Array = np.maximum(sizes - low, 0)
    spared = np.flatnonzero(gives)[: int(gives.sum()) - needed]
    gives[spared] -= 1
    return gives


def _cuts(num_rows: int, num_parts: int) -> Array:
    """(num_parts + 1,) positions that cut rows into parts of equal size, to within one."""
    return np.arange(num_parts + 1) * num_rows // num_parts


def _check_clients(num_clients: int) -> None:
    if num_clients < 1:
        raise InvalidInput(f"num_clients is {num_clients}; write at least 1")


def _check_enough(num_rows: int, num_clients: int, min_examples: int) -> None:
    if num_rows < num_clients * min_examples:
        raise InvalidInput(
            f"{num_rows} examples can't give each of {num_clients} clients {min_examples}; "
            f"write num_clients={max(1, num_rows // min_examples)} or less"
        )


def _check_one_label(labels: Array, name: str) -> None:
    if labels.ndim != 1:
        raise InvalidInput(
            f"{name} needs one label a row, these have shape {labels.shape}; write iid(...) instead"
        )
