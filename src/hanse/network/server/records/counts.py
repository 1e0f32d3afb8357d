"""Counts of the changes of a database, so that one that is older than it was shows.

The count is in the database, and in a small file beside it, which is written after each counted change. So
the file is never ahead of an intact database: a copy that was restored, or a lost log (-wal), is behind it.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from hanse.core import StoreError

__all__ = ["ChangeCount"]

_WIDTH = 20


class ChangeCount:
    """The number of a database's counted changes.

    Args:
      connection: of the database.
      head: the file beside it; None: there is none.
    """

    def __init__(self, connection: sqlite3.Connection, head: Path | None) -> None:
        self._connection, self._head = connection, head
        connection.execute("CREATE TABLE IF NOT EXISTS changes (number INTEGER NOT NULL)")

    def add(self) -> None:
        """Counts a change in the transaction that makes it."""
        if self._connection.execute("UPDATE changes SET number = number + 1").rowcount == 0:
            self._connection.execute("INSERT INTO changes VALUES (1)")

    def write(self) -> None:
        """Writes the count beside the database, after that transaction. A full disk leaves the last one."""
        if self._head is None:
            return
        number = self._connection.execute("SELECT number FROM changes").fetchone()[0]
        try:
            file = os.open(self._head, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, b"%0*d\n" % (_WIDTH, number), 0)  # less than a sector: never half of it
            finally:
                os.close(file)
        except OSError:
            pass

    @staticmethod
    def check(database: Path, head: Path, then: str) -> None:
        """Checks that a database holds all changes that its head tells of. It changes nothing.

        Args:
          then: what can be done if they are lost.

        Raises: StoreError: saying what is missing.
        """
        due = _parse(head.read_bytes()) if head.exists() else 0
        found = _read(database)
        if found is None and due > 0:
            missing = "it is missing"
        elif (found or 0) < due:
            missing = f"the last {due - (found or 0)} of {due} changes are missing"
        else:
            return
        raise StoreError(
            f"{database} is older than it was, for example a copy that was restored, or it lost its log "
            f"({database.name}-wal): {missing}. Put the newer one back, all of its files together; or, if it "
            f"is lost, remove {head}: {then}. Nothing was changed"
        )


def _parse(text: bytes) -> int:
    number = text.strip()
    return int(number) if len(number) == _WIDTH and number.isdigit() else 0


def _read(database: Path) -> int | None:
    """Returns the count in a database; None: it does not exist."""
    if not database.exists():
        return None
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            row = connection.execute("SELECT number FROM changes").fetchone()
        except sqlite3.OperationalError:  # an earlier version made it
            return 0
    return 0 if row is None else int(row[0])
