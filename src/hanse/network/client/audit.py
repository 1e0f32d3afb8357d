"""A client's audit log: a file of lines, each of which carries the hash of the one before.

It says what has left the client, what the client was asked and has refused, and what its owner has decided.
It holds digests, sizes, numbers and words from closed lists: no error's text, no cell of a table, no path.
"""

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hanse.core import InvalidInput
from hanse.network.protocol.spool import durably
from hanse.network.protocol.wire import AuditHead

__all__ = ["AuditLog"]

LATEST_BYTES = 2 << 20
"""Opening a log reads and checks its last lines, up to so many bytes; `lines` checks all of them."""

BEGINS = "begins a new log"
"""The first line of a log that its owner has begun anew."""


class AuditLog:
    """An append-only file of JSON lines. Changing, removing or inserting one breaks the chain from there on.

    Cutting off the end, and computing all hashes anew, can't be seen from the file alone. So the server keeps
    the newest head, and `check` finds whether the log still contains it. A head that the server hears is on
    the disk before; the one that it keeps may be older.

    It is read when it is first used. Other commands of the same client may write it at the same time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._read_bytes: int | None = None  # None: it was not read yet
        self._number, self._begun, self._hash, self._text = 0, 0, "", b""
        self._head: AuditHead | None = None

    @contextmanager
    def _hold(self, mode: str) -> Iterator[IO[bytes]]:
        """Opens the file, and keeps other threads and commands of this client from writing it."""
        with self._lock, self._open(mode) as file:
            yield file

    def _open(self, mode: str) -> IO[bytes]:
        """Opens and locks the file that has the log's name once the lock is there.

        While this waited, the file may have been replaced by the first line of a new log.
        """
        while True:
            file = open(self.path, mode)  # noqa: SIM115 (the caller closes it)
            try:
                if sys.platform != "win32":
                    import fcntl

                    fcntl.flock(file, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _catch_up(self, file: IO[bytes]) -> None:
        """Reads what was written since the last time, to go on from the last line."""
        size = file.seek(0, os.SEEK_END)
        if self._read_bytes is None:
            chain = _Chain(self.path)
            if size > LATEST_BYTES:
                file.seek(size - LATEST_BYTES)
                file.readline()  # the end of a line
                chain.number = None
            else:
                file.seek(0)
        else:
            file.seek(max(0, self._read_bytes - len(self._text)))
            if file.read(len(self._text)) != self._text:
                raise InvalidInput(
                    f"{self.path} was changed by another program: its line {self._number} is not the one "
                    "that was written"
                )
            chain = _Chain(self.path, self._number, self._hash)
        at = file.tell()
        for line, text in chain.read(file, size - at):
            self._number, self._hash, self._text, at = line["n"] + 1, line["hash"], text, at + len(text)
        if at < size and file.writable():
            file.truncate(at)  # half a line, which was cut off while it was written: it announced nothing yet
        if self._read_bytes is None and size:
            file.seek(0)
            self._begun = next((line["n"] for line, _ in _Chain(self.path).read(file, size)), 0)
        self._read_bytes = at

    def write(self, what: str, *, sync: bool = True, **about: Any) -> str:
        """Adds a line, and returns its hash.

        Args:
          sync: whether the line, and all before it, are on the disk when this returns. It must be so for what
            leaves the client.
        """
        with self._hold("a+b") as file:
            self._catch_up(file)
            line = {
                "n": self._number,
                "at": round(time.time(), 3),
                "what": what,
                **about,
                "before": self._hash,
            }
            line["hash"] = _hash(line)
            text = (json.dumps(line) + "\n").encode()
            file.write(text)
            file.flush()
            self._number, self._hash, self._text = self._number + 1, line["hash"], text
            self._read_bytes = file.tell()
            if sync:
                os.fsync(file.fileno())
                self._head = AuditHead(lines=self._number, hash=self._hash, begun=self._begun)
            return self._hash

    def head(self) -> AuditHead:
        """Returns the head of what is on the disk for certain."""
        if self._head is None:
            with self._hold("a+b") as file:
                self._catch_up(file)
                os.fsync(file.fileno())
                self._head = AuditHead(lines=self._number, hash=self._hash, begun=self._begun)
        return self._head

    def head_at(self, lines: int) -> AuditHead:
        """Returns the head as it was when the log had so many lines; if it has fewer, its head now."""
        head = self.head()
        line = self._find(lines - 1) if head.begun < lines < head.lines else None
        return head if line is None else AuditHead(lines=lines, hash=line["hash"], begun=head.begun)

    def _find(self, number: int) -> dict[str, Any] | None:
        """Finds a line, from the end, where it mostly is."""
        with self._hold("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for start in (max(0, size - LATEST_BYTES), 0):
                file.seek(start)
                chain = _Chain(self.path)
                if start:
                    file.readline()
                    chain.number = None
                for line, _ in chain.read(file, size - file.tell()):
                    if line["n"] == number:
                        return line
                    if line["n"] > number:
                        break
        return None

    def check(self, kept: AuditHead) -> None:
        """Checks that the log contains a head that the server keeps. Raises: InvalidInput: if it does not."""
        difference = self._find_difference(kept)
        if difference is not None:
            raise InvalidInput(
                f"{self.path} is not the audit log that the server keeps: {difference}. Put the file back, "
                "from a copy of this folder. If there is none, begin a new one, which the server notes: "
                f"hanse audit-log --begin-new --home {self.path.parent}"
            )

    def _find_difference(self, kept: AuditHead) -> str | None:
        head = self.head()
        if not kept.lines:
            return None
        if kept.lines <= head.begun:
            first = next(self.lines())
            if (first.get("kept_lines"), first.get("kept_hash")) == (kept.lines, kept.hash):
                return None
            return (
                f"it begins with line {head.begun + 1}, and the server keeps line {kept.lines} of another log"
            )
        if head.lines < kept.lines:
            return (
                f"it ends with line {head.lines}, and the server keeps line {kept.lines}: from line "
                f"{head.lines + 1} on it was cut off"
            )
        if self.head_at(kept.lines).hash != kept.hash:
            return (
                f"line {kept.lines} is another than the server keeps: it was changed, or lines before it were"
            )
        return None

    def lines(self) -> Iterator[dict[str, Any]]:
        """Checks and yields all lines. Raises: InvalidInput: at the first line that breaks the chain."""
        if self.path.exists():
            with self._hold("rb") as file:
                size = file.seek(0, os.SEEK_END)
            with open(self.path, "rb") as file:  # lines that follow are not read, so nobody has to wait
                for line, _ in _Chain(self.path).read(file, size):
                    yield line

    def begin_new(self, kept: AuditHead) -> Path | None:
        """Begins a new log, whose first line names the old one; returns where the old one is now.

        No client may be at work: it would find another log than the one that it has written.

        Args:
          kept: the head that the server keeps. The new log goes on after its number, so that the server can
            tell it from one whose end was cut off.
        """
        old = None
        with self._hold("a+b") as file:
            number = kept.lines
            about: dict[str, Any] = {"kept_lines": kept.lines, "kept_hash": kept.hash}
            if size := file.seek(0, os.SEEK_END):
                file.seek(0)
                number = max(number, sum(1 for _ in file))
                file.seek(max(0, size - LATEST_BYTES))
                number = max(number, *(_number_in(text) + 1 for text in file))
                old = next(path for path in map(self._name_old, range(1, 10**6)) if not path.exists())
                shutil.copyfile(self.path, old)
                with open(old, "rb+") as copy:
                    about |= {"old": old.name, "old_sha256": hashlib.file_digest(copy, "sha256").hexdigest()}
                    os.fsync(copy.fileno())
            line = {"n": number, "at": round(time.time(), 3), "what": BEGINS, **about, "before": ""}
            durably(self.path, (json.dumps({**line, "hash": _hash(line)}) + "\n").encode())
            self._read_bytes, self._head = None, None
            self._number, self._begun, self._hash, self._text = 0, 0, "", b""
        return old

    def _name_old(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")


class _Chain:
    """Reads lines that follow each other.

    Args:
      number, before: of the first line; None: the first line says both itself.
    """

    def __init__(self, path: Path, number: int | None = 0, before: str = "") -> None:
        self._path, self.number, self._before = path, number, before

    def read(self, texts: Iterable[bytes], num_bytes: int) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Checks and yields whole lines of so many bytes, each with its text.

        Raises: InvalidInput: if one does not follow the one before.
        """
        for text in texts:
            num_bytes -= len(text)
            if num_bytes < 0 or not text.endswith(b"\n"):
                return
            try:
                line = json.loads(text)
                given, begins = line.pop("hash"), line["what"] == BEGINS and line["before"] == ""
                if self.number is None or (self.number == 0 and begins):
                    self.number, self._before = int(line["n"]), line["before"]
                fits = (line["n"], line["before"], _hash(line)) == (self.number, self._before, given)
            except (ValueError, KeyError, TypeError, AttributeError):
                fits = False
            if not fits:
                raise InvalidInput(
                    f"{self._path}, line {(self.number or 0) + 1}: it was changed, or lines before it were"
                )
            self.number, self._before = line["n"] + 1, given
            yield {**line, "hash": given}, text


def _number_in(text: bytes) -> int:
    """Returns the number that a line gives itself; -1: it gives none."""
    try:
        number = json.loads(text)["n"]
    except (ValueError, KeyError, TypeError):
        return -1
    return number if type(number) is int and number < 2**50 else -1


def _hash(line: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
