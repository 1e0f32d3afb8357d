"""Examples laid out for compiled programs: in the order of one client's steps, or for vmapped clients."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hanse.core import Array, Key, Steps
from hanse.learners.jax.programs import Program, pad_size, power_of_two
from hanse.learners.model import orders

__all__ = ["BatchSchedule", "Client", "VmappedBatches", "group_for_vmap", "in_order", "schedule"]

AT_ONCE_BYTES = 8 << 20
"""Most bytes of a client's epochs that are laid out for one call; at least one epoch is."""

ALIGNED = 64
"""JAX uses memory that starts at a multiple of this many bytes as it is, and copies other memory."""


@dataclass(frozen=True)
class BatchSchedule:
    """The batches of local training. Padding is the first example, and weighs nothing.

    Args:
      epochs: (S, B) examples of each batch, by epoch; there is one if all epochs are the same.
      weights: (S, B) their weights, in each epoch.
      num_steps: in all epochs.
    """

    epochs: Sequence[Array]
    weights: Array
    num_steps: int

    @property
    def num_batches(self) -> int:
        """Number of batches that differ."""
        return len(self.epochs) * len(self.weights)


def schedule(program: Program, num_examples: int, steps: Steps, key: Key) -> BatchSchedule:
    """Lays out the batches of a client with this many examples, padded to one of a few sizes."""
    size = min(steps.batch_size or num_examples, num_examples)
    small = size < min(num_examples, program.rows_at_once)
    width = size if small else program.pad_rows(size)
    begins = np.arange(0, num_examples, size)[:, None]
    counts, within = np.minimum(size, num_examples - begins), np.arange(width)
    places = np.where(within < counts, begins + within, 0)
    weights = np.where(within < counts, 1 / counts, 0)
    epochs = [order[places] for order in orders(num_examples, steps, key)] or [places]
    return BatchSchedule(epochs, weights, steps.count_steps(num_examples))


# One client


def in_order(
    x: Array, y: Array, batches: BatchSchedule, dtype: str
) -> Iterator[tuple[tuple[Array, ...], int]]:
    """Yields (S, B, ...) features, labels and weights of some epochs at a time, and their number of steps.

    Step s takes batch s modulo S.
    """
    weights = batches.weights.astype(dtype)
    if batches.num_batches == 1:
        yield (_taken(x, batches.epochs, 1), _taken(y, batches.epochs, 1), weights), batches.num_steps
        return
    epoch_bytes = weights.size * (x.nbytes + y.nbytes) // len(y)
    at_once = max(1, AT_ONCE_BYTES // max(1, epoch_bytes))
    for first in range(0, len(batches.epochs), at_once):
        some = batches.epochs[first : first + at_once]
        size = power_of_two(len(some) * len(weights))
        num_steps = min(len(some) * len(weights), batches.num_steps - first * len(weights))
        weighing = np.resize(weights, (size, weights.shape[1]))
        yield (_taken(x, some, size), _taken(y, some, size), weighing), num_steps


def _taken(values: Array, epochs: Sequence[Array], size: int) -> Array:
    """Arranges examples by batch, (size, B, ...). Entries beyond the epochs are undefined."""
    num_batches, width = epochs[0].shape
    taken = _empty((size, width, *values.shape[1:]), values.dtype)
    for i, rows in enumerate(epochs):
        values.take(rows, axis=0, out=taken[i * num_batches : (i + 1) * num_batches], mode="clip")
    return taken


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Allocates an array in memory that JAX uses without copying."""
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(num_bytes + ALIGNED, np.uint8)
    begin = -memory.ctypes.data % ALIGNED
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)


# Several clients

Client: TypeAlias = tuple[Array, Array, BatchSchedule]
"""Features, labels and batches."""


@dataclass(frozen=True)
class VmappedBatches:
    """A group of clients of similar size, padded to one size.

    Args:
      members: their numbers, m of them; the arrays may hold more clients, which do nothing.
      x, y: (m, n, ...) examples.
      rows, weights: (m, S, B) the examples of each batch and what they weigh. Step s takes batch s modulo S.
      num_steps: (m,).
    """

    members: Sequence[int]
    x: Array
    y: Array
    rows: Array
    weights: Array
    num_steps: Array

    def of(self, values: Sequence[Array]) -> Array:
        """Stacks a value of each member, (m, ...); padding repeats the first one's."""
        padding = [self.members[0]] * (len(self.x) - len(self.members))
        return np.stack([values[i] for i in (*self.members, *padding)])


def group_for_vmap(clients: Sequence[Client], dtype: str) -> Iterator[VmappedBatches]:
    """Groups clients of similar size: on average an eighth of a group's steps and rows is padding."""
    like = defaultdict[tuple[int, ...], list[int]](list)
    for i, (_, y, batches) in enumerate(clients):
        like[pad_size(len(y)), pad_size(batches.num_batches), batches.weights.shape[1]].append(i)
    for (num_rows, num_batches, width), members in like.items():
        many, (x, y, _) = pad_size(len(members)), clients[members[0]]
        group = VmappedBatches(
            members,
            np.zeros((many, num_rows, *x.shape[1:]), x.dtype),
            np.zeros((many, num_rows, *y.shape[1:]), y.dtype),
            np.zeros((many, num_batches, width), np.int32),
            np.zeros((many, num_batches, width), dtype),
            np.zeros(many, np.int32),
        )
        for at, i in enumerate(members):
            x, y, batches = clients[i]
            group.x[at, : len(y)], group.y[at, : len(y)] = x, y
            group.rows[at, : batches.num_batches] = np.concatenate(batches.epochs)
            group.weights[at, : batches.num_batches] = np.tile(batches.weights, (len(batches.epochs), 1))
            group.num_steps[at] = batches.num_steps
        yield group
