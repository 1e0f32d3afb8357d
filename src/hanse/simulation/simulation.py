"""One machine plays all parties, on a simulated clock."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import islice
from typing import Any, Final

from hanse.core import (
    Declined,
    HanseError,
    Keys,
    Memory,
    MessageError,
    PartyId,
    Stalled,
    value,
)
from hanse.core.exchange import (
    Block,
    Changes,
    Collect,
    Collected,
    Command,
    Commit,
    Committed,
    Coordinator,
    CoordinatorChanges,
    CoordinatorState,
    Decode,
    Dispatch,
    Dispatched,
    Edits,
    Event,
    Fork,
    LeaveOut,
    Message,
    PartyMemory,
    Runtime,
    Sample,
    Task,
    Tracked,
    explain_decline,
    explain_orphan,
)
from hanse.simulation.backend import Answer, ClientBackend, Job
from hanse.simulation.clock import Clock, ClockState
from hanse.simulation.devices import Devices, ideal
from hanse.simulation.in_process import ONE_PROCESS

__all__ = ["Simulation", "SimulationChanges", "Snapshot"]

MAX_RETURNS = 100
"""The number of times that a party may drop out of a ticket for which an exchange waits."""


@value
class Snapshot:
    """The point from which a simulation goes on: coordinator, clock, times of arrival, forks and promises."""

    coordinator: CoordinatorState
    clock_s: float
    due_s: Mapping[int, float | None]
    forks: Mapping[PartyId, Mapping[int, Fork]]
    promises: Mapping[PartyId, Memory] = field(default_factory=dict)
    links: ClockState | None = None


@value
class SimulationChanges(Changes):
    """The changes to a `Snapshot`; forks are those of the tickets that were closed."""

    coordinator: CoordinatorChanges
    clock_s: float
    due_s: Edits
    forks: Mapping[PartyId, Mapping[int, Fork]]
    promises: Mapping[PartyId, Memory] = field(default_factory=dict)
    links: ClockState | None = None


class Simulation(Runtime):
    """Performs a program; a ticket is computed when it is collected.

    Args:
      backend: computes tickets.
      num_clients: the number of registered clients.
      keys: the server's keys.
      devices: how long tickets take on the simulated clock.
      memory: the clients' memory, which the simulations of several peers share; None: all begin with none.
      owner, first_ticket: see `Coordinator`; for programs that peers perform.
      in_blocks: whether contributions may be folded where they are computed; otherwise clients send messages.
      parties: the names of parties that are members, with devices of their own and messages that cost bytes.
        All other roles are the server's.
      num_examples: gives the number of examples that a party works on; devices with a speed need it.
    """

    def __init__(
        self,
        backend: ClientBackend,
        num_clients: int,
        keys: Keys,
        devices: Devices = ideal(),
        memory: PartyMemory | None = None,
        *,
        owner: PartyId = "server",
        first_ticket: int = 0,
        in_blocks: bool = True,
        parties: Collection[str] = (),
        num_examples: Callable[[PartyId], int] = lambda party: 0,
    ) -> None:
        self._backend, self._devices, self.in_blocks = backend, devices, in_blocks
        self.memory: Final = PartyMemory() if memory is None else memory
        self.coordinator: Final = Coordinator(
            num_clients,
            keys.secret.fold_in("server"),
            owner=owner,
            first_ticket=first_ticket,
            parties=frozenset(parties),
        )
        conditions = devices.conditions()
        self._links = None if conditions is None else Clock(conditions, keys.public.fold_in("devices"))
        self._num_examples = num_examples
        self._heard: dict[int, bytes | Declined] = {}
        self._sizes: dict[int, int] = {}
        self._clock_s = 0.0
        self._due_s: Tracked[int, float | None] = Tracked()
        self._spent: dict[str, float] = {}
        self._executions: dict[str, None] = {}

    def snapshot(self) -> Snapshot:
        state = self.coordinator.snapshot()
        links = None if self._links is None else self._links.snapshot()
        kept = self.memory.snapshot(state.holders)
        return Snapshot(state, self._clock_s, dict(self._due_s), *kept, links=links)

    def changes(self) -> SimulationChanges:
        changes = self.coordinator.changes()
        kept = self.memory.changes(changes.holders)
        links = None if self._links is None else self._links.snapshot()
        return SimulationChanges(changes, self._clock_s, self._due_s.take_edits(), *kept, links=links)

    def restore(self, snapshot: Snapshot | None, changes: Sequence[SimulationChanges] = ()) -> None:
        snapshot = self.snapshot() if snapshot is None else snapshot
        self.coordinator.restore(snapshot.coordinator.apply(each.coordinator for each in changes))
        self._clock_s, due_s = snapshot.clock_s, dict(snapshot.due_s)
        self.memory.restore([snapshot, *changes])
        for each in changes:
            self._clock_s = each.clock_s
            each.due_s.apply(due_s)
        self._due_s = Tracked(due_s)
        self._heard, self._sizes = {}, {}
        if self._links is not None:
            links = changes[-1].links if changes else snapshot.links
            self._links.restore(links or ClockState())

    def perform(self, command: Command[Any]) -> Event:
        match command:
            case Sample():
                return self.coordinator.sample(command, self._await_cohort(command))
            case Dispatch():
                return self._dispatch(command)
            case Collect():
                return self._collect(command)
            case Decode():
                return self.coordinator.decode(command)
            case LeaveOut():
                return self.coordinator.leave_out(command)
            case Commit():
                usage, settled = self.coordinator.settle(not command.is_closed, command.again)
                self._backend.settle(self.coordinator.open_tickets())
                if self._links is not None:
                    usage = replace(usage, times=self._links.end_round(self._clock_s))
                self._due_s.take_edits()
                execution, spent = "; then ".join(self._executions), self._spent
                self._executions, self._spent = {}, {}
                return Committed(usage, self.memory.settle(settled), execution, spent)
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
        if self._has_device(task.party) and self._links is not None:
            return self._begin(self._links, task)
        if self._has_device(task.party):
            key = task.key.fold_in("device") if self._devices.draws else task.key
            drawn = self._devices.duration_s(task.party, key)
            if drawn is None:
                return None
            takes_s = drawn
        begins_s = self._due_s.get(task.after, self._clock_s) if task.after is not None else self._clock_s
        return None if begins_s is None else max(begins_s, self._clock_s) + takes_s

    def _begin(self, links: Clock, task: Task) -> float | None:
        """Returns when the computation of a ticket ends."""
        if task.after is not None and self._due_s.get(task.after, 0.0) is None:
            return None
        key, num_bytes = task.key.fold_in("device"), self.coordinator.measure_download(task.ticket)
        times = links.begin(task.ticket, task.party, key, num_bytes, self._cost(task), self._clock_s)
        if self._devices.drops_out(key):
            links.drop_out(task.ticket)
            return None
        return times.computed_s

    def _cost(self, task: Task) -> float:
        return self.coordinator.payload(task.ticket).work.cost(self._num_examples(task.party))

    def _await_cohort(self, command: Sample) -> frozenset[PartyId]:
        """Waits until enough clients are available; returns those that are not."""
        if self._links is None or self._links.is_always_open or command.count == 0:
            return frozenset()
        busy = {self.coordinator.task(ticket).party for ticket in self.coordinator.open_tickets()}
        out = busy | set(command.without)
        order = command.key.fold_in("available").rng().permutation(self.coordinator.num_clients)
        free = [client for client in order.tolist() if client not in out]
        wanted, finds_all = command.size(self.coordinator.num_clients), command.rate is not None
        until_s, away = self._links.await_parties(free, wanted, self._clock_s, finds_all=finds_all)
        self._pass_time(until_s)
        return frozenset(away)

    def _has_device(self, party: PartyId) -> bool:
        return isinstance(party, int) or party in self.coordinator.parties

    def _await_parties(self, tickets: Iterable[int]) -> None:
        """Lets parties that dropped out come back, at once, and begin their tickets anew.

        Raises: Stalled: if one drops out again and again.
        """
        for task in (self.coordinator.task(ticket) for ticket in tickets if self._due_s[ticket] is None):
            if self._links is not None and self._has_device(task.party):
                key, size = task.key.fold_in("device"), self.coordinator.measure_download(task.ticket)
                again = self._links.begin_again(
                    task.ticket, task.party, key, size, self._cost(task), self._clock_s
                )
                self._due_s[task.ticket] = again.computed_s
                continue
            returns = (task.key.fold_in("device", "again", n) for n in range(MAX_RETURNS))
            drawn_s = (self._devices.duration_s(task.party, key) for key in returns)
            takes_s = next((seconds for seconds in drawn_s if seconds is not None), None)
            if takes_s is None:
                raise Stalled(f"{task.party!r} dropped out {MAX_RETURNS} times in a row of one ticket")
            self._due_s[task.ticket] = self._clock_s + takes_s

    def _collect(self, command: Collect) -> Collected:
        self.coordinator.check(command)
        asked = self.waits_for(command)
        if command.close.wait_s is not None:
            self._await_parties(asked)
        if self._links is not None:
            return self._collect_timed(self._links, command, asked)
        wait_s = command.close.deadline_s
        deadline_s = math.inf if wait_s is None else self._clock_s + wait_s
        due_s = {n: due for n in asked if (due := self._due_s[n]) is not None and due <= deadline_s}
        dropped = {n: "it dropped out" for n in asked if self._due_s[n] is None}
        goal = command.close.goal
        everyone = len(due_s) == len(asked) or math.isinf(deadline_s)
        closed_s = max(due_s.values(), default=self._clock_s) if everyone else deadline_s
        arrived: Iterable[tuple[int, Message] | Block]
        with self.coordinator.hearing():
            if goal is not None and goal <= len(due_s):
                fastest = sorted(due_s, key=lambda n: (due_s[n], n))
                first = dict(islice(self._arrivals(fastest, dropped, goal), goal))
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
        self._pass_time(closed_s)
        return collected

    def _collect_timed(self, links: Clock, command: Collect, asked: Sequence[int]) -> Collected:
        """Closes a Collect whose messages arrive when links let them, which depends on their sizes."""
        goal, wait_s = command.close.goal, command.close.deadline_s
        deadline_s = math.inf if wait_s is None else self._clock_s + wait_s
        dropped = {n: "it dropped out" for n in asked if self._due_s[n] is None}
        roles = {n: due for n in asked if (due := self._due_s[n]) is not None and not self._is_timed(n)}
        timed = [n for n in asked if n not in dropped and n not in roles]
        arrived: Iterable[tuple[int, Message] | Block]
        is_everybody = goal is None and wait_s is None
        with self.coordinator.hearing():
            if is_everybody:
                arrived = self._blocks(command, asked, [n for n in asked if n not in dropped], dropped)
                taken = set(asked)
            else:
                arrived, closed_s = self._first_arrivals(links, timed, roles, dropped, goal, deadline_s)
                taken = {n for n, _ in arrived} | dropped.keys()
            if command.tickets is not None:
                dropped.update({n: "it was too late" for n in asked if n not in taken})
            collected = self.coordinator.fold(command, arrived, dropped)
        if is_everybody:
            due_s = {**roles, **links.upload(timed, lambda n: self._sizes.get(n, 0), lambda _: math.inf)}
            closed_s = max([*due_s.values(), links.left_s(dropped), self._clock_s])
        self._pass_time(closed_s)
        return collected

    def _is_timed(self, ticket: int) -> bool:
        return self._has_device(self.coordinator.task(ticket).party)

    def _first_arrivals(
        self,
        links: Clock,
        timed: Sequence[int],
        roles: Mapping[int, float],
        dropped: dict[int, str],
        goal: int | None,
        deadline_s: float,
    ) -> tuple[list[tuple[int, Message]], float]:
        """Returns the messages that arrive until enough did, and when that is. Refused ones fill no goal."""
        messages: dict[int, Message] = {}
        while True:

            def find_end(found: Mapping[int, float]) -> float:
                good = sorted(s for n, s in {**roles, **found}.items() if n not in dropped)
                return min(deadline_s, good[goal - 1] if goal is not None and goal <= len(good) else math.inf)

            due_s = {**roles, **links.upload(timed, self._hear, find_end)}
            closed_s = find_end(due_s)
            in_time = [n for n, due in due_s.items() if due <= closed_s and n not in dropped]
            in_time = sorted(in_time, key=lambda n: (due_s[n], n))[:goal]
            new = [n for n in in_time if n not in messages]
            for ticket in new:
                self._hear(ticket)
            messages.update(self._arrivals(new, dropped))
            if all(n in messages for n in in_time):
                break
        everyone = len(in_time) == len(timed) + len(roles) and math.isinf(closed_s)
        if math.isinf(closed_s) or everyone:
            closed_s = max([due_s[n] for n in in_time], default=self._clock_s)
            closed_s = max(closed_s, links.left_s(dropped))
        return [(n, messages[n]) for n in sorted(in_time)], closed_s

    def _hear(self, ticket: int) -> int:
        """Computes a ticket, keeps its message until it is taken, and returns the bytes of it."""
        if ticket not in self._heard:
            job = Job([(0, self.coordinator.task(ticket))], self.coordinator.payload(ticket), folded=False)
            for answer in self._compute([job]):
                assert isinstance(answer.result, bytes | Declined)
                self._heard[ticket] = answer.result
        heard = self._heard[ticket]
        return 0 if isinstance(heard, Declined) else len(heard)

    def waits_for(self, command: Collect) -> list[int]:
        """Returns the tickets that a Collect may count."""
        return [
            ticket for ticket in self.coordinator.open_tickets(command) if self.coordinator.is_open(ticket)
        ]

    def _blocks(
        self, command: Collect, asked: Sequence[int], tickets: list[int], dropped: dict[int, str]
    ) -> Iterator[tuple[int, Message] | Block]:
        """Computes tickets that are all folded, in blocks if possible."""
        if not (tickets and self.in_blocks and self.coordinator.can_fold_in_blocks(command, tickets)):
            yield from self._arrivals(tickets, dropped)
            return
        payload, due = self.coordinator.payload(tickets[0]), set(tickets)
        places = [(i, self.coordinator.task(n)) for i, n in enumerate(asked) if n in due]
        began, worked_s, spent = time.perf_counter(), 0.0, dict[str, float]()
        for answer in self._compute([Job(places, payload)]):
            block = answer.result
            assert isinstance(block, Block)
            worked_s += time.perf_counter() - began
            for what, seconds in block.spent.items():
                spent[what] = spent.get(what, 0.0) + seconds
            if len(answer.job.places) > 1 or answer.by != ONE_PROCESS:  # not if it is a role's, or measured
                self._executions[f"{answer.by}, together" if block.together else answer.by] = None
            dropped.update(block.refused)
            self._sizes.update(block.sizes)
            if block.sizes:  # or all of its clients declined
                yield block
            began = time.perf_counter()
        share = min(1.0, worked_s / max(sum(spent.values()), 1e-9))  # workers spend seconds side by side
        for what, seconds in spent.items():
            self._spent[what] = self._spent.get(what, 0.0) + seconds * share

    def _arrivals(
        self, tickets: Sequence[int], dropped: dict[int, str], goal: int | None = None
    ) -> Iterator[tuple[int, Message]]:
        """Computes tickets one by one; tickets whose messages are refused are added to `dropped`.

        Args:
          tickets: in the order in which they arrive.
          dropped: why tickets are not counted.
          goal: the number of messages that are wanted; None: all.
        """
        for task, result in self._results(tickets, len(tickets) if goal is None else goal):
            if isinstance(result, Declined):
                dropped[task.ticket] = explain_decline(result)
                continue
            assert isinstance(result, bytes)
            self._sizes[task.ticket] = len(result)
            try:
                message = self.coordinator.receive(task.ticket, result)
            except MessageError as error:
                dropped[task.ticket] = str(error)
                continue
            if task.after in dropped:  # it fills no goal
                dropped[task.ticket] = explain_orphan(task.after)
            else:
                yield task.ticket, message

    def _results(
        self, tickets: Sequence[int], num_wanted: int
    ) -> Iterator[tuple[Task, Block | bytes | Declined]]:
        """Yields the messages of tickets; those that were heard already are not computed again."""
        if self._heard and all(ticket in self._heard for ticket in tickets):
            yield from ((self.coordinator.task(ticket), self._heard[ticket]) for ticket in tickets)
            return
        tasks = [(self.coordinator.task(ticket), self.coordinator.payload(ticket)) for ticket in tickets]
        jobs = [
            Job([(0, task)], payload, folded=False, is_optional=n >= num_wanted)
            for n, (task, payload) in enumerate(tasks)
        ]
        for answer in self._compute(jobs):
            ((_, task),) = answer.job.places
            yield task, answer.result

    def _compute(self, jobs: Sequence[Job]) -> Iterator[Answer]:
        """Computes jobs, and keeps the forks of memory that they lead to."""
        for answer in self._backend.compute(jobs, self.memory.at):
            for (_, task), fork in zip(answer.job.places, answer.forks, strict=bool(answer.forks)):
                self.memory.keep(task, fork)
            yield answer

    def _pass_time(self, until_s: float) -> None:
        if until_s > self._clock_s:
            self.coordinator.add_virtual_seconds(until_s - self._clock_s)
            self._clock_s = until_s
        closed = [n for n in self._due_s if not self.coordinator.is_open(n)]
        if self._links is not None:
            self._links.pass_time(self._clock_s)
            self._links.close(closed)
        for ticket in closed:
            del self._due_s[ticket]
            self._sizes.pop(ticket, None)
            self._heard.pop(ticket, None)
