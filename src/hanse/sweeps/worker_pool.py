"""Runs side by side: each in a process of its own, of one thread, and a process that dies harms no other."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TypeAlias

from threadpoolctl import threadpool_limits

from hanse.config import IN_PYTHON, Experiment
from hanse.core import HanseError, Plain
from hanse.core.exchange import Record
from hanse.runs import RunDiverged, Session, environment, existing, prepare_run, resume_session
from hanse.simulation import ONE_THREAD

__all__ = ["RunOutcome", "Seen", "SweepTask", "run_all"]

LOOK_EVERY_S = 0.2
"""How often progress is looked for, and told at most."""

ORPHAN_S = 5.0
"""How long a run may still be claimed by a process of a sweep that was killed a moment ago."""


@dataclass(frozen=True)
class SweepTask:
    """A run to be begun, or gone on with.

    Args:
      experiment: what is performed.
      tried: the settings that a sweep changed, which are kept with the run.
      store: where runs are kept; there is one.
      run: its id, if it was begun before.
    """

    experiment: Experiment
    tried: Plain
    store: str
    run: str | None = None


@dataclass(frozen=True)
class RunOutcome:
    """How a task ended: "completed", "incomplete", "diverged" or "failed", why, and what is worth knowing."""

    run: str | None
    status: str
    reason: str | None = None
    notes: tuple[str, ...] = ()


Seen: TypeAlias = Callable[[int, int, RunOutcome | None], None]
"""Told of a task by its number: the round that it is in, and at the end its outcome."""


def run_all(tasks: Sequence[SweepTask], num_workers: int, seen: Seen) -> list[RunOutcome]:
    """Performs tasks side by side. Ctrl-C ends the processes at once: what they had done is in the store."""
    waiting, ended = deque(range(len(tasks))), dict[int, RunOutcome]()
    pool = [_PoolWorker() for _ in range(min(num_workers, len(tasks)))]
    running: dict[Future[RunOutcome], tuple[_PoolWorker, int]] = {}
    try:
        while waiting or running:
            for worker in pool:
                if waiting and worker not in (busy for busy, _ in running.values()):
                    number = waiting.popleft()
                    running[worker.begin(tasks[number])] = worker, number
            done, _ = wait(running, LOOK_EVERY_S, FIRST_COMPLETED)
            for worker, number in running.values():
                for round in worker.rounds():
                    seen(number, round, None)
            for future in done:
                worker, number = running.pop(future)
                ended[number] = outcome = worker.outcome(future)
                seen(number, 0, outcome)
    except BaseException:
        for worker in pool:
            worker.cut()
        raise
    for worker in pool:
        worker.close()
    return [ended[number] for number in range(len(tasks))]


class _PoolWorker:
    """One process, and the next one if that dies. It ends with the pipe, so no crash leaves it behind."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (theirs,))
        self._theirs = theirs  # until the process, which starts with its first task, has it
        self._run: str | None = None

    def begin(self, task: SweepTask) -> Future[RunOutcome]:
        self._run = task.run
        return self._pool.submit(_perform, task)

    def rounds(self) -> Iterator[int]:
        """The rounds that its run has come through since it was asked last."""
        while self._pipe.poll():
            try:
                self._run, round = self._pipe.recv()
            except (EOFError, OSError):  # it died
                return
            yield round

    def outcome(self, future: Future[RunOutcome]) -> RunOutcome:
        try:
            return future.result()
        except BrokenProcessPool:
            for _ in self.rounds():
                pass
            run = self._run
            self.cut()
            self._start()
            why = "its process was killed from outside, or ran out of memory; sweep again to go on with it"
            return RunOutcome(run, "failed", why)

    def close(self) -> None:
        self._pool.shutdown()
        self._pipe.close()
        self._theirs.close()

    def cut(self) -> None:
        self._pipe.close()
        self._theirs.close()
        self._pool.shutdown(cancel_futures=True)


# -- in the process ----------------------------------------------------------------------------

_TOLD: list[Connection] = []


def _begin(pipe: Connection) -> None:
    os.environ.update(ONE_THREAD)
    threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever began the sweep decides
    _TOLD[:] = [pipe]
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()


def _end_with(pipe: Connection) -> None:
    """Ends this process when the other end of the pipe is closed, be it by a kill."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)


def _perform(task: SweepTask) -> RunOutcome:
    run, notes = task.run, list[str]()
    try:
        with _session(task, notes.append) as session:
            run = session.run
            outcome = RunOutcome(run, session.perform(_telling(session), alone=False).status)
    except RunDiverged as error:
        outcome = RunOutcome(run, "diverged", str(error))
    except HanseError as error:
        outcome = RunOutcome(run, "failed", str(error))
    except Exception as error:
        outcome = RunOutcome(run, "failed", f"{type(error).__name__}: {error}")
    return replace(outcome, notes=tuple(notes))


def _session(task: SweepTask, warn: Callable[[str], None]) -> AbstractContextManager[Session]:
    if task.run is None:
        return _start(task)
    _outlive(task.store, task.run)
    in_python = task.experiment.settings()["data"].get(IN_PYTHON)
    data = task.experiment.data if in_python else None
    return resume_session(task.run, store=task.store, data=data, warn=warn)


@contextmanager
def _start(task: SweepTask) -> Iterator[Session]:
    """As `hanse run` begins one, with what the sweep tried kept beside the settings."""
    ready = prepare_run(task.experiment)
    runs = existing(task.store)
    settings = {
        "experiment": task.experiment.settings(),
        "data_sha256": ready.population.fingerprint,
        "sweep": task.tried,
    }
    with runs.open(runs.begin(settings, environment())) as kept:
        yield Session(ready, kept)


def _outlive(store: str, run: str) -> None:
    runs, deadline_s = existing(store), time.monotonic() + ORPHAN_S
    while runs.info(run).status == "running" and time.monotonic() < deadline_s:
        time.sleep(0.05)


def _telling(session: Session) -> Callable[[Record], None]:
    due_s = time.monotonic()

    def watch(record: Record) -> None:
        nonlocal due_s
        now_s = time.monotonic()
        if now_s >= due_s:
            _TOLD[0].send((session.run, record.round))
            due_s = now_s + LOOK_EVERY_S

    return watch
