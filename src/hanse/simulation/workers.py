"""The backend of several worker processes of one thread each, to the same bits as in one process.

A worker computes a block of clients from what it is given and keeps nothing, so it does not matter which one
computes it, or when. Shared memory holds data once, and also what all members of a cohort receive.
"""

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, ClassVar

from hanse.core.exchange import Payload
from hanse.processes import ChildEnded, ChildProcess
from hanse.simulation.backend import Answer, ClientBackend, Job, Make, MemoryAt, WrappedBackend, divide_job
from hanse.simulation.worker import (
    NUM_PAYLOADS,
    Laid,
    Request,
    WorkersFailed,
    remove_stale_files,
)

__all__ = ["SinglesHere", "WorkerPool", "WorkersFailed"]

AHEAD = 3
"""Jobs per worker that are computed before their answers are asked for; it bounds the memory."""


class _Worker:
    """A child process that has at most one request at a time."""

    def __init__(self) -> None:
        self._child = ChildProcess("hanse.simulation.worker")
        self.pipe, self.pid = self._child.pipe, self._child.pid
        self.wanted = True
        self.built_s: float | None = None
        """The time at which its backend was built, on the clock that all processes share."""

    def hear(self) -> Any:
        with _explain():
            return self._child.receive()

    def say(self, obj: object) -> None:
        if not self.wanted:
            self.hear()
            self.wanted = True
        with _explain():
            self._child.send(obj)

    def end(self) -> None:
        """Ends the process at once: it holds nothing that is worth keeping."""
        self._child.close()


@contextmanager
def _explain() -> Iterator[None]:
    try:
        yield
    except ChildEnded as ended:
        raise WorkersFailed(
            f"a worker process ended (exit status {ended.status}): killed from outside, or out of memory"
        ) from None


class WorkerPool:
    """A pool of worker processes. They start while the caller does something else.

    Args:
      make: builds the backend of each worker; it is pickled, so what it names must be in a module.
      num_workers: the number of processes.

    Raises: WorkersFailed: if `make` can't be pickled, or processes can't be started.
    """

    start_s: ClassVar[float] = 3.0
    """The seconds in which a pool starts: those of the last one that started in this process. Until one has,
    those of two workers that import an engine on a busy machine of two cores."""

    def __init__(self, make: Make, num_workers: int) -> None:
        self._workers: list[_Worker] = []
        self._make: Laid | None = None
        self._payloads: list[tuple[Payload, Laid]] = []
        self._computing: Generator[Answer, None, None] | None = None
        self._blocks_matter = False
        self._began_s = time.monotonic()
        remove_stale_files()
        try:
            self._make = Laid.down(make)
            self._workers = [_Worker() for _ in range(num_workers)]
            for worker in self._workers:
                worker.say(self._make)
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                raise WorkersFailed(f"no worker processes could be started: {error}") from error
            raise

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes."""
        return [worker.pid for worker in self._workers]

    @property
    def blocks_matter(self) -> bool:
        """Returns whether results depend on which clients share a block, which only workers know."""
        self.ready(None)
        return self._blocks_matter

    def ready(self, wait_s: float | None = 0.0) -> bool:
        """Waits `wait_s` at most, or without end if None, and returns whether all workers have started.

        Raises: WorkersFailed: if one could not build its backend.
        """
        if self._make is None:
            return True
        until_s = None if wait_s is None else time.monotonic() + wait_s
        while waiting := dict[Any, _Worker](
            (worker.pipe, worker) for worker in self._workers if worker.built_s is None
        ):
            left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            heard = wait(list(waiting), left_s)
            if not heard:
                return False
            for pipe in heard:
                answer = waiting[pipe].hear()
                if isinstance(answer, BaseException):
                    raise WorkersFailed(f"a worker could not build its clients: {answer}") from answer
                self._blocks_matter, waiting[pipe].built_s = answer
        WorkerPool.start_s = max(worker.built_s or 0.0 for worker in self._workers) - self._began_s
        self._make.remove()  # all have opened it
        self._make = None
        return True

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        """Computes jobs and yields their answers in order. Those of an earlier call are dropped.

        A ticket that continues another one waits until the caller has asked for the next answer.

        Raises: WorkersFailed: if a worker died.
        """
        self.ready(None)
        if self._computing is not None:
            self._computing.close()
        num_workers = 1 if self._blocks_matter else len(self)
        parts = [part for job in jobs for part in divide_job(job, num_workers)]
        self._computing = self._compute_parts(parts, memory_at)
        return self._computing

    def _compute_parts(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Generator[Answer, None, None]:
        waiting, idle = deque(enumerate(jobs)), deque(self._workers)
        busy: dict[Any, tuple[_Worker, int, Job]] = {}
        done: dict[int, Any] = {}
        begun: set[int] = set()
        due, by = 0, f"{len(self)} workers"
        try:
            while waiting or busy or done:
                while waiting and idle and len(busy) + len(done) < AHEAD * len(self._workers):
                    number, job = waiting[0]
                    if any(task.after in begun for _, task in job.places):
                        break
                    waiting.popleft()
                    worker = idle.popleft()
                    laid = self._shared(job.payload, [other.payload for *_, other in busy.values()])
                    begun.update(task.ticket for _, task in job.places)
                    worker.say(Request.of(laid, job, [memory_at(task) for _, task in job.places]))
                    busy[worker.pipe] = worker, number, job
                if due in done:
                    answer = done.pop(due)
                    if isinstance(answer, BaseException):
                        raise answer
                    result, forks = answer
                    yield Answer(jobs[due], result, forks, by)
                    begun.difference_update(task.ticket for _, task in jobs[due].places)
                    due += 1
                    continue
                for pipe in wait(list(busy)):
                    worker, number, _ = busy.pop(pipe)
                    done[number] = worker.hear()
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
        if self._make is not None:
            self._make.remove()
            self._make = None


class SinglesHere(WrappedBackend):
    """Computes what is one client's or role's alone in this process, and leaves the rest to a pool.

    Args:
      here: the backend of this process.
      inner: the pool.
    """

    def __init__(self, here: ClientBackend, inner: ClientBackend) -> None:
        super().__init__(inner)
        self._here = here

    @property
    def blocks_matter(self) -> bool:
        """Returns whether results depend on which clients share a block."""
        return self._here.blocks_matter

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        alone = sum(len(job.places) for job in jobs) < 2
        return (self._here if alone else self.inner).compute(jobs, memory_at)
