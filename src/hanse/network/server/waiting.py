"""The waiting of a run: what it says of absent parties, and its own results that do not exist yet."""

import math
import time
from collections.abc import Callable, Iterable, Mapping

from hanse.core import Declined, PartyId
from hanse.core.exchange import Message, NotReady, explain_decline
from hanse.network.server.mailbox import FIRST_DELAY_S, MAX_DELAY_S, Mailbox
from hanse.network.server.records import NAMED, describe_party, order_parties

__all__ = ["OwnTickets", "Waiting"]


class Waiting:
    """Says for which clients a run waits: in its status at once, on the screen once that lasts a while."""

    SETTLED_S = 3.0

    def __init__(self, mailbox: Mailbox, say: Callable[[str], None]) -> None:
        self._mailbox, self._say = mailbox, say
        self._line, self._since_s, self._said = "", 0.0, ""

    def describe(self, present: int, needed: int, absent: Iterable[PartyId], also: str = "") -> str:
        """Describes the waiting in a line."""
        missing = order_parties(absent)
        who = ", ".join(map(describe_party, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
        named = f"; not heard: {who}" if who else ""
        return f"waiting for clients: {present} of {needed} are present{named}{also}"

    def tell(self, present: int, needed: int, absent: Iterable[PartyId], also: str = "") -> None:
        """Says which clients the run waits for. Callers repeat this while the waiting lasts."""
        line = self._mailbox.doing = self.describe(present, needed, absent, also)
        if line != self._line:
            self._line, self._since_s = line, time.monotonic()
        elif line != self._said and time.monotonic() - self._since_s > self.SETTLED_S:
            self._said = line
            self._say(line)


class OwnTickets:
    """The tickets of one exchange that the server answers itself, where their results exist already.

    While one does not exist, the later ones of its party wait, too: they go on from its memory.

    Args:
      tickets: in order, with their parties.
      compute: computes one. Raises: NotReady: if its result does not exist yet.
    """

    def __init__(self, tickets: Mapping[int, PartyId], compute: Callable[[int], Message]) -> None:
        self.waiting = dict(tickets)
        self.computed: dict[int, Message] = {}
        self.declined: dict[int, str] = {}
        self._compute = compute
        self._next_s, self._delay_s = -math.inf, FIRST_DELAY_S

    def compute(self) -> float:
        """Computes those that are left, if it is time; returns when to try again."""
        if self.waiting and time.monotonic() >= self._next_s:
            early = set[PartyId]()
            for ticket, party in list(self.waiting.items()):
                if party in early:
                    continue
                try:
                    self.computed[ticket] = self._compute(ticket)
                except NotReady:
                    early.add(party)
                    continue
                except Declined as declined:
                    self.declined[ticket] = explain_decline(declined)
                del self.waiting[ticket]
            self._next_s = time.monotonic() + self._delay_s
            self._delay_s = min(2 * self._delay_s, MAX_DELAY_S)
        return self._next_s if self.waiting else math.inf
