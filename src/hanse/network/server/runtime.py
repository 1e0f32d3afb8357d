"""The runtime of real parties: the coordinator of core, fed from a spool.

It is synchronous and runs in a thread of its own. It never speaks to a client: it posts offers in a mailbox,
sleeps until something arrives there, and folds the messages of the spool in the order of the tree.
"""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from hanse.core import HanseError, InvalidInput, Key, Memory, PartyId, check_count, player, value
from hanse.core.exchange import (
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
    Decoded,
    Dispatch,
    Dispatched,
    Drop,
    Edits,
    Event,
    Fork,
    LeaveOut,
    Message,
    PartyMemory,
    Payload,
    Runtime,
    Sample,
    Sampled,
    Tracked,
    limit_bytes,
    pack,
    pieces,
    unpack,
)
from hanse.network.protocol.party import Party
from hanse.network.protocol.spool import Objects
from hanse.network.protocol.uploads import Damaged, Spool
from hanse.network.server.failed_tickets import FailedTickets
from hanse.network.server.mailbox import Mailbox, Offer, Stopped
from hanse.network.server.records import (
    NAMED,
    Attendance,
    Outcome,
    Recording,
    describe_party,
    order_parties,
)
from hanse.network.server.waiting import OwnTickets, Waiting
from hanse.network.server.weights import MAX_WEIGHT_RATIO, BoundedWeight, WeightBounds

__all__ = ["NetworkChanges", "NetworkRuntime", "NetworkSnapshot", "Patience"]


@dataclass(frozen=True)
class Patience:
    """The times that a run waits for its clients. Everything else follows from progress.

    Args:
      silent_s: a client of which nothing is heard for so long is given up for the round.
      round_s: the longest that an exchange may take, if its algorithm sets no deadline. Also the time that a
        round waits for the clients that it can't begin without; then the run is interrupted.
      over_select: a round asks so many times the wanted fraction, if there are so many clients, and counts
        the first to answer. It leaves Poisson samples as they are: see `hanse.core.exchange.Sample`.
      min_clients: a round begins once so many clients are present; None: as many as it wants, or, for a
        Poisson sample, anybody.
      max_weight_ratio: a client's weight counts for at most so many times the median of its exchange, or
        for a share of 2/n if that is more: see `find_bound`. Infinity: for what the client has declared.
    """

    silent_s: float = 60.0
    round_s: float = 3600.0
    over_select: float = 1.0
    min_clients: int | None = None
    max_weight_ratio: float = MAX_WEIGHT_RATIO

    def __post_init__(self) -> None:
        if not self.silent_s > 0 or not self.round_s > 0:
            raise InvalidInput(f"patience of {self.silent_s} and {self.round_s} s; write seconds above 0")
        if not self.over_select >= 1:
            raise InvalidInput(f"over_select is {self.over_select}; write at least 1, such as 1.3")
        if self.min_clients is not None:
            check_count("min_clients", self.min_clients)
        if not self.max_weight_ratio >= 1:
            raise InvalidInput(
                f"max_weight_ratio is {self.max_weight_ratio}; write at least 1, such as 10, or inf: no bound"
            )

    def count_needed(self, wanted: int) -> int:
        """Returns how many clients must be present for a round that wants so many."""
        return wanted if self.min_clients is None else min(wanted, self.min_clients)


@value
class NetworkSnapshot:
    """The point from which a networked run goes on.

    Args:
      coordinator: the state of the coordinator.
      outcomes: of tickets, which earlier versions kept here until their holders had acknowledged them.
      forks: of the memory of the roles that the server plays.
      over_selection: the last cohort of which fewer are wanted than asked.
      wanted: how many contributions are counted of those asked, by the number of the dispatch.
      promises: of these roles.
      all_wanted: whether the last sample wanted all clients.
      senders: the ids of the members that answered the tickets that are closed and not settled.
    """

    coordinator: CoordinatorState
    outcomes: Mapping[PartyId, Mapping[int, Outcome]] = field(default_factory=dict)
    forks: Mapping[PartyId, Mapping[int, Fork]] = field(default_factory=dict)
    over_selection: "OverSelection | None" = None
    wanted: Mapping[int, int] = field(default_factory=dict)
    promises: Mapping[PartyId, Memory] = field(default_factory=dict)
    all_wanted: bool = True
    senders: Mapping[int, str] = field(default_factory=dict)


@value
class OverSelection:
    """A cohort of which the first `wanted` to answer are counted."""

    cohort: tuple[PartyId, ...]
    wanted: int

    def is_sent(self, cohort: tuple[PartyId, ...]) -> bool:
        """Returns whether a dispatch goes to this cohort, and not to an equal one that the program names."""
        return cohort is self.cohort


@value
class NetworkChanges(Changes):
    """The changes to a `NetworkSnapshot` since a moment of the same round.

    Outcomes are missing: they come with the end of a round, and a holder may be told one again.

    Args:
      coordinator: what has changed in its state.
      forks: those of the tickets that were closed.
      over_selection: the last cohort of which fewer are wanted than asked; () if it is the same as before.
      wanted: what has changed there.
      promises: those that were made.
      all_wanted: whether the last sample wanted all clients.
      senders: the ids of the members that answered the tickets that were closed.
    """

    coordinator: CoordinatorChanges
    forks: Mapping[PartyId, Mapping[int, Fork]]
    over_selection: "tuple[OverSelection | None, ...]"
    wanted: Edits
    promises: Mapping[PartyId, Memory] = field(default_factory=dict)
    all_wanted: bool = True
    senders: Mapping[int, str] = field(default_factory=dict)


LATE = "it was too late"
"""The reason why clients are not counted that answer after enough others, or after the deadline."""

MAX_DAMAGED = 3
"""A ticket is asked again so many times if the server's disk damages its messages."""

GONE = "it left, or was revoked"
"""The reason why clients are not counted that are no members any more."""


class NetworkRuntime(Runtime):
    """Performs commands with the clients behind a mailbox.

    Args:
      mailbox: takes offers, and brings answers.
      spool: holds the messages of clients.
      objects: holds the files that they download.
      own: holds the files that one client alone downloads.
      secret: of the server.
      role: makes the party that plays a role here, such as "server".
      memory: of these roles.
      patience: the times to wait.
      note: called with the name of a client that was not counted, and why.
      failed_tickets: keeps the tickets that failed or were refused; None: they are not kept.
      max_message_bytes: bounds messages whose size is not known beforehand.
      attend: called after each round with its attendance.
      say: called with a line that the operator should see at once.
      parties: the names of the parties that members play; `role` plays the others.
      note_bound: called with the round and each weight that was bounded, before it is counted.
      joined_s: returns when the member that plays a party joined; None: no member plays it.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        spool: Spool,
        objects: Objects,
        own: Objects,
        secret: Key,
        role: Callable[[str], Party],
        memory: PartyMemory,
        patience: Patience = Patience(),
        note: Callable[[str, str], None] = lambda who, what: None,
        max_message_bytes: int = 1 << 30,
        failed_tickets: FailedTickets | None = None,
        attend: Callable[[Attendance], None] = lambda attendance: None,
        say: Callable[[str], None] = lambda line: None,
        parties: Collection[str] = (),
        joined_s: Callable[[PartyId], float | None] = lambda party: 0.0,
        note_bound: Callable[[int, BoundedWeight], None] = lambda round, bounded: None,
        recording: Recording | None = None,
    ) -> None:
        self._recording = recording
        self._joined_s, self._note_bound = joined_s, note_bound
        self._hidden = frozenset[str]()  # the parts that the operator knows to have hidden weights
        self._note, self._failed_tickets, self._attend, self._say = note, failed_tickets, attend, say
        self.round = 0
        """The current round."""
        self._mailbox, self._spool, self._objects, self._own = mailbox, spool, objects, own
        self._role, self._patience, self._max_message_bytes = role, patience, max_message_bytes
        self.coordinator = Coordinator(0, secret, parties=frozenset(parties))
        self._memory = memory
        self._parties: dict[PartyId, Party] = {}
        self._whys: dict[int, str] = {}
        self._packed: dict[tuple[int, int | None], tuple[str, int, int, str]] = {}
        self._kept: tuple[int, ...] = ()
        self._tasks: dict[int, tuple[str, int]] = {}
        self._over_selection: OverSelection | None = None
        self._journaled: OverSelection | None = None
        self._wanted: Tracked[int, int] = Tracked()
        self._num_damaged = Counter[int]()
        self._all_wanted = True  # until a sample says otherwise
        self._senders: dict[int, str] = {}
        self._new_senders: dict[int, str] = {}  # since the last changes
        mailbox.restore((), spool.tickets())

    # -- to and from the disk ------------------------------------------------------------------

    def snapshot(self) -> NetworkSnapshot:
        state = self.coordinator.snapshot()
        forks, promises = self._memory.snapshot(state.holders)
        wanted = {number: count for number, count in self._wanted.items() if number in state.dispatches}
        return NetworkSnapshot(
            state, {}, forks, self._over_selection, wanted, promises, self._all_wanted, dict(self._senders)
        )

    def changes(self) -> NetworkChanges:
        changes = self.coordinator.changes()
        selection = () if self._over_selection is self._journaled else (self._over_selection,)
        self._journaled = self._over_selection
        forks, promises = self._memory.changes(changes.holders)
        senders, self._new_senders = self._new_senders, {}
        edits = self._wanted.take_edits()
        return NetworkChanges(changes, forks, selection, edits, promises, self._all_wanted, senders)

    def restore(self, snapshot: NetworkSnapshot | None, changes: Sequence[NetworkChanges] = ()) -> None:
        snapshot = self.snapshot() if snapshot is None else snapshot
        self.coordinator.restore(snapshot.coordinator.apply(each.coordinator for each in changes))
        self._over_selection, wanted = snapshot.over_selection, dict(snapshot.wanted)
        self._all_wanted, self._senders = snapshot.all_wanted, dict(snapshot.senders)
        self._memory.restore([snapshot, *changes])
        for each in changes:
            each.wanted.apply(wanted)
            self._all_wanted = each.all_wanted
            self._senders |= each.senders
            if each.over_selection:
                (self._over_selection,) = each.over_selection
        self._journaled, self._wanted = self._over_selection, Tracked(wanted)
        undecided = self.coordinator.open_tickets()
        offers = self._offers(undecided)
        self._clean()
        for ticket in self._spool.tickets():
            holder = self._holder(ticket) if self.coordinator.is_open(ticket) else None
            joined_s = None if holder is None else self._joined_s(holder)
            if holder is not None and (joined_s is None or self._spool.find_arrival_s(ticket) < joined_s):
                self._spool.discard(ticket)  # its sender is no member any more
        self._mailbox.restore_outcomes(snapshot.outcomes, undecided, self.coordinator.next_ticket)
        self._mailbox.restore(offers, self._spool.tickets())

    def recall(self, event: Event) -> None:
        chosen = self._over_selection
        if isinstance(event, Sampled) and chosen is not None and event.cohort == chosen.cohort:
            self._over_selection = replace(chosen, cohort=event.cohort)  # the one that the program holds
        if isinstance(event, Collected | Decoded):
            self._whys.update({drop.ticket: drop.reason for drop in event.dropped})

    def _clean(self) -> None:
        """Removes files that no ticket needs. The last event is in the journal by now."""
        needed = self.coordinator.open_tickets()
        if needed != self._kept or not needed:
            self._spool.keep_only(set(needed), self.coordinator.next_ticket)
            self._packed = {
                at: kept for at, kept in self._packed.items() if self.coordinator.has_dispatch(at[0])
            }
            self._objects.keep_only({kept[0] for kept in self._packed.values()})
            self._tasks = {n: kept for n, kept in self._tasks.items() if self.coordinator.is_open(n)}
            self._own.keep_only({sha256 for sha256, _ in self._tasks.values()})
            for number in [n for n in self._wanted if not self.coordinator.has_dispatch(n)]:
                del self._wanted[number]
            self._kept = needed

    def _party(self, name: PartyId) -> Party:
        if name not in self._parties:
            self._parties[name] = self._role(str(name))
        return self._parties[name]

    # -- commands ------------------------------------------------------------------------------

    def perform(self, command: Command[Any]) -> Event:
        self._mailbox.check()
        self._mailbox.open()
        self._clean()
        _, self.coordinator.num_clients = self._mailbox.members()
        match command:
            case Sample():
                return self._sample(command)
            case Dispatch():
                return self._dispatch(command)
            case Collect():
                return self._collect(command)
            case Decode():
                return self._decode(command)
            case LeaveOut():
                return self.coordinator.leave_out(command)
            case Commit():
                return self._commit(command)
            case _:
                raise HanseError(f"the network can't perform a {type(command).__name__}")

    def _sample(self, command: Sample) -> Sampled:
        """Draws a cohort of the clients that are present, once they are as many as the round needs.

        Raises: Stopped: if there are too few when `Patience.round_s` has passed.
        """
        if command.rate is not None:
            return self._sample_poisson(command, command.rate)
        began_s, known = time.monotonic(), 0
        waiting = Waiting(self._mailbox, self._say)
        while True:
            here, self.coordinator.num_clients = self._mailbox.members()
            here = here - set(command.without)
            wanted = command.size(self.coordinator.num_clients)
            count = self._size_cohort(command, wanted)
            self._mailbox.most = max(self._mailbox.most, count)
            lost = self._mailbox.absent(here, self._patience.silent_s)
            resting = {n for n in here - lost if self._mailbox.silent_s(n) < 0}
            away = set(range(self.coordinator.num_clients)) - here | lost | resting
            needed = min(self._patience.count_needed(wanted), len(here))
            enough, waited_s = needed, time.monotonic() - began_s
            if resting and waited_s < self._patience.silent_s:  # they were asked to come back in time
                enough = max(needed, min(count, len(here - lost)))
            present = self.coordinator.num_clients - len(away)
            gathering = self._mailbox.is_gathering(here, self._patience.silent_s)
            if command.count == 0 or (present >= enough > 0 and not gathering):
                break
            if waited_s > self._patience.round_s:
                raise Stopped(
                    f"too few clients came within {waited_s:.0f} s; {waiting.describe(present, needed, lost)}"
                )
            waiting.tell(present, needed, lost)
            known = self._mailbox.wait(began_s + self._patience.round_s, known)
        self._all_wanted = wanted >= len(here)
        if count > wanted:
            command = Sample(command.key, count, without=command.without)
        sampled = self.coordinator.sample(command, frozenset(away))
        more = len(sampled.cohort) > wanted
        self._over_selection = OverSelection(sampled.cohort, wanted) if more else None
        return sampled

    def _sample_poisson(self, command: Sample, rate: float) -> Sampled:
        """Draws each member with the same probability, whether it is present or not.

        It waits until somebody is present, since a round of nobody would only add noise, but never for those
        who are drawn: then the drawing would depend on who is there.

        Raises: Stopped: if nobody is present when `Patience.round_s` has passed.
        """
        began_s, known = time.monotonic(), 0
        waiting, needed = Waiting(self._mailbox, self._say), self._patience.min_clients or 1
        while True:
            here, self.coordinator.num_clients = self._mailbox.members()
            lost = self._mailbox.absent(here, self._patience.silent_s)
            present = len(here) - len(lost)
            if present >= min(needed, max(1, len(here))):
                break
            if time.monotonic() - began_s > self._patience.round_s:
                raise Stopped(
                    f"too few clients came within {self._patience.round_s:.0f} s; "
                    f"{waiting.describe(present, needed, lost)}"
                )
            waiting.tell(present, needed, lost)
            known = self._mailbox.wait(began_s + self._patience.round_s, known)
        self._mailbox.most = max(self._mailbox.most, command.size(self.coordinator.num_clients))
        self._all_wanted, self._over_selection = rate == 1, None
        left = frozenset(range(self.coordinator.num_clients)) - here
        return self.coordinator.sample(command, left)

    def _size_cohort(self, command: Sample, wanted: int) -> int:
        if command.count is not None:  # it is the most that may be asked
            return wanted
        return min(math.ceil(wanted * self._patience.over_select - 1e-9), self.coordinator.num_clients)

    def _dispatch(self, command: Dispatch) -> Dispatched:
        self._mailbox.doing = f"sending {command.work}"
        dispatched = self.coordinator.dispatch(command)
        if self._over_selection is not None and self._over_selection.is_sent(command.cohort):
            assert dispatched.dispatch is not None
            self._wanted[dispatched.dispatch] = self._over_selection.wanted
        self._mailbox.post(self._offers(dispatched.tickets))
        return dispatched

    def _offers(self, tickets: Iterable[int]) -> list[Offer]:
        """Makes the offers of tickets, except those of parties that the server itself plays."""
        return [self._offer(ticket) for ticket in tickets if self._holder(ticket) is not None]

    def _offer(self, ticket: int) -> Offer:
        task, shared = self.coordinator.task(ticket), self._put_payload(ticket)
        holder = self._find_member(task.party)
        assert holder is not None
        if not task.own:
            return Offer(ticket, holder, pack(task), *shared, after=task.after)
        if ticket not in self._tasks:
            self._tasks[ticket] = self._own.put(pieces(task))
        return Offer(ticket, holder, b"", *shared, *self._tasks[ticket], after=task.after)

    def _put_payload(self, ticket: int) -> tuple[str, int, int, str]:
        """Writes the payload of a ticket to an object; returns its SHA-256, and more that its offer says."""
        at = self.coordinator.edition(ticket)
        if at not in self._packed:
            payload = self.coordinator.payload(ticket)
            self._packed[at] = (
                *self._objects.put(pieces(payload)),
                self._limit_bytes(payload),
                type(payload.work).__name__,
            )
        return self._packed[at]

    def _limit_bytes(self, payload: Payload) -> int:
        limit = limit_bytes(payload.chains)
        return self._max_message_bytes if limit is None else limit

    def _commit(self, command: Commit) -> Committed:
        phases = self.coordinator.phase_tickets
        usage, settled = self.coordinator.settle(not command.is_closed, command.again)
        if command.round > 0 and not command.again:
            self._attend(self._attendance(command.round, settled, phases))
        outcomes: dict[PartyId, dict[int, Outcome]] = {}
        own_roles = {name: tickets for name, tickets in settled.items() if self._find_member(name) is None}
        for name, (counted, dropped) in settled.items():
            holder = self._find_member(name)
            if holder is not None:
                own = outcomes.setdefault(holder, {})
                own |= {t: Outcome(True, "", name, self._senders.get(t)) for t in counted}
                own |= {t: self._describe_drop(t, name) for t in dropped}
        memories = self._memory.settle(own_roles)
        self._whys = {t: why for t, why in self._whys.items() if self.coordinator.is_open(t)}
        self._senders = {t: id for t, id in self._senders.items() if self.coordinator.is_open(t)}
        self._new_senders = {}
        self.round = command.round if command.again else command.round + 1
        self._mailbox.close(ticket for both in settled.values() for ticket in (*both[0], *both[1]))
        members = self._mailbox.parties()
        self._mailbox.announce({holder: own for holder, own in outcomes.items() if holder in members})
        return Committed(usage, memories)

    def _describe_drop(self, ticket: int, party: PartyId) -> Outcome:
        return Outcome(False, self._whys.get(ticket, "not counted"), party, self._senders.get(ticket))

    def _note_sender(self, ticket: int, party: PartyId) -> None:
        """Notes which member plays a ticket's party now that the ticket is heard, or given up."""
        holder = self._find_member(party)
        if holder is not None:
            player = self._mailbox.find_player(holder)
            self._senders[ticket] = self._new_senders[ticket] = "" if player is None else player.id

    def _find_attendant(self, party: PartyId, ticket: int) -> PartyId:
        """Returns whom a ticket's outcome is booked for: its party, or the former member that held it."""
        player, sender = self._mailbox.find_player(party), self._senders.get(ticket)
        return sender if sender and player is not None and player.id != sender else party

    def _attendance(
        self,
        round: int,
        settled: Mapping[PartyId, tuple[Sequence[int], Sequence[int]]],
        phases: Set[int],
    ) -> Attendance:
        counted, missed, late = set[PartyId](), dict[PartyId, str](), set[PartyId]()
        for name, (good, dropped) in settled.items():
            if self._find_member(name) != name:  # a role of the server, or a client's own tests
                continue
            asked = [t for t in dropped if t not in phases]
            whys = [self._whys.get(t, "not counted") for t in asked]
            if LATE in whys:
                late.add(name)
            if not self._all_wanted:
                whys = [why for why in whys if why != LATE]
            if whys:  # even if another exchange of the round counted it
                missed[self._find_attendant(name, asked[0])] = whys[0]
            elif good:
                counted.add(self._find_attendant(name, good[0]))
        return Attendance(round, frozenset(counted), missed, self._all_wanted, frozenset(late))

    # -- collecting ----------------------------------------------------------------------------

    def _collect(self, command: Collect) -> Collected:
        self.coordinator.check(command)
        asked = self.coordinator.open_tickets(command)
        still = [ticket for ticket in asked if self.coordinator.is_open(ticket)]
        parties = {ticket: self.coordinator.task(ticket).party for ticket in still}
        played = {t: party for t, party in parties.items() if self._find_member(party) is None}
        own = OwnTickets(played, self._compute)
        awaited = [ticket for ticket in still if self._holder(ticket) is not None]
        valid, failed = list[int](), dict[int, str]()
        weights = WeightBounds(self._patience.max_weight_ratio)
        while True:
            self._hear(command, awaited, own, valid, failed, weights)
            weights.close(valid)
            self._describe_hidden(weights)
            self._keep_failed_tickets(failed)
            dropped, here = {**failed, **own.declined}, own.computed
            counted = {*here, *valid}
            if command.tickets is not None:
                dropped |= {t: LATE for t in still if t not in counted and t not in dropped}
            arrived = self._messages([ticket for ticket in asked if ticket in counted], here, weights)
            try:
                collected = self.coordinator.fold(self._scale_minimum(command, asked), arrived, dropped)
                break
            except Damaged as damaged:  # nothing of this fold is kept
                valid.remove(damaged.ticket)
                self._ask_again(damaged, failed)
        for bounded in weights.list_bounds(parties, self.coordinator.dispatch_of):
            self._note_bound(self.round, bounded)
        for drop in collected.dropped:
            self._note_sender(drop.ticket, drop.party)
        self._note_drops(collected.dropped)
        self._mailbox.close(t for t in asked if not self.coordinator.is_open(t))
        return collected

    def _ask_again(self, damaged: Damaged, failed: dict[int, str]) -> None:
        """Asks a ticket again whose message the disk has lost or changed, up to three times."""
        ticket = damaged.ticket
        holder = self._holder(ticket)
        assert holder is not None  # the server's own messages are not on its disk
        self._num_damaged[ticket] += 1
        is_last = self._num_damaged[ticket] > MAX_DAMAGED
        then = "it is given up" if is_last else "it is asked again"
        what = f"{damaged}. The client is not to blame, {then}: ticket {ticket} of {describe_party(holder)}"
        self._note("the server's disk", f"{what}. Check this disk")
        self._say(what)
        self._spool.discard(ticket)
        if is_last:
            failed[ticket] = f"the server's disk damaged its message {MAX_DAMAGED + 1} times"
        else:
            self._mailbox.ask_again(ticket)

    def _decode(self, command: Decode) -> Decoded:
        decoded = self.coordinator.decode(command)
        self._note_drops(decoded.dropped)
        return decoded

    def _note_drops(self, drops: Sequence[Drop]) -> None:
        """Withdraws offers, and notes who was not counted, and why, for the operator and the clients."""
        self._mailbox.close(drop.ticket for drop in drops)  # also of orphans, which nobody has asked for yet
        for drop in drops:
            self._whys[drop.ticket] = drop.reason
            holder = self._find_member(drop.party)
            who = describe_party(drop.party if holder is None else holder)
            self._note(who, f"ticket {drop.ticket} is not counted: {drop.reason}")

    def _find_member(self, party: PartyId) -> PartyId | None:
        """Returns the member that a party is or belongs to; None: the server plays it."""
        return party if party in self.coordinator.parties else player(party)

    def _holder(self, ticket: int) -> PartyId | None:
        """Returns the member that answers a ticket; None: the server plays its party."""
        return self._find_member(self.coordinator.task(ticket).party)

    def _goal(self, asked: Sequence[int]) -> int | None:
        """Returns how many of these tickets are wanted; None: all."""
        return self._wanted.get(self.coordinator.dispatch_of(asked[0])) if asked else None

    def _scale_minimum(self, command: Collect, asked: Sequence[int]) -> Collect:
        """Returns the command with its minimum as a fraction of the wanted clients, not of the asked ones."""
        goal = None if command.tickets is None else self._goal(asked)
        if goal is None:
            return command
        fewer = command.close.minimum_fraction * goal / len(asked)
        return replace(command, close=replace(command.close, goal=goal, minimum_fraction=fewer))

    def _keep_failed_tickets(self, dropped: Iterable[int]) -> None:
        """Keeps failed tickets for `hanse replay`."""
        for ticket in dropped:
            (sha256, *_), party = self._put_payload(ticket), self.coordinator.task(ticket).party
            if self._failed_tickets is not None and self._find_member(party) == party:
                with contextlib.suppress(OSError):  # the round goes on with a full disk
                    self._failed_tickets.keep(
                        self.round, self.coordinator.task(ticket), self._objects.path(sha256)
                    )

    def _record_answer(self, ticket: int) -> None:
        """Keeps a valid answer for an audit, if the operator asked for it."""
        if self._recording is not None:
            message = unpack(self._spool.read(ticket), Message)
            task, (sha256, *_) = self.coordinator.task(ticket), self._put_payload(ticket)
            self._recording.keep(self.round, task, self._objects.path(sha256), message)

    def _compute(self, ticket: int) -> Message:
        """Computes a ticket of a role that the server plays."""
        task = self.coordinator.task(ticket)
        payload, before = self.coordinator.payload(ticket), self._memory.at(task)
        message, fork = self._party(task.party).compute(task, payload, before)
        self._memory.keep(task, fork)
        return self.coordinator.receive(ticket, pack(message))

    def _describe_hidden(self, weights: WeightBounds) -> None:
        """Tells the operator once which weights can't be bounded."""
        if weights.hidden - self._hidden and not math.isinf(self._patience.max_weight_ratio):
            self._hidden |= weights.hidden
            self._say(f"the weights of {', '.join(sorted(weights.hidden))} are hidden, and can't be bounded")

    def _messages(
        self, tickets: list[int], here: Mapping[int, Message], weights: WeightBounds
    ) -> Iterator[tuple[int, Message]]:
        """Reads messages one at a time from the spool, so that memory stays flat. Raises: Damaged."""
        for ticket in tickets:
            if ticket in here:
                yield ticket, here[ticket]
            else:
                yield ticket, weights.apply(ticket, unpack(self._spool.read(ticket), Message))

    def _hear(
        self,
        command: Collect,
        awaited: list[int],
        own: OwnTickets,
        valid: list[int],
        dropped: dict[int, str],
        weights: WeightBounds,
    ) -> None:
        """Waits until the exchange can close.

        Args:
          valid: the tickets that are answered validly; more are added.
          dropped: the others that failed, and why; more are added.
          weights: hears the weights of valid messages.

        Raises: Stopped: if a party that the exchange waits for is away for too long.
        """
        close, patience = command.close, self._patience
        goal = close.goal
        if goal is None and command.tickets is not None:
            goal = self._goal(awaited)
        longest_s = min(patience.round_s, math.inf if close.deadline_s is None else close.deadline_s)
        deadline_s = time.monotonic() + longest_s
        known, about = 0, Waiting(self._mailbox, self._say)
        while True:
            own_s = own.compute()
            self._mailbox.doing = self._describe_progress(awaited, valid, dropped, own)
            for ticket in self._mailbox.take_withdrawn():
                self._spool.discard(ticket)
            answered, failed = self._mailbox.find_arrivals(awaited)
            valid[:] = [ticket for ticket in valid if ticket in answered]
            for ticket in answered:
                if ticket not in dropped and ticket not in valid:
                    if goal is not None and len(valid) + len(own.computed) >= goal:
                        break
                    try:
                        why = self._wrong(ticket, weights)
                    except Damaged as damaged:
                        self._ask_again(damaged, dropped)
                        continue
                    self._note_sender(ticket, self.coordinator.task(ticket).party)
                    if why is None:
                        self._record_answer(ticket)
                        valid.append(ticket)
                    else:
                        dropped[ticket] = why
            for ticket, why in failed.items():
                dropped.setdefault(ticket, why)
            waiting = [ticket for ticket in awaited if ticket not in dropped and ticket not in valid]
            if close.wait_s is None:
                next_s = self._give_up(waiting, dropped)
                waiting = [ticket for ticket in waiting if ticket not in dropped]
            else:
                next_s = math.inf
                away = self._find_away(waiting, close.wait_s)
                if away:
                    about.tell(len(awaited) - len(away), len(awaited), away)
                    if close.deadline_s is None:  # the time of the exchange begins when all are back
                        deadline_s = time.monotonic() + longest_s
            enough = goal is not None and len(valid) + len(own.computed) >= goal
            if (not waiting and not own.waiting) or enough or time.monotonic() >= deadline_s:
                return
            known = self._mailbox.wait(min(deadline_s, next_s, own_s), known)

    def _describe_progress(
        self, awaited: Sequence[int], valid: Sequence[int], dropped: Mapping[int, str], own: OwnTickets
    ) -> str:
        """Describes how far an exchange is, for the status of the run."""
        early = [
            t for t in self._mailbox.find_postponed_tickets(awaited) if t not in valid and t not in dropped
        ]
        parties = {self.coordinator.task(ticket).party for ticket in (*early, *own.waiting)}
        who = ", ".join(map(describe_party, order_parties(parties)[:NAMED]))
        line = f"heard {len(valid)} of {len(awaited)}, {len(dropped)} failed"
        return f"{line}; not ready yet, and asked again: {who}" if who else line

    def _give_up(self, waiting: list[int], dropped: dict[int, str]) -> float:
        """Drops the tickets of clients that left or fell silent; returns when to look again."""
        members = self._mailbox.parties()
        next_s = math.inf
        for ticket in waiting:
            holder = self._holder(ticket)
            assert holder is not None
            silent_s = self._mailbox.silent_s(holder)
            if holder not in members:
                dropped[ticket] = GONE
            elif silent_s > self._patience.silent_s:
                lost = "its message was damaged on the server's disk, and " * (ticket in self._num_damaged)
                dropped[ticket] = f"{lost}nothing was heard of it for {silent_s:.0f} s"
            else:
                next_s = min(next_s, time.monotonic() + self._patience.silent_s - silent_s + 0.01)
        return next_s

    def _find_away(self, waiting: Iterable[int], wait_s: float) -> set[PartyId]:
        """Returns the members that are away and that hold these tickets.

        Raises: Stopped: if one of them has been away for longer than its exchange waits.
        """
        members, away = self._mailbox.parties(), set[PartyId]()
        holders = {holder for ticket in waiting if (holder := self._holder(ticket)) is not None}
        for holder in order_parties(holders):
            silent_s = self._mailbox.silent_s(holder)
            if holder in members and silent_s <= self._patience.silent_s:
                continue
            if silent_s > max(wait_s, self._patience.silent_s):
                why = f"nothing was heard of it for {silent_s:.0f} s" if holder in members else GONE
                raise Stopped(
                    f"{describe_party(holder)} is away, and the run can't go on without it: {why}. Serve it "
                    "again when that party is back"
                )
            away.add(holder)
        return away

    def _wrong(self, ticket: int, weights: WeightBounds) -> str | None:
        """Returns what is wrong with a message; None: nothing, and its weights are noted.

        Raises: Damaged: if the disk is to blame.
        """
        try:
            message = self.coordinator.receive(ticket, self._spool.peek(ticket))
            weights.hear(ticket, message, self.coordinator.payload(ticket))
        except Damaged:
            raise
        except Exception as error:  # the round goes on, whatever a client's bytes lead to
            self._spool.read(ticket)  # are they the client's?
            return f"refused: {error}"[:500]
        return None
