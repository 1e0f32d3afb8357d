"""What left the house: an append-only file of lines, each of which carries the hash of the one before."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hanse.core.errors import InvalidInput

__all__ = ["AuditLog"]


class AuditLog:
    """Lines of JSON. Whoever changes, removes or inserts one breaks the chain from there on.

    Cutting off the end can't be seen from the file alone: compare its last hash with one noted elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cut_half_a_line()
        self._number, self._last = 0, ""
        for line in self.lines():
            self._number, self._last = line["n"] + 1, line["hash"]

    def _cut_half_a_line(self) -> None:
        """A line whose writing was cut is removed: what it announces had not left yet."""
        if self.path.exists():
            data = self.path.read_bytes()
            if data and not data.endswith(b"\n"):
                os.truncate(self.path, data.rfind(b"\n") + 1)

    def write(self, what: str, **about: Any) -> str:
        """Adds a line; it is on the disk when this returns. Its hash."""
        line = {"n": self._number, "at": round(time.time(), 3), "what": what, **about, "before": self._last}
        line["hash"] = _hash(line)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._number, self._last = self._number + 1, line["hash"]
        return self._last

    def lines(self) -> Iterator[dict[str, Any]]:
        """All lines, checked. Raises: InvalidInput: at the first that does not fit."""
        if not self.path.exists():
            return
        before = ""
        with open(self.path, encoding="utf-8") as file:
            for number, text in enumerate(file):
                try:
                    line = json.loads(text)
                    given = line.pop("hash")
                    fits = line["n"] == number and line["before"] == before and _hash(line) == given
                except (ValueError, KeyError, TypeError, AttributeError):
                    fits, given, line = False, "", {}
                if not fits:
                    raise InvalidInput(
                        f"{self.path}, line {number + 1}: it was changed, or lines before it were"
                    )
                before = given
                yield {**line, "hash": given}


def _hash(line: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
