"""Messages of hostile clients and strangers are refused and reported, and the round goes on."""

import os
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from federation import FED_AVG, NUM_CLIENTS, InThread, federation, job, simulated
from test_kill import Process, free_port

from hanse.core.exchange import Message, pack, unpack
from hanse.network.client import transport
from hanse.network.client.client import Client
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import spool
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity, Verifier, content_digest, public_key, sha256
from hanse.network.protocol.spool import Outgoing, hash_chunks
from hanse.network.protocol.wire import WIRE, About, News, Poll, Received
from hanse.network.server import client_routes, requests
from hanse.network.server.sockets import web as serving
from hanse.simulation import Devices
from hanse.transforms import clip, deflate

LIAR = NUM_CLIENTS - 1


def changed(change: Callable[[dict[str, Any], Any], Any]) -> Callable[[bytes], bytes]:
    """A message whose update or weight is another."""

    def lie(data: bytes) -> bytes:
        message: Message = unpack(data, Message)
        part: Any = message.parts["update"]
        values = {name: v.copy() for name, v in part.values.items()}
        return pack(replace(message, parts={"update": change(values, part) or replace(part, values=values)}))

    return lie


def put(value: float) -> Callable[[bytes], bytes]:
    return changed(lambda values, part: values["weights"].__setitem__((0, 0), value))


LIES: dict[str, Callable[[bytes], bytes]] = {
    "wrong names": changed(lambda values, part: values.update(extra=values.pop("bias"))),
    "shape": changed(lambda values, part: values.update(bias=np.zeros(11, values["bias"].dtype))),
    "dtype": changed(lambda values, part: values.update(bias=values["bias"].astype(np.int64))),
    "not finite": put(np.nan),
    "is not finite": put(np.inf),
    "weight 1000000000000.0": changed(lambda values, part: replace(part, weight=1e12)),
    "weight -1": changed(lambda values, part: replace(part, weight=-1.0)),
    "weight nan": changed(lambda values, part: replace(part, weight=float("nan"))),
    "weight True": changed(lambda values, part: replace(part, weight=True)),
    "of which": lambda data: data[:-9],
    "a header of": lambda data: b"\xff" * 8 + data[8:],
    "too-large": lambda data: data + bytes(200_000),
    "under ticket": lambda data: pack(replace(unpack(data, Message), ticket=10**6)),
    "where a Message is needed": lambda data: pack(1),
    "the parts": lambda data: pack(replace(unpack(data, Message), parts={})),
    "the parts 3": lambda data: pack(replace(unpack(data, Message), parts=3)),
}


class LyingBackend(InThread):
    """Follows the protocol, except that its messages are not what it computed."""

    lies: ClassVar[Iterator[Callable[[bytes], bytes]]] = iter(())

    def compute(self, *ticket: Any) -> Any:
        message, fork = super().compute(*ticket)
        return next(self.lies)(message), fork


class Liar(Client):
    """A member that lies."""

    backend = LyingBackend


class Without(Devices):
    """Devices of which one always drops out."""

    def duration_s(self, party: Any, key: Any) -> float | None:
        return None if party == LIAR else 1.0


def test_a_liar_is_named_each_time_and_the_model_is_that_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LyingBackend, "lies", iter(LIES.values()))
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, len(LIES)))
        here.enter(range(LIAR))
        here.enter([LIAR], kind=Liar)
        result = here.end(run, 60, "incomplete")
        assert result["params_sha256"] == simulated(FED_AVG, len(LIES), Without())
        assert [r.abandoned for r in here.records] == [None] * (len(LIES) + 1)
        assert [r.usage.dropped for r in here.records] == [0] + [1] * len(LIES)
        blamed = [line for line in here.events().splitlines() if line.startswith(f"client {LIAR}: run")]
        kinds = [why for why in LIES if why != "is not finite"]  # counted with the event of "not finite"
        for why, line in zip(kinds, blamed, strict=True):
            assert why in line or (why == "too-large" and "at most" in line)
            assert ("(and 1 more of this kind)" in line) == (why == "not finite")


def test_a_weight_of_zero_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = changed(lambda values, part: replace(part, weight=0.0))
    monkeypatch.setattr(LyingBackend, "lies", iter([nothing, nothing]))
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 2))
        here.enter(range(LIAR))
        here.enter([LIAR], kind=Liar)
        result = here.end(run)
        assert result["params_sha256"] == simulated(FED_AVG, 2, Without())
        assert [r.usage.counted for r in here.records] == [0, NUM_CLIENTS, NUM_CLIENTS]


def test_a_client_that_skips_clipping_is_named_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unclip(values: dict[str, Any], part: Any) -> Any:
        return replace(part, values={name: 100 * value for name, value in part.values.items()})

    monkeypatch.setattr(LyingBackend, "lies", iter([changed(unclip)] * 2))
    algorithm = replace(FED_AVG, uplink=(clip(0.01),))
    with federation(tmp_path) as here:
        run = here.lead(job(algorithm, 2))
        here.enter(range(LIAR))
        here.enter([LIAR], kind=Liar)
        result = here.end(run, 60, "incomplete")
        assert result["params_sha256"] == simulated(algorithm, 2, Without())
        blamed = [line for line in here.events().splitlines() if line.startswith(f"client {LIAR}: run")]
        assert len(blamed) == 2
        assert all(
            "'update': its norm is 1" in line or "'update': its norm is 0.9" in line for line in blamed
        )
        assert all("; at most 0.01 is allowed" in line for line in blamed)


def coded(packed: bytes) -> Callable[[bytes], bytes]:
    """Other bytes in place of what was packed without loss."""
    return changed(lambda values, part: values.update(packed=np.frombuffer(packed, np.uint8)))


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "are not exactly": coded(zlib.compress(bytes(1 << 20), wbits=-15)),
    "not packed by deflate()": coded(b"\xff" * 100),
    "at most": coded(bytes(1 << 20)),
}


def test_nothing_is_unpacked_that_is_larger_than_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LyingBackend, "lies", iter(BOMBS.values()))
    algorithm = replace(FED_AVG, uplink=(deflate(),))
    with federation(tmp_path) as here:
        run = here.lead(job(algorithm, len(BOMBS)))
        here.enter(range(LIAR))
        here.enter([LIAR], kind=Liar)
        assert here.end(run, status="incomplete")["params_sha256"] == simulated(
            algorithm, len(BOMBS), Without()
        )
        blamed = [line for line in here.events().splitlines() if line.startswith(f"client {LIAR}: run")]
        assert len(blamed) == len(BOMBS)
        for why, line in zip(BOMBS, blamed, strict=True):
            assert why in line


# -- requests ------------------------------------------------------------------------------------


def code(act: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as caught:
        act()
    return caught.value.code


def ask(link: ServerLink) -> News:
    return link.ask("POST", "/v1/work", News, Poll(wait_s=0))


def test_only_members_are_heard_once_and_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport.ServerLink, "_set_clock", lambda self, response: None)
    with federation(tmp_path, stay=True) as here, ExitStack() as stack:

        def linked(identity: Identity, key_id: str) -> ServerLink:
            return stack.enter_context(closing(ServerLink(here.url, pem, identity, key_id)))

        client_home = here.client_home(0)
        pem = client_home.membership["certificate"]  # type: ignore[index]
        link = linked(client_home.identity, "c0")
        assert ask(link).work == []
        assert code(lambda: ask(linked(Identity.generate(), "c0"))) == "unsigned"
        assert code(lambda: ask(linked(client_home.identity, "c77"))) == "unsigned"
        late = Identity.load(client_home.folder / "key.pem")
        late.offset_s = -120.0
        assert code(lambda: ask(linked(late, "c0"))) == "skewed"
        late.offset_s = 120.0
        assert code(lambda: ask(linked(late, "c0"))) == "skewed"
        assert code(lambda: link.plain("GET", "/v1/status")) == "role"
        assert code(lambda: link.plain("POST", "/v1/invitations")) == "role"
        signed = client_home.identity.sign("c0", "POST", here.url + "/v1/work", sha256(b"{}"))
        monkeypatch.setattr(link, "_sign", lambda *about: signed)
        poll = Poll(wait_s=0)
        assert code(lambda: link.ask("POST", "/v1/work", News, poll)) == "corrupted"  # a body of its own
        assert code(lambda: link.ask("POST", "/v1/work", News, poll)) == "replayed"
        here.server.part("c0", "revoked")
        assert code(lambda: ask(linked(client_home.identity, "c0"))) == "revoked"
        assert "client 0: refused: this request was received before (replayed)" in here.events()
        assert here.server.strangers["unsigned"] >= 2


def test_a_signature_fits_one_request_only() -> None:
    clock = [1000.0]
    identity = Identity.generate()
    verifier = Verifier(lambda key_id: public_key(identity.public), lambda: clock[0])
    identity.offset_s = 1000.0 - time.time() + 0.5
    headers = {
        k.lower(): v for k, v in identity.sign("c0", "PUT", "https://a/v1/x?y=1", sha256(b"z")).items()
    }
    for method, url in (
        ("POST", "https://a/v1/x?y=1"),
        ("PUT", "https://a/v1/x?y=2"),
        ("PUT", "https://a/v1/w?y=1"),
    ):
        with pytest.raises(Refused, match="not signed"):
            verifier.verify(method, url, headers)
    other = {**headers, "content-digest": content_digest(sha256(b"other"))}
    with pytest.raises(Refused, match="not signed"):
        verifier.verify("PUT", "https://a/v1/x?y=1", other)
    assert verifier.verify("PUT", "https://server/v1/x?y=1", headers).key_id == "c0"
    with pytest.raises(Refused, match="received before"):
        verifier.verify("PUT", "https://a/v1/x?y=1", headers)
    clock[0] += 61
    with pytest.raises(Refused, match="61 s behind"):
        verifier.verify("PUT", "https://a/v1/x?y=1", headers)


def test_nobody_answers_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (spool, requests, client_routes, transport):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    data = os.urandom(2500)

    def out(*pieces: bytes) -> Outgoing:
        return Outgoing.write(tmp_path, 0, pieces)

    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 1))
        links = [here.client_home(n).link() for n in range(NUM_CLIENTS)]
        here.show_up()
        work = links[0].ask("POST", "/v1/work", News, Poll(wait_s=20)).work[0]
        assert code(lambda: links[1].upload(run, work.ticket, out(b"mine"))) == "not-yours"
        assert code(lambda: links[0].upload(run, work.ticket + 1000, out(b"mine"))) == "late"
        assert code(lambda: links[0].upload("nowhere", work.ticket, out(b"mine"))) == "no-run"
        path = f"/v1/runs/{run}/tickets/{work.ticket}/message"
        whole = {"sha256": hash_chunks([data]), "size": len(data)}

        def put(chunk: bytes, offset: int) -> Received:
            answer = links[0]._send("PUT", path, chunk, {**whole, "offset": offset})
            return Received.model_validate_json(answer.content)

        assert put(data[:1000], 0) == Received(offset=1000, durable=False)
        for offset, end in ((500, 1500), (1000, 1500), (-1000, 0), (2000, 2400), (3000, 3000)):
            assert code(lambda at=offset, to=end: put(data[at:to], at)) == "wrong"  # type: ignore[misc]
        assert code(lambda: put(data[2000:], 2000)) == "offset"
        assert links[0].ask("GET", path, Received, params=whole) == Received(offset=1000, durable=False)
        assert put(bytes(1000), 1000) == Received(offset=2000, durable=False)
        assert code(lambda: put(data[2000:], 2000)) == "corrupted"
        assert links[0].ask("GET", path, Received, params=whole) == Received(offset=0, durable=False)
        links[0].upload(run, work.ticket, out(data[:700], data[700:]))
        links[0].upload(run, work.ticket, out(data))
        assert code(lambda: links[0].upload(run, work.ticket, out(b"other"))) == "answered"
        for link in links:
            link.close()
        assert "client 1: refused" in here.events()


def tls(port: int) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port)))


def memory_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads memory from /proc")
def test_junk_of_strangers_costs_no_memory(tmp_path: Path) -> None:
    port = free_port()
    process = Process("serve", tmp_path, port, "fed_avg", 1)
    try:
        process.until("run")
        before = memory_kb(process.process.pid)
        most = before
        for head in ("Content-Length: 1073741824\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n", "X: "):
            with tls(port) as line:
                line.sendall(f"POST /v1/work HTTP/1.1\r\nHost: a\r\n{head}".encode())
                block, sent = b"a" * (1 << 20), 0
                try:
                    while sent < 1 << 30:
                        line.sendall(block)
                        sent += len(block)
                        most = max(most, memory_kb(process.process.pid))
                except OSError:
                    pass  # it hung up, as it should
        assert most - before < 16 * 1024
        url = f"https://127.0.0.1:{port}"
        with closing(ServerLink(url, certificate(tmp_path), Identity.generate(), "c0")) as link:
            assert link.ask("GET", "/v1/about", About).wire == [WIRE]
    finally:
        process.kill()


def certificate(folder: Path) -> str:
    return (folder / "server" / "certificate.pem").read_text()


def test_whoever_dribbles_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEADERS_S", 0.5)
    with federation(tmp_path) as here, tls(int(here.url.rpartition(":")[2])) as line:
        line.settimeout(60.0)
        began = time.monotonic()
        line.sendall(b"GET /v1/about HTTP/1.1\r\n")
        with pytest.raises((OSError, AssertionError)):  # noqa: PT012
            while time.monotonic() - began < 60:
                line.sendall(b"X-A: b\r\n")
                time.sleep(0.05)
                assert not line.pending() or line.recv(1)
        monkeypatch.undo()  # an honest client may be slow
        assert here.client_home(0).membership


def test_a_member_who_dribbles_is_cut_off_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 1))
        client_homes = [here.client_home(n) for n in range(NUM_CLIENTS)]
        here.show_up()
        with closing(client_homes[0].link()) as link:
            ticket = link.ask("POST", "/v1/work", News, Poll(wait_s=20)).work[0].ticket
        whole = f"sha256={hash_chunks([b'whole'])}&size=5&offset=0"
        path = f"/v1/runs/{run}/tickets/{ticket}/message?{whole}"
        headers = client_homes[0].identity.sign("c0", "PUT", here.url + path, sha256(b"whole"))
        lines = [f"PUT {path} HTTP/1.1", "Host: a", "Content-Length: 5", *map(": ".join, headers.items())]
        with tls(int(here.url.rpartition(":")[2])) as line:
            line.settimeout(60.0)
            monkeypatch.setattr(requests, "BODY_S", 0.3)
            line.sendall("\r\n".join([*lines, "", "wh"]).encode())
            answer = b"".join(iter(lambda: line.recv(4096), b""))
        monkeypatch.undo()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"slow"' in answer
        assert "client 0: refused: the body did not arrive" in here.events()
        with closing(
            client_homes[0].link()
        ) as link:  # what it had sent does not count, and it may begin again
            link.upload(run, ticket, Outgoing.write(tmp_path, 0, [b"whole"]))
