"""Whole exchanges: work goes out, answers come back, and what reducers hide is brought to light."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from hanse.core.chain import Transform
from hanse.core.errors import CompositionError, RoundAbandoned
from hanse.core.keys import Key
from hanse.core.program import (
    Close,
    Collect,
    Collected,
    Command,
    Decode,
    Decoded,
    Dispatch,
    Dispatched,
    Drop,
    Event,
    PartSpec,
    Program,
    ask,
    collect,
)
from hanse.core.reducers import Unveiled, each
from hanse.core.tensors import Tensors
from hanse.core.values import digest, value
from hanse.core.work import Contribution, Part, PartyId, Total, Work

__all__ = ["LeaveOut", "LeftOut", "ask_each", "find_zeros", "gather", "leave_out"]


@value
class LeaveOut(Command["LeftOut"]):
    """Note parties whose counted contributions the program keeps out of what it makes of them.

    A reducer that does so says it in `Total.left_out`. This is for programs that weigh them themselves.
    """

    parties: tuple[PartyId, ...]


@value
class LeftOut(Event):
    """The parties are noted, in `Usage.left_out` of the round."""


def leave_out(parties: Iterable[PartyId]) -> Program[LeftOut]:
    """Notes parties whose contributions the program keeps out of what it makes of them."""
    return (yield from ask(LeaveOut(tuple(parties)), LeftOut))


def gather(
    work: Work[Any, Any],
    cohort: tuple[PartyId, ...],
    shared: Mapping[str, Tensors],
    key: Key,
    *,
    close: Close = Close(),
    downlink: tuple[Transform, ...] = (),
    own: Mapping[PartyId, Mapping[str, Tensors]] | None = None,
    **uplink: PartSpec,
) -> Program[Collected]:
    """Dispatches and collects: one exchange with a cohort. Runs the protocols of reducers that hide.

    Raises: RoundAbandoned: if too few contributions arrive, or if the totals of several parts would not be
      of the same parties.
    """
    command = Dispatch(work, cohort, shared, uplink, key, 0, downlink, own or {})
    dispatched = yield from ask(command, Dispatched)
    got = yield from _collect_enough(dispatched.tickets, close, dispatched.dispatch)
    if not got.counted or not any(part_spec.into.hides for part_spec in uplink.values()):
        return got
    try:
        return (yield from _unveil(got, uplink, key, close))
    except RoundAbandoned as reason:
        reason.waits |= close.wait_s is not None
        raise


def _collect_enough(
    tickets: tuple[int, ...], close: Close, dispatch: int | None = None
) -> Program[Collected]:
    got = yield from collect(tickets, close=close, dispatch=dispatch)
    if got.abandoned is not None:
        dropped = tuple(drop.reason for drop in got.dropped)
        raise RoundAbandoned(got.abandoned, dropped, waits=close.wait_s is not None)
    return got


def _unveil(got: Collected, uplink: Mapping[str, PartSpec], key: Key, close: Close) -> Program[Collected]:
    """Runs the protocols of hidden parts. Only parties that are in all totals stay counted."""
    groups: dict[str, list[str]] = {}
    for part, part_spec in uplink.items():
        if part_spec.into.hides:
            groups.setdefault(digest(part_spec.into), []).append(part)
    hidden: dict[str, Total] = {}
    parties = got.parties
    for parts in groups.values():
        reducer = uplink[parts[0]].into
        specs = {part: uplink[part].chain().out for part in parts}
        protocol = reducer.protocol(specs, got.parties, key.fold_in("protocol", *parts))
        unveiled: Any = yield from _perform_phases(protocol, close)
        if not isinstance(unveiled, Unveiled) or unveiled.totals.keys() != specs.keys():
            raise CompositionError(
                f"the protocol of {reducer} must return Unveiled(totals, parties), with a total for each of "
                f"{parts}"
            )
        inside = set(unveiled.parties)
        if hidden and inside != set(parties):
            raise RoundAbandoned(
                f"{', '.join(hidden)} and {', '.join(parts)} were summed by different protocols, which did "
                "not end with the same clients: hide both with equal reducers, and one protocol sums them"
            )
        parties = tuple(party for party in got.parties if party in inside)
        hidden |= unveiled.totals
    zeros = {} if parties or close.minimum_fraction > 0 else find_zeros(uplink, hidden)
    hidden |= zeros
    _check_survivors(got, parties, uplink, needed=0 if zeros else got.needed)
    tickets = dict(zip(got.parties, got.counted, strict=True))
    gone = tuple(ticket for party, ticket in tickets.items() if party not in parties)
    first = tickets[parties[0]] if parties else got.counted[0]
    totals, dropped = dict(got.totals), list[Drop](got.dropped)
    for part, total in hidden.items():
        decoded = yield from ask(Decode(first, part, total, gone), Decoded)
        totals[part] = decoded.total
        dropped += decoded.dropped
    counted = tuple(tickets[party] for party in parties)
    return replace(got, totals=totals, counted=counted, parties=parties, dropped=tuple(dropped))


def find_zeros(uplink: Mapping[str, PartSpec], parts: Iterable[str]) -> dict[str, Total]:
    """Returns the totals of nobody, by part; none at all if one of the reducers has none."""
    zeros = {part: uplink[part].into.zero(uplink[part].chain().folded) for part in parts}
    found = {part: zero for part, zero in zeros.items() if zero is not None}
    return found if found.keys() == zeros.keys() else {}


def _check_survivors(
    got: Collected, parties: tuple[PartyId, ...], uplink: Mapping[str, PartSpec], needed: int
) -> None:
    """Checks that the parties in hidden totals suffice, and that no other total counts more of them."""
    if len(parties) < needed:
        raise RoundAbandoned(
            f"{len(parties)} of {len(got.parties)} clients were left at the end of the protocol, "
            f"{needed} are needed"
        )
    open_parts = [part for part, part_spec in uplink.items() if not part_spec.into.hides]
    if open_parts and len(parties) < len(got.parties):
        raise RoundAbandoned(
            f"{open_parts[0]!r} is open and counts all {len(got.parties)} clients, but only {len(parties)} "
            "were left at the end of the protocol: hide it too, or send it in an exchange of its own"
        )


def _perform_phases(protocol: Program[Unveiled], close: Close) -> Program[Unveiled]:
    """Performs a protocol. No client is counted again in its phases, and they wait as its exchange does."""
    try:
        command = next(protocol)
        while True:
            if isinstance(command, Dispatch):
                command = replace(command, is_phase=True)
            if isinstance(command, Collect) and command.close.wait_s is None and close.wait_s is not None:
                command = replace(command, close=replace(command.close, wait_s=close.wait_s))
            command = protocol.send((yield command))
    except StopIteration as end:
        unveiled: Unveiled = end.value
        return unveiled
    finally:
        protocol.close()


def ask_each(
    asked: Mapping[PartyId, tuple[Work[Any, Any], Mapping[str, Tensors]]],
    key: Key,
    *,
    close: Close = Close(),
    **uplink: PartSpec | Mapping[PartyId, PartSpec],
) -> Program[dict[PartyId, Contribution]]:
    """Asks each party for its own work with its own tensors, all in one round trip.

    Args:
      asked: by party, the work and the tensors for this party alone.
      key: from which each party's key is derived.
      close: when to go on without answers that are missing.
      uplink: the parts, all into `each()`: one PartSpec for all parties, or one for each that emits the part.

    Returns: the answers of the counted parties, in the order of `asked`.
    Raises: RoundAbandoned: if too few answer.
    """
    groups: dict[str, tuple[Work[Any, Any], dict[str, PartSpec], dict[PartyId, Mapping[str, Tensors]]]] = {}
    parts_of: dict[PartyId, dict[str, PartSpec]] = {}
    for party, (work, tensors) in asked.items():
        parts = parts_of[party] = _find_parts(party, uplink)
        groups.setdefault(digest((work, parts)), (work, parts, {}))[2][party] = tensors
    tickets: dict[PartyId, int] = {}
    for work, parts, own in groups.values():
        command = Dispatch(work, tuple(own), {}, parts, key, own=own)
        dispatched = yield from ask(command, Dispatched)
        tickets.update(zip(own, dispatched.tickets, strict=True))
    got = yield from _collect_enough(tuple(tickets[party] for party in asked), close)
    answers: dict[PartyId, dict[str, Part]] = {party: {} for party in got.parties}
    for name, total in got.totals.items():
        emitters = [party for party in got.parties if name in parts_of[party]]
        for party, part in zip(emitters, each.split(total), strict=True):
            answers[party][name] = part
    return dict(answers)


def _find_parts(
    party: PartyId, uplink: Mapping[str, PartSpec | Mapping[PartyId, PartSpec]]
) -> dict[str, PartSpec]:
    """Returns the parts that a party emits. Raises: CompositionError: if one is not handed over alone."""
    parts: dict[str, PartSpec] = {}
    for name, given in uplink.items():
        part_spec = given if isinstance(given, PartSpec) else given.get(party)
        if part_spec is None:
            continue
        if not isinstance(part_spec.into, each):
            raise CompositionError(
                f"ask_each hands over answers by party, and part {name!r} goes into {part_spec.into}: write "
                "into=each(), or use gather(..., own=...)"
            )
        parts[name] = part_spec
    return parts
