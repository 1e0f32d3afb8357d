"""Asynchronous algorithms share weights of stale contributions, and the bookkeeping of what is in flight.

Staleness is the number of server steps between the model that a client started from and its contribution.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from hanse.core import (
    InvalidInput,
    Key,
    PartSpec,
    Program,
    RoundAbandoned,
    Tensors,
    Transform,
    Work,
    check_count,
    check_not_negative,
    dispatch,
    value,
)
from hanse.core.exchange import Collected, Sample, Sampled

__all__ = [
    "Staleness",
    "Versions",
    "any_staleness",
    "check_concurrency",
    "hinge_staleness",
    "keep_busy",
    "polynomial_staleness",
]


class Staleness(ABC):
    """The weight of a contribution by its staleness: 1 for a fresh one."""

    @abstractmethod
    def weigh(self, staleness: int) -> float:
        """Returns the weight."""


@value
class any_staleness(Staleness):
    """Weight 1, however stale: "constant" in the paper.

    >>> any_staleness().weigh(7)
    1.0
    """

    def weigh(self, staleness: int) -> float:
        return 1.0


@value
class polynomial_staleness(Staleness):
    """(1 + staleness)^-exponent.

    >>> polynomial_staleness(0.5).weigh(3)
    0.5

    Args:
      exponent: a in the paper, at least 0.
    """

    exponent: float = 0.5

    def __post_init__(self) -> None:
        check_not_negative("exponent", self.exponent)

    def weigh(self, staleness: int) -> float:
        return float((1.0 + staleness) ** -self.exponent)


@value
class hinge_staleness(Staleness):
    """1 up to some staleness, and 1 / (slope (staleness - free) + 1) beyond.

    >>> hinge_staleness(slope=2.0, free=3).weigh(3), hinge_staleness(slope=2.0, free=3).weigh(5)
    (1.0, 0.2)

    Args:
      slope: a in the paper, at least 0.
      free: the staleness that costs nothing, b in the paper.
    """

    slope: float = 10.0
    free: int = 4

    def __post_init__(self) -> None:
        check_not_negative("slope", self.slope)
        if self.free < 0:
            raise InvalidInput(f"free is {self.free}; write a number of server steps, at least 0")

    def weigh(self, staleness: int) -> float:
        return 1.0 / (self.slope * max(0, staleness - self.free) + 1.0)


def check_concurrency(concurrency: int | None) -> None:
    """Checks the number of clients that work at the same time. Raises: InvalidInput."""
    if concurrency is not None:
        check_count("concurrency", concurrency)


@value
class Versions:
    """The model of an asynchronous server, and what is in flight.

    Args:
      params, version: the model and the number of server steps that led to it.
      sent: the version that each ticket in flight started from.
      models: those versions, as far as the algorithm needs them.
      staleness: of the last contribution; None: there was none.
    """

    params: Tensors
    version: int = 0
    sent: Mapping[int, int] = field(default_factory=dict)
    models: Mapping[int, Tensors] = field(default_factory=dict)
    staleness: float | None = None

    def close(self, got: Collected) -> "Versions":
        """Returns the state without the tickets that were closed, and the models that only they needed."""
        closed = {*got.counted, *(drop.ticket for drop in got.dropped)}
        sent = {ticket: version for ticket, version in self.sent.items() if ticket not in closed}
        needed = set(sent.values())
        models = {version: model for version, model in self.models.items() if version in needed}
        return replace(self, sent=sent, models=models, staleness=None)


def keep_busy(
    state: Versions,
    work: Work[Any, Any],
    key: Key,
    concurrency: int | None,
    downlink: tuple[Transform, ...] = (),
    **uplink: PartSpec,
) -> Program[Versions]:
    """Sends the model to free clients until enough work at the same time; None: until all do.

    Raises: RoundAbandoned: if nobody works then, so that nothing can arrive.
    """
    count = None if concurrency is None else max(0, concurrency - len(state.sent))
    chosen = yield Sample(key, count) if count is not None else Sample(key, fraction=1.0)
    assert isinstance(chosen, Sampled)
    if not chosen.cohort:
        if not state.sent:
            raise RoundAbandoned(f"none of {chosen.num_clients} clients is free")
        return state
    shared = {"params": state.params}
    dispatched = yield from dispatch(
        work, chosen.cohort, shared, key, version=state.version, downlink=downlink, own=None, **uplink
    )
    return replace(state, sent={**state.sent, **dict.fromkeys(dispatched.tickets, state.version)})
