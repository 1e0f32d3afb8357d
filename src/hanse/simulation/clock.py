"""The simulated clock of devices with links: when each ticket is downloaded, computed and uploaded."""

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field, replace

from hanse.core import Key, PartyId, Stalled, value
from hanse.core.exchange import TicketTimes
from hanse.simulation.availability import always
from hanse.simulation.timed import Device, timed

__all__ = ["Clock", "ClockState"]

MAX_TIMES = 4096
"""The most tickets of a round whose times are recorded."""

MAX_RETURNS = 100
"""The number of times that a device may come back to one ticket."""

MAX_HOPELESS = 1_000
"""The number of devices that will never be available after which none of the others is taken to be."""

MAX_WAIT_S = 30 * 86400.0
"""The virtual seconds that a cohort waits for more devices before it does with those that are available."""


@value
class ClockState:
    """The point from which a clock goes on.

    Args:
      server_s: when the server's link is free, "down" and "up".
      free_s: when each device's link "down", its "computation" and its link "up" are free, if it is later.
      begun: the times of open tickets.
      ended: the times of the tickets that were closed in this round.
      answers_s: when the last poll of each device is answered, if its next one is not there yet.
      undecided: the devices whose tickets were closed in this round.
    """

    server_s: Mapping[str, float] = field(default_factory=dict)
    free_s: Mapping[str, Mapping[PartyId, float]] = field(default_factory=dict)
    begun: Mapping[int, TicketTimes] = field(default_factory=dict)
    ended: tuple[TicketTimes, ...] = ()
    answers_s: Mapping[PartyId, float] = field(default_factory=dict)
    undecided: tuple[PartyId, ...] = ()


class Clock:
    """Times tickets. Resources are taken in the order in which tickets are ready for them.

    A download and an upload pass through two links, the device's and the server's: it begins when both are
    free, lasts as long as on the slower one, and occupies each for bytes / bandwidth of that link.

    Devices that poll hear of a ticket from the answer to a poll, and ask for its download; so it takes three
    latencies and an upload one. A device that has an answer polls again two latencies after it was sent.

    Args:
      devices: their speeds and links.
      key: everything that lasts is drawn from it.
    """

    def __init__(self, devices: timed, key: Key) -> None:
        self._devices, self._key = devices, key
        self._drawn: dict[PartyId, Device] = {}
        self._periods: dict[PartyId, tuple[float, tuple[float, float] | None]] = {}
        self.restore(ClockState())

    def snapshot(self) -> ClockState:
        """Copies everything from which `restore` goes on."""
        free_s = {what: dict(times) for what, times in self._free_s.items()}
        ended, undecided = tuple(self._ended), tuple(self._undecided)
        return ClockState(
            dict(self._server_s), free_s, dict(self._begun), ended, dict(self._answers_s), undecided
        )

    def restore(self, state: ClockState) -> None:
        """Goes on from a snapshot."""
        self._server_s = {"down": 0.0, "up": 0.0, **state.server_s}
        names = ("down", "computation", "up")
        self._free_s: dict[str, dict[PartyId, float]] = {n: dict(state.free_s.get(n, {})) for n in names}
        self._begun, self._ended = dict(state.begun), list(state.ended)
        self._answers_s, self._undecided = dict(state.answers_s), dict.fromkeys(state.undecided)
        self._planned: dict[int, tuple[TicketTimes, float]] = {}

    def device(self, party: PartyId) -> Device:
        """Returns a party's device, which is the same in the whole run."""
        if party not in self._drawn:
            self._drawn[party] = self._devices.device(self._key.fold_in(party))
        return self._drawn[party]

    def _latency_s(self, party: PartyId) -> float:
        return self.device(party).link.latency_s + self._devices.server.latency_s

    @property
    def is_always_open(self) -> bool:
        """Returns whether all devices are available at all times."""
        return self._devices.availability == always()

    # -- availability --------------------------------------------------------------------------

    def find_period(self, party: PartyId, at_s: float) -> tuple[float, float] | None:
        """Finds the first period in which a party is available that ends after a moment; None: never."""
        return self._devices.availability.period(self._key.fold_in(party), at_s)

    def await_parties(
        self, parties: Collection[PartyId], wanted: int, at_s: float, *, finds_all: bool = False
    ) -> tuple[float, set[PartyId]]:
        """Waits until enough of these parties are available, or as many as ever will be.

        Args:
          parties: in the order in which they are tried.
          wanted: enough of them.
          at_s: the moment, which is never earlier than in the call before.
          finds_all: whether to find all that are available; otherwise the first that are enough.

        Returns: the moment, and the parties that are not available then, or were not tried.
        Raises: Stalled: if none of them will ever be available.
        """
        given_up_s = at_s + MAX_WAIT_S
        wanted, first_s = max(1, min(wanted, len(parties))), math.inf
        while parties:
            opens_s: list[float] = []
            here: list[PartyId] = []
            tried = 0
            for party in parties:
                period = self._find_next_period(party, at_s)
                if period is not None:
                    opens_s.append(max(at_s, period[0]))
                    if period[0] <= at_s:
                        here.append(party)
                tried += 1
                is_hopeless = not opens_s and tried == MAX_HOPELESS
                if is_hopeless or (len(here) == wanted and not finds_all):
                    break
            if len(here) >= wanted:
                return at_s, set(parties).difference(here)
            if not opens_s:
                why = f"none of {tried} devices will ever be available again"
                raise Stalled(f"{why}; write an availability whose conditions hold together at some time")
            opens_s.sort()
            first_s = min(first_s, opens_s[0])
            at_s = opens_s[min(wanted, len(opens_s)) - 1]
            if at_s > given_up_s:
                wanted, at_s, given_up_s = 1, first_s, math.inf
            elif len(opens_s) < wanted:
                wanted = len(opens_s)
        return at_s, set()

    def _find_next_period(self, party: PartyId, at_s: float) -> tuple[float, float] | None:
        """Finds a period as `find_period` does, and remembers it until it ends."""
        asked_s, period = self._periods.get(party, (math.inf, None))
        if not asked_s <= at_s or (period is not None and period[1] <= at_s):
            period = self.find_period(party, at_s)
            self._periods[party] = at_s, period
        return period

    # -- tickets -------------------------------------------------------------------------------

    def begin(
        self, ticket: int, party: PartyId, key: Key, num_bytes: int, num_examples: float, at_s: float
    ) -> TicketTimes:
        """Times the download and the computation of a ticket.

        Args:
          key: the ticket's own.
          num_bytes: of its download.
          num_examples: whose gradients it computes.
          at_s: when the server sends it.

        Returns: its times; `computed_s` is None if the device is not available for long enough.
        """
        device, server = self.device(party), self._devices.server
        times, period = TicketTimes(party, at_s), self.find_period(party, at_s)
        if period is not None:
            free_s = self._free_s
            asked_s = self._answer(party, at_s) + 2 * self._latency_s(party) if self._devices.polls else at_s
            slot_s = max(asked_s, self._server_s["down"])
            own_s, shared_s = device.link.seconds_down(num_bytes), server.seconds_down(num_bytes)
            if shared_s:
                self._server_s["down"] = slot_s + shared_s
            downloads_s = max(slot_s, period[0], free_s["down"].get(party, 0.0))
            free_s["down"][party] = max(downloads_s + own_s, slot_s + shared_s)
            received_s = free_s["down"][party] + self._latency_s(party)
            begins_s = max(received_s, free_s["computation"].get(party, 0.0))
            computed_s = begins_s + num_examples * device.s_per_example * self._devices.draw_jitter(key)
            times = TicketTimes(party, at_s, downloads_s, received_s, begins_s, computed_s)
            if computed_s > period[1]:
                times = replace(times, begins_s=min(begins_s, period[1]), computed_s=None, left_s=period[1])
                computed_s = max(period[1], free_s["computation"].get(party, 0.0))
            free_s["computation"][party] = computed_s
        self._begun[ticket] = times
        return times

    def _answer(self, party: PartyId, at_s: float) -> float:
        """Answers a device's poll as soon as there is one, and returns when."""
        last_s = self._answers_s.get(party, -math.inf)
        if last_s <= at_s:  # or that answer is still to be sent, and says this, too
            self._answers_s[party] = max(at_s, last_s + 2 * self._latency_s(party))
        return self._answers_s[party]

    def begin_again(
        self, ticket: int, party: PartyId, key: Key, num_bytes: int, num_examples: float, at_s: float
    ) -> TicketTimes:
        """Times a ticket that its device begins anew whenever it is available again.

        Raises: Stalled: if its periods are too short, or there are none.
        """
        for n in range(MAX_RETURNS):
            times = self.begin(ticket, party, key.fold_in("again", n), num_bytes, num_examples, at_s)
            if times.computed_s is not None:
                return times
            if times.left_s is None:
                break
            at_s = times.left_s
        raise Stalled(
            f"the device of {party!r} is never available for long enough to answer; write longer periods of "
            "availability, or less work"
        )

    def drop_out(self, ticket: int) -> None:
        """Lets the device of a ticket drop out as soon as it is asked."""
        times = self._begun[ticket]
        self._begun[ticket] = TicketTimes(times.party, times.sent_s, left_s=times.sent_s)

    def upload(
        self,
        tickets: Iterable[int],
        measure: Callable[[int], int],
        find_end: Callable[[Mapping[int, float]], float],
    ) -> dict[int, float]:
        """Finds when uploads arrive. They are sent in the order in which they are ready.

        Args:
          tickets: the tickets, of which those that were never computed are passed over.
          measure: gives the bytes of a ticket's upload; it is asked only if the upload matters.
          find_end: given the arrivals so far, returns a moment from which on no upload matters any more.

        Returns: when each of those that matter arrives.
        """
        arrived, self._planned = dict[int, float](), {}
        server_s, own_s = self._server_s["up"], dict[PartyId, float]()
        ready: list[tuple[float, int]] = []
        for ticket in tickets:
            times = self._begun[ticket]
            if times.arrived_s is not None:
                arrived[ticket] = times.arrived_s
            elif times.computed_s is not None:
                ready.append((times.computed_s, ticket))
        heapq.heapify(ready)
        while ready:
            ready_s, ticket = heapq.heappop(ready)
            if ready_s > find_end(arrived):
                break
            times = self._begun[ticket]
            free_s = own_s.get(times.party, self._free_s["up"].get(times.party, 0.0))
            if free_s > ready_s:
                heapq.heappush(ready, (free_s, ticket))
                continue
            link, size = self.device(times.party).link, measure(ticket)
            takes_s, shared_s = link.seconds_up(size), self._devices.server.seconds_up(size)
            uploads_s = max(ready_s, server_s)
            server_s = uploads_s + shared_s if shared_s else server_s
            own_s[times.party] = uploads_s + max(takes_s, shared_s)
            arrived[ticket] = own_s[times.party] + self._latency_s(times.party)
            self._planned[ticket] = replace(times, uploads_s=uploads_s, arrived_s=arrived[ticket]), shared_s
        return arrived

    def pass_time(self, until_s: float) -> None:
        """Keeps the uploads of the last `upload` that have begun until a moment; the others may change."""
        for ticket, (times, shared_s) in self._planned.items():
            if times.uploads_s is not None and times.arrived_s is not None and times.uploads_s <= until_s:
                self._begun[ticket] = times
                self._server_s["up"] = max(
                    self._server_s["up"], times.uploads_s + shared_s if shared_s else 0.0
                )
                self._free_s["up"][times.party] = times.arrived_s - self._latency_s(times.party)
        self._planned = {}
        for free_s in self._free_s.values():
            for party in [party for party, moment_s in free_s.items() if moment_s <= until_s]:
                del free_s[party]
        for party, last_s in list(self._answers_s.items()):
            if last_s + 2 * self._latency_s(party) <= until_s:
                del self._answers_s[party]

    def close(self, tickets: Iterable[int]) -> None:
        """Books the times of tickets that were closed."""
        for ticket in tickets:
            times = self._begun.pop(ticket, None)
            if times is not None:
                self._undecided[times.party] = None
                if len(self._ended) < MAX_TIMES:
                    self._ended.append(times)

    def left_s(self, tickets: Iterable[int]) -> float:
        """Returns when the last of these tickets' devices left, of those that did."""
        return max((self._begun[n].left_s or 0.0 for n in tickets if n in self._begun), default=0.0)

    def end_round(self, at_s: float) -> tuple[TicketTimes, ...]:
        """Returns the times of the tickets closed in this round. Their devices hear how it ended."""
        for party in self._undecided if self._devices.polls else ():
            self._answer(party, at_s)
        ended, self._ended, self._undecided = tuple(self._ended), [], {}
        return ended
