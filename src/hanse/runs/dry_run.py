"""A plan of all messages that a run will send, from those of one client, which are really made."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hanse.core import Close, InvalidInput, Key, PartyId, Program, RoundAbandoned
from hanse.core.exchange import (
    Collect,
    Collected,
    Command,
    Commit,
    Dispatch,
    Dispatched,
    Event,
    Flow,
    Runtime,
    Sample,
    Sampled,
    Usage,
    choose_measure,
    drive,
)
from hanse.privacy import PrivacyClaim
from hanse.privacy.secure_sums import SecureReducer
from hanse.runs.ledger import as_json
from hanse.runs.preparation import Prepared
from hanse.runs.protection import plan_claim
from hanse.runs.timeline import measure_speed, time_exchanges
from hanse.simulation import InProcess, Simulation

__all__ = ["Exchange", "LinkModel", "MessagePlan", "plan_messages"]

# -- the link ----------------------------------------------------------------------------------

_BITS = {"bit": 1, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9, "B": 8, "kB": 8e3, "MB": 8e6, "GB": 8e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class LinkModel:
    """The link between each client and the server.

    Args:
      up_bps, down_bps: bits a second.
      latency_s: seconds that each message takes in addition.
    """

    up_bps: float
    down_bps: float
    latency_s: float = 0.0

    @classmethod
    def read(cls, up: str | None, down: str | None, latency: str | None) -> "LinkModel | None":
        """Reads a link from words such as "10Mbit", "1.5MB" (a second) and "50ms"; None if none is given.

        Raises: InvalidInput: if they can't be read, or only one direction is given.
        """
        if up is None and down is None and latency is None:
            return None
        if up is None or down is None:
            raise InvalidInput("a link has two directions: write both, such as --up 10Mbit --down 50Mbit")
        return cls(
            _number("--up", up, _BITS),
            _number("--down", down, _BITS),
            0.0 if latency is None else _number("--latency", latency, _SECONDS),
        )

    def seconds(self, bytes_up: float, bytes_down: float) -> float:
        """Computes the seconds of one download and one upload."""
        return 2 * self.latency_s + 8 * bytes_down / self.down_bps + 8 * bytes_up / self.up_bps


def _number(option: str, given: str, units: Mapping[str, float]) -> float:
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([A-Za-z]+?)(?:/s|ps)?\s*", given)
    scale = units.get(found[2]) if found else None
    if found is None or scale is None or (float(found[1]) == 0 and units is _BITS):
        example = "10Mbit" if units is _BITS else "50ms"
        raise InvalidInput(
            f"{option} is {given!r}; write a number and one of {', '.join(units)}, such as {example}"
        )
    return float(found[1]) * scale


# -- the rehearsal -----------------------------------------------------------------------------


@dataclass
class Exchange:
    """One broadcast and its answers, as one client has them.

    Args:
      work: the name of the work.
      asked: the number of clients that the broadcast is sent to.
      answered: the number of messages that the server waits for.
      usage: bytes and flows of one client.
      varying: parts and stages whose size depends on the data.
      compute_s: how long that client's computation took here.
      secure: the secure sum that its answers enter, in words; empty: none.
      cohort: the clients that are asked.
      cost: returns the examples that a client with so many examples visits.
      key: of the dispatch.
    """

    work: str
    asked: int
    answered: int
    usage: Usage = Usage()
    varying: set[tuple[str, str]] = field(default_factory=set)
    compute_s: float = 0.0
    secure: str = ""
    cohort: tuple[PartyId, ...] = ()
    cost: Callable[[int], float] = lambda num_examples: 0.0
    key: Key | None = None

    @property
    def bytes_up(self) -> int:
        """The bytes that all clients send."""
        return self.usage.bytes_up * self.answered

    @property
    def bytes_down(self) -> int:
        """The bytes that all clients receive."""
        return self.usage.bytes_down * self.asked


class _Rehearsal(Runtime):
    """A runtime that has one client in place of each cohort, and books the costs of that client.

    A reducer that hides needs the whole cohort, so all of it is performed, and each client's share is booked.
    """

    def __init__(self, ready: Prepared) -> None:
        self._inner = Simulation(
            InProcess(ready.learner, ready.population, ready.keys),
            ready.population.num_clients,
            ready.keys,
            parties=ready.parties,
        )
        self.client: PartyId | None = None
        self._num_sampled = 1
        self._drawn: tuple[PartyId, ...] = ()
        self._exchange_of: dict[int, Exchange] = {}
        self.exchanges: list[Exchange] = []
        self.asynchronous = False

    def snapshot(self) -> Any:
        raise NotImplementedError("a rehearsal is not resumed")

    def restore(self, snapshot: Any, changes: Sequence[Any] = ()) -> None:
        raise NotImplementedError("a rehearsal is not resumed")

    def perform(self, command: Command[Any]) -> Event:
        match command:
            case Sample():
                return self._sample(command)
            case Dispatch():
                return self._dispatch(command)
            case Collect():
                return self._collect(command)
            case _:
                return self._inner.perform(command)

    def _sample(self, command: Sample) -> Sampled:
        if command.rate is not None:  # the expected cohort, because the drawn one may be empty
            command = Sample(command.key, command.size(self._inner.coordinator.num_clients))
        drawn = self._inner.coordinator.sample(command)
        if not drawn.cohort:
            return drawn
        self.client = drawn.cohort[0] if self.client is None else self.client
        self._num_sampled, self._drawn = len(drawn.cohort), drawn.cohort
        return Sampled((self.client,), drawn.num_clients)

    def _dispatch(self, command: Dispatch) -> Event:
        clients = [party for party in command.cohort if isinstance(party, int)]
        asked = self._num_sampled if clients == [self.client] else len(clients)
        roles = [party for party in command.cohort if isinstance(party, str)]
        kept: tuple[PartyId, ...] = (*roles, *clients[:1])
        hiding = [part_spec.into for part_spec in command.uplink.values() if part_spec.into.hides]
        if hiding and clients == [self.client]:
            clients = [party for party in self._drawn if isinstance(party, int)]
        if hiding or command.is_phase:
            kept = (*roles, *clients)
        exchange = Exchange(type(command.work).__name__, asked, asked)
        exchange.cohort = self._drawn if clients == [self.client] and not hiding else tuple(clients)
        exchange.cost, exchange.key = command.work.cost, command.key
        exchange.secure = next((r.explain(asked) for r in hiding if isinstance(r, SecureReducer)), "")
        before = self._usage()
        event = self._inner.perform(replace(command, cohort=kept))
        exchange.usage = _share(_less(self._usage(), before), max(1, len(kept)))
        assert isinstance(event, Dispatched)
        self._exchange_of.update(dict.fromkeys(event.tickets, exchange))
        if clients:
            self.exchanges.append(exchange)
        return event

    def _collect(self, command: Collect) -> Event:
        tickets = self._inner.coordinator.open_tickets(command)
        before, began_s = self._usage(), time.perf_counter()
        for ticket in tickets:
            chains = self._inner.coordinator.payload(ticket).chains
            varying = {
                (part, descriptions)
                for part, chain in chains.items()
                for descriptions, stage in zip(chain.descriptions, chain.stages, strict=True)
                if stage.out.num_bytes is None
            }
            exchange = self._exchange_of[ticket]
            exchange.varying |= varying
            goal = command.close.goal
            exchange.answered = exchange.asked if goal is None else min(exchange.asked, goal)
            if command.tickets is None:  # in the long run as many clients are asked as answer
                self.asynchronous, exchange.asked = True, exchange.answered
        event = self._inner.perform(replace(command, close=Close(), discount=None))
        assert isinstance(event, Collected)
        if len(tickets) > 1 and not event.counted:  # a whole cohort, whose bytes would be planned as none
            work = self._exchange_of[tickets[0]].work
            raise InvalidInput(
                f"no round of this run would close: all {len(tickets)} that are asked for {work} refuse, the "
                f"first because {event.dropped[0].reason if event.dropped else event.abandoned}"
            )
        if tickets:
            exchange = self._exchange_of[tickets[-1]]
            exchange.compute_s = (time.perf_counter() - began_s) / len(tickets)
            exchange.usage = _more(exchange.usage, _share(_less(self._usage(), before), len(tickets)))
        return event

    def _usage(self) -> Usage:
        return self._inner.coordinator.usage

    def settle(self) -> None:
        """Ends a round, so that memory is kept."""
        self._inner.perform(Commit(0, None, {}))


def _less(after: Usage, before: Usage) -> Usage:
    earlier = {(flow.direction, flow.name, flow.stages): flow for flow in before.flows}
    flows = []
    for flow in after.flows:
        old = earlier.get((flow.direction, flow.name, flow.stages))
        if old is not None:
            sizes = (
                None if a is None or b is None else a - b
                for a, b in zip(flow.num_bytes, old.num_bytes, strict=True)
            )
            flow = replace(flow, messages=flow.messages - old.messages, num_bytes=tuple(sizes))
        if flow.messages:
            flows.append(flow)
    return Usage(after.bytes_up - before.bytes_up, after.bytes_down - before.bytes_down, flows=tuple(flows))


def _share(usage: Usage, num_clients: int) -> Usage:
    """Returns the usage of one of several clients that were asked alike."""
    flows = tuple(
        replace(
            flow,
            messages=max(1, flow.messages // num_clients),
            num_bytes=tuple(None if size is None else size // num_clients for size in flow.num_bytes),
        )
        for flow in usage.flows
    )
    return Usage(usage.bytes_up // num_clients, usage.bytes_down // num_clients, flows=flows)


def _more(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.bytes_up + other.bytes_up,
        one.bytes_down + other.bytes_down,
        flows=Flow.merge((*one.flows, *other.flows)),
    )


# -- the plan ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MessagePlan:
    """A plan of the messages that a run will send.

    Args:
      rounds: the number of the run's rounds.
      first, later: the exchanges of its first round, and of a later one with a client that was in the last.
      evaluations: how often clients measure the model.
      evaluation: the exchanges of one measurement.
      link: the link between each client and the server, if it was given.
      client: the client that was rehearsed.
      asynchronous: whether the server does not wait for all clients that it asked; then a round is one of
        its steps.
      claim: what all its rounds promise to each client, as planned; None: nothing is noised.
      views: who sees what of a part that clients send, a line each.
      virtual_s: the seconds of the "first" round, a "later" one and an "evaluation" on the simulated clock;
        None: devices have no links.
      s_per_example: the seconds that the client's computation took here for each example that it visited.
    """

    rounds: int
    first: tuple[Exchange, ...]
    later: tuple[Exchange, ...]
    evaluations: int
    evaluation: tuple[Exchange, ...]
    link: LinkModel | None
    client: PartyId | None
    asynchronous: bool
    claim: PrivacyClaim | None = None
    views: tuple[str, ...] = ()
    virtual_s: Mapping[str, float] | None = None
    s_per_example: float | None = None

    def total(self, direction: str) -> int:
        """Sums the bytes "up" or "down" of the whole run."""
        first, later, measuring = (
            sum(exchange.bytes_up if direction == "up" else exchange.bytes_down for exchange in exchanges)
            for exchanges in (self.first, self.later, self.evaluation)
        )
        return (first + (self.rounds - 1) * later if self.rounds else 0) + self.evaluations * measuring

    def seconds(self, exchanges: tuple[Exchange, ...]) -> float | None:
        """Computes the seconds that one client spends on the link; all clients do so at the same time."""
        if self.link is None:
            return None
        return sum(self.link.seconds(e.usage.bytes_up, e.usage.bytes_down) for e in exchanges)

    @property
    def run_s(self) -> float | None:
        """The seconds of the run on the link, round after round, with all clients at the same time."""
        if self.link is None:
            return None
        first, later, measuring = (self.seconds(e) or 0.0 for e in (self.first, self.later, self.evaluation))
        return (first + (self.rounds - 1) * later if self.rounds else 0.0) + self.evaluations * measuring

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as plain data."""
        said = {
            name: [_as_json(exchange) for exchange in exchanges]
            for name, exchanges in (
                ("first_round", self.first),
                ("later_rounds", self.later),
                ("evaluation", self.evaluation),
            )
        }
        return {
            "rounds": self.rounds,
            "evaluations": self.evaluations,
            "client": self.client,
            "asynchronous": self.asynchronous,
            **said,
            "link": None if self.link is None else vars(self.link),
            "round": {**_sums(self.later), "seconds": self.seconds(self.later)},
            "run": {"bytes_up": self.total("up"), "bytes_down": self.total("down"), "seconds": self.run_s},
            "privacy": None if self.claim is None else self.claim.to_json(),
            "views": list(self.views),
            "s_per_example": self.s_per_example,
            **({} if self.virtual_s is None else {"virtual_s": dict(self.virtual_s)}),
        }


def _sums(exchanges: tuple[Exchange, ...]) -> dict[str, int]:
    return {
        "client_bytes_up": sum(e.usage.bytes_up for e in exchanges),
        "client_bytes_down": sum(e.usage.bytes_down for e in exchanges),
        "bytes_up": sum(e.bytes_up for e in exchanges),
        "bytes_down": sum(e.bytes_down for e in exchanges),
    }


def _as_json(exchange: Exchange) -> dict[str, Any]:
    return {
        "work": exchange.work,
        "asked": exchange.asked,
        "answered": exchange.answered,
        "client_bytes_up": exchange.usage.bytes_up,
        "client_bytes_down": exchange.usage.bytes_down,
        "flows": as_json(exchange.usage.flows),
        "depends_on_the_data": [{"name": n, "stage": stage} for n, stage in sorted(exchange.varying)],
        "compute_s": exchange.compute_s,
        **({"secure_sum": exchange.secure} if exchange.secure else {}),
    }


def plan_messages(ready: Prepared, link: LinkModel | None = None) -> MessagePlan:
    """Rehearses two rounds with one client, and a measurement if clients measure the model."""
    rehearsal = _Rehearsal(ready)
    algorithm, state = ready.experiment.algorithm, ready.begin().state
    rounds: list[tuple[Exchange, ...]] = []
    for number in (1, 2):
        rehearsal.exchanges = []
        program = algorithm.round(state, ready.keys.public.fold_in("round", number))
        state = _lead(program, rehearsal, state)
        rehearsal.settle()
        rounds.append(tuple(rehearsal.exchanges))
    rehearsal.exchanges = []
    evaluate, every = ready.evaluate(), ready.experiment.evaluate_every
    if evaluate is not None and (ready.population.test is None or ready.measures_itself):
        measure = choose_measure(algorithm, evaluate)
        _lead(measure(state, ready.keys.public.fold_in("evaluate", 0)), rehearsal, None)
    num = ready.experiment.rounds
    evaluations = 1 + num // every + bool(num % every) if every and rehearsal.exchanges else 0
    first, later = rounds
    measuring = tuple(rehearsal.exchanges)
    return MessagePlan(
        num,
        first,
        later,
        evaluations,
        measuring,
        link,
        rehearsal.client,
        rehearsal.asynchronous,
        plan_claim(ready.experiment.privacy, ready.disclosure, num, ready.noised_steps),
        ready.views,
        time_exchanges(ready, {"first": first, "later": later, "evaluation": measuring}),
        measure_speed(ready, later),
    )


def _lead(program: Program[Any], runtime: Runtime, state: Any) -> Any:
    """Leads a program; returns the given state if its round can't close with a single client."""
    try:
        return drive(program, runtime)
    except RoundAbandoned:
        return state
