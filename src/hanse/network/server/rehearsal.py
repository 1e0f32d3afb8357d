"""A dry performance of a run, before it begins: it finds all that the run will ask of its members.

The whole program is performed with answers that are made up, so nothing is trained and no data are needed.
It is performed in several ways, to see which settings of a dispatch depend on the round alone, and which on
what clients answer, on who answers, or on a draw.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
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
    Reducer,
    Spec,
    Total,
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
    Progress,
    Sample,
    Sampled,
    Task,
    TreeFold,
    encode,
    frozen,
    run_work,
)
from hanse.network.protocol.envelope import Envelope, Envelopes, describe_dispatch, name_role
from hanse.network.protocol.forms import Form, find_excess, join_patterns
from hanse.network.server.job import RunJob

__all__ = ["foresee"]

FEW_ROUNDS = 3
"""The rounds that are performed in other ways than the first, to see what their dispatches depend on."""

MOST_COMMANDS = 10_000
"""The most commands of a round; a program that goes on depends on answers that are not made up here."""

MOST_ROUNDS = 1000
"""The rounds of a run that are performed dry; of a longer one some more are, and what varies is free."""

Fill: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], Array]


def _fill_calmly(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Makes up a tensor: numbers are 1, and larger tensors 0, as if nothing had changed."""
    return np.ones(shape, dtype) if math.prod(shape) <= 1 and not shape else np.zeros(shape, dtype)


class _FillWildly:
    """Makes up other tensors: small numbers that differ each time."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if dtype.kind != "f":
            return np.ones(shape, dtype)
        drawn = np.abs(self._rng.standard_normal(shape))
        return np.asarray(1 + drawn if not shape else 1e-3 * drawn).astype(dtype)


@dataclass(frozen=True)
class _Asked:
    """A dispatch as one role is asked."""

    form: Form
    is_phase: bool
    number: int

    @property
    def sort(self) -> str:
        """All by which dispatches differ in kind. Only dispatches of one sort share an envelope."""
        form = self.form
        parts = {
            name: (part["into"]["$"], [t["$"] for t in part["uplink"]])
            for name, part in form["uplink"].items()
        }
        downlink = {name: [t["$"] for t in transforms] for name, transforms in form["downlink"].items()}
        names = sorted(form["shared"]), sorted(form["own"])
        return repr((form["role"], form["work"]["$"], sorted(parts.items()), sorted(downlink.items()), names))


@dataclass
class _Ticket:
    party: PartyId
    dispatch: int
    task: Task


@dataclass
class _Dry:
    """Performs commands with answers that are made up.

    Args:
      num_clients: the number of clients.
      members: whether a member plays a party; the server plays the others.
      fill: makes up a tensor.
      missing: how many of those who are asked do not answer, as far as the program goes on with the others.
    """

    num_clients: int
    members: Callable[[PartyId], bool]
    fill: Fill
    missing: int = 0
    asked: list[_Asked] = field(default_factory=list)
    fewest: dict[int, int] = field(default_factory=dict)
    _next: int = 0
    _tickets: dict[int, _Ticket] = field(default_factory=dict)
    _dispatches: dict[int, Dispatch] = field(default_factory=dict)
    _plans: dict[int, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    _memories: dict[PartyId, Memory] = field(default_factory=dict)
    _totals: dict[str, Total] = field(default_factory=dict)

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

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _dispatch(self, command: Dispatch) -> Dispatched:
        number = self._number()
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
        self.asked += [_Asked(form, command.is_phase, number) for form in forms.values()]
        tickets = []
        for i, party in enumerate(command.cohort):
            ticket = self._number()
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
        counted = asked[: self._least(asked, min(goal, max(needed, len(asked) - self.missing)), goal)]
        closed = asked if command.tickets is not None else counted
        drops = tuple(Drop(t, self._tickets[t].party, "made up") for t in closed if t not in counted)
        parties, totals = tuple(self._tickets[t].party for t in counted), self._total(counted)
        for ticket in closed:
            del self._tickets[ticket]
        why = None if counted else "nobody was asked"
        return Collected(totals, tuple(counted), parties, drops, why, needed)

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
                totals[name] = self._undo(number, name, _fold(part_spec.into, parts))
            else:
                total = self._make_up_total(
                    part_spec, [self._dispatches[t.dispatch].uplink[name] for t in held]
                )
                totals[name] = replace(total, count=len(held))
        return totals

    def _make_up_total(self, part_spec: PartSpec, of_each: Sequence[PartSpec]) -> Total:
        """Makes up the total of a part. Calm totals of what is only added up are alike in each round."""
        if not part_spec.into.elementwise:
            return _fold(part_spec.into, [self._make_up(one.spec) for one in of_each])
        if self.fill is not _fill_calmly:
            return _fold(part_spec.into, [self._make_up(part_spec.spec)])
        key = repr((part_spec.into, part_spec.spec))
        if key not in self._totals:
            total = _fold(part_spec.into, [self._make_up(part_spec.spec)])
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


def _fold(reducer: Reducer[Any], parts: Sequence[Part]) -> Total:
    fold = TreeFold(reducer)
    for i, part in enumerate(parts):
        fold.lift(i, part)
    total = fold.result()
    assert total is not None
    return total


# -- the ways in which a run is performed ------------------------------------------------------


def _lead(job: RunJob, dry: _Dry, progress: Any, rounds: int | None = None) -> Any:
    """Performs a program until it ends, or for so many rounds; returns the last progress that it saved.

    One that stops early is led on, because a real run may not stop there.
    """
    done = 0
    while True:
        program, event, num_commands, before = job.program(progress), None, 0, progress
        try:
            while True:
                command = next(program) if event is None else program.send(event)
                num_commands += 1
                if num_commands > MOST_COMMANDS:
                    raise HanseError(f"a round goes on after {MOST_COMMANDS} commands")
                event = dry.perform(command)
                if isinstance(command, Commit):
                    progress, num_commands = command.state, 0
                    done += command.round > 0
                    if rounds is not None and (done >= rounds or not command.is_closed):
                        program.close()
                        return progress
        except StopIteration as end:
            progress = end.value
        if not isinstance(progress, Progress) or progress.stopped is None or progress.stopped == EARLY:
            return progress
        number = progress.round - progress.finished
        if number <= before.round and before.target_round is not None:  # its last round is performed
            return progress
        progress = replace(
            progress, round=number, stopped=None, finished=False, best=None, num_worse=0, target_round=number
        )


EARLY = "performed dry"


def _probe(job: RunJob, dry: _Dry, attempts: int) -> None:
    """Performs a few rounds, with other draws if `attempts` is above 0, and then the end of a run."""
    progress: Any = job.begin()
    if isinstance(progress, Progress):
        progress = replace(progress, attempts=attempts)
    progress = _lead(job, dry, progress, FEW_ROUNDS)
    if isinstance(progress, Progress) and not progress.finished:
        _lead(job, dry, replace(progress, stopped=EARLY))


def _lead_to_end(job: RunJob, dry: _Dry) -> bool:
    """Performs a run: of a long one the first rounds, a few later ones, and the last.

    Returns: whether rounds were left out.
    """
    progress = _lead(job, dry, job.begin(), MOST_ROUNDS)
    if not isinstance(progress, Progress):
        return False
    if not _has_round(job, dry, progress):
        _lead(job, dry, progress)  # at most its end is left
        return False
    last, beyond = progress.round, 2 * progress.round
    while _has_round(job, dry, _skip_to(progress, beyond)):
        _lead(job, dry, _skip_to(progress, beyond), FEW_ROUNDS)
        last, beyond = beyond, 2 * beyond
    while beyond - last > 1:
        middle = (last + beyond) // 2
        last, beyond = (
            (middle, beyond) if _has_round(job, dry, _skip_to(progress, middle)) else (last, middle)
        )
    _lead(job, dry, _skip_to(progress, max(progress.round, last - FEW_ROUNDS)))
    return True


def _skip_to(progress: Progress[Any], round: int) -> Progress[Any]:
    """Makes the progress that a run has later, with each number of its state that counts rounds."""
    state = progress.state
    counts = {
        one.name: round
        for one in (fields(state) if is_dataclass(state) else ())
        if type(held := getattr(state, one.name)) is int and held == progress.round
    }
    return replace(progress, round=round, state=replace(state, **counts) if counts else state)


def _has_round(job: RunJob, dry: _Dry, progress: Progress[Any]) -> bool:
    """Returns whether a run has another round after so many. It is performed apart."""
    then = _lead(job, _Dry(dry.num_clients, dry.members, dry.fill), progress, 1)
    return isinstance(then, Progress) and then.round > progress.round and not then.finished


def foresee(job: RunJob) -> tuple[Envelopes, str]:
    """Finds the envelopes of all that a run will ask of its members.

    Returns: the envelopes; and why some may be missing, empty if the whole run could be performed.
    """

    def is_member(party: PartyId) -> bool:
        return party in job.parties or name_role(party) in ("client", "test")

    num_clients = max(1, job.num_clients)
    whole, why, is_cut = _Dry(num_clients, is_member, _fill_calmly), "", False
    try:
        is_cut = _lead_to_end(job, whole)
    except Exception as error:  # a program may not bear such answers
        why = f"{type(error).__name__}: {error}"
        other = _Dry(num_clients, is_member, _FillWildly())
        with suppress(Exception):
            is_cut = _lead_to_end(job, other)
            why = ""
        whole = other if not why else whole
    probes = [
        (_Dry(num_clients, is_member, _FillWildly()), 1),
        (_Dry(num_clients + 3, is_member, _fill_calmly, missing=num_clients + 3), 0),
        (_Dry(num_clients + 7, is_member, _fill_calmly, missing=2), 0),
    ]
    for dry, attempts in probes:
        with suppress(Exception):
            _probe(job, dry, attempts)
    return _join(whole, [dry for dry, _ in probes], is_cut), why


def _join(whole: _Dry, probes: Sequence[_Dry], is_cut: bool) -> Envelopes:
    """Joins the forms of each sort of dispatch into one envelope.

    Args:
      is_cut: whether not every round was performed, so that what varies may take other values.
    """
    patterns: dict[str, Form] = {}
    fewest: dict[str, int] = {}
    phases: dict[str, bool] = {}
    for dry in (whole, *probes):
        for i, asked in enumerate(dry.asked):
            sort, form = asked.sort, asked.form
            beside = whole.asked[i] if i < len(whole.asked) else asked
            if beside.sort == sort and dry is not whole:
                # what differs here does not depend on the round alone
                form = join_patterns(beside.form, form, free=True)
            known = patterns.get(sort)
            if known is None:
                patterns[sort] = form
            elif find_excess(known, form) is not None:
                patterns[sort] = join_patterns(known, form, free=is_cut or dry is not whole)
            if dry is whole or sort not in fewest:
                least = dry.fewest.get(asked.number, 0)
                fewest[sort] = min(least, fewest.get(sort, least))
            phases[sort] = phases.get(sort, True) and asked.is_phase
    return Envelopes(tuple(Envelope(patterns[s], fewest[s], phases[s]) for s in sorted(patterns)))
