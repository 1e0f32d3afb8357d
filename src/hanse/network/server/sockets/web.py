"""The web server: uvicorn's, with connections that this module accepts, counts and ends.

uvicorn bounds requests in flight (`limit_concurrency`) and idle connections (`timeout_keep_alive`). It knows
nothing of sockets that have not finished the TLS handshake, so these are counted here.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hanse.core import InvalidInput
from hanse.network.server.sockets.connections import Connections, OpenConnection

__all__ = ["Web", "bracket", "listen"]

logger = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
"""A connection ends if its TLS handshake takes longer."""

HEADERS_S = 20.0
"""A connection ends if the headers of a request have not arrived within so many seconds."""

LINGER_S = 0.5
"""The seconds that the last answer of a connection has to arrive."""

MAX_HEAD_BYTES = 64 * 1024
"""A connection ends if the headers of a request are longer."""

PAUSE_S = 0.2
"""The pause after a connection could not be accepted."""


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


def _do_nothing() -> None:
    """Does nothing, in place of the end of a connection that has ended."""


class Prompt(HttpToolsProtocol):
    """Ends connections whose headers arrive too slowly or are too long."""

    connection: OpenConnection
    """It is counted by its address, and by the member who sends requests, which find it in their state."""
    leave: Callable[[], None]
    """Called when it has ended."""
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self.connection
        self._await_head()

    def on_headers_complete(self) -> None:
        self._rest()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        self.leave()
        super().connection_lost(exc)
        self._part()

    def _part(self) -> None:
        """Ends timers and references in circles, so that TLS buffers are freed at once, uncollected."""
        self._unset_keepalive_if_required()  # uvicorn leaves it if the other side broke the connection off
        self.connection.end = _do_nothing
        self.cycle = None  # type: ignore[assignment]

    def _await_head(self) -> None:
        if self._timer is None:
            self._head_bytes = 0
            self._timer = self.loop.call_later(HEADERS_S, self.give_up)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def give_up(self) -> None:
        """Ends the connection at once."""
        self._rest()
        self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():  # a graceful end would wait for the other side
            self.loop.call_later(LINGER_S, self.transport.abort)


class Web(uvicorn.Server):
    """A uvicorn server whose connections are counted from the moment when they are accepted.

    Args:
      config: of uvicorn, with `http=Prompt`.
      connections: counts them.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self.connections = connections
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.servers = []
        for bound in sockets or ():
            bound.setblocking(False)
            self._begin(self._accept(bound))
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # nobody waits for an accept any more
        await super().shutdown(sockets)

    def _begin(self, work: Any) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, bound: socket.socket) -> None:
        """Accepts connections for ever, whatever happens to one of them, or to the system."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.connections.find_wait_s())  # the loop's other work goes on in any case
            try:
                accepted, address = await loop.sock_accept(bound)
                self._greet(accepted, str(address[0]))
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self.connections.end_one()
                logger.warning("event=not-accepted error=%s", error)
                await asyncio.sleep(PAUSE_S)

    def _greet(self, accepted: socket.socket, address: str) -> None:
        """Counts a connection, and begins its TLS handshake."""
        protocol = Prompt(self.config, self.server_state, self.lifespan.state)

        def end() -> None:
            if protocol.transport is None:
                shaking.cancel()
            else:
                protocol.give_up()

        def conclude(task: "asyncio.Task[None]") -> None:
            if protocol.transport is None:  # there was no handshake
                protocol.leave()
                accepted.close()

        connection = self.connections.enter(address, end)
        if connection is None:
            accepted.close()  # a client tries again
            return
        protocol.connection = connection
        protocol.leave = lambda: self.connections.leave(connection)
        shaking = self._begin(self._shake_hands(accepted, protocol))
        shaking.add_done_callback(conclude)

    async def _shake_hands(self, accepted: socket.socket, protocol: Prompt) -> None:
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=self.config.ssl,
                ssl_handshake_timeout=None if self.config.ssl is None else HANDSHAKE_S,
            )
        except OSError as error:  # also an error of TLS, or a deadline
            logger.debug("event=no-handshake address=%s error=%s", protocol.connection.address, error)
