"""Runtimes perform commands; drivers lead a program through one and keep its journal.

The two drivers are the same few lines, with and without `await`. A program that was cut is led again
from its last checkpoint: the journal answers the commands that were performed already, and stops
loudly at the first that differs.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Generic, TypeAlias, TypeVar

from hanse.core.errors import ReplayError
from hanse.core.program import Command, Commit, Committed, Event, Program, Usage
from hanse.core.values import digest, pack, unpack, value
from hanse.core.work import Memory, PartyId

__all__ = [
    "AsyncRuntime",
    "Checkpoint",
    "Entry",
    "InMemory",
    "Led",
    "Record",
    "Runtime",
    "Store",
    "Watch",
    "adrive",
    "drive",
]

T = TypeVar("T")


class _Resumable(ABC):
    @abstractmethod
    def snapshot(self) -> Any:
        """A value from which `restore` goes on: tickets in flight, forks of memory, the clock."""

    @abstractmethod
    def restore(self, snapshot: Any) -> None:
        """Goes on from a snapshot."""


class Runtime(_Resumable):
    """Performs commands, one after the other."""

    @abstractmethod
    def perform(self, command: Command[Any]) -> Event:
        """Does what is asked and answers with what happened."""


class AsyncRuntime(_Resumable):
    """Performs commands in an event loop."""

    @abstractmethod
    async def perform(self, command: Command[Any]) -> Event:
        """Does what is asked and answers with what happened."""


@value
class Record:
    """What is remembered of one round.

    Args:
      metrics: the program's.
      seconds: of wall-clock time.
      way: how clients were computed, such as "2 workers".
      spent: seconds of those by what they went to; of work that was done in parallel, its share. What is
        missing in the sum is the framework's.
    """

    round: int
    metrics: Mapping[str, float]
    usage: Usage
    seconds: float
    abandoned: str | None = None
    way: str = field(default="", compare=False)
    spent: Mapping[str, float] = field(default_factory=dict, compare=False)


@value
class Checkpoint:
    """From where a run goes on: the program's state after a round, and the runtime's snapshot."""

    round: int
    state: Any
    runtime: Any


@value
class Entry:
    """One command of the round that is not over: its digest, the event, and the runtime after it."""

    digest: str
    event: Event
    runtime: Any


class Store(ABC):
    """What one run keeps. `save` is one transaction: round, state and memories, all or nothing.

    A store may keep what it is handed for a while before it writes it: it must not be changed later.
    """

    @abstractmethod
    def checkpoint(self) -> Checkpoint | None:
        """The last one saved."""

    @abstractmethod
    def journal(self) -> tuple[Entry, ...]:
        """The entries since then."""

    @abstractmethod
    def memory(self, party: PartyId) -> Memory:
        """The last committed memory of a client; empty if none."""

    @abstractmethod
    def append(self, entry: Entry) -> None:
        """Adds to the journal."""

    @abstractmethod
    def save(self, checkpoint: Checkpoint, record: Record, memories: Mapping[PartyId, Memory]) -> None:
        """Saves a round and empties the journal."""


class InMemory(Store):
    """Keeps packed bytes in this process: for tests, and for runs that nobody wants to resume."""

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


Watch: TypeAlias = Callable[[Record], None]
"""Called after each round."""


class _Led(Generic[T]):
    """A program on its way: the next command, and the journal of those that were performed."""

    def __init__(
        self,
        program: Program[T],
        runtime: _Resumable,
        store: Store | None,
        watch: Watch | None = None,
    ) -> None:
        self._program, self._snapshot, self._store, self._watch = (
            program,
            runtime.snapshot,
            store,
            watch,
        )
        self._left: deque[Entry] = deque(store.journal() if store else ())
        checkpoint = store.checkpoint() if store else None
        if self._left:
            runtime.restore(self._left[-1].runtime)
        elif checkpoint is not None:
            runtime.restore(checkpoint.runtime)
        self._result: list[T] = []
        self._began, self._stored_s = time.perf_counter(), 0.0
        self._advance(None)

    @property
    def done(self) -> bool:
        """Whether the program has ended."""
        return bool(self._result)

    @property
    def result(self) -> T:
        """What it returned."""
        return self._result[0]

    def replay(self) -> bool:
        """Answers the next command from the journal, if it was performed before the cut."""
        if not self._left:
            return False
        entry = self._left.popleft()
        if isinstance(self.command, Commit) or digest(self.command) != entry.digest:
            raise ReplayError(
                f"the program now asks for a {type(self.command).__name__} that differs from what the "
                "journal holds; resume with the program, data and versions that the run began with"
            )
        self._advance(entry.event)
        return True

    def answer(self, event: Event) -> None:
        """Keeps what the performed command led to, and goes on to the next."""
        if isinstance(self.command, Commit):
            assert isinstance(event, Committed)
            self._save(self.command, event)
        elif self._store is not None:
            began = time.perf_counter()
            self._store.append(Entry(digest(self.command), event, self._snapshot()))
            self._stored_s += time.perf_counter() - began
        self._advance(event)

    def _save(self, command: Commit, event: Committed) -> None:
        now = time.perf_counter()
        seconds, spent = now - self._began, dict(event.spent)
        if self._store is not None:
            spent["store"] = self._stored_s
        record = Record(
            command.round, command.metrics, event.usage, seconds, command.abandoned, event.way, _brief(spent)
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


class Led(_Led[T]):
    """A program that is led step by step on a synchronous runtime."""

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

    Raises: ReplayError: if the program does not ask again for what the journal holds.
    """
    led = Led(program, runtime, store, watch)
    while not led.done:
        led.step()
    return led.result


async def adrive(
    program: Program[T],
    runtime: AsyncRuntime,
    store: Store | None = None,
    watch: Watch | None = None,
) -> T:
    """Leads a program to its end in an event loop. See `drive`."""
    led = _Led(program, runtime, store, watch)
    while not led.done:
        if not led.replay():
            led.answer(await runtime.perform(led.command))
    return led.result


def _brief(spent: Mapping[str, float]) -> dict[str, float]:
    """Seconds in so many digits as a store keeps, so that they are the same when they are read again."""
    return {what: round(seconds, 7) for what, seconds in spent.items()}
