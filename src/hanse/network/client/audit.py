"""The record of what a client has sent: a file of lines, each of which carries the hash of the one before."""

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hanse.core import InvalidInput

__all__ = ["AuditLog"]


class AuditLog:
    """An append-only file of JSON lines. Changing, removing or inserting one breaks the chain from there on.

    Cutting off the end can't be seen from the file alone: compare its last hash with one noted elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._number, self._last, self._size = 0, "", 0
        self._cut_half_a_line()
        if path.exists():
            with self._held("rb") as file:
                self._catch_up(file)

    def _cut_half_a_line(self) -> None:
        """Removes a line that was cut off while it was written: what it announces was not sent yet."""
        if self.path.exists():
            with self._held("r+b") as file:
                data = file.read()
                if not data.endswith(b"\n"):
                    file.truncate(data.rfind(b"\n") + 1)

    @contextmanager
    def _held(self, mode: str) -> Iterator[IO[bytes]]:
        """Opens the file, and keeps other threads and commands of this client from writing it."""
        with self._lock, open(self.path, mode) as file:
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _catch_up(self, file: IO[bytes]) -> None:
        """Reads the file, to go on from its last line."""
        file.seek(0)
        self._number, self._last = 0, ""
        for line in _read_chain(self.path, file.read()):
            self._number, self._last = line["n"] + 1, line["hash"]
        self._size = file.tell()

    def write(self, what: str, **about: Any) -> str:
        """Adds a line, and returns its hash. The line is on the disk when this returns."""
        with self._held("a+b") as file:
            if file.seek(0, os.SEEK_END) != self._size:  # another command wrote, such as `hanse leave`
                self._catch_up(file)
            line = {
                "n": self._number,
                "at": round(time.time(), 3),
                "what": what,
                **about,
                "before": self._last,
            }
            line["hash"] = _hash(line)
            file.write((json.dumps(line) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
            self._number, self._last, self._size = self._number + 1, line["hash"], file.tell()
            return self._last

    def lines(self) -> Iterator[dict[str, Any]]:
        """Checks and yields all lines. Raises: InvalidInput: at the first line that breaks the chain."""
        if self.path.exists():
            with self._held("rb") as file:
                data = file.read()
            yield from _read_chain(self.path, data)


def _read_chain(path: Path, data: bytes) -> Iterator[dict[str, Any]]:
    before = ""
    for number, text in enumerate(data.splitlines()):
        try:
            line = json.loads(text)
            given = line.pop("hash")
            fits = line["n"] == number and line["before"] == before and _hash(line) == given
        except (ValueError, KeyError, TypeError, AttributeError):
            fits, given, line = False, "", {}
        if not fits:
            raise InvalidInput(f"{path}, line {number + 1}: it was changed, or lines before it were")
        before = given
        yield {**line, "hash": given}


def _hash(line: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
