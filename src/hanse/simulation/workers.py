"""The backend of several worker processes of one thread each, to the same bits as in one process.

A worker computes a block of clients from what it is given and keeps nothing, so it does not matter which one
computes it, or when. Shared memory holds data once, and also what all members of a cohort receive.
The pool keeps messages that were begun before they were asked for, so that none is computed twice.
"""

import time
from collections import deque
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, ClassVar

from hanse.core import Memory
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


@dataclass
class _Begun:
    """A job that a worker was given, and its answer once there is one.

    Args:
      job, memories: the tickets, and the memories that they continue.
      worker: the one that computes it; None: it has answered.
      is_spare: whether nobody has asked for the answer yet.
    """

    job: Job
    memories: Sequence[Memory]
    worker: "_Worker | None"
    is_spare: bool
    answer: Any = None

    def fits(self, job: Job, memories: Sequence[Memory]) -> bool:
        """Returns whether this is the job: the same payload, and memories that hold the same objects."""
        return self.job.payload is job.payload and all(
            one.keys() == other.keys() and all(one[name] is other[name] for name in one)
            for one, other in zip(self.memories, memories, strict=True)
        )


class _Worker:
    """A child process that has at most one request at a time."""

    def __init__(self) -> None:
        self._child = ChildProcess("hanse.simulation.worker")
        self.pipe, self.pid = self._child.pipe, self._child.pid
        self.wanted = True
        self.begun: _Begun | None = None
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
        self._messages: dict[int, _Begun] = {}
        """By ticket, the messages that were begun and not yet yielded."""
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
        """Computes jobs and yields their answers in order. Blocks of an earlier call are dropped.

        Messages that an earlier call has begun are kept until they are asked for, or until `settle`.
        A ticket that continues another one waits until the caller has asked for the next answer. At most one
        optional job per worker is computed before it is asked for.

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
        waiting, begun, by = deque(jobs), deque[_Begun](), f"{len(self)} workers"
        try:
            while waiting or begun:
                while waiting and (one := self._begin(waiting[0], begun, memory_at)) is not None:
                    begun.append(one)
                    waiting.popleft()
                if not begun or begun[0].worker is not None:
                    self._hear()
                    continue
                one = begun[0]
                if not one.job.folded:
                    del self._messages[_find_ticket(one.job)]
                if isinstance(one.answer, BaseException):
                    raise one.answer
                result, forks = one.answer
                yield Answer(one.job, result, forks, by)
                begun.popleft()
        finally:
            for one in begun:
                if one.job.folded:
                    self._drop(one)

    def _begin(self, job: Job, begun: Collection[_Begun], memory_at: MemoryAt) -> _Begun | None:
        """Gives a job to a worker, unless it was begun before; None: it has to wait.

        Args:
          job: the next one.
          begun: the jobs before it that are not yielded yet.
          memory_at: see `ClientBackend.compute`.
        """
        before = {task.ticket for one in begun for _, task in one.job.places}
        if any(task.after in before for _, task in job.places):
            return None
        is_spare = job.is_optional and bool(begun)
        known = None if job.folded else self._messages.get(_find_ticket(job))
        if known is not None:
            if known.fits(job, [memory_at(task) for _, task in job.places]):
                known.job, known.is_spare = job, is_spare
                return known
            self._drop(self._messages.pop(_find_ticket(job)))
        if is_spare and sum(one.is_spare for one in self._messages.values()) >= len(self):
            return None
        idle = [worker for worker in self._workers if worker.begun is None]
        if not idle or len(begun) >= AHEAD * len(self):
            return None
        memories = [memory_at(task) for _, task in job.places]
        worker = max(idle, key=lambda one: one.wanted)  # others still compute what was dropped
        busy = [one.begun.job.payload for one in self._workers if one.begun is not None]
        worker.say(Request.of(self._shared(job.payload, busy), job, memories))
        worker.begun = _Begun(job, memories, worker, is_spare)
        if not job.folded:
            self._messages[_find_ticket(job)] = worker.begun
        return worker.begun

    def _hear(self) -> None:
        """Waits until workers have answered, and takes their answers."""
        busy = dict[Any, _Worker]((one.pipe, one) for one in self._workers if one.begun is not None)
        for pipe in wait(list(busy)):
            worker = busy[pipe]
            assert worker.begun is not None
            worker.begun.answer, worker.begun.worker = worker.hear(), None
            worker.begun = None

    def _drop(self, one: _Begun) -> None:
        """Drops the answer to a job, which may still be computed."""
        if one.worker is not None:
            one.worker.wanted, one.worker.begun = False, None

    def settle(self, open_tickets: Collection[int]) -> None:
        """Forgets the messages of all tickets but these, which are still open."""
        left = set(open_tickets)
        for ticket in self._messages.keys() - left:
            self._drop(self._messages.pop(ticket))

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


def _find_ticket(job: Job) -> int:
    """Returns the ticket of a job for one message."""
    ((_, task),) = job.places
    return task.ticket


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
