"""The connections of a server: how many there may be, and which of them ends if there are too many.

A connection is unknown until it has carried a request that a member signed. Unknown ones never take the
place of members: they have a share of their own, and in it the address that holds most loses its oldest one
first. So a crowd at one address leaves room for the others, and members behind one address, as behind a
reverse proxy, only have to be quicker than the crowd.

A connection that several members use is a proxy's, and says nothing about any of them. If there are too many,
those lose their oldest while they are more than half of all. Some connections are reserved for the operator:
for those that come from this machine, until another member uses them, and those that an operator has used.
"""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = [
    "FILES_RESERVED",
    "MEMBER_CONNECTIONS",
    "YOUNG_S",
    "Connections",
    "OpenConnection",
    "count_allowed",
    "raise_open_files",
]

FILES_RESERVED = 128
"""The open files that the run, its store and the libraries may need, whatever the sockets do."""

MAX_UNKNOWN = 1024
"""The most connections that no member has used yet. They hold buffers, and so memory."""

MEMBER_CONNECTIONS = 16
"""The most connections of one member. A client uses two, and may have left some that are not noticed yet."""

YOUNG_S = 2.0
"""An unknown connection has so long to become a member's before another may take its place."""

RETRY_S = 1.0
"""The pause before the server looks again if members have all connections."""

RESERVED = 8
"""The connections that are reserved for the operator; fewer if there are fewer than 64 in all."""


def raise_open_files() -> int:
    """Raises the limit of open files as far as this user may, and returns it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit for sockets
        return 8192
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, 65536, 10240):  # macOS names a hard limit that it does not grant
        if soft != resource.RLIM_INFINITY and (wanted == resource.RLIM_INFINITY or wanted > soft):
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            except (ValueError, OSError):
                continue
            soft = wanted
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def count_allowed(num_files: int) -> int:
    """Returns how many connections may be open: each may read or write a file, and some files are reserved.

    >>> count_allowed(1024), count_allowed(65536)
    (448, 32704)
    """
    return max(32, (num_files - FILES_RESERVED) // 2)


@dataclass(eq=False)
class OpenConnection:
    """An accepted connection.

    Args:
      address: of the other side; an IPv6 address stands for its network of 64 bits.
      end: ends it at once.
      member: the id of the member that has used it; "": several have, as through a proxy; None: unknown.
      is_operator: whether that is an operator.
    """

    address: str
    end: Callable[[], None]
    member: str | None = None
    is_operator: bool = False
    since_s: float = field(default_factory=time.monotonic)


class Connections:
    """Counts connections, and ends some of them if there are too many. It is used in one event loop.

    Args:
      most: the most connections in all.
      crowded: called each time a connection was ended because there were too many.
      now: the clock.
    """

    def __init__(
        self,
        most: int,
        crowded: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.most_unknown = most, min(MAX_UNKNOWN, most // 2)
        self._reserved = min(RESERVED, most // 8)
        self._crowded, self._now = crowded, now
        self._unknown: dict[str, dict[OpenConnection, None]] = {}  # by address, the oldest first
        self._known: dict[str, dict[OpenConnection, None]] = {}  # by member
        self.num_unknown = self.num_known = self._num_operators = 0

    def find_wait_s(self) -> float:
        """Returns the seconds until one more connection may be accepted. Until then it waits in the queue."""
        if self.num_unknown < self.most_unknown and self._count() < self.most:
            return 0.0
        victim = self._find_victim()
        return RETRY_S if victim is None else self._find_rest_s(victim)

    def enter(self, address: str, end: Callable[[], None]) -> OpenConnection | None:
        """Counts a connection that was accepted, and ends another if there are too many.

        None: members have all connections but the reserved ones, so that this one has no place.
        """
        reserved = 0 if _is_of_this_machine(address) else self._reserved
        while self._is_full(reserved):
            victim = self._find_victim()
            is_crowd = self.num_unknown >= self.most_unknown  # of strangers, who may displace each other
            if victim is None or (self._find_rest_s(victim) > 0 and not is_crowd):
                self._crowded()
                return None
            self._end(victim)
        connection = OpenConnection(_summarise(address), end, since_s=self._now())
        self._unknown.setdefault(connection.address, {})[connection] = None
        self.num_unknown += 1
        return connection

    def identify(self, connection: OpenConnection, member: str, *, is_operator: bool = False) -> None:
        """Notes that a member has used a connection. Too many of one member end its oldest."""
        if connection.member in (member, ""):
            return
        if not self._remove(connection):
            return  # it has ended meanwhile
        connection.is_operator = is_operator and connection.member is None
        connection.member = member if connection.member is None else ""
        own = self._known.setdefault(connection.member, {})
        own[connection] = None
        self.num_known += 1
        self._num_operators += connection.is_operator
        if connection.member and len(own) > MEMBER_CONNECTIONS:
            self._end(next(iter(own)))
        elif self._count() - self._num_operators > self.most - self._reserved and not connection.is_operator:
            self._end(
                self._find_greedy() or connection
            )  # it came from this machine, but not from the operator

    def leave(self, connection: OpenConnection) -> None:
        """Notes that a connection has ended."""
        self._remove(connection)

    def end_one(self) -> None:
        """Ends a connection because the system has no file for another."""
        victim = self._find_unknown() or self._find_greedy()
        if victim is not None:
            self._end(victim)

    def _count(self) -> int:
        return self.num_unknown + self.num_known

    def _is_full(self, reserved: int) -> bool:
        """Returns whether there is a place only if another connection ends, or one of the reserved ones."""
        is_full = self._count() >= self.most or self._count() - self._num_operators >= self.most - reserved
        return self.num_unknown >= self.most_unknown or is_full

    def _find_victim(self) -> OpenConnection | None:
        """Returns the connection that should end for another one; None: there is none."""
        unknown = self._find_unknown()
        if self.num_unknown >= self.most_unknown:
            return unknown
        if unknown is None or self._find_rest_s(unknown) > 0:
            return self._find_greedy() or unknown
        return unknown

    def _find_rest_s(self, victim: OpenConnection) -> float:
        """Returns the seconds for which a connection is still safe."""
        return max(0.0, victim.since_s + YOUNG_S - self._now()) if victim.member is None else 0.0

    def _find_unknown(self) -> OpenConnection | None:
        most = max(self._unknown.values(), key=len, default=None)
        return next(iter(most)) if most else None

    def _find_greedy(self) -> OpenConnection | None:
        """Returns the oldest connection of a proxy or a member that has too many; None: nobody has.

        A proxy has too many if it has more than half of all, and a member if it has more than one. Operators
        keep theirs.
        """
        shared = self._known.get("", {})
        if len(shared) > self.most // 2:
            return next(iter(shared))
        members = (own for member, own in self._known.items() if member and not next(iter(own)).is_operator)
        most = max(members, key=len, default=None)
        return next(iter(most)) if most and len(most) > 1 else None

    def _end(self, connection: OpenConnection) -> None:
        self._remove(connection)
        connection.end()
        self._crowded()

    def _remove(self, connection: OpenConnection) -> bool:
        by = self._unknown if connection.member is None else self._known
        key = connection.address if connection.member is None else connection.member
        own = by.get(key, {})
        if connection not in own:
            return False
        del own[connection]
        if not own:
            del by[key]
        if connection.member is None:
            self.num_unknown -= 1
        else:
            self.num_known -= 1
            self._num_operators -= connection.is_operator
        return True


def _is_of_this_machine(address: str) -> bool:
    """Returns whether the other side is on this machine, as the operator's commands are.

    >>> _is_of_this_machine("127.0.0.1"), _is_of_this_machine("::1"), _is_of_this_machine("192.0.2.7")
    (True, True, False)
    """
    return _summarise(address) in ("::", "127.0.0.1")


def _summarise(address: str) -> str:
    """Returns an address, and for IPv6 its network, since one house has 2^64 of them.

    >>> _summarise("192.0.2.7"), _summarise("2001:db8:1:2:3::4"), _summarise("::ffff:192.0.2.7")
    ('192.0.2.7', '2001:db8:1:2::', '192.0.2.7')
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
