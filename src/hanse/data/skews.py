"""Partitions whose clients differ in one respect: their labels, their sizes, or their features."""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY

import numpy as np

from hanse.core import Array, Examples, InvalidInput, Key, check_count, nearest, value
from hanse.data.datasets import TrainTest
from hanse.data.partitions import (
    Assignment,
    Partition,
    check_classes,
    check_enough,
    shared_out_in_shards,
)

__all__ = [
    "Sizes",
    "feature_noise",
    "feature_shards",
    "labels_per_client",
    "log_normal",
    "power_law",
    "quantity",
]


@value
class labels_per_client(Partition):
    """A partition with k labels a client; the clients that hold a label share its examples evenly.

    One client after the other chooses at random among the labels that the fewest have chosen. So all
    labels have the same number of holders, to within one.

    >>> from hanse.data import digits
    >>> data = digits(0).load()
    >>> shared = labels_per_client(20, 3).split(data, Key.from_seed(0))
    >>> {len(set(data.train.y[shared.client(k)].tolist())) for k in range(20)}
    {3}

    Args:
      num_clients: number of clients that share the examples.
      num_labels: k.
    Raises: InvalidInput: if the labels are not one integer a row; if k is larger than their number, or
      so small that nobody holds some label; if a label has fewer examples than holders.
    References: Li, Diao, Chen, He, "Federated learning on non-IID data silos: an experimental study",
      ICDE 2022, arXiv 2102.02079 (#C = k); there some labels have more holders than others.
    """

    num_clients: int
    num_labels: int = 2

    def __post_init__(self) -> None:
        check_count("num_clients", self.num_clients)
        check_count("num_labels", self.num_labels)

    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Deals labels, then the examples of each label."""
        labels = data.train.y
        check_classes(labels, "labels_per_client", self.num_clients)
        present, counts = np.unique(labels, return_counts=True)
        self._check_labels(len(present))
        rng = key.rng()
        holders = self._deal(len(present), rng)
        shuffled = rng.permutation(len(labels))
        by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
        owners = np.empty(len(labels), np.int64)
        begin = 0
        for label, count, own in zip(present.tolist(), counts.tolist(), holders, strict=True):
            if count < len(own):
                raise InvalidInput(
                    f"label {label} has {count} examples for the {len(own)} clients that hold it; write "
                    "fewer clients, or a smaller num_labels"
                )
            owners[by_class[begin : begin + count]] = rng.permutation(own)[np.arange(count) % len(own)]
            begin += count
        return Assignment.by_owner(owners, self.num_clients, rng.permutation(len(labels)))

    def _check_labels(self, num_present: int) -> None:
        if self.num_labels > num_present:
            raise InvalidInput(
                f"num_labels is {self.num_labels}, the examples have {num_present}; write at most that"
            )
        if self.num_clients * self.num_labels < num_present:
            raise InvalidInput(
                f"{self.num_clients} clients x {self.num_labels} labels leaves some of the {num_present} to "
                f"nobody; write num_labels={-(-num_present // self.num_clients)} or more"
            )

    def _deal(self, num_present: int, rng: np.random.Generator) -> list[list[int]]:
        """Draws the clients that hold each label."""
        holders: list[list[int]] = [[] for _ in range(num_present)]
        taken = np.zeros(num_present, np.int64)
        for client in range(self.num_clients):
            chosen = np.lexsort((rng.random(num_present), taken))[: self.num_labels]
            taken[chosen] += 1
            for label in chosen.tolist():
                holders[label].append(client)
        return holders


# Sizes


class Sizes(ABC):
    """A law of client sizes: a value such as `power_law(1.2)`."""

    @abstractmethod
    def shares(self, num_clients: int, rng: np.random.Generator) -> Array:
        """Draws the shares to which sizes are proportional, (num_clients,): not negative, some above 0."""


@value
class power_law(Sizes):
    """A power law of sizes: the r-th largest share is proportional to r^-exponent; the ranks are random.

    Args:
      exponent: 0 is even, 1 is Zipf's law.
    References: Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, arXiv
      1812.06127, section 5.1 (sizes of clients that follow a power law).
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.exponent <= 100:
            raise InvalidInput(f"exponent is {self.exponent}; write a number from 0 to 100, such as 1.0")

    def shares(self, num_clients: int, rng: np.random.Generator) -> Array:
        """Draws the ranks as a random order of the clients."""
        ranks = rng.permutation(num_clients) + 1.0
        return np.asarray(ranks**-self.exponent)


@value
class log_normal(Sizes):
    """A log-normal law of sizes: shares are proportional to exp(sigma z), z ~ N(0, 1).

    Args:
      sigma: 0 is even; 1 gives one client in six more than e times the median.
    References: Caldas et al., "LEAF: a benchmark for federated settings", 2018, arXiv 1812.01097 (its
      synthetic data have such sizes).
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= 100:
            raise InvalidInput(f"sigma is {self.sigma}; write a number from 0 to 100, such as 1.0")

    def shares(self, num_clients: int, rng: np.random.Generator) -> Array:
        """Draws each client's share by itself."""
        logs = self.sigma * rng.standard_normal(num_clients)
        return np.asarray(np.exp(logs - logs.max()))


@value
class quantity(Partition):
    """A partition with skewed sizes only: shuffled, then cut into parts whose sizes follow a law.

    >>> from hanse.data import digits
    >>> quantity(4, power_law(2.0)).split(digits(0).load(), Key.from_seed(0)).sizes()
    array([ 316,  141,   80, 1260])

    Args:
      num_clients: number of clients that share the examples.
      sizes: `power_law(...)` or `log_normal(...)`.
      min_examples: the least that each client holds; the law divides the rest.
    Raises: InvalidInput: if there are fewer than `num_clients * min_examples` examples.
    References: Li, Diao, Chen, He, "Federated learning on non-IID data silos: an experimental study",
      ICDE 2022, arXiv 2102.02079 (quantity skew).
    """

    num_clients: int
    sizes: Sizes = log_normal()
    _: KW_ONLY
    min_examples: int = 1

    def __post_init__(self) -> None:
        check_count("num_clients", self.num_clients)
        check_count("min_examples", self.min_examples)

    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Shuffles and cuts the rows; labels are not used."""
        num_rows = len(data.train)
        check_enough(num_rows, self.num_clients, self.min_examples)
        rng = key.rng()
        shares = self.sizes.shares(self.num_clients, rng)
        sizes = self.min_examples + _apportion(shares, num_rows - self.num_clients * self.min_examples)
        return Assignment(rng.permutation(num_rows), np.concatenate([[0], np.cumsum(sizes)]))


def _apportion(shares: Array, total: int) -> Array:
    """Divides a total into whole numbers in proportion to shares, by largest remainder."""
    exact = shares / shares.sum() * total
    whole: Array = np.floor(exact).astype(np.int64)
    left = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return whole


# Features


@value
class feature_shards(Partition):
    """A partition into shards by a feature: sorted, cut evenly to within one, dealt to clients at random.

    The covariates shift, while the relation of labels to features stays: the counterpart of `shards`.

    >>> from hanse.data import digits
    >>> data = digits(0).load()
    >>> shared = feature_shards(3).split(data, Key.from_seed(1))
    >>> [round(float(data.train.x[shared.client(k)].mean()), 2) for k in range(3)]
    [0.31, 0.27, 0.34]

    Args:
      num_clients: number of clients that share the examples.
      feature: a column's name, or its number in flattened features; None: their mean, which is the
        brightness of an image.
      shards_per_client: shards that each client gets; fewer make clients differ more.
    Raises: InvalidInput: if there is no such feature, or fewer examples than shards.
    References: Kairouz et al., "Advances and open problems in federated learning", 2021, arXiv
      1912.04977, section 3.1 (feature distribution skew).
    """

    num_clients: int
    feature: str | int | None = None
    shards_per_client: int = 1

    def __post_init__(self) -> None:
        check_count("num_clients", self.num_clients)
        check_count("shards_per_client", self.shards_per_client)

    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Sorts by the feature, cuts and deals; equal values keep their order, missing ones come last."""
        values = _column(data.train.x, self.feature)
        return shared_out_in_shards(values, self.num_clients, self.shards_per_client, key)


def _column(x: Array, feature: str | int | None) -> Array:
    """Returns one feature of all rows, (n,)."""
    if x.dtype.names is not None:
        if not isinstance(feature, str) or feature not in x.dtype.names:
            word = nearest(str(feature), x.dtype.names)
            raise InvalidInput(f"feature is {feature!r}, which is not a column of the table; {word}")
        values: Array = x[feature]
        return values
    flat = x.reshape(len(x), -1)
    if feature is None:
        return np.asarray(flat.mean(axis=1, dtype=np.float64))
    if isinstance(feature, str) or not 0 <= feature < flat.shape[1]:
        raise InvalidInput(
            f"feature is {feature!r}; these features are numbered: write 0 to {flat.shape[1] - 1}"
        )
    return flat[:, feature]


@value
class feature_noise(Partition):
    """A partition with noise: the k-th of K clients measures with a variance of its own, as cameras do.

        x + N(0, variance * k / K),   k = 1 ... K

    The test set is measured without noise, a client's own test examples with the client's.

    Args:
      shares: the partition that decides who holds which examples.
      variance: of the noisiest client.
    Raises: InvalidInput: if features are not real numbers.
    References: Li, Diao, Chen, He, "Federated learning on non-IID data silos: an experimental study",
      ICDE 2022, arXiv 2102.02079 (noise-based feature imbalance).
    """

    shares: Partition
    variance: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.variance < np.inf:
            raise InvalidInput(f"variance is {self.variance}; write a number above 0, such as 0.1")

    def split(self, data: TrainTest, key: Key) -> Assignment:
        """Divides the examples as `shares` does."""
        if data.train.x.dtype.kind != "f":
            raise InvalidInput(
                f"feature_noise needs features of real numbers, these are {data.train.x.dtype}; leave it out"
            )
        return self.shares.split(data, key)

    @property
    def alters(self) -> bool:
        return True

    def seen(self, examples: Examples, client: int, num_clients: int, key: Key) -> Examples:
        """Adds the client's noise, the same each time."""
        examples = self.shares.seen(examples, client, num_clients, key.fold_in("shares"))
        std = np.sqrt(self.variance * (client + 1) / num_clients)
        noise = key.fold_in("noise").rng().standard_normal(examples.x.shape) * std
        return Examples((examples.x + noise).astype(examples.x.dtype), examples.y)
