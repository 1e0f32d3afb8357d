"""The tickets of a client: those that wait for its worker, and those whose outcomes it knows."""

import contextlib
import hashlib
import pickle
import queue
import secrets
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from hanse.core.exchange import Task, digest
from hanse.network.protocol.wire import WorkOrder

__all__ = ["MOST_OPEN", "Tickets", "name_data", "name_ticket"]

MOST_OPEN = 100
"""The most tickets that a client works on or waits with. A server offers others again."""


def name_ticket(task: Task, payload: str, plan: str = "") -> str:
    """Names a ticket by all that is asked, not by its number alone: the server chooses the number.

    Args:
      payload: its SHA-256.
      plan: names all in the run's plan by which tickets are computed.
    """
    return digest((task, payload, plan))


def name_data(data: Any) -> str:
    """Names data by their content. Data that can't be pickled have another name each time."""
    state = hashlib.sha256()
    try:
        pickled = pickle.dumps(data, 5, buffer_callback=lambda buffer: state.update(buffer.raw()))
    except Exception:  # of a user's own class
        return secrets.token_hex(32)
    state.update(pickled)
    return state.hexdigest()


class Tickets:
    """Hands work orders from the thread that polls to the thread that works.

    It also remembers the outcomes that the server does not know to be on this client's disk.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[tuple[str, int]] = set()
        self._sending: dict[tuple[str, int], WorkOrder | None] = {}
        self._known: dict[str, list[int]] = {}
        self._orders: queue.Queue[WorkOrder | None] = queue.Queue()
        self.num_sent = 0
        """The number of messages that were sent."""

    @property
    def open(self) -> set[tuple[str, int]]:
        """The tickets that this client works on, each with its run."""
        with self._lock:
            return set(self._open)

    def take(self, order: WorkOrder) -> None:
        """Queues a work order, unless this client works on its ticket already, or on too many."""
        with self._lock:
            ticket = order.run, order.ticket
            if ticket in self._sending:  # it may have arrived and been lost, before this client knows
                self._sending[ticket] = order
            elif ticket not in self._open and len(self._open) < MOST_OPEN:
                self._open.add(ticket)
                self._orders.put(order)

    def wait(self) -> WorkOrder | None:
        """Waits for the next work order; None: there will be no more."""
        return self._orders.get()

    def end(self) -> None:
        """Says that there will be no more work orders."""
        self._orders.put(None)

    @contextlib.contextmanager
    def sending(self, order: WorkOrder) -> Iterator[None]:
        """Notes that a ticket's message is being sent, and after that, that this client is done with it.

        If the server asks for the ticket meanwhile, because it has lost the message, the order is queued.
        """
        ticket = order.run, order.ticket
        with self._lock:
            self._sending[ticket] = None
        try:
            yield
        except BaseException:
            with self._lock:
                del self._sending[ticket]
            raise
        with self._lock:
            self.num_sent += 1
            again = self._sending.pop(ticket)
            if again is None:
                self._open.discard(ticket)
            else:
                self._orders.put(again)

    def give_up(self, order: WorkOrder) -> None:
        """Notes that this client does not work on a ticket any more."""
        with self._lock:
            self._open.discard((order.run, order.ticket))

    def settle(self, run: str, tickets: Iterable[int]) -> None:
        """Notes that the outcomes of these tickets are on the disk."""
        with self._lock:
            self._known.setdefault(run, []).extend(tickets)
            self._open.difference_update((run, ticket) for ticket in tickets)

    def report(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """Returns the open tickets and those whose outcomes are known, by run, for a poll.

        The outcomes are reported once; if the poll fails, call `report_again`.
        """
        with self._lock:
            have: dict[str, list[int]] = {}
            for run, ticket in sorted(self._open):
                have.setdefault(run, []).append(ticket)
            know, self._known = self._known, {}
        return have, know

    def report_again(self, know: dict[str, list[int]]) -> None:
        """Takes back outcomes whose report did not reach the server."""
        with self._lock:
            self._known = {**know, **self._known}
