"""A runtime that makes the answers of clients up, and notes what they are asked."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    HanseError,
    Key,
    Memory,
    Part,
    PartSpec,
    PartyId,
    Spec,
    Total,
    reduce,
)
from hanse.core.exchange import (
    Collect,
    Collected,
    Command,
    Commit,
    Committed,
    Decode,
    Decoded,
    Dispatch,
    Dispatched,
    Drop,
    Event,
    LeaveOut,
    LeftOut,
    Payload,
    Sample,
    Sampled,
    Task,
    encode,
    frozen,
    run_work,
)
from hanse.network.protocol.envelope import describe_dispatch, name_role
from hanse.network.protocol.forms import Form, join_patterns

__all__ = ["AskedForm", "DryRuntime", "FillWildly", "fill_calmly"]

MOST_DRAWN = 10_000
"""The most numbers that are drawn for one tensor; a larger one repeats them, to save memory and time."""

Fill: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], Array]


def fill_calmly(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Makes up a tensor: numbers are 1, and larger tensors 0, as if nothing had changed."""
    return np.ones(shape, dtype) if math.prod(shape) <= 1 and not shape else np.zeros(shape, dtype)


class FillWildly:
    """Makes up other tensors: small numbers that differ each time."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if dtype.kind != "f":
            return np.ones(shape, dtype)
        drawn = np.abs(self._rng.standard_normal(min(math.prod(shape), MOST_DRAWN)))
        return np.resize((1e-3 * drawn if shape else 1 + drawn).astype(dtype), shape)  # repeats what is drawn


@dataclass(frozen=True)
class AskedForm:
    """A dispatch as one role is asked."""

    form: Form
    is_phase: bool
    number: int

    @property
    def sort(self) -> str:
        """All by which dispatches differ in kind. Only dispatches of one sort share an envelope."""
        form = self.form
        uplink = form["uplink"].items()
        parts = {name: (part["into"]["$"], [t["$"] for t in part["uplink"]]) for name, part in uplink}
        downlink = {name: [t["$"] for t in transforms] for name, transforms in form["downlink"].items()}
        names = sorted(form["shared"]), sorted(form["own"])
        return repr((form["role"], form["work"]["$"], sorted(parts.items()), sorted(downlink.items()), names))


@dataclass
class _Ticket:
    party: PartyId
    dispatch: int
    task: Task


@dataclass
class DryRuntime:
    """Performs commands with answers that are made up.

    Args:
      num_clients: the number of clients.
      members: whether a member plays a party; the server plays the others.
      fill: makes up a tensor.
      missing: how many of those who are asked do not answer, as far as the program goes on with the others.
      lossy_phase: of a reducer's protocol, the phase that one client does not answer, from 1; 0: none. A
        protocol needs most of its clients, so nobody else is missing in it.
    """

    num_clients: int
    members: Callable[[PartyId], bool]
    fill: Fill
    missing: int = 0
    lossy_phase: int = 0
    asked: list[AskedForm] = field(default_factory=list)
    fewest: dict[int, int] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _tickets: dict[int, _Ticket] = field(default_factory=dict)
    _dispatches: dict[int, Dispatch] = field(default_factory=dict)
    _plans: dict[int, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    _memories: dict[PartyId, Memory] = field(default_factory=dict)
    _totals: dict[str, Total] = field(default_factory=dict)
    _phase: int = 0

    def forget(self) -> None:
        """Frees what only further commands would need: models and totals. What was asked is kept."""
        for held in (self._tickets, self._dispatches, self._plans, self._memories, self._totals):
            held.clear()

    def perform(self, command: Command[Any]) -> Event:
        match command:
            case Sample():
                busy = {ticket.party for ticket in self._tickets.values()}
                idle = [number for number in range(self.num_clients) if number not in busy]
                return Sampled(tuple(idle[: command.size(self.num_clients)]), self.num_clients)
            case Dispatch():
                return self._dispatch(command)
            case Collect():
                return self._collect(command)
            case Decode():
                return self._decode(command)
            case LeaveOut():
                return LeftOut()
            case Commit():
                self._memories.clear()
                kept = {ticket.dispatch for ticket in self._tickets.values()}
                for number in self._dispatches.keys() - kept:
                    del self._dispatches[number], self._plans[number]
                return Committed()
            case _:
                raise HanseError(f"a {type(command).__name__} can't be performed")

    def _dispatch(self, command: Dispatch) -> Dispatched:
        number = next(self._numbers)
        self._phase = self._phase + 1 if command.is_phase else 0
        chains = {name: part_spec.chain() for name, part_spec in command.uplink.items()}
        plans = {name: chain.plan(chain.init(), command.key) for name, chain in chains.items()}
        self._dispatches[number], self._plans[number] = command, plans
        forms: dict[str, Form] = {}
        for party in command.cohort:
            role = name_role(party)
            if not self.members(party) or (role in forms and not command.own):
                continue
            form = describe_dispatch(command, party, plans)
            forms[role] = join_patterns(forms[role], form, free=True) if role in forms else form
        self.asked += [AskedForm(form, command.is_phase, number) for form in forms.values()]
        tickets = []
        for i, party in enumerate(command.cohort):
            ticket = next(self._numbers)
            task = Task(ticket, party, command.key.fold_in("party", i), None, command.own.get(party, {}))
            self._tickets[ticket] = _Ticket(party, number, task)
            tickets.append(ticket)
        return Dispatched(tuple(tickets), number)

    def _collect(self, command: Collect) -> Collected:
        asked = [t for t in (command.tickets or tuple(self._tickets)) if t in self._tickets]
        needed = command.close.minimum(len(asked)) if command.tickets is not None else 1
        goal = len(asked) if command.close.goal is None else min(command.close.goal, len(asked))
        for number in {self._tickets[t].dispatch for t in asked}:
            known = min((part.into.fewest for part in self._dispatches[number].uplink.values()), default=0)
            least = max(known, needed if command.tickets is not None else goal)
            self.fewest[number] = min(least, self.fewest.get(number, least))
        missing = self._count_missing(asked)
        counted = asked[: self._least(asked, min(goal, max(needed, len(asked) - missing)), goal)]
        closed = asked if command.tickets is not None else counted
        drops = tuple(Drop(t, self._tickets[t].party, "made up") for t in closed if t not in counted)
        parties, totals = tuple(self._tickets[t].party for t in counted), self._total(counted)
        for ticket in closed:
            del self._tickets[ticket]
        why = None if counted else "nobody was asked"
        return Collected(totals, tuple(counted), parties, drops, why, needed)

    def _count_missing(self, asked: Sequence[int]) -> int:
        dispatches = [self._dispatches[self._tickets[ticket].dispatch] for ticket in asked]
        if any(command.is_phase for command in dispatches):
            return int(self._phase == self.lossy_phase)
        hides = any(part_spec.into.hides for command in dispatches for part_spec in command.uplink.values())
        return 0 if hides else self.missing

    def _least(self, asked: Sequence[int], needed: int, goal: int) -> int:
        """Returns the least number of answers, of at least `needed`, that all reducers can fold."""
        uplinks = [self._dispatches[self._tickets[ticket].dispatch].uplink for ticket in asked]
        reducers = [part_spec.into for uplink in uplinks for part_spec in uplink.values()]
        for count in range(needed, goal):
            with suppress(CompositionError):
                for reducer in reducers:
                    reducer.check_number(count)
                return count
        return max(needed, goal)

    def _total(self, counted: Sequence[int]) -> dict[str, Total]:
        of_part: dict[str, list[_Ticket]] = {}
        answers = {t: self._answer(self._tickets[t]) for t in counted if self._is_computed(self._tickets[t])}
        for ticket in counted:
            for name, part_spec in self._dispatches[self._tickets[ticket].dispatch].uplink.items():
                if not part_spec.into.hides:
                    of_part.setdefault(name, []).append(self._tickets[ticket])
        totals = {}
        for name, held in of_part.items():
            number = held[0].dispatch
            part_spec = self._dispatches[number].uplink[name]
            if held[0].task.ticket in answers:
                parts = [part for one in held if (part := answers[one.task.ticket][name]) is not None]
                totals[name] = self._undo(number, name, reduce(part_spec.into, parts))
            else:
                total = self._make_up_total(
                    part_spec, [self._dispatches[t.dispatch].uplink[name] for t in held]
                )
                totals[name] = replace(total, count=len(held))
        return totals

    def _make_up_total(self, part_spec: PartSpec, of_each: Sequence[PartSpec]) -> Total:
        """Makes up the total of a part. Calm totals of what is only added up are alike in each round."""
        if not part_spec.into.elementwise:
            return reduce(part_spec.into, [self._make_up(one.spec) for one in of_each])
        if self.fill is not fill_calmly:
            return reduce(part_spec.into, [self._make_up(part_spec.spec)])
        key = repr((part_spec.into, part_spec.spec))
        if key not in self._totals:
            total = reduce(part_spec.into, [self._make_up(part_spec.spec)])
            self._totals[key] = replace(total, values=frozen(total.values))
        return self._totals[key]

    def _undo(self, number: int, name: str, total: Total) -> Total:
        chain, key = self._dispatches[number].uplink[name].chain(), self._dispatches[number].key
        return chain.decode(chain.init(), self._plans[number][name], total, key)[0]

    def _is_computed(self, ticket: _Ticket) -> bool:
        """Returns whether messages are really encoded: a protocol's phases go on from what is in memory."""
        command = self._dispatches[ticket.dispatch]
        hides = any(part_spec.into.hides for part_spec in command.uplink.values())
        return (command.is_phase or hides) and not command.work.needs_houses  # a secret that it lacks

    def _answer(self, ticket: _Ticket) -> Mapping[str, Part | None]:
        command = self._dispatches[ticket.dispatch]
        payload = Payload(command.work, command.shared, command.uplink, self._plans[ticket.dispatch])
        task, memory = ticket.task, self._memories.get(ticket.party, {})
        secret = Key.from_seed(0).fold_in("dry", task.ticket)
        parts: Mapping[str, Part] = {}
        after: Memory = memory
        if command.is_phase:
            parts, after = run_work(task, payload, None, None, memory, secret)
        else:
            parts = {name: self._make_up_inside(payload, task, name) for name in command.uplink}
        message, kept = encode(task, payload, parts, after, memory, secret)
        self._memories[ticket.party] = kept
        chains, plans = payload.chains, self._plans[ticket.dispatch]
        return {
            name: part and chains[name].open(plans[name], part, task.key.fold_in(name))
            for name, part in message.parts.items()
        }

    def _make_up_inside(self, payload: Payload, task: Task, name: str) -> Part:
        space = payload.chains[name].space(payload.plans[name], task.key.fold_in(name))
        return self._make_up(payload.uplink[name].spec) if space is None else Part(space.zero())

    def _make_up(self, spec: Spec) -> Part:
        return Part(
            {
                name: self.fill(
                    tuple(dim if isinstance(dim, int) else 1 for dim in tensor.shape), np.dtype(tensor.dtype)
                )
                for name, tensor in spec.tensors.items()
            }
        )

    def _decode(self, command: Decode) -> Decoded:
        numbers = [n for n, asked in self._dispatches.items() if command.part in asked.uplink]
        hiding = [n for n in numbers if self._dispatches[n].uplink[command.part].into.hides]
        return Decoded(self._undo(hiding[-1], command.part, command.total))
