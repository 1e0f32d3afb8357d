"""Bounds on the weights that clients declare, so that none of them owns a round's mean."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hanse.core import PartyId, each
from hanse.core.exchange import Message, Payload

__all__ = ["MAX_WEIGHT_RATIO", "BoundedWeight", "WeightBounds", "find_bound"]

MAX_WEIGHT_RATIO = 10.0
"""No weight counts for more than so many times the median of its round, if not set otherwise."""


def find_bound(weights: Sequence[float], ratio: float) -> float:
    """Returns the most that one of these weights may count for.

    It is `ratio` times their median, or what gives a share of 2/n of the bounded weights, if that is more.
    Only the n weights above 0 are looked at: a client with 0 has nothing to say about this part. So equal and
    moderately unequal weights stay as they are, and half of the clients must lie together to move the bound.
    Two weights have no bound: nobody can tell which of them is wrong.

    >>> find_bound([150.0] * 9 + [1e7], 10.0)
    1500.0
    >>> find_bound([150.0] * 9 + [1e7], 1.0)  # a share of 2/10: 337.5 of 9 * 150 + 337.5
    337.5
    """
    ordered = sorted(weight for weight in weights if weight > 0)
    n = len(ordered)
    if n <= 2 or math.isinf(ratio):
        return math.inf
    median = ordered[(n - 1) // 2]
    for k in range(n, n // 2, -1):  # the k smallest stay as they are, and the others get the bound
        share = 2 * math.fsum(ordered[:k]) / (2 * k - n)
        if ordered[k - 1] <= share:
            break
    return max(ratio * median, share)


@dataclass(frozen=True)
class BoundedWeight:
    """A weight that counted for less than its client had declared.

    Args:
      dispatch: the number of the dispatch that it answers.
    """

    party: PartyId
    part: str
    declared: float
    bound: float
    dispatch: int = 0

    def describe(self) -> str:
        """Describes it in words, without the client.

        >>> BoundedWeight(3, "update", 1e7, 1500.0).describe()
        "declared a weight of 1e+07 for 'update': it was bounded to 1500"
        """
        return f"declared a weight of {self.declared:g} for {self.part!r}: it was bounded to {self.bound:g}"


class WeightBounds:
    """The weights of the messages of one exchange, and their bounds once all have arrived.

    Args:
      ratio: how many times the median a weight may be; infinity: no weight is bounded.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._weights: dict[str, dict[int, float]] = {}
        self._bounds: dict[str, float] = {}
        self.hidden: set[str] = set()
        """The parts whose weights a reducer hides from the server: they can't be bounded."""

    def hear(self, ticket: int, message: Message, payload: Payload) -> None:
        """Notes the weights of a client's valid message.

        Left out are answers that nobody adds up, and parts with calibrated noise: it covers what one client
        can do, and a bound would let each client change the weights of the others.
        """
        for name, part in message.parts.items():
            if part is None:
                self.hidden.add(name)
            elif not isinstance(payload.uplink[name].into, each) and payload.chains[name].calibrated is None:
                self._weights.setdefault(name, {})[ticket] = float(part.weight)

    def close(self, counted: Sequence[int]) -> None:
        """Finds the bounds among the messages that count."""
        counts = set(counted)
        for name, weights in self._weights.items():
            kept = {ticket: weight for ticket, weight in weights.items() if ticket in counts}
            self._weights[name], self._bounds[name] = kept, find_bound(list(kept.values()), self._ratio)

    def list_bounds(
        self, parties: Mapping[int, PartyId], dispatch_of: Callable[[int], int] = lambda ticket: 0
    ) -> Iterator[BoundedWeight]:
        """Yields the weights that are bounded.

        Args:
          parties: the clients, by ticket.
          dispatch_of: returns the dispatch of a ticket.
        """
        for name, weights in self._weights.items():
            for ticket, weight in weights.items():
                if weight > self._bounds[name]:
                    yield BoundedWeight(
                        parties[ticket], name, weight, self._bounds[name], dispatch_of(ticket)
                    )

    def apply(self, ticket: int, message: Message) -> Message:
        """Returns a message with its weights bounded; the same message if none is too large."""
        bounded = {
            name: replace(part, weight=self._bounds[name])
            for name, part in message.parts.items()
            if part is not None and self._weights.get(name, {}).get(ticket, 0.0) > self._bounds.get(name, 0.0)
        }
        return replace(message, parts={**message.parts, **bounded}) if bounded else message
