"""One machine plays all parties, on a simulated clock."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

from hanse.core import (
    Examples,
    HanseError,
    Keys,
    Learner,
    Memory,
    MessageError,
    Part,
    PartyId,
    Population,
    Shared,
    Work,
    value,
)
from hanse.core.exchange import (
    Block,
    Collect,
    Collected,
    Command,
    Commit,
    Committed,
    Coordinator,
    CoordinatorState,
    Decode,
    Dispatch,
    Dispatched,
    Event,
    Fork,
    Forks,
    Message,
    NotReady,
    Payload,
    Runtime,
    Sample,
    Task,
    check_parts,
    encode,
    held_bytes,
    pack,
    run_work,
)
from hanse.simulation.blocks import Folding, Place, Timer, Together, cut_aligned_blocks
from hanse.simulation.devices import Devices, ideal

__all__ = ["Clients", "Simulation"]


BLOCK_HEIGHT = 6
"""At most 2^6 clients are folded together."""


@value
class Snapshot:
    """The point from which a simulation goes on: coordinator, clock, times of arrival, forks of memory."""

    coordinator: CoordinatorState
    clock_s: float
    due_s: Mapping[int, float | None]
    forks: Mapping[PartyId, Mapping[int, Fork]]


Settled: TypeAlias = Mapping[PartyId, tuple[tuple[int, ...], tuple[int, ...]]]
"""For each party, its tickets of a round: the counted ones, and the dropped ones."""


class ClientSide(Protocol):
    """The interface of a simulation to whatever plays the clients."""

    def expect(self, tasks: Iterable[tuple[Task, Payload]]) -> None:
        """Announces the tickets that will be asked for next, in about this order."""

    def compute(self, task: Task, payload: Payload) -> bytes:
        """Performs a ticket and returns the packed message."""

    def fold(self, places: Sequence[Place], payload: Payload) -> Iterator[Block] | None:
        """Performs tickets of one dispatch and folds their contributions; None: they send messages."""

    def describe_execution(self) -> str:
        """Says how clients were computed since the last call."""

    def settle(self, settled: Settled) -> Mapping[PartyId, Memory]:
        """Ends a round and returns the memories that changed."""

    def forks(self, tasks: Iterable[Task]) -> Mapping[PartyId, Mapping[int, Fork]]:
        """Returns the forks of memory of these tickets."""

    def restore(self, forks: Mapping[PartyId, Mapping[int, Fork]]) -> None:
        """Restores saved forks."""


def add_ticket_note(error: Exception, task: Task, payload: Payload) -> None:
    """Adds a note to an error that says whose ticket led to it."""
    error.add_note(f"while {task.party!r} performed {payload.work} (ticket {task.ticket})")


KEPT_BYTES = 64 * 2**20
"""The most bytes of clients' memory that are kept here, if they can be recalled."""


def nothing(party: PartyId) -> Memory:
    """Recalls no memory: nothing is kept elsewhere."""
    return {}


class Clients:
    """The clients' side: computes tickets and keeps each client's memory.

    Args:
      learner: the model, on one engine.
      population: the clients' data.
      keys: each client folds its number into the secret one.
      recall: gives a client's committed memory when it is needed and not here; without it, all is kept here.
      together: whether several are computed at once where a work can; None: where that is faster.
    """

    def __init__(
        self,
        learner: Learner,
        population: Population,
        keys: Keys,
        recall: Callable[[PartyId], Memory] = nothing,
        *,
        together: bool | None = None,
    ) -> None:
        self._learner, self._population, self._recall = learner, population, recall
        self._together = getattr(learner, "together", False) if together is None else together
        self.blocks_matter: Final[bool] = self._together and getattr(learner, "rounds_together", False)
        """Returns whether results depend on which clients share a block: then no clock may decide it."""
        self._secret = keys.secret.fold_in("clients")
        self._forks: dict[PartyId, Forks] = {}
        self._held: dict[PartyId, int] = {}
        self._joint: Together | None = None
        self._timer = Timer()

    def expect(self, tasks: Iterable[tuple[Task, Payload]]) -> None:
        """Does nothing: each ticket is computed when it is asked for."""

    def compute(self, task: Task, payload: Payload) -> bytes:
        """Performs a ticket and keeps the fork of memory that it leads to."""
        message, fork = self.compute_from(self.memory(task), task, payload)
        self.keep(task, fork)
        return message

    def compute_from(self, before: Memory, task: Task, payload: Payload) -> tuple[bytes, Fork]:
        """Performs a ticket from given memory, and keeps nothing."""
        message, fork = self._compute_ticket(before, task, payload)
        return pack(message), fork

    def _compute_ticket(self, before: Memory, task: Task, payload: Payload) -> tuple[Message, Fork]:
        timer, party = self._timer, task.party
        secret = self._secret.fold_in(party, task.ticket)
        try:
            data = self._data(party)
            timer.book("data")
            parts, own = run_work(task, payload, self._learner, data, before, secret)
            timer.book("compute")
            message, memory = encode(task, payload, parts, own, before, secret)
            timer.book("encode")
        except Exception as error:
            add_ticket_note(error, task, payload)
            raise
        return message, Fork.between(task.after, before, memory)

    def fold(self, places: Sequence[Place], payload: Payload) -> Iterator[Block]:
        """Performs tickets of one dispatch and folds their contributions."""
        for some in cut_aligned_blocks(places, BLOCK_HEIGHT):
            yield self.fold_block(some, payload)

    def fold_block(self, places: Sequence[Place], payload: Payload) -> Block:
        """Performs the tickets of one block and folds their contributions."""
        block, forks = self.fold_from([self.memory(task) for _, task in places], places, payload)
        self.keep_all(places, forks)
        return block

    def keep_all(self, places: Sequence[Place], forks: Sequence[Fork]) -> None:
        """Keeps the forks that tickets led to; no forks: nothing changed."""
        for (_, task), fork in zip(places, forks, strict=bool(forks)):
            self.keep(task, fork)

    def fold_from(
        self, before: Sequence[Memory], places: Sequence[Place], payload: Payload
    ) -> tuple[Block, Sequence[Fork]]:
        """Performs and folds tickets from given memories, and keeps nothing. No forks: no memory changed."""
        failed: Exception | None = None
        if self._together and len(places) > 1:
            try:
                found = self._fold_together(before, places, payload)
            except Exception as error:
                failed = error
            else:
                if found is not None:
                    return found
        folded = self._fold_each(
            before, places, payload
        )  # names the client whose error it is, if it is one's
        if failed is not None:
            failed.add_note(
                f"while {payload.work} was performed together; one by one it succeeds: execution=sequential()"
            )
            raise failed
        return folded

    def _fold_each(
        self, before: Sequence[Memory], places: Sequence[Place], payload: Payload
    ) -> tuple[Block, Sequence[Fork]]:
        """Performs and folds tickets one by one."""
        folding, forks, timer = Folding(payload), list[Fork](), Timer()
        self._timer = timer
        for memory, (position, task) in zip(before, places, strict=True):
            message, fork = self._compute_ticket(memory, task, payload)
            folding.add(position, task, message)
            timer.book("fold")
            forks.append(fork)
        return replace(folding.block(), spent=timer.spent), forks

    def _fold_together(
        self, before: Sequence[Memory], places: Sequence[Place], payload: Payload
    ) -> tuple[Block, Sequence[Fork]] | None:
        """Performs and folds tickets at once; None: that is not possible."""
        if payload.broadcasts:
            return None  # each client reads the version that it holds
        if type(payload.work).many is Work.many:
            return None
        if any(chain.stages and chain.stages[0].within is not None for chain in payload.chains.values()):
            return None
        if self._joint is None or self._joint.payload is not payload:
            self._joint = Together(payload)
        timer = Timer()
        data = [self._data(task.party) for _, task in places]
        timer.book("data")
        keys = [task.key.fold_in("work") for _, task in places]
        parts = payload.work.many(self._learner, Shared(payload.frozen), data, keys)
        if parts is None:
            return None
        timer.book("compute")
        check_parts(payload, parts)
        if self._joint.possible:
            block = self._joint.block(places, parts)
            timer.book("fold")
            return None if block is None else (replace(block, spent=timer.spent), ())
        folding, forks = Folding(payload), list[Fork]()
        for i, (position, task) in enumerate(places):
            own = {
                name: Part({n: v[i] for n, v in several.values.items()}, float(several.weights[i]))
                for name, several in parts.items()
            }
            secret = self._secret.fold_in(task.party, task.ticket)
            message, memory = encode(task, payload, own, before[i], before[i], secret)
            timer.book("encode")
            folding.add(position, task, message)
            timer.book("fold")
            forks.append(Fork.between(task.after, before[i], memory))
        return replace(folding.block(), together=True, spent=timer.spent), forks

    def _data(self, party: PartyId) -> Examples:
        if isinstance(party, int):
            return self._population.client(party)
        return self._population.role(party)

    def memory(self, task: Task) -> Memory:
        """Returns the memory that a ticket continues."""
        known = self._forks.get(task.party)
        if known is None:
            memory = self._recall(task.party)
            if not memory:
                return memory
            known = self._forks[task.party] = Forks(memory)
        return known.at(task.after)

    def keep(self, task: Task, fork: Fork) -> None:
        """Keeps the fork that a ticket led to until it is settled."""
        if fork.changed or fork.removed or fork.after is not None:
            self._forks_of(task.party).keep(task.ticket, fork)

    def _forks_of(self, party: PartyId) -> Forks:
        if party not in self._forks:
            self._forks[party] = Forks(self._recall(party))
        return self._forks[party]

    def describe_execution(self) -> str:
        """Says how clients were computed since the last call: see `AdaptiveClients`."""
        return ""

    def settle(self, settled: Settled) -> Mapping[PartyId, Memory]:
        """Commits and drops forks, and returns the memories that changed."""
        changed: dict[PartyId, Memory] = {}
        for party, (counted, dropped) in settled.items():
            forks = self._forks.get(party)
            if forks is None:
                continue  # nothing was kept for it
            if forks.settle(counted, dropped):
                changed[party] = forks.committed
            elif not forks.committed and not forks.forks:
                del self._forks[party]
        if self._recall is not nothing:
            self._let_go(settled)
        return changed

    def _let_go(self, settled: Iterable[PartyId]) -> None:
        """Bounds the memory kept here: that of clients heard longest ago is recalled when it is needed."""
        for party in settled:
            forks = self._forks.pop(party, None)
            if forks is None:
                self._held.pop(party, None)
            else:
                self._forks[party] = forks  # now the last
                self._held[party] = held_bytes(forks.committed)
        excess = sum(self._held.values()) - KEPT_BYTES
        for party in list(self._forks):
            if excess <= 0:
                break
            if not self._forks[party].forks:
                del self._forks[party]
                excess -= self._held.pop(party, 0)

    def forks(self, tasks: Iterable[Task]) -> Mapping[PartyId, Mapping[int, Fork]]:
        """Returns the forks of those tickets that were computed and are not settled yet."""
        kept: dict[PartyId, dict[int, Fork]] = {}
        for task in tasks:
            own = self._forks.get(task.party)
            if own is not None and task.ticket in own.forks:
                kept.setdefault(task.party, {})[task.ticket] = own.forks[task.ticket]
        return kept

    def restore(self, forks: Mapping[PartyId, Mapping[int, Fork]]) -> None:
        """Restores saved forks; committed memory is recalled when needed."""
        for party, own in forks.items():
            self._forks_of(party).forks.update(own)


class Simulation(Runtime):
    """Performs a program in this process, client by client; a ticket is computed when it is collected.

    Args:
      clients: the side that computes tickets.
      num_clients: the number of registered clients.
      keys: the server's keys.
      devices: how long tickets take on the simulated clock.
      owner, first_ticket: see `Coordinator`; for programs that peers perform.
    """

    def __init__(
        self,
        clients: ClientSide,
        num_clients: int,
        keys: Keys,
        devices: Devices = ideal(),
        *,
        owner: PartyId = "server",
        first_ticket: int = 0,
    ) -> None:
        self._clients, self._devices = clients, devices
        self.coordinator: Final = Coordinator(
            num_clients, keys.secret.fold_in("server"), owner=owner, first_ticket=first_ticket
        )
        self._clock_s = 0.0
        self._due_s: dict[int, float | None] = {}
        self._spent: dict[str, float] = {}

    def snapshot(self) -> Snapshot:
        state = self.coordinator.snapshot()
        forks = self._clients.forks(ticket.task for ticket in state.tickets.values())
        return Snapshot(state, self._clock_s, dict(self._due_s), forks)

    def restore(self, snapshot: Snapshot) -> None:
        self.coordinator.restore(snapshot.coordinator)
        self._clock_s, self._due_s = snapshot.clock_s, dict(snapshot.due_s)
        self._clients.restore(snapshot.forks)

    def perform(self, command: Command[Any]) -> Event:
        match command:
            case Sample():
                return self.coordinator.sample(command)
            case Dispatch():
                return self._dispatch(command)
            case Collect():
                return self._collect(command)
            case Decode():
                return self.coordinator.decode(command)
            case Commit():
                usage, settled = self.coordinator.settle(command.abandoned is not None)
                execution, spent = self._clients.describe_execution(), self._spent
                self._spent = {}
                return Committed(usage, self._clients.settle(settled), execution, spent)
            case _:
                raise HanseError(f"the simulation can't perform a {type(command).__name__}")

    def _dispatch(self, command: Dispatch) -> Dispatched:
        dispatched = self.coordinator.dispatch(command)
        for ticket in dispatched.tickets:
            task = self.coordinator.task(ticket)
            self._due_s[ticket] = self._arrives_s(task)
        return dispatched

    def _arrives_s(self, task: Task) -> float | None:
        """Returns when a ticket is answered; a client's tickets run in order, and a role's take no time."""
        takes_s = 0.0
        if isinstance(task.party, int):
            key = task.key.fold_in("device") if self._devices.draws else task.key
            drawn = self._devices.duration_s(task.party, key)
            if drawn is None:
                return None
            takes_s = drawn
        begins_s = self._due_s.get(task.after, self._clock_s) if task.after is not None else self._clock_s
        return None if begins_s is None else max(begins_s, self._clock_s) + takes_s

    def _collect(self, command: Collect) -> Collected:
        asked = self.waits_for(command)
        wait_s = command.close.deadline_s
        deadline_s = math.inf if wait_s is None else self._clock_s + wait_s
        due_s = {n: due for n in asked if (due := self._due_s[n]) is not None and due <= deadline_s}
        dropped = {n: "it dropped out" for n in asked if self._due_s[n] is None}
        goal = command.close.goal
        everyone = len(due_s) == len(asked) or math.isinf(deadline_s)
        closed_s = max(due_s.values(), default=self._clock_s) if everyone else deadline_s
        arrived: Iterable[tuple[int, Message] | Block]
        before = self.coordinator.snapshot()
        try:
            if goal is not None and goal <= len(due_s):
                fastest = sorted(due_s, key=lambda n: (due_s[n], n))
                first = dict(islice(self._arrivals(fastest, dropped), goal))
                arrived = [(n, first[n]) for n in asked if n in first]
                taken = first.keys() | dropped.keys()
                if len(first) == goal:
                    closed_s = max(due_s[n] for n in first)
            else:
                arrived = self._blocks(command, asked, list(due_s), dropped)
                taken = due_s.keys() | dropped.keys()
            if command.tickets is not None:
                dropped.update({n: "it was too late" for n in asked if n not in taken})
            collected = self.coordinator.fold(command, arrived, dropped)
        except NotReady:
            self.coordinator.restore(before)
            raise
        self._pass_time(closed_s)
        return collected

    def waits_for(self, command: Collect) -> list[int]:
        """Returns the tickets that a Collect may count."""
        return [
            ticket for ticket in self.coordinator.open_tickets(command) if self.coordinator.is_open(ticket)
        ]

    def _blocks(
        self, command: Collect, asked: Sequence[int], tickets: list[int], dropped: dict[int, str]
    ) -> Iterator[tuple[int, Message] | Block]:
        """Computes tickets that are all folded, in blocks if possible."""
        blocks = None
        if tickets and self.coordinator.can_fold_in_blocks(command, tickets):
            payload, due = self.coordinator.payload(tickets[0]), set(tickets)
            places = [(i, self.coordinator.task(n)) for i, n in enumerate(asked) if n in due]
            blocks = self._clients.fold(places, payload)
        if blocks is None:
            yield from self._arrivals(tickets, dropped)
            return
        began, worked_s, spent = time.perf_counter(), 0.0, dict[str, float]()
        for block in blocks:
            worked_s += time.perf_counter() - began
            for what, seconds in block.spent.items():
                spent[what] = spent.get(what, 0.0) + seconds
            dropped.update(block.refused)
            yield block
            began = time.perf_counter()
        share = min(1.0, worked_s / max(sum(spent.values()), 1e-9))  # workers spend seconds side by side
        for what, seconds in spent.items():
            self._spent[what] = self._spent.get(what, 0.0) + seconds * share

    def _arrivals(self, tickets: Iterable[int], dropped: dict[int, str]) -> Iterator[tuple[int, Message]]:
        """Computes tickets one by one; tickets whose messages are refused are added to `dropped`."""
        tickets = list(tickets)
        self._clients.expect(
            (self.coordinator.task(ticket), self.coordinator.payload(ticket)) for ticket in tickets
        )
        for ticket in tickets:
            data = self._clients.compute(self.coordinator.task(ticket), self.coordinator.payload(ticket))
            try:
                message = self.coordinator.receive(ticket, data)
            except MessageError as error:
                dropped[ticket] = str(error)
            else:
                yield ticket, message

    def _pass_time(self, until_s: float) -> None:
        if until_s > self._clock_s:
            self.coordinator.add_virtual_seconds(until_s - self._clock_s)
            self._clock_s = until_s
        self._due_s = {n: due for n, due in self._due_s.items() if self.coordinator.is_open(n)}
