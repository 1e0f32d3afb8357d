"""Claims: locks that end with the process that holds them, however it ends."""

import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from typing import ClassVar

from hanse.core import StoreError

__all__ = ["Claim", "is_claimed", "read_note"]

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, shared: bool) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int, shared: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


PATIENCE_S = 0.2
"""The time to try a claim: checking whether a run is claimed locks its file for some microseconds."""


class Claim:
    """An exclusive lock on a file. The operating system lifts it when the process ends.

    Forked children don't share it: an orphaned worker can't keep a run from being resumed.
    """

    _held: ClassVar[set["Claim"]] = set()

    def __init__(self, path: Path, file: int) -> None:
        self._path, self._file = path, file
        self._held.add(self)

    @classmethod
    def take(cls, path: Path, *, patience_s: float = PATIENCE_S, note: str = "") -> "Claim | None":
        """Makes and locks the file; None if another claim holds it. Raises: StoreError: if that fails.

        Args:
          patience_s: the time to try.
          note: is written into the file, for whoever can't have the claim.
        """
        deadline_s = time.monotonic() + patience_s
        while True:
            file, locked, held = _open(path, os.O_RDWR | os.O_CREAT), False, False
            try:
                locked = _try_lock(file, path)
                held = locked and _is_at(file, path)  # its last holder may have removed it meanwhile
            finally:
                if not held:
                    os.close(file)
            if held:
                os.ftruncate(file, 0)
                os.write(file, note.encode())
                return cls(path, file)
            if not locked and time.monotonic() > deadline_s:
                return None
            time.sleep(0.005)

    def release(self) -> None:
        """Lifts the lock and removes the file. Does nothing the second time, nor in a forked child."""
        if self not in self._held:
            return
        self._held.discard(self)
        if sys.platform != "win32" and _is_at(self._file, self._path):
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._file)

    @classmethod
    def _forget(cls) -> None:
        while cls._held:
            os.close(cls._held.pop()._file)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Claim._forget)


def is_claimed(path: Path) -> bool:
    """Returns whether a living process holds the claim at this path."""
    try:
        file = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(file, path, shared=True)
    finally:
        os.close(file)


def read_note(path: Path) -> str:
    """Returns the note of whoever holds the claim at this path; empty if there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path} can't be opened ({error.strerror}); may this user write there?") from None


def _try_lock(file: int, path: Path, shared: bool = False) -> bool:
    try:
        _lock(file, shared)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise StoreError(
            f"{path} can't be locked ({error.strerror}); keep the store on a local disk"
        ) from None
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
