"""The sums of what a client has given, of each day and in all runs together, in a file of its home."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Spent"]


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

    def _read(self) -> tuple[dict[str, float], dict[str, float]]:
        """Returns the sums of the current day and the totals."""
        try:
            said = json.loads(self._path.read_text())
            totals = {name: float(amount) for name, amount in said["total"].items()}
            today = said["today"].items() if said["day"] == self._today() else ()
            return {name: float(amount) for name, amount in today}, totals
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}, dict(self._begin())

    def of_today(self, what: str) -> float:
        """Returns the sum of the current day of "tickets", "upload_bytes", "seconds" or another amount."""
        return self._read()[0].get(what, 0.0)

    def of_all(self, what: str) -> float:
        """Returns the sum of all days."""
        return self._read()[1].get(what, 0.0)

    def add(self, **amounts: float) -> None:
        """Adds amounts to the sums."""
        today, totals = self._read()
        for sums in (today, totals):
            for name, amount in amounts.items():
                sums[name] = round(sums.get(name, 0.0) + amount, 3)
        whole = self._path.with_name(f"{self._path.name}.part")
        whole.write_text(json.dumps({"day": self._today(), "today": today, "total": totals}))
        whole.replace(self._path)
