"""The mailbox between a run and its server: offers of work, arrivals of messages, and outcomes of tickets.

The run has a thread of its own, so its arithmetic and its database keep nobody waiting. The two threads
share only this mailbox, behind one lock, and each operation is short.
"""

import threading
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hanse.core import PartyId
from hanse.network.protocol.errors import Refused
from hanse.network.server.members import Member
from hanse.network.server.records import Outcome, Outcomes

__all__ = ["FIRST_DELAY_S", "MAX_DELAY_S", "UNFINISHED", "Mailbox", "Offer", "Stopped"]

P = TypeVar("P", bound=PartyId)


class Stopped(Exception):
    """The run was asked to stop. Its rounds so far are kept, and it can be resumed.

    Args:
      reason: in words.
      status: "stopped" if its operator stopped it, else "interrupted".
    """

    def __init__(self, reason: str, status: str = "interrupted") -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


UNFINISHED = ("interrupted", "stopped", "failed")
"""Statuses of runs that may be served again. Their clients wait for that, so they do not hear "over", unless
the operator dismisses them."""


@dataclass(frozen=True)
class Offer:
    """One ticket as its holder sees it.

    Args:
      task: packed; empty if it is an object for its holder alone.
      payload: the SHA-256 of the cohort's payload, which has `payload_bytes`.
      limit_bytes: the largest message that may answer.
      work: the name of the work.
      after: the ticket whose memory it goes on from.
      own: the SHA-256 of that object, which has `own_bytes`; empty: there is none.
    """

    ticket: int
    party: PartyId
    task: bytes
    payload: str
    payload_bytes: int
    limit_bytes: int
    work: str
    own: str = ""
    own_bytes: int = 0
    after: int | None = None


FIRST_DELAY_S, MAX_DELAY_S = 0.1, 5.0
"""A result that does not exist yet is asked for again after the first delay, which doubles up to the last."""


class Mailbox:
    """A run's offers to its clients, and their answers.

    Args:
      wake: called with the parties for which there is news, from any thread.
      present: returns the seconds since a party was last heard, below 0 if it was asked to come back later;
        None: never since the server began.
      members: returns the numbers of the active clients, and how many numbers there are.
      parties: returns these numbers, and the names of the other parties that are active members.
      outcomes: keeps the outcomes of tickets until they are acknowledged; None: in memory alone.
      find_player: returns the member that plays a party now; None: no member does.
    """

    def __init__(
        self,
        wake: Callable[[Iterable[PartyId]], None],
        present: Callable[[PartyId], float | None],
        members: Callable[[], tuple[frozenset[int], int]],
        parties: Callable[[], frozenset[PartyId]],
        outcomes: Outcomes | None = None,
        find_player: Callable[[PartyId], Member | None] = lambda party: None,
    ) -> None:
        self._wake, self._present, self.members, self.parties = wake, present, members, parties
        self._changed = threading.Condition()
        self._offers: dict[PartyId, dict[int, Offer]] = {}
        self._holders: dict[int, Offer] = {}
        self._arrived: dict[int, None] = {}
        self._failed: dict[int, str] = {}
        self._withdrawn: dict[int, None] = {}
        self._postponed: dict[int, tuple[float, float]] = {}
        self._again: set[int] = set()
        self._outcomes, self.find_player = outcomes or Outcomes(), find_player
        self._draining = self._open = False
        self._stopping: Stopped | None = None
        self.began_s = time.monotonic()
        self.most = 0
        """The largest number of offers that were open at once, or were about to be."""
        self.doing = "starting"
        """The current activity of the run, in words."""

    # -- for the run ---------------------------------------------------------------------------

    def restore(
        self,
        offers: Iterable[Offer],
        arrived: Iterable[int],
    ) -> None:
        """Begins again with the offers and arrivals that the run has found on its disk."""
        with self._changed:
            self._offers, self._holders = {}, {}
            self._arrived = dict.fromkeys(arrived)
        self.post(offers)

    def restore_outcomes(
        self, former: Mapping[PartyId, Mapping[int, Outcome]], undecided: Collection[int], next_ticket: int
    ) -> None:
        """Begins again with the outcomes on the disk; see `Outcomes.restore`."""
        self._outcomes.restore(former, undecided, next_ticket)

    def open(self) -> None:
        """Notes that all open offers are here. From now on a ticket that is not here is closed."""
        with self._changed:
            self._open = True

    def post(self, offers: Iterable[Offer]) -> None:
        """Makes offers to their holders."""
        with self._changed:
            posted = list(offers)
            for offer in posted:
                self._offers.setdefault(offer.party, {})[offer.ticket] = offer
                self._holders[offer.ticket] = offer
            self.most = max(self.most, len(self._holders))
        self._wake({offer.party for offer in posted})

    def close(self, tickets: Iterable[int]) -> None:
        """Withdraws offers. Messages that arrive for them from now on are late."""
        with self._changed:
            for ticket in tickets:
                offer = self._holders.pop(ticket, None)
                if offer is not None:
                    self._offers.get(offer.party, {}).pop(ticket, None)
                self._arrived.pop(ticket, None)
                self._failed.pop(ticket, None)
                self._postponed.pop(ticket, None)
                self._again.discard(ticket)

    def close_all(self) -> None:
        """Withdraws all offers, because the run is over."""
        self.close(list(self._holders))

    def withdraw(self, party: PartyId) -> int:
        """Takes back what a party has sent, because it is no member any more; returns how many messages.

        Their tickets are open again, and its last outcomes are forgotten.
        """
        with self._changed:
            taken = [ticket for ticket in self._offers.get(party, {}) if ticket in self._arrived]
            for ticket in taken:
                del self._arrived[ticket]
                self._withdrawn[ticket] = None
            self._outcomes.forget(party)
            self._change()
            return len(taken)

    def take_withdrawn(self) -> list[int]:
        """Returns the tickets whose messages were taken back since this was last asked."""
        with self._changed:
            withdrawn, self._withdrawn = list(self._withdrawn), {}
            return withdrawn

    def announce(self, outcomes: Mapping[PartyId, Mapping[int, Outcome]]) -> None:
        """Tells holders the outcomes of their tickets, which are kept until acknowledged."""
        self._outcomes.record(outcomes)
        self._wake(outcomes)

    def outcomes(self) -> dict[PartyId, dict[int, Outcome]]:
        """Returns the outcomes that their holders are told, because they have not acknowledged them yet."""
        return self._outcomes.all_told()

    def find_arrivals(self, tickets: Iterable[int]) -> tuple[list[int], dict[int, str]]:
        """Returns which of these tickets are answered, in the order of arrival, and why others failed."""
        asked = set(tickets)
        with self._changed:
            here = [ticket for ticket in self._arrived if ticket in asked]
            return here, {t: why for t, why in self._failed.items() if t in asked and t not in self._arrived}

    def ask_again(self, ticket: int) -> None:
        """Offers a ticket again whose message was lost here."""
        with self._changed:
            self._arrived.pop(ticket, None)
            holder = self._holders.get(ticket)
            self._again.add(ticket)
            self._change()
        if holder is not None:
            self._wake([holder.party])

    def find_postponed_tickets(self, tickets: Iterable[int]) -> list[int]:
        """Returns which of these tickets are offered again because their results did not exist yet."""
        with self._changed:
            return [ticket for ticket in tickets if ticket in self._postponed]

    def silent_s(self, party: PartyId) -> float:
        """Returns the seconds since a party was heard, or since the start if it never was.

        Below 0: it should come back after so many seconds.
        """
        heard = self._present(party)
        return time.monotonic() - self.began_s if heard is None else heard

    def absent(self, parties: Iterable[P], silent_s: float) -> set[P]:
        """Returns the parties that were never heard since the server began, or not for so many seconds."""
        heard = {party: self._present(party) for party in parties}
        return {party for party, since_s in heard.items() if since_s is None or since_s > silent_s}

    def is_gathering(self, parties: Iterable[int], silent_s: float) -> bool:
        """Returns whether some of these parties may still come back, since the server began not long ago.

        A cohort that is drawn before they are here would differ from that of a server that was not restarted.
        """
        is_young = time.monotonic() - self.began_s < silent_s
        return is_young and any(self._present(party) is None for party in parties)

    def check(self) -> None:
        """Checks that the run may go on. Raises: Stopped: if it was asked to stop."""
        if self._stopping is not None:
            raise self._stopping

    def wait(self, until_s: float, known: int) -> int:
        """Sleeps until something arrives, or until a moment on the monotonic clock.

        Args:
          known: the value that this returned last, at first 0.

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
        """Makes the run stop at once. It can be resumed. See `Stopped`."""
        with self._changed:
            self._stopping = self._stopping or Stopped(reason, status)
            self._change()

    def drain(self) -> None:
        """Makes the run stop after its current round."""
        with self._changed:
            self._draining = True

    @property
    def draining(self) -> bool:
        """Whether the run should begin no new round."""
        return self._draining

    def notify(self) -> None:
        """Tells the run that members joined or left."""
        with self._changed:
            self._change()

    def offers(self, party: PartyId, have: Container[int] = ()) -> list[Offer]:
        """Returns the unanswered offers of a party, except those of tickets that it has.

        Postponed ones whose time has not come are left out, and all that go on from the memory of a
        postponed one: its fork does not exist yet. A ticket that is asked again is offered once even to a
        party that has it: it may have said so before it had sent the message that was lost.
        """
        with self._changed:
            own, now, found, early = self._offers.get(party, {}), time.monotonic(), list[Offer](), set[int]()
            for ticket in sorted(own):
                is_built_on_early = own[ticket].after in early
                if is_built_on_early or ticket in self._postponed:
                    early.add(ticket)
                is_late = is_built_on_early or self._postponed.get(ticket, (now,))[0] > now
                if ticket in have and ticket not in self._again:
                    continue
                if not (ticket in self._arrived or ticket in self._failed or is_late):
                    self._again.discard(ticket)
                    found.append(own[ticket])
            return found

    def news(self, party: PartyId) -> dict[int, Outcome]:
        """Returns the oldest outcomes that a party has not acknowledged yet.

        Those of tickets that another member held, who played this party before, are removed.
        """
        player = self.find_player(party)
        if player is not None:
            self._outcomes.keep_own(party, player.id)
        return self._outcomes.told(party)

    def acknowledge(self, party: PartyId, tickets: Iterable[int]) -> None:
        """Notes that a party knows the outcomes of these tickets."""
        self._outcomes.acknowledge(party, tickets)

    def close_file(self) -> None:
        """Closes the file of outcomes, when the server goes."""
        self._outcomes.close()

    def offer(self, party: PartyId, ticket: int) -> Offer:
        """Returns the offer that a party answers. Raises: Refused: if it is not its own, or is closed."""
        with self._changed:
            offer = self._holders.get(ticket)
            ready = self._open
        outcome = self.news(party).get(ticket) if offer is None else None
        if offer is None and not ready:
            raise Refused(503, "unavailable", "the run is being resumed; try again in a moment")
        if offer is None:
            why = f": {outcome.why}" if outcome is not None and outcome.why else ""
            raise Refused(410, "late", f"ticket {ticket} is closed{why}; thank you, and go on")
        if offer.party != party:
            who = f"c{party}" if isinstance(party, int) else party
            raise Refused(403, "not-yours", f"ticket {ticket} is not held by {party}", who=who)
        return offer

    def arrive(self, ticket: int) -> None:
        """Notes that the message of a ticket is durable."""
        with self._changed:
            self._arrived.setdefault(ticket)
            self._withdrawn.pop(ticket, None)
            self._failed.pop(ticket, None)
            was_postponed = self._postponed.pop(ticket, None) is not None
            holder = self._holders.get(ticket)
            self._change()
        if was_postponed and holder is not None:  # what goes on from it is offered now
            self._wake([holder.party])

    def has(self, ticket: int) -> bool:
        """Returns whether the message of a ticket is durable."""
        with self._changed:
            return ticket in self._arrived

    def fail(self, ticket: int, why: str) -> None:
        """Notes that the holder of a ticket can't answer, and why."""
        with self._changed:
            self._failed.setdefault(ticket, why)
            self._change()

    def postpone(self, ticket: int) -> float:
        """Notes that a ticket's result does not exist yet; returns the seconds until it is offered again."""
        with self._changed:
            _, last_s = self._postponed.get(ticket, (0.0, FIRST_DELAY_S / 2))
            delay_s = min(2 * last_s, MAX_DELAY_S)
            self._postponed[ticket] = time.monotonic() + delay_s, delay_s
            self._change()
            return delay_s

    def find_open_holders(self) -> set[PartyId]:
        """Returns the parties that hold a ticket which is neither answered nor failed."""
        with self._changed:
            done = {*self._arrived, *self._failed}
            return {offer.party for ticket, offer in self._holders.items() if ticket not in done}

    def count_offers(self) -> dict[str, int]:
        """Counts the offers that are open, answered, failed and postponed."""
        with self._changed:
            return {
                "orders": len(self._holders),
                "answered": len(self._arrived),
                "failed": len(self._failed),
                "not_ready": len(self._postponed),
            }
