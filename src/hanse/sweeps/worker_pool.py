"""Runs side by side, each in its own process of one thread; a process that dies harms no other."""

import multiprocessing
import os
import pickle
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
from hanse.imports import Import, load_same
from hanse.processes import ONE_THREAD
from hanse.runs import (
    RunDiverged,
    Session,
    environment,
    existing,
    prepare_run,
    record_imports,
    resume_session,
)

__all__ = ["RunOutcome", "Seen", "SweepTask", "run_all"]

LOOK_EVERY_S = 0.2
"""The seconds between two looks at the progress, and the least between two reports of it."""

ORPHAN_S = 5.0
"""The seconds for which a process of a sweep that was killed may still claim its run."""


@dataclass(frozen=True)
class SweepTask:
    """A run to begin or to resume.

    Args:
      experiment: the experiment that is performed.
      tried: the settings that a sweep changed, which are kept with the run.
      store: the place where runs are kept, which exists.
      run: its id, if it was begun before.
      imports: the modules of users that the experiment depends on.
    """

    experiment: Experiment
    tried: Plain
    store: str
    run: str | None = None
    imports: tuple[Import, ...] = ()


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a task: "completed", "incomplete", "diverged" or "failed", with the reason and notes."""

    run: str | None
    status: str
    reason: str | None = None
    notes: tuple[str, ...] = ()


Seen: TypeAlias = Callable[[int, int, RunOutcome | None], None]
"""A function that is called with the number of a task, its round, and at the end its outcome."""


def run_all(tasks: Sequence[SweepTask], num_workers: int, seen: Seen) -> list[RunOutcome]:
    """Performs tasks side by side. Ctrl-C ends the processes at once; the store keeps what they have done."""
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
    """A worker process, replaced if it dies. It ends when its pipe closes, so no crash leaves it behind."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (theirs,))
        self._theirs = theirs  # kept until the process has it, which starts with its first task
        self._run: str | None = None

    def begin(self, task: SweepTask) -> Future[RunOutcome]:
        self._run = task.run
        return self._pool.submit(_perform_packed, task.imports, pickle.dumps(task))

    def rounds(self) -> Iterator[int]:
        """Yields the rounds that its run has finished since the last call."""
        while self._pipe.poll():
            try:
                self._run, round = self._pipe.recv()
            except (EOFError, OSError):  # the process died
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
            why = "its process was killed from outside, or ran out of memory; sweep again to resume it"
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that began the sweep decides
    _TOLD[:] = [pipe]
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()


def _end_with(pipe: Connection) -> None:
    """Ends this process when the other end of the pipe closes, even by a kill."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)


def _perform_packed(imports: Sequence[Import], packed: bytes) -> RunOutcome:
    """Performs a pickled task, once the modules are imported that it names classes of."""
    try:
        load_same(imports)
    except HanseError as error:
        return RunOutcome(None, "failed", str(error))
    return _perform(pickle.loads(packed))


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
    """Begins a run as `hanse run` does, and keeps the settings that the sweep tried beside its own."""
    ready = prepare_run(task.experiment)
    runs = existing(task.store)
    settings = {
        "experiment": ready.experiment.settings(),
        "data_sha256": ready.population.fingerprint,
        "sweep": task.tried,
        **record_imports(task.imports),
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
