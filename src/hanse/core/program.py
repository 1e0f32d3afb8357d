"""Programs: algorithms as generators that do no I/O. They yield commands and receive events.

    Sample    choose a cohort among those not busy                     -> Sampled
    Dispatch  broadcast and start work at a cohort                     -> Dispatched
    Collect   fold what arrives, until all, a goal or a deadline       -> Collected
    Decode    the total of a reducer that hides single contributions   -> Decoded
    Commit    the round is over: memory and state are kept, or dropped -> Committed

Programs use only their state, events and keys: no clock, no set order, no environment. So a journal
of events brings a program back to where it stopped. Commands and events are values.
"""

import math
from collections.abc import Generator, Mapping
from dataclasses import field
from typing import Any, Generic, TypeAlias, TypeVar

from hanse.core.chain import Chain, Plan, Transform
from hanse.core.errors import CompositionError, InvalidInput, RoundAbandoned
from hanse.core.keys import Key
from hanse.core.reducers import Reducer, each, mean
from hanse.core.spec import Spec
from hanse.core.tensors import Tensors
from hanse.core.usage import Usage
from hanse.core.values import value
from hanse.core.work import Memory, Part, PartyId, Total, Work

__all__ = [
    "NOT_EVALUATED",
    "Close",
    "Collect",
    "Collected",
    "Command",
    "Commit",
    "Committed",
    "Decode",
    "Decoded",
    "Discount",
    "Dispatch",
    "Dispatched",
    "Drop",
    "Event",
    "PartSpec",
    "Program",
    "Sample",
    "Sampled",
    "Usage",
    "ask",
    "collect",
    "commit",
    "dispatch",
    "has_closed",
    "sample",
]

T = TypeVar("T")
E = TypeVar("E", bound="Event", covariant=True)


class Event:
    """A runtime's answer to a command."""


class Command(Generic[E]):
    """A program's request to a runtime, which answers with an `E`."""


Program: TypeAlias = Generator[Command[Event], Event, T]

Plans: TypeAlias = Mapping[str, tuple[Plan, ...]]
"""The public plans of a dispatch: by part, one for each stage of its chain."""


@value
class PartSpec:
    """The specification of one part of a contribution: its shape, its transforms and its reducer.

    Args:
      spec: of the tensors that the work emits (in full: a restricted space replaces it by its own).
      uplink: transforms, first to last.
      into: the reducer.
      max_weight: a contribution of a larger weight is refused.

    Raises: CompositionError: from `chain`, if these can't be combined.
    """

    spec: Spec
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    max_weight: float = 1e7

    def chain(self) -> Chain:
        """Binds the chain and checks it against the reducer."""
        moved = self.spec.like(moves=self.into.moves(self.max_weight))
        chain = Chain.bind(moved, self.uplink, self.into.fewest, self.into.most)
        if self.into.hides and chain.opens is not None:
            raise CompositionError(
                f"{chain.opens} must see single contributions; {self.into} hides them: use transforms that "
                "commute with sums (clip, a mask or rotation shared by the round), or drop one"
            )
        if isinstance(self.into, each) and chain.decodes is not None:
            raise CompositionError(
                f"{chain.decodes} is undone on a sum, and {self.into} adds nothing up: let it be drawn per "
                "client, or drop it"
            )
        self.into.accepts(chain.folded)
        return chain


USUAL_COHORT = 10
"""The least number of clients in a cohort of the usual size, if there are so many."""


@value
class Sample(Command["Sampled"]):
    """Choose a cohort among the clients that are not busy.

    One of `count`, `fraction` and `rate` is given, or none: a tenth of the clients, but at least 10, or all
    if they are fewer. Such a number is drawn from `key`, uniformly and without replacement. With a `rate`
    each client is in the cohort independently, as accounting by Poisson sampling assumes. It may be empty,
    and nobody replaces clients that are busy or absent. It is drawn from the runtime's secret and this key,
    and no two Samples draw alike. That protects only from those who do not know the cohort: lists of
    participants (log, status, page) must stay with the server.

    Args:
      count: of clients, at most.
      fraction: of all clients, at least one.
      rate: the probability of each client.
      without: clients that are not chosen, such as those that took part shortly before.
    """

    key: Key
    count: int | None = None
    fraction: float | None = None
    rate: float | None = None
    without: tuple[PartyId, ...] = ()

    def __post_init__(self) -> None:
        if [self.count, self.fraction, self.rate].count(None) < 2:
            given = f"{self.count}, {self.fraction} and {self.rate}"
            raise InvalidInput(f"sample takes one of count, fraction and rate, not {given}")
        if self.rate is not None and not 0 < self.rate <= 1:
            raise InvalidInput(f"rate is {self.rate}; write a probability above 0 and at most 1")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise InvalidInput(f"fraction is {self.fraction}; write a number above 0 and at most 1")
        if self.count is not None and self.count < 0:
            raise InvalidInput(f"count is {self.count}; write a number of clients, at least 0")

    def size(self, num_clients: int) -> int:
        """Returns the size of a cohort among this many clients; with a `rate`, about the expected one."""
        if self.count is not None:
            return min(self.count, num_clients)
        share = self.fraction or self.rate
        if share is None:
            return min(num_clients, max(USUAL_COHORT, round(num_clients / 10)))
        return max(1, round(share * num_clients))


@value
class Sampled(Event):
    """The cohort, and the number of clients that it was drawn from, busy ones included."""

    cohort: tuple[PartyId, ...]
    num_clients: int


@value
class Dispatch(Command["Dispatched"]):
    """Broadcast `shared` to a cohort and start `work` there. Its `version` later gives its staleness.

    With a `downlink` each member receives the difference to what it holds, through these transforms, if that
    is smaller; it then reads, for all names in `shared`, the version that these differences add up to.

    Args:
      own: tensors for single members, each of which alone receives its own and reads them beside `shared`.
      is_phase: whether this is a phase of a reducer's protocol, in which no client is counted again.
    """

    work: Work[Any, Any]
    cohort: tuple[PartyId, ...]
    shared: Mapping[str, Tensors]
    uplink: Mapping[str, PartSpec]
    key: Key
    version: int = 0
    downlink: tuple[Transform, ...] = ()
    own: Mapping[PartyId, Mapping[str, Tensors]] = field(default_factory=dict)
    is_phase: bool = False

    def __post_init__(self) -> None:
        if len(set(self.cohort)) != len(self.cohort):
            raise InvalidInput(f"a party is twice in the cohort {self.cohort}; name each once")
        others = self.own.keys() - set(self.cohort)
        if others:
            raise InvalidInput(f"own tensors for {min(map(str, others))}, who is not in the cohort")
        for party, tensors in self.own.items():
            both = sorted(tensors.keys() & self.shared.keys())
            if both:
                raise InvalidInput(
                    f"{both[0]!r} is sent to everybody and to {party} alone; give its own another name"
                )


@value
class Dispatched(Event):
    """The tickets, one for each member of the cohort, in its order, and the number of the dispatch."""

    tickets: tuple[int, ...]
    dispatch: int | None = None


@value
class Close:
    """The conditions under which a round closes. Every wait is bounded.

    Args:
      goal: close as soon as this many contributions are counted. None: wait for all.
      deadline_s: close after this many seconds. None: only when nobody is left to wait for.
      minimum_fraction: a round with fewer counted contributions than this share of those asked
        (at least one) is abandoned. With 0, a round of none closes too if all its reducers have a zero: a sum
        that is noised must not tell by its absence that nobody took part. It also closes if nobody is left at
        the end of a protocol, but a protocol whose own exchanges are abandoned ends the round.
      wait_s: wait so many seconds for each party that is away, in the phases of protocols, too. If it is
        away for longer, the run is interrupted, and can be resumed. A round that is abandoned all the same
        does not count: it is attempted again. For cohorts whose members can't be replaced, so never with
        `Sample(rate=...)`. None: go on without absent ones.
    """

    goal: int | None = None
    deadline_s: float | None = None
    minimum_fraction: float = 0.5
    wait_s: float | None = None

    def __post_init__(self) -> None:
        if self.goal is not None and self.goal < 1:
            raise InvalidInput(f"goal is {self.goal}; write at least 1 contribution")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise InvalidInput(f"deadline_s is {self.deadline_s}; write seconds above 0")
        if not 0 <= self.minimum_fraction <= 1:
            raise InvalidInput(f"minimum_fraction is {self.minimum_fraction}; write a number from 0 to 1")
        if self.wait_s is not None and not self.wait_s > 0:
            raise InvalidInput(f"wait_s is {self.wait_s}; write seconds above 0")

    def minimum(self, num_asked: int) -> int:
        """Returns the fewest contributions with which a round of this many clients may close."""
        needed = max(1, math.ceil(self.minimum_fraction * num_asked - 1e-9))  # 0.07 * 100 is above 7
        return needed if self.goal is None else min(needed, self.goal)


@value
class Discount:
    """Stale contributions count less: weight x (1 + staleness)^-exponent (Nguyen et al., arXiv 2106.06639).

    Args:
      exponent: 0 counts all alike. Staleness is the Collect's version less the Dispatch's.
    """

    exponent: float = 0.5

    def factor(self, staleness: int) -> float:
        """Returns the factor on the weight."""
        return float((1.0 + staleness) ** -self.exponent)


@value
class Collect(Command["Collected"]):
    """Fold the contributions that arrive.

    A Collect that names tickets closes all of them: those not answered by then are too late. One that
    names none takes the first `close.goal` of all tickets in flight and leaves the rest there. `dispatch` is
    the dispatch of the tickets; it says what the total of none looks like.
    """

    tickets: tuple[int, ...] | None = None
    close: Close = Close()
    version: int = 0
    discount: Discount | None = None
    dispatch: int | None = None


@value
class Drop:
    """A ticket that was closed without being counted, and why."""

    ticket: int
    party: PartyId
    reason: str


@value
class Collected(Event):
    """The totals of what arrived, and the tickets that are in them.

    Args:
      totals: by part; parts whose reducer hides are missing until they are decoded.
      counted: the tickets that are in the totals; `parties` held them.
      dropped: the tickets that were closed without being counted.
      abandoned: why the totals are empty, if too few arrived.
      needed: the fewest contributions with which the exchange could close. They are fewer than
        `Close.minimum` says if the runtime asked more clients than were wanted.
    """

    totals: Mapping[str, Total]
    counted: tuple[int, ...]
    parties: tuple[PartyId, ...]
    dropped: tuple[Drop, ...] = ()
    abandoned: str | None = None
    needed: int = 1

    def __getitem__(self, part: str) -> Total:
        return self.totals[part]

    def by_party(self, part: str) -> dict[PartyId, Part]:
        """Returns the answer of each counted party, for a part that went into `each()`."""
        return dict(zip(self.parties, each.split(self.totals[part]), strict=True))


@value
class Decode(Command["Decoded"]):
    """Undo the transforms of a part on a total that a protocol obtained.

    Args:
      ticket: the first that is in the total; one that was counted before, if nobody is in it.
      part: its name.
      total: of the encoded parts.
      dropped: tickets that were counted when all were ready, but whose parties are not in the total. They
        are dropped now, and so are tickets that continue from them.
    """

    ticket: int
    part: str
    total: Total
    dropped: tuple[int, ...] = ()


@value
class Decoded(Event):
    """The decoded total, and the tickets that were dropped because they are not in it."""

    total: Total
    dropped: tuple[Drop, ...] = ()


NOT_EVALUATED = "evaluation: "
"""The beginning of the reason in `Commit.abandoned` if a round closed, but could not be measured."""


def has_closed(abandoned: str | None) -> bool:
    """Returns whether a round closed, given why it was abandoned: it was not, or only its measurement was."""
    return abandoned is None or abandoned.startswith(NOT_EVALUATED)


@value
class Commit(Command["Committed"]):
    """End a round and save `state`. If the round closed, counted forks of memory are kept.

    Args:
      round: its number; round 0 is the start.
      state: all that the program needs to go on.
      metrics: recorded with the round.
      abandoned: why the round could not close; the forks of memory of its tickets are dropped. A reason that
        begins with `NOT_EVALUATED` says why a round that closed could not be measured; then they are kept.
      reported: what the algorithm tells of its state; recorded with the metrics.
      again: whether this round, which is abandoned, is attempted again under the same number. Then it
        leaves none of its tickets in flight.
    """

    round: int
    state: Any
    metrics: Mapping[str, float]
    abandoned: str | None = None
    reported: Mapping[str, float] = field(default_factory=dict)
    again: bool = False

    @property
    def is_closed(self) -> bool:
        """Returns whether the round closed, so that what it changed is kept."""
        return has_closed(self.abandoned)


@value
class Committed(Event):
    """The cost of a round, and the clients' memory that it changed if the runtime holds it.

    `execution` and `spent` say how the clients were computed and where time went, if the runtime measures it:
    see `Record`.
    """

    usage: Usage = Usage()
    memories: Mapping[PartyId, Memory] = field(default_factory=dict)
    execution: str = field(default="", compare=False)
    spent: Mapping[str, float] = field(default_factory=dict, compare=False)


def ask(command: Command[Any], kind: type[E]) -> Program[E]:
    """Yields a command, and returns the event of this kind that answers it."""
    event = yield command
    if not isinstance(event, kind):
        raise TypeError(f"{type(command).__name__} was answered by {type(event).__name__}")
    return event


def sample(
    key: Key, *, count: int | None = None, fraction: float | None = None, rate: float | None = None
) -> Program[Sampled]:
    """Chooses a cohort. Raises: RoundAbandoned: if every client is busy or away, except with a `rate`."""
    sampled = yield from ask(Sample(key, count, fraction, rate), Sampled)
    if not sampled.cohort and count != 0 and rate is None:
        raise RoundAbandoned(f"none of {sampled.num_clients} clients is free")
    return sampled


def dispatch(
    work: Work[Any, Any],
    cohort: tuple[PartyId, ...],
    shared: Mapping[str, Tensors],
    key: Key,
    *,
    version: int = 0,
    downlink: tuple[Transform, ...] = (),
    own: Mapping[PartyId, Mapping[str, Tensors]] | None = None,
    **uplink: PartSpec,
) -> Program[Dispatched]:
    """Broadcasts and starts work; the tickets stay in flight."""
    command = Dispatch(work, cohort, shared, uplink, key, version, downlink, own or {})
    return (yield from ask(command, Dispatched))


def collect(
    tickets: tuple[int, ...] | None = None,
    *,
    close: Close = Close(),
    version: int = 0,
    discount: Discount | None = None,
    dispatch: int | None = None,
) -> Program[Collected]:
    """Folds the contributions that arrive."""
    return (yield from ask(Collect(tickets, close, version, discount, dispatch), Collected))


def commit(
    round: int,
    state: Any,
    metrics: Mapping[str, float],
    abandoned: str | None = None,
    reported: Mapping[str, float] | None = None,
    *,
    again: bool = False,
) -> Program[Committed]:
    """Ends a round."""
    return (yield from ask(Commit(round, state, metrics, abandoned, reported or {}, again), Committed))
