"""Clients computed by worker processes of one thread each, to the same bits as in one process.

A worker computes a block of clients from what it is given and keeps nothing, so it does not matter which one
computes it, or when. Shared memory holds data once, and also what all members of a cohort receive.
"""

import math
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, TypeAlias

from hanse.core import Memory, PartyId
from hanse.core.exchange import Block, Fork, Payload, Task
from hanse.simulation.blocks import Place, cut_aligned_blocks
from hanse.simulation.clients import BLOCK_HEIGHT, Clients, Settled, nothing
from hanse.simulation.worker import NUM_PAYLOADS, Job, Laid, WorkersFailed, receive, remove_stale_files, send

__all__ = ["ONE_THREAD", "Make", "Recall", "WorkerPool", "Workers", "WorkersFailed"]

Recall: TypeAlias = Callable[[PartyId], Memory]
Make: TypeAlias = Callable[[Recall], Clients]

AHEAD = 3
"""Blocks per worker that are computed before they are asked for; it bounds the memory."""

SHARE = 0.75
"""The fraction of its fair share of the remaining clients that a worker is given at once."""

LEAST_SHARE = 1 / 8
"""The least fraction of its fair share of all clients that a worker is given."""

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        self.ready, self.wanted = False, True
        code = f"from hanse.simulation.worker import serve; serve({theirs.fileno()})"
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": paths},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the process that began the run
        )
        theirs.close()

    def hear(self) -> Any:
        try:
            answer = receive(self.pipe)
        except (EOFError, OSError):
            code = self._process.wait()
            raise WorkersFailed(
                f"a worker process ended (exit status {code}): killed from outside, or out of memory"
            ) from None
        return answer

    def say(self, obj: object) -> None:
        if not self.wanted:
            self.hear()
            self.wanted = True
        try:
            send(self.pipe, obj)
        except OSError:
            self.hear()

    def end(self) -> None:
        """Ends the process at once: it holds nothing that is worth keeping."""
        self.pipe.close()
        self._process.kill()
        self._process.wait()


class WorkerPool:
    """A pool of worker processes. They start while the caller does something else.

    Args:
      make: builds the clients in each worker; it is pickled, so what it names must be in a module.
      num_workers: the number of processes.

    Raises: WorkersFailed: if `make` can't be pickled, or processes can't be started.
    """

    def __init__(self, make: Make, num_workers: int) -> None:
        self._workers: list[_Worker] = []
        self._data: Laid | None = None
        self._payloads: list[tuple[Payload, Laid]] = []
        self._computing: Generator[tuple[list[Place], Any], None, None] | None = None
        remove_stale_files()
        try:
            self._data = Laid.down(make)
            self._workers = [_Worker() for _ in range(num_workers)]
            for worker in self._workers:
                worker.say(self._data)
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                raise WorkersFailed(f"no worker processes could be started: {error}") from error
            raise

    def __len__(self) -> int:
        return len(self._workers)

    def ready(self, wait_s: float | None = 0.0) -> bool:
        """Waits `wait_s` at most, or without end if None, and returns whether all workers have started.

        Raises: WorkersFailed: if one could not build its clients.
        """
        until_s = None if wait_s is None else time.monotonic() + wait_s
        while waiting := dict[Any, _Worker](
            (worker.pipe, worker) for worker in self._workers if not worker.ready
        ):
            left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            heard = wait(list(waiting), left_s)
            if not heard:
                return False
            for pipe in heard:
                worker = waiting[pipe]
                answer = worker.hear()
                if isinstance(answer, BaseException):
                    raise WorkersFailed(f"a worker could not build its clients: {answer}") from answer
                worker.ready = True
        if self._data is not None:  # all have opened it
            self._data.remove()
            self._data = None
        return True

    def compute(
        self, jobs: Iterable[tuple[list[Place], Payload]], recall: Callable[[Task], Memory], *, folded: bool
    ) -> Iterator[tuple[list[Place], Any]]:
        """Computes jobs, and yields the answers in their order.

        A ticket that continues another one waits until the caller has asked for the next answer. Jobs of an
        earlier call that were not answered are dropped.
        """
        self.ready(None)
        if self._computing is not None:
            self._computing.close()
        self._computing = self._compute_jobs(jobs, recall, folded)
        return self._computing

    def _compute_jobs(
        self, jobs: Iterable[tuple[list[Place], Payload]], recall: Callable[[Task], Memory], folded: bool
    ) -> Generator[tuple[list[Place], Any], None, None]:
        waiting, idle = deque(enumerate(jobs)), deque(self._workers)
        busy: dict[Any, tuple[_Worker, int, list[Place], Payload]] = {}
        done: dict[int, tuple[list[Place], Any]] = {}
        begun: set[int] = set()
        due = 0
        try:
            while waiting or busy or done:
                while waiting and idle and len(busy) + len(done) < AHEAD * len(self._workers):
                    number, (places, payload) = waiting[0]
                    if any(task.after in begun for _, task in places):
                        break
                    waiting.popleft()
                    worker = idle.popleft()
                    laid = self._shared(payload, [job_payload for *_, job_payload in busy.values()])
                    begun.update(task.ticket for _, task in places)
                    worker.say(Job.of(laid, places, [recall(task) for _, task in places], folded))
                    busy[worker.pipe] = worker, number, places, payload
                if due in done:
                    places, answer = done.pop(due)
                    if isinstance(answer, BaseException):
                        raise answer
                    due += 1
                    yield places, answer
                    begun.difference_update(task.ticket for _, task in places)
                    continue
                for pipe in wait(list(busy)):
                    worker, number, places, _ = busy.pop(pipe)
                    done[number] = places, worker.hear()
                    idle.append(worker)
        finally:
            for worker, *_ in busy.values():
                worker.wanted = False

    def _shared(self, payload: Payload, needed: Sequence[Payload]) -> Laid:
        for sent, laid in self._payloads:
            if sent is payload:
                return laid
        for sent, laid in self._payloads[: -NUM_PAYLOADS + 1]:
            if not any(sent is other for other in needed):
                laid.remove()
                self._payloads.remove((sent, laid))
        named = (payload.shared, payload.uplink, payload.plans, payload.broadcasts)
        laid = Laid.down((payload.work, *map(dict, named)))
        self._payloads.append((payload, laid))
        return laid

    def close(self) -> None:
        """Ends all processes at once."""
        for worker in self._workers:
            worker.end()
        self._workers = []
        for _, laid in self._payloads:
            laid.remove()
        self._payloads = []
        if self._data is not None:
            self._data.remove()
            self._data = None


def cut_fair_blocks(places: Sequence[Place], num_workers: int) -> Iterator[list[Place]]:
    """Splits places, in order, into aligned blocks. An idle worker takes the next one.

    Blocks are large at first, so that there are few, and small at the end, so that all workers finish at
    about the same time although clients are unequal.
    """
    at, least = 0, LEAST_SHARE * len(places) / num_workers
    while at < len(places):
        size = max(1, least, SHARE * (len(places) - at) / num_workers)
        height = min(BLOCK_HEIGHT, round(math.log2(size)))
        block = next(cut_aligned_blocks(places[at : at + (1 << height)], height))
        yield block
        at += len(block)


class Workers:
    """Plays the clients of a `Simulation` in several processes. Use as a context manager.

    Args:
      make: builds the clients, in this process and in each worker; it is pickled.
      num_workers: processes, at least 1.
      recall: gives a client's committed memory when it is first needed; called in this process only.
      clients: those of this process, which keep the memory; None: `make` builds them.

    Raises: WorkersFailed: if they can't be started.
    """

    def __init__(
        self,
        make: Make,
        num_workers: int,
        recall: Recall = nothing,
        *,
        clients: Clients | None = None,
    ) -> None:
        self._clients = make(recall) if clients is None else clients
        self._pool = WorkerPool(make, num_workers)
        self._expected: list[tuple[list[Place], Payload]] = []
        self._messages: Iterator[tuple[list[Place], Any]] = iter(())

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes at once."""
        self._pool.close()

    def ready(self) -> bool:
        """Returns whether all have started. Raises: WorkersFailed: if one could not build its clients."""
        return self._pool.ready()

    def expect(self, tasks: Iterable[tuple[Task, Payload]]) -> None:
        """Begins to compute these tickets, in this order, when the first is asked for."""
        jobs = [([(0, task)], payload) for task, payload in tasks]
        self._messages = self._pool.compute(jobs, self._clients.memory, folded=False)

    def compute(self, task: Task, payload: Payload) -> bytes:
        """Waits for a ticket that was expected, and keeps the fork of memory that it leads to."""
        _, (message, fork) = next(self._messages)
        self._clients.keep(task, fork)
        return bytes(message)

    def fold(self, places: Sequence[Place], payload: Payload) -> Iterator[Block]:
        """Performs tickets of one dispatch and folds their contributions."""
        if self._clients.blocks_matter:
            blocks = cut_aligned_blocks(places, BLOCK_HEIGHT)
        else:
            blocks = cut_fair_blocks(places, len(self._pool))
        jobs = ((some, payload) for some in blocks)
        for some, (block, forks) in self._pool.compute(jobs, self._clients.memory, folded=True):
            self._clients.keep_all(some, forks)
            yield block

    def describe_execution(self) -> str:
        """Says how clients were computed."""
        return f"{len(self._pool)} workers"

    def settle(self, settled: Settled) -> Mapping[PartyId, Memory]:
        """Commits and drops forks, and returns the memories that changed."""
        return self._clients.settle(settled)

    def forks(self, tasks: Iterable[Task]) -> Mapping[PartyId, Mapping[int, Fork]]:
        """Returns the forks of those tickets that were computed and are not settled yet."""
        return self._clients.forks(tasks)

    def restore(self, forks: Mapping[PartyId, Mapping[int, Fork]]) -> None:
        """Restores saved forks."""
        self._clients.restore(forks)
