"""A home of a client or a server: one process works in it at a time, and only its owner can read it."""

import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from hanse.core import InvalidInput
from hanse.store import Claim, is_claimed, read_note

__all__ = [
    "change_file",
    "check_is_home",
    "claim_home",
    "find_readable",
    "is_in_use",
    "keep_private",
    "tighten",
]

CLAIM = "claim"
"""The name of the file that the process which works in a home has locked."""

MARKS = (
    *("key.pem*", "identity.pem*", "sealing-key*", CLAIM),
    *("membership.json*", "audit*.jsonl", "policy.toml", "hanse.toml", "houses.key"),
    *("members.db*", "runs.db*"),
)
"""Patterns of names by which a home of a client or a server is recognized."""

OF_HOMES = (
    *MARKS,
    *("key.next.pem*", "secret*", "runs", "approved*", "spent.json*", "client.log*"),
    *("certificate.*", "next", "shown.pem", "restored*", "invitations", "operator"),
)
"""Patterns of the names of all that Hanse keeps in a home. Files of others may be beside them."""

OF_DISKS = (".*", "lost+found")
"""Patterns of the names of what may be in a new folder."""

PATIENCE_S = 10.0
"""The time to wait for another command that changes a file."""


@contextmanager
def claim_home(folder: Path) -> Iterator[None]:
    """Claims a home for this process while this is entered, and tightens its permissions.

    The operating system ends the claim if the process dies, however it dies.

    Raises: InvalidInput: if another process works there; the error says which. Also if the folder is not a
      home; see `check_is_home`.
    """
    check_is_home(folder)
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


def check_is_home(folder: Path) -> None:
    """Checks that a folder is a home, or can become one because nothing of others is in it.

    So a mistyped name changes neither permissions nor files of another tree.

    Raises: InvalidInput.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is a file; name a folder by --home")
    found = sorted(path.name for path in folder.iterdir() if not _is_like(path.name, OF_DISKS))
    if found and not any(_is_like(name, MARKS) for name in found):
        raise InvalidInput(
            f"{folder} is no home of a client or a server, and holds other files, such as {found[0]!r}: "
            "nothing there was changed. Name a new folder, or the right one, by --home"
        )


def _is_like(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


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


def tighten(home: Path) -> None:
    """Takes the permissions of others away from a home and what is of it there, as far as this user may.

    Files beside it, such as data or modules of its owner, stay as they are.
    """
    own = [path for path in home.iterdir() if _is_like(path.name, OF_HOMES)]
    found = [path for part in own for path in ((part, *_walk(part)) if part.is_dir() else (part,))]
    for path in filter(_is_open, (home, *found)):
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
