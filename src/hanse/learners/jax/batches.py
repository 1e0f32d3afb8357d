"""Examples laid out for compiled programs: in the order of one client's steps, or for vmapped clients."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hanse.core import Array, Key, Steps
from hanse.learners.jax.programs import Program, power_of_two
from hanse.learners.model import orders

__all__ = [
    "BatchSchedule",
    "Client",
    "VmappedBatches",
    "group_for_vmap",
    "in_order",
    "join_examples",
    "schedule",
]

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
    def width(self) -> int:
        """Number of examples of the largest batch, without padding."""
        return int(np.count_nonzero(self.weights[0]))

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


MOST_LANES = 64
"""Most clients that compute each step together."""

LEAST_LANES = 8
"""So many compute together, if there are as many, however unequal they are."""

LEAST_BATCHES = 64
"""Batches are padded to so many, which costs little memory."""

MOST_WORK = 1.5
"""Otherwise clients compute together as long as they do so much of the work that is needed."""


@dataclass(frozen=True)
class VmappedBatches:
    """A group of clients that compute each step together.

    Args:
      members: their numbers, m of them at most; further places do nothing.
      rows, weights: (m, S, B) the examples of each batch, counted over all clients, and what they weigh.
      num_batches, num_steps: (m,). Step s takes batch s modulo the number of batches.
    """

    members: Sequence[int]
    rows: Array
    weights: Array
    num_batches: Array
    num_steps: Array

    def of(self, values: Sequence[Array]) -> Array:
        """Stacks a value of each member, (m, ...); padding repeats the first one's."""
        padding = [self.members[0]] * (len(self.rows) - len(self.members))
        return np.stack([values[i] for i in (*self.members, *padding)])


def join_examples(clients: Sequence[Client]) -> tuple[Array, Array]:
    """Puts the examples of all clients one after the other, padded to a power of two."""
    num_rows = power_of_two(sum(len(y) for _, y, _ in clients))

    def join(arrays: Sequence[Array]) -> Array:
        joined = np.zeros((num_rows, *arrays[0].shape[1:]), arrays[0].dtype)
        np.concatenate(arrays, out=joined[: sum(map(len, arrays))])
        return joined

    return join([x for x, _, _ in clients]), join([y for _, y, _ in clients])


def group_for_vmap(program: Program, clients: Sequence[Client], dtype: str) -> Iterator[VmappedBatches]:
    """Groups clients of similar work, all groups of one shape, so that few programs are compiled.

    The number of places, and of batches, is a power of two. Batches are of one width, unless some are much
    narrower.
    """
    order = sorted(range(len(clients)), key=lambda i: _work_of(clients[i]), reverse=True)
    begins = np.cumsum([0, *(len(y) for _, y, _ in clients)])
    widest = _pad_width(program, clients)
    most = max(batches.num_batches for _, _, batches in clients)
    num_batches = 1 if most == 1 else max(LEAST_BATCHES, power_of_two(most))
    lanes = _count_lanes([_work_of(clients[i]) for i in order])
    for first in range(0, len(order), lanes):
        members = order[first : first + lanes]
        width = _pad_width(program, [clients[i] for i in members])
        width = widest if 2 * width > widest else width
        group = VmappedBatches(
            members,
            np.zeros((lanes, num_batches, width), np.int32),
            np.zeros((lanes, num_batches, width), dtype),
            np.ones(lanes, np.int32),
            np.zeros(lanes, np.int32),
        )
        for at, i in enumerate(members):
            batches = clients[i][2]
            own = slice(batches.num_batches), slice(batches.width)
            group.rows[at][own] = begins[i] + np.concatenate(batches.epochs)[:, : batches.width]
            group.weights[at][own] = np.tile(batches.weights[:, : batches.width], (len(batches.epochs), 1))
            group.num_batches[at], group.num_steps[at] = batches.num_batches, batches.num_steps
        yield group


def _work_of(client: Client) -> tuple[int, int]:
    """Returns the width of a client's batches, and the number of its steps."""
    return client[2].width, client[2].num_steps


def _pad_width(program: Program, clients: Sequence[Client]) -> int:
    """Returns the width of clients' batches: the batch size, or where each is one batch, a coarse size."""
    width = max(batches.width for _, _, batches in clients)
    is_size = any(batches.width == width and len(batches.weights) > 1 for _, _, batches in clients)
    return width if is_size and width <= program.rows_at_once else program.pad_lanes(width)


def _count_lanes(ordered: Sequence[tuple[int, int]]) -> int:
    """Returns how many clients compute together: the most whose padding does not cost too much."""
    needed = sum(width * steps for width, steps in ordered)
    lanes = min(MOST_LANES, 1 << (len(ordered) - 1).bit_length())
    while lanes > LEAST_LANES:
        groups = [ordered[first : first + lanes] for first in range(0, len(ordered), lanes)]
        done = sum(lanes * max(w for w, _ in group) * max(s for _, s in group) for group in groups)
        if done <= MOST_WORK * needed:
            break
        lanes //= 2
    return lanes
