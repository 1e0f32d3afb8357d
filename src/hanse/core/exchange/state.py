"""The state of a coordinator as a value, and what changes in it from command to command."""

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Any

from hanse.core.exchange.changes import Edits
from hanse.core.exchange.downlink import Reference
from hanse.core.exchange.tickets import ClosedTicket, DispatchRecord, PoissonSample, Ticket
from hanse.core.exchange.traffic import merge_usage
from hanse.core.usage import Usage
from hanse.core.values import value
from hanse.core.work import PartyId

__all__ = ["MAPPINGS", "CoordinatorChanges", "CoordinatorState"]


@value
class CoordinatorState:
    """Everything that a coordinator must remember to go on after a crash.

    Args:
      next_ticket: the first free number.
      tickets, dispatches: the open tickets and the records of their dispatches, by number.
      states, begun: the transforms' states at the server, and what they were when the round began.
      usage: the round's cost so far.
      references: the versions of what is broadcast as differences.
      closed: the tickets that were closed in this round, by number.
      undecoded: the hidden parts that are not decoded yet, by the number of the dispatch.
      sample: the last Poisson sample.
      first_of_round: the number of the round's first ticket or dispatch.
    """

    next_ticket: int = 0
    tickets: Mapping[int, Ticket] = field(default_factory=dict)
    dispatches: Mapping[int, DispatchRecord] = field(default_factory=dict)
    states: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    begun: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    usage: Usage = Usage()
    references: Mapping[str, Reference] = field(default_factory=dict)
    sample: PoissonSample | None = None
    closed: Mapping[int, ClosedTicket] = field(default_factory=dict)
    undecoded: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    first_of_round: int = 0

    @property
    def holders(self) -> dict[int, PartyId]:
        """The holders of the open tickets, and of those that were closed in this round."""
        tickets: dict[int, Ticket | ClosedTicket] = {**self.closed, **self.tickets}
        return {number: ticket.party for number, ticket in tickets.items()}

    def apply(self, changes: "Iterable[CoordinatorChanges]") -> "CoordinatorState":
        """Returns the state that changes lead to, first to last."""
        mappings: dict[str, Any] = {name: dict(getattr(self, name)) for name in MAPPINGS}
        next_ticket, usage, sample = self.next_ticket, self.usage, self.sample
        for change in changes:
            next_ticket, usage = change.next_ticket, merge_usage(usage, change.usage)
            sample = change.sample
            for name, edits in change.edits.items():
                edits.apply(mappings[name])
        return replace(self, next_ticket=next_ticket, usage=usage, sample=sample, **mappings)


MAPPINGS = ("tickets", "dispatches", "states", "references", "closed", "undecoded")
"""The fields that change within a round, item by item. Only its end changes `begun` and `first_of_round`."""


@value
class CoordinatorChanges:
    """The changes to a `CoordinatorState` since a moment of the same round.

    Args:
      next_ticket: the first free number.
      usage: the round's cost so far, with those flows and releases alone that are new.
      edits: the items that have changed in its mappings, by field.
      sample: the last Poisson sample.
    """

    next_ticket: int
    usage: Usage
    edits: Mapping[str, Edits]
    sample: PoissonSample | None = None

    @property
    def holders(self) -> dict[int, PartyId]:
        """The holders of the tickets that were closed."""
        closed = self.edits.get("closed", Edits()).changed
        return {number: ticket.party for number, ticket in closed.items()}
