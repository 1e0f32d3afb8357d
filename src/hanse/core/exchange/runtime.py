"""Runtimes perform commands; a driver leads a program through one and keeps its journal.

A driver does no I/O of its own, so that it serves a runtime with `await` as well as one without. A program
that was cut is led again from its last checkpoint: the journal answers the commands that were performed
already, and the driver stops loudly at the first that differs.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Generic, TypeAlias, TypeVar

from hanse.core.algorithm import is_of_training
from hanse.core.errors import ReplayError
from hanse.core.exchange.changes import Changes
from hanse.core.program import Command, Commit, Committed, Event, Program, has_closed
from hanse.core.usage import Usage
from hanse.core.values import digest, former_digest, pack, unpack, value
from hanse.core.work import Memory, PartyId

__all__ = [
    "Checkpoint",
    "Driver",
    "Entry",
    "InMemory",
    "Led",
    "Record",
    "Resumable",
    "Runtime",
    "Store",
    "Watch",
    "drive",
]

T = TypeVar("T")


class Resumable(ABC):
    """A runtime, as far as a driver keeps its snapshots."""

    @abstractmethod
    def snapshot(self) -> Any:
        """Returns a value from which `restore` goes on: tickets in flight, forks of memory, the clock."""

    def changes(self) -> Any:
        """Returns what has changed since this was last asked, the last Commit, or `restore`.

        A runtime whose state does not grow in a round may return a snapshot instead.
        """
        return self.snapshot()

    @abstractmethod
    def restore(self, snapshot: Any, changes: Sequence[Any] = ()) -> None:
        """Goes on from a snapshot and the changes after it, first to last.

        Args:
          snapshot: as `snapshot` returned it; None: the beginning.
          changes: the values of a class of `Changes` that `changes` returned since then.
        """

    def recall(self, event: Event) -> None:  # noqa: B027
        """Hears of an event by which the journal answered the program; most runtimes need not."""


class Runtime(Resumable):
    """Performs commands, one after the other."""

    @abstractmethod
    def perform(self, command: Command[Any]) -> Event:
        """Does what the command asks, and answers with what happened."""


@value
class Record:
    """The report of one round.

    Args:
      metrics: as the program committed them, with what the algorithm tells of its state.
      seconds: the wall-clock time that the round took.
      execution: how clients were computed, such as "2 workers".
      spent: what these seconds went to; work that was done in parallel counts by its share. The framework
        itself took the seconds that are missing in the sum.
      reported: the names of the metrics that the algorithm tells of its state.
    """

    round: int
    metrics: Mapping[str, float]
    usage: Usage
    seconds: float
    abandoned: str | None = None
    execution: str = field(default="", compare=False)
    spent: Mapping[str, float] = field(default_factory=dict, compare=False)
    reported: tuple[str, ...] = ()

    @property
    def is_closed(self) -> bool:
        """Returns whether the round closed: it was not abandoned, or only its measurement was."""
        return has_closed(self.abandoned)

    @property
    def is_measured(self) -> bool:
        """Returns whether the model was measured after the round, and not only while clients trained."""
        return not all(name in self.reported or is_of_training(name) for name in self.metrics)


@value
class Checkpoint:
    """The point from which a run goes on: the program's state after a round, and the runtime's snapshot."""

    round: int
    state: Any
    runtime: Any


@value
class Entry:
    """One command of the unfinished round.

    Args:
      digest: of the command.
      event: that answered it.
      runtime: what it has changed in the runtime, of a class of `Changes`; or a snapshot of the runtime after
        it, as version 0.1.0 kept one.
    """

    digest: str
    event: Event
    runtime: Any


class Store(ABC):
    """Keeps one run. `save` is one transaction: round, state and memories are all saved, or none.

    A store may wait for a while before it writes what it was given, so this must not be changed later.
    """

    @abstractmethod
    def checkpoint(self) -> Checkpoint | None:
        """Returns the last checkpoint that was saved."""

    @abstractmethod
    def journal(self) -> tuple[Entry, ...]:
        """Returns the entries that were appended since the last checkpoint."""

    @abstractmethod
    def memory(self, party: PartyId) -> Memory:
        """Returns the last committed memory of a client; empty if there is none."""

    @abstractmethod
    def append(self, entry: Entry) -> None:
        """Adds an entry to the journal."""

    @abstractmethod
    def save(self, checkpoint: Checkpoint, record: Record, memories: Mapping[PartyId, Memory]) -> None:
        """Saves a round and empties the journal."""


class InMemory(Store):
    """Keeps packed bytes in this process, for tests and for runs that nobody wants to resume."""

    def __init__(self) -> None:
        self._checkpoint: bytes | None = None
        self._journal: list[bytes] = []
        self._memories: dict[PartyId, bytes] = {}
        self.records: list[Record] = []

    def checkpoint(self) -> Checkpoint | None:
        return None if self._checkpoint is None else unpack(self._checkpoint, Checkpoint)

    def journal(self) -> tuple[Entry, ...]:
        return tuple(unpack(entry, Entry) for entry in self._journal)

    def memory(self, party: PartyId) -> Memory:
        return unpack(self._memories[party]) if party in self._memories else {}

    def append(self, entry: Entry) -> None:
        self._journal.append(pack(entry))

    def save(self, checkpoint: Checkpoint, record: Record, memories: Mapping[PartyId, Memory]) -> None:
        self._checkpoint = pack(checkpoint)
        self._journal.clear()
        self._memories.update({party: pack(memory) for party, memory in memories.items()})
        self.records.append(record)


Watch: TypeAlias = Callable[..., None]
"""Called after each round with its record; by `hanse.runs` also with `params`, if it has such an argument."""


class Driver(Generic[T]):
    """Leads a program from command to command, and keeps the journal. It performs nothing itself.

    As long as the program is not `done`: `replay` the next `command` from the journal, or perform it
    and `answer` it with the event.

    Args:
      program: made from the store's checkpoint, where there is one.
      runtime: restored from the store.
      store: keeps the journal and the rounds; None: nothing is kept.
      watch: called after each round.
    """

    def __init__(
        self,
        program: Program[T],
        runtime: Resumable,
        store: Store | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._program, self._store, self._watch = program, store, watch
        self._snapshot, self._changes, self._recall = runtime.snapshot, runtime.changes, runtime.recall
        self._left: deque[Entry] = deque(store.journal() if store else ())
        checkpoint = store.checkpoint() if store else None
        if self._left or checkpoint is not None:
            runtime.restore(*_find_state(checkpoint, self._left))
        self._result: list[T] = []
        self._began, self._stored_s = time.perf_counter(), 0.0
        self._advance(None)

    @property
    def done(self) -> bool:
        """True once the program has ended."""
        return bool(self._result)

    @property
    def result(self) -> T:
        """The value that the program returned."""
        return self._result[0]

    def skip(self, seconds: float) -> None:
        """Leaves out, of the present round's time, what the caller has spent on something else."""
        self._began += seconds

    def replay(self) -> bool:
        """Answers the next command from the journal, if it was performed before the cut."""
        if not self._left:
            return False
        entry = self._left.popleft()
        if isinstance(self.command, Commit) or not _is_same(self.command, entry):
            raise ReplayError(
                f"the program now asks for a {type(self.command).__name__} that differs from what the "
                "journal holds; resume with the program, data and versions that the run began with"
            )
        self._recall(entry.event)
        self._advance(entry.event)
        return True

    def answer(self, event: Event) -> None:
        """Keeps the event that the performed command led to, and goes on to the next command."""
        if isinstance(self.command, Commit):
            assert isinstance(event, Committed)
            self._save(self.command, event)
        elif self._store is not None:
            began = time.perf_counter()
            self._store.append(Entry(digest(self.command), event, self._changes()))
            self._stored_s += time.perf_counter() - began
        self._advance(event)

    def _save(self, command: Commit, event: Committed) -> None:
        now = time.perf_counter()
        seconds, spent = now - self._began, dict(event.spent)
        if self._store is not None:
            spent["store"] = self._stored_s
        record = Record(
            command.round,
            {**command.metrics, **command.reported},
            event.usage,
            seconds,
            command.abandoned,
            event.execution,
            _brief(spent),
            tuple(command.reported),
        )
        self._began, self._stored_s = now, 0.0
        if self._store is not None:
            checkpoint = Checkpoint(command.round, command.state, self._snapshot())
            self._store.save(checkpoint, record, event.memories)
            self._stored_s = time.perf_counter() - now  # in the next round's seconds, too
        if self._watch is not None:
            self._watch(record)

    def _advance(self, event: Event | None) -> None:
        try:
            self.command: Command[Any] = next(self._program) if event is None else self._program.send(event)
        except StopIteration as stop:
            self._result.append(stop.value)


class Led(Driver[T]):
    """Leads a program step by step on a synchronous runtime."""

    def __init__(
        self,
        program: Program[T],
        runtime: Runtime,
        store: Store | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(program, runtime, store, watch)
        self._perform = runtime.perform

    def step(self) -> None:
        """Performs, or replays, one command."""
        if not self.replay():
            self.answer(self._perform(self.command))


def drive(program: Program[T], runtime: Runtime, store: Store | None = None, watch: Watch | None = None) -> T:
    """Leads a program to its end.

    Args:
      program: made from the store's checkpoint, where there is one.
      runtime: performs the commands; it is restored from the store.
      store: keeps the journal and the rounds; None: nothing is kept.
      watch: called after each round.

    Raises: ReplayError: if the program does not ask for the commands in the journal again.
    """
    led = Led(program, runtime, store, watch)
    while not led.done:
        led.step()
    return led.result


def _find_state(checkpoint: Checkpoint | None, entries: Iterable[Entry]) -> tuple[Any, list[Changes]]:
    """Returns the last snapshot of a runtime, and the changes after it."""
    snapshot, changes = None if checkpoint is None else checkpoint.runtime, list[Changes]()
    for entry in entries:
        if isinstance(entry.runtime, Changes):
            changes.append(entry.runtime)
        else:
            snapshot, changes = entry.runtime, []
    return snapshot, changes


def _is_same(command: Command[Any], entry: Entry) -> bool:
    """Returns whether this version or an earlier one wrote the entry for the command."""
    return entry.digest == digest(command) or entry.digest in (
        former_digest(command, 1),
        former_digest(command),
    )


def _brief(spent: Mapping[str, float]) -> dict[str, float]:
    """Rounds seconds to the digits that a store keeps, so that they are the same when they are read again."""
    return {what: round(seconds, 7) for what, seconds in spent.items()}
