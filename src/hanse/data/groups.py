"""Partitions into natural clients, by a key, and into clients grouped in regions."""

import numpy as np

from hanse.core import Array, InvalidInput, Key, value
from hanse.data.datasets import TrainTest
from hanse.data.partitions import Assignment, Partition

__all__ = ["by_key", "order_keys", "regions"]


@value
class by_key(Partition):
    """A partition by the real holders of the examples: one client a key (a hospital, a user, a role).

    The data set says which column is the key, such as `csv("stays.csv", label="died", key="hospital")`.
    Clients are numbered in the order of their keys. Test examples of the same key are the client's own.

    Raises: InvalidInput: if the data set has no keys.
    """

    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Gives each client the rows of its key. Nothing is random; rows stay in their order."""
        if data.keys is None:
            raise InvalidInput(
                "by_key() needs a data set that names the owner of each example; name a column, such as "
                'key = "hospital", or share the examples out, such as iid(10)'
            )
        names, owners = order_keys(data.keys)
        shared = Assignment.by_owner(owners, len(names))
        return Assignment(shared.rows, shared.offsets, names)


def order_keys(keys: Array) -> tuple[tuple[str, ...], Array]:
    """Returns the distinct keys, sorted (by size if all are whole numbers), and the index of each row's key.

    >>> order_keys(np.array(["10", "9", "10"]))
    (('9', '10'), array([1, 0, 1]))
    """
    names, inverse = np.unique(keys, return_inverse=True)
    try:
        order = np.argsort(names.astype(np.int64), kind="stable")
    except (ValueError, OverflowError):
        order = np.arange(len(names))
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    return tuple(names[order].tolist()), place[inverse]


@value
class regions(Partition):
    """A partition in which clients of the same region share a distribution, and others do not.

    The examples are divided among regions first, and within each region among its clients. So clients
    are not independent: one says much about the others of its region. They are numbered region by
    region.

    >>> from hanse.data import digits, dirichlet, iid
    >>> shared = regions(dirichlet(3, 0.1), iid(5)).split(digits().load(), Key.from_seed(0))
    >>> shared.num_clients
    15

    Args:
      across: divides among regions; its clients are the regions. `by_key()` uses real ones.
      within: divides each region among its clients.
    Raises: InvalidInput: if one of the two alters what clients see, or can't divide so few examples.
    References: Kairouz et al., "Advances and open problems in federated learning", 2021, arXiv
      1912.04977, section 3.1 (violations of independence). Ghosh, Chung, Yin, Ramchandran, "An
      efficient framework for clustered federated learning", NeurIPS 2020, arXiv 2006.04088.
    """

    across: Partition
    within: Partition

    def __post_init__(self) -> None:
        for part in (self.across, self.within):
            if part.alters:
                raise InvalidInput(
                    f"{part} alters what clients see, which regions can't do for some of them; put it "
                    "around regions(...)"
                )

    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Divides region by region, each with a key of its own."""
        outer = self.across.split(data, key.fold_in("across"))
        inner = [self._region(data, outer, region, key) for region in range(outer.num_clients)]
        rows = [outer.client(region)[part.rows] for region, part in enumerate(inner)]
        sizes = np.concatenate([part.sizes() for part in inner])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        names = [
            f"{region}/{name}"
            for region, part in zip(outer.names, inner, strict=False)
            for name in (part.names or range(part.num_clients))
        ]
        return Assignment(np.concatenate(rows), offsets, tuple(names))

    def _region(self, data: TrainTest, outer: Assignment, region: int, key: Key) -> Assignment:
        try:
            return self.within.split(data.take(outer.client(region)), key.fold_in("within", region))
        except InvalidInput as error:
            raise InvalidInput(f"region {region}: {error}") from error
