"""A simulation by message passing: every client is an asyncio task that sees only bytes."""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from hanse.core import Declined, Keys, Memory, PartyId, Population, Program
from hanse.core.exchange import (
    Collect,
    Command,
    Commit,
    Committed,
    Dispatched,
    Driver,
    Event,
    NotReady,
    PartyMemory,
    Payload,
    Recall,
    Resumable,
    Settled,
    Store,
    Task,
    Watch,
    pack,
    unpack,
)
from hanse.simulation import (
    Answer,
    Devices,
    InProcess,
    Job,
    MemoryAt,
    Simulation,
    SimulationChanges,
    Snapshot,
    ideal,
)

__all__ = ["AsyncRuntime", "ClientTasks", "ConcurrentSimulation", "adrive"]

T = TypeVar("T")


class AsyncRuntime(Resumable):
    """Performs commands in an event loop."""

    @abstractmethod
    async def perform(self, command: Command[Any]) -> Event:
        """Does what the command asks, and answers with what happened."""


async def adrive(
    program: Program[T],
    runtime: AsyncRuntime,
    store: Store | None = None,
    watch: Watch | None = None,
) -> T:
    """Leads a program to its end in an event loop. See `hanse.core.exchange.runtime.drive`."""
    driver = Driver(program, runtime, store, watch)
    while not driver.done:
        if not driver.replay():
            driver.answer(await runtime.perform(driver.command))
    return driver.result


@dataclass(frozen=True)
class _Job:
    task: bytes
    payload: bytes
    reply: "asyncio.Future[bytes | Declined]"


@dataclass(frozen=True)
class _Settle:
    settled: Settled
    reply: "asyncio.Future[Mapping[PartyId, Memory]]"


async def _at_once() -> None:
    await asyncio.sleep(0)


class ClientTasks:
    """Runs clients as asyncio tasks, each started at its first message. An async context manager.

    Args:
      learner, population, keys: as for `InProcess`.
      recall: as for `PartyMemory`.
      pause: awaited before each computation; a random one shuffles the order of arrival.
    """

    def __init__(
        self,
        learner: Any,
        population: Population[Any],
        keys: Keys,
        recall: Recall | None = None,
        pause: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        self.memory: Final = PartyMemory(recall)
        self._backend, self._pause = InProcess(learner, population, keys), pause
        self._inboxes: dict[PartyId, asyncio.Queue[_Job | _Settle]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "ClientTasks":
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, task: Task, payload: bytes) -> "asyncio.Future[bytes | Declined]":
        """Sends a task to its client; returns a future of the packed message, or of why there is none."""
        reply: asyncio.Future[bytes | Declined] = asyncio.get_running_loop().create_future()
        self._inbox(task.party).put_nowait(_Job(pack(task), payload, reply))
        return reply

    async def settle(self, settled: Settled) -> Mapping[PartyId, Memory]:
        """Tells each client which of its tickets were counted, and returns the memories that changed."""
        replies = []
        for party, tickets in settled.items():
            reply: asyncio.Future[Mapping[PartyId, Memory]] = asyncio.get_running_loop().create_future()
            self._inbox(party).put_nowait(_Settle({party: tickets}, reply))
            replies.append(reply)
        return {party: memory for reply in replies for party, memory in (await reply).items()}

    def _inbox(self, party: PartyId) -> "asyncio.Queue[_Job | _Settle]":
        if party not in self._inboxes:
            self._inboxes[party] = asyncio.Queue()
            self._tasks.append(asyncio.create_task(self._live(self._inboxes[party])))
        return self._inboxes[party]

    async def _live(self, inbox: "asyncio.Queue[_Job | _Settle]") -> None:
        too_early: list[_Job] = []
        while True:
            item = await inbox.get()
            jobs = [item] if isinstance(item, _Job) else too_early
            if isinstance(item, _Settle):
                item.reply.set_result(self.memory.settle(item.settled))
                too_early = []
            for job in jobs:
                await self._pause()
                try:
                    message = self._compute(unpack(job.task, Task), unpack(job.payload, Payload))
                except NotReady:
                    too_early.append(job)
                except Declined as declined:
                    if not job.reply.done():
                        job.reply.set_result(declined)
                except Exception as error:
                    if not job.reply.done():
                        job.reply.set_exception(error)
                else:
                    if not job.reply.done():
                        job.reply.set_result(message)

    def _compute(self, task: Task, payload: Payload) -> bytes:
        message, fork = self._backend.compute_ticket(self.memory.at(task), task, payload)
        self.memory.keep(task, fork)
        return pack(message)


class _Arrived:
    """A backend that answers with the messages that have arrived. The tasks keep their own forks."""

    blocks_matter = False

    def __init__(self) -> None:
        self.messages: dict[int, bytes | Declined] = {}

    def __len__(self) -> int:
        return 1

    def ready(self, wait_s: float | None = 0.0) -> bool:
        return True

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        for job in jobs:
            ((_, task),) = job.places
            yield Answer(job, self.messages.pop(task.ticket), (), "")

    def settle(self, open_tickets: Collection[int]) -> None:
        """Does nothing: each message is handed on once."""

    def close(self) -> None:
        """Does nothing: the tasks end by themselves."""


class ConcurrentSimulation(AsyncRuntime):
    """Performs a program by message passing. `devices` decide who arrives first, as in `Simulation`.

    Args:
      clients: the tasks.
      num_clients, keys, devices, owner, first_ticket: as for `Simulation`.
      wait_s: how long a client may take to answer; a peer that is asked too early answers later.
    """

    def __init__(
        self,
        clients: ClientTasks,
        num_clients: int,
        keys: Keys,
        devices: Devices = ideal(),
        *,
        owner: PartyId = "server",
        first_ticket: int = 0,
        wait_s: float = 60.0,
    ) -> None:
        self._clients, self._wait_s = clients, wait_s
        self._arrived = _Arrived()
        self._replies: dict[int, asyncio.Future[bytes | Declined]] = {}
        self._sync = Simulation(
            self._arrived,
            num_clients,
            keys,
            devices,
            clients.memory,
            owner=owner,
            first_ticket=first_ticket,
            in_blocks=False,
        )

    def snapshot(self) -> Snapshot:
        return self._sync.snapshot()

    def changes(self) -> SimulationChanges:
        return self._sync.changes()

    def restore(self, snapshot: Snapshot | None, changes: Sequence[SimulationChanges] = ()) -> None:
        self._sync.restore(snapshot, changes)
        self._send(self._sync.coordinator.open_tickets())

    def _send(self, tickets: Iterable[int]) -> None:
        coordinator = self._sync.coordinator
        for ticket in tickets:
            self._replies[ticket] = self._clients.send(
                coordinator.task(ticket), coordinator.pack_payload(ticket)
            )

    async def perform(self, command: Command[Any]) -> Event:
        if isinstance(command, Collect):
            await self._hear(self._sync.waits_for(command))
        if isinstance(command, Commit):
            usage, settled = self._sync.coordinator.settle(not command.is_closed, command.again)
            for ticket in (t for counted, dropped in settled.values() for t in (*counted, *dropped)):
                self._arrived.messages.pop(ticket, None)
                self._replies.pop(ticket, None)
            return Committed(usage, await self._clients.settle(settled))
        event = self._sync.perform(command)
        if isinstance(event, Dispatched):
            self._send(event.tickets)
        return event

    async def _hear(self, tickets: Iterable[int]) -> None:
        for ticket in tickets:
            if ticket not in self._replies:
                continue
            try:
                message = await asyncio.wait_for(self._replies.pop(ticket), self._wait_s)
            except TimeoutError:
                party = self._sync.coordinator.task(ticket).party
                raise NotReady(
                    f"{party!r} did not answer ticket {ticket} within {self._wait_s:g} s"
                ) from None
            self._arrived.messages[ticket] = message
