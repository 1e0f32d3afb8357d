"""A server that sends without end costs a client no more than its policy says, and no folders."""

import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from federation import FED_AVG, Threaded, federation, job, population
from learning import learner
from played import Heard, HostileServer

from hanse.core import MessageError
from hanse.network.client import poller
from hanse.network.client.connection import Connection
from hanse.network.client.home import ClientHome
from hanse.network.client.poller import MOST_DECISIONS
from hanse.network.client.worker import MOST_WRONG, Worker
from hanse.network.protocol.errors import Forbidden

WRONG = bytes(100_000)


@contextmanager
def played(folder: Path, answer: Callable[[HostileServer, Heard], Iterable[bytes]]) -> Iterator[ClientHome]:
    """Plays a server, and yields the home of its client."""
    given: list[HostileServer] = []
    (folder / "server").mkdir()
    with HostileServer(folder / "server", lambda heard: answer(given[0], heard)) as server:
        given.append(server)
        home = ClientHome(folder / "client")
        member = {"url": server.url, "certificate": server.pem, "server_key": server.identity.public}
        home.enter({**member, "id": "c0", "number": 0})
        yield home


def fetch(home: ClientHome) -> None:
    """Downloads what should be another object, as the thread that works does."""
    connection = Connection(home, lambda line: None)
    nothing: Any = None
    worker = Worker(connection, nothing, nothing, logging.getLogger(__name__), lambda: None)
    with closing(connection.gate):
        worker._fetch("run", "/v1/object", "0" * 64, len(WRONG), home.folder / "a.payload")


def test_wrong_downloads_are_counted_and_given_up(tmp_path: Path) -> None:
    def answer(server: HostileServer, heard: Heard) -> Iterable[bytes]:
        return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(WRONG) + WRONG]

    with played(tmp_path, answer) as home:
        with pytest.raises(MessageError, match="had another SHA-256 3 times"):
            fetch(home)
        assert home.spent.of_today("download_bytes") == MOST_WRONG * len(WRONG)
        (home.folder / "policy.toml").write_text("max_day_download_bytes = 450000")
        with pytest.raises(Forbidden, match="allows 450000 downloaded bytes a day"):
            fetch(home)
        assert home.spent.of_today("download_bytes") == 4 * len(WRONG)


def test_a_download_that_is_cut_counts_what_arrived(tmp_path: Path) -> None:
    pieces = iter([WRONG[:60_000], b""])

    def answer(server: HostileServer, heard: Heard) -> Iterable[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(WRONG) + next(pieces)
        raise ValueError  # the connection ends

    with played(tmp_path, answer) as home:
        (home.folder / "policy.toml").write_text("max_day_download_bytes = 100000")
        connection = Connection(home, lambda line: connection.stopping.set())  # at the first failed attempt
        nothing: Any = None
        worker = Worker(connection, nothing, nothing, logging.getLogger(__name__), lambda: None)
        with closing(connection.gate), pytest.raises(Exception, match="the download was cut"):
            worker._fetch("run", "/v1/object", "0" * 64, len(WRONG), home.folder / "a.payload")
        assert home.spent.of_today("download_bytes") == 60_000


def test_outcomes_of_unknown_runs_make_no_folders_and_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "UNHEEDED_S", 0.0)
    known = list[dict[str, list[int]]]()
    polled, number = threading.Event(), itertools.count()

    def answer(server: HostileServer, heard: Heard) -> Iterable[bytes]:
        if heard.path != "/v1/work":
            return server.sign(heard, b"{}")
        known.append(json.loads(heard.body)["know"])
        if len(known) > 3:
            polled.set()
            return server.sign(heard, b'{"over": true}')
        decisions = [{"run": f"r{next(number)}", "ticket": 1, "counted": True} for _ in range(500)]
        decisions += [{"run": "r", "ticket": ticket, "counted": True} for ticket in range(3000)]
        return server.sign(
            heard, json.dumps({"decisions": decisions[:: 1 if len(known) == 1 else -1]}).encode()
        )

    with played(tmp_path, answer) as home:
        home.run("r")
        mine = population().client(0)
        client = Threaded(home, lambda plan: mine, learner)
        assert client.run() == "over"
        assert [sum(map(len, know.values())) for know in known] == [0, *3 * [MOST_DECISIONS]]
        assert [path.name for path in (home.folder / "runs").iterdir()] == ["r"]
        settled = [line for line in home.audit.lines() if line["what"] == "settled"]
        assert [len(line["counted"]) for line in settled] == 2 * [MOST_DECISIONS]
        assert home.audit.path.stat().st_size < 30_000


def test_what_a_server_sent_for_a_run_goes_when_the_next_one_opens(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        here.server.presence.hold_s = 0.1
        home = here.client_home(0)
        here.enter([0])
        runs = [here.lead(job(FED_AVG, 1, num_clients=1))]
        here.end(runs[0])
        here.wait_until(lambda: any("is completed" in line for line in here.said), "it does not hear the end")
        assert {path.suffix for path in home.list_downloads(runs[0])} == {"", ".payload"}
        runs.append(here.lead(job(FED_AVG, 1, num_clients=1)))
        here.end(runs[1])
        assert list(home.list_downloads(runs[0])) == []
        assert not list((home.folder / "runs" / runs[0]).glob("*.task"))
        assert {path.suffix for path in home.list_downloads(runs[1])} == {"", ".payload"}
