"""Serves a server's HTTP interface on a port, and leads runs from beginning to end."""

import asyncio
import errno
import gc
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from threadpoolctl import threadpool_limits
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hanse.core import HanseError, InvalidInput, PartyId
from hanse.network.client.home import ClientHome
from hanse.network.client.own_imports import write_option
from hanse.network.protocol import certificates
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import PlanImport
from hanse.network.server.api import application
from hanse.network.server.job import RunJob
from hanse.network.server.server import Server
from hanse.network.server.upkeep import choose_runs, note_restoration

__all__ = ["join_line", "lead", "listen", "serving"]

HEADERS_S = 20.0
"""A connection ends if the headers of a request have not arrived within so many seconds."""

LINGER_S = 0.5
"""The seconds that the last answer of a connection has to arrive."""

MAX_HEAD_BYTES = 64 * 1024
"""A connection ends if the headers of a request are longer."""


FULL_COLLECTION = 1000
"""Collections of younger objects between two full ones, while serving. Python's own default is 10."""


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Makes full garbage collections rare while this is entered.

    5,000 clients that wait are a million objects, all of them new every 25 s: Python would search them
    every few seconds, for a second each, and find nothing, since requests leave no cycles behind.
    """
    youngest, younger, full = gc.get_threshold()
    gc.set_threshold(youngest, younger, FULL_COLLECTION)
    try:
        yield
    finally:
        gc.set_threshold(youngest, younger, full)


class _Prompt(HttpToolsProtocol):
    """Ends connections whose headers arrive too slowly or are too long."""

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._rest()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._timer is None:
            self._head_bytes = 0
            self._timer = self.loop.call_later(HEADERS_S, self._give_up)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._rest()
        self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():  # a graceful end would wait for the other side
            self.loop.call_later(LINGER_S, self.transport.abort)


def bracket(host: str) -> str:
    """Writes a host as URLs do: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def listen(host: str, port: int) -> socket.socket:
    """Makes a listening socket. Raises: InvalidInput: if the port is taken, or is not of this machine."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = (
            "another port" if is_port else "an address of this machine, such as 0.0.0.0 for all of its own"
        )
        why = (error.strerror or str(error)).partition(" (while")[0]
        raise InvalidInput(
            f"the server can't listen on {bracket(host)}:{port} ({why}); write {remedy}"
        ) from None


def _uvicorn(server: Server, certificate: Path, key: Path) -> uvicorn.Server:
    config = uvicorn.Config(
        application(server),
        http=_Prompt,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ciphers="ECDHE+AESGCM:ECDHE+CHACHA20",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


@contextmanager
def serving(
    server: Server, bound: socket.socket, host: str, certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Serves in a thread while this is entered, and yields the URL.

    Args:
      host: the name by which clients know the server.
      certificate: a certificate and its key; None: the server's own, which is made if it does not exist.
    """
    web = _uvicorn(server, *(certificate or certificates.make(server.home, (host,))))
    server.rotation.reload = lambda pem, key: web.config.ssl.load_cert_chain(pem, key)  # type: ignore[union-attr]
    thread = threading.Thread(target=web.run, kwargs={"sockets": [bound]}, name="https", daemon=True)
    thread.start()
    try:
        with _seldom_collecting():
            yield f"https://{bracket(host)}:{bound.getsockname()[1]}"
    finally:
        server.stop()
        web.should_exit = True
        server.presence.hang_up()
        thread.join(10.0)
        bound.close()
        server.members.close()


def join_line(url: str, token: str, party: PartyId | None, imports: Sequence[PlanImport] = ()) -> str:
    """Returns the command that an invited client types. `imports`: the modules that it needs."""
    home = "" if party is None else f" --home hanse-client-{party}"
    return f"hanse join {url} --token {token}{home} --data FILE{''.join(map(write_option, imports))}"


def lead(
    jobs: Sequence[RunJob],
    home: Path,
    address: tuple[str, int],
    public: tuple[str, int],
    *,
    certificate: tuple[Path, Path] | None = None,
    proxy_certificate: Path | None = None,
    fresh: bool = False,
    resume: str | None = None,
    stay: bool = False,
    say: Callable[[str], None] = print,
) -> str:
    """Leads runs with real parties until they have ended, and returns the status of the last one.

    An interrupted run of the same settings is resumed.

    Args:
      jobs: the runs.
      home: the folder where everything is kept; the operator's own key is in its folder "operator".
      address: to listen on; public: that clients connect to.
      certificate: a certificate and its key, as PEM files; None: the server's own.
      proxy_certificate: the certificate that clients see, if a proxy is in front of the server.
      fresh, resume: see `choose_runs`.
      stay: whether to go on serving when all runs have ended.
      say: called with lines for the operator.

    Raises:
      InvalidInput: if the address is taken.
      OtherRunOpen: if an interrupted run has other settings.
      HanseError: if a run could not go on, because too few clients came or no space is left on the disk.
    """
    chosen = choose_runs(home, jobs, fresh=fresh, resume=resume)
    bound = listen(*address)
    own = certificate or certificates.make(home, (public[0],))
    pem = (proxy_certificate or own[0]).read_text()
    server = Server(home, certificates.fingerprint(pem), stay=stay, say=say)
    url = f"https://{bracket(public[0])}:{public[1] or bound.getsockname()[1]}"
    with threadpool_limits(1), serving(server, bound, public[0], own):
        _appoint(server, url, pem)
        note_restoration(home, server.members.note, say)
        server.rotation.switched = lambda pem: _appoint(server, url, pem)
        names = [server.lead(job, run) for job, run in zip(jobs, chosen, strict=True)]
        for name in names:
            say(f"run {name} is served at {url}")
        needed = {one.name: one for job in jobs for one in job.plan.imports}
        for one in needed.values():
            say(
                f"each client needs a copy of its own of {_name_files(one)}; its owner is asked to approve it"
            )
        is_new = not all(server.runs.records(name) for name in names)  # then it waits for all to join
        num_clients = max(job.num_clients for job in jobs)
        _invite(server, url, num_clients, say, tuple(needed.values()), replace_departed=is_new)
        named = dict.fromkeys(party for job in jobs for party in job.parties)
        _invite_parties(server, url, tuple(named), say, tuple(needed.values()))
        try:
            while not server.done.wait(1.0):
                pass
        except KeyboardInterrupt:
            say("stopping; serve the same settings again to go on")
        stalled = [led for name in names if (led := server.run(name)).status == "interrupted"]
        server.stop()
        for name in names:
            led = server.run(name)
            say(f"run {name}: {led.status} {json.dumps(led.result) if led.result else led.reason}".rstrip())
            for found in led.result.get("findings", ()):
                say(f"run {name}: {found['text']}; {found['cure']}")
        if server.full:
            raise HanseError(
                f"no space is left at {home}: free some, and serve the same settings again. Nothing that was "
                "acknowledged is lost, and the clients wait until then"
            )
        if stalled:
            whys = "; ".join(f"run {led.name} was interrupted: {led.reason}" for led in stalled)
            raise HanseError(f"{whys}. Nothing is lost: serve the same settings again to go on")
        return server.run(names[-1]).status


def _appoint(server: Server, url: str, pem: str) -> None:
    """Makes the operator a member, with a client home of its own."""
    client_home = ClientHome(server.home / "operator")
    server.members.appoint("operator", "operator", client_home.identity.public)
    about = {"id": "operator", "role": "operator", "number": None, "name": "operator"}
    client_home.enter({"url": url, "certificate": pem, "server_key": server.identity.public, **about})


def _name_files(needed: PlanImport) -> str:
    others = [path for path in needed.files if path != needed.name]
    also = f" with {', '.join(others)}" if needed.kind == "file" and others else ""
    return f"{needed.name}{also}"


def _invite(
    server: Server,
    url: str,
    num_clients: int,
    say: Callable[[str], None],
    imports: Sequence[PlanImport] = (),
    *,
    replace_departed: bool = False,
) -> None:
    """Says the join line of each client that is missing.

    Args:
      replace_departed: whether others are invited under the numbers of those who left or were revoked.
    """
    here, _ = server.members.clients()
    taken = here if replace_departed else {member.number for member in server.members.all()}
    missing = [number for number in range(num_clients) if number not in taken]
    if missing:
        say(f"{len(here)} of {num_clients} clients have joined; each of these lines is good for one more:")
    for number in missing:
        secret, _ = server.members.invite(number=number)
        token = str(Token(server.fingerprint, secret, server.identity.public))
        say(f"  {join_line(url, token, number, imports)}")


def _invite_parties(
    server: Server,
    url: str,
    parties: Sequence[str],
    say: Callable[[str], None],
    imports: Sequence[PlanImport] = (),
) -> None:
    """Says the join line of each named party that no member plays now."""
    missing = [party for party in parties if party not in server.members.parties()]
    if missing:
        num_here = len(parties) - len(missing)
        say(f"{num_here} of {len(parties)} named parties have joined; these lines are for the others:")
    for party in missing:
        secret, _ = server.members.invite(party=party)
        token = str(Token(server.fingerprint, secret, server.identity.public))
        say(f"  {party}: {join_line(url, token, party, imports)}")
