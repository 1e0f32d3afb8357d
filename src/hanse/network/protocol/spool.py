"""Files of messages: outgoing ones at the client, and whole, durable ones at the server.

Each side hashes a message once, chunk by chunk as it is written. A message's name is the SHA-256 of the
SHA-256s of its chunks.
"""

import contextlib
import errno
import hashlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from hanse.core.exchange import MAPPED_BYTES, Packed, Stored
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.wire import CHUNK_BYTES

__all__ = ["Objects", "Outgoing", "Spool", "durably", "hash_chunks", "sync_folder", "write_whole"]

BLOCK_BYTES = 1 << 20
"""The bytes that are hashed and written at a time, while they are in the processor's cache."""

Pieces: TypeAlias = Iterable[bytes | memoryview]
"""Bytes in pieces."""


def _blocks(pieces: Pieces, num_bytes: int = BLOCK_BYTES) -> Iterator[memoryview]:
    """Cuts pieces to at most so many bytes each."""
    for piece in pieces:
        view = memoryview(piece)
        yield from (view[at : at + num_bytes] for at in range(0, len(view), num_bytes))


def _write(file: io.FileIO, data: bytes | memoryview) -> None:
    """Writes all of the data."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


class _Chunks:
    """Computes the SHA-256 of each chunk of the data that are added."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self.size = 0
        self._open: Any = None

    def add(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            if self._open is None:
                self._open = hashlib.sha256()
            room = CHUNK_BYTES - self.size % CHUNK_BYTES
            self._open.update(view[:room])
            self.size += len(view[:room])
            view = view[room:]
            if self.size % CHUNK_BYTES == 0:
                self.end()

    def end(self) -> "_Chunks":
        """Ends the chunk that has begun, and returns `self`."""
        if self._open is not None:
            self.digests.append(self._open.digest())
            self._open = None
        return self

    def take(self, sha256: bytes, size: int) -> None:
        """Adds a chunk whose digest is known."""
        self.digests.append(sha256)
        self.size += size

    @property
    def sha256(self) -> str:
        return hashlib.sha256(b"".join(self.digests)).hexdigest()


def hash_chunks(pieces: Pieces) -> str:
    """Returns the name of a message: the SHA-256 of the SHA-256s of its chunks, in hexadecimal.

    >>> hash_chunks([b"a", b"b"]) == hashlib.sha256(hashlib.sha256(b"ab").digest()).hexdigest()
    True
    """
    chunks = _Chunks()
    for block in _blocks(pieces):
        chunks.add(block)
    return chunks.end().sha256


class Outgoing:
    """A client's message in a file, until the server has it.

    The file's name carries the hash of its content, so it need not reach the disk before anything else
    happens: a file that was cut off is noticed, and its ticket is computed again.

    Args:
      digests: the SHA-256 of each chunk.
    """

    def __init__(self, path: Path, size: int, digests: list[bytes]) -> None:
        self.path, self.size, self.digests = path, size, digests
        self.sha256 = hashlib.sha256(b"".join(digests)).hexdigest()

    @classmethod
    def write(cls, folder: Path, ticket: int, pieces: Pieces) -> "Outgoing":
        """Writes the message of a ticket."""
        part, chunks = folder / f"{ticket}.part", _Chunks()
        with open(part, "wb", buffering=0) as file:
            for block in _blocks(pieces):
                chunks.add(block)
                _write(file, block)
        digests = chunks.end().digests
        path = folder / f"{ticket}.{hashlib.sha256(b''.join(digests)).hexdigest()}.message"
        return cls(part.replace(path), chunks.size, digests)

    @classmethod
    def find(cls, folder: Path, ticket: int) -> "Outgoing | None":
        """Returns the message of a ticket, if it was written and its content is unchanged."""
        for path in folder.glob(f"{ticket}.*.message"):
            chunks = _Chunks()
            for block in _read(path):
                chunks.add(block)
            found = cls(path, chunks.size, chunks.end().digests)
            if path.name == f"{ticket}.{found.sha256}.message":
                return found
            path.unlink()
        return None

    @staticmethod
    def forget(folder: Path, ticket: int) -> None:
        """Removes the message of a ticket, if there is one."""
        for path in folder.glob(f"{ticket}.*.message"):
            path.unlink(missing_ok=True)

    def chunk(self, offset: int) -> tuple[bytes, bytes]:
        """Returns the chunk at this offset, and its SHA-256."""
        with open(self.path, "rb", buffering=0) as file:
            file.seek(offset)
            return file.read(CHUNK_BYTES), self.digests[offset // CHUNK_BYTES]


def sync_folder(folder: Path) -> None:
    """Waits until the names of a folder's files have reached the disk."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def durably(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all; it has reached the disk when this returns."""
    write_whole(path, [data])
    sync_folder(path.parent)


def write_whole(path: Path, pieces: Pieces) -> None:
    """Writes a file, whole or not at all; its name has reached the disk once its folder is synced."""
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextlib.contextmanager
def _refuse_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Refused(507, "disk-full", "no space is left on the server's disk; try again later") from None


class Objects:
    """The files that clients download, named by the SHA-256 of their bytes.

    A server that resumes a run writes them again, so they need not be durable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, pieces: Pieces) -> tuple[str, int]:
        """Writes bytes to a file; returns their SHA-256 in hexadecimal, and their number."""
        part, state, size = self._folder / "new", hashlib.sha256(), 0
        with open(part, "wb", buffering=0) as file:
            for block in _blocks(pieces):
                state.update(block)
                _write(file, block)
                size += len(block)
        part.replace(self.path(state.hexdigest()))
        return state.hexdigest(), size

    def path(self, sha256: str) -> Path:
        """Returns the path of the file with this SHA-256, whether it exists or not."""
        return self._folder / sha256

    def keep_only(self, needed: set[str]) -> None:
        """Removes all files but these."""
        for path in self._folder.iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)


class _Upload:
    """A message of which some chunks have arrived."""

    def __init__(self, path: Path, sha256: str, size: int) -> None:
        self.path, self.sha256, self.size = path, sha256, size
        self.lock = threading.Lock()
        self.chunks = _Chunks()
        if path.exists():  # the server was killed, perhaps in the middle of a chunk
            if path.stat().st_size < size:
                os.truncate(path, path.stat().st_size // CHUNK_BYTES * CHUNK_BYTES)
            for block in _read(path):
                self.chunks.add(block)
            self.chunks.end()

    @property
    def offset(self) -> int:
        return self.chunks.size


class Spool:
    """The messages of one run, by ticket. A message arrives in chunks, each checked, in order.

    An upload that was cut off goes on from where it ended, also after a restart of the server.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._uploads: dict[int, _Upload] = {}
        self._lock = threading.Lock()
        found = sorted(folder.glob("*.message"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        names = [path.name.split(".") for path in found]
        self._here = {int(ticket): sha256 for ticket, sha256, _ in names}

    def tickets(self) -> dict[int, str]:
        """Returns the tickets whose messages are here, with the messages' names, in the order of arrival."""
        return dict(self._here)

    def _path(self, ticket: int) -> Path:
        return self._folder / f"{ticket}.{self._here[ticket]}.message"

    def read(self, ticket: int) -> Packed:
        """Returns a message that is here. A large one stays on the disk."""
        path = self._path(ticket)
        return Stored(path) if path.stat().st_size >= MAPPED_BYTES else path.read_bytes()

    def offset(self, ticket: int, sha256: str, size: int) -> int:
        """Returns the number of bytes of a message that are here; `size`: all of them are, durably.

        Raises: Refused: if the ticket was answered with another message.
        """
        here = self._here.get(ticket)
        if here is None:
            return self._upload(ticket, sha256, size).offset
        if here != sha256:
            raise Refused(409, "answered", f"ticket {ticket} was answered with another message before")
        return size

    def _upload(self, ticket: int, sha256: str, size: int) -> _Upload:
        with self._lock:
            upload = self._uploads.get(ticket)
            if upload is None or (upload.sha256, upload.size) != (sha256, size):
                path = self._folder / f"{ticket}.{sha256}.{size}.upload"
                for other in self._folder.glob(f"{ticket}.*.upload"):
                    if other != path:
                        other.unlink()
                upload = self._uploads[ticket] = _Upload(path, sha256, size)
            return upload

    def writing(self, ticket: int, sha256: str, size: int, offset: int) -> "Chunk":
        """Begins to write a chunk. Raises: Refused: if it does not begin where the last one ended."""
        upload = self._upload(ticket, sha256, size)
        if not upload.lock.acquire(blocking=False):
            raise Refused(409, "busy", "another request is writing this message")
        if upload.offset != offset:
            upload.lock.release()
            raise Refused(409, "offset", f"{upload.offset} bytes are here; go on from there")
        with _refuse_full_disk():
            return Chunk(upload)

    def finish(self, ticket: int, sha256: str, size: int) -> bool:
        """Makes a message durable once all of it is here; returns whether it is.

        Raises: Refused: if its SHA-256 is not the announced one.
        """
        upload = self._upload(ticket, sha256, size)
        with upload.lock:
            if ticket in self._here:
                return True
            if upload.offset < size:
                return False
            if upload.chunks.sha256 != sha256:
                upload.path.unlink()
                del self._uploads[ticket]
                raise Refused(422, "corrupted", "the message is not what its SHA-256 says; send it again")
            with _refuse_full_disk(), open(upload.path, "rb+") as file:
                os.fsync(file.fileno())
            os.utime(upload.path)
            upload.path.rename(self._folder / f"{ticket}.{sha256}.message")
            sync_folder(self._folder)
            with self._lock:
                self._here[ticket] = sha256
                self._uploads.pop(ticket, None)
            return True

    def arrived_s(self, ticket: int) -> float:
        """Returns when a message that is here arrived, by the clock on the wall."""
        return self._path(ticket).stat().st_mtime

    def discard(self, ticket: int) -> None:
        """Removes the message of a ticket, which may then be answered again."""
        with self._lock:
            if ticket in self._here:
                self._path(ticket).unlink(missing_ok=True)
                sync_folder(self._folder)
                del self._here[ticket]

    def keep_only(self, needed: set[int], first_unknown: int) -> None:
        """Removes the messages of settled tickets.

        Args:
          needed: tickets that are open.
          first_unknown: messages from this ticket on are kept, because a snapshot may not know them yet.
        """
        with self._lock:
            for path in self._folder.iterdir():
                ticket = int(path.name.split(".")[0])
                if ticket not in needed and ticket < first_unknown:
                    path.unlink(missing_ok=True)
                    self._uploads.pop(ticket, None)
                    self._here.pop(ticket, None)


class Chunk:
    """One chunk on its way to the disk. It counts only if `keep` is called."""

    def __init__(self, upload: _Upload) -> None:
        self._upload = upload
        self._hash: Any = hashlib.sha256()
        self._written = 0
        self._file = open(upload.path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`

    def write(self, data: bytes) -> None:
        """Writes bytes. Raises: Refused: if the disk is full."""
        self._hash.update(data)
        with _refuse_full_disk():
            _write(self._file, data)
        self._written += len(data)

    def keep(self, sha256: bytes) -> None:
        """Counts the written bytes as arrived, if this is their SHA-256. Raises: Refused."""
        if self._hash.digest() != sha256:
            raise Refused(422, "corrupted", "the body is not what its Content-Digest says; send it again")
        self._upload.chunks.take(sha256, self._written)

    def close(self) -> None:
        """Closes the file, and cuts off what was not kept."""
        try:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(FileNotFoundError):
                os.truncate(self._upload.path, self._upload.offset)
        finally:
            self._upload.lock.release()
