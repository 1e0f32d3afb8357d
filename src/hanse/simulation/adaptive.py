"""Clients computed with the given execution, or with the one that a short measurement finds fastest."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from types import TracebackType

from hanse.core import Memory, PartyId
from hanse.core.exchange import Block, Fork, Payload, Task
from hanse.simulation.blocks import Place, cut_aligned_blocks
from hanse.simulation.clients import BLOCK_HEIGHT, Settled, nothing
from hanse.simulation.execution import Execution, auto
from hanse.simulation.workers import Make, Recall, Workers, WorkersFailed

__all__ = ["AdaptiveClients"]

START_S = 3.0
"""Seconds that worker processes take to start and to import an engine, on a busy machine."""

WORTH = 2.0
"""Workers are started if they are going to save this many times what their start takes."""

TRIALS = 3
"""The number of folds that are measured before two executions are compared."""

AGAIN = 25
"""Slower workers are tried again once in this many folds: the machine may have been busy before."""

HERE = "one process"

PATIENCE_S = 0.1
"""A block that is computed in this process takes about this long at most."""


class AdaptiveClients:
    """Plays the clients of a `Simulation`. A context manager: it may start worker processes.

    The execution decides no bit, except where learners batch clients: see `Execution`.

    Args:
      make: builds the clients; it is pickled if workers are started.
      execution: how they are computed.
      recall: gives a client's committed memory when it is first needed.
      num_rounds: the number of rounds still to come.
    """

    def __init__(
        self, make: Make, execution: Execution, recall: Recall = nothing, *, num_rounds: int = 0
    ) -> None:
        self._make, self._execution, self._num_rounds = make, execution, num_rounds
        self._own = make(recall)
        self._measures = isinstance(execution, auto)
        self._workers: Workers | None = None
        self._seconds: dict[tuple[str, bool], deque[float]] = defaultdict(lambda: deque(maxlen=2 * TRIALS))
        self._num_folds = 0
        self._executions: dict[str, None] = {}
        self._answering: Workers | None = None
        self.why_not: str | None = None
        if execution.most > 1 and not self._measures:
            self._workers = Workers(self._make, execution.most, clients=self._own)

    def __enter__(self) -> "AdaptiveClients":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._workers is not None:
            self._workers.close()

    def fold(self, places: Sequence[Place], payload: Payload) -> Iterator[Block]:
        """Performs tickets of one dispatch and folds their contributions."""
        work = type(payload.work).__name__
        workers = self._helping(work, len(places))
        if workers is None:
            yield from self._here(work, places, payload)
            return
        began_s = time.perf_counter()
        num_done = 0
        try:
            for block in workers.fold(places, payload):
                num_done += len(block.sizes)
                self._note(block, workers.describe_execution())
                yield block
        except WorkersFailed as error:
            self._give_up(error)
            yield from self._here(work, places[num_done:], payload)
            return
        self._seconds[work, True].append((time.perf_counter() - began_s) / len(places))

    def _here(self, work: str, places: Sequence[Place], payload: Payload) -> Iterator[Block]:
        spent_s = 0.0
        least_s, left = math.inf, len(places)
        for some in self._size_blocks(work, places):
            began_s = time.perf_counter()
            block = self._own.fold_block(some, payload)
            took_s = time.perf_counter() - began_s
            spent_s, left = spent_s + took_s, left - len(some)
            least_s = min(least_s, took_s / len(some))
            if len(places) > 1:
                self._note(block, HERE)
            if self._measures and len(places) > 1:
                self._start_if_worth(least_s * (left + self._num_rounds * len(places)))
            yield block
        if len(places) > 1:
            self._seconds[work, False].append(spent_s / len(places))

    def _size_blocks(self, work: str, places: Sequence[Place]) -> Iterator[list[Place]]:
        """Yields blocks that take a moment each, to know soon how long all of them will take."""
        if self._own.blocks_matter:
            yield from cut_aligned_blocks(places, BLOCK_HEIGHT)
            return
        known_s = self._seconds.get((work, False))
        if not known_s:
            yield from cut_aligned_blocks(places[:2], 0)
            places = places[2:]
        per_block = PATIENCE_S / max(known_s[-1], 1e-6) if known_s else 1
        yield from cut_aligned_blocks(places, max(0, min(BLOCK_HEIGHT, int(per_block).bit_length() - 1)))

    def _start_if_worth(self, left_s: float) -> None:
        if self._workers is not None or self.why_not is not None or self._execution.most < 2:
            return
        if self._own.blocks_matter:
            return  # they would share one device
        if left_s * (1 - 1 / self._execution.most) < WORTH * START_S:
            return
        try:
            self._workers = Workers(self._make, self._execution.most, clients=self._own)
        except WorkersFailed as error:
            self.why_not = str(error)

    def _helping(self, work: str, num_places: int) -> Workers | None:
        """Returns the workers if they are to compute this."""
        if self._workers is None or num_places < 2:
            return None
        if not self._measures:
            return self._workers
        try:
            if not self._workers.ready():
                return None
        except WorkersFailed as error:
            self._give_up(error)
            return None
        self._num_folds += 1
        here_s, there_s = self._seconds[work, False], self._seconds[work, True]
        if len(there_s) < TRIALS:
            return self._workers
        if len(here_s) < 1:
            return None
        faster = median(there_s) <= median(here_s)
        if self._num_folds % AGAIN == 0 and not faster:
            faster = True
        return self._workers if faster else None

    def _give_up(self, error: WorkersFailed) -> None:
        """Continues in this process, unless workers were asked for."""
        if not self._measures or self._workers is None:
            raise error
        self.why_not = str(error)
        self._workers.close()
        self._workers = None

    def _note(self, block: Block, where: str) -> None:
        if len(block.sizes) == 1 and where == HERE:
            return  # to measure how long one takes
        self._executions[f"{where}, together" if block.together else where] = None

    def describe_execution(self) -> str:
        """Says how clients were computed since the last call: "one process", "2 workers, together", ..."""
        text, self._executions = "; then ".join(self._executions), {}
        return text

    def expect(self, tasks: Iterable[tuple[Task, Payload]]) -> None:
        """Announces the tickets that will be asked for next, in about this order."""
        self._answering = self._workers if not self._measures else None
        (self._answering or self._own).expect(tasks)

    def compute(self, task: Task, payload: Payload) -> bytes:
        """Performs a ticket and returns the packed message."""
        return (self._answering or self._own).compute(task, payload)

    def settle(self, settled: Settled) -> Mapping[PartyId, Memory]:
        """Ends a round and returns the memories that changed."""
        self._num_rounds = max(0, self._num_rounds - 1)
        return self._own.settle(settled)

    def forks(self, tasks: Iterable[Task]) -> Mapping[PartyId, Mapping[int, Fork]]:
        """Returns the forks of memory of these tickets."""
        return self._own.forks(tasks)

    def restore(self, forks: Mapping[PartyId, Mapping[int, Fork]]) -> None:
        """Restores saved forks."""
        self._own.restore(forks)
