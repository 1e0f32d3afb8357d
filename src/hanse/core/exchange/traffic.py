"""The ledger: the cost of a round in all, by client, and by what its tensors went through."""

from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from hanse.core.chain import Chain
from hanse.core.errors import NotReady
from hanse.core.exchange.changes import Tracked
from hanse.core.exchange.downlink import Editions
from hanse.core.exchange.fold import Block
from hanse.core.exchange.tickets import ClosedTicket, Ticket
from hanse.core.program import Dispatch
from hanse.core.tensors import num_bytes
from hanse.core.usage import Flow, ReleaseRecord, Usage
from hanse.core.values import brief
from hanse.core.work import Part, PartyId

__all__ = ["TrafficLedger", "merge_usage"]

_SUMS = ("bytes_up", "bytes_down", "counted", "dropped", "virtual_s")
"""The fields of `Usage` that are added up."""


class TrafficLedger:
    """Adds up the `Usage` of one round.

    Args:
      owner: the party that coordinates; what it sends itself costs nothing.
      usage: the round's cost so far.
      parties: the names of parties that are members, whose messages cost bytes as those of clients do.
    """

    def __init__(self, owner: PartyId, usage: Usage, parties: Set[str] = frozenset()) -> None:
        self._owner, self._parties = owner, parties
        self._sums: dict[str, float] = {name: getattr(usage, name) for name in _SUMS}
        self._flows: Tracked[tuple[Any, ...], Flow] = Tracked(_by_name(usage.flows))
        self._recent: dict[tuple[Any, ...], list[int]] = {}
        self._releases, self._num_told = list(usage.releases), len(usage.releases)
        self._left_out = dict.fromkeys(usage.left_out)
        self._heard: dict[int, int] = {}

    def is_metered(self, party: PartyId) -> bool:
        """Returns whether a party's messages cost bytes: those of members do, except the owner's own."""
        return (isinstance(party, int) or party in self._parties) and party != self._owner

    def add(self, **amounts: float) -> None:
        """Adds to sums of the round, by the names of the fields of `Usage`."""
        for name, amount in amounts.items():
            self._sums[name] += amount

    def add_release(self, release: ReleaseRecord) -> None:
        """Books a noised total that was decoded. Nothing takes it back: it was seen."""
        self._releases.append(release)

    def add_left_out(self, parties: Iterable[PartyId]) -> None:
        """Books counted parties that a reducer kept out of a total."""
        self._left_out |= dict.fromkeys(parties)

    def hear(self, ticket: int, num_bytes: int) -> None:
        """Books bytes that a ticket's holder sent."""
        self._sums["bytes_up"] += num_bytes
        self._heard[ticket] = self._heard.get(ticket, 0) + num_bytes

    def take_heard(self, ticket: int) -> int:
        """Returns the bytes heard for a ticket since it was last asked, and starts again at 0."""
        return self._heard.pop(ticket, 0)

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Forgets what is heard within it if a party turns out not to be ready yet."""
        self._merge_flows()
        sums, heard = dict(self._sums), dict(self._heard)
        try:
            yield
        except NotReady:
            self._sums, self._heard = sums, heard
            self._recent.clear()
            raise

    # -- flows: the tensors within the messages, by name ---------------------------------------

    def add_broadcasts(self, command: Dispatch, editions: Editions) -> None:
        """Books the tensors that a dispatch sends, whole or as differences."""
        readers = [party for party in command.cohort if self.is_metered(party)]
        for party in readers:
            for name, tensors in command.own.get(party, {}).items():
                self._add_flow("down", name, (), (), num_bytes(tensors))
        if not command.downlink:
            for name, tensors in command.shared.items():
                self._add_flow("down", name, (), (), num_bytes(tensors) * len(readers), len(readers))
            return
        stages = (f"downlink({', '.join(map(brief, command.downlink))})",)
        for party in readers:
            for name, sent in editions.broadcasts[editions.by_party[party]].items():
                whole = num_bytes(command.shared[name])
                self._add_flow("down", name, stages, (whole,), sent.num_bytes)

    def add_parts(self, parts: Mapping[str, Part | None], chains: Mapping[str, Chain]) -> None:
        """Books the tensors of a message that was taken."""
        for name, part in parts.items():
            if part is not None:
                self._add_flow_up(name, chains[name], num_bytes(part.values))

    def add_block(self, block: Block, tickets: Mapping[int, Ticket], chains: Mapping[str, Chain]) -> None:
        """Books the bytes of a block's messages and the tensors in the counted ones.

        Args:
          block: of messages.
          tickets: says who sent them.
          chains: of their parts.
        """
        for ticket, size in block.sizes:
            if self.is_metered(tickets[ticket].task.party):
                self.hear(ticket, size)
        metered = [self.is_metered(tickets[ticket].task.party) for ticket in block.counted]
        for name, sizes in block.carried.items():
            own = [size for size, is_metered in zip(sizes, metered, strict=True) if is_metered]
            self._add_flow_up(name, chains[name], sum(own), len(own))

    def _add_flow_up(self, name: str, chain: Chain, last: int, messages: int = 1) -> None:
        """Books a part of messages. Its sizes before the last stage follow from the stages' specs."""
        self._add_flow("up", name, chain.descriptions, chain.bytes_before, last, messages)

    def _add_flow(
        self,
        direction: Literal["up", "down"],
        name: str,
        stages: tuple[str, ...],
        before: tuple[int | None, ...],
        last: int,
        messages: int = 1,
    ) -> None:
        """Books messages that carried `before` bytes each before the last stage, and all `last` after it."""
        if messages:
            booked = self._recent.setdefault((direction, name, stages, before), [0, 0])
            booked[0] += messages
            booked[1] += last

    def _merge_flows(self) -> None:
        """Adds what was booked lately to the flows of the round."""
        for (direction, name, stages, before), (n, last) in self._recent.items():
            sizes = (*(None if size is None else size * n for size in before), last)
            flow, at = Flow(direction, name, stages, n, sizes), (direction, name, stages)
            self._flows[at] = self._flows[at] + flow if at in self._flows else flow
        self._recent.clear()

    # -- the sums ------------------------------------------------------------------------------

    @property
    def usage(self) -> Usage:
        """The round's cost so far, not parted by client."""
        self._merge_flows()
        sums: dict[str, Any] = self._sums
        flows, releases = tuple(self._flows.values()), tuple(self._releases)
        return Usage(**sums, flows=flows, releases=releases, left_out=tuple(self._left_out))

    def take_changes(self) -> Usage:
        """Returns the round's cost so far, with those flows and releases alone that are new."""
        self._merge_flows()
        sums: dict[str, Any] = self._sums
        releases, self._num_told = tuple(self._releases[self._num_told :]), len(self._releases)
        flows = tuple(self._flows.take_edits().changed.values())
        return Usage(**sums, flows=flows, releases=releases, left_out=tuple(self._left_out))

    def sum_by_party(self, tickets: Mapping[int, Ticket | ClosedTicket]) -> dict[PartyId, tuple[int, int]]:
        """Adds up the bytes (up, down) of each party's tickets, where there are any."""
        sums: dict[PartyId, tuple[int, int]] = {}
        for number, ticket in tickets.items():
            up, down = ticket.bytes_up + self._heard.get(number, 0), ticket.bytes_down
            if up or down:
                so_far = sums.get(ticket.party, (0, 0))
                sums[ticket.party] = so_far[0] + up, so_far[1] + down
        return sums

    def begin_round(self) -> None:
        """Starts again at nothing."""
        self._sums = dict.fromkeys(_SUMS, 0)
        self._flows = Tracked()
        self._recent.clear()
        self._releases, self._num_told = [], 0
        self._left_out = {}
        self._heard.clear()


def merge_usage(usage: Usage, later: Usage) -> Usage:
    """Returns the later cost of a round, with what it does not mention of flows and releases."""
    flows = {**_by_name(usage.flows), **_by_name(later.flows)}
    return replace(later, flows=tuple(flows.values()), releases=usage.releases + later.releases)


def _by_name(flows: Iterable[Flow]) -> dict[tuple[Any, ...], Flow]:
    return {(flow.direction, flow.name, flow.stages): flow for flow in flows}
