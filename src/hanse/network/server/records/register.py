"""The file of a server's register, and its changes from version to version."""

import sqlite3
from pathlib import Path

from hanse.network.server.records.counts import ChangeCount

__all__ = ["open_register"]

_TABLES = """
CREATE TABLE IF NOT EXISTS members (
  id TEXT PRIMARY KEY, role TEXT NOT NULL, number INTEGER, name TEXT NOT NULL,
  public TEXT NOT NULL UNIQUE, state TEXT NOT NULL, joined REAL NOT NULL, party TEXT);
CREATE TABLE IF NOT EXISTS invitations (
  public TEXT PRIMARY KEY, role TEXT NOT NULL, number INTEGER, name TEXT NOT NULL,
  expires REAL NOT NULL, used_by TEXT, party TEXT);
CREATE TABLE IF NOT EXISTS audit_heads (
  id TEXT PRIMARY KEY, lines INTEGER NOT NULL, hash TEXT NOT NULL, begun INTEGER NOT NULL, at REAL NOT NULL);
"""

_RENEW = """
ALTER TABLE members ADD COLUMN party TEXT;
ALTER TABLE invitations ADD COLUMN party TEXT;
"""
"""The changes to a file of version 1, which had no named parties."""

_PROVE = """
DELETE FROM invitations WHERE used_by IS NULL;
ALTER TABLE invitations RENAME COLUMN secret_sha256 TO public;
"""
"""The changes to files of versions 1 and 2, which know only hashes of invitations: nobody can prove those."""


IF_LOST = "then who has left or was revoked since may be active again, so look at `hanse clients`"
"""The consequence if the end of the register is lost."""


def open_register(path: Path) -> tuple[sqlite3.Connection, ChangeCount]:
    """Opens the file of the register and the count of its changes.

    It is made if it does not exist, and one of an earlier version is renewed.

    Raises: StoreError: if it is older than it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ChangeCount.check(path, path.with_suffix(".head"), IF_LOST)
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(_TABLES)
    if "party" not in {row[1] for row in connection.execute("PRAGMA table_info(members)")}:
        connection.executescript(_RENEW)
    if "public" not in {row[1] for row in connection.execute("PRAGMA table_info(invitations)")}:
        connection.executescript(_PROVE)
    if connection.execute("PRAGMA user_version").fetchone()[0] in (1, 2):
        _free_numbers(connection)
    connection.execute("PRAGMA user_version = 3")
    return connection, ChangeCount(connection, path.with_suffix(".head"))


def _free_numbers(connection: sqlite3.Connection) -> None:
    """Lets others have the numbers of members that are gone, which files of versions 1 and 2 forbid."""
    with connection as db:
        db.execute("BEGIN IMMEDIATE")
        for table in ("members", "invitations"):
            columns = ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
            db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM old_{table}")
            db.execute(f"DROP TABLE old_{table}")
