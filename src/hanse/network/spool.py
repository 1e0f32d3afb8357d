"""Where messages wait on the server's disk: whole and durable before they are acknowledged."""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hanse.network.errors import Refused

__all__ = ["Objects", "Spool", "durably"]

READ_BYTES = 1 << 20


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def durably(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all; it has reached the disk when this returns."""
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync_folder(path.parent)


@contextlib.contextmanager
def _full_disk_refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Refused(507, "disk-full", "no space is left on the server's disk; try again later") from None


class Objects:
    """What clients download: files under the SHA-256 of their bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Keeps bytes; their SHA-256 in hexadecimal."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.path(sha256).exists():
            durably(self.path(sha256), data)
        return sha256

    def path(self, sha256: str) -> Path:
        """Where they are, if they are there."""
        return self._folder / sha256

    def keep_only(self, needed: set[str]) -> None:
        """Removes all others."""
        for path in self._folder.iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)


class _Upload:
    def __init__(self, path: Path, sha256: str, size: int) -> None:
        self.path, self.sha256, self.size = path, sha256, size
        self.lock = threading.Lock()
        self.hash: Any = hashlib.sha256()
        self.offset = 0
        if path.exists():  # of a server that was cut
            with open(path, "rb") as file:
                while block := file.read(READ_BYTES):
                    self.hash.update(block)
                    self.offset += len(block)


class Spool:
    """The messages of one run, by ticket. A message arrives in chunks, each checked, in order.

    A part that was cut goes on from where it ended, also after a restart of the server.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._uploads: dict[int, _Upload] = {}
        self._lock = threading.Lock()

    def tickets(self) -> dict[int, str]:
        """The tickets whose message is here, and its SHA-256, in the order of arrival."""
        found = sorted(self._folder.glob("*.message"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        names = [path.name.split(".") for path in found]
        return {int(ticket): sha256 for ticket, sha256, _ in names}

    def _find(self, ticket: int) -> Path | None:
        return next(self._folder.glob(f"{ticket}.*.message"), None)

    def read(self, ticket: int) -> bytes:
        """A message that is here."""
        path = self._find(ticket)
        if path is None:
            raise FileNotFoundError(f"no message for ticket {ticket}")
        return path.read_bytes()

    def offset(self, ticket: int, sha256: str, size: int) -> int:
        """How much of a message is here; `size`: all of it, durably.

        Raises: Refused: if the ticket was answered with another message.
        """
        path = self._find(ticket)
        if path is not None:
            if path.name.split(".")[1] == sha256:
                return size
            raise Refused(409, "answered", f"ticket {ticket} was answered with another message before")
        return self._upload(ticket, sha256, size).offset

    def _upload(self, ticket: int, sha256: str, size: int) -> _Upload:
        with self._lock:
            upload = self._uploads.get(ticket)
            if upload is None or upload.sha256 != sha256:
                path = self._folder / f"{ticket}.{sha256}.upload"
                for other in self._folder.glob(f"{ticket}.*.upload"):
                    if other != path:
                        other.unlink()
                upload = self._uploads[ticket] = _Upload(path, sha256, size)
            return upload

    def writing(self, ticket: int, sha256: str, size: int, offset: int) -> "Chunk":
        """Takes up a chunk. Raises: Refused: if it does not begin where the last one ended."""
        upload = self._upload(ticket, sha256, size)
        if not upload.lock.acquire(blocking=False):
            raise Refused(409, "busy", "another request is writing this message")
        if upload.offset != offset:
            upload.lock.release()
            raise Refused(409, "offset", f"{upload.offset} bytes are here; go on from there")
        with _full_disk_refused():
            return Chunk(upload)

    def finish(self, ticket: int, sha256: str, size: int) -> bool:
        """Makes a message durable once all of it is here; whether it is.

        Raises: Refused: if it is not what was announced.
        """
        upload = self._upload(ticket, sha256, size)
        with upload.lock:
            if self._find(ticket) is not None:
                return True
            if upload.offset < size:
                return False
            if upload.hash.hexdigest() != sha256:
                upload.path.unlink()
                del self._uploads[ticket]
                raise Refused(422, "corrupted", "the message is not what its SHA-256 says; send it again")
            with _full_disk_refused(), open(upload.path, "rb+") as file:
                os.fsync(file.fileno())
            os.utime(upload.path)
            upload.path.rename(self._folder / f"{ticket}.{sha256}.message")
            _sync_folder(self._folder)
            self._uploads.pop(ticket, None)
            return True

    def keep_only(self, needed: set[int], first_unknown: int) -> None:
        """Removes the messages of tickets that are settled; those not booked yet may be wanted still."""
        with self._lock:
            for path in self._folder.iterdir():
                ticket = int(path.name.split(".")[0])
                if ticket not in needed and ticket < first_unknown:
                    path.unlink(missing_ok=True)
                    self._uploads.pop(ticket, None)


class Chunk:
    """One chunk on its way to the disk. It counts only if `keep` is called."""

    def __init__(self, upload: _Upload) -> None:
        self._upload = upload
        self._whole = upload.hash.copy()
        self._own: Any = hashlib.sha256()
        self._written = 0
        self._file = open(upload.path, "ab")  # noqa: SIM115 - closed by `close`

    def write(self, data: bytes) -> None:
        """Adds bytes. Raises: Refused: if the disk is full."""
        with _full_disk_refused():
            self._file.write(data)
        self._own.update(data)
        self._whole.update(data)
        self._written += len(data)

    def keep(self, sha256: bytes) -> None:
        """Counts what was written, if its SHA-256 is this. Raises: Refused."""
        if self._own.digest() != sha256:
            raise Refused(422, "corrupted", "the body is not what its Content-Digest says; send it again")
        with _full_disk_refused():
            self._file.flush()
        self._upload.hash = self._whole
        self._upload.offset += self._written

    def close(self) -> None:
        """Ends it; what was not kept is cut off again."""
        try:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(FileNotFoundError):
                os.truncate(self._upload.path, self._upload.offset)
        finally:
            self._upload.lock.release()
