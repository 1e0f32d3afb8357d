"""The server's half of every exchange: tickets go out, messages come in, the fixed tree folds them.

A coordinator does no I/O and knows no clock. Runtimes decide when a message arrives; the coordinator
decides what it means, so it means the same in all of them.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import field, replace
from typing import Any

from hanse.core.errors import CompositionError, HanseError
from hanse.core.exchange.admission import ValidMessage, decode_each, unpack_message, validate
from hanse.core.exchange.changes import Edits, Tracked
from hanse.core.exchange.downlink import Editions, Reference, VersionTable
from hanse.core.exchange.fold import Block, MessageFold, TransformStates
from hanse.core.exchange.party import Message, Payload, Task
from hanse.core.exchange.tickets import ClosedTicket, DispatchRecord, Ticket, TicketBook, explain_orphan
from hanse.core.exchange.traffic import TrafficLedger, merge_usage
from hanse.core.keys import Key
from hanse.core.layout import Packed
from hanse.core.program import (
    Collect,
    Collected,
    Decode,
    Decoded,
    Dispatch,
    Dispatched,
    Drop,
    PartSpec,
    Sample,
    Sampled,
    Usage,
)
from hanse.core.reducers import each
from hanse.core.values import measure_packed_bytes, value
from hanse.core.work import PartyId

__all__ = ["Block", "Coordinator", "CoordinatorChanges", "CoordinatorState"]


@value
class CoordinatorState:
    """Everything that a coordinator must remember to go on after a crash.

    Args:
      next_ticket: the first free number.
      tickets, dispatches: the open tickets and the records of their dispatches, by number.
      states, begun: the transforms' states at the server, and what they were when the round began.
      usage: the round's cost so far.
      references: the versions of what is broadcast as differences.
      closed: the tickets that were closed in this round, by number.
      undecoded: the hidden parts that are not decoded yet, by the number of the dispatch.
    """

    next_ticket: int = 0
    tickets: Mapping[int, Ticket] = field(default_factory=dict)
    dispatches: Mapping[int, DispatchRecord] = field(default_factory=dict)
    states: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    begun: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    usage: Usage = Usage()
    references: Mapping[str, Reference] = field(default_factory=dict)
    closed: Mapping[int, ClosedTicket] = field(default_factory=dict)
    undecoded: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def holders(self) -> dict[int, PartyId]:
        """The holders of the open tickets, and of those that were closed in this round."""
        tickets: dict[int, Ticket | ClosedTicket] = {**self.closed, **self.tickets}
        return {number: ticket.party for number, ticket in tickets.items()}

    def apply(self, changes: "Iterable[CoordinatorChanges]") -> "CoordinatorState":
        """Returns the state that changes lead to, first to last."""
        mappings: dict[str, dict[Any, Any]] = {name: dict(getattr(self, name)) for name in _MAPPINGS}
        next_ticket, usage = self.next_ticket, self.usage
        for change in changes:
            next_ticket, usage = change.next_ticket, merge_usage(usage, change.usage)
            for name, edits in change.edits.items():
                edits.apply(mappings[name])
        return replace(self, next_ticket=next_ticket, usage=usage, **mappings)


_MAPPINGS = ("tickets", "dispatches", "states", "references", "closed", "undecoded")
"""The fields that change within a round, item by item. Only the end of a round changes `begun`."""


@value
class CoordinatorChanges:
    """What has changed in a `CoordinatorState` since a moment of the same round.

    Args:
      next_ticket: the first free number.
      usage: the round's cost so far, with those flows alone that have changed.
      edits: the items that have changed in its mappings, by field.
    """

    next_ticket: int
    usage: Usage
    edits: Mapping[str, Edits]

    @property
    def holders(self) -> dict[int, PartyId]:
        """The holders of the tickets that were closed."""
        closed = self.edits.get("closed", Edits()).changed
        return {number: ticket.party for number, ticket in closed.items()}


class Coordinator:
    """Dispatches work, checks the messages that answer it, and folds them.

    It composes a ticket book, a traffic ledger, the states of the transforms, and the versions of what is
    broadcast as differences.

    Args:
      num_clients: how many are registered; they are numbered from 0.
      secret: draws what the transforms must not tell anybody.
      owner: the party that coordinates, "server" or a peer; what it sends itself costs no bytes.
      first_ticket: peers that share clients number their tickets apart.
    """

    def __init__(
        self, num_clients: int, secret: Key, *, owner: PartyId = "server", first_ticket: int = 0
    ) -> None:
        self.num_clients = num_clients
        self._secret = secret
        self._owner = owner
        self.restore(CoordinatorState(first_ticket))

    def restore(self, state: CoordinatorState) -> None:
        """Goes on from a snapshot."""
        self._book = TicketBook(
            state.next_ticket, state.tickets, state.dispatches, state.closed, state.undecoded
        )
        self._ledger = TrafficLedger(self._owner, state.usage)
        self._transforms = TransformStates(self._secret, state.states, state.begun)
        self._versions = VersionTable(state.references)

    def snapshot(self) -> CoordinatorState:
        """Copies everything from which `restore` goes on."""
        return CoordinatorState(
            self._book.next_number,
            dict(self._book.tickets),
            dict(self._book.dispatches),
            dict(self._transforms.states),
            dict(self._transforms.begun),
            self._ledger.usage,
            dict(self._versions.references),
            dict(self._book.closed),
            dict(self._book.undecoded),
        )

    def changes(self) -> CoordinatorChanges:
        """Returns what has changed since this was last asked, the round began or a snapshot was restored."""
        book = self._book
        mappings: tuple[Tracked[Any, Any], ...] = (
            *(book.tickets, book.dispatches, self._transforms.states, self._versions.references),
            *(book.closed, book.undecoded),
        )
        edits = {
            name: held.take_edits() for name, held in zip(_MAPPINGS, mappings, strict=True) if held.is_touched
        }
        return CoordinatorChanges(book.next_number, self._ledger.take_changes(), edits)

    # -- tickets out ---------------------------------------------------------------------------

    def sample(self, command: Sample, away: Set[PartyId] = frozenset()) -> Sampled:
        """Draws a cohort, uniform among the clients that hold no open ticket and are not away."""
        cohort = self._book.draw(command.key, command.size(self.num_clients), self.num_clients, away)
        return Sampled(cohort, self.num_clients)

    def dispatch(self, command: Dispatch) -> Dispatched:
        """Books a ticket for each member of the cohort.

        Raises:
          CompositionError: if the parts can't stand together.
          HanseError: if a client is not registered.
        """
        unknown = [p for p in command.cohort if isinstance(p, int) and not 0 <= p < self.num_clients]
        if unknown:
            raise HanseError(f"no client {unknown[0]}: {self.num_clients} are registered, numbered from 0")
        shared = {} if command.downlink else command.shared
        blank = Payload(command.work, shared, command.uplink, {})
        payload = replace(blank, plans=self._transforms.plan(blank.chains, command.key))
        editions = Editions()
        if command.downlink:
            editions = self._versions.build_editions(
                command.shared, command.downlink, command.key, command.cohort, self._book.pending_version
            )
        number = self._book.record(
            DispatchRecord(
                payload,
                command.key,
                command.version,
                editions.broadcasts,
                editions.holds,
                command.own,
            )
        )
        metered = {party for party in command.cohort if self._ledger.is_metered(party)}
        read = {editions.by_party.get(party) for party in metered}
        sizes = {edition: measure_packed_bytes(self._book.payload((number, edition))) for edition in read}
        tasks, cost = self._book.issue(command.cohort, command.key.fold_in("party")), 0
        for task in tasks:
            edition = editions.by_party.get(task.party)
            sent = replace(task, own=command.own.get(task.party, {}))
            size = sizes[edition] + sent.num_bytes if task.party in metered else 0
            self._book.book(task, number, size, edition, command.is_phase)
            cost += size
        self._ledger.add(bytes_down=cost)
        self._ledger.add_broadcasts(command, editions)
        return Dispatched(tuple(task.ticket for task in tasks))

    def add_virtual_seconds(self, seconds: float) -> None:
        """Books time on the simulated clock."""
        self._ledger.add(virtual_s=seconds)

    # -- what is in flight ---------------------------------------------------------------------

    @property
    def usage(self) -> Usage:
        """The cost of the round so far, not parted by client."""
        return self._ledger.usage

    @property
    def next_ticket(self) -> int:
        """The first number that no ticket has."""
        return self._book.next_number

    def open_tickets(self, command: Collect | None = None) -> tuple[int, ...]:
        """Lists the tickets that a Collect waits for, in the order of their positions in the fold."""
        if command is None or command.tickets is None:
            return self._book.open_numbers()
        return command.tickets

    def check(self, command: Collect) -> None:
        """Checks, before anything is waited for, that a Collect can fold what its tickets ask for.

        Raises: CompositionError: if one of its parts is hidden and can't be, or has two specs or reducers.
        """
        asked = [ticket for ticket in self.open_tickets(command) if self.is_open(ticket)]
        first: dict[str, PartSpec] = {}
        for number in sorted({self._book[ticket].dispatch for ticket in asked}):
            for name, part_spec in self._book.dispatches[number].payload.uplink.items():
                if part_spec.into.hides and (command.tickets is None or command.discount is not None):
                    how = "names no tickets" if command.tickets is None else "discounts stale contributions"
                    raise CompositionError(
                        f"{part_spec.into} hides part {name!r}, and its protocol can't follow a collect that "
                        f"{how}: use an algorithm whose rounds close, or a reducer that sees contributions"
                    )
                known = first.setdefault(name, part_spec)
                if known != part_spec:
                    _check_alike(name, known, part_spec)

    def is_open(self, ticket: int) -> bool:
        """Returns whether a message for this ticket would still be taken."""
        return self._book.is_open(ticket)

    def has_dispatch(self, number: int) -> bool:
        """Returns whether somebody may still need this dispatch."""
        return number in self._book.dispatches

    def dispatch_of(self, ticket: int) -> int:
        """Returns the number of a ticket's dispatch. The ticket is open, or was closed in this round."""
        return self._book.find(ticket).dispatch

    def task(self, ticket: int) -> Task:
        """Returns what the holder of a ticket is sent for itself alone."""
        return self._book.task(ticket)

    @property
    def phases(self) -> frozenset[int]:
        """The tickets of this round that were closed in phases of protocols, which count no client."""
        return frozenset(number for number, ticket in self._book.closed.items() if ticket.is_phase)

    def edition(self, ticket: int) -> tuple[int, int | None]:
        """Returns a ticket's dispatch and edition. Tickets that agree in both are sent the same payload."""
        return self._book.edition(ticket)

    def payload(self, ticket: int) -> Payload:
        """Returns what all members of the cohort who hold the same versions are sent alike."""
        return self._book.payload(self._book.edition(ticket))

    def pack_payload(self, ticket: int) -> bytes:
        """Returns the payload as the bytes that are sent, packed once for all who are sent the same."""
        return self._book.pack_payload(self._book.edition(ticket))

    def hearing(self) -> AbstractContextManager[None]:
        """Forgets the messages that are heard within it if a party turns out not to be ready yet.

        Nothing else may have changed until then: `fold` closes tickets once it has read all that arrived.
        """
        return self._ledger.hearing()

    # -- messages in ---------------------------------------------------------------------------

    def receive(self, ticket: int, data: Packed) -> Message:
        """Checks a message against what its ticket asked for.

        Raises: MessageError: saying what is wrong with it; the round goes on without it.
        """
        payload, task = self.payload(ticket), self.task(ticket)
        is_metered = self._ledger.is_metered(task.party)
        if is_metered:
            self._ledger.hear(ticket, len(data))
        message = unpack_message(data, payload)
        taken = validate(message, task, payload)
        if is_metered:
            self._ledger.add_parts(message.parts, payload.chains)
        return taken

    # -- the fold ------------------------------------------------------------------------------

    def fold(
        self, command: Collect, arrived: Iterable[tuple[int, Message] | Block], dropped: Mapping[int, str]
    ) -> Collected:
        """Closes a Collect.

        Args:
          command: as the program yielded it.
          arrived: checked messages by ticket, or blocks of them where `can_fold_in_blocks(command)`, in the
            order of `open_tickets(command)`; may be lazy, and may add to `dropped` while it is read.
          dropped: the other tickets to close, and why.
        """
        asked = self.open_tickets(command)
        fold, orphans = MessageFold(command, asked), dict[int, str]()
        for item in arrived:
            if isinstance(item, Block):
                record = self._book.record_of(item.sizes[0][0])
                self._ledger.add_block(item, self._book.tickets, record.payload.chains)
                fold.add_block(item, record)
                continue
            ticket, message = item
            after = self.task(ticket).after
            if after in dropped or after in orphans:
                orphans[ticket] = explain_orphan(after)
                continue
            if not isinstance(message, ValidMessage):
                message = decode_each(message, self.task(ticket), self.payload(ticket))
            fold.add(ticket, message.parts, self._book.record_of(ticket))
            del item, message  # otherwise the next message would be read beside it
        drops, counted = self._drop({**dropped, **orphans}), fold.counted
        needed = command.close.minimum(len(asked))
        if command.tickets is not None and len(counted) < needed:
            abandoned = f"{len(counted)} of {len(asked)} contributions were counted, {needed} are needed"
            if drops:
                abandoned += f"; the first that was not: {drops[0].party} ({drops[0].reason})"
            drops += self._drop(dict.fromkeys(counted, "the round was abandoned"))
            return Collected({}, (), (), drops, abandoned)
        parties = tuple(self.task(ticket).party for ticket in counted)
        dispatches = sorted({self._book[ticket].dispatch for ticket in counted})
        records = [self._book.dispatches[number] for number in dispatches]
        self._book.count(counted, self._ledger.take_heard)
        self._ledger.add(counted=sum(map(self._is_counted, counted)))
        return Collected(self._transforms.decode_totals(fold, records), counted, parties, drops)

    def can_fold_in_blocks(self, command: Collect, tickets: Sequence[int]) -> bool:
        """Returns whether these tickets may be folded in blocks: all are sent the same and count alike."""
        return command.discount is None and len({self.edition(n) for n in tickets}) == 1

    def decode(self, command: Decode) -> Decoded:
        """Undoes the transforms on a total that a protocol obtained, and drops who is not in it.

        Raises: HanseError: if that part of the ticket's dispatch waits for no total.
        """
        number = self._book.find(command.ticket).dispatch
        if number not in self._book.dispatches:
            raise HanseError(
                f"part {command.part!r} of ticket {command.ticket} is not hidden by its reducer, or was "
                "decoded before: decode each hidden part once, after its exchange"
            )
        payload = self._book.dispatches[number].payload
        total = self._transforms.decode(command.part, payload, command.total, command.ticket)
        self._book.note_decoded(number, command.part)
        return Decoded(total, self._drop_counted(command.dropped))

    def _drop_counted(self, tickets: Sequence[int]) -> tuple[Drop, ...]:
        """Drops counted tickets whose parties fell silent in a protocol, and what was built on them."""
        if not tickets:
            return ()
        counted = {number: ticket for number, ticket in self._book.list_closed() if ticket.counted}
        reasons = {n: "it was not in the protocol's last phase" for n in tickets if n in counted}
        for number, ticket in counted.items():
            if ticket.after in reasons:
                reasons.setdefault(number, explain_orphan(ticket.after))
        self._ledger.add(counted=-sum(map(self._is_counted, reasons)))
        return self._drop(reasons)

    def _is_counted(self, ticket: int) -> bool:
        """Returns whether the ledger counts a ticket: those of clients, except in phases of protocols."""
        found = self._book.find(ticket)
        return self._ledger.is_metered(found.party) and not found.is_phase

    def _drop(self, reasons: Mapping[int, str]) -> tuple[Drop, ...]:
        """Closes tickets as dropped, and with them those that were built on them."""
        drops = self._book.drop(reasons, self._ledger.take_heard)
        self._ledger.add(dropped=sum(self._is_counted(drop.ticket) for drop in drops))
        return drops

    # -- the end of a round --------------------------------------------------------------------

    def settle(
        self, abandoned: bool
    ) -> tuple[Usage, Mapping[PartyId, tuple[tuple[int, ...], tuple[int, ...]]]]:
        """Ends a round, and returns its cost and the (counted, dropped) tickets of each party."""
        if abandoned:
            counted = [n for n, ticket in self._book.closed.items() if ticket.counted]
            self._drop(dict.fromkeys(counted, "the round was abandoned"))
        self._transforms.begin_round(abandoned=abandoned)
        self._versions.settle(
            (ticket.party, ticket.holds, ticket.counted) for _, ticket in self._book.list_closed()
        )
        clients = self._ledger.sum_by_party({**self._book.closed, **self._book.tickets})
        usage = replace(self._ledger.usage, clients=clients)
        settled = self._book.group_by_party()
        self._book.begin_round()
        self._ledger.begin_round()
        return usage, settled


def _check_alike(name: str, first: PartSpec, second: PartSpec) -> None:
    """Checks that parts of two dispatches can be folded together. Raises: CompositionError."""
    if first.into != second.into:
        raise CompositionError(
            f"part {name!r} goes into {first.into} and into {second.into} in one collect: collect the "
            "dispatches one by one"
        )
    one, other = first.chain().folded, second.chain().folded
    if not isinstance(first.into, each) and (one.tensors, one.kind) != (other.tensors, other.kind):
        raise CompositionError(
            f"part {name!r} has two specs in one collect, {one} and {other}, and {first.into} folds "
            "messages of one: collect the dispatches one by one, or write into=each()"
        )
