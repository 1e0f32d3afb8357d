"""A message above its limit is refused before any of it is stored; one at its limit is taken."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from federation import FED_AVG, job

from hanse.network.client import transport
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import spool, uploads
from hanse.network.protocol.certificates import make
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.spool import Outgoing, hash_chunks
from hanse.network.protocol.wire import Poll, Received
from hanse.network.server import client_routes, requests
from hanse.network.server.api import application
from hanse.network.server.mailbox import Offer
from hanse.network.server.run_thread import RunThread
from hanse.network.server.server import Server

LIMIT, TICKET = 2500, 7


class Direct(httpx.BaseTransport):
    """Hands requests to a server in this process."""

    def __init__(self, server: Server) -> None:
        self._asgi = httpx.ASGITransport(application(server))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            sent = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
            answer = await self._asgi.handle_async_request(sent)
            stream = httpx.ByteStream(await answer.aread())
            return httpx.Response(answer.status_code, headers=answer.headers, stream=stream)

        return asyncio.run(ask())


@dataclass
class Offered:
    """A ticket that a client holds, at a server that leads a run by nobody; no socket is between the two."""

    server: Server
    led: RunThread
    link: ServerLink
    folder: Path

    def spooled(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("server/runs/*/spool/*"))

    def message(self, data: bytes) -> Outgoing:
        return Outgoing.write(self.folder, TICKET, [data])

    def upload(self, data: bytes) -> None:
        self.link.upload(self.led.name, TICKET, self.message(data))

    def refused(self, data: bytes) -> tuple[int, str]:
        with pytest.raises(Refused) as caught:
            self.upload(data)
        return caught.value.status, caught.value.code


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Offered]:
    monkeypatch.setattr(RunThread, "start", lambda self: None)
    server, client = Server(tmp_path / "server", "ab" * 32, stay=True), Identity.generate()
    secret, _ = server.members.invite(number=0)
    server.members.join(Identity.derive(secret).public, client.public)
    led = server.run(server.lead(job(FED_AVG, 1)))
    led.mailbox.open()
    led.mailbox.post([Offer(TICKET, 0, b"task", "00" * 32, 1, LIMIT, "local_sgd")])
    pem = make(tmp_path / "certificate", ("server",))[0].read_text()
    with closing(ServerLink("https://server", pem, client, "c0", server.identity.public)) as link:
        link._http.close()
        link._http = httpx.Client(base_url=link.url, transport=Direct(server))
        yield Offered(server, led, link, tmp_path)
    server.members.close()


@pytest.fixture(params=[None, 1000], ids=["one chunk", "many chunks"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (spool, transport, requests, client_routes):
        if request.param is not None:
            monkeypatch.setattr(module, "CHUNK_BYTES", request.param)


@pytest.mark.usefixtures("chunked")
def test_one_byte_more_than_the_limit(offered: Offered) -> None:
    assert offered.refused(bytes(LIMIT + 1)) == (413, "too-large")
    assert offered.spooled() == []
    assert offered.led.spool.tickets() == {}
    why = f"refused: a message of {LIMIT + 1} bytes; at most {LIMIT} are allowed"
    assert offered.led.mailbox.find_arrivals([TICKET]) == ([], {TICKET: why})


@pytest.mark.usefixtures("chunked")
def test_exactly_the_limit(offered: Offered) -> None:
    offered.upload(bytes(LIMIT))
    assert offered.spooled() == [f"{TICKET}.{hash_chunks([bytes(LIMIT)])}.message"]
    assert offered.led.mailbox.find_arrivals([TICKET]) == ([TICKET], {})
    offered.upload(bytes(LIMIT))  # a client whose answer was lost
    assert offered.refused(b"another message") == (409, "answered")
    assert offered.led.spool.read(TICKET) == bytes(LIMIT)


def test_a_client_is_heard_when_its_chunk_begins_and_when_it_ends(
    offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk may take longer than a client may be silent."""
    heard: list[str] = []
    write = uploads.Chunk.write
    monkeypatch.setattr(offered.server.presence, "hear", lambda number: heard.append(f"client {number}"))
    monkeypatch.setattr(uploads.Chunk, "write", lambda *given: heard.append("data") or write(*given))
    offered.upload(bytes(LIMIT))
    assert heard == ["client 0", "data", "client 0"]


def test_an_empty_message(offered: Offered) -> None:
    path = f"/v1/runs/{offered.led.name}/tickets/{TICKET}/message"
    with pytest.raises(Refused, match="a message of 0 bytes"):
        offered.link._send("PUT", path, b"", {"sha256": hash_chunks([]), "size": 0, "offset": 0})
    assert offered.spooled() == []


@pytest.mark.usefixtures("chunked")
def test_a_closed_ticket_takes_nothing(offered: Offered) -> None:
    offered.led.mailbox.close([TICKET])
    assert offered.refused(bytes(LIMIT)) == (410, "late")
    assert offered.spooled() == []


def test_a_run_that_is_being_resumed_takes_nothing_yet(offered: Offered) -> None:
    offered.led.mailbox.close([TICKET])
    offered.led.mailbox._open = False
    assert offered.refused(bytes(LIMIT)) == (503, "unavailable")


def test_a_message_that_is_not_what_its_name_says(offered: Offered) -> None:
    message = offered.message(bytes(LIMIT))
    message.sha256 = "cd" * 32
    with pytest.raises(Refused, match="not what its SHA-256 says"):
        offered.link.upload(offered.led.name, TICKET, message)
    assert offered.spooled() == []
    assert offered.led.mailbox.find_arrivals([TICKET]) == ([], {})


def test_a_message_that_is_whole_but_was_not_kept_is_kept_when_its_state_is_asked_for(
    offered: Offered,
) -> None:
    """A server that was killed before it could keep it finds all of its bytes."""
    message = offered.message(b"whole")
    name = f"{TICKET}.{message.sha256}.{message.size}.upload"
    (next(offered.folder.glob("server/runs/*/spool")) / name).write_bytes(b"whole")
    path = f"/v1/runs/{offered.led.name}/tickets/{TICKET}/message"
    whole = {"sha256": message.sha256, "size": message.size}
    received = offered.link.ask("GET", path, Received, params=whole)
    assert received == Received(offset=message.size, durable=True)
    assert offered.led.mailbox.has(TICKET)


@pytest.mark.parametrize("limit", ["JSON_BYTES", "CHUNK_BYTES"])
def test_a_body_above_the_limit_of_all_bodies(
    limit: str, offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = Poll(wait_s=0.0)
    size = len(body.model_dump_json())
    monkeypatch.setattr(requests, limit, size)
    offered.link.plain("POST", "/v1/work", body)
    monkeypatch.setattr(requests, limit, size - 1)
    with pytest.raises(Refused, match=f"a body of {size} bytes; at most {size - 1} are allowed") as caught:
        offered.link.plain("POST", "/v1/work", body)
    assert (caught.value.status, caught.value.code) == (413, "too-large")


def test_what_is_here_of_a_message_is_read_apart_from_all_else(
    offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a start that takes seconds, if the message is large."""
    folder = offered.folder / "server" / "runs" / offered.led.name / "spool"
    sha256, (seen, go), readers = "ab" * 32, (threading.Event(), threading.Event()), list[str]()
    (folder / f"{TICKET}.{sha256}.2000.upload").write_bytes(bytes(1000))
    read = uploads.read_blocks

    def read_slowly(path: Path) -> Iterator[bytes]:
        readers.append(threading.current_thread().name)
        seen.set()
        assert go.wait(60.0)
        return read(path)

    monkeypatch.setattr(uploads, "read_blocks", read_slowly)
    asked = f"/v1/runs/{offered.led.name}/tickets/{TICKET}/message?sha256={sha256}&size=2000"
    found: list[Received] = []
    client = threading.Thread(
        target=lambda: found.append(offered.link.ask("GET", asked, Received)), name="the event loop"
    )
    client.start()
    assert seen.wait(60.0)
    assert offered.led.spool.offset(TICKET + 1, "cd" * 32, 10) == 0  # another client is not kept waiting
    go.set()
    client.join(60.0)
    assert found[0].offset == 0  # it was no whole chunk
    assert readers != ["the event loop"]
    assert len(readers) == 1
