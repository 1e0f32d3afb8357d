"""Health and metrics, as an operator's machines read them."""

import errno
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from federation import FED_AVG, NUM_CLIENTS, Federation, federation, job
from prometheus_client.parser import text_string_to_metric_families

from hanse.network.protocol.errors import Refused
from hanse.network.server import https
from hanse.network.server.https import listen
from hanse.network.server.monitoring import Meter, check_ready, monitor
from hanse.network.server.server import Server


@contextmanager
def monitored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Federation, httpx.Client]]:
    """A federation whose requests and rounds are observed, and a client of its pages."""
    found: list[Meter] = []
    as_usual = https.application

    def observe(server: Server, meter: Any = None) -> Any:
        found.append(Meter(server))
        server.observe_round = found[0].observe_round
        return as_usual(server, found[0])

    monkeypatch.setattr(https, "application", observe)
    with federation(folder, stay=True) as here:
        bound = listen("127.0.0.1", 0)
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with monitor(here.server, bound, found[0]), httpx.Client(base_url=url) as asking:
            yield here, asking


def read_metrics(asking: httpx.Client) -> dict[tuple[str, ...], float]:
    """Values by name and labels, parsed as Prometheus does."""
    answer = asking.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_are_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monitored(tmp_path, monkeypatch) as (here, asking):
        ready = asking.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "no-run")
        run = here.lead(job(FED_AVG, 3))
        assert (asking.get("/readyz").status_code, asking.get("/healthz").json()) == (200, {"code": "alive"})
        here.enter()
        here.end(run)
        here.server.presence.hear(0)
        with closing(here.client_home(1).link()) as link, pytest.raises(Refused):
            link.plain("GET", "/v1/status")
        httpx.get(f"{here.url}/nowhere/{'x' * 40}", verify=False)
        found = read_metrics(asking)
        usage = here.server.runs.records(run)
    counted = sum(record.usage.counted for record in usage)
    assert counted == 3 * NUM_CLIENTS
    assert found["hanse_messages_received_total",] == counted
    assert found["hanse_runs", "completed"] == 1
    assert found["hanse_runs", "running"] == 0
    assert found["hanse_round",] == 3
    assert found["hanse_round_seconds_count",] == 3
    assert found["hanse_clients_joined",] == NUM_CLIENTS
    assert found["hanse_clients_present",] == NUM_CLIENTS
    assert found["hanse_clients_awaited",] == 0
    assert found["hanse_refused_total", "role"] == 1
    assert found["hanse_refused_total", "no-path"] == 1
    upload = "/v1/runs/{run}/tickets/{ticket}/message"
    assert found["hanse_requests_total", upload, "200"] >= counted
    assert found["hanse_requests_total", "unknown", "404"] == 1
    assert found["hanse_request_seconds_count", upload] == found["hanse_requests_total", upload, "200"]
    sent = sum(record.usage.bytes_up for record in usage)
    assert sent <= found["hanse_body_bytes_total", "up"] < 3 * sent + 100_000
    assert (
        found["hanse_body_bytes_total", "down"]
        > sum(record.usage.bytes_down for record in usage) / NUM_CLIENTS
    )
    assert found["process_resident_memory_bytes",] > 1e6
    assert found["hanse_disk_free_bytes",] > 0
    labels = {label for name in found for label in name[1:]}
    assert not labels & {run, *(f"c{number}" for number in range(NUM_CLIENTS))}  # nobody is named


def test_metrics_say_who_is_awaited_and_what_waits_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monitored(tmp_path, monkeypatch) as (here, asking):
        for number in range(NUM_CLIENTS):
            here.client_home(number)
        run = here.lead(job(FED_AVG, 1))
        here.show_up()
        led = here.server.run(run)
        here.wait_until(lambda: led.mailbox.count_offers()["orders"] == NUM_CLIENTS, "nothing is offered")
        (tmp_path / "server" / "runs" / run / "spool" / "a.message").write_bytes(bytes(1234))
        here.server.counts["failed", "budget"] += 2
        for _ in range(20):
            here.server.rates.spend("attempts to join", "somebody")
        with pytest.raises(Refused):
            here.server.rates.spend("attempts to join", "somebody")
        found = read_metrics(asking)
        assert found["hanse_clients_awaited",] == NUM_CLIENTS
        assert found["hanse_runs", "running"] == 1
        assert found["hanse_spool_bytes",] == 1234
        assert found["hanse_failed_total", "budget"] == 2
        assert found["hanse_limited_total", "attempts to join"] == 1
        standing = led.standing
        assert standing.describe_members().startswith("5 of 5 present: client 0, client 1")
        assert "; awaited: client 0, client 1, client 2, client 3, client 4" in standing.describe_members()


def full_disk(**options: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def read_only(**options: Any) -> Any:
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_server_that_can_not_go_on_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monitored(tmp_path, monkeypatch) as (here, asking):
        run = here.lead(job(FED_AVG, 1))
        led = here.server.run(run)
        assert check_ready(here.server) is None
        for broken, code in ((full_disk, "disk-full"), (read_only, "disk")):
            with monkeypatch.context() as patch:
                patch.setattr(tempfile, "TemporaryFile", broken)
                assert asking.get("/readyz").json()["code"] == code
        led.mailbox.stop("a test", "interrupted")
        led.join(30.0)
        led.status = "running"
        assert asking.get("/readyz").json()["code"] == "run-dead"
        led.status = "failed"
        assert (asking.get("/readyz").status_code, asking.get("/readyz").json()["code"]) == (
            503,
            "run-failed",
        )
        led.status = "interrupted"
        (tmp_path / "server" / "runs.db").rename(tmp_path / "gone.db")
        assert asking.get("/readyz").json()["code"] == "store"
        (tmp_path / "gone.db").replace(tmp_path / "server" / "runs.db")
        assert asking.get("/readyz").status_code == 200
        assert asking.get("/healthz").status_code == 200


def test_the_pages_can_only_be_read_and_the_port_of_clients_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monitored(tmp_path, monkeypatch) as (here, asking):
        assert asking.post("/metrics").status_code == 405
        assert asking.get("/v1/status").status_code == 404
        assert asking.head("/healthz").content == b""
        for page in ("healthz", "readyz", "metrics"):
            assert httpx.get(f"{here.url}/{page}", verify=False).status_code == 404
        silent = [socket.create_connection((asking.base_url.host, asking.base_url.port)) for _ in range(80)]
        assert asking.get("/healthz").status_code == 200  # a crowd of bare sockets takes no place for ever
        for one in silent:
            one.close()
