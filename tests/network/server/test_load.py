"""Thousands of waiting clients: their requests are read quickly and strictly, and leave nothing behind."""

import asyncio
import gc
import re
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from federation import FED_AVG, federation, job
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hanse.network.client.client import Client
from hanse.network.protocol import certificates
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity, Verifier, public_key, sha256
from hanse.network.protocol.wire import Poll
from hanse.network.server.api import application
from hanse.network.server.https import FULL_COLLECTION
from hanse.network.server.server import Server
from hanse.network.server.sockets import Prompt

CLIENT = Identity.generate()
URL = "https://server/v1/work"
FIELDS = ("Content-Digest", "Signature-Input", "Signature")
PLACES = ["method", "url", *(name.lower() for name in FIELDS)]


def verifier() -> Verifier:
    key = public_key(CLIENT.public)
    return Verifier(lambda key_id: key if key_id == "c0" else None)


def signed(url: str = URL) -> dict[str, str]:
    """A request, by its places."""
    headers = CLIENT.sign("c0", "POST", url, sha256(b"{}"))
    return {"method": "POST", "url": url, **{name.lower(): headers[name] for name in FIELDS}}


def judged(request: dict[str, str]) -> tuple[Any, Any]:
    """Read a request without and with the library; None: it is refused."""
    judge = verifier()
    headers = {name: text for name, text in request.items() if name not in ("method", "url")}
    try:
        plain = judge._plain(request["method"], request["url"], headers)
    except Refused:  # then the library must refuse it, too
        with pytest.raises(Refused):
            judge._by_library(request["method"], request["url"], headers)
        return None, None
    try:
        return plain, judge._by_library(request["method"], request["url"], headers)
    except Refused:
        return plain, None


@pytest.mark.parametrize("query", ["", "?", "?a=1", "?sha256=ab&size=3&offset=0", "?a=%20", "?a?b"])
@pytest.mark.parametrize("path", ["/v1/work", "/v1/runs/ab12/tickets/3/message", "/", "/a%20b", "/a//b"])
def test_what_is_signed_is_read_alike_without_the_library(path: str, query: str) -> None:
    plain, by_library = judged(signed(f"https://server{path}{query}"))
    assert by_library is not None
    assert plain in (None, by_library)
    if re.fullmatch("/v1.*", path) and query not in ("?", "?a=%20", "?a?b"):
        assert plain == by_library


@settings(max_examples=400, deadline=None)
@given(
    place=st.sampled_from(PLACES),
    at=st.integers(0, 400),
    cut=st.integers(0, 3),
    put=st.one_of(
        st.text(st.sampled_from('"();:=, \\\t\r\n?/&%#@A0é+-'), max_size=3),
        st.sampled_from(
            [";req", ";sf", '"@method"', "hanse=", ', other=("@path")', ";expires=1", ';alg="rsa"']
        ),
    ),
)
@example(place="url", at=8, cut=0, put=":")  # a host that is none
def test_what_is_taken_without_the_library_the_library_takes(place: str, at: int, cut: int, put: str) -> None:
    request = signed()
    text = request[place]
    at %= len(text) + 1
    changed = {**request, place: text[:at] + put + text[at + cut :]}
    plain, by_library = judged(changed)
    assert plain in (None, by_library)
    if plain is not None:  # the host is not signed, and a proxy may change it
        assert {**changed, "url": ""} == {**request, "url": ""}


def test_a_stranger_is_refused_in_the_librarys_words() -> None:
    request = signed()
    headers = {name: text for name, text in request.items() if name not in ("method", "url")}
    other = Identity.generate().sign("c0", "POST", URL, sha256(b"{}"))
    for wrong in ({**headers, "signature": other["Signature"]}, {**headers, "content-digest": ""}, {}):
        with pytest.raises(Refused, match="not signed by a member"):
            verifier().verify("POST", URL, wrong)


def test_a_key_that_nobody_has_never_reaches_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Verifier(lambda key_id: None)
    monkeypatch.setattr(judge, "_by_library", lambda *request: pytest.fail("the library was asked"))
    headers = {name: text for name, text in signed().items() if name not in ("method", "url")}
    with pytest.raises(Refused, match="not signed by a member: nobody here has its key id") as refused:
        judge.verify("POST", URL, headers)
    assert (refused.value.status, refused.value.code, refused.value.who) == (401, "unsigned", None)


def test_requests_leave_no_cycles_behind(tmp_path: Path) -> None:
    server = Server(tmp_path, "ab" * 32, stay=True)
    secret, _ = server.members.invite(number=0)
    server.members.join(Identity.derive(secret).public, CLIENT.public)
    app = application(server)
    body = Poll(wait_s=0.0).model_dump_json().encode()

    async def ask(path: str, key_id: str = "c0") -> int:
        url = f"https://server{path}"
        headers = {"Content-Length": str(len(body)), **CLIENT.sign(key_id, "POST", url, sha256(body))}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        }
        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            said.append(message)

        await app(scope, receive, send)
        return int(said[0]["status"])

    async def many() -> None:
        for _ in range(50):
            assert await ask("/v1/work") == 200

    gc.collect()
    gc.disable()
    try:
        asyncio.run(many())
        first = gc.collect()
        asyncio.run(many())
        asyncio.run(many())
        assert gc.collect() - first < 50  # of 100 requests: what event loops leave, and not requests
    finally:
        gc.enable()
        server.members.close()


def count_protocols() -> int:
    """Count the connections, open or not, that are still in memory."""
    return sum(type(one) is Prompt for one in gc.get_objects())


@pytest.mark.parametrize("is_broken_off", [False, True])
def test_a_connection_that_ended_leaves_memory_without_a_collection(
    tmp_path: Path, is_broken_off: bool
) -> None:
    with federation(tmp_path, stay=True) as here:
        context = certificates.pin(here.client_home(0).membership["certificate"])
        address = ("127.0.0.1", int(here.url.rpartition(":")[2]))
        gc.collect()
        gc.disable()
        try:
            before, patience = count_protocols(), time.monotonic() + 20.0
            for _ in range(5):
                plain = socket.create_connection(address)
                with context.wrap_socket(plain, server_hostname="127.0.0.1") as one:
                    one.sendall(b"GET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n")
                    answer = b""
                    while not answer.endswith(b"}"):
                        piece = one.recv(4096)
                        assert piece
                        answer += piece
                    assert count_protocols() > before  # or nothing is counted here
                    if is_broken_off:
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    else:
                        one.unwrap()
            while count_protocols() > before and time.monotonic() < patience:
                time.sleep(0.01)
            assert count_protocols() == before  # its buffers for TLS are 256 KB
        finally:
            gc.enable()


def test_full_collections_are_seldom_only_while_serving(tmp_path: Path) -> None:
    usual = gc.get_threshold()
    with federation(tmp_path):
        assert gc.get_threshold() == (*usual[:2], FULL_COLLECTION)
    assert gc.get_threshold() == usual


def test_a_server_that_goes_answers_who_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with federation(tmp_path, stay=True) as here:
        client = Client(here.client_home(0), lambda plan: [], lambda plan: None)
        waiting = threading.Thread(target=client.run, daemon=True)
        waiting.start()
        while not here.server.presence.waiting:
            waiting.join(0.01)
        here.server.stop()
        here.server.presence.hang_up()
        while here.server.presence.waiting:
            waiting.join(0.01)
        client.stop()
    waiting.join(60.0)
    assert not waiting.is_alive()
    assert "Cancel" not in caplog.text


def test_a_client_forgets_the_tickets_whose_verdict_it_knows(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 3))
        here.enter()
        here.end(run)
        for thread in here.threads:
            thread.join(60.0)
        assert [client._tickets.open for client in here.clients] == [set()] * len(here.clients)
