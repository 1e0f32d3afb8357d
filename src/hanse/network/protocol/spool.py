"""Files of messages: outgoing ones at the client, and those that clients download at the server.

Each side hashes a message once, chunk by chunk as it is written. A message's name is the SHA-256 of the
SHA-256s of its chunks.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from hanse.network.protocol.wire import CHUNK_BYTES

__all__ = [
    "Chunks",
    "Objects",
    "Outgoing",
    "durably",
    "hash_chunks",
    "read_blocks",
    "sync_folder",
    "write_all",
    "write_whole",
]

BLOCK_BYTES = 1 << 20
"""The bytes that are hashed and written at a time, while they are in the processor's cache."""

Pieces: TypeAlias = Iterable[bytes | memoryview]
"""Bytes in pieces."""


def _blocks(pieces: Pieces, num_bytes: int = BLOCK_BYTES) -> Iterator[memoryview]:
    """Cuts pieces to at most so many bytes each."""
    for piece in pieces:
        view = memoryview(piece)
        yield from (view[at : at + num_bytes] for at in range(0, len(view), num_bytes))


def write_all(file: io.FileIO, data: bytes | memoryview) -> None:
    """Writes all of the data."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yields the bytes of a file."""
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


class Chunks:
    """Computes the SHA-256 of each chunk of the data that are added."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self.size = 0
        self._open: Any = None

    def add(self, data: bytes | memoryview) -> None:
        """Adds data; a chunk may begin or end anywhere in them."""
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

    def end(self) -> "Chunks":
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
        """The name of the message, in hexadecimal."""
        return hashlib.sha256(b"".join(self.digests)).hexdigest()

    @staticmethod
    def count_whole(num_bytes: int) -> int:
        """Returns how many of so many bytes fill whole chunks."""
        return num_bytes // CHUNK_BYTES * CHUNK_BYTES


def hash_chunks(pieces: Pieces) -> str:
    """Returns the name of a message: the SHA-256 of the SHA-256s of its chunks, in hexadecimal.

    >>> hash_chunks([b"a", b"b"]) == hashlib.sha256(hashlib.sha256(b"ab").digest()).hexdigest()
    True
    """
    chunks = Chunks()
    for block in _blocks(pieces):
        chunks.add(block)
    return chunks.end().sha256


class Outgoing:
    """A client's message in a file, until the server has it.

    The file's name carries the hash of its content, so it need not reach the disk before anything else
    happens: a file that was cut off is noticed, and its ticket is computed again. It also carries a name of
    what was asked: a server whose store was restored asks other things under the same number.

    Args:
      digests: the SHA-256 of each chunk.
    """

    def __init__(self, path: Path, size: int, digests: list[bytes]) -> None:
        self.path, self.size, self.digests = path, size, digests
        self.sha256 = hashlib.sha256(b"".join(digests)).hexdigest()

    @classmethod
    def write(cls, folder: Path, ticket: int, pieces: Pieces, asked: str = "") -> "Outgoing":
        """Writes the message of a ticket, given a name of what was asked."""
        part, chunks = folder / f"{ticket}.part", Chunks()
        with open(part, "wb", buffering=0) as file:
            for block in _blocks(pieces):
                chunks.add(block)
                write_all(file, block)
        digests = chunks.end().digests
        path = folder / _name_outgoing(ticket, asked, hashlib.sha256(b"".join(digests)).hexdigest())
        return cls(part.replace(path), chunks.size, digests)

    @classmethod
    def find(cls, folder: Path, ticket: int, asked: str = "") -> "Outgoing | None":
        """Returns the message of a ticket, if it answers what is asked and its content is unchanged.

        Names of earlier versions do not say what was asked.
        """
        for path in folder.glob(f"{ticket}.*.message"):
            chunks = Chunks()
            for block in read_blocks(path):
                chunks.add(block)
            found = cls(path, chunks.size, chunks.end().digests)
            names = (_name_outgoing(ticket, name, found.sha256) for name in (asked, ""))
            if path.name in names:
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


def _name_outgoing(ticket: int, asked: str, sha256: str) -> str:
    return ".".join(filter(None, (str(ticket), asked[:16], sha256, "message")))


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


_OBJECT = re.compile("[0-9a-f]{64}|new")


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
                write_all(file, block)
                size += len(block)
        part.replace(self.path(state.hexdigest()))
        return state.hexdigest(), size

    def path(self, sha256: str) -> Path:
        """Returns the path of the file with this SHA-256, whether it exists or not."""
        return self._folder / sha256

    def keep_only(self, needed: set[str]) -> None:
        """Removes all objects but these. Other files are left alone."""
        for path in self._folder.iterdir():
            if path.name not in needed and _OBJECT.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def find_foreign(self) -> list[Path]:
        """Returns the files and folders here that are no objects."""
        return [path for path in self._folder.iterdir() if not _OBJECT.fullmatch(path.name)]
