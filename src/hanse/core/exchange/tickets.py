"""The ticket book: who was asked for what, which memory each ticket goes on from, what became of it."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import field, replace

from hanse.core.exchange.downlink import Broadcast
from hanse.core.exchange.party import Payload, Task
from hanse.core.keys import Key
from hanse.core.program import Drop
from hanse.core.values import pack, value
from hanse.core.work import PartyId

__all__ = ["DispatchRecord", "Ticket", "TicketBook", "explain_orphan"]


def explain_orphan(after: int | None) -> str:
    """Says why a ticket is dropped that goes on from the memory of a dropped one."""
    return f"it was built on ticket {after}, which was dropped"


@value
class Ticket:
    """Work in flight, or counted in a round that is not over.

    Args:
      task: what its holder is asked for.
      dispatch: the number of its dispatch.
      state: "open", "counted" or "dropped".
      bytes_up, bytes_down: its cost in this round so far.
      edition: the index of its broadcasts among the editions of its dispatch; None if nothing is sent to
        it as differences.
    """

    task: Task
    dispatch: int
    state: str = "open"
    bytes_up: int = 0
    bytes_down: int = 0
    edition: int | None = None


@value
class DispatchRecord:
    """The contents of one dispatch.

    Args:
      payload: the part that all of its readers are sent alike.
      key, version: those of the command.
      editions: what is broadcast as differences, once for each set of versions that readers held.
      holds: the versions that its readers hold after it, by slot: see `VersionTable`.
    """

    payload: Payload
    key: Key
    version: int
    editions: tuple[Mapping[str, Broadcast], ...] = ()
    holds: Mapping[str, int] = field(default_factory=dict)


class TicketBook:
    """Numbers tickets and keeps them, with the records of their dispatches, until their round is over.

    A party's tickets form a chain: each goes on from the memory of the last one that was not dropped.

    Args:
      next_number: the first free number; tickets and dispatches share one sequence.
      tickets: the booked ones, by number.
      dispatches: the records of their dispatches, by number.
    """

    def __init__(
        self, next_number: int, tickets: Mapping[int, Ticket], dispatches: Mapping[int, DispatchRecord]
    ) -> None:
        self.next_number = next_number
        self._tickets = dict(tickets)
        self._dispatches = dict(dispatches)
        self._last: dict[PartyId, int] | None = None
        self._payloads: dict[tuple[int, int | None], Payload] = {}
        self._packed: dict[tuple[int, int | None], bytes] = {}

    def __getitem__(self, number: int) -> Ticket:
        return self._tickets[number]

    @property
    def tickets(self) -> Mapping[int, Ticket]:
        """The booked tickets, by number. This is the book's own mapping: copy it to keep it."""
        return self._tickets

    @property
    def dispatches(self) -> Mapping[int, DispatchRecord]:
        """The records of their dispatches, by number. This is the book's own mapping, too."""
        return self._dispatches

    # -- tickets out ---------------------------------------------------------------------------

    def draw(self, key: Key, size: int, num_clients: int, away: Set[PartyId]) -> tuple[int, ...]:
        """Draws a cohort, uniform among the clients that hold no open ticket and are not away."""
        busy = away | {t.task.party for t in self._tickets.values() if t.state == "open"}
        drawn = key.rng().choice(num_clients, size=min(num_clients, size + len(busy)), replace=False)
        free = [client for client in drawn.tolist() if client not in busy]
        return tuple(free[:size])

    def record(self, dispatch: DispatchRecord) -> int:
        """Keeps the record of a dispatch under the next number, which `issue` gives to its first ticket."""
        self._dispatches[self.next_number] = dispatch
        return self.next_number

    def issue(self, cohort: Sequence[PartyId], key: Key) -> list[Task]:
        """Numbers a ticket for each party, and finds the ticket whose memory it goes on from.

        Args:
          cohort: the parties, in the order of their positions in the fold.
          key: from which each party's key is derived.
        """
        last = self._last_by_party()
        tasks = [
            Task(number, party, key.fold_in(party), last.get(party))
            for number, party in enumerate(cohort, self.next_number)
        ]
        self.next_number += max(1, len(tasks))  # a dispatch to nobody has a number, too
        return tasks

    def book(self, task: Task, dispatch: int, bytes_down: int, edition: int | None) -> None:
        """Enters an issued ticket as open."""
        self._last_by_party()[task.party] = task.ticket
        self._tickets[task.ticket] = Ticket(task, dispatch, "open", 0, bytes_down, edition)

    def _last_by_party(self) -> dict[PartyId, int]:
        if self._last is None:
            kept = [n for n, t in sorted(self._tickets.items()) if t.state != "dropped"]
            self._last = {self._tickets[n].task.party: n for n in kept}
        return self._last

    def pending_version(self, party: PartyId, slot: str) -> int | None:
        """Returns the version in a slot that a party's booked tickets lead to; None if they change none."""
        number = self._last_by_party().get(party)
        while number is not None and number in self._tickets:
            ticket = self._tickets[number]
            holds = self._dispatches[ticket.dispatch].holds
            if slot in holds:
                return holds[slot]
            number = ticket.task.after
        return None

    # -- what is booked ------------------------------------------------------------------------

    def is_open(self, number: int) -> bool:
        """Returns whether a message for this ticket would still be taken."""
        return number in self._tickets and self._tickets[number].state == "open"

    def open_numbers(self) -> tuple[int, ...]:
        """Lists the open tickets in ascending order."""
        return tuple(sorted(n for n, t in self._tickets.items() if t.state == "open"))

    def record_of(self, number: int) -> DispatchRecord:
        """Returns the record of a ticket's dispatch."""
        return self._dispatches[self._tickets[number].dispatch]

    def edition(self, number: int) -> tuple[int, int | None]:
        """Returns a ticket's dispatch and edition. Tickets that agree in both are sent the same payload."""
        ticket = self._tickets[number]
        return ticket.dispatch, ticket.edition

    def payload(self, edition: tuple[int, int | None]) -> Payload:
        """Builds the payload of an edition, once."""
        dispatch, index = edition
        record = self._dispatches[dispatch]
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

    def close(self, number: int, state: str, bytes_up: int) -> None:
        """Closes a ticket as "counted" or "dropped", and adds what its holder sent to its cost."""
        held = self._tickets[number]
        self._tickets[number] = Ticket(
            held.task, held.dispatch, state, held.bytes_up + bytes_up, held.bytes_down, held.edition
        )
        if state == "dropped":
            self._last = None

    def drop(self, reasons: Mapping[int, str], take_heard: Callable[[int], int]) -> tuple[Drop, ...]:
        """Closes tickets as dropped, and with them the open ones that were built on them.

        Args:
          reasons: by ticket.
          take_heard: gives the bytes that a ticket's holder sent.
        """
        drops: list[Drop] = []
        while reasons:
            for number, reason in sorted(reasons.items()):
                self.close(number, "dropped", take_heard(number))
                drops.append(Drop(number, self._tickets[number].task.party, reason))
            reasons = {
                n: explain_orphan(t.task.after)
                for n, t in self._tickets.items()
                if t.state == "open" and t.task.after in reasons
            }
        return tuple(drops)

    def list_settled_tickets(self) -> list[tuple[int, Ticket]]:
        """Lists the tickets that are counted or dropped, in ascending order."""
        return [(n, t) for n, t in sorted(self._tickets.items()) if t.state != "open"]

    def group_by_party(self) -> dict[PartyId, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Lists the (counted, dropped) tickets of each party."""
        groups: dict[PartyId, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        for number, ticket in self.list_settled_tickets():
            counted, dropped = groups.get(ticket.task.party, ((), ()))
            if ticket.state == "counted":
                counted += (number,)
            else:
                dropped += (number,)
            groups[ticket.task.party] = counted, dropped
        return groups

    def begin_round(self) -> None:
        """Forgets closed tickets, the cost of the open ones so far, and dispatches that no ticket needs."""
        self._tickets = {
            n: replace(t, bytes_up=0, bytes_down=0) if t.bytes_up or t.bytes_down else t
            for n, t in self._tickets.items()
            if t.state == "open"
        }
        self._last = None
        needed = {ticket.dispatch for ticket in self._tickets.values()}
        self._dispatches = {n: record for n, record in self._dispatches.items() if n in needed}
        self._payloads = {at: payload for at, payload in self._payloads.items() if at[0] in needed}
        self._packed = {at: packed for at, packed in self._packed.items() if at[0] in needed}
