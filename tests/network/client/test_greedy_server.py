"""A server that sends without end costs a client no more than its policy says, and no folders."""

import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from federation import FED_AVG, Threaded, federation, job, population
from learning import learner
from played import Heard, HostileServer
from test_kill import free_port

from hanse.core import InvalidInput, MessageError
from hanse.network.client import poller
from hanse.network.client.connection import Connection
from hanse.network.client.home import ClientHome
from hanse.network.client.poller import MOST_DECISIONS, MOST_POLLS, MUCH_BYTES, POLLS_PER_MESSAGE, Pace
from hanse.network.client.tickets import MOST_OPEN, Tickets
from hanse.network.client.worker import MOST_WRONG, Worker
from hanse.network.protocol.errors import Forbidden, NotSent, Refused
from hanse.network.protocol.spool import Outgoing
from hanse.network.protocol.wire import WorkOrder

WRONG = bytes(100_000)
ORDER = WorkOrder(
    run="r",
    ticket=1,
    task="",
    payload="0" * 64,
    payload_bytes=1,
    plan="0" * 64,
    plan_bytes=1,
    limit_bytes=1,
    work="local_sgd",
)


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


@contextmanager
def at_work(home: ClientHome) -> Iterator[Worker]:
    """The part of a client that works. It ends at its first attempt that the server does not answer."""

    def hear(line: str) -> None:
        if "trying again" in line and "had another" not in line and "its SHA-256" not in line:
            connection.stopping.set()

    connection, roles = Connection(home, hear), MagicMock()
    worker = Worker(connection, Tickets(), roles, logging.getLogger(__name__), lambda: None)
    with closing(connection.gate):
        yield worker


def fetch(home: ClientHome) -> None:
    """Downloads what should be another object."""
    with at_work(home) as worker:
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
        with pytest.raises(Exception, match="the download was cut"):
            fetch(home)
        assert home.spent.of_today("download_bytes") == 60_000


def test_a_message_that_is_asked_again_counts_again(tmp_path: Path) -> None:
    said = itertools.chain(
        [{"offset": 0, "durable": False}], itertools.repeat({"offset": 0, "durable": True})
    )

    def answer(server: HostileServer, heard: Heard) -> Iterable[bytes]:
        chunks.append(len(heard.body))
        return server.sign(heard, json.dumps(next(said)).encode())

    chunks = list[int]()
    with played(tmp_path, answer) as home:
        message = Outgoing.write(home.folder, 1, [bytes(1000)])
        home.spent.add(upload_bytes=1000)  # when it was computed
        with at_work(home) as worker, pytest.raises(Refused, match="no chunk at 0 of 1000, or it was sent"):
            worker._upload(ORDER, message, 1000)  # its server asks for one chunk again and again
        assert (chunks, home.spent.of_today("upload_bytes")) == ([1000], 1000)
        (home.folder / "policy.toml").write_text("max_day_upload_bytes = 3500")
        with at_work(home) as worker:
            for _ in range(2):
                worker._upload(ORDER, message, 0)
            with pytest.raises(Forbidden, match="allows 3500 uploaded bytes a day"):
                worker._upload(ORDER, message, 0)
        assert (chunks, home.spent.of_today("upload_bytes")) == ([1000] * 3, 3000)


def test_attempts_without_a_connection_count_nothing(tmp_path: Path) -> None:
    with played(tmp_path, lambda server, heard: []) as home:
        message = Outgoing.write(home.folder, 1, [bytes(1000)])
    home.amend(url=f"https://127.0.0.1:{free_port()}")
    home.spent.add(upload_bytes=1000)  # when it was computed
    (home.folder / "policy.toml").write_text("max_day_upload_bytes = 2000")
    for counted_bytes in (1000, 0, 0):
        with at_work(home) as worker, pytest.raises(NotSent, match="can't be reached"):
            worker._upload(ORDER, message, counted_bytes)
        assert home.spent.of_today("upload_bytes") == 1000


def test_few_orders_wait_at_a_time() -> None:
    tickets = Tickets()
    orders = [ORDER.model_copy(update={"ticket": number}) for number in range(MOST_OPEN + 2)]
    for order in orders:
        tickets.take(order)
    assert tickets.open == {("r", number) for number in range(MOST_OPEN)}
    tickets.give_up(orders[0])
    tickets.take(orders[-1])
    assert ("r", MOST_OPEN + 1) in tickets.open


def test_polls_slow_down_unless_messages_are_sent() -> None:
    clock = [0.0]
    pace = Pace(lambda: clock[0])
    assert [pace.pause_s(0) for _ in range(MOST_POLLS)] == [0.0] * MOST_POLLS
    assert [pace.pause_s(0) for _ in range(2)] == [1.0, 2.0]
    clock[0] += 5.0
    assert [pace.pause_s(0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    assert [pace.pause_s(1) for _ in range(5)] == [0.0] * (POLLS_PER_MESSAGE - 1) + [1.0]
    clock[0] += 1e6
    assert sum(pace.pause_s(1) > 0 for _ in range(MOST_POLLS + 1)) == 1


def test_answers_that_are_long_count_as_downloads_and_say_little(tmp_path: Path) -> None:
    number = itertools.count()

    def answer(server: HostileServer, heard: Heard) -> Iterable[bytes]:
        if heard.path != "/v1/work":
            return server.sign(heard, b"{}")
        ended = {f"{next(number)}{'x' * 100}": "failed" * 20 for _ in range(200)}
        return server.sign(heard, json.dumps({"ended": ended, "why": "x" * MUCH_BYTES}).encode())

    with played(tmp_path, answer) as home:
        (home.folder / "policy.toml").write_text("max_day_download_bytes = 250000")

        def hear(line: str) -> None:
            said.append(line)
            if "asking again in 60 s" in line:
                client.stop()

        said = list[str]()
        client = Threaded(home, lambda plan: [], learner, hear)
        assert client.run() == "stopped"
        polls = next(number) // 200
        assert polls == 2
        assert home.spent.of_today("download_bytes") > polls * MUCH_BYTES
        assert len([line for line in said if line.startswith("run ")]) == polls * poller.MOST_ENDED
        assert max(map(len, said)) < 250


def test_outcomes_of_unknown_runs_make_no_folders_and_are_few(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("pem", ["junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_ends_a_client_and_is_not_kept(pem: str, tmp_path: Path) -> None:
    def answer(server: HostileServer, heard: Heard) -> Iterable[bytes]:
        said = {"certificate": pem} if heard.path == "/v1/work" else {}
        return server.sign(heard, json.dumps(said).encode())

    with played(tmp_path, answer) as home:
        before = home.membership
        with pytest.raises(InvalidInput, match="is not a certificate; give"):
            Threaded(home, lambda plan: None, learner).run()
        assert ClientHome(home.folder).membership == before
        ClientHome(home.folder).link().close()  # it can begin again
