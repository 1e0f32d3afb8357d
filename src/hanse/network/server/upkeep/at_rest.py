"""The folder of a server while no server works there. It is read, and nothing in it is changed."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from hanse.network.protocol.house import is_in_use
from hanse.store import open_read_only, read_runs
from hanse.version import __version__

__all__ = ["AtRest", "find_server_at_rest"]

MEMBERS, RUNS = "members.db", "runs.db"


def find_server_at_rest(home: Path) -> "AtRest | None":
    """Returns the server whose folder, or whose operator's folder, this is; None: it runs, or is not here."""
    for folder in (home, home.parent):
        if (folder / MEMBERS).exists():
            return None if is_in_use(folder) else AtRest(folder)
    return None


class AtRest:
    """The folder of a server that does not run. Its answers look like those of the server.

    Args:
      home: the server's folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def as_of(self) -> float:
        """When something in the folder was last changed, in seconds since 1970."""
        files = [self.home / f"{name}{end}" for name in (MEMBERS, RUNS) for end in ("", "-wal")]
        return max(path.stat().st_mtime for path in files if path.exists())

    def status(self) -> dict[str, Any]:
        """Describes the runs, and counts clients and open invitations."""
        members = [one for one in self.clients() if one["state"] == "active" and one["role"] == "client"]
        with open_read_only(self.home / MEMBERS) as db:
            query = "SELECT count(*) FROM invitations WHERE used_by IS NULL AND expires > ?"
            (invitations,) = db.execute(query, (time.time(),)).fetchone()
        runs = read_runs(self.home / RUNS) if (self.home / RUNS).exists() else ()
        return {
            "hanse": __version__,
            "is_running": False,
            "as_of": self.as_of,
            "runs": [
                {
                    "run": run.run,
                    "status": run.status,
                    "round": run.round,
                    "num_rounds": run.settings.get("experiment", run.settings).get("rounds"),
                    "doing": "",
                    "metrics": run.metrics,
                    "result": run.result,
                    "bytes_up": run.bytes_up,
                    "bytes_down": run.bytes_down,
                }
                for run in runs
            ],
            "clients": sum(one["number"] is not None for one in members),
            "parties": sorted(one["party"] for one in members if isinstance(one["party"], str)),
            "open_invitations": invitations,
        }

    def clients(self) -> list[dict[str, Any]]:
        """Describes everybody who ever joined."""
        with open_read_only(self.home / MEMBERS) as db:
            party = "coalesce(number, party)" if "party" in _columns(db, "members") else "number"
            query = f"SELECT id, role, number, {party}, name, state, joined FROM members"
            rows = sorted(db.execute(query), key=lambda row: (-1 if row[2] is None else row[2], row[0]))
        names = ("id", "role", "number", "party", "name", "state", "joined")
        return [{**dict(zip(names, row, strict=True)), "silent_s": None, "doing": ""} for row in rows]

    def events(self, limit: int, after: int = 0) -> list[dict[str, Any]]:
        """Returns the last events after a position, oldest first."""
        with open_read_only(self.home / MEMBERS) as db:
            count = "count" if "count" in _columns(db, "events") else "1"
            query = f"SELECT position, at, who, what, {count} FROM events WHERE position > ?"
            rows = db.execute(f"{query} ORDER BY position DESC LIMIT ?", (after, limit)).fetchall()
        more = {row[0]: f" (and {row[4] - 1} more of this kind)" if row[4] > 1 else "" for row in rows}
        return [
            {"position": position, "at": at, "who": who, "what": what + more[position]}
            for position, at, who, what, _ in rows[::-1]
        ]


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
