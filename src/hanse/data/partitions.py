"""Partitions of examples among clients: disjoint, complete, and with no client left empty."""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Key, check_count, value
from hanse.data.datasets import TrainTest

__all__ = [
    "Assignment",
    "Partition",
    "check_classes",
    "check_enough",
    "cuts",
    "dirichlet",
    "iid",
    "shards",
    "shared_out_in_shards",
]


@value
class Assignment:
    """The rows that each client holds.

    >>> Assignment.by_owner(np.array([1, 0, 1]), 2).client(1)
    array([0, 2])

    Args:
      rows: (n,) positions of examples, client by client.
      offsets: (num_clients + 1,) where each client's rows start, and the end.
      names: of the clients, if they have names.
    """

    rows: Array
    offsets: Array
    names: tuple[str, ...] = ()

    @classmethod
    def by_owner(cls, owners: Array, num_clients: int, order: Array | None = None) -> "Assignment":
        """Builds an assignment from the owner of each row, (n,) integers; rows keep the given order."""
        order = np.arange(len(owners)) if order is None else order
        rows = order[np.argsort(owners[order], kind="stable")]
        sizes = np.bincount(owners, minlength=num_clients)
        return cls(rows, np.concatenate([[0], np.cumsum(sizes)]))

    @property
    def num_clients(self) -> int:
        """Number of clients, which are numbered from 0."""
        return len(self.offsets) - 1

    def sizes(self) -> Array:
        """Returns the number of examples that each client holds, (num_clients,)."""
        return np.diff(self.offsets)

    def client(self, number: int) -> Array:
        """Returns a view of a client's rows."""
        return self.rows[self.offsets[number] : self.offsets[number + 1]]


class Partition(ABC):
    """A division of examples among clients: a value such as `iid(10)`."""

    @abstractmethod
    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Divides the training examples among clients. Equal keys give equal assignments.

        Raises: InvalidInput: if there are too few rows, or the labels don't suit.
        """

    @property
    def alters(self) -> bool:
        """True if clients see something other than the rows themselves."""
        return False

    def seen(self, examples: Examples, client: int, num_clients: int, key: Key) -> Examples:
        """Returns what a client sees of its rows."""
        return examples


@value
class iid(Partition):
    """A random partition: shuffled, then cut into parts of equal size, to within one example.

    >>> from hanse.data import arrays
    >>> iid(3).split(
    ...     arrays(np.ones((10, 1)), np.zeros(10), test_fraction=0.0).load(), Key.from_seed(0)
    ... ).sizes()
    array([3, 3, 4])

    Args:
      num_clients: number of clients that share the examples.
    Raises: InvalidInput: if there are fewer examples than clients.
    """

    num_clients: int

    def __post_init__(self) -> None:
        check_count("num_clients", self.num_clients)

    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Shuffles and cuts the rows; labels are not used."""
        num_rows = len(data.train)
        check_enough(num_rows, self.num_clients, 1)
        return Assignment(key.rng().permutation(num_rows), cuts(num_rows, self.num_clients))


@value
class shards(Partition):
    """A partition into shards: sorted by label, cut evenly to within one, dealt to clients at random.

    With 200 shards of MNIST and two a client, most clients see only two digits. Labels may be real
    numbers.

    >>> from hanse.data import digits
    >>> data = digits().load()
    >>> shared = shards(100).split(data, Key.from_seed(0))
    >>> data.train.y[shared.client(0)]
    array([2, 2, 2, 3, 2, 2, 2, 3, 3, 3, 3, 3, 3, 2])

    Args:
      num_clients: number of clients that share the examples.
      shards_per_client: shards that each client gets; fewer make clients differ more.
    Raises: InvalidInput: if there are fewer examples than shards, or several labels a row.
    References: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-efficient learning of
      deep networks from decentralized data", AISTATS 2017, arXiv 1602.05629, section 3.
    """

    num_clients: int
    shards_per_client: int = 2

    def __post_init__(self) -> None:
        check_count("num_clients", self.num_clients)
        check_count("shards_per_client", self.shards_per_client)

    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Sorts by label, cuts and deals; examples of the same label keep their order."""
        labels = data.train.y
        _check_one_label(labels, "shards")
        return shared_out_in_shards(labels, self.num_clients, self.shards_per_client, key)


def shared_out_in_shards(values: Array, num_clients: int, shards_per_client: int, key: Key) -> Assignment:
    """Sorts rows by a value, cuts them into shards, and deals the shards to clients at random."""
    num_rows = len(values)
    check_enough(num_rows, num_clients, 1)
    most = num_rows // num_clients
    if shards_per_client > most:
        raise InvalidInput(
            f"{num_clients} clients x {shards_per_client} shards of {num_rows} examples "
            f"leaves some shards empty; write shards_per_client={most} or less, or fewer clients"
        )
    num_shards = num_clients * shards_per_client
    holders = key.rng().permutation(num_shards) % num_clients
    owners = np.empty(num_rows, np.int64)
    sizes: Array = np.diff(cuts(num_rows, num_shards))
    owners[np.argsort(values, kind="stable")] = np.repeat(holders, sizes)
    return Assignment.by_owner(owners, num_clients)


@value
class dirichlet(Partition):
    """A partition with skewed labels and sizes: each class is divided by proportions of its own.

        p_c ~ Dirichlet(alpha, ..., alpha) over the clients,   client k gets about p_ck n_c of class c

    A small alpha gives each class to few clients; a large one divides all classes alike. Clients left
    with fewer than `min_examples` are then filled up, without drawing again: the largest clients give up
    their last rows (which are in random order), always the largest first, down to a common size,
    and these rows fill up the small clients in the order of their numbers.

    >>> from hanse.data import arrays
    >>> data = arrays(np.ones((40, 1)), np.arange(40) % 2, test_fraction=0.0).load()
    >>> dirichlet(4, 0.1, min_examples=5).split(data, Key.from_seed(3)).sizes()
    array([ 5,  5,  5, 25])

    Args:
      num_clients: number of clients that share the examples.
      alpha: concentration, above 0; 0.1 is very skewed, 100 nearly even.
      min_examples: the least that each client holds.
    Raises: InvalidInput: if there are fewer than `num_clients * min_examples` examples, or the labels
      are not one integer a row.
    References: Yurochkin et al., "Bayesian nonparametric federated learning of neural networks", ICML
      2019, arXiv 1905.12022, section 4 (proportions by class, as here). Hsu, Qi, Brown, "Measuring the
      effects of non-identical data distribution for federated visual classification", arXiv
      1909.06335 (the same law by client, with equal sizes).
    """

    num_clients: int
    alpha: float = 0.5
    _: KW_ONLY
    min_examples: int = 1

    def __post_init__(self) -> None:
        check_count("num_clients", self.num_clients)
        if not 0 < self.alpha <= MAX_ALPHA:
            instead = f"iid({self.num_clients})" if self.alpha > 0 else "a number above 0, such as 0.5"
            raise InvalidInput(f"alpha is {self.alpha}; write {instead}")
        check_count("min_examples", self.min_examples)

    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Divides class by class, then fills up clients that are too small."""
        labels = data.train.y
        check_classes(labels, "dirichlet", self.num_clients)
        check_enough(len(labels), self.num_clients, self.min_examples)
        rng = key.rng()
        shuffled = rng.permutation(len(labels))
        by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
        owners = np.empty(len(labels), np.int64)
        owners[by_class] = np.concatenate(
            [self._owners(int(count), rng) for count in np.unique(labels, return_counts=True)[1]]
        )
        assigned = Assignment.by_owner(owners, self.num_clients, rng.permutation(len(labels)))
        return _fill_up(assigned, self.min_examples)

    def _owners(self, num_rows: int, rng: np.random.Generator) -> Array:
        """Draws the owners of one class, (num_rows,), in the order of their numbers."""
        proportions = rng.dirichlet(np.full(self.num_clients, self.alpha))
        ends = np.rint(np.cumsum(proportions[:-1]) * num_rows)
        return np.searchsorted(ends, np.arange(num_rows), side="right")


MAX_ALPHA = 1e9
"""Proportions drawn with a larger alpha differ by less than one example in ten thousand."""


def _fill_up(assigned: Assignment, min_examples: int) -> Assignment:
    """Moves the last rows of the largest clients to those that hold fewer than `min_examples`."""
    sizes = assigned.sizes()
    lacks = np.maximum(min_examples - sizes, 0)
    gives = _level(sizes, int(lacks.sum()), min_examples)
    clients = np.arange(len(sizes))
    owners = np.repeat(clients, sizes)
    place = np.arange(len(owners)) - assigned.offsets[owners]
    given = place >= (sizes - gives)[owners]
    owners[given] = np.repeat(clients, lacks)
    moved = Assignment.by_owner(owners, len(sizes))
    return Assignment(assigned.rows[moved.rows], moved.offsets)


def _level(sizes: Array, needed: int, least: int) -> Array:
    """Returns how many rows each client gives if `needed` rows come, one by one, from the then largest."""
    low, high = least, int(sizes.max()) + 1
    while high - low > 1:
        middle = (low + high) // 2
        enough = np.maximum(sizes - middle, 0).sum() >= needed
        low, high = (middle, high) if enough else (low, middle)
    gives: Array = np.maximum(sizes - low, 0)
    spared = np.flatnonzero(gives)[: int(gives.sum()) - needed]
    gives[spared] -= 1
    return gives


def cuts(num_rows: int, num_parts: int) -> Array:
    """Returns the positions that cut rows into equal parts, to within one row, (num_parts + 1,)."""
    return np.arange(num_parts + 1) * num_rows // num_parts


def check_enough(num_rows: int, num_clients: int, min_examples: int) -> None:
    """Checks that the rows suffice for all clients. Raises: InvalidInput: if they do not."""
    if num_rows < num_clients * min_examples:
        raise InvalidInput(
            f"{num_rows} examples can't give each of {num_clients} clients {min_examples}; "
            f"write num_clients={max(1, num_rows // min_examples)} or less"
        )


def check_classes(labels: Array, name: str, num_clients: int) -> None:
    """Checks that labels are one integer a row. Raises: InvalidInput: if they are not."""
    _check_one_label(labels, name)
    if labels.dtype.kind not in "biu":
        raise InvalidInput(
            f"{name} divides classes, and the labels are {labels.dtype}; write labels.astype(int) "
            f"if they are classes, shards({num_clients}) or iid({num_clients}) if not"
        )


def _check_one_label(labels: Array, name: str) -> None:
    if labels.ndim != 1:
        raise InvalidInput(
            f"{name} needs one label a row, these have shape {labels.shape}; write iid(...) instead"
        )
