"""Backends compute clients' tickets: the protocol, and the jobs and answers that pass through it.

A backend keeps nothing. What it answers is a function of a ticket, its payload and the memory that it
continues, so it makes no difference which backend computes a ticket, or when. `PartyMemory` keeps memory.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from hanse.core import Declined, Memory
from hanse.core.exchange import Block, Fork, Payload, Task
from hanse.simulation.blocks import Place, cut_blocks

__all__ = [
    "BLOCK_HEIGHT",
    "Answer",
    "ClientBackend",
    "Job",
    "Make",
    "MemoryAt",
    "WrappedBackend",
    "divide_job",
]

BLOCK_HEIGHT = 6
"""At most 2^6 clients are folded together."""

LEAST_SHARE = 1 / 8
"""The least fraction of its fair share of all clients that a worker is given: it bounds the messages."""


@dataclass(frozen=True)
class Job:
    """Tickets of one dispatch, for which one answer or several are wanted.

    Args:
      places: the tickets, each with its position in the fold, in order.
      payload: the data that all of them received.
      folded: whether they are folded, in blocks that the backend chooses; if not, there is one ticket, and
        its message is wanted.
      begins: the position before which places of the same fold are computed elsewhere.
      is_optional: whether the answer is wanted only if jobs before it lead to no message.
    """

    places: Sequence[Place]
    payload: Payload
    folded: bool = True
    begins: int = 0
    is_optional: bool = False

    def skip(self, num_places: int) -> "Job":
        """Returns what is left of a fold, once so many places are computed."""
        begins = self.places[num_places - 1][0] + 1 if num_places else self.begins
        return replace(self, places=self.places[num_places:], begins=begins)


@dataclass(frozen=True)
class Answer:
    """A block or a message.

    Args:
      job: the part of a job that led to it.
      result: the block, the packed message, or why there is none.
      forks: the forks of memory, one for each ticket; none: no memory changed.
      by: where it was computed: "one process", "2 workers".
    """

    job: Job
    result: Block | bytes | Declined
    forks: Sequence[Fork]
    by: str


MemoryAt: TypeAlias = Callable[[Task], Memory]
"""A function that returns the memory that a ticket continues."""


class ClientBackend(Protocol):
    """Computes tickets. Whoever calls it keeps the forks of an answer before asking for the next one."""

    @property
    def blocks_matter(self) -> bool:
        """Returns whether results depend on which clients share a block: then no clock may decide it."""

    def __len__(self) -> int:
        """Counts the jobs that it computes at the same time."""

    def ready(self, wait_s: float | None = 0.0) -> bool:
        """Waits `wait_s` at most, or without end if None, and returns whether it can compute."""

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        """Computes jobs and yields their answers in order. Answers of an earlier call may be lost."""

    def settle(self, open_tickets: Collection[int]) -> None:
        """Forgets what it has computed for tickets other than these, which are still open."""

    def close(self) -> None:
        """Ends at once whatever it has started."""


Make: TypeAlias = Callable[[], ClientBackend]
"""A function that builds the backend of one process."""


class WrappedBackend:
    """Passes everything on to another backend. A subclass adds to it: a clock, a log, faults.

    Args:
      inner: the backend that computes.
    """

    def __init__(self, inner: ClientBackend) -> None:
        self.inner = inner

    @property
    def blocks_matter(self) -> bool:
        """Returns whether results depend on which clients share a block."""
        return self.inner.blocks_matter

    def __len__(self) -> int:
        return len(self.inner)

    def ready(self, wait_s: float | None = 0.0) -> bool:
        return self.inner.ready(wait_s)

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        return self.inner.compute(jobs, memory_at)

    def settle(self, open_tickets: Collection[int]) -> None:
        self.inner.settle(open_tickets)

    def close(self) -> None:
        self.inner.close()


def divide_job(job: Job, num_workers: int = 1) -> list[Job]:
    """Divides a job into blocks, for one process or for workers that take them in turn; a message is one.

    For workers, a block is at most a fair share of the places that are left. So blocks are large at first,
    and small at the end, and all workers finish at about the same time although clients are unequal.

    References: Polychronopoulos, Kuck, "Guided self-scheduling", IEEE Transactions on Computers 1987.
    """
    if not job.folded:
        return [job]
    num_places = len(job.places)

    def height(at: int) -> int:
        if num_workers == 1:
            return BLOCK_HEIGHT
        share = max(1, num_places * LEAST_SHARE / num_workers, (num_places - at) / num_workers)
        return min(BLOCK_HEIGHT, int(math.log2(share)))

    return [replace(job, places=block) for block in cut_blocks(job.places, job.begins, height)]
