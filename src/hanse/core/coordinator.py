"""The server's half of every exchange: tickets out, messages in, folded by the fixed tree.

A coordinator does no I/O and knows no clock. Runtimes decide when a message arrives; what it means
is decided here, so it means the same in all of them.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hanse.core.admission import Admitted, admitted, limit_bytes, opened, overhead_bytes
from hanse.core.chain import Chain
from hanse.core.downlink import Broadcast, Reference, followed
from hanse.core.errors import CompositionError, HanseError, MessageError
from hanse.core.keys import Key
from hanse.core.layout import Packed
from hanse.core.party import Message, Payload, Task
from hanse.core.program import (
    Collect,
    Collected,
    Decode,
    Decoded,
    Dispatch,
    Dispatched,
    Drop,
    Flow,
    Sample,
    Sampled,
    Usage,
)
from hanse.core.reducers import TreeFold
from hanse.core.tensors import num_bytes
from hanse.core.values import brief, pack, packed_size, unpack, value
from hanse.core.work import Part, PartyId, Total

__all__ = ["Block", "Coordinator", "Desk", "Sent", "Ticket"]

_SUMS = ("bytes_up", "bytes_down", "counted", "dropped", "virtual_s")
"""The fields of `Usage` that are added up."""


@value
class Ticket:
    """Work in flight, or counted in a round that is not over; and what it has cost in this round."""

    task: Task
    dispatch: int
    state: str = "open"
    bytes_up: int = 0
    bytes_down: int = 0
    edition: int | None = None


@value
class Sent:
    """What was dispatched under one number.

    Args:
      payload: in common.
      key, version: of the dispatch.
      editions: what was broadcast as differences, for each set of versions that readers held.
      holds: the versions that its readers hold after it, by `Desk.references`.
    """

    payload: Payload
    key: Key
    version: int
    editions: tuple[Mapping[str, Broadcast], ...] = ()
    holds: Mapping[str, int] = field(default_factory=dict)


@value
class Desk:
    """All that a coordinator must remember to go on after a crash.

    `states` are the transforms' at the server, `begun` what they were when the round began; `references`
    the versions of what is broadcast as differences.
    """

    next_ticket: int = 0
    tickets: Mapping[int, Ticket] = field(default_factory=dict)
    sent: Mapping[int, Sent] = field(default_factory=dict)
    states: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    begun: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    usage: Usage = Usage()
    references: Mapping[str, Reference] = field(default_factory=dict)


class Coordinator:
    """Books tickets, opens and folds messages.

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
        self.restore(Desk(first_ticket))

    def restore(self, desk: Desk) -> None:
        """Goes on from a saved desk."""
        self._next = desk.next_ticket
        self._tickets = dict(desk.tickets)
        self._sent = dict(desk.sent)
        self._states, self._begun = dict(desk.states), dict(desk.begun)
        self._usage = {name: getattr(desk.usage, name) for name in _SUMS}
        self._flowed = desk.usage.flows
        self._flows: dict[tuple[Any, ...], list[int]] = {}
        self._heard: dict[int, int] = {}
        self._references = dict(desk.references)
        self._packed: dict[tuple[int, int | None], bytes] = {}
        self._payloads: dict[tuple[int, int | None], Payload] = {}
        self._rebuild()

    def _rebuild(self) -> None:
        kept = [n for n, t in sorted(self._tickets.items()) if t.state != "dropped"]
        self._last = {self._tickets[n].task.party: n for n in kept}

    def desk(self) -> Desk:
        """What to save."""
        tickets, sent, states = dict(self._tickets), dict(self._sent), dict(self._states)
        begun, references = dict(self._begun), dict(self._references)
        return Desk(self._next, tickets, sent, states, begun, self._used(), references)

    # -- tickets out ---------------------------------------------------------------------------

    def sample(self, command: Sample, away: Set[PartyId] = frozenset()) -> Sampled:
        """A cohort, uniform among the clients that hold no open ticket and are not away."""
        busy = away | {t.task.party for t in self._tickets.values() if t.state == "open"}
        count = command.size(self.num_clients)
        drawn = command.key.rng().choice(
            self.num_clients, size=min(self.num_clients, count + len(busy)), replace=False
        )
        free = [client for client in drawn.tolist() if client not in busy]
        return Sampled(tuple(free[:count]), self.num_clients)

    def dispatch(self, command: Dispatch) -> Dispatched:
        """Books a ticket for each member of the cohort. Raises: CompositionError."""
        unknown = [p for p in command.cohort if isinstance(p, int) and not 0 <= p < self.num_clients]
        if unknown:
            raise HanseError(f"no client {unknown[0]}: {self.num_clients} are registered, numbered from 0")
        shared = {} if command.downlink else command.shared
        blank = Payload(command.work, shared, command.uplink, {})
        plans = {
            name: chain.plan(self._state(name, chain), command.key.fold("plan", name))
            for name, chain in blank.chains.items()
        }
        number = self._next
        payload = replace(blank, plans=plans)
        editions, holds, edition_of = self._editions(command)
        self._sent[number] = Sent(payload, command.key, command.version, editions, holds)
        tickets = tuple(range(number, number + len(command.cohort)))
        key, cost, asked = command.key.fold("party"), 0, 0
        read = {edition_of.get(party) for party in command.cohort if self._counts(party)}
        sizes = {edition: packed_size(self._payload(number, edition)) for edition in read}
        words = (f"downlink({', '.join(map(brief, command.downlink))})",)
        for ticket, party in zip(tickets, command.cohort, strict=True):
            task = Task(ticket, party, key.fold(party), self._last.get(party))
            self._last[party] = ticket
            if not self._counts(party):
                self._tickets[ticket] = Ticket(task, number, edition=edition_of.get(party))
                continue
            edition = edition_of.get(party)
            own = sizes[edition] + task.num_bytes
            self._tickets[ticket] = Ticket(task, number, "open", 0, own, edition)
            cost += own
            asked += 1
            if edition is not None:
                for name, sent in editions[edition].items():
                    self._flow("down", name, words, (num_bytes(command.shared[name]),), sent.num_bytes)
        self._use(bytes_down=cost)
        for name, tensors in shared.items():
            self._flow("down", name, (), (), num_bytes(tensors) * asked, asked)
        self._next = number + max(1, len(tickets))
        return Dispatched(tickets)

    def _editions(
        self, command: Dispatch
    ) -> tuple[tuple[Mapping[str, Broadcast], ...], Mapping[str, int], Mapping[PartyId, int]]:
        """What those are sent who hold different versions, what all hold after it, and whose is which."""
        if not command.downlink:
            return (), {}, {}
        slots = {name: f"{name} {command.downlink}" for name in command.shared}
        for name, slot in slots.items():
            self._references[slot] = followed(
                self._references.get(slot),
                command.shared[name],
                command.downlink,
                command.key.fold("downlink", name),
            )
        made: dict[tuple[int | None, ...], int] = {}
        editions: list[Mapping[str, Broadcast]] = []
        edition_of: dict[PartyId, int] = {}
        for party in command.cohort:
            held = tuple(self._holds(party, slot) for slot in slots.values())
            if held not in made:
                made[held] = len(editions)
                editions.append(
                    {
                        name: self._references[slot].for_holder(command.downlink, version)
                        for (name, slot), version in zip(slots.items(), held, strict=True)
                    }
                )
            edition_of[party] = made[held]
        holds = {slot: self._references[slot].version for slot in slots.values()}
        return tuple(editions), holds, edition_of

    def _holds(self, party: PartyId, slot: str) -> int | None:
        """The version that a party's next ticket begins with, where it is still of use."""
        version = self._references[slot].holders.get(party, (None, 0))[0]
        ticket = self._last.get(party)
        while ticket is not None and ticket in self._tickets:
            sent = self._sent[self._tickets[ticket].dispatch]
            if slot in sent.holds:
                version = sent.holds[slot]
                break
            ticket = self._tickets[ticket].task.after
        reference = self._references[slot]
        useful = version is not None and version >= reference.version - len(reference.changes)
        return version if useful else None

    def _payload(self, number: int, edition: int | None) -> Payload:
        sent = self._sent[number]
        if edition is None:
            return sent.payload
        at = number, edition
        if at not in self._payloads:
            self._payloads[at] = replace(sent.payload, broadcasts=sent.editions[edition])
        return self._payloads[at]

    def _counts(self, party: PartyId) -> bool:
        return isinstance(party, int) and party != self._owner

    def _use(self, **more: float) -> None:
        for name, amount in more.items():
            self._usage[name] += amount

    def _flow(
        self,
        way: Literal["up", "down"],
        name: str,
        stages: tuple[str, ...],
        before: tuple[int | None, ...],
        last: int,
        messages: int = 1,
    ) -> None:
        """Books what messages carried: each so much before the last stage, and all `last` after it."""
        booked = self._flows.setdefault((way, name, stages, before), [0, 0])
        booked[0] += messages
        booked[1] += last

    def _used(self) -> Usage:
        more = (
            Flow(way, name, stages, n, (*(None if size is None else size * n for size in before), last))
            for (way, name, stages, before), (n, last) in self._flows.items()
            if n
        )
        return Usage(**self._usage, flows=Flow.merged((*self._flowed, *more)))

    def add_virtual_seconds(self, seconds: float) -> None:
        """Books time on the simulated clock."""
        self._use(virtual_s=seconds)

    # -- what is in flight ---------------------------------------------------------------------

    def open_tickets(self, command: Collect | None = None) -> tuple[int, ...]:
        """The tickets that a Collect waits for, in the order of their positions in the fold."""
        if command is None or command.tickets is None:
            return tuple(sorted(n for n, t in self._tickets.items() if t.state == "open"))
        return command.tickets

    def is_open(self, ticket: int) -> bool:
        """Whether a message for this ticket would still be taken."""
        return ticket in self._tickets and self._tickets[ticket].state == "open"

    def task(self, ticket: int) -> Task:
        """What the holder of a ticket is sent."""
        return self._tickets[ticket].task

    def edition(self, ticket: int) -> tuple[int, int | None]:
        """Tickets of which this is the same are sent the same payload."""
        return self._tickets[ticket].dispatch, self._tickets[ticket].edition

    def payload(self, ticket: int) -> Payload:
        """What those of its cohort are sent who hold the same versions."""
        return self._payload(*self.edition(ticket))

    def packed_payload(self, ticket: int) -> bytes:
        """The same, as bytes."""
        at = self.edition(ticket)
        if at not in self._packed:
            self._packed[at] = pack(self.payload(ticket))
        return self._packed[at]

    # -- messages in ---------------------------------------------------------------------------

    def receive(self, ticket: int, data: Packed) -> Message:
        """Checks a message against what its ticket asked for.

        Raises: MessageError: saying what is wrong with it; the round goes on without it.
        """
        payload = self.payload(ticket)
        counts = self._counts(self._tickets[ticket].task.party)
        if counts:
            self._use(bytes_up=len(data))
            self._heard[ticket] = self._heard.get(ticket, 0) + len(data)
        limit = limit_bytes(payload.chains)
        if limit is not None and len(data) > limit:
            raise MessageError(f"a message of {len(data)} bytes, at most {limit} are due")
        message: Message = unpack(
            data, Message, only=(Message, Part), max_head_bytes=overhead_bytes(payload.chains)
        )
        taken = admitted(message, self._tickets[ticket].task, payload)
        if counts:
            for name, part in message.parts.items():
                if part is not None:
                    self._flow_up(ticket, name, num_bytes(part.values))
        return taken

    def _flow_up(self, ticket: int, name: str, last: int, messages: int = 1) -> None:
        """Books a part of messages. Its sizes before the last stage follow from the stages' specs."""
        chain = self.payload(ticket).chains[name]
        self._flow("up", name, chain.words, chain.bytes_before, last, messages)

    # -- the fold ------------------------------------------------------------------------------

    def fold(
        self,
        command: Collect,
        arrived: Iterable["tuple[int, Message] | Block"],
        dropped: Mapping[int, str],
    ) -> Collected:
        """Closes a Collect.

        Args:
          command: as the program yielded it.
          arrived: checked messages by ticket, or blocks of them where the command is `in_blocks`, in the
            order of `open_tickets(command)`; may be lazy, and may add to `dropped` while it is read.
          dropped: the other tickets to close, and why.
        """
        asked = self.open_tickets(command)
        position = {ticket: i for i, ticket in enumerate(asked)}
        folds: dict[str, TreeFold[Any]] = {}
        counted: list[int] = []
        orphans: dict[int, str] = {}
        for item in arrived:
            if isinstance(item, Block):
                self._weigh(item)
                counted.extend(item.counted)
                for name, accumulator in item.folded.items():
                    self._fold_of(folds, name, item.counted[0]).add(position[item.counted[0]], accumulator)
                continue
            ticket, message = item
            after = self._tickets[ticket].task.after
            if after in dropped or after in orphans:
                orphans[ticket] = f"it was built on ticket {after}, which was dropped"
                continue
            counted.append(ticket)
            if not isinstance(message, Admitted):
                message = opened(message, self.task(ticket), self.payload(ticket))
            for name, part in message.parts.items():
                if part is not None:
                    self._add(folds, name, part, ticket, position[ticket], command)
            del item, message  # or the next would be read beside it
        drops = self._drop({**dropped, **orphans})
        parties = tuple(self._tickets[ticket].task.party for ticket in counted)
        needed = command.close.minimum(len(asked))
        abandoned = None
        if command.tickets is not None and len(counted) < needed:
            abandoned = f"{len(counted)} of {len(asked)} contributions were counted, {needed} are needed"
            if drops:
                abandoned += f"; the first that was not: {drops[0].party} ({drops[0].reason})"
            drops += self._drop(dict.fromkeys(counted, "the round was abandoned"))
            return Collected({}, (), (), drops, abandoned)
        for ticket in counted:
            self._close(ticket, "counted")
        self._use(counted=sum(map(self._counts, parties)))
        totals = self._totals(folds, counted)
        return Collected(totals, tuple(counted), parties, drops)

    def _add(
        self,
        folds: dict[str, TreeFold[Any]],
        name: str,
        part: Part,
        ticket: int,
        position: int,
        command: Collect,
    ) -> None:
        if command.discount is not None:
            factor = command.discount.factor(
                command.version - self._sent[self._tickets[ticket].dispatch].version
            )
            part = replace(part, weight=part.weight * factor)
        self._fold_of(folds, name, ticket).lift(position, part)

    def _weigh(self, block: "Block") -> None:
        """Books what the messages of a block weighed."""
        total = 0
        for ticket, size in block.sizes:
            if self._counts(self._tickets[ticket].task.party):
                self._heard[ticket] = self._heard.get(ticket, 0) + size
                total += size
        self._use(bytes_up=total)
        counts = [self._counts(self._tickets[ticket].task.party) for ticket in block.counted]
        for name, sizes in block.carried.items():
            own = [size for size, due in zip(sizes, counts, strict=True) if due]
            self._flow_up(block.counted[0], name, sum(own), len(own))

    def _fold_of(self, folds: dict[str, TreeFold[Any]], name: str, ticket: int) -> TreeFold[Any]:
        if name not in folds:
            folds[name] = TreeFold(self.payload(ticket).uplink[name].into)
        return folds[name]

    def in_blocks(self, command: Collect, tickets: Sequence[int]) -> bool:
        """Whether these tickets may be folded in blocks: all are sent the same and count alike."""
        return command.discount is None and len({self.edition(n) for n in tickets}) == 1

    def _totals(self, folds: Mapping[str, TreeFold[Any]], counted: Sequence[int]) -> dict[str, Total]:
        totals: dict[str, Total] = {}
        dispatches = sorted({self._tickets[ticket].dispatch for ticket in counted})
        for name, fold in folds.items():
            total = fold.result()
            assert total is not None
            chain = self._sent[dispatches[0]].payload.chains[name]
            if chain.decodes is not None and len(dispatches) > 1:
                raise CompositionError(
                    f"{chain.decodes} draws its plan for each dispatch and undoes it on the sum, "
                    "but this sum spans several dispatches: let it be drawn per client, or use a "
                    "synchronous algorithm"
                )
            totals[name] = self._decode(counted[0], dispatches[0], name, total)
        return totals

    def _decode(self, ticket: int, number: int, name: str, total: Total) -> Total:
        """`ticket` is the first that was counted: no two folds share it, so they share no secret."""
        sent = self._sent[number]
        chain: Chain = sent.payload.chains[name]
        secret = self._secret.fold("decode", ticket, name)
        state = self._state(name, chain)
        total, self._states[_slot(name, chain)] = chain.decode(state, sent.payload.plans[name], total, secret)
        return total

    def _state(self, name: str, chain: Chain) -> tuple[Any, ...]:
        return self._states.setdefault(_slot(name, chain), chain.init())

    def decode(self, command: Decode) -> Decoded:
        """Undoes the transforms on a total that a protocol obtained."""
        number = self._tickets[command.ticket].dispatch
        return Decoded(self._decode(command.ticket, number, command.part, command.total))

    def _drop(self, reasons: Mapping[int, str]) -> tuple[Drop, ...]:
        if not reasons:
            return ()
        drops = []
        for ticket, reason in sorted(reasons.items()):
            self._close(ticket, "dropped")
            drops.append(Drop(ticket, self._tickets[ticket].task.party, reason))
        self._use(dropped=len([drop for drop in drops if self._counts(drop.party)]))
        gone = {drop.ticket for drop in drops}
        built_on = {
            n: f"it was built on ticket {t.task.after}, which was dropped"
            for n, t in self._tickets.items()
            if t.state == "open" and t.task.after in gone
        }
        self._rebuild()
        return tuple(drops) + (self._drop(built_on) if built_on else ())

    def _close(self, ticket: int, state: str) -> None:
        held = self._tickets[ticket]
        cost = held.bytes_up + self._heard.pop(ticket, 0)
        self._tickets[ticket] = Ticket(held.task, held.dispatch, state, cost, held.bytes_down, held.edition)

    # -- the end of a round --------------------------------------------------------------------

    def settle(
        self, abandoned: bool
    ) -> tuple[Usage, Mapping[PartyId, tuple[tuple[int, ...], tuple[int, ...]]]]:
        """Ends a round: what it cost, and for each party its (counted, dropped) tickets."""
        settled: dict[PartyId, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        if abandoned:
            counted = [n for n, t in self._tickets.items() if t.state == "counted"]
            self._drop(dict.fromkeys(counted, "the round was abandoned"))
            self._states = dict(self._begun)
        self._begun = dict(self._states)
        traffic = self._traffic()
        for number, ticket in sorted(self._tickets.items()):
            if ticket.state == "open":
                continue
            kept, dropped = settled.get(ticket.task.party, ((), ()))
            if ticket.state == "counted":
                kept += (number,)
            else:
                dropped += (number,)
            settled[ticket.task.party] = (kept, dropped)
        self._settle_references()
        self._tickets = {n: t for n, t in self._tickets.items() if t.state == "open"}
        self._rebuild()
        self._forget()
        usage = replace(self._used(), clients=traffic)
        self._usage = dict.fromkeys(self._usage, 0)
        self._flowed = ()
        self._flows.clear()
        return usage, settled

    def _settle_references(self) -> None:
        """Books who holds what from now on."""
        held: dict[str, dict[PartyId, int]] = {}
        missed: dict[str, list[PartyId]] = {}
        for _, ticket in sorted(self._tickets.items()):
            for slot, version in self._sent[ticket.dispatch].holds.items():
                if ticket.state == "counted":
                    held.setdefault(slot, {})[ticket.task.party] = version
                elif ticket.state == "dropped":
                    missed.setdefault(slot, []).append(ticket.task.party)
        for slot in held.keys() | missed.keys():
            reference = self._references[slot]
            self._references[slot] = reference.settled(held.get(slot, {}), missed.get(slot, ()))

    def _traffic(self) -> dict[PartyId, tuple[int, int]]:
        """What each client has sent and was sent since it was last asked; that is then forgotten."""
        traffic: dict[PartyId, tuple[int, int]] = {}
        for number, ticket in self._tickets.items():
            up, down = ticket.bytes_up + self._heard.pop(number, 0), ticket.bytes_down
            if up or down:
                so_far = traffic.get(ticket.task.party, (0, 0))
                traffic[ticket.task.party] = so_far[0] + up, so_far[1] + down
                if ticket.state == "open":
                    self._tickets[number] = replace(ticket, bytes_up=0, bytes_down=0)
        return traffic

    def _forget(self) -> None:
        needed = {ticket.dispatch for ticket in self._tickets.values()}
        for number in self._sent.keys() - needed:
            del self._sent[number]
        self._packed = {at: packed for at, packed in self._packed.items() if at[0] in self._sent}
        self._payloads = {at: payload for at, payload in self._payloads.items() if at[0] in self._sent}


@dataclass(frozen=True)
class Block:
    """Neighbours in a fold, whose messages were checked and folded where they were computed.

    They fill a part of one aligned block of 2^j positions: see `TreeFold`.

    Args:
      counted: their tickets, in order.
      folded: by part, the reducer's accumulator of all of them; none if nothing was counted.
      sizes: (ticket, bytes) of each message, refused ones included.
      refused: why messages can't be taken, by ticket.
      carried: by part, the bytes of its tensors in each counted message.
      together: whether several clients were computed at once.
      spent: seconds by what they went to.
    """

    counted: tuple[int, ...]
    folded: Mapping[str, Any]
    sizes: tuple[tuple[int, int], ...]
    refused: Mapping[int, str]
    carried: Mapping[str, tuple[int, ...]]
    together: bool = False
    spent: Mapping[str, float] = field(default_factory=dict)


def _slot(part: str, chain: Chain) -> str:
    """Where the server's states of a chain are kept: the same part through the same transforms goes on."""
    return f"{part} {chain.transforms}"
