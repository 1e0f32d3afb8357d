"""Events for the operator: bounded for each member and in all, and repeated ones counted."""

import contextlib
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hanse.network.protocol.wire import printable

__all__ = ["MAX_EVENTS", "MAX_OF_ONE", "Events"]

MAX_EVENTS = 100_000
"""The most events that are kept. Then whoever has caused most of them loses its oldest."""

MAX_OF_ONE = 1000
"""The most events that one member has caused."""

MAX_TEXT = 4000
"""The longest text of an event."""

FOLD_S = 3600.0
"""An event like one of the last hour, of the same source, is only counted."""

MAX_FOLDS = 10_000
"""The most events that are remembered, so that others can be counted with them."""

WRITE_S = 60.0
"""The seconds for which a count may be known to this process alone."""

_TABLE = """
CREATE TABLE IF NOT EXISTS events (
  position INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL);
"""

_RENEW = """
ALTER TABLE events ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
"""
"""The changes to a table of the first version, whose events all count as the server's own."""

_INDEX = "CREATE INDEX IF NOT EXISTS events_of_source ON events (source, position)"


_SHOWN = "position, at, who, what, count"


@dataclass
class _Fold:
    """An event that others are counted with."""

    position: int
    began_s: float
    count: int = 1
    written: int = 1
    written_s: float = 0.0


class Events:
    """The table of events, in an SQLite file. Any thread may use it.

    A killed server loses no event, and at most the counts of the last minute.

    Args:
      now: the clock by which events are folded.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")  # only a power failure can lose the last events
        self._db.executescript(_TABLE)
        if "source" not in {row[1] for row in self._db.execute("PRAGMA table_info(events)")}:
            self._db.executescript(_RENEW)
        self._db.execute(_INDEX)
        self._lock = threading.RLock()
        self._folds: dict[tuple[str, str], _Fold] = {}
        self._counts: Counter[str] = Counter(
            dict(self._db.execute("SELECT source, count(*) FROM events GROUP BY source"))
        )

    def close(self) -> None:
        """Writes the counts, and closes the file."""
        with self._lock:
            self._write_counts()
            self._db.close()

    def note(self, who: str, what: str, *, code: str = "", source: str = "") -> None:
        """Writes an event, or counts it.

        Args:
          who: the name that the operator sees.
          code: events of the same source with the same code are counted with the first; empty: never.
          source: the id of the member that caused it, who can't choose it; empty: the server itself.
        """
        with self._lock, contextlib.suppress(sqlite3.Error):  # serving goes on with a full disk
            now = self._now()
            fold = self._folds.get((source, code)) if code else None
            if fold is not None and now - fold.began_s < FOLD_S:
                fold.count += 1
                if now - fold.written_s > WRITE_S:
                    self._write(fold)
                return
            if fold is not None:
                self._write(fold)
            self._make_room(source)
            row = self._db.execute(
                "INSERT INTO events (at, who, what, source) VALUES (?, ?, ?, ?)",
                (time.time(), who, printable(what[:MAX_TEXT]), source),
            )
            self._counts[source] += 1
            if code:
                if len(self._folds) >= MAX_FOLDS:
                    self._write_counts()
                    self._folds.clear()
                assert row.lastrowid is not None
                self._folds[source, code] = _Fold(row.lastrowid, now, written_s=now)

    def _make_room(self, source: str) -> None:
        """Removes old events, so that one more of this source fits."""
        if source and self._counts[source] >= MAX_OF_ONE:
            self._remove(source, self._counts[source] - MAX_OF_ONE + 1)
        if self._counts.total() >= MAX_EVENTS:
            most, count = max(self._counts.items(), key=lambda item: item[1])
            self._remove(most, -(-count // 100))

    def _remove(self, source: str, count: int) -> None:
        query = "SELECT position FROM events WHERE source = ? ORDER BY position LIMIT ?"
        done = self._db.execute(f"DELETE FROM events WHERE position IN ({query})", (source, count))
        self._counts[source] -= done.rowcount

    def _write(self, fold: _Fold) -> None:
        if fold.count != fold.written:
            self._db.execute("UPDATE events SET count = ? WHERE position = ?", (fold.count, fold.position))
        fold.written, fold.written_s = fold.count, self._now()

    def _write_counts(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            for fold in self._folds.values():
                self._write(fold)

    def forget(self, id: str, name: str, others: set[str], since_s: float, until_s: float) -> None:
        """Removes the events of a member, and writes its id in place of its name in other events.

        Args:
          others: what else it is called in events.
          since_s, until_s: when it was a member, and nobody else was called so.
        """
        named, is_distinct = re.compile(rf"\b{re.escape(name)}\b"), name not in others
        with self._lock:
            self._write_counts()
            self._folds = {key: fold for key, fold in self._folds.items() if key[0] != id}
            events = self._db.execute(
                "SELECT position, who, what, source FROM events WHERE at >= ? AND at < ?", (since_s, until_s)
            )
            for position, who, what, source in events.fetchall():
                if source == id or who in {name, *others}:
                    self._db.execute("DELETE FROM events WHERE position = ?", (position,))
                    self._counts[source] -= 1
                elif is_distinct and named.search(what):
                    row = (named.sub(id, what), position)
                    self._db.execute("UPDATE events SET what = ? WHERE position = ?", row)

    def read(self, limit: int) -> list[tuple[float, str, str]]:
        """Returns the last events, oldest first: time, who, and what, with its count if it happened again."""
        return [event[1:] for event in self.read_after(0, limit)]

    def read_after(self, position: int, limit: int) -> list[tuple[int, float, str, str]]:
        """Returns the last events after a position, oldest first: position, time, who and what."""
        query = f"SELECT {_SHOWN} FROM events WHERE position > ? ORDER BY position DESC LIMIT ?"
        with self._lock:
            self._write_counts()
            rows = self._db.execute(query, (position, limit)).fetchall()
        return [(here, at, who, what + _describe_count(count)) for here, at, who, what, count in rows[::-1]]


def _describe_count(count: int) -> str:
    return "" if count == 1 else f" (and {count - 1} more of this kind)"
