"""The listener for health and metrics: plain HTTP, on an address of its own, in a thread of its own.

The port for clients stays closed to strangers, and a server whose event loop is busy still answers here.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import Receive, Scope, Send

from hanse.network.server.monitoring.health import check_ready
from hanse.network.server.monitoring.metrics import Meter
from hanse.network.server.server import Server
from hanse.network.server.sockets import Connections, Prompt, Web

__all__ = ["monitor"]

MOST_CONNECTIONS = 64
TEXT, JSON = b"text/plain; version=0.0.4; charset=utf-8", b"application/json"


class _Pages:
    """The pages: /healthz, /readyz and /metrics."""

    def __init__(self, server: Server, meter: Meter) -> None:
        self._server, self._meter = server, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, kind, body = self._answer(scope["method"], scope["path"])
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        if method not in ("GET", "HEAD"):
            return 405, JSON, _write(code="method", why="these pages can only be read")
        match path:
            case "/healthz":
                return 200, JSON, _write(code="alive")
            case "/readyz":
                found = check_ready(self._server)
                if found is None:
                    return 200, JSON, _write(code="ready")
                return 503, JSON, _write(code=found[0], why=found[1])
            case "/metrics":
                return 200, TEXT, self._meter.write()
        return 404, JSON, _write(code="no-path", why="there are /healthz, /readyz and /metrics")


def _write(**said: str) -> bytes:
    return json.dumps(said).encode() + b"\n"


@contextmanager
def monitor(server: Server, bound: socket.socket, meter: Meter) -> Iterator[None]:
    """Shows health and metrics on a bound socket while this is entered."""
    config = uvicorn.Config(
        _Pages(server, meter),
        http=Prompt,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    web = Web(config, Connections(MOST_CONNECTIONS))
    thread = threading.Thread(target=web.run, kwargs={"sockets": [bound]}, name="monitoring", daemon=True)
    thread.start()
    try:
        yield
    finally:
        web.should_exit = True
        thread.join(10.0)
        bound.close()
