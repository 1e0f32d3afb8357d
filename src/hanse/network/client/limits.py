"""The sums of what a client has given, of each day and in all runs together, in a file of its home."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Spent"]

MOST_NAMED = 256
"""The latest tickets that are counted once, however often they are computed. Older ones may count twice."""


class Spent:
    """The sums of tickets, bytes, examples and seconds that servers have used up at this client.

    They are of the client home, whatever a run is called: a home belongs to one server.

    Args:
      path: of the file.
      today: returns the current day.
      begin: returns the totals to begin with, if there is no file yet.
    """

    def __init__(
        self,
        path: Path,
        today: Callable[[], str] = lambda: time.strftime("%Y-%m-%d"),
        begin: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._path, self._today, self._begin = path, today, begin

    def _read(self) -> tuple[dict[str, float], dict[str, float], list[str]]:
        """Returns the sums of the current day, the totals, and the latest tickets."""
        try:
            said = json.loads(self._path.read_text())
            totals = {name: float(amount) for name, amount in said["total"].items()}
            today = said["today"].items() if said["day"] == self._today() else ()
            named = [str(name) for name in said.get("tickets", ())]
            return {name: float(amount) for name, amount in today}, totals, named
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}, dict(self._begin()), []

    def of_today(self, what: str) -> float:
        """Returns the sum of the current day of "tickets", "upload_bytes", "seconds" or another amount."""
        return self._read()[0].get(what, 0.0)

    def of_all(self, what: str) -> float:
        """Returns the sum of all days."""
        return self._read()[1].get(what, 0.0)

    def has(self, ticket: str) -> bool:
        """Returns whether a ticket of this name was counted lately."""
        return _shorten(ticket) in self._read()[2]

    def add(self, ticket: str = "", **amounts: float) -> None:
        """Adds amounts to the sums.

        Args:
          ticket: the name of the ticket that they are of: it is counted once. Empty: they are of none.
        """
        today, totals, named = self._read()
        name = _shorten(ticket)
        if ticket and name in named:
            return
        named = [*named, name][-MOST_NAMED:] if ticket else named
        for sums in (today, totals):
            for name, amount in amounts.items():
                sums[name] = round(sums.get(name, 0.0) + amount, 3)
        whole = self._path.with_name(f"{self._path.name}.part")
        said = {"day": self._today(), "today": today, "total": totals, "tickets": named}
        whole.write_text(json.dumps(said))
        whole.replace(self._path)


def _shorten(ticket: str) -> str:
    """Returns a short name of a ticket, of the same length for all."""
    return hashlib.sha256(ticket.encode()).hexdigest()[:24]
