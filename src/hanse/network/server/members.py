"""The register of members: their keys and roles, invitations, attendance, and events for the operator."""

import contextlib
import hashlib
import math
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hanse.core import InvalidInput, PartyId
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import public_key
from hanse.network.protocol.wire import printable
from hanse.network.server.weights import BoundedWeight

if TYPE_CHECKING:
    from hanse.network.server.runtime import Attendance

__all__ = ["Member", "Members", "Role", "check_party"]

Role: TypeAlias = Literal["operator", "client", "observer"]

_TABLES = """
CREATE TABLE IF NOT EXISTS members (
  id TEXT PRIMARY KEY, role TEXT NOT NULL, number INTEGER, name TEXT NOT NULL,
  public TEXT NOT NULL UNIQUE, state TEXT NOT NULL, joined REAL NOT NULL, party TEXT);
CREATE TABLE IF NOT EXISTS invitations (
  secret_sha256 TEXT PRIMARY KEY, role TEXT NOT NULL, number INTEGER, name TEXT NOT NULL,
  expires REAL NOT NULL, used_by TEXT, party TEXT);
CREATE TABLE IF NOT EXISTS attendance (
  run TEXT NOT NULL, number INTEGER NOT NULL, round INTEGER NOT NULL, asked INTEGER NOT NULL,
  counted INTEGER NOT NULL, all_wanted INTEGER NOT NULL, why TEXT NOT NULL, PRIMARY KEY (run, number));
CREATE TABLE IF NOT EXISTS bounded (
  run TEXT NOT NULL, round INTEGER NOT NULL, number INTEGER NOT NULL, part TEXT NOT NULL,
  declared REAL NOT NULL, bound REAL NOT NULL, PRIMARY KEY (run, round, number, part));
CREATE TABLE IF NOT EXISTS events (
  position INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL);
"""
# `number` in attendance and bounded may be the name of a party: a column of INTEGER keeps such text as it is.

_RENEW = """
ALTER TABLE members ADD COLUMN party TEXT;
ALTER TABLE invitations ADD COLUMN party TEXT;
"""
"""The changes to a file of version 1, which had no named parties."""

_PARTY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")

MAX_EVENTS = 100_000

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


def check_party(name: str) -> None:
    """Checks the name of a party that a member plays. Raises: InvalidInput."""
    if not _PARTY.fullmatch(name) or name == "server":
        raise InvalidInput(
            f"{name[:50]!r} can't be the name of a party that a member plays; write a letter, then letters, "
            'digits, hyphens or underscores, such as "key_holder" ("server" is the server itself)'
        )


@dataclass(frozen=True)
class Member:
    """A member, present or past.

    Args:
      state: "active", "left" or "revoked".
      party: the party that it plays: its number if it has one, else a name; None: it plays none.
    """

    id: str
    role: Role
    number: int | None
    name: str
    public: str
    state: str
    joined: float
    party: PartyId | None = None

    @property
    def is_forgotten(self) -> bool:
        """Whether its name and key were removed: see `Members.forget`."""
        return self.public == f"forgotten {self.id}"


class Members:
    """The register, in an SQLite file. It is read from memory, and changes reach the disk first."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._lock = threading.RLock()
        self._connection.executescript(_TABLES)
        if "party" not in {row[1] for row in self._connection.execute("PRAGMA table_info(members)")}:
            self._connection.executescript(_RENEW)
        if self._connection.execute("PRAGMA user_version").fetchone()[0] in (1, 2):
            self._free_numbers()
        self._connection.execute("PRAGMA user_version = 3")
        self._load()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def _free_numbers(self) -> None:
        """Lets members have numbers of those that are gone, which versions 1 and 2 of the file forbid."""
        with self._transaction() as db:
            for table in ("members", "invitations"):
                columns = ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
                db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                db.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM old_{table}")
                db.execute(f"DROP TABLE old_{table}")

    def _load(self) -> None:
        rows = self._connection.execute(
            "SELECT id, role, number, name, public, state, joined, coalesce(number, party) FROM members "
            "ORDER BY number, id"
        )
        self._members = {row[0]: Member(*row) for row in rows}
        known = [member for member in self._members.values() if not member.is_forgotten]
        self._keys = {member.id: public_key(member.public) for member in known}
        numbers = [m.number for m in self._members.values() if m.number is not None]
        here = [m.number for m in self.active("client") if m.number is not None]
        self._clients = frozenset(here), max(numbers, default=-1) + 1
        self._parties = frozenset(m.party for m in self.active("client") if m.party is not None)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _change(self) -> Iterator[Any]:
        with self._lock:
            with self._transaction() as db:
                yield db
            self._load()

    # -- reading -------------------------------------------------------------------------------

    def all(self) -> list[Member]:
        """Returns everybody who ever joined."""
        return list(self._members.values())

    def active(self, role: Role) -> list[Member]:
        """Returns the active members of a role."""
        return [m for m in self._members.values() if m.role == role and m.state == "active"]

    def clients(self) -> tuple[frozenset[int], int]:
        """Returns the numbers of active clients, and how many numbers there are."""
        return self._clients

    def parties(self) -> frozenset[PartyId]:
        """Returns the parties that active members play: numbers of clients, and names."""
        return self._parties

    def key(self, id: str) -> Ed25519PublicKey | None:
        """Returns the key of a member, active or not."""
        return self._keys.get(id)

    def find(self, id: str) -> Member | None:
        """Returns the member with this id, active or not."""
        return self._members.get(id)

    def admit(self, id: str, roles: tuple[Role, ...]) -> Member:
        """Returns an active member in one of these roles. Raises: Refused: if there is none."""
        member = self._members.get(id)
        if member is None:
            raise Refused(401, "unsigned", "no member of this server has this key id")
        if member.state != "active":
            raise Refused(403, member.state, f"{member.name} has {_STATES[member.state]}", who=member.name)
        if member.role not in roles:
            allowed = " or ".join(roles)
            raise Refused(403, "role", f"{member.name}: this is for {allowed}", who=member.name)
        return member

    # -- changing ------------------------------------------------------------------------------

    def appoint(self, id: str, role: Role, public: str) -> None:
        """Adds a member without invitation, such as the operator who started the server."""
        if id in self._members and self._members[id].public == public:
            return
        with self._change() as db:
            db.execute("DELETE FROM members WHERE id = ?", (id,))
            db.execute(
                "INSERT INTO members VALUES (?, ?, NULL, ?, ?, 'active', ?, NULL)",
                (id, role, id, public, time.time()),
            )

    def invite(
        self,
        role: Role = "client",
        name: str = "",
        number: int | None = None,
        valid_s: float = 7 * 86400,
        party: str = "",
    ) -> tuple[bytes, int | None]:
        """Makes an invitation that is good once; returns its secret, and the number reserved for a client.

        Args:
          party: the name of the party that the member will play, in place of a client with a number.

        Raises: InvalidInput: if the number or the name is taken, or can't be one.
        """
        secret = secrets.token_bytes(16)
        if party:
            self._check_free(party, role, number)
        with self._change() as db:
            if party:
                name = name or party
            elif role == "client":
                number = self._find_number(db) if number is None else number
                if number in self._clients[0]:
                    raise InvalidInput(f"number {number} is taken; leave it out")
                db.execute("DELETE FROM invitations WHERE number = ? AND used_by IS NULL", (number,))
            name = name or (f"client {number}" if role == "client" else role)
            db.execute(
                "INSERT INTO invitations VALUES (?, ?, ?, ?, ?, NULL, ?)",
                (_hash(secret), role, number, name, time.time() + valid_s, party or None),
            )
        return secret, number

    def _find_number(self, db: Any) -> int:
        """Returns the lowest number that is free again and not reserved by an invitation, else a new one."""
        reserved = {row[0] for row in db.execute("SELECT number FROM invitations WHERE used_by IS NULL")}
        taken = self._clients[0] | (reserved - {None})
        used = {m.number for m in self._members.values() if m.number is not None}
        return min(used - taken, default=max(used | taken, default=-1) + 1)

    def _check_free(self, party: str, role: Role, number: int | None) -> None:
        """Checks that a member may be invited to play a party. Raises: InvalidInput."""
        check_party(party)
        if role != "client" or number is not None:
            given = f"role {role!r}" if role != "client" else f"number {number}"
            raise InvalidInput(
                f"party {party!r} and {given}: the member that plays a party is a client without number"
            )
        holder = self._find_holder(party)
        if holder is not None:
            raise InvalidInput(
                f"party {party!r} is played by {holder.id} ({holder.name}); revoke that member first"
            )

    def _find_holder(self, party: str) -> Member | None:
        return next((member for member in self.active("client") if member.party == party), None)

    def open_invitations(self) -> int:
        """Counts the invitations that are valid and not used yet."""
        query = "SELECT count(*) FROM invitations WHERE used_by IS NULL AND expires > ?"
        with self._lock:
            return int(self._connection.execute(query, (time.time(),)).fetchone()[0])

    def invitation(self, secret: bytes, public: str) -> PartyId | None:
        """Returns the party that an invitation reserves: a client's number, or a name.

        Raises: Refused: if it is unknown, has expired, or was used by anyone but the member who asks.
        """
        with self._lock:
            _, number, _, used_by, party = self._read_invitation(secret)
        if used_by is not None and not self._is_active(public):
            raise _refuse_invitation("was used before")
        return number if party is None else party

    def _read_invitation(self, secret: bytes) -> tuple[str, int | None, str, str | None, str | None]:
        """Returns an invitation's role, number and name, the key that used it, if any, and its party, if any.

        Raises: Refused: if it is unknown, or has expired unused.
        """
        query = "SELECT role, number, name, expires, used_by, party FROM invitations WHERE secret_sha256 = ?"
        row = self._connection.execute(query, (_hash(secret),)).fetchone()
        if row is None:
            raise _refuse_invitation("is unknown")
        role, number, name, expires, used_by, party = row
        if used_by is None and expires < time.time():
            raise _refuse_invitation("has expired")
        return role, number, name, used_by, party

    def _is_active(self, public: str) -> bool:
        return any(m.public == public and m.state == "active" for m in self._members.values())

    def join(self, secret: bytes, public: str, name: str = "") -> Member:
        """Adds the holder of an invitation, under its key. The same key may ask again.

        Raises: Refused: if the invitation is unknown, used by another key, or expired, or if another member
          plays its party.
        """
        public_key(public)
        with self._change() as db:
            role, number, given, used_by, party = self._read_invitation(secret)
            if used_by is not None and used_by != public:
                raise _refuse_invitation("was used before")
            if used_by is None:
                if party is not None and self._find_holder(party) is not None:
                    why = (
                        f"another member plays party {party!r}; its operator has to revoke that member first"
                    )
                    raise Refused(409, "joined", why)
                if number in self._clients[0]:
                    raise Refused(409, "joined", f"another member has number {number}; ask for an invitation")
                begin = f"c{number}" if number is not None else role[0] if party is None else party
                id = begin if number is not None and begin not in self._members else _add_digits(begin)
                if any(m.public == public for m in self._members.values()):
                    raise Refused(409, "joined", "this key has joined; give the other client another home")
                self._take_over(db, party if number is None else number)
                db.execute(
                    "INSERT INTO members VALUES (?, ?, ?, ?, ?, 'active', ?, ?)",
                    (id, role, number, (name or given)[:100], public, time.time(), party),
                )
                query = "UPDATE invitations SET used_by = ? WHERE secret_sha256 = ?"
                db.execute(query, (public, _hash(secret)))
        return next(m for m in self._members.values() if m.public == public)

    def _take_over(self, db: Any, party: PartyId | None) -> None:
        """Books the attendance of a party's last holder under that member's id, since another follows."""
        before = [m for m in self._members.values() if m.party == party and m.role == "client"]
        if before:
            last = max(before, key=lambda m: m.joined)
            db.execute("UPDATE attendance SET number = ? WHERE number = ?", (last.id, party))

    def find_joined(self, party: PartyId) -> float | None:
        """Returns when the active member that plays a party joined; None: no member plays it."""
        return next((m.joined for m in self.active("client") if m.party == party), None)

    def rekey(self, id: str, public: str) -> None:
        """Replaces a member's key with another. Raises: Refused: if another member has it."""
        if any(m.public == public and m.id != id for m in self._members.values()):
            raise Refused(409, "joined", "this key belongs to another member; make a new one")
        with self._change() as db:
            db.execute("UPDATE members SET public = ? WHERE id = ?", (public, id))

    def part(self, id: str, state: Literal["left", "revoked"]) -> Member:
        """Ends a membership at once. Raises: InvalidInput: if `id` does not name exactly one member."""
        id = self._one(id).id
        with self._change() as db:
            db.execute("UPDATE members SET state = ? WHERE id = ?", (state, id))
        return self._members[id]

    def forget(self, called: str) -> Member:
        """Removes the name, key, invitation and events of a member that is gone; returns it as it was.

        Raises: InvalidInput: if it is active, or `called` does not name exactly one member.
        """
        gone = self._one(called)
        if gone.state == "active":
            raise InvalidInput(
                f"{gone.id} ({gone.name}) is active; revoke it first, or name one that is gone"
            )
        later = [m.joined for m in self._members.values() if m.party == gone.party and m.joined > gone.joined]
        until_s, named = min(later, default=math.inf), re.compile(rf"\b{re.escape(gone.name)}\b")
        own = {gone.name, gone.id, f"client {gone.party}" if gone.number is not None else gone.id}
        with self._change() as db:
            db.execute(
                "UPDATE members SET name = ?, public = ? WHERE id = ?",
                (f"forgotten {gone.id}", f"forgotten {gone.id}", gone.id),
            )
            db.execute("DELETE FROM invitations WHERE used_by = ?", (gone.public,))
            events = "SELECT position, who, what FROM events WHERE at >= ? AND at < ?"
            for position, who, what in list(db.execute(events, (gone.joined, until_s))):
                if who in own:
                    db.execute("DELETE FROM events WHERE position = ?", (position,))
                elif gone.name != f"client {gone.number}" and named.search(what):
                    what = named.sub(gone.id, what)
                    db.execute("UPDATE events SET what = ? WHERE position = ?", (what, position))
        return gone

    def _one(self, called: str) -> Member:
        """Finds a member by id, else by party, else by name, because members choose their own names."""
        for by in (lambda m: m.id, lambda m: str(m.party), lambda m: m.name):
            found = [m for m in self._members.values() if by(m) == called]
            found = [m for m in found if m.state == "active"] or found  # a party may have had others before
            if len(found) == 1:
                return found[0]
            if found:
                ids = ", ".join(m.id for m in found)
                raise InvalidInput(f"{len(found)} members are called {called!r}; give one of the ids: {ids}")
        raise InvalidInput(f"no member is called {called!r}; `hanse clients` lists all")

    # -- attendance ----------------------------------------------------------------------------

    def attend(self, run: str, attendance: "Attendance") -> None:
        """Records which clients a round counted. A round that is performed again is recorded once."""
        counted = [(run, party, attendance.round, 1, "") for party in attendance.counted]
        missed = [(run, party, attendance.round, 0, why) for party, why in attendance.missed.items()]
        rows = [(*row[:4], attendance.all_wanted, row[4]) for row in (*counted, *missed)]
        with self._transaction() as db:
            db.executemany(_ATTEND, rows)

    def find_uncounted(self, run: str) -> list[tuple[PartyId, str, int, int, str]]:
        """Returns the clients that were not counted as they should be: party, name, asked, counted, why.

        In a run that wants all clients these are the members counted in fewer than half of its rounds. In
        other runs, where each client is drawn now and then, they are the members that were asked at least 5
        times and never counted.
        """
        query = "SELECT number, asked, counted, all_wanted, why FROM attendance WHERE run = ?"
        with self._lock:
            booked = {row[0]: row[1:] for row in self._connection.execute(query, (run,))}
            query = "SELECT max(asked) FROM attendance WHERE run = ?"
            num_rounds = self._connection.execute(query, (run,)).fetchone()[0] or 0
        all_wanted = bool(booked) and all(row[2] for row in booked.values())
        found = []
        for member in self.active("client"):
            party = member.party
            assert party is not None
            if isinstance(party, str) and party not in booked:
                continue  # this run has never asked it
            asked, counted, _, why = booked.get(party, (0, 0, 0, "it was not there when a round began"))
            few = 2 * counted < num_rounds if all_wanted else counted == 0 and asked >= ENOUGH_ASKED
            if few:
                found.append((party, member.name, asked, counted, why or "it was not always there"))
        return found

    def bound(self, run: str, round: int, bounded: BoundedWeight) -> None:
        """Records that a weight was bounded. A round that is performed again is recorded once."""
        row = (run, round, bounded.party, bounded.part, bounded.declared, bounded.bound)
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO bounded VALUES (?, ?, ?, ?, ?, ?)", row)

    def list_bounded(self, run: str) -> list[tuple[int, BoundedWeight]]:
        """Lists the weights that were bounded in a run, with their rounds, oldest first."""
        query = (
            "SELECT round, number, part, declared, bound FROM bounded WHERE run = ? ORDER BY round, number"
        )
        with self._lock:
            return [(row[0], BoundedWeight(*row[1:])) for row in self._connection.execute(query, (run,))]

    # -- events --------------------------------------------------------------------------------

    def note(self, who: str, what: str) -> None:
        """Writes an event for the operator."""
        with self._lock, contextlib.suppress(sqlite3.OperationalError):  # serving goes on with a full disk
            self._connection.execute(
                "INSERT INTO events (at, who, what) VALUES (?, ?, ?)", (time.time(), who, printable(what))
            )
            last = self._connection.execute("SELECT max(position) FROM events").fetchone()[0]
            if last % 1000 == 0:
                self._connection.execute("DELETE FROM events WHERE position < ?", (last - MAX_EVENTS,))

    def events(self, limit: int = 100) -> list[tuple[float, str, str]]:
        """Returns the last events, oldest first."""
        query = "SELECT at, who, what FROM events ORDER BY position DESC LIMIT ?"
        with self._lock:
            return [(at, who, what) for at, who, what in self._connection.execute(query, (limit,))][::-1]


def _refuse_invitation(why: str) -> Refused:
    return Refused(403, "token", f"this invitation {why}; ask the operator for another")


_STATES = {"left": "left", "revoked": "been revoked"}


def _add_digits(begin: str) -> str:
    """Makes an id that no other member has."""
    return f"{begin}-{secrets.token_hex(4)}"


def _hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
