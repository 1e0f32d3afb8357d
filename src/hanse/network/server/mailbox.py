"""Where a run and the server that speaks for it meet: orders out, arrivals in, word of what was counted.

The run lives in a thread of its own, so its arithmetic and its database keep nobody waiting. All that
the two share is here, behind one lock, and each operation is short.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hanse.core import PartyId, value
from hanse.network.protocol.errors import Refused

__all__ = ["Mailbox", "Offer", "Outcome", "Stopped"]


class Stopped(Exception):
    """The run was told to stop. What it has done is kept; it can be resumed.

    Args:
      reason: in words.
      status: "stopped", by its operator; or "interrupted", by anything else.
    """

    def __init__(self, reason: str, status: str = "interrupted") -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


@value
class Outcome:
    """What became of a ticket: counted, or why not."""

    counted: bool
    why: str = ""


@dataclass(frozen=True)
class Offer:
    """One ticket as its holder is told of it.

    Args:
      task: packed.
      payload: SHA-256 of what all the cohort is sent; `payload_bytes` of it.
      limit_bytes: the largest message that may answer.
      work: in words.
    """

    ticket: int
    party: PartyId
    task: bytes
    payload: str
    payload_bytes: int
    limit_bytes: int
    work: str


class Mailbox:
    """What a run asks of its clients and what they answered.

    Args:
      wake: called with the parties for whom there is news; from any thread.
      present: seconds since a party was last heard, below 0 if it was told to come back later; None: never
        since the server began.
      members: the numbers of the clients that belong, and how many numbers there are.
    """

    def __init__(
        self,
        wake: Callable[[Iterable[PartyId]], None],
        present: Callable[[PartyId], float | None],
        members: Callable[[], tuple[frozenset[int], int]],
    ) -> None:
        self._wake, self._present, self.members = wake, present, members
        self._changed = threading.Condition()
        self._offers: dict[PartyId, dict[int, Offer]] = {}
        self._holders: dict[int, Offer] = {}
        self._arrived: dict[int, None] = {}
        self._failed: dict[int, str] = {}
        self._outcomes: dict[PartyId, dict[int, Outcome]] = {}
        self._draining = self._open = False
        self._stopping: Stopped | None = None
        self.began_s = time.monotonic()
        self.most = 0
        """The most orders that were out at once, or were about to be."""
        self.doing = "starting"
        """What the run is doing, in words."""

    # -- for the run ---------------------------------------------------------------------------

    def restore(
        self,
        offers: Iterable[Offer],
        arrived: Iterable[int],
        outcomes: Mapping[PartyId, Mapping[int, Outcome]],
    ) -> None:
        """Begins anew from what the run has found on its disk."""
        with self._changed:
            self._offers, self._holders = {}, {}
            self._arrived = dict.fromkeys(arrived)
            self._outcomes = {party: dict(own) for party, own in outcomes.items()}
        self.post(offers)

    def open(self) -> None:
        """From now on what is not on the board is closed, rather than not known yet."""
        with self._changed:
            self._open = True

    def post(self, offers: Iterable[Offer]) -> None:
        """Offers orders to their holders."""
        with self._changed:
            posted = list(offers)
            for offer in posted:
                self._offers.setdefault(offer.party, {})[offer.ticket] = offer
                self._holders[offer.ticket] = offer
            self.most = max(self.most, len(self._holders))
        self._wake({offer.party for offer in posted})

    def close(self, tickets: Iterable[int]) -> None:
        """Withdraws orders: what arrives for them from now on is late."""
        with self._changed:
            for ticket in tickets:
                offer = self._holders.pop(ticket, None)
                if offer is not None:
                    self._offers.get(offer.party, {}).pop(ticket, None)
                self._arrived.pop(ticket, None)
                self._failed.pop(ticket, None)

    def announce(self, outcomes: Mapping[PartyId, Mapping[int, Outcome]]) -> None:
        """Tells holders what became of their tickets; kept until they say that they know."""
        with self._changed:
            for party, own in outcomes.items():
                self._outcomes.setdefault(party, {}).update(own)
        self._wake(outcomes)

    def outcomes(self) -> dict[PartyId, dict[int, Outcome]]:
        """Those that their holders have not acknowledged yet."""
        with self._changed:
            return {party: dict(own) for party, own in self._outcomes.items() if own}

    def find_arrivals(self, tickets: Iterable[int]) -> tuple[list[int], dict[int, str]]:
        """Those of these tickets that are answered, first come first, and those that failed, and why."""
        asked = set(tickets)
        with self._changed:
            here = [ticket for ticket in self._arrived if ticket in asked]
            return here, {t: why for t, why in self._failed.items() if t in asked and t not in self._arrived}

    def silent_s(self, party: PartyId) -> float:
        """Seconds since a party was heard; a party unheard so far is given the time since the start.

        Below 0: it is to come back after so many seconds.
        """
        heard = self._present(party)
        return time.monotonic() - self.began_s if heard is None else heard

    def absent(self, parties: Iterable[int], silent_s: float) -> set[int]:
        """The parties that were never heard since the server began, or not for so many seconds."""
        heard = {party: self._present(party) for party in parties}
        return {party for party, since_s in heard.items() if since_s is None or since_s > silent_s}

    def is_gathering(self, parties: Iterable[int], silent_s: float) -> bool:
        """Return whether some of these parties may still come back, since the server began not long ago.

        A cohort that is drawn before they are here would differ from that of a server that was not restarted.
        """
        is_young = time.monotonic() - self.began_s < silent_s
        return is_young and any(self._present(party) is None for party in parties)

    def check(self) -> None:
        """Raises: Stopped: if the run was told to stop."""
        if self._stopping is not None:
            raise self._stopping

    def wait(self, until_s: float, known: int) -> int:
        """Sleeps until something arrives, or until a moment on the monotonic clock.

        Args:
          known: what this returned last, at first 0.

        Raises: Stopped.
        """
        with self._changed:
            self.check()
            if self._version == known:
                self._changed.wait(max(0.0, min(until_s - time.monotonic(), 1.0)))
            self.check()
            return self._version

    _version = 0

    def _change(self) -> None:
        self._version += 1
        self._changed.notify_all()

    # -- for the server ------------------------------------------------------------------------

    def stop(self, reason: str = "Ctrl-C", status: str = "interrupted") -> None:
        """Makes the run stop at once; it can be resumed. See `Stopped`."""
        with self._changed:
            self._stopping = self._stopping or Stopped(reason, status)
            self._change()

    def drain(self) -> None:
        """Makes the run stop after the round that it is in."""
        with self._changed:
            self._draining = True

    @property
    def draining(self) -> bool:
        """Whether no new round should begin."""
        return self._draining

    def notify(self) -> None:
        """Says that members came or went."""
        with self._changed:
            self._change()

    def offers(self, party: PartyId) -> list[Offer]:
        """The unanswered orders of a party."""
        with self._changed:
            own = self._offers.get(party, {})
            return [own[t] for t in sorted(own) if t not in self._arrived and t not in self._failed]

    def news(self, party: PartyId) -> dict[int, Outcome]:
        """What became of a party's tickets, as far as it does not know yet."""
        with self._changed:
            return dict(self._outcomes.get(party, {}))

    def acknowledge(self, party: PartyId, tickets: Iterable[int]) -> None:
        """A party knows these verdicts."""
        with self._changed:
            for ticket in tickets:
                self._outcomes.get(party, {}).pop(ticket, None)

    def offer(self, party: PartyId, ticket: int) -> Offer:
        """The order that a party answers. Raises: Refused: if it is not its own, or it is too late."""
        with self._changed:
            offer = self._holders.get(ticket)
            outcome = self._outcomes.get(party, {}).get(ticket)
            ready = self._open
        if offer is None and not ready:
            raise Refused(503, "unavailable", "the run is being taken up again; try again in a moment")
        if offer is None:
            why = f": {outcome.why}" if outcome is not None and outcome.why else ""
            raise Refused(410, "late", f"ticket {ticket} is closed{why}; thank you, and go on")
        if offer.party != party:
            raise Refused(403, "not-yours", f"ticket {ticket} is not held by {party}", who=f"c{party}")
        return offer

    def arrive(self, ticket: int) -> None:
        """A message is durable."""
        with self._changed:
            self._arrived.setdefault(ticket)
            self._failed.pop(ticket, None)
            self._change()

    def has(self, ticket: int) -> bool:
        """Whether the message of a ticket is durable."""
        with self._changed:
            return ticket in self._arrived

    def fail(self, ticket: int, why: str) -> None:
        """The holder of a ticket says that it can't answer."""
        with self._changed:
            self._failed.setdefault(ticket, why)
            self._change()

    def count_offers(self) -> dict[str, int]:
        """How many orders are out, answered and failed."""
        with self._changed:
            return {
                "orders": len(self._holders),
                "answered": len(self._arrived),
                "failed": len(self._failed),
            }
