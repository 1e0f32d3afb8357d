"""The use of time on the simulated clock: speed-up, shares of time, and a trace for Chrome."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hanse.core.exchange import Record, TicketTimes
from hanse.evaluation import as_percent, as_seconds

if TYPE_CHECKING:
    from hanse.runs.preparation import Prepared

__all__ = [
    "as_chrome_trace",
    "describe_parallelism",
    "describe_planned_time",
    "list_spans",
    "measure_parallelism",
    "measure_speed",
    "time_exchanges",
]


def list_spans(times: TicketTimes) -> Iterator[tuple[str, float, float]]:
    """Yields what a device was busy with for one ticket, each with its beginning and its end."""
    ends = (
        ("download", times.downloads_s, times.received_s),
        ("compute", times.begins_s, times.left_s if times.computed_s is None else times.computed_s),
        ("upload", times.uploads_s, times.arrived_s),
    )
    for what, begin_s, end_s in ends:
        if begin_s is not None and end_s is not None and end_s >= begin_s:
            yield what, begin_s, end_s


def measure_parallelism(records: Iterable[Record]) -> dict[str, float] | None:
    """Computes what parallel devices gained in a run; None: its devices have no links.

    Returns: "num_devices", the mean number of devices in a round with tickets; "speed_up", the seconds that
      all computation takes one after the other, divided by the seconds of these rounds; "efficiency",
      speed-up by device; and "compute_share", "communication_share" and "waiting_share" of the devices'
      seconds. Latency counts as communication.
    """
    spent = dict.fromkeys(("compute", "download", "upload"), 0.0)
    total_s, capacity_s, num_devices, num_rounds = 0.0, 0.0, 0, 0
    for record in records:
        usage = record.usage
        if not usage.times:
            continue
        devices = {times.party for times in usage.times}
        num_rounds, num_devices = num_rounds + 1, num_devices + len(devices)
        total_s, capacity_s = total_s + usage.virtual_s, capacity_s + len(devices) * usage.virtual_s
        for times in usage.times:
            for what, begin_s, end_s in list_spans(times):
                spent[what] += end_s - begin_s
    if not num_rounds or total_s <= 0:
        return None
    shares = {what: min(1.0, seconds / capacity_s) for what, seconds in spent.items()}
    communication = shares["download"] + shares["upload"]
    return {
        "num_devices": num_devices / num_rounds,
        "speed_up": spent["compute"] / total_s,
        "efficiency": spent["compute"] / capacity_s,
        "compute_share": shares["compute"],
        "communication_share": communication,
        "waiting_share": max(0.0, 1.0 - shares["compute"] - communication),
    }


def describe_parallelism(
    records: Sequence[Record], found: Mapping[str, float] | None
) -> list[tuple[str, str]]:
    """Returns pairs of a heading and words about the simulated clock; none: devices have no links."""
    if found is None:
        return []
    virtual_s = math.fsum(record.usage.virtual_s for record in records)
    shares = ", ".join(
        f"{what} {as_percent(found[f'{what}_share'])}" for what in ("compute", "communication", "waiting")
    )
    return [
        ("simulated time", as_seconds(virtual_s)),
        (
            "speed-up",
            f"{found['speed_up']:.2f} with {found['num_devices']:.4g} devices a round, "
            f"efficiency {as_percent(found['efficiency'])}",
        ),
        ("devices' time", shares),
    ]


def describe_planned_time(
    virtual_s: Mapping[str, float] | None, s_per_example: float | None
) -> Iterator[tuple[str, str]]:
    """Yields pairs of a heading and words: simulated seconds of a round, and the speed of this machine."""
    if s_per_example is not None:
        yield "this machine", f"s_per_example = {s_per_example:.2g}, for devices that are as fast"
    if virtual_s is not None:
        yield "simulated, first round", as_seconds(virtual_s["first"])
        yield "simulated, later round", as_seconds(virtual_s["later"])


def time_exchanges(ready: "Prepared", planned: Mapping[str, Sequence[Any]]) -> dict[str, float] | None:
    """Times rounds on the clock that a run has, one after the other, with the bytes of one client."""
    from hanse.simulation import Clock

    conditions = ready.experiment.devices.conditions()
    if conditions is None:
        return None
    found: dict[str, float] = {}
    clock, now_s, ticket = Clock(conditions, ready.keys.public.fold_in("devices")), 0.0, 0
    for name, exchanges in planned.items():
        began_s = now_s
        if exchanges and not clock.is_always_open:
            asked = exchanges[0].cohort
            now_s, _ = clock.await_parties(asked, len(asked), now_s)
        for exchange in exchanges:
            tickets = range(ticket, ticket + len(exchange.cohort))
            ticket = tickets.stop
            for number, party in zip(tickets, exchange.cohort, strict=True):
                assert exchange.key is not None
                key, usage = exchange.key.fold_in("party").fold_in(party).fold_in("device"), exchange.usage
                cost = exchange.cost(ready.count_examples(party))
                clock.begin(number, party, key, usage.bytes_down, cost, now_s)
            up, answered = exchange.usage.bytes_up, exchange.answered
            arrived = clock.upload(tickets, lambda _, up=up: up, lambda _: math.inf)  # type: ignore[misc]
            now_s = max([*sorted(arrived.values())[:answered], now_s])
            clock.pass_time(now_s)
            clock.close(tickets)
        clock.end_round(now_s)
        found[name] = now_s - began_s
    return found


def measure_speed(ready: "Prepared", exchanges: Sequence[Any]) -> float | None:
    """Returns the seconds for each example that the rehearsed clients visited; None: they visited none."""
    seconds, visited = 0.0, 0.0
    for exchange in exchanges:
        cost = exchange.cost(ready.count_examples(exchange.cohort[0])) if exchange.cohort else 0.0
        if cost:
            seconds, visited = seconds + exchange.compute_s, visited + cost
    return seconds / visited if visited else None


def as_chrome_trace(records: Iterable[Record]) -> dict[str, Any]:
    """Returns the timeline in the JSON of Chrome's trace events, which Perfetto opens, too.

    Each device is a thread; a download, a computation or an upload is a complete event ("ph": "X") with its
    beginning and length in microseconds. Spans of one device that overlap are on lines of their own.

    References: Google, "Trace Event Format", 2016.
    """
    lanes = {"download": 0, "compute": 1, "upload": 2}
    events: list[dict[str, Any]] = []
    threads: dict[str, int] = {}
    for record in records:
        for times in record.usage.times:
            first = threads.setdefault(str(times.party), 3 * len(threads))
            for what, begin_s, end_s in list_spans(times):
                event = {"name": what, "cat": what, "ph": "X", "pid": 1, "tid": first + lanes[what]}
                span = {"ts": 1e6 * begin_s, "dur": 1e6 * (end_s - begin_s)}
                events.append({**event, **span, "args": {"round": record.round}})
    names = [
        {
            "name": "thread_name",
            "ph": "M",
            "pid": 1,
            "tid": first + lane,
            "args": {"name": f"client {party}: {what}" if party.isdecimal() else f"{party}: {what}"},
        }
        for party, first in threads.items()
        for what, lane in lanes.items()
    ]
    return {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}
