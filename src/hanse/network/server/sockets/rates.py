"""Rates: how often a member may do what costs the server something."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hanse.network.protocol.errors import Refused

__all__ = ["RATES", "Rate", "Rates"]


@dataclass(frozen=True)
class Rate:
    """A rate: so many a second in the long run, and `burst` of them at once."""

    per_s: float
    burst: int


RATES: Mapping[str, Rate] = {
    "requests": Rate(200.0, 2000),  # an upload at full speed takes 50 a second, a tiny round 4
    "failures": Rate(10.0, 200),
    "new keys": Rate(1 / 60, 5),
    "attempts to join": Rate(1.0, 20),
}
"""The rates of each member, and of each invitation."""

MAX_KNOWN = 10_000
"""So many are remembered before those that have rested are forgotten."""


class Rates:
    """Token buckets, each kept as the one moment at which it will be full again.

    Args:
      rates: by what is limited.
      now: the clock.
    """

    def __init__(self, rates: Mapping[str, Rate] = RATES, now: Callable[[], float] = time.monotonic) -> None:
        self._rates, self._now = rates, now
        self._full_at: dict[tuple[str, str], float] = {}
        self.refused: Counter[str] = Counter()
        """How often there were too many, by what is limited."""

    def spend(self, what: str, who: str) -> None:
        """Counts one act. Raises: Refused: if there were too many; it says when to come back."""
        rate, now = self._rates[what], self._now()
        full_at = max(self._full_at.get((what, who), now), now) + 1 / rate.per_s
        wait_s = full_at - now - rate.burst / rate.per_s
        if wait_s > 1e-9:
            self.refused[what] += 1
            limit = f"{rate.per_s:g} a second" if rate.per_s >= 1 else f"one in {1 / rate.per_s:g} s"
            why = f"too many {what}; the server takes {limit}; come back in {math.ceil(wait_s)} s"
            raise Refused(429, "busy", why, retry_s=wait_s)
        if len(self._full_at) > MAX_KNOWN:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        self._full_at[what, who] = full_at
