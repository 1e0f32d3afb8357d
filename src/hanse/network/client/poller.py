"""The thread of a client that polls, so that the server knows that the client lives, and that decides."""

import logging
import time
from collections.abc import Callable

from hanse.network.client.connection import Connection
from hanse.network.client.roles import Roles
from hanse.network.client.tickets import Tickets
from hanse.network.protocol.errors import Forbidden, Refused, Unreachable, Withdrawn
from hanse.network.protocol.wire import WAIT_S, Decision, News, Poll

__all__ = ["Poller"]

logger = logging.getLogger(__name__)

MOST_DECISIONS = 100
"""The most outcomes that are taken from one answer; a server repeats those that are not acknowledged."""

MOST_ENDED = 20
"""The most runs whose ends are told of one answer: the newest."""

MOST_CHARS = 300
"""The most characters of a server's words that are told in one line."""

MOST_POLLS, POLLS_PER_MESSAGE, POLLS_PER_S = 100, 5, 1.0
"""The polls that a client has at first, and gets with each message that it sends and with each second."""

OVER = ("completed", "incomplete", "diverged")
"""The statuses of runs that are not served again."""

MUCH_BYTES, OVERSPENT_S = 100_000, 60.0
"""Answers of so many bytes are counted; if the policy allows no more, the next poll waits so long."""


class Pace:
    """Slows down the polls of a client whose server answers at once and gets no messages.

    Whatever such answers hold, they cost memory, lines of logs and bandwidth. While the client works, it asks
    as quickly as it is answered.

    Args:
      now_s: the clock.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s, self._left = now_s, float(MOST_POLLS)
        self._at_s, self._sent = now_s(), 0

    def pause_s(self, sent: int) -> float:
        """Counts a poll, and returns the seconds to wait before the next one.

        Args:
          sent: the number of messages that this client has sent until now.
        """
        at_s = self._now_s()
        earned = POLLS_PER_S * (at_s - self._at_s) + POLLS_PER_MESSAGE * (sent - self._sent)
        self._left = min(self._left + earned, MOST_POLLS) - 1
        self._at_s, self._sent = at_s, sent
        return max(0.0, -self._left / POLLS_PER_S)


class Poller:
    """Polls the server, queues the work orders that it sends, and settles the tickets that it decided on.

    Args:
      connection, tickets, roles: of the client.
    """

    def __init__(self, connection: Connection, tickets: Tickets, roles: Roles) -> None:
        self._connection, self._tickets, self._roles = connection, tickets, roles
        self._home = connection.home
        self._ended: dict[str, tuple[str, bool]] = {}
        self._pace, self._counted_bytes = Pace(), 0

    def run(self) -> str:
        """Polls until the server is done or this client left, was revoked or stopped; returns which.

        Raises: Refused: if another refusal is final.
        """
        connection = self._connection
        connection.say_line("joined; waiting for work")
        while not connection.stopping.is_set():
            try:
                news = connection.insist(self.poll)
            except Unreachable:
                break
            except Withdrawn as withdrawn:
                connection.say(f"{withdrawn}: this client ends")
                break
            except Refused as refused:
                if refused.code in ("revoked", "left"):
                    self._home.audit.write(refused.code, receipt=refused.receipt)
                    return refused.code
                raise
            self._take(news)
            self._tell_end(news)
            if news.certificate:
                connection.link.trust(news.certificate)  # first, or one that is none would be kept
                self._home.expect(news.certificate)
            if news.over and not news.decisions and not news.work:
                return "over"
            if news.again_s > 0:
                connection.say(f"not needed now; asking again in {news.again_s:.0f} s", "resting")
                connection.stopping.wait(min(news.again_s, 3600.0))
            self._count_answers()
            if (pause_s := self._pace.pause_s(self._tickets.num_sent)) > 0:
                connection.stopping.wait(pause_s)
        return "left" if self._home.is_leaving else "stopped"

    def _count_answers(self) -> None:
        """Counts answers that add up to much, and waits if the policy allows no more of them."""
        size = self._connection.link.answered_bytes - self._counted_bytes
        if size < MUCH_BYTES:
            return
        self._counted_bytes += size
        self._home.spent.add(download_bytes=size)
        try:
            self._home.policy.check_use(self._home.spent, tickets=0)
        except Forbidden as forbidden:
            self._connection.say(f"{forbidden}; asking again in {OVERSPENT_S:.0f} s", "resting")
            self._connection.stopping.wait(OVERSPENT_S)

    def _tell_end(self, news: News) -> None:
        """Says once how each run has ended, and whether this client waits for it."""
        ended = dict(list(news.ended.items())[-MOST_ENDED:])  # the newest come last
        self._ended = {run: said for run, said in self._ended.items() if run in ended}
        waits = not news.over and any(status not in OVER for status in news.ended.values())
        for run, status in ended.items():
            if self._ended.get(run) != (status, waits):
                self._ended[run] = status, waits
                if status in OVER:
                    self._roles.end_run(run)
                also = "" if not waits or status in OVER else "; waiting until its operator serves it again"
                self._connection.say(f"run {run[:64]} is {status[:64]} at the server{also}")

    def poll(self, wait_s: float = WAIT_S) -> News:
        """Tells the server what this client knows, and waits for news.

        Raises: Refused, Unreachable.
        """
        have, know = self._tickets.report()
        poll = Poll(
            wait_s=wait_s,
            have=have,
            know=know,
            doing=self._connection.doing,
            expects=self._home.next_fingerprint,
        )
        try:
            return self._connection.gate.poll(poll, shows_log=wait_s > 0)
        except BaseException:
            self._tickets.report_again(know)
            raise

    def poll_now(self) -> None:
        """Polls without waiting, to correct what a poll that is under way says of this client's tickets.

        Raises: Refused, Unreachable.
        """
        self._take(self.poll(0.0))

    def _take(self, news: News) -> None:
        logger.debug(
            "event=polled orders=%d decisions=%d again_s=%.1f",
            len(news.work),
            len(news.decisions),
            news.again_s,
        )
        with self._roles.settling:
            self._decide(news.decisions)
        for order in news.work:
            self._tickets.take(order)

    def _decide(self, decisions: list[Decision]) -> None:
        """Commits the memory of counted tickets and drops the others; both are on the disk afterwards.

        Of a run that this client has no folder of, it has nothing to settle; it only acknowledges them.
        """
        by_run: dict[str, list[Decision]] = {}
        for decision in decisions[:MOST_DECISIONS]:
            by_run.setdefault(decision.run, []).append(decision)
        for run, own in by_run.items():
            if not self._home.has_run(run):
                self._tickets.settle(run, [d.ticket for d in own])
                continue
            self._roles.settle(run, own)
            counted = [decision.ticket for decision in own if decision.counted]
            dropped = [decision.ticket for decision in own if not decision.counted]
            self._home.audit.write("settled", sync=False, run=run, counted=counted, dropped=dropped)
            at_work = self._tickets.open  # the worker itself removes what it has read
            self._roles.forget_tasks(run, [d.ticket for d in own if (run, d.ticket) not in at_work])
            for decision in own:
                if not decision.counted:
                    self._connection.say(
                        f"ticket {decision.ticket} was not counted: {decision.why[:MOST_CHARS]}"
                    )
            self._tickets.settle(run, [d.ticket for d in own])
