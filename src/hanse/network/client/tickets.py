"""The tickets of a client: those that wait for its worker, and those whose outcomes it knows."""

import queue
import threading
from collections.abc import Iterable

from hanse.network.protocol.wire import WorkOrder

__all__ = ["Tickets"]


class Tickets:
    """Hands work orders from the thread that polls to the thread that works.

    It also remembers the outcomes that the server does not know to be on this client's disk.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[tuple[str, int]] = set()
        self._known: dict[str, list[int]] = {}
        self._orders: queue.Queue[WorkOrder | None] = queue.Queue()

    @property
    def open(self) -> set[tuple[str, int]]:
        """The tickets that this client works on, each with its run."""
        with self._lock:
            return set(self._open)

    def take(self, order: WorkOrder) -> None:
        """Queues a work order, unless this client works on its ticket already."""
        with self._lock:
            new = (order.run, order.ticket) not in self._open
            self._open.add((order.run, order.ticket))
        if new:
            self._orders.put(order)

    def wait(self) -> WorkOrder | None:
        """Waits for the next work order; None: there will be no more."""
        return self._orders.get()

    def end(self) -> None:
        """Says that there will be no more work orders."""
        self._orders.put(None)

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
