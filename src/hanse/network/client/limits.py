"""The sum of a client's computing time on each day, in a file."""

import json
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Day"]


class Day:
    """The seconds of computation of the current day, in a file."""

    def __init__(self, path: Path, today: Callable[[], str] = lambda: time.strftime("%Y-%m-%d")) -> None:
        self._path, self._today = path, today

    @property
    def seconds(self) -> float:
        """The seconds so far; 0 if the file is of another day, or can't be read."""
        try:
            said = json.loads(self._path.read_text())
            return float(said["seconds"]) if said["day"] == self._today() else 0.0
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    def add(self, seconds: float) -> None:
        """Adds seconds to the sum."""
        whole = self._path.with_name(f"{self._path.name}.part")
        whole.write_text(json.dumps({"day": self._today(), "seconds": round(self.seconds + seconds, 3)}))
        whole.replace(self._path)
