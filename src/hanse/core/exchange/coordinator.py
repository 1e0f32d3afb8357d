"""The server's half of every exchange: tickets go out, messages come in, the fixed tree folds them.

A coordinator does no I/O and knows no clock. Runtimes decide when a message arrives; the coordinator
decides what it means, so it means the same in all of them.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from hanse.core.errors import HanseError
from hanse.core.exchange.admission import ValidMessage, open_parts, unpack_message, validate
from hanse.core.exchange.changes import Tracked
from hanse.core.exchange.composition import check_calibration, check_collect, check_numbers
from hanse.core.exchange.downlink import Editions, VersionTable
from hanse.core.exchange.fold import Block, MessageFold, TransformStates
from hanse.core.exchange.party import Message, Payload, Task
from hanse.core.exchange.state import MAPPINGS, CoordinatorChanges, CoordinatorState
from hanse.core.exchange.tickets import DispatchRecord, PoissonSample, TicketBook, explain_orphan
from hanse.core.exchange.traffic import TrafficLedger
from hanse.core.gathering import LeaveOut, LeftOut, find_zeros
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
    Sample,
    Sampled,
)
from hanse.core.usage import ReleaseRecord, Usage
from hanse.core.values import digest, measure_packed_bytes
from hanse.core.work import PartyId, Total

__all__ = ["Block", "Coordinator"]


class Coordinator:
    """Dispatches work, checks the messages that answer it, and folds them.

    It composes a ticket book, a traffic ledger, the states of the transforms, and the versions of what is
    broadcast as differences.

    Args:
      num_clients: how many are registered; they are numbered from 0.
      secret: draws Poisson samples, and what the transforms must not tell anybody.
      owner: the party that coordinates, "server" or a peer; what it sends itself costs no bytes.
      first_ticket: peers that share clients number their tickets apart.
      parties: the names of parties that are members: see `TrafficLedger`.
    """

    def __init__(
        self,
        num_clients: int,
        secret: Key,
        *,
        owner: PartyId = "server",
        first_ticket: int = 0,
        parties: Set[str] = frozenset(),
    ) -> None:
        self.num_clients, self.parties = num_clients, parties
        self._secret = secret
        self._owner = owner
        self.restore(CoordinatorState(first_ticket))

    def restore(self, state: CoordinatorState) -> None:
        """Goes on from a snapshot."""
        self._book = TicketBook(
            state.next_ticket,
            state.tickets,
            state.dispatches,
            state.closed,
            state.undecoded,
            state.first_of_round,
        )
        self._ledger = TrafficLedger(self._owner, state.usage, self.parties)
        self._transforms = TransformStates(self._secret, state.states, state.begun)
        self._versions = VersionTable(state.references)
        self._sample = state.sample

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
            self._sample,
            dict(self._book.closed),
            dict(self._book.undecoded),
            self._book.first_of_round,
        )

    def changes(self) -> CoordinatorChanges:
        """Returns what has changed since this was last asked, the round began or a snapshot was restored."""
        book = self._book
        mappings: tuple[Tracked[Any, Any], ...] = (
            *(book.tickets, book.dispatches, self._transforms.states, self._versions.references),
            *(book.closed, book.undecoded),
        )
        edits = {
            name: held.take_edits() for name, held in zip(MAPPINGS, mappings, strict=True) if held.is_touched
        }
        return CoordinatorChanges(book.next_number, self._ledger.take_changes(), edits, self._sample)

    # -- tickets out ---------------------------------------------------------------------------

    def sample(self, command: Sample, away: Set[PartyId] = frozenset()) -> Sampled:
        """Draws a cohort among the clients that hold no open ticket and are not away."""
        away = away | set(command.without)
        if command.rate is not None:
            return Sampled(self._sample_poisson(command.key, command.rate, away), self.num_clients)
        cohort = self._book.draw(command.key, command.size(self.num_clients), self.num_clients, away)
        return Sampled(cohort, self.num_clients)

    def _sample_poisson(self, key: Key, rate: float, away: Set[PartyId]) -> tuple[int, ...]:
        """Draws each client independently, from the secret: nobody else can tell who is in the cohort."""
        number = self._book.take_number()
        secret = self._secret.fold_in("sample", number, key.digest.hex())
        drawn = secret.secret_rng().poisson_sample(self.num_clients, rate)
        cohort = self._book.leave_out_busy(drawn, away)
        is_alone = self._sample is None or self._sample.is_used
        self._sample = PoissonSample(number, rate if is_alone else 1.0, digest(cohort))
        return cohort

    def _find_sample(self, cohort: tuple[PartyId, ...]) -> tuple[float, int | None]:
        """Returns the rate and number of the Poisson sample that a cohort is; 1 and None: it is none."""
        sample = self._sample
        if sample is None or sample.cohort != digest(cohort):
            return 1.0, None
        if sample.is_used and cohort == tuple(range(self.num_clients)):
            return 1.0, None  # all may be asked whoever was drawn
        self._sample = replace(sample, is_used=True)
        return sample.rate, sample.number

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
                *self._find_sample(command.cohort),
            )
        )
        metered = {party for party in command.cohort if self._ledger.is_metered(party)}
        read = {editions.by_party.get(party) for party in metered}
        sizes = {edition: measure_packed_bytes(self._book.payload((number, edition))) for edition in read}
        tasks, cost = self._book.issue(command.cohort, command.key.fold_in("party")), 0
        for task in tasks:
            edition = editions.by_party.get(task.party)
            sent = replace(task, own=command.own[task.party]) if task.party in command.own else task
            size = sizes[edition] + sent.num_bytes if task.party in metered else 0
            self._book.book(task, number, size, edition, command.is_phase)
            cost += size
        self._ledger.add(bytes_down=cost)
        self._ledger.add_broadcasts(command, editions)
        return Dispatched(tuple(task.ticket for task in tasks), number)

    def leave_out(self, command: LeaveOut) -> LeftOut:
        """Books parties that the program keeps out of what it makes of their contributions."""
        self._ledger.add_left_out(command.parties)
        return LeftOut()

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

    def check(self, command: Collect, *, strict: bool = False) -> None:
        """Checks, before anything is waited for, that a Collect can fold what its tickets ask for.

        Args:
          command: as the program yields it.
          strict: whether those who are asked must suffice; else all parties, since some may only be away.

        Raises: CompositionError: if one of its parts is hidden and can't be, or has two specs or reducers, or
          one that needs more contributions; or if it waits for clients of a Poisson sample.
        """
        asked = [ticket for ticket in self.open_tickets(command) if self.is_open(ticket)]
        numbers = {self._book[ticket].dispatch for ticket in asked}
        if command.dispatch is not None and self.has_dispatch(command.dispatch):
            numbers.add(command.dispatch)
        check_collect(command, [self._book.dispatches[number] for number in sorted(numbers)])
        if asked:
            most = len(asked) if strict else max(len(asked), self.num_clients + len(self.parties))
            check_numbers(command, [self._book.dispatches[number] for number in numbers], most)

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
    def phase_tickets(self) -> frozenset[int]:
        """The tickets of this round that were closed in phases of protocols, which count no client."""
        return frozenset(number for number, ticket in self._book.closed.items() if ticket.is_phase)

    def edition(self, ticket: int) -> tuple[int, int | None]:
        """Returns a ticket's dispatch and edition. Tickets that agree in both are sent the same payload."""
        return self._book.edition(ticket)

    def measure_download(self, ticket: int) -> int:
        """Returns the bytes that the holder of an open ticket was sent in this round."""
        return self._book[ticket].bytes_down

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
                message = open_parts(message, self.task(ticket), self.payload(ticket))
            fold.add(ticket, message.parts, self._book.record_of(ticket))
            del item, message  # otherwise the next message would be read beside it
        dispatch = -1 if command.dispatch is None else command.dispatch
        asked_for = self._book.dispatches.get(dispatch)
        drops, counted = self._drop({**dropped, **orphans}), fold.counted
        self._book.release(dispatch)  # one to nobody has no last ticket that closes
        needed = command.close.minimum(len(asked))
        if not counted and asked_for is not None and (zeros := self._find_zeros(command, asked_for)):
            return Collected(self._decode_totals(zeros, asked_for, dispatch, dispatch), (), (), drops)
        abandoned = fold.explain_count()
        if command.tickets is not None and len(counted) < needed:
            abandoned = f"{len(counted)} of {len(asked)} contributions were counted, {needed} are needed"
        if abandoned is not None:
            if drops:
                abandoned += f"; the first that was not: {drops[0].party} ({drops[0].reason})"
            drops += self._drop(dict.fromkeys(counted, "the round was abandoned"))
            return Collected({}, (), (), drops, abandoned, needed)
        parties = tuple(self.task(ticket).party for ticket in counted)
        dispatches = sorted({self._book[ticket].dispatch for ticket in counted})
        records = {number: self._book.dispatches[number] for number in dispatches}
        for record in records.values():
            check_calibration(command, record.payload)
        self._book.count(counted, self._ledger.take_heard)
        self._ledger.add(counted=sum(map(self._is_counted, counted)))
        totals = self._transforms.decode_totals(fold, list(records.values()))
        for number, record in records.items():
            self._book_releases(totals, record, number)
        party_of = dict(zip(counted, parties, strict=True))
        for name, total in totals.items():
            self._ledger.add_left_out(party_of[fold.tickets[name][i]] for i in total.left_out)
        return Collected(totals, counted, parties, drops, needed=needed)

    def _find_zeros(self, command: Collect, record: DispatchRecord) -> Mapping[str, Total]:
        """Returns the totals of none, by part, if it may close with them and all reducers have them."""
        if command.close.minimum_fraction > 0 or command.tickets is None or command.dispatch is None:
            return {}
        if not self._book.is_empty(command.dispatch):  # it may be in another total with the same secret
            return {}
        return find_zeros(record.payload.uplink, record.payload.uplink)

    def _decode_totals(
        self, totals: Mapping[str, Total], record: DispatchRecord, dispatch: int, number: int
    ) -> dict[str, Total]:
        """Undoes the transforms on the totals of a dispatch, and books what they reveal."""
        decoded = {
            name: self._transforms.decode(name, record.payload, total, number)
            for name, total in totals.items()
        }
        self._book_releases(decoded, record, dispatch)
        return decoded

    def _book_releases(self, parts: Iterable[str], record: DispatchRecord, dispatch: int) -> None:
        """Books what decoded parts of a dispatch reveal."""
        sample = dispatch if record.sample is None else record.sample
        chains = record.payload.chains
        for name in (name for name in parts if name in chains):  # dispatches may differ in their parts
            for release in chains[name].releases:
                self._ledger.add_release(ReleaseRecord(name, release, record.sampling, sample))

    def can_fold_in_blocks(self, command: Collect, tickets: Sequence[int]) -> bool:
        """Returns whether these tickets may be folded in blocks: all are sent the same and count alike."""
        return command.discount is None and len({self.edition(n) for n in tickets}) == 1

    def decode(self, command: Decode) -> Decoded:
        """Undoes the transforms on a total that a protocol obtained, and drops who is not in it.

        Raises: HanseError: if that part of the ticket's dispatch waits for no total.
        """
        number = self._book.find(command.ticket).dispatch
        if command.part not in self._book.undecoded.get(number, ()):
            raise HanseError(
                f"part {command.part!r} of ticket {command.ticket} is not hidden by its reducer, or was "
                "decoded before: decode each hidden part once, after its exchange"
            )
        record, secret = self._book.dispatches[number], command.ticket
        if record.payload.chains[command.part].releases:
            secret = self._book.take_number()  # two totals with the same noise would differ by none
        totals = self._decode_totals({command.part: command.total}, record, number, secret)
        self._book.note_decoding(number, command.part)
        return Decoded(totals[command.part], self._drop_silent_tickets(command.dropped))

    def _drop_silent_tickets(self, tickets: Sequence[int]) -> tuple[Drop, ...]:
        """Drops counted tickets whose parties fell silent in a protocol, and what was built on them."""
        if not tickets:
            return ()
        counted = {number: ticket for number, ticket in self._book.list_closed_tickets() if ticket.counted}
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
        self, abandoned: bool, again: bool = False
    ) -> tuple[Usage, Mapping[PartyId, tuple[tuple[int, ...], tuple[int, ...]]]]:
        """Ends a round, and returns its cost and the (counted, dropped) tickets of each party.

        Args:
          abandoned: whether its counted tickets are dropped.
          again: whether its open tickets are dropped, too. Those of earlier rounds stay in flight.
        """
        lost = [n for n, ticket in self._book.closed.items() if abandoned and ticket.counted]
        if again:
            lost += [n for n in self._book.open_numbers() if n >= self._book.first_of_round]
        self._drop(dict.fromkeys(lost, "the round was abandoned"))
        self._transforms.begin_round(abandoned=abandoned)
        self._versions.settle(
            (ticket.party, ticket.holds, ticket.counted) for _, ticket in self._book.list_closed_tickets()
        )
        clients = self._ledger.sum_by_party({**self._book.closed, **self._book.tickets})
        usage = replace(self._ledger.usage, clients=clients)
        settled = self._book.group_by_party()
        self._book.begin_round()
        self._ledger.begin_round()
        return usage, settled
