"""A home of a client or a server: one process works in it at a time, and only its owner can read it."""

import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hanse.core import InvalidInput
from hanse.store import Claim, is_claimed, read_note

__all__ = ["change_file", "claim_home", "find_readable", "is_in_use", "keep_private", "tighten"]

CLAIM = "claim"
"""The name of the file that the process which works in a home has locked."""

PATIENCE_S = 10.0
"""The time to wait for another command that changes a file."""


@contextmanager
def claim_home(folder: Path) -> Iterator[None]:
    """Claims a home for this process while this is entered, and tightens its permissions.

    The operating system ends the claim if the process dies, however it dies.

    Raises: InvalidInput: if another process works there; the error says which.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / CLAIM
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    note = f"process {os.getpid()} on {platform.node() or 'this machine'} has worked there since {since}"
    claim = Claim.take(path, note=note)
    if claim is None:
        raise InvalidInput(
            f"{folder} is in use: {read_note(path) or 'another process works there'}. Stop that process, or "
            "write another --home"
        )
    try:
        tighten(folder)
        yield
    finally:
        claim.release()


def is_in_use(folder: Path) -> bool:
    """Returns whether a living process works in a home."""
    return is_claimed(folder / CLAIM)


@contextmanager
def change_file(path: Path) -> Iterator[None]:
    """Keeps other commands from changing a file, while this one reads it and writes it anew.

    Raises: InvalidInput: if another command does not end.
    """
    lock = path.with_name(f"{path.name}.lock")
    claim = Claim.take(lock, patience_s=PATIENCE_S, note=f"process {os.getpid()}")
    if claim is None:
        raise InvalidInput(
            f"{path} is being changed by {read_note(lock) or 'another process'}; try again once it has ended"
        )
    try:
        yield
    finally:
        claim.release()


@contextmanager
def keep_private() -> Iterator[None]:
    """Makes all new files of this process readable by their owner only, while this is entered."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def find_readable(folder: Path) -> list[Path]:
    """Lists what others than the owner may read, write or enter: a folder, and all below it."""
    return [path for path in (folder, *_walk(folder)) if _is_open(path)]


def tighten(folder: Path) -> None:
    """Takes the permissions of others away from a folder and all below it, as far as this user may."""
    for path in find_readable(folder):
        with suppress(OSError):  # it belongs to another user, or is gone
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):  # it follows no links
        yield from (Path(root, name) for name in (*folders, *files))


def _is_open(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not stat.S_ISLNK(mode) and bool(mode & 0o077)
