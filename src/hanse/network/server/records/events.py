"""Events for the operator: bounded for each member and in all, and repeated ones counted."""

import contextlib
import logging
import re
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hanse.network.protocol.wire import printable

__all__ = ["MAX_EVENTS", "MAX_OF_ONE", "Events"]

logger = logging.getLogger(__name__)

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

MAX_WAITING, MAX_WAITING_OF_ONE = 1000, 100
"""The most events that wait in memory while the file can't be written: in all, and of one member."""

WRITE_WAIT_S, AGAIN_S = 0.05, 1.0
"""An event waits so long for a file that another process has locked, and is tried again after a second."""

PATIENT_S = 5.0
"""The time that the operator's commands, and the end of the server, wait for such a file."""

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


@dataclass
class _Noted:
    """An event that is not written yet."""

    at: float
    now_s: float
    who: str
    what: str
    code: str
    source: str
    count: int = 1


class Events:
    """The table of events, in an SQLite file. Any thread may use it.

    A killed server loses no event, and at most the counts of the last minute. If the file can't be written,
    because another process has locked it or the disk is full, events wait in memory, and who notes them does
    not wait. Those that are too many are counted, and the count is an event.

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
        self._wait_for_others(WRITE_WAIT_S)
        self._lock = threading.RLock()
        self._folds: dict[tuple[str, str], _Fold] = {}
        self._counts: Counter[str] = Counter(
            dict(self._db.execute("SELECT source, count(*) FROM events GROUP BY source"))
        )
        self._queue = threading.Lock()
        """It is held for moments only, so that nobody waits who notes an event."""
        self._noted: deque[_Noted] = deque()
        self._num_lost = 0
        self._again: threading.Timer | None = None
        self._closed = False

    def _wait_for_others(self, seconds: float) -> None:
        """Sets how long a statement waits for another process or thread that writes the file."""
        self._db.execute(f"PRAGMA busy_timeout={int(1000 * seconds)}")

    def close(self) -> None:
        """Writes the events that wait and the counts, and closes the file."""
        with self._queue:
            self._closed = True
            again, self._again = self._again, None
        if again is not None:
            again.cancel()
        with self._lock:
            with contextlib.suppress(sqlite3.Error):
                self._wait_for_others(PATIENT_S)
            if not self._write_queue():
                lost = self._num_lost + len(self._noted)
                logger.error("event=events-lost count=%d", lost)
            self._write_counts()
            self._db.close()

    def note(self, who: str, what: str, *, code: str = "", source: str = "") -> None:
        """Writes an event, or counts it, now or as soon as the file can be written.

        Args:
          who: the name that the operator sees.
          code: events of the same source with the same code are counted with the first; empty: never.
          source: the id of the member that caused it, who can't choose it; empty: the server itself.
        """
        noted = _Noted(time.time(), self._now(), who, printable(what[:MAX_TEXT]), code, source)
        with self._queue:
            same = [each for each in self._noted if each.source == source]
            folded = next((each for each in same if code and each.code == code), None)
            if folded is not None:
                folded.count += 1
            elif len(same) >= MAX_WAITING_OF_ONE or len(self._noted) >= MAX_WAITING:
                self._num_lost += 1
            else:
                self._noted.append(noted)
            if self._again is not None:
                return  # the file could not be written a moment ago
        self._write_soon()

    def _write_soon(self) -> None:
        """Writes the events that wait, unless another thread does so; tries again later if it can't."""
        while self._noted and self._lock.acquire(blocking=False):
            try:
                done = self._write_queue()
            finally:
                self._lock.release()
            if not done:
                with self._queue:
                    if self._again is None and not self._closed:
                        self._again = threading.Timer(AGAIN_S, self._write_again)
                        self._again.daemon = True
                        self._again.start()
                return

    def _write_again(self) -> None:
        with self._queue:
            self._again = None
        self._write_soon()

    def _write_queue(self) -> bool:
        """Writes the events that wait, and returns whether none is left; the caller holds the lock."""
        try:
            while self._noted:
                with self._queue:  # so that no more are counted with it
                    noted = self._noted.popleft()
                try:
                    self._write_event(noted)
                except BaseException:
                    with self._queue:
                        self._noted.appendleft(noted)
                    raise
            if self._num_lost:
                lost = f"lost {self._num_lost} events, because its register could not be written"
                self._write_event(_Noted(time.time(), self._now(), "the server", lost, "", ""))
                self._num_lost = 0
        except sqlite3.Error as error:  # serving goes on
            logger.warning("event=events-wait count=%d error=%s", len(self._noted), error)
            return False
        return True

    def _write_event(self, noted: _Noted) -> None:
        key, now = (noted.source, noted.code), noted.now_s
        fold = self._folds.get(key) if noted.code else None
        if fold is not None and now - fold.began_s < FOLD_S:
            fold.count += noted.count
            if now - fold.written_s > WRITE_S:
                self._write(fold)
            return
        if fold is not None:
            self._write(fold)
        self._make_room(noted.source)
        row = self._db.execute(
            "INSERT INTO events (at, who, what, source, count) VALUES (?, ?, ?, ?, ?)",
            (noted.at, noted.who, noted.what, noted.source, noted.count),
        )
        self._counts[noted.source] += 1
        if noted.code:
            if len(self._folds) >= MAX_FOLDS:
                self._write_counts()
                self._folds.clear()
            assert row.lastrowid is not None
            self._folds[key] = _Fold(row.lastrowid, now, noted.count, noted.count, now)

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

    def forget(
        self,
        id: str,
        name: str,
        others: set[str],
        named: re.Pattern[str] | None,
        since_s: float,
        until_s: float,
    ) -> None:
        """Removes the events of a member, and writes its id in place of its name in other events.

        Args:
          others: what else it is called in events.
          named: finds its name in a text; None: the name says nothing.
          since_s, until_s: when it was a member, and nobody else was called so.

        Raises: sqlite3.Error: if the file can't be written; then nothing is changed.
        """
        gone, changed = list[tuple[int, str]](), list[tuple[str, int]]()
        called = others if named is None else {name, *others}
        with self._lock:
            self._write_queue()
            self._write_counts()
            self._folds = {key: fold for key, fold in self._folds.items() if key[0] != id}
            events = self._db.execute(
                "SELECT position, who, what, source FROM events WHERE at >= ? AND at < ?", (since_s, until_s)
            )
            for position, who, what, source in events.fetchall():
                if source == id or (who in called and not _is_of_member(source)):
                    gone.append((position, source))
                elif named is not None and named.search(what):
                    changed.append((named.sub(id, what), position))
            try:
                self._wait_for_others(PATIENT_S)
                self._db.execute("BEGIN IMMEDIATE")  # all is found by now, so others wait for a moment only
                try:
                    query = "DELETE FROM events WHERE position = ?"
                    self._db.executemany(query, [(position,) for position, _ in gone])
                    self._db.executemany("UPDATE events SET what = ? WHERE position = ?", changed)
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            finally:
                self._wait_for_others(WRITE_WAIT_S)
            self._counts.subtract(source for _, source in gone)
        self._write_soon()

    def read(self, limit: int) -> list[tuple[float, str, str]]:
        """Returns the last events, oldest first: time, who, and what, with its count if it happened again."""
        found = [event[1:] for event in self.read_after(0, limit)]
        with self._queue:  # they could not be written yet
            found += [(each.at, each.who, each.what + _describe_count(each.count)) for each in self._noted]
        return found[-limit:]

    def read_after(self, position: int, limit: int) -> list[tuple[int, float, str, str]]:
        """Returns the last events after a position, oldest first: position, time, who and what."""
        query = f"SELECT {_SHOWN} FROM events WHERE position > ? ORDER BY position DESC LIMIT ?"
        with self._lock:
            self._write_queue()
            self._write_counts()
            rows = self._db.execute(query, (position, limit)).fetchall()
        return [(here, at, who, what + _describe_count(count)) for here, at, who, what, count in rows[::-1]]


def _is_of_member(source: str) -> bool:
    """Returns whether a source is a member's id; else it is a run's word of a client, or the server."""
    return bool(source) and not source.startswith("run ")


def _describe_count(count: int) -> str:
    return "" if count == 1 else f" (and {count - 1} more of this kind)"
