"""The book of attendance: which clients the rounds of runs counted, and whose weights were bounded."""

import contextlib
import sqlite3
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hanse.core import PartyId
from hanse.network.server.weights import BoundedWeight

__all__ = ["Attendance", "AttendanceBook"]

_TABLES = """
CREATE TABLE IF NOT EXISTS attendance (
  run TEXT NOT NULL, number INTEGER NOT NULL, round INTEGER NOT NULL, asked INTEGER NOT NULL,
  counted INTEGER NOT NULL, all_wanted INTEGER NOT NULL, why TEXT NOT NULL, PRIMARY KEY (run, number));
CREATE TABLE IF NOT EXISTS attended (
  run TEXT NOT NULL, round INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (run, round));
CREATE TABLE IF NOT EXISTS bounded_weights (
  run TEXT NOT NULL, round INTEGER NOT NULL, dispatch INTEGER NOT NULL, number INTEGER NOT NULL,
  part TEXT NOT NULL, declared REAL NOT NULL, bound REAL NOT NULL,
  PRIMARY KEY (run, round, dispatch, number, part));
"""
# `number` may be the name of a party, or a member's id: a column of INTEGER keeps such text as it is.

ENOUGH_ASKED = 5
"""A client that is drawn now and then is reported if it was asked so many times and never counted."""

_ATTEND = """
INSERT INTO attendance (run, number, round, counted, asked, all_wanted, why) VALUES (?, ?, ?, ?, 1, ?, ?)
ON CONFLICT (run, number) DO UPDATE SET
  asked = asked + 1, counted = counted + excluded.counted,
  all_wanted = min(all_wanted, excluded.all_wanted),
  round = excluded.round, why = iif(excluded.why = '', why, excluded.why)
WHERE excluded.round > round
"""


_BOUND = """
INSERT INTO bounded_weights (run, round, dispatch, number, part, declared, bound) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, round, dispatch, number, part) DO UPDATE SET
  declared = excluded.declared, bound = excluded.bound
WHERE declared != excluded.declared OR bound != excluded.bound
"""


@dataclass(frozen=True)
class Attendance:
    """The attendance of a round: which of the asked clients were counted.

    Args:
      counted: numbers of clients, and names of other members; the id of a member that another has followed.
      missed: why each of the others was not, except clients that only answered after enough others.
      all_wanted: whether the round wanted all clients.
      late: the clients that answered after enough others, or after the deadline.
    """

    round: int
    counted: frozenset[PartyId]
    missed: Mapping[PartyId, str]
    all_wanted: bool
    late: frozenset[PartyId] = frozenset()


class AttendanceBook:
    """The tables of attendance and of bounded weights.

    Args:
      connection, lock: of the file that holds them.
    """

    def __init__(self, connection: sqlite3.Connection, lock: "threading.RLock | Any") -> None:
        self._connection, self._lock = connection, lock
        connection.executescript(_TABLES)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._lock, self._connection as db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    def attend(self, run: str, attendance: Attendance) -> None:
        """Records which clients a round counted. A round that is performed again is recorded once."""
        counted = [(run, party, attendance.round, 1, "") for party in attendance.counted]
        missed = [(run, party, attendance.round, 0, why) for party, why in attendance.missed.items()]
        rows = [(*row[:4], attendance.all_wanted, row[4]) for row in (*counted, *missed)]
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO attended VALUES (?, ?, ?)", (run, attendance.round, time.time())
            )
            db.executemany(_ATTEND, rows)

    def hand_over(self, db: Any, party: PartyId | None, id: str) -> None:
        """Books the attendance of a party's last holder under that member's id, in a transaction of `db`."""
        for table in ("attendance", "bounded_weights"):
            db.execute(f"UPDATE OR REPLACE {table} SET number = ? WHERE number = ?", (id, party))

    def bound(self, run: str, round: int, bounded: BoundedWeight) -> bool:
        """Records that a weight was bounded; returns whether that is new.

        A round that is performed again is recorded once.
        """
        row = (run, round, bounded.dispatch, bounded.party, bounded.part, bounded.declared, bounded.bound)
        with self._transaction() as db:
            return bool(db.execute(_BOUND, row).rowcount > 0)

    def list_bounds(self, run: str) -> list[tuple[int, BoundedWeight]]:
        """Lists the weights that were bounded in a run, with their rounds, oldest first."""
        query = "SELECT round, number, part, declared, bound, dispatch FROM bounded_weights "
        query += "WHERE run = ? ORDER BY round, dispatch, number"
        with self._lock:
            return [(row[0], BoundedWeight(*row[1:])) for row in self._connection.execute(query, (run,))]

    def list_counts(self, run: str) -> dict[PartyId, tuple[int, int]]:
        """Lists in how many rounds each party was counted, and asked: clients by number, then the others."""
        query = "SELECT number, counted, asked FROM attendance WHERE run = ?"
        with self._lock:
            rows = self._connection.execute(query, (run,)).fetchall()
        rows.sort(key=lambda row: (isinstance(row[0], str), row[0]))
        return {row[0]: (row[1], row[2]) for row in rows}

    def find_uncounted(
        self, run: str, holders: Mapping[PartyId, tuple[str, float]]
    ) -> list[tuple[PartyId, str, int, int, str]]:
        """Returns the clients that were not counted as they should be: party, name, asked, counted, why.

        Args:
          holders: the names of the active clients, and when they joined, by party.

        In a run that wants all clients these are the members counted in fewer than half of the rounds that
        have begun since they joined. In
        other runs, where each client is drawn now and then, they are the members that were asked at least 5
        times and never counted.
        """
        query = "SELECT number, asked, counted, all_wanted, why FROM attendance WHERE run = ?"
        with self._lock:
            booked = {row[0]: row[1:] for row in self._connection.execute(query, (run,))}
            query = "SELECT max(asked) FROM attendance WHERE run = ?"
            num_rounds = self._connection.execute(query, (run,)).fetchone()[0] or 0
            query = "SELECT at FROM attended WHERE run = ? ORDER BY at"
            ends_s = [at for (at,) in self._connection.execute(query, (run,))]
        all_wanted = bool(booked) and all(row[2] for row in booked.values())
        found = []
        for party, (name, joined_s) in holders.items():
            if isinstance(party, str) and party not in booked:
                continue  # this run has never asked it
            asked, counted, _, why = booked.get(party, (0, 0, 0, "it was not there when a round began"))
            before = bisect_right(ends_s, joined_s)
            num_due = num_rounds - before - 1 if before else num_rounds  # it joined during the next one
            few = 2 * counted < num_due if all_wanted else counted == 0 and asked >= ENOUGH_ASKED
            if few:
                found.append((party, name, asked, counted, why or "it was not always there"))
        return found
