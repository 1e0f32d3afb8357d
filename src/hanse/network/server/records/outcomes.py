"""The outcomes of tickets, kept until their holders have acknowledged them, however long that takes."""

import contextlib
import sqlite3
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from hanse.core import PartyId, StoreError, value
from hanse.network.server.records.counts import ChangeCount

__all__ = ["MAX_TOLD", "Outcome", "Outcomes", "check_outcomes"]

MAX_TOLD = 100
"""The number of outcomes that a holder is told at a time, the oldest first, and that are in memory."""

MAX_ACKNOWLEDGED = 100
"""So many acknowledged outcomes are removed from the disk at once, if no round does it before."""

_TABLE = """
CREATE TABLE IF NOT EXISTS outcomes (
  holder NOT NULL, ticket INTEGER NOT NULL, counted INTEGER NOT NULL, why TEXT NOT NULL, party, member,
  PRIMARY KEY (holder, ticket)) WITHOUT ROWID
"""
# A column without a type keeps numbers and names of parties as they are.

_RECORD = """
INSERT OR REPLACE INTO outcomes (holder, ticket, counted, why, party, member) VALUES (?, ?, ?, ?, ?, ?)
"""


IF_LOST = (
    "then clients do not hear how these tickets ended, and if the algorithm remembers at clients (SCAFFOLD), "
    "begin a new run with --fresh instead"
)
"""The consequence if outcomes are lost."""


def check_outcomes(folder: Path, has_begun: bool) -> None:
    """Checks that a run's folder holds all outcomes that were recorded. It changes nothing.

    Args:
      has_begun: whether there was a file of outcomes.

    Raises: StoreError: saying what is missing.
    """
    path = folder / "outcomes.db"
    if has_begun and not path.exists():
        raise StoreError(
            f"{path} is missing, and it was there: put it back, all of its files together; or make an empty "
            f"file of that name, and remove {path.with_suffix('.head')}: {IF_LOST}. Nothing was changed"
        )
    ChangeCount.check(path, path.with_suffix(".head"), IF_LOST)


@value
class Outcome:
    """The outcome of a ticket: whether it was counted, and if not, why; and who held it.

    An outcome that an earlier version kept names no party, and no member.

    Args:
      party: that held it.
      member: the id of the member that played this party then; None: anybody may hear of it.
    """

    counted: bool
    why: str = ""
    party: PartyId | None = None
    member: str | None = None


class Outcomes:
    """Outcomes by holder and ticket, in a file of the run.

    A client may be away for months: its memory of a ticket waits for the outcome, and no outcome expires.
    What a holder never acknowledges takes some bytes of the disk for each ticket, and bounded memory.

    Args:
      path: of an SQLite file; ":memory:" keeps nothing.
    """

    def __init__(self, path: Path | str = ":memory:") -> None:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_TABLE)
        if "member" not in {row[1] for row in self._db.execute("PRAGMA table_info(outcomes)")}:
            self._db.execute("ALTER TABLE outcomes ADD COLUMN member")
        self._count = ChangeCount(self._db, path.with_suffix(".head") if isinstance(path, Path) else None)
        self._disk = threading.RLock()
        self._lock = threading.Lock()  # is taken after the other, and never held for long
        self._oldest: dict[PartyId, dict[int, Outcome]] = {}
        self._more: set[PartyId] = set()  # who have others on the disk
        self._acknowledged: dict[tuple[PartyId, int], None] = {}
        self._closed = False
        self._read_all()

    def close(self) -> None:
        """Removes what was acknowledged, and closes the file."""
        with self._disk:
            if not self._closed:
                self._clear_known()
                self._closed = True
                self._db.close()

    # -- for the run ---------------------------------------------------------------------------

    def restore(
        self, former: Mapping[PartyId, Mapping[int, Outcome]], undecided: Collection[int], next_ticket: int
    ) -> None:
        """Forgets outcomes of tickets that the run decides again, since it lacks the end of its journal.

        Args:
          former: outcomes that an earlier version kept elsewhere.
          undecided: the tickets that are open.
          next_ticket: the number of the next ticket.
        """
        with self._disk:
            self._write(former)
            self._db.execute("DELETE FROM outcomes WHERE ticket >= ?", (next_ticket,))
            self._db.executemany("DELETE FROM outcomes WHERE ticket = ?", [(t,) for t in undecided])
            self._read_all()

    def record(self, outcomes: Mapping[PartyId, Mapping[int, Outcome]]) -> None:
        """Keeps outcomes; they are on the disk afterwards."""
        with self._disk:
            self._write(outcomes)
            with self._lock:
                for holder, own in outcomes.items():
                    oldest = self._oldest.setdefault(holder, {})
                    for ticket in sorted(own):
                        if holder in self._more or len(oldest) >= MAX_TOLD:
                            self._more.add(holder)
                        else:
                            oldest[ticket] = own[ticket]

    # -- for the server ------------------------------------------------------------------------

    def told(self, holder: PartyId) -> dict[int, Outcome]:
        """Returns the oldest outcomes that a holder has not acknowledged."""
        with self._lock:
            return dict(self._oldest.get(holder, {}))

    def all_told(self) -> dict[PartyId, dict[int, Outcome]]:
        """Returns these outcomes of all holders."""
        with self._lock:
            return {holder: dict(own) for holder, own in self._oldest.items() if own}

    def acknowledge(self, holder: PartyId, tickets: Iterable[int]) -> None:
        """Notes that a holder knows the outcomes of these tickets. On a full disk it may hear them again."""
        with self._lock:
            oldest = self._oldest.get(holder, {})
            known = [(holder, ticket) for ticket in tickets if oldest.pop(ticket, None) is not None]
            self._acknowledged.update(dict.fromkeys(known))
            if not oldest:
                self._oldest.pop(holder, None)
            lacks = not oldest and holder in self._more
            is_much = len(self._acknowledged) >= MAX_ACKNOWLEDGED
        if lacks or is_much:
            with self._disk:
                if not self._closed:
                    self._clear_known()
                    if lacks:
                        self._read(holder)

    def forget(self, holder: PartyId) -> None:
        """Removes all outcomes of a holder that is gone: whoever plays its party next did not hold these."""
        with self._disk, self._lock:
            self._oldest.pop(holder, None)
            self._more.discard(holder)
            if not self._closed:
                with contextlib.suppress(sqlite3.OperationalError):  # the disk is full: see `keep_own`
                    self._db.execute("DELETE FROM outcomes WHERE holder = ?", (holder,))

    def keep_own(self, holder: PartyId, member: str) -> None:
        """Removes the outcomes of a party's tickets that another member held."""
        if all(outcome.member in (None, member) for outcome in self.told(holder).values()):
            return
        query = "DELETE FROM outcomes WHERE holder = ? AND member != ?"
        with self._disk:
            if not self._closed:
                with contextlib.suppress(sqlite3.OperationalError):
                    self._db.execute(query, (holder, member))
                self._read(holder, member)

    # -- the file ------------------------------------------------------------------------------

    def _write(self, outcomes: Mapping[PartyId, Mapping[int, Outcome]]) -> None:
        """Adds outcomes, and removes those that were acknowledged, in one transaction."""
        with self._lock:
            gone, self._acknowledged = self._acknowledged, {}
        rows = [
            (holder, ticket, outcome.counted, outcome.why, outcome.party, outcome.member)
            for holder, own in outcomes.items()
            for ticket, outcome in own.items()
        ]
        if not gone and not rows:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM outcomes WHERE holder = ? AND ticket = ?", list(gone))
            self._db.executemany(_RECORD, rows)
            if rows:
                self._count.add()
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            with self._lock:
                self._acknowledged.update(gone)
            raise
        if rows:
            self._count.write()

    def _clear_known(self) -> None:
        """Removes from the disk what was acknowledged. A full disk keeps it, and it is told again."""
        with contextlib.suppress(sqlite3.OperationalError):
            self._write({})

    def _read_all(self) -> None:
        with self._lock:
            self._oldest, self._more = {}, set()
        for (holder,) in self._db.execute("SELECT DISTINCT holder FROM outcomes").fetchall():
            self._read(holder)

    def _read(self, holder: PartyId, member: str | None = None) -> None:
        """Reads the oldest outcomes of a holder. `member`: leaves out those of others, which may be there."""
        query = "SELECT ticket, counted, why, party, member FROM outcomes WHERE holder = ? "
        query += "AND (? IS NULL OR member IS NULL OR member = ?) ORDER BY ticket LIMIT ?"
        rows = self._db.execute(query, (holder, member, member, MAX_TOLD + 1)).fetchall()
        found = {row[0]: Outcome(bool(row[1]), *row[2:]) for row in rows[:MAX_TOLD]}
        with self._lock:
            self._oldest[holder] = found
            self._more.discard(holder)
            if len(rows) > MAX_TOLD:
                self._more.add(holder)
