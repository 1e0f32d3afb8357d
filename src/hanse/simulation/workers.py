"""Clients computed by worker processes of one thread each; the same bits as in one process.

A worker computes a ticket from what it is given and keeps nothing, so it matters neither which one computes
it nor when. What a cohort is sent alike lies once in shared memory.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from types import TracebackType
from typing import TypeAlias

from threadpoolctl import threadpool_limits

from hanse.core.party import Fork, Payload, Task
from hanse.core.values import pack, unpack
from hanse.core.work import Memory, PartyId
from hanse.simulation.simulation import Clients, Settled, note

__all__ = ["Workers"]

Recall: TypeAlias = Callable[[PartyId], Memory]
Make: TypeAlias = Callable[[Recall], Clients]

AHEAD = 3
"""Tickets per worker that are computed before they are asked for; it bounds the memory."""

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class Workers:
    """Plays the clients of a `Simulation` in several processes. Use as a context manager.

    Args:
      make: builds the clients, in this process and in each worker; it is pickled.
      num_workers: processes, at least 1.
      recall: gives a client's committed memory when it is first needed; called in this process only.
    """

    def __init__(
        self,
        make: Make,
        num_workers: int,
        recall: Recall = lambda party: {},
    ) -> None:
        self._clients = make(recall)
        self._num_ahead = AHEAD * num_workers
        self._waiting: deque[tuple[Task, Payload]] = deque()
        self._started: dict[int, Future[tuple[bytes, Fork]]] = {}
        self._sent: tuple[Payload, SharedMemory, int] | None = None
        self._pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), _begin, (make,))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._forget()

    def expect(self, tasks: Iterable[tuple[Task, Payload]]) -> None:
        """Begins to compute these tickets."""
        self._waiting = deque(tasks)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._started) < self._num_ahead:
            if self._waiting[0][0].after in self._started:
                return  # its memory is being computed
            self._start(*self._waiting.popleft())

    def _start(self, task: Task, payload: Payload) -> None:
        if task.ticket in self._started:
            return
        name, size = self._share(payload)
        memory = self._clients.memory(task)
        self._started[task.ticket] = self._pool.submit(_compute, task, memory, name, size)

    def _share(self, payload: Payload) -> tuple[str, int]:
        if self._sent is None or self._sent[0] is not payload:
            for future in self._started.values():
                future.exception()
            self._forget()
            data = pack(payload)
            block = SharedMemory(create=True, size=len(data))
            _view(block)[: len(data)] = data
            self._sent = payload, block, len(data)
        return self._sent[1].name, self._sent[2]

    def _forget(self) -> None:
        if self._sent is not None:
            self._sent[1].close()
            self._sent[1].unlink()
            self._sent = None

    def compute(self, task: Task, payload: Payload) -> bytes:
        """Waits for a ticket and keeps the fork of memory that it leads to."""
        self._start(task, payload)
        try:
            message, fork = self._started.pop(task.ticket).result()
        except Exception as error:
            note(error, task, payload)  # notes do not travel between processes
            raise
        self._clients.keep(task, fork)
        self._fill()
        return message

    def settle(self, settled: Settled) -> Mapping[PartyId, Memory]:
        """Commits and drops forks; the memories that changed."""
        for _, dropped in settled.values():
            for ticket in dropped:
                self._started.pop(ticket, None)
        return self._clients.settle(settled)

    def forks(self, tasks: Iterable[Task]) -> Mapping[PartyId, Mapping[int, Fork]]:
        """The forks of these tickets, where they were computed and are not settled yet."""
        return self._clients.forks(tasks)

    def restore(self, forks: Mapping[PartyId, Mapping[int, Fork]]) -> None:
        """Takes up saved forks."""
        self._clients.restore(forks)


def _view(block: SharedMemory) -> memoryview:
    assert block.buf is not None
    return block.buf


_OWN: dict[str, Clients] = {}
_LAST: dict[str, Payload] = {}


def _begin(make: Make) -> None:
    os.environ.update(ONE_THREAD)
    threadpool_limits(1)
    _OWN["clients"] = make(lambda party: {})


def _compute(task: Task, memory: Memory, name: str, size: int) -> tuple[bytes, Fork]:
    if name not in _LAST:
        _LAST.clear()
        block = SharedMemory(name)
        _LAST[name] = unpack(bytes(_view(block)[:size]), Payload)
        block.close()
    return _OWN["clients"].compute_from(memory, task, _LAST[name])
