"""The clients that poll: when each was heard last, which of them wait, and how they are woken."""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeAlias

from hanse.core import PartyId
from hanse.network.protocol.wire import WAIT_S, News, Poll

__all__ = ["Presence"]

ALIVE_S = 60.0
"""A client counts as alive for so many seconds after it was heard or should have come back."""

RETELL_S = 2.0
"""A client hears outcomes that it does not acknowledge once in so many seconds."""

Rest: TypeAlias = Callable[[PartyId, int, bool], float]


class Presence:
    """Answers polls and remembers when clients were heard.

    Its methods run in the event loop of the server, except `wake`, `hear`, `silent_s` and `all_told`.
    """

    def __init__(self) -> None:
        self._heard: dict[PartyId, float] = {}
        self.doing: dict[PartyId, str] = {}
        """The progress that each client named last."""
        self.expects: dict[PartyId, str] = {}
        """The fingerprint of the certificate that each client expects."""
        self._bells: dict[PartyId, asyncio.Event] = {}
        self._polls: Counter[PartyId] = Counter()
        self._told: set[PartyId] = set()
        self._decided: dict[
            PartyId, tuple[list[tuple[str, int]], float]
        ] = {}  # what each was told last, when
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alive = (-math.inf, 0)
        self._gone = False
        self.hold_s = WAIT_S
        """The longest that a poll is held."""
        self.waiting = 0
        """The number of polls that are held now."""

    def hear(self, party: PartyId, again_s: float = 0.0) -> None:
        """Notes that a party was heard, and that it will come back after so many seconds."""
        self._heard[party] = time.monotonic() + again_s

    def end_poll(self, party: PartyId) -> None:
        """Answers the poll of a party whose member is gone. Any thread may call this."""
        self._polls[party] += 1
        self.wake([party])

    def silent_s(self, party: PartyId) -> float | None:
        """Returns the seconds since a party was heard; below 0: until it should come back; None: never."""
        heard = self._heard.get(party)
        return None if heard is None else time.monotonic() - heard

    def count_alive(self) -> int:
        """Counts the clients heard in the last minute or asked to come back. Counts at most once a second."""
        now = time.monotonic()
        if now - self._alive[0] > 1.0:
            heard = list(self._heard.values())
            self._alive = now, sum(now - at < ALIVE_S for at in heard)
        return self._alive[1]

    def all_told(self, parties: Iterable[PartyId]) -> bool:
        """Returns whether all of these parties that were heard lately know that all runs are over."""
        here = {n for n in parties if (s := self.silent_s(n)) is not None and s < 30}
        return here <= self._told

    def wake(self, parties: Iterable[PartyId]) -> None:
        """Answers the polls of these parties. Any thread may call this."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and so have all polls
                self._loop.call_soon_threadsafe(self._ring, set(parties))

    def wake_all(self) -> None:
        """Answers all polls. Any thread may call this."""
        self.wake(list(self._bells))

    def hang_up(self) -> None:
        """Answers all polls, now and from now on, because the server goes away."""
        self._gone = True
        self.wake_all()

    def _ring(self, parties: set[PartyId]) -> None:
        for party in parties:
            bell = self._bells.get(party)
            if bell is not None:
                bell.set()

    def _find_retelling_s(self, party: PartyId, news: News) -> float:
        """Returns the seconds until a client should hear the same outcomes once more.

        An answer may get lost. But a client that never acknowledges must not ask, and be told, without end.
        """
        told, at = self._decided.get(party, ([], -math.inf))
        is_same = told == [(one.run, one.ticket) for one in news.decisions]
        return at + RETELL_S - time.monotonic() if is_same else 0.0

    async def answer(self, party: PartyId, poll: Poll, find_news: Callable[[], News], rest: Rest) -> News:
        """Answers a poll when there is news, or when its wait is over.

        Args:
          find_news: collects what there is to say now.
          rest: the seconds after which an idle client should come back, given the party, the number of its
            poll and whether the poll's wait is over; 0: it should wait, or ask at once.
        """
        self._loop = asyncio.get_running_loop()
        bell = self._bells.setdefault(party, asyncio.Event())
        self._polls[party] += 1
        mine = self._polls[party]
        if poll.doing:
            self.doing[party] = poll.doing
        self.expects[party] = poll.expects
        bell.set()  # an older poll of the same client is answered
        until_s = self._loop.time() + min(poll.wait_s, self.hold_s)
        idle = poll.wait_s > 0 and not any(poll.have.values())
        while True:
            bell.clear()
            news = find_news()
            rest_s = until_s - self._loop.time()
            obsolete = self._gone or self._polls[party] != mine
            again_told_s = self._find_retelling_s(party, news)
            is_new = bool(news.decisions) and again_told_s <= 0
            if news.work or is_new or news.over or news.certificate or obsolete:
                self.hear(party)
                self._decided[party] = [(one.run, one.ticket) for one in news.decisions], time.monotonic()
                if news.over and not news.decisions:
                    self._told.add(party)
                return news
            again_s = rest(party, mine, rest_s <= 0) if idle else 0.0
            if rest_s <= 0 or again_s > 0:
                self.hear(party, again_s)
                return news.model_copy(update={"again_s": again_s})
            self.waiting += 1
            try:
                await asyncio.wait_for(bell.wait(), min(rest_s, again_told_s) if news.decisions else rest_s)
            except TimeoutError:
                continue
            finally:
                self.waiting -= 1
