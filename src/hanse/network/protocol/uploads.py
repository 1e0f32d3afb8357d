"""Uploads at the server: one state machine on the disk, which alone touches the files of messages.

A message is in one of three states, and the name and the size of its file tell which:

- receiving: TICKET.SHA256.SIZE.upload holds its first chunks. Each was checked as it arrived.
- complete: that file holds all SIZE bytes. The client does not know it yet.
- durable: TICKET.SHA256.message holds them, and the file and its name have reached the disk. Only then the
  client is told that the server has its message.

Memory holds only what the files say, and reads them again after each error. When a server starts, a complete
message becomes durable if it is what its name says; else it is removed, and its client sends it again. Each
message that a run reads is compared with its name: a disk may lose or change what was acknowledged.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hanse.core import HanseError
from hanse.core.exchange import MAPPED_BYTES, Packed, Stored
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.spool import Chunks, hash_chunks, read_blocks, sync_folder, write_all

__all__ = ["Chunk", "Damaged", "Spool"]

logger = logging.getLogger(__name__)

_UPLOAD = re.compile(r"(\d+)\.([0-9a-f]{64})\.(\d+)\.upload")
_MESSAGE = re.compile(r"(\d+)\.([0-9a-f]{64})\.message")


class Damaged(HanseError):
    """A message that was acknowledged is not on the server's disk any more, or has changed there.

    Args:
      ticket: that it answers.
      why: names its file.
    """

    def __init__(self, ticket: int, why: str) -> None:
        super().__init__(why)
        self.ticket = ticket


@contextlib.contextmanager
def _refuse_disk_errors() -> Iterator[None]:
    """Turns an error of the server's disk into a refusal after which the client tries again."""
    try:
        yield
    except OSError as error:
        logger.warning("event=disk-error error=%s", error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refused(
                507, "disk-full", "no space is left on the server's disk; try again later"
            ) from None
        why = f"the server's disk can't take it ({error.strerror}); try again later"
        raise Refused(503, "unavailable", why) from None


class _Upload:
    """A message that is received, or complete. `lock` is held by whoever changes its file."""

    def __init__(self, path: Path, sha256: str, size: int) -> None:
        self.path, self.sha256, self.size = path, sha256, size
        self.lock = threading.Lock()
        self.chunks = Chunks()
        self._deriving, self._is_derived = threading.Lock(), False

    @property
    def offset(self) -> int:
        """The number of bytes that are here."""
        return self.chunks.size

    def derive_once(self) -> None:
        """Reads the file if nobody has yet. It may take seconds: an event loop calls it in a thread."""
        with self._deriving:
            if not self._is_derived:
                self.derive()
                self._is_derived = True

    def derive(self) -> None:
        """Reads from the file how much is here; cuts off what is no whole chunk, or is too much."""
        self.chunks = Chunks()
        if self.path.exists():
            found = self.path.stat().st_size
            if found != self.size:
                os.truncate(self.path, 0 if found > self.size else Chunks.count_whole(found))
            chunks = Chunks()
            for block in read_blocks(self.path):
                chunks.add(block)
            self.chunks = chunks.end()

    def start_over(self) -> None:
        """Removes what is here, so that the client sends all of it again."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.chunks = Chunks()


class Spool:
    """The messages of one run, by ticket. A message arrives in chunks, each checked, in order.

    An upload that was cut off goes on from where it ended, also after a restart of the server. Files that are
    no messages are left alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._uploads: dict[int, _Upload] = {}
        self._here: dict[int, str] = {}
        self._recover()

    def _recover(self) -> None:
        """Finds the durable messages, and makes those durable that are complete."""
        messages = [path for path in self._folder.iterdir() if _MESSAGE.fullmatch(path.name)]
        messages.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        names = [path.name.split(".") for path in messages]
        self._here = {int(ticket): sha256 for ticket, sha256, _ in names}
        sync_folder(self._folder)  # a server may have been killed between renaming and this
        for path in list(self._folder.iterdir()):
            found = _UPLOAD.fullmatch(path.name)
            if found is None:
                continue
            ticket, sha256, size = int(found[1]), found[2], int(found[3])
            try:
                if ticket in self._here:  # two requests sent it
                    path.unlink()
                elif path.stat().st_size == size and _hash(path) == sha256:
                    self._make_durable(path, ticket, sha256)
                elif path.stat().st_size >= size:
                    path.unlink()
            except OSError as error:  # it is read again when its client asks
                logger.warning("event=disk-error error=%s", error)

    def find_foreign(self) -> list[Path]:
        """Returns the files and folders here that hold no message."""
        named = (_UPLOAD, _MESSAGE)
        return [p for p in self._folder.iterdir() if not any(name.fullmatch(p.name) for name in named)]

    # -- receiving -----------------------------------------------------------------------------

    def offset(self, ticket: int, sha256: str, size: int) -> int:
        """Returns the number of bytes of a message that are here; `size`: it is complete, or durable.

        The first call after a start reads these bytes, which may take seconds.

        Raises: Refused: if the ticket was answered with another message.
        """
        if self._is_durable(ticket, sha256):
            return size
        upload = self._upload(ticket, sha256, size)
        with _refuse_disk_errors():
            upload.derive_once()
        return upload.offset

    def _is_durable(self, ticket: int, sha256: str) -> bool:
        here = self._here.get(ticket)
        if here not in (None, sha256):
            raise Refused(409, "answered", f"ticket {ticket} was answered with another message before")
        return here is not None

    def _upload(self, ticket: int, sha256: str, size: int) -> _Upload:
        with self._lock, _refuse_disk_errors():
            upload = self._uploads.get(ticket)
            if upload is None or (upload.sha256, upload.size) != (sha256, size):
                path = self._folder / f"{ticket}.{sha256}.{size}.upload"
                for other in self._folder.glob(f"{ticket}.*.upload"):
                    if other != path and _UPLOAD.fullmatch(other.name):
                        other.unlink(missing_ok=True)
                upload = self._uploads[ticket] = _Upload(path, sha256, size)
            return upload

    def writing(self, ticket: int, sha256: str, size: int, offset: int) -> "Chunk":
        """Begins to write a chunk. Raises: Refused: if it does not begin where the last one ended."""
        upload = self._upload(ticket, sha256, size)
        if not upload.lock.acquire(blocking=False):
            raise Refused(409, "busy", "another request is writing this message")
        try:
            with _refuse_disk_errors():
                upload.derive_once()
                return Chunk(upload, offset)
        except BaseException:
            upload.lock.release()
            raise

    def finish(self, ticket: int, sha256: str, size: int) -> bool:
        """Makes a message durable if it is complete; returns whether it is durable.

        Raises: Refused: if its SHA-256 is not the announced one, or the disk does not take it. The client
          begins again.
        """
        if self._is_durable(ticket, sha256):
            return True
        upload = self._upload(ticket, sha256, size)
        with upload.lock:
            if self._is_durable(ticket, sha256):
                return True
            with _refuse_disk_errors():
                upload.derive_once()
            if upload.offset < size:
                return False
            if upload.chunks.sha256 != sha256:
                upload.start_over()
                raise Refused(422, "corrupted", "the message is not what its SHA-256 says; send it again")
            try:
                with _refuse_disk_errors():
                    if upload.path.stat().st_size != size:
                        raise Refused(422, "corrupted", "bytes of the message were lost; send it again")
                    self._make_durable(upload.path, ticket, sha256)
            except Refused:  # a file whose sync failed may miss bytes, and a second sync would not say so
                with contextlib.suppress(OSError):
                    self._message(ticket, sha256).unlink(missing_ok=True)
                upload.start_over()
                raise
            return True

    def _make_durable(self, path: Path, ticket: int, sha256: str) -> None:
        """Syncs a complete message, gives it its last name, and syncs that; the caller holds its lock."""
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        os.utime(path)
        path.rename(self._message(ticket, sha256))
        sync_folder(self._folder)
        with self._lock:
            self._here[ticket] = sha256
            self._uploads.pop(ticket, None)

    def _message(self, ticket: int, sha256: str) -> Path:
        return self._folder / f"{ticket}.{sha256}.message"

    # -- durable messages ----------------------------------------------------------------------

    def tickets(self) -> dict[int, str]:
        """Returns the tickets whose messages are durable, with their names, in the order of arrival."""
        with self._lock:
            return dict(self._here)

    def read(self, ticket: int) -> Packed:
        """Returns a durable message whose bytes are what its name says. A large one stays on the disk.

        Raises: Damaged.
        """
        message = self.peek(ticket)
        sha256 = self._here[ticket]
        found = (
            _hash(self._message(ticket, sha256)) if isinstance(message, Stored) else hash_chunks([message])
        )
        if found != sha256:
            raise Damaged(ticket, self._describe(ticket, "its content is not what its name says"))
        return message

    def peek(self, ticket: int) -> Packed:
        """Returns a durable message as it is on the disk now. Raises: Damaged: if it can't be read."""
        path = self._message(ticket, self._here.get(ticket, ""))
        try:
            return Stored(path) if path.stat().st_size >= MAPPED_BYTES else path.read_bytes()
        except OSError as error:
            raise Damaged(ticket, self._describe(ticket, f"it can't be read ({error.strerror})")) from None

    def _describe(self, ticket: int, why: str) -> str:
        return f"{self._message(ticket, self._here.get(ticket, ''))} is damaged: {why}"

    def find_arrival_s(self, ticket: int) -> float:
        """Returns when a durable message arrived, by the clock on the wall. Raises: OSError."""
        return self._message(ticket, self._here[ticket]).stat().st_mtime

    def discard(self, ticket: int) -> None:
        """Removes a message, so that the ticket can be answered again."""
        with self._lock:
            sha256 = self._here.pop(ticket, None)
            if sha256 is not None:
                with contextlib.suppress(OSError):
                    self._message(ticket, sha256).unlink(missing_ok=True)
                    sync_folder(self._folder)

    def keep_only(self, needed: set[int], first_unknown: int) -> None:
        """Removes the messages of settled tickets.

        Args:
          needed: tickets that are open.
          first_unknown: messages from this ticket on are kept, because a snapshot may not know them yet.
        """
        with self._lock:
            for path in self._folder.iterdir():
                found = _UPLOAD.fullmatch(path.name) or _MESSAGE.fullmatch(path.name)
                if found is None:
                    continue
                ticket = int(found[1])
                if ticket not in needed and ticket < first_unknown:
                    path.unlink(missing_ok=True)
                    self._uploads.pop(ticket, None)
                    self._here.pop(ticket, None)


def _hash(path: Path) -> str:
    return hash_chunks(read_blocks(path))


class Chunk:
    """One chunk on its way to the disk. It counts only if `keep` is called.

    Args:
      upload: whose lock is held; `close` releases it.
      offset: where the chunk begins.

    Raises: Refused: if that is not where the upload ended.
    """

    def __init__(self, upload: _Upload, offset: int) -> None:
        self._upload = upload
        self._hash: Any = hashlib.sha256()
        self._written = 0
        if upload.offset == offset:
            self._file = open(upload.path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
            if os.fstat(self._file.fileno()).st_size == offset:
                return
            self._file.close()  # somebody has changed the file
            upload.derive()
        raise Refused(409, "offset", f"{upload.offset} bytes are here; go on from there")

    def write(self, data: bytes) -> None:
        """Writes bytes. Raises: Refused: if the disk does not take them."""
        self._hash.update(data)
        with _refuse_disk_errors():
            write_all(self._file, data)
        self._written += len(data)

    def keep(self, sha256: bytes) -> None:
        """Counts the written bytes as arrived, if this is their SHA-256. Raises: Refused."""
        if self._hash.digest() != sha256:
            raise Refused(422, "corrupted", "the body is not what its Content-Digest says; send it again")
        self._upload.chunks.take(sha256, self._written)

    def close(self) -> None:
        """Closes the file, and cuts off what was not kept."""
        try:
            self._file.close()
            with contextlib.suppress(FileNotFoundError):
                if self._upload.path.stat().st_size > self._upload.offset:
                    os.truncate(self._upload.path, self._upload.offset)
        except OSError:  # what is on the disk is open: the client sends all of it again
            self._upload.start_over()
        finally:
            self._upload.lock.release()
