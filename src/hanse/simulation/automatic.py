"""The backend that measures: in this process at first, and in worker processes once they pay."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from hanse.simulation.backend import BLOCK_HEIGHT, Answer, ClientBackend, Job, MemoryAt, divide_job
from hanse.simulation.blocks import cut_blocks
from hanse.simulation.workers import WorkersFailed

__all__ = ["Automatic"]


@dataclass
class _Pace:
    """The speed of one work: the least seconds per client, since only disturbances add to them.

    Args:
      num_folds: folds so far.
      block_s: of the blocks of the last fold that began in this process.
      here_s: of whole folds in this process.
      there_s: of folds by workers.
      rest: the folds for which workers rested last.
      resting: the folds for which they rest now.
    """

    num_folds: int = 0
    block_s: float = math.inf
    here_s: float = math.inf
    there_s: float = math.inf
    rest: int = 0
    resting: int = 0

    def wants_workers(self) -> bool:
        """Begins a fold, and returns whether workers compute it once they are ready."""
        self.num_folds += 1
        self.resting = max(0, self.resting - 1)
        return self.resting == 0

    def note_workers(self, seconds: float) -> None:
        """Notes the seconds per client of a fold by workers."""
        self.there_s = min(self.there_s, seconds)
        faster = self.there_s <= (self.block_s if math.isinf(self.here_s) else self.here_s)
        self.rest = 0 if faster else 2 * self.rest + 1
        self.resting = 0 if faster else self.rest + 1


class Automatic:
    """Computes where it was measured to be faster. The choice does not change the result.

    Workers are started as soon as the seconds that they would save in the rest of the run exceed those of
    their start, by the fastest block of the fold, once blocks don't get faster any more. Then each work is
    computed where its fastest fold took fewer seconds per client: slower workers rest for 1, 3, 7, 15 ...
    folds before they are tried again. If they can't be started, or die, this process goes on alone. Where
    blocks matter no workers are started: they would share one device.

    Args:
      here: computes in this process.
      start: starts the workers.
      num_workers: how many it would start.
      num_rounds: the number of rounds still to come.
      start_s: the seconds that starting them takes.
    """

    def __init__(
        self,
        here: ClientBackend,
        start: Callable[[], ClientBackend],
        num_workers: int,
        num_rounds: int,
        start_s: float,
    ) -> None:
        self._here, self._start, self._num_workers = here, start, num_workers
        self._num_rounds, self._start_s = num_rounds, start_s
        self._workers: ClientBackend | None = None
        self._paces: dict[str, _Pace] = defaultdict(_Pace)
        self.why_not: str | None = None
        """Why workers could not be started, or were given up."""

    @property
    def blocks_matter(self) -> bool:
        """Returns whether results depend on which clients share a block."""
        return self._here.blocks_matter

    def __len__(self) -> int:
        return 1 if self._workers is None else len(self._workers)

    def ready(self, wait_s: float | None = 0.0) -> bool:
        """Waits until workers that were started are ready, if there are any, and returns whether they are."""
        if self._workers is None:
            return True
        return self._is_there(wait_s)

    def settle(self, open_tickets: Collection[int]) -> None:
        """Does nothing: workers only compute folds."""

    def close(self) -> None:
        """Ends the workers."""
        if self._workers is not None:
            self._workers.close()

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        """Computes folds where that is faster, and all else in this process."""
        for job in jobs:
            if job.folded and len(job.places) > 1:
                yield from self._fold(job, memory_at)
            else:
                yield from self._here.compute([job], memory_at)

    def _fold(self, job: Job, memory_at: MemoryAt) -> Iterator[Answer]:
        pace, num_clients = self._paces[type(job.payload.work).__name__], len(job.places)
        is_first = math.isinf(pace.block_s) and not self.blocks_matter
        left = deque(_divide_finely(job) if is_first else divide_job(job))
        num_left, spent_s, pace.block_s = num_clients, 0.0, math.inf
        wants = pace.wants_workers()
        while left and not (wants and self._is_there()):
            began_s = time.perf_counter()
            (answer,) = self._here.compute([left.popleft()], memory_at)
            took_s = time.perf_counter() - began_s
            yield answer
            num_left -= len(answer.job.places)
            spent_s, block_s = spent_s + took_s, took_s / len(answer.job.places)
            gets_faster, pace.block_s = block_s < pace.block_s, min(block_s, pace.block_s)
            if not gets_faster or not left:  # the first blocks compile, and are small
                num_rounds = max(0, self._num_rounds - pace.num_folds)
                self._start_if_worth(pace.block_s * (num_left + num_rounds * num_clients))
        if left:
            yield from self._fold_there(job.skip(num_clients - num_left), memory_at, pace)
        elif not is_first:
            pace.here_s = min(pace.here_s, spent_s / num_clients)

    def _fold_there(self, job: Job, memory_at: MemoryAt, pace: _Pace) -> Iterator[Answer]:
        assert self._workers is not None
        num_done, began_s = 0, time.perf_counter()
        try:
            for answer in self._workers.compute([job], memory_at):
                yield answer
                num_done += len(answer.job.places)
        except WorkersFailed as error:
            self._give_up(error)
            yield from self._here.compute([job.skip(num_done)], memory_at)
        else:
            pace.note_workers((time.perf_counter() - began_s) / len(job.places))

    def _start_if_worth(self, left_s: float) -> None:
        if self._workers is not None or self.why_not is not None or self.blocks_matter:
            return
        if left_s * (1 - 1 / self._num_workers) > self._start_s:
            try:
                self._workers = self._start()
            except WorkersFailed as error:
                self.why_not = str(error)

    def _is_there(self, wait_s: float | None = 0.0) -> bool:
        """Returns whether workers can compute."""
        try:
            return self._workers is not None and self._workers.ready(wait_s)
        except WorkersFailed as error:
            self._give_up(error)
            return False

    def _give_up(self, error: WorkersFailed) -> None:
        self.why_not = str(error)
        self.close()
        self._workers = None


def _divide_finely(job: Job) -> list[Job]:
    """Divides a job into blocks of 1, 1, 2, 4, 8 ... positions, to know soon how long a client takes."""

    def height(at: int) -> int:
        return min(BLOCK_HEIGHT, max(0, at.bit_length() - 1))

    return [replace(job, places=block) for block in cut_blocks(job.places, job.begins, height)]
