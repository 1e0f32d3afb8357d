"""Answers: refusals, files, and the server's signature on whatever is small."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from hanse.core import HanseError
from hanse.network.protocol.asked import Asked
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.wire import Problem
from hanse.network.server.requests import VERIFIED, server_of

__all__ = ["Signing", "add_refusals", "send_file"]

logger = logging.getLogger(__name__)

INNOCENT = frozenset({"offset", "busy", "unavailable", "disk-full", "no-run", "no-object"})
"""Codes of refusals for which the client is not to blame."""


class Signing:
    """Signs small answers to verified requests. Downloads are checked against their SHA-256 instead.

    `requests.verify` says which request was verified; the answer to any other is not signed.
    """

    def __init__(self, app: ASGIApp, identity: Identity) -> None:
        self._app, self._identity = app, identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun: list[AsgiMessage] = []
        verified: list[Asked] = []
        scope[VERIFIED] = verified

        async def sign_and_send(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            if begun:
                start = begun.pop()
                if verified and not message.get("more_body"):
                    signed = self._identity.sign_answer(
                        start["status"], message.get("body", b""), verified[0]
                    )
                    fields = [
                        (name.lower().encode(), value.encode("latin-1")) for name, value in signed.items()
                    ]
                    start["headers"] = [*start["headers"], *fields]
                await send(start)
            await send(message)

        await self._app(scope, receive, sign_and_send)


# -- refusals ----------------------------------------------------------------------------------


def add_refusals(app: FastAPI) -> None:
    """Makes an application answer errors with a `Problem`."""
    app.add_exception_handler(Refused, _answer_refusal)
    app.add_exception_handler(HanseError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_unknown)


async def _answer_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    server = server_of(request)
    who = getattr(request.state, "who", None) or error.who
    logger.debug("event=refused member=%r status=%d code=%s", who, error.status, error.code)
    server.counts["refused", error.code] += 1
    if who is None:
        server.strangers[error.code] += 1
    elif error.code not in INNOCENT or error.retry_s is not None:
        server.blame(who, error)
    now = time.time() if error.code == "skewed" else None
    problem = Problem(code=error.code, why=error.why, offset=getattr(error, "offset", None), time=now)
    body = problem.model_dump(exclude_none=True)
    headers = {"Connection": "close"} if _is_unread(request) else {}
    if error.retry_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_s))
    return JSONResponse(body, error.status, headers=headers)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"code": "wrong", "why": str(error)}, 422)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    why = f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
    return await _answer_refusal(request, Refused(422, "wrong", why[:500]))


async def _answer_unknown(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = "method" if error.status_code == 405 else "no-path"
    answer = await _answer_refusal(request, Refused(error.status_code, code, error.detail))
    answer.headers.update(error.headers or {})
    return answer


def _is_unread(request: Request) -> bool:
    """Returns whether a body may still be on its way: then the connection ends, and the rest stays unread."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


# -- files -------------------------------------------------------------------------------------


def send_file(path: Path, sha256: str, request: Request) -> Response:
    """Answers with a file that never changes, from the byte that the client asks for. Raises: Refused."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise Refused(404, "no-object", "this object is no longer needed; ask for work again") from None
    headers = {
        "ETag": f'"{sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    start = _start_in(request.headers.get("range", ""), size)
    headers["Content-Length"] = str(size - start)
    if start:
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    return StreamingResponse(_read(path, start), 206 if start else 200, headers)


def _start_in(given: str, size: int) -> int:
    """Returns the beginning of an open range; 0 for any other range, which a server may ignore."""
    begin = given.removeprefix("bytes=").removesuffix("-")
    is_number = begin.isascii() and begin.isdigit() and len(begin) < 20  # int() refuses thousands of digits
    if given.startswith("bytes=") and given.endswith("-") and is_number:
        return int(begin) if int(begin) < size else 0
    return 0


async def _read(path: Path, start: int) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        while block := await asyncio.to_thread(file.read, 1 << 20):
            yield block
