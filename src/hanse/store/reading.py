"""The reading of a store that nobody may change: no migration, no claim, and no file beside it."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.core import StoreError
from hanse.store.database import HEAD

__all__ = ["KeptRun", "open_read_only", "read_runs"]

READABLE = ("0004", "0005", "0006", HEAD)
"""The versions of a store whose tables have the columns that are read here."""


@dataclass(frozen=True)
class KeptRun:
    """A run as its store holds it while nobody performs it.

    Args:
      run: its id.
      status: "interrupted" if it was killed, else how it ended.
      round: the last one that was written.
      metrics: the last ones of each name.
      bytes_up, bytes_down: of all rounds.
      settings, result: as they were kept.
    """

    run: str
    status: str
    round: int
    metrics: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    settings: Mapping[str, Any]
    result: Mapping[str, Any]


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens an SQLite file to read it alone, also in a folder where this user may not write.

    The end of the log that a killed process has left is read, too.

    Raises: StoreError: if it can't be read.
    """
    log = path.with_name(f"{path.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    mode = "mode=ro" if has_log else "immutable=1"  # without a log, SQLite would make one to read
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as database:
            yield database
    except sqlite3.Error as error:
        raise StoreError(f"{path} can't be read: {error}; may this user read it, and is it whole?") from None


def read_runs(path: Path) -> tuple[KeptRun, ...]:
    """Reads the runs of a store that no process performs, oldest first. It changes nothing.

    Raises: StoreError: if it can't be read, or another version of Hanse made it.
    """
    with open_read_only(path) as database:
        (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
        if found not in READABLE:
            raise StoreError(
                f"{path} is of another version of Hanse: its tables are {found}, these are {HEAD}. "
                f"`hanse ls --store {path}` renews an older one"
            )
        rows = database.execute("SELECT number, run, status, settings, result FROM runs ORDER BY number")
        return tuple(_read(database, *row) for row in rows.fetchall())


def _read(
    database: sqlite3.Connection, number: int, run: str, status: str, settings: str, result: str | None
) -> KeptRun:
    metrics, last, up, down = dict[str, float](), 0, 0, 0
    query = "SELECT number, metrics, bytes_up, bytes_down FROM rounds WHERE run = ? ORDER BY position"
    for round, measured, bytes_up, bytes_down in database.execute(query, (number,)):
        held = json.loads(measured)
        metrics |= {name: one[0] if isinstance(one, list) else one for name, one in held.items()}
        last, up, down = round, up + bytes_up, down + bytes_down
    ended = "interrupted" if status == "running" else status
    kept = {} if result is None else json.loads(result)
    return KeptRun(run, ended, last, metrics, up, down, json.loads(settings), kept)
