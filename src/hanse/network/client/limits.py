"""The sums of what a client has given, of each day and in all runs together, in a file of its home."""

import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from pathlib import Path
from typing import Any, NamedTuple

from hanse.core import Release
from hanse.network.protocol.errors import Forbidden
from hanse.network.protocol.spool import durably

__all__ = [
    "LOCAL",
    "PRIVACY",
    "SHARES",
    "UNCOUNTED",
    "UNNOISED",
    "Revealed",
    "Spent",
    "count_rows",
    "explain_uncounted",
    "find_epsilon",
    "has_shares",
    "measure_release",
]

PRIVACY, UNNOISED = "privacy", "unnoised"
"""The amounts of what messages reveal: in units of noise, see `measure_release`, and messages without."""

SHARES = "shares"
"""The amount of messages with shares of noise, which have no exact epsilon."""

UNCOUNTED = "uncounted"
"""The amount of messages that left before this file was begun, because an earlier one was lost or damaged."""

DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")

MOST_NAMED = 256
"""The latest tickets that are counted once, however often they are computed. Older ones may count twice."""


class Spent:
    """The sums of tickets, bytes, examples and seconds that servers have used up at this client.

    They are of the client home, whatever a run is called: a home belongs to one server.

    Args:
      path: of the file.
      today: returns the current day. If it is before the day of the file, because a clock was set back, the
        day of the file goes on: else the same day would begin again and again.
      begin: returns the sums of a day, or of all if it is empty, to begin with, if there is no file or none
        that can be read. If messages were sent before, nobody knows what they revealed: see `check_known`.
    """

    def __init__(
        self,
        path: Path,
        today: Callable[[], str] = lambda: time.strftime("%Y-%m-%d"),
        begin: Callable[[str], Mapping[str, float]] = lambda day: {},
    ) -> None:
        self._path, self._today, self._begin = path, today, begin
        self._lock = threading.Lock()

    def _read(self) -> tuple[str, dict[str, float], dict[str, float], list[str]]:
        """Returns the day that is summed, its sums, the totals, and the latest tickets."""
        now = self._today()
        try:
            said = json.loads(self._path.read_text())
            totals = {name: float(amount) for name, amount in said["total"].items()}
            day = max(now, said["day"]) if DAY.fullmatch(said["day"]) else now
            today = said["today"].items() if said["day"] == day else ()
            named = [str(name) for name in said.get("tickets", ())]
            return day, {name: float(amount) for name, amount in today}, totals, named
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            begun = dict(self._begin(""))
            lost = {UNCOUNTED: begun["tickets"]} if begun.get("tickets") else {}
            return now, dict(self._begin(now)), {**begun, **lost}, []

    def of_today(self, what: str) -> float:
        """Returns the sum of the current day of "tickets", "upload_bytes", "seconds" or another amount."""
        return self._read()[1].get(what, 0.0)

    def describe_day(self) -> str:
        """Describes the day that is summed: "a day", unless the clock is before it."""
        day = self._read()[0]
        return "a day" if day == self._today() else f"a day ({day} goes on: the clock was set back)"

    def of_all(self, what: str) -> float:
        """Returns the sum of all days."""
        return self._read()[2].get(what, 0.0)

    def check_known(self) -> None:
        """Checks that what all messages revealed is known.

        Raises: Forbidden: if the file was lost or damaged after messages were sent.
        """
        if sent := self.of_all(UNCOUNTED):
            raise Forbidden(
                f"this client's policy has a max_epsilon, but {self._path} was lost or damaged, so that "
                f"nobody knows what {sent:g} earlier messages revealed; put back a copy of that file, "
                'or, to count from 0 on your own responsibility, write {"day": "", "today": {}, "total": {}} '
                "into it, while the client does not run",
                "budget",
            )

    def has(self, ticket: str) -> bool:
        """Returns whether a ticket of this name was counted lately."""
        return _shorten(ticket) in self._read()[3]

    def add(self, ticket: str = "", **amounts: float) -> None:
        """Adds amounts to the sums.

        Args:
          ticket: the name of the ticket that they are of: it is counted once. Empty: they are of none.
        """
        with self._lock:  # both threads of a client add to it
            self._add(ticket, amounts)

    def _add(self, ticket: str, amounts: Mapping[str, float]) -> None:
        day, today, totals, named = self._read()
        name = _shorten(ticket)
        if ticket and name in named:
            return
        named = [*named, name][-MOST_NAMED:] if ticket else named
        for sums in (today, totals):
            for name, amount in amounts.items():
                sums[name] = round(sums.get(name, 0.0) + amount, 3)
        whole = self._path.with_name(f"{self._path.name}.part")
        said = json.dumps({"day": day, "today": today, "total": totals, "tickets": named})
        if PRIVACY in totals:  # it must outlive what is sent next, and each file replaces the last
            durably(self._path, said.encode())
            return
        whole.write_text(said)
        whole.replace(self._path)


def _shorten(ticket: str) -> str:
    """Returns a short name of a ticket, of the same length for all."""
    return hashlib.sha256(ticket.encode()).hexdigest()[:24]


def count_rows(data: Any) -> int | None:
    """Counts the examples in a client's own data by their length; None: they can't be counted so.

    The length of a mapping or tuple would count columns.

    >>> count_rows(["a text", "another"]), count_rows({"age": [61, 62]}), count_rows(())
    (2, None, 0)
    """
    if not isinstance(data, Sized):
        return None
    return None if isinstance(data, Mapping | tuple) and len(data) else len(data)


# -- what messages reveal ------------------------------------------------------------------------

CENTRAL, LOCAL, IN_SHARES = "gaussian", "local_gaussian", "skellam"
"""The noises that can be added up: of the server, of the client itself, and of all clients in shares."""

OF_EXAMPLES = "private_sgd"
"""The work whose noise protects single examples, and not a client as a whole."""


class Revealed(NamedTuple):
    """The disclosure of one message.

    Args:
      units: of its noise, see `measure_release`.
      is_open: whether a part leaves without noise, as allowed.
      in_shares: whether some of its noise is in shares, so that its epsilon is a bound.
    """

    units: int
    is_open: bool
    in_shares: bool = False


def has_shares(found: Iterable[Iterable[Release]]) -> bool:
    """Returns whether some parts of a message have shares of noise."""
    return any(one.mechanism == IN_SHARES for releases in found for one in releases)


def explain_uncounted(work: str, releases: Iterable[Release]) -> str:
    """Explains with what noise a part leaves that does not count."""
    if work == OF_EXAMPLES:
        return (
            "with noise that hides each of its examples, and is counted in a book of each run. A max_epsilon "
            "is about all of a client's data together, which that noise does not hide"
        )
    kinds = ", ".join(sorted({one.mechanism for one in releases}))
    return f"with noise that can't be counted here ({kinds})" if kinds else "without noise that it counts"


_UNITS = 10**9
"""The units of noise in one message with a noise multiplier of 1."""

_LEAST, _MOST = 1e-6, 1e6
"""The noise multipliers that can be counted lie between these. Others are too much for the arithmetic."""


def measure_release(releases: Iterable[Release]) -> int | None:
    """Measures what one message reveals: the sum of 1 / noise_multiplier², in 10^-9, rounded up.

    Gaussian mechanisms compose to one whose sums of these are added, in any order and over any time (Dong,
    Roth, Su, "Gaussian differential privacy", 2022, arXiv 1905.02383, Corollary 3.3). Nothing is gained by
    sampling, because this client knows that it takes part.

    Skellam noise is counted by its bound: for integers of Euclidean norm n and sum of absolute values m, its
    Rényi divergence of each integer order is at most that of a Gaussian of which this is counted (theorem 3.5
    of Agarwal, Kairouz, Liu, NeurIPS 2021):

        1/z² + min(1/(z⁴ n²) + 3 m/(2 z⁴ n⁴), 3 m/(2 z² n²))

    Returns: None: some noise is of a kind that is not known here, or of a size that nobody means.

    >>> from hanse.core import Release
    >>> measure_release([Release("gaussian", 2.0), Release("local_gaussian", 1.0)])
    1250000000
    """
    found = list(releases)
    if any(
        one.mechanism not in (CENTRAL, LOCAL, IN_SHARES)
        or not _LEAST < one.noise_multiplier < _MOST
        or (one.mechanism == IN_SHARES and not {"norm", "norm_1"} <= one.parameters.keys())
        for one in found
    ):
        return None
    return math.ceil(sum(_UNITS * _measure(one) for one in found))


def _measure(release: Release) -> float:
    z = release.noise_multiplier
    if release.mechanism != IN_SHARES:
        return 1 / z**2
    n, m = release.parameters["norm"], release.parameters["norm_1"]
    return 1 / z**2 + min(1 / (z**4 * n**2) + 1.5 * m / (z**4 * n**4), 1.5 * m / (z**2 * n**2))


def find_epsilon(units: float, delta: float, *, in_shares: bool = False) -> float:
    """Computes the epsilon of Gaussian mechanisms together, exactly, or a bound if some noise is in shares.

        delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu),   mu² = the sum of 1/z²
        epsilon <= a mu²/2 + log((a - 1)/a) - log(a delta)/(a - 1),   for each order a = 2, 3, ...

    References: Balle, Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018, arXiv
      1805.06530, Theorem 8; Canonne, Kamath, Steinke, "The discrete Gaussian for differential privacy",
      NeurIPS 2020, arXiv 2004.00010, Proposition 12.

    >>> round(find_epsilon(10**9, 1e-5), 4)
    4.3772
    """
    mu = math.sqrt(units / _UNITS)
    if mu == 0:
        return 0.0
    if in_shares:
        return max(0.0, min(_bound_epsilon(mu, delta, order) for order in _list_orders(mu, delta)))
    if _find_delta(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while _find_delta(high, mu) > delta:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _find_delta(middle, mu) > delta else (low, middle)
    return high


def _list_orders(mu: float, delta: float) -> Iterable[int]:
    """Lists orders near the best one, all of which give a bound."""
    best = 1 + math.sqrt(-2 * math.log(delta)) / mu
    return sorted({max(2, math.floor(best * (1 + step / 100))) for step in range(-40, 41)})


def _bound_epsilon(mu: float, delta: float, order: int) -> float:
    divergence = order * mu**2 / 2
    return divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def _find_delta(epsilon: float, mu: float) -> float:
    return math.exp(_log_tail(epsilon / mu - mu / 2)) - math.exp(epsilon + _log_tail(epsilon / mu + mu / 2))


def _log_tail(x: float) -> float:
    """Returns the logarithm of the probability that a normal number is above x; below it if x is large."""
    if x < 30:
        return math.log(math.erfc(x / math.sqrt(2)) / 2)
    return -x * x / 2 - math.log(x * math.sqrt(2 * math.pi)) + math.log1p(-1 / (x * x))
