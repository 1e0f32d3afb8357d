"""The ticket book: who was asked for what, which memory each ticket goes on from, what became of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import field, replace

from hanse.core.errors import Declined
from hanse.core.exchange.changes import Tracked
from hanse.core.exchange.downlink import Broadcast
from hanse.core.exchange.party import Payload, Task
from hanse.core.keys import Key
from hanse.core.program import Drop
from hanse.core.tensors import Tensors
from hanse.core.values import pack, value
from hanse.core.work import PartyId

__all__ = [
    "ClosedTicket",
    "DispatchRecord",
    "PoissonSample",
    "Ticket",
    "TicketBook",
    "explain_decline",
    "explain_orphan",
]


def explain_decline(declined: Declined) -> str:
    """Says why a ticket is dropped whose work declined to answer."""
    return f"declined: {declined}"


def explain_orphan(after: int | None) -> str:
    """Says why a ticket is dropped that goes on from the memory of a dropped one."""
    return f"it was built on ticket {after}, which was dropped"


@value
class Ticket:
    """Work in flight.

    Args:
      task: what its holder is asked for. The record of the dispatch has the tensors for it alone.
      dispatch: the number of its dispatch.
      state: "open". Version 0.1.0 kept closed tickets, too, as "counted" or "dropped".
      bytes_up, bytes_down: its cost in this round so far.
      edition: the index of its broadcasts among the editions of its dispatch; None if nothing is sent to
        it as differences.
      is_phase: whether it belongs to a phase of a protocol, in which no client is counted.
    """

    task: Task
    dispatch: int
    state: str = "open"
    bytes_up: int = 0
    bytes_down: int = 0
    edition: int | None = None
    is_phase: bool = False

    @property
    def party(self) -> PartyId:
        """Its holder."""
        return self.task.party


@value
class ClosedTicket:
    """A ticket that was counted or dropped, as far as the end of its round needs it.

    Args:
      party: its holder.
      dispatch: the number of its dispatch.
      after: the ticket whose memory it went on from.
      counted: whether it was counted.
      bytes_up, bytes_down: its cost in this round.
      holds: the versions that it led to, by slot: see `VersionTable`.
      is_phase: as in `Ticket`.
    """

    party: PartyId
    dispatch: int
    after: int | None
    counted: bool
    bytes_up: int = 0
    bytes_down: int = 0
    holds: Mapping[str, int] = field(default_factory=dict)
    is_phase: bool = False


@value
class DispatchRecord:
    """The contents of one dispatch.

    Args:
      payload: the part that all of its readers are sent alike.
      key, version: those of the command.
      editions: what is broadcast as differences, once for each set of versions that readers held.
      holds: the versions that its readers hold after it, by slot: see `VersionTable`.
      own: tensors for single parties, until no ticket is open.
      sampling, sample: the probability with which its readers were drawn, and the number of their Sample;
        1 and None unless one Poisson Sample alone decided who they are.
    """

    payload: Payload
    key: Key
    version: int
    editions: tuple[Mapping[str, Broadcast], ...] = ()
    holds: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[PartyId, Mapping[str, Tensors]] = field(default_factory=dict)
    sampling: float = 1.0
    sample: int | None = None


@value
class PoissonSample:
    """The last cohort in which each client was independently.

    Args:
      number: of the Sample, in the sequence of tickets and dispatches.
      rate: the probability of each client; 1 if the program may have chosen between this cohort and another.
      cohort: its digest, because it may be long.
      is_used: whether work was dispatched to it.
    """

    number: int
    rate: float
    cohort: str
    is_used: bool = False


class TicketBook:
    """Numbers tickets and keeps them, with the records of their dispatches, for as long as they are open.

    A party's tickets form a chain: each goes on from the memory of the last one that was not dropped. Of a
    closed ticket little is kept, until its round is over. A dispatch goes with its last open ticket, unless a
    part of it is hidden by its reducer: then it stays until that part is decoded, or the round is over.

    Args:
      next_number: the first free number; tickets and dispatches share one sequence.
      tickets: the open ones, by number; also closed ones that version 0.1.0 kept.
      dispatches: the records of their dispatches, by number.
      closed: the tickets that were closed in this round, by number.
      undecoded: the hidden parts of counted tickets that are not decoded yet, by the number of the dispatch.
      first_of_round: the first number that was free when the round began.
    """

    def __init__(
        self,
        next_number: int,
        tickets: Mapping[int, Ticket],
        dispatches: Mapping[int, DispatchRecord],
        closed: Mapping[int, ClosedTicket] | None = None,
        undecoded: Mapping[int, tuple[str, ...]] | None = None,
        first_of_round: int = 0,
    ) -> None:
        self.next_number, self.first_of_round = next_number, first_of_round
        former = {n: t for n, t in tickets.items() if t.state != "open"}
        self.tickets = Tracked({n: t for n, t in tickets.items() if n not in former})
        self.dispatches = Tracked(dispatches)
        self.closed = Tracked(closed)
        self.undecoded = Tracked(undecoded)
        for number, ticket in former.items():
            if number not in self.closed:
                self.closed[number] = _close(ticket, dispatches[ticket.dispatch], ticket.state == "counted")
                self._note_hidden(ticket.dispatch)
        self._payloads: dict[tuple[int, int | None], Payload] = {}
        self._packed: dict[tuple[int, int | None], bytes] = {}
        self._index()

    def _index(self) -> None:
        """Finds each party's tickets that were not dropped, and counts the open tickets of each dispatch."""
        held: list[tuple[int, Ticket | ClosedTicket]] = [*self.tickets.items()]
        held += [(number, ticket) for number, ticket in self.closed.items() if ticket.counted]
        self._chains: dict[PartyId, dict[int, None]] = {}
        for number, ticket in sorted(held, key=lambda item: item[0]):
            self._chains.setdefault(ticket.party, {})[number] = None
        self._num_open = Counter(ticket.dispatch for ticket in self.tickets.values())

    def __getitem__(self, number: int) -> Ticket:
        return self.tickets[number]

    # -- tickets out ---------------------------------------------------------------------------

    def draw(self, key: Key, size: int, num_clients: int, away: Set[PartyId]) -> tuple[int, ...]:
        """Draws a cohort, uniform among the clients that hold no open ticket and are not away."""
        busy = away | {ticket.task.party for ticket in self.tickets.values()}
        drawn = key.rng().choice(num_clients, size=min(num_clients, size + len(busy)), replace=False)
        free = [client for client in drawn.tolist() if client not in busy]
        return tuple(free[:size])

    def leave_out_busy(self, drawn: Sequence[int], away: Set[PartyId]) -> tuple[int, ...]:
        """Returns the drawn clients that hold no open ticket and are not away."""
        busy = away | {ticket.party for ticket in self.tickets.values()}
        return tuple(client for client in drawn if client not in busy)

    def take_number(self) -> int:
        """Takes the next number, which no ticket or dispatch will have."""
        self.next_number += 1
        return self.next_number - 1

    def record(self, dispatch: DispatchRecord) -> int:
        """Keeps the record of a dispatch under the next number, which `issue` gives to its first ticket."""
        self.dispatches[self.next_number] = dispatch
        return self.next_number

    def issue(self, cohort: Sequence[PartyId], key: Key) -> list[Task]:
        """Numbers a ticket for each party, and finds the ticket whose memory it goes on from.

        Args:
          cohort: the parties, in the order of their positions in the fold.
          key: from which each party's key is derived.
        """
        tasks = [
            Task(number, party, key.fold_in(party), self._last(party))
            for number, party in enumerate(cohort, self.next_number)
        ]
        self.next_number += max(1, len(tasks))  # a dispatch to nobody has a number, too
        return tasks

    def book(
        self, task: Task, dispatch: int, bytes_down: int, edition: int | None, is_phase: bool = False
    ) -> None:
        """Enters an issued ticket as open."""
        self._chains.setdefault(task.party, {})[task.ticket] = None
        self._num_open[dispatch] += 1
        self.tickets[task.ticket] = Ticket(task, dispatch, "open", 0, bytes_down, edition, is_phase)

    def _last(self, party: PartyId) -> int | None:
        """Returns a party's last ticket that was not dropped."""
        chain = self._chains.get(party)
        return next(reversed(chain)) if chain else None

    def pending_version(self, party: PartyId, slot: str) -> int | None:
        """Returns the version in a slot that a party's booked tickets lead to; None if they change none."""
        number = self._last(party)
        while number is not None:
            if number in self.tickets:
                ticket = self.tickets[number]
                holds, number = self.dispatches[ticket.dispatch].holds, ticket.task.after
            elif number in self.closed:
                holds, number = self.closed[number].holds, self.closed[number].after
            else:
                return None
            if slot in holds:
                return holds[slot]
        return None

    # -- what is booked ------------------------------------------------------------------------

    def is_open(self, number: int) -> bool:
        """Returns whether a message for this ticket would still be taken."""
        return number in self.tickets

    def open_numbers(self) -> tuple[int, ...]:
        """Lists the open tickets in ascending order."""
        return tuple(sorted(self.tickets))

    def find(self, number: int) -> Ticket | ClosedTicket:
        """Returns a ticket that is open, or was closed in this round."""
        return self.tickets.get(number) or self.closed[number]

    def record_of(self, number: int) -> DispatchRecord:
        """Returns the record of an open ticket's dispatch."""
        return self.dispatches[self.tickets[number].dispatch]

    def task(self, number: int) -> Task:
        """Returns what the holder of a ticket is sent for itself alone."""
        task, own = self.tickets[number].task, self.record_of(number).own
        return replace(task, own=own[task.party]) if task.party in own else task

    def edition(self, number: int) -> tuple[int, int | None]:
        """Returns a ticket's dispatch and edition. Tickets that agree in both are sent the same payload."""
        ticket = self.tickets[number]
        return ticket.dispatch, ticket.edition

    def payload(self, edition: tuple[int, int | None]) -> Payload:
        """Builds the payload of an edition, once."""
        dispatch, index = edition
        record = self.dispatches[dispatch]
        if index is None:
            return record.payload
        if edition not in self._payloads:
            self._payloads[edition] = replace(record.payload, broadcasts=record.editions[index])
        return self._payloads[edition]

    def pack_payload(self, edition: tuple[int, int | None]) -> bytes:
        """Packs the payload of an edition, once."""
        if edition not in self._packed:
            self._packed[edition] = pack(self.payload(edition))
        return self._packed[edition]

    # -- what becomes of tickets ---------------------------------------------------------------

    def count(self, numbers: Iterable[int], take_heard: Callable[[int], int]) -> None:
        """Closes tickets as counted.

        Args:
          numbers: of the tickets.
          take_heard: gives the bytes that a ticket's holder sent.
        """
        for dispatch in sorted({self.tickets[number].dispatch for number in numbers}):
            self._note_hidden(dispatch)
        for number in numbers:
            self._close(number, True, take_heard(number))

    def drop(self, reasons: Mapping[int, str], take_heard: Callable[[int], int]) -> tuple[Drop, ...]:
        """Closes tickets as dropped, and with them the open ones that were built on them.

        Args:
          reasons: by ticket; counted ones may be dropped again.
          take_heard: gives the bytes that a ticket's holder sent.
        """
        drops: list[Drop] = []
        while reasons:
            for number, reason in sorted(reasons.items()):
                if number in self.tickets:
                    self._close(number, False, take_heard(number))
                else:
                    self.closed[number] = replace(self.closed[number], counted=False)
                party = self.closed[number].party
                self._chains.get(party, {}).pop(number, None)
                drops.append(Drop(number, party, reason))
            reasons = {
                n: explain_orphan(t.task.after) for n, t in self.tickets.items() if t.task.after in reasons
            }
        return tuple(drops)

    def _close(self, number: int, counted: bool, bytes_up: int) -> None:
        ticket = self.tickets.pop(number)
        self.closed[number] = _close(ticket, self.dispatches[ticket.dispatch], counted, bytes_up)
        self._num_open[ticket.dispatch] -= 1
        self.release(ticket.dispatch)

    def _note_hidden(self, dispatch: int) -> None:
        """Notes the parts of a dispatch that its reducers hide, and that may be decoded now."""
        uplink = self.dispatches[dispatch].payload.uplink
        hidden = tuple(name for name, part_spec in uplink.items() if part_spec.into.hides)
        if hidden:
            self.undecoded[dispatch] = hidden

    def note_decoding(self, dispatch: int, part: str) -> None:
        """Notes that a hidden part of a dispatch was decoded."""
        left = tuple(name for name in self.undecoded.get(dispatch, ()) if name != part)
        if left:
            self.undecoded[dispatch] = left
        elif dispatch in self.undecoded:
            del self.undecoded[dispatch]
            self.release(dispatch)

    def is_empty(self, dispatch: int) -> bool:
        """Returns whether no ticket of a dispatch is open or counted."""
        counted = (ticket for ticket in self.closed.values() if ticket.counted)
        return not self._num_open[dispatch] and all(ticket.dispatch != dispatch for ticket in counted)

    def release(self, dispatch: int) -> None:
        """Forgets a dispatch if no open ticket needs it, and no part of it may still be decoded."""
        if self._num_open[dispatch] or dispatch not in self.dispatches:
            return
        if dispatch in self.undecoded:
            if self.dispatches[dispatch].own:  # nobody will be sent it any more
                self.dispatches[dispatch] = replace(self.dispatches[dispatch], own={})
            return
        del self._num_open[dispatch]
        for index in (None, *range(len(self.dispatches.pop(dispatch).editions))):
            self._payloads.pop((dispatch, index), None)
            self._packed.pop((dispatch, index), None)

    def list_closed_tickets(self) -> list[tuple[int, ClosedTicket]]:
        """Lists the tickets that were closed in this round, in ascending order."""
        return sorted(self.closed.items(), key=lambda item: item[0])

    def group_by_party(self) -> dict[PartyId, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Lists the (counted, dropped) tickets of each party."""
        groups: dict[PartyId, tuple[list[int], list[int]]] = {}
        for number, ticket in self.list_closed_tickets():
            groups.setdefault(ticket.party, ([], []))[0 if ticket.counted else 1].append(number)
        return {party: (tuple(counted), tuple(dropped)) for party, (counted, dropped) in groups.items()}

    def begin_round(self) -> None:
        """Forgets closed tickets, the cost of the open ones so far, and dispatches that no ticket needs.

        What changes from now on is the new round's.
        """
        self.tickets = Tracked(
            {
                n: replace(t, bytes_up=0, bytes_down=0) if t.bytes_up or t.bytes_down else t
                for n, t in self.tickets.items()
            }
        )
        self.closed, self.undecoded = Tracked(), Tracked()
        self.first_of_round = self.next_number
        self._index()
        self.dispatches = Tracked({n: record for n, record in self.dispatches.items() if n in self._num_open})
        self._payloads = {at: payload for at, payload in self._payloads.items() if at[0] in self._num_open}
        self._packed = {at: packed for at, packed in self._packed.items() if at[0] in self._num_open}


def _close(ticket: Ticket, dispatch: DispatchRecord, counted: bool, bytes_up: int = 0) -> ClosedTicket:
    return ClosedTicket(
        ticket.task.party,
        ticket.dispatch,
        ticket.task.after,
        counted,
        ticket.bytes_up + bytes_up,
        ticket.bytes_down,
        dispatch.holds,
        ticket.is_phase,
    )
