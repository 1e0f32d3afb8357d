"""Stores that can't be written to, such as those on a read-only disk: the ways to read them all the same."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["copy_store", "find_uri", "is_writable"]


def is_writable(path: Path) -> bool:
    """Returns whether this user may write to a store, and beside it, where SQLite keeps its log."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def find_uri(path: Path) -> str | None:
    """Returns how SQLite opens a file to read it alone; None: only a copy can be read.

    Without a log nobody writes, so nothing needs to be locked. A log can be read in its place if its index is
    there; SQLite can't make one in such a folder.
    """
    log = path.with_name(f"{path.name}-wal")
    if not (log.exists() and log.stat().st_size):
        return f"{path.as_uri()}?immutable=1"
    return f"{path.as_uri()}?mode=ro" if path.with_name(f"{path.name}-shm").exists() else None


def copy_store(path: Path, folder: Path) -> Path:
    """Copies a store, with the end of its log, to a folder where it can be opened and brought up to date."""
    copied, uri = folder / path.name, find_uri(path)
    if uri is None:
        for name in (path.name, f"{path.name}-wal"):
            shutil.copyfile(path.with_name(name), folder / name)
        return copied
    with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(copied)) as target:
        source.backup(target)
    return copied
