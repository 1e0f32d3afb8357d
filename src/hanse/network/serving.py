"""Puts a server on a port, and takes it down again."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hanse.core.errors import InvalidInput
from hanse.network import certificates
from hanse.network.server import Server, application

__all__ = ["listen", "serving"]

HEADERS_S = 20.0
"""Headers that have not arrived by then are given up, however slowly they drip."""


class _Prompt(H11Protocol):
    """Ends connections that begin a request and don't get on with it."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._wait()
        elif self.conn.their_state is not h11.IDLE:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEADERS_S, self._give_up)

    def _rest(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: InvalidInput: if the port is taken."""
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise InvalidInput(
            f"{host}:{port} can't be listened on ({error.strerror}); write another port"
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
        h11_max_incomplete_event_size=16 * 1024,
    )
    return uvicorn.Server(config)


@contextmanager
def serving(server: Server, bound: socket.socket, hosts: tuple[str, ...]) -> Iterator[str]:
    """Serves in a thread while this is entered: the URL."""
    certificate, key = certificates.make(server.home, hosts)
    web = _uvicorn(server, certificate, key)
    thread = threading.Thread(target=web.run, kwargs={"sockets": [bound]}, name="https", daemon=True)
    thread.start()
    try:
        yield f"https://{hosts[0]}:{bound.getsockname()[1]}"
    finally:
        server.stop()
        web.should_exit = True
        thread.join(10.0)
        bound.close()
        server.members.close()
