"""A summary of clients' data: sizes and labels, as numbers and as a drawing in the terminal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from hanse.core import Array, check_count
from hanse.data.population import FederatedData

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Description", "describe"]

NUM_BINS = 10
"""Number of bins for labels that are not classes; all bins hold about as many examples."""


@dataclass(frozen=True)
class Description:
    """A summary of clients' data. It prints as a drawing: `rich.print(describe(data))`.

    Args:
      num_clients: of the data; all or some of them are described.
      clients: (k,) the numbers of the described clients.
      names: of the described clients; their numbers if they have no names.
      labels: the names of the columns of `counts`.
      counts: (k, labels) examples of each label.
      sizes: (k,) examples to train on.
      test_sizes: (k,) each client's own test examples.
      num_test: examples of the common test set.
      feature_shape: of one row of features; () for a table.
      columns: the names of a table's columns.
    """

    num_clients: int
    clients: Array
    names: tuple[str, ...]
    labels: tuple[str, ...]
    counts: Array
    sizes: Array
    test_sizes: Array
    num_test: int
    feature_shape: tuple[int, ...]
    columns: tuple[str, ...]

    @property
    def mixtures(self) -> Array:
        """The share of each label in a client's examples, (k, labels)."""
        return np.asarray(self.counts / self.counts.sum(axis=1, keepdims=True))

    @property
    def label_skew(self) -> float:
        """Mean total variation distance between clients' mixtures of labels and that of all examples.

        0: all clients are alike; near 1: they have hardly anything in common.
        """
        whole = self.counts.sum(axis=0) / self.counts.sum()
        return float(np.abs(self.mixtures - whole).sum(axis=1).mean() / 2)

    @property
    def size_skew(self) -> float:
        """Gini coefficient of sizes. 0: all are the same; near 1: one client has nearly all examples."""
        sizes = np.sort(self.sizes)
        ranks = 2 * np.arange(1, len(sizes) + 1) - len(sizes) - 1
        return float((ranks * sizes).sum() / (len(sizes) * sizes.sum()))

    def summary(self) -> Mapping[str, float]:
        """Returns the numbers that sum up the description."""
        return {
            "num_clients": self.num_clients,
            "num_described": len(self.clients),
            "num_examples": int(self.sizes.sum()),
            "num_test": self.num_test,
            "num_tested_clients": int(np.count_nonzero(self.test_sizes)),
            "num_labels": len(self.labels),
            "smallest": int(self.sizes.min()),
            "median": float(np.median(self.sizes)),
            "mean": float(self.sizes.mean()),
            "largest": int(self.sizes.max()),
            "size_skew": self.size_skew,
            "labels_per_client": float(np.count_nonzero(self.counts, axis=1).mean()),
            "label_skew": self.label_skew,
        }

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Yields one client after the other as plain data, for a file or another drawing."""
        for i, number in enumerate(self.clients.tolist()):
            yield {
                "client": number,
                "name": self.names[i],
                "examples": int(self.sizes[i]),
                "test_examples": int(self.test_sizes[i]),
                **dict(zip(self.labels, self.counts[i].tolist(), strict=True)),
            }

    def __rich__(self) -> "RenderableType":
        from hanse.data.drawing import drawn

        return drawn(self)


def describe(data: FederatedData, *, max_clients: int = 10_000) -> Description:
    """Summarises the sizes and labels of clients.

    >>> from hanse.core import Key
    >>> from hanse.data import digits, partition_data, shards
    >>> data = partition_data(digits().load(), shards(10), Key.from_seed(0))
    >>> found = describe(data)
    >>> found.counts.shape, round(found.label_skew, 2), round(found.size_skew, 2)
    ((10, 10), 0.78, 0.0)

    Args:
      data: to be described.
      max_clients: the most clients to describe; of more, so many are chosen, evenly spread.
    """
    check_count("max_clients", max_clients)
    clients = np.unique(np.linspace(0, data.num_clients - 1, min(max_clients, data.num_clients)).astype(int))
    found = [_labels_to_count(data.labels(number)) for number in clients.tolist()]
    labels, codes = _encode_labels(np.concatenate(found), data)
    owners = np.repeat(np.arange(len(clients)), [len(own) for own in found])
    counts = np.bincount(owners * len(labels) + codes, minlength=len(clients) * len(labels))
    whole = len(clients) == data.num_clients
    sizes = data.sizes() if whole else np.array([len(data.labels(number)) for number in clients.tolist()])
    return Description(
        data.num_clients,
        clients,
        tuple(data.names[number] if data.names else str(number) for number in clients.tolist()),
        labels,
        counts.reshape(len(clients), len(labels)),
        sizes,
        data.test_sizes() if whole else np.zeros(len(clients), np.int64),
        0 if data.test is None else len(data.test),
        () if data.columns else data.feature_shape,
        data.columns,
    )


def _labels_to_count(labels: Array) -> Array:
    """Returns the labels to count: all steps of a sequence, or the first of several targets."""
    return labels.ravel() if labels.dtype.kind in "biu" else labels.reshape(len(labels), -1)[:, 0]


def _encode_labels(labels: Array, data: FederatedData) -> tuple[tuple[str, ...], Array]:
    """Returns the names of the distinct labels, and the index of each label among them."""
    if data.num_classes is not None:
        names = data.classes or tuple(str(number) for number in range(data.num_classes))
        return names, labels
    distinct, codes = np.unique(labels, return_inverse=True)
    if len(distinct) <= NUM_BINS or labels.dtype.kind in "biu":
        return tuple(f"{label:g}" for label in distinct.tolist()), codes.ravel()
    edges = np.unique(np.quantile(labels, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
    return _ranges(edges), np.searchsorted(edges, labels, side="right")


def _ranges(edges: Array) -> tuple[str, ...]:
    words = [f"{edge:.3g}" for edge in edges.tolist()]
    inner = [f"{low} to {high}" for low, high in pairwise(words)]
    return (f"below {words[0]}", *inner, f"from {words[-1]}")
