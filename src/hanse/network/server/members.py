"""The register of members: their keys and roles, invitations, attendance, and events for the operator."""

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hanse.core import InvalidInput, PartyId
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity, public_key
from hanse.network.protocol.wire import KeptHead
from hanse.network.server.records import (
    Attendance,
    AttendanceBook,
    Events,
    check_party,
    find_name,
    open_register,
)
from hanse.network.server.weights import BoundedWeight

__all__ = ["Member", "Members", "Role", "Taken"]

Role: TypeAlias = Literal["operator", "client", "observer"]

_SELECT = "SELECT id, role, number, name, public, state, joined, coalesce(number, party) FROM members"


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


class Taken(InvalidInput):
    """Nobody can be invited, because another member has the number or plays the party."""


class Members:
    """The register, in an SQLite file. It is read from memory, and changes reach the disk first."""

    def __init__(self, path: Path) -> None:
        self._connection, self._count = open_register(path)
        self._lock = threading.RLock()
        self.kept_events = self._events = Events(path)
        self.attendance = self._attendance = AttendanceBook(self._connection, self._lock)
        self._load()

    def close(self) -> None:
        """Closes the file."""
        self._events.close()
        self._connection.close()

    def _load(self) -> None:
        self._members: dict[str, Member] = {}
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._ids: dict[str, str] = {}  # by public key
        self._holders: dict[PartyId, str] = {}  # the ids of active clients, by party
        self._num_numbers = 0
        self._clients: tuple[frozenset[int], int] | None = None  # these two are made when they are asked for
        self._parties: frozenset[PartyId] | None = None
        for row in self._connection.execute(_SELECT):
            self._enter(Member(*row))

    def _enter(self, member: Member) -> None:
        """Takes a member as it is on the disk, in place of what was known of it."""
        old = self._members.get(member.id)
        if old is not None and old.party is not None and self._holders.get(old.party) == old.id:
            del self._holders[old.party]
        if old is None or old.public != member.public:
            if old is not None:
                del self._ids[old.public]
            self._ids[member.public] = member.id
            if not member.is_forgotten:
                self._keys[member.id] = public_key(member.public)
        self._members[member.id] = member
        if member.number is not None:
            self._num_numbers = max(self._num_numbers, member.number + 1)
        if member.role == "client" and member.state == "active" and member.party is not None:
            self._holders[member.party] = member.id
        self._clients = self._parties = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._count.add()
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
            self._count.write()

    @contextlib.contextmanager
    def _change(self, id: str = "") -> Iterator[Any]:
        """Begins a change, and reads a member again after it; "": all of them."""
        with self._lock:
            with self._transaction() as db:
                yield db
            if id:
                self._read_again(id)
            else:
                self._load()

    def _read_again(self, id: str) -> Member:
        row = self._connection.execute(f"{_SELECT} WHERE id = ?", (id,)).fetchone()
        self._enter(Member(*row))
        return self._members[id]

    # -- reading -------------------------------------------------------------------------------

    def all(self) -> list[Member]:
        """Returns everybody who ever joined: those without a number first, then by number."""
        return sorted(self._members.values(), key=_order)

    def active(self, role: Role) -> list[Member]:
        """Returns the active members of a role."""
        return [m for m in self.all() if m.role == role and m.state == "active"]

    def clients(self) -> tuple[frozenset[int], int]:
        """Returns the numbers of active clients, and how many numbers there are."""
        found = self._clients
        if found is None:
            with self._lock:
                here = frozenset(party for party in self._holders if isinstance(party, int))
                found = self._clients = here, self._num_numbers
        return found

    def parties(self) -> frozenset[PartyId]:
        """Returns the parties that active members play: numbers of clients, and names."""
        found = self._parties
        if found is None:
            with self._lock:
                found = self._parties = frozenset(self._holders)
        return found

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
            raise Refused(403, member.state, f"{member.name} has {_STATES[member.state]}", who=member.id)
        if member.role not in roles:
            allowed = " or ".join(roles)
            raise Refused(403, "role", f"{member.name}: this is for {allowed}", who=member.id)
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

        Raises:
          Taken: if another member has the number or plays the party.
          InvalidInput: if they can't be one.
        """
        secret = secrets.token_bytes(16)
        if party:
            self._check_free(party, role, number)
        with self._transaction() as db:
            if party:
                name = name or party
            elif role == "client":
                number = self._find_number(db) if number is None else number
                if number in self._holders:
                    raise Taken(f"number {number} is taken; leave it out")
                db.execute("DELETE FROM invitations WHERE number = ? AND used_by IS NULL", (number,))
            name = name or (f"client {number}" if role == "client" else role)
            public, expires = Identity.derive(secret).public, time.time() + valid_s
            db.execute(
                "INSERT INTO invitations VALUES (?, ?, ?, ?, ?, NULL, ?)",
                (public, role, number, name, expires, party or None),
            )
        return secret, number

    def _find_number(self, db: Any) -> int:
        """Returns the lowest number of a departed member that no invitation reserves, else a new one."""
        reserved = {row[0] for row in db.execute("SELECT number FROM invitations WHERE used_by IS NULL")}
        taken = self.clients()[0] | (reserved - {None})
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
        holder = self.find_player(party)
        if holder is not None:
            raise Taken(f"party {party!r} is played by {holder.id} ({holder.name}); revoke that member first")

    def open_invitations(self) -> int:
        """Counts the invitations that are valid and not used yet."""
        query = "SELECT count(*) FROM invitations WHERE used_by IS NULL AND expires > ?"
        with self._lock:
            return int(self._connection.execute(query, (time.time(),)).fetchone()[0])

    def is_open(self, secret: bytes) -> bool:
        """Returns whether the invitation with this secret is valid and not used yet."""
        with self._lock, contextlib.suppress(Refused):
            return self._read_invitation(Identity.derive(secret).public)[3] is None
        return False

    def invitation(self, invitation: str, public: str) -> PartyId | None:
        """Returns the party that an invitation reserves: a client's number, or a name.

        Args:
          invitation: its public key.
          public: the key that it permits to ask.

        Raises: Refused: if it is unknown, has expired, or was used by anyone but the member who asks.
        """
        with self._lock:
            _, number, _, used_by, party = self._read_invitation(invitation)
        if used_by is not None and not self._is_active(public):
            raise _refuse_invitation("was used before")
        return number if party is None else party

    def _read_invitation(self, invitation: str) -> tuple[str, int | None, str, str | None, str | None]:
        """Returns an invitation's role, number and name, the key that used it, if any, and its party, if any.

        Raises: Refused: if it is unknown, or has expired unused.
        """
        query = "SELECT role, number, name, expires, used_by, party FROM invitations WHERE public = ?"
        row = self._connection.execute(query, (invitation,)).fetchone()
        if row is None:
            raise _refuse_invitation("is unknown")
        role, number, name, expires, used_by, party = row
        if used_by is None and expires < time.time():
            raise _refuse_invitation("has expired")
        return role, number, name, used_by, party

    def _is_active(self, public: str) -> bool:
        id = self._ids.get(public)
        return id is not None and self._members[id].state == "active"

    def join(self, invitation: str, public: str, name: str = "") -> Member:
        """Adds the holder of an invitation, under its key. The same key may ask again.

        Args:
          invitation: its public key.

        Raises: Refused: if the invitation is unknown, used by another key, or expired, if its member has left
          or was revoked, or if another member plays its party.
        """
        public_key(public)
        with self._lock:
            with self._transaction() as db:
                role, number, given, used_by, party = self._read_invitation(invitation)
                joined = self._ids.get(public)
                if used_by is not None:
                    if used_by != public or joined is None:  # also a key that its member has replaced
                        raise _refuse_invitation("was used before")
                    return self.admit(joined, (self._members[joined].role,))
                if party is not None and self.find_player(party) is not None:
                    why = f"another member plays party {party!r}; its operator has to revoke it first"
                    raise Refused(409, "joined", why)
                if number in self._holders:
                    why = f"another member has number {number}; ask for an invitation"
                    raise Refused(409, "joined", why)
                if joined is not None:
                    raise Refused(409, "joined", "this key has joined; give the other client another home")
                begin = f"c{number}" if number is not None else role[0] if party is None else party
                is_first = number is not None and begin not in self._members
                id = begin if is_first else f"{begin}-{secrets.token_hex(4)}"
                self._take_over(db, party if number is None else number)
                db.execute(
                    "INSERT INTO members VALUES (?, ?, ?, ?, ?, 'active', ?, ?)",
                    (id, role, number, (name or given)[:100], public, time.time(), party),
                )
                db.execute("UPDATE invitations SET used_by = ? WHERE public = ?", (public, invitation))
            return self._read_again(id)

    def _take_over(self, db: Any, party: PartyId | None) -> None:
        """Books the attendance of a party's last holder under that member's id, since another follows."""
        before = [m for m in self._members.values() if m.party == party and m.role == "client"]
        if before:
            last = max(before, key=lambda m: m.joined)
            self._attendance.hand_over(db, party, last.id)

    def find_player(self, party: PartyId) -> Member | None:
        """Returns the active member that plays a party; None: no member plays it."""
        return self._members.get(self._holders.get(party, ""))

    def rekey(self, id: str, public: str) -> None:
        """Replaces a member's key with another. Raises: Refused: if another member has it."""
        if self._ids.get(public, id) != id:
            raise Refused(409, "joined", "this key belongs to another member; make a new one")
        with self._change(id) as db:
            db.execute("UPDATE members SET public = ? WHERE id = ?", (public, id))

    def part(self, id: str, state: Literal["left", "revoked"]) -> Member:
        """Ends a membership at once. Raises: InvalidInput: if `id` does not name exactly one member."""
        id = self._one(id).id
        with self._change(id) as db:
            db.execute("UPDATE members SET state = ? WHERE id = ?", (state, id))
        return self._members[id]

    def find_gone(self, called: str) -> tuple[Member, float]:
        """Returns a member that is gone, and when another took its party over; infinity: nobody did.

        Raises: InvalidInput: if it is active, or `called` does not name exactly one member.
        """
        with self._lock:
            gone = self._one(called)
            after = [m.joined for m in self._members.values() if m.party == gone.party is not None]
        if gone.state == "active":
            why = f"{gone.id} ({gone.name}) is active; revoke it first, or name one that is gone"
            raise InvalidInput(why)
        return gone, min((joined for joined in after if joined > gone.joined), default=math.inf)

    def forget(self, called: str) -> Member:
        """Removes name, key, invitation and events of a member that is gone: see `find_gone`; returns it."""
        gone, until_s = self.find_gone(called)
        others = {gone.id, f"client {gone.party}" if gone.number is not None else gone.id}
        self._events.forget(gone.id, gone.name, others, find_name(gone.name), gone.joined, until_s)
        with self._change() as db:
            nobody = f"forgotten {gone.id}"
            db.execute("UPDATE members SET name = ?, public = ? WHERE id = ?", (nobody, nobody, gone.id))
            db.execute("DELETE FROM invitations WHERE used_by = ?", (gone.public,))
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

    def attend(self, run: str, attendance: Attendance) -> None:
        """Records which clients a round counted; see `AttendanceBook.attend`."""
        self._attendance.attend(run, attendance)

    def find_uncounted(self, run: str) -> list[tuple[PartyId, str, int, int, str]]:
        """Returns the active clients that were not counted as they should be; see `AttendanceBook`."""
        holders = {m.party: (m.name, m.joined) for m in self.active("client") if m.party is not None}
        return self._attendance.find_uncounted(run, holders)

    def bound(self, run: str, round: int, bounded: BoundedWeight) -> bool:
        """Records that a weight was bounded; see `AttendanceBook.bound`."""
        return self._attendance.bound(run, round, bounded)

    def list_bounds(self, run: str) -> list[tuple[int, BoundedWeight]]:
        """Lists the weights that were bounded in a run, with their rounds, oldest first."""
        return self._attendance.list_bounds(run)

    # -- audit logs ----------------------------------------------------------------------------

    def read_audit_heads(self) -> dict[str, KeptHead]:
        """Returns the heads of members' audit logs, by the members' ids."""
        with self._lock:
            rows = self._connection.execute("SELECT id, lines, hash, begun, at FROM audit_heads").fetchall()
        return {id: KeptHead(lines=n, hash=last, begun=begun, at=at) for id, n, last, begun, at in rows}

    def write_audit_heads(self, heads: Mapping[str, KeptHead]) -> None:
        """Keeps heads of members' audit logs, in place of earlier ones."""
        rows = [(id, head.lines, head.hash, head.begun, head.at) for id, head in heads.items()]
        if not rows:
            return
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO audit_heads VALUES (?, ?, ?, ?, ?)", rows)

    # -- events --------------------------------------------------------------------------------

    def note(self, who: str, what: str, *, code: str = "", source: str = "") -> None:
        """Writes an event for the operator, or counts it; see `Events.note`."""
        self._events.note(who, what, code=code, source=source)

    def events(self, limit: int = 100) -> list[tuple[float, str, str]]:
        """Returns the last events, oldest first."""
        return self._events.read(limit)


def _order(member: Member) -> tuple[int, str]:
    return -1 if member.number is None else member.number, member.id


def _refuse_invitation(why: str) -> Refused:
    return Refused(403, "token", f"this invitation {why}; ask the operator for another")


_STATES = {"left": "left", "revoked": "been revoked"}
