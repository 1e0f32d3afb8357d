"""The metrics of a server, in the words of Prometheus.

What the server counts anyway is read when somebody asks. Only requests and rounds are observed as they
happen. No metric names a member or a run: labels take few values, whatever clients do.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import Counter as Total
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hanse.network.server.records import RoundReport
from hanse.network.server.server import Server
from hanse.version import __version__

__all__ = ["Meter", "Metered"]

STATUSES = ("running", "completed", "incomplete", "stopped", "interrupted", "diverged", "failed")
REQUEST_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0)
ROUND_S = (0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)

UNKNOWN = "unknown"
"""The route of requests for addresses that are none of the server's, whatever they are."""


class Meter:
    """Observes a server's requests and rounds, and writes all of its metrics.

    Args:
      server: whose state is read each time that metrics are written.
    """

    def __init__(self, server: Server) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the number of series and tell nothing
        self._registry = CollectorRegistry()
        self._registry.register(_State(server))
        ProcessCollector(registry=self._registry)
        self._requests = Histogram(
            "hanse_request_seconds",
            "Seconds from a request's headers to the end of its answer. Polls are held for up to 25 s.",
            ("route",),
            buckets=REQUEST_S,
            registry=self._registry,
        )
        self._answers = Total("hanse_requests", "Requests.", ("route", "status"), registry=self._registry)
        self._bytes = Total(
            "hanse_body_bytes",
            "Bytes of requests' bodies (up) and answers' (down).",
            ("way",),
            registry=self._registry,
        )
        self.up, self.down = self._bytes.labels("up"), self._bytes.labels("down")
        self._rounds = Histogram(
            "hanse_round_seconds", "Seconds that rounds took.", buckets=ROUND_S, registry=self._registry
        )

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Notes a request that was answered."""
        self._answers.labels(route, str(status)).inc()
        self._requests.labels(route).observe(seconds)

    def observe_round(self, report: RoundReport) -> None:
        """Notes a round that has ended."""
        if report.round > 0:
            self._rounds.observe(report.seconds)

    def write(self) -> bytes:
        """Writes all metrics as text."""
        return generate_latest(self._registry)


class Metered:
    """Observes the requests that pass to an application."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app, self._meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, meter, status = time.perf_counter(), self._meter, 500

        async def count_up() -> Message:
            message = await receive()
            meter.up.inc(len(message.get("body", b"")))
            return message

        async def count_down(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            meter.down.inc(len(message.get("body", b"")))
            await send(message)

        try:
            await self._app(scope, count_up, count_down)
        finally:
            route = getattr(scope.get("route"), "path", UNKNOWN)
            meter.observe_request(route, status, time.perf_counter() - began_s)


class _State(Collector):
    """Reads the state of a server each time that it is asked."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        server = self._server
        yield _gauge("hanse_info", "1, with the version of Hanse.", {(__version__,): 1}, ("version",))
        led = server.led()
        standings = [run.standing for run in led]
        by_status = Counter(one.status for one in standings)
        yield _gauge(
            "hanse_runs",
            "Runs that this server leads, by status.",
            {(status,): by_status[status] for status in STATUSES},
            ("status",),
        )
        running = [one for one in standings if one.status == "running"]
        yield _gauge(
            "hanse_round",
            "The last round that has ended, of the run that is furthest.",
            _most(one.round for one in standings),
        )
        yield _gauge(
            "hanse_round_age_seconds",
            "Seconds since the last round of a running run ended.",
            _most(one.round_s for one in running),
        )
        yield _gauge(
            "hanse_clients_joined", "Clients that are members.", _only(len(server.members.parties()))
        )
        present = {party for one in standings for party in one.present}
        yield _gauge("hanse_clients_present", "Members that were heard lately.", _only(len(present)))
        awaited = {party for one in running for party in one.awaited}
        yield _gauge("hanse_clients_awaited", "Members whose answer is awaited.", _only(len(awaited)))
        yield from self._collect_counts()
        connections = server.connections
        if connections is not None:
            kinds = {("member",): connections.num_known, ("unknown",): connections.num_unknown}
            yield _gauge("hanse_connections", "Open connections.", kinds, ("of",))
            yield _gauge("hanse_connections_limit", "The most that may be open.", _only(connections.most))
        spool = sum(_measure_folder(server.home / "runs" / run.name / "spool") for run in led)
        yield _gauge("hanse_spool_bytes", "Bytes of messages of open rounds.", _only(spool))
        yield _gauge(
            "hanse_disk_free_bytes", "Free bytes of the disk.", _only(shutil.disk_usage(server.home).free)
        )

    def _collect_counts(self) -> Iterator[Metric]:
        counts = dict(self._server.counts)
        received = CounterMetricFamily("hanse_messages_received", "Messages of clients that became durable.")
        received.add_metric((), counts.get(("received", ""), 0))
        yield received
        for what, about in (
            ("failed", "Tickets that clients failed or declined, by code."),
            ("refused", "Requests that were refused, by code."),
        ):
            total = CounterMetricFamily(f"hanse_{what}", about, labels=("code",))
            for (counted, code), count in sorted(counts.items()):
                if counted == what:
                    total.add_metric((code,), count)
            yield total
        limited = CounterMetricFamily(
            "hanse_limited", "Requests refused by a rate, by what is limited.", labels=("what",)
        )
        for name, count in sorted(self._server.rates.refused.items()):
            limited.add_metric((name,), count)
        yield limited


def _gauge(
    name: str, about: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=labels)
    for label, number in values.items():
        family.add_metric(label, number)
    return family


def _only(number: float) -> dict[tuple[str, ...], float]:
    return {(): number}


def _most(numbers: Any) -> dict[tuple[str, ...], float]:
    return _only(max(numbers, default=0))


def _measure_folder(folder: Path) -> int:
    """Returns the bytes of the files in a folder."""
    total = 0
    try:
        with os.scandir(folder) as found:
            for entry in found:
                try:
                    total += entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:  # its round was counted in the meantime
                    continue
    except FileNotFoundError:
        pass
    return total
