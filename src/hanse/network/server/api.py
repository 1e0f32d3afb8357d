"""The server's HTTP interface, in one event loop.

A request is refused by its headers alone unless a member signed it and its announced size is within
bounds; only then is its body read, and parsed only after its digest was checked.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from http_message_signatures import HTTPMessageSignaturesException
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from hanse.core import HanseError
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity, Speaker, Verifier, check_proof
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import (
    CHUNK_BYTES,
    JSON_BYTES,
    WAIT_S,
    WIRE,
    About,
    Code,
    Failure,
    Invitation,
    Invited,
    Join,
    Joined,
    News,
    Plans,
    Poll,
    Problem,
    Received,
    Rekey,
    Rotated,
    Rotation,
)
from hanse.network.server.members import Member, Role
from hanse.network.server.server import Server
from hanse.version import __version__

__all__ = ["application"]

M = TypeVar("M", bound=BaseModel)

BODY_S = 60.0
"""A body that has not arrived by then is given up."""

FAILURES: Mapping[Code, str] = {
    "data": "its data do not suit the run",
    "no-data": "it has no test examples of its own",
    "approval": "the plan waits for approval in its house",
    "policy": "its policy does not allow this",
    "budget": "its policy's budget for this run is used up",
    "time": "its policy's time for computing is used up",
    "resources": "its memory, disk or another resource is used up",
    "message": "it can't read what the server sent; do the versions differ?",
    "internal": "an error that stands in its own log",
}
"""What the codes of failures mean."""

DECLINED = frozenset({"no-data", "approval", "policy", "budget", "time"})
"""Codes of failures that are decisions of a client's owner."""

INNOCENT = frozenset({"offset", "busy", "unavailable", "disk-full", "no-run", "no-object"})
"""Refusals that happen to those who do as they should."""


def _length(request: Request, limit: int) -> int:
    """The announced size of a body. Raises: Refused: if there is none, or it is too large."""
    given = request.headers.get("content-length")
    if given is None and request.headers.get("transfer-encoding") is not None:
        raise Refused(411, "length", "say how long the body is: Content-Length")
    length = int(given) if given is not None and given.isascii() and given.isdigit() else 0
    if length > limit:
        raise Refused(413, "too-large", f"a body of {length} bytes; at most {limit} are taken here")
    return length


async def _chunks(request: Request, length: int) -> AsyncIterator[bytes]:
    """The body, as it arrives. Raises: Refused: if it is too slow."""
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                if chunk:
                    yield chunk
    except TimeoutError:
        raise Refused(408, "slow", f"the body did not arrive within {BODY_S:g} s") from None


async def _body(request: Request, speaker: Speaker, kind: type[M]) -> M:
    """A small body, checked and parsed."""
    length = _length(request, JSON_BYTES)
    data = b"".join([chunk async for chunk in _chunks(request, length)])
    if hashlib.sha256(data).digest() != speaker.body_sha256:
        raise Refused(422, "corrupted", "the body is not what its Content-Digest says", who=speaker.key_id)
    try:
        return kind.model_validate_json(data or b"{}")
    except ValidationError as error:
        _check_wire(_spoken(data))  # another version's may look otherwise
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(422, "wrong", f"{where or 'the body'}: {first['msg']}", who=speaker.key_id) from None


def _spoken(data: bytes) -> Any:
    """The version of the wire that a body is of, if it says so."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return WIRE
    return said.get("wire", WIRE) if isinstance(said, dict) else WIRE


def _check_wire(version: Any) -> None:
    if version != WIRE:
        raise Refused(
            426,
            "wire",
            f"this client speaks version {str(version)[:20]} of the wire, the server (hanse {__version__}) "
            f"version {WIRE}; upgrade the older of the two",
        )


async def _discard(request: Request, speaker: Speaker) -> None:
    """Reads a body to its end, and forgets it."""
    state = hashlib.sha256()
    async for chunk in _chunks(request, _length(request, CHUNK_BYTES)):
        state.update(chunk)
    if state.digest() != speaker.body_sha256:
        raise Refused(422, "corrupted", "the body is not what its Content-Digest says", who=speaker.key_id)


def _speaker(request: Request, verifier: Verifier) -> Speaker:
    scope = request.scope
    path = scope.get("raw_path") or scope["path"].encode()
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    url = "https://server" + (path + query).decode("latin-1")
    _length(request, CHUNK_BYTES)
    return verifier.verify(request.method, url, {k.lower(): v for k, v in request.headers.items()})


@dataclass(frozen=True)
class Caller:
    """A member who signed a request."""

    member: Member
    speaker: Speaker

    @property
    def number(self) -> int:
        """Of a client."""
        assert self.member.number is not None
        return self.member.number


def _describe_body(kind: type[BaseModel]) -> dict[str, Any]:
    """A body that is read by hand, for the description of the API."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_BYTES = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
_OBJECT: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it", "content": {"application/octet-stream": {}}},
    206: {"description": "From where the client wants it", "content": {"application/octet-stream": {}}},
    304: {"description": "The client has it"},
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (401, 403, 404, 405, 408, 409, 410, 411, 413, 422, 426, 503, 507)
}

# For the description of the API alone: what they find is judged by `_speaker` and `_invitation`.
_SIGNED = Security(
    APIKeyHeader(
        name="Signature",
        scheme_name="signature",
        auto_error=False,
        description="RFC 9421: Ed25519 over @method, @path, @query and Content-Digest; tag, time, nonce",
    )
)
_INVITED = Security(HTTPBearer(scheme_name="invitation", auto_error=False, description="of a join token"))


class _Signing:
    """Signs small answers to signed requests. Downloads are checked against their SHA-256 instead."""

    def __init__(self, app: ASGIApp, identity: Identity) -> None:
        self._app, self._identity = app, identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields = dict(scope.get("headers", ()))
        signature = fields.get(b"signature")
        if scope["type"] != "http" or signature is None:
            await self._app(scope, receive, send)
            return
        begun: list[AsgiMessage] = []

        async def sign_and_send(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            if begun:
                start = begun.pop()
                if not message.get("more_body"):
                    start["headers"] = [*start["headers"], *sign(start["status"], message.get("body", b""))]
                await send(start)
            await send(message)

        def sign(status: int, body: bytes) -> list[tuple[bytes, bytes]]:
            try:
                found = self._identity.sign_answer(status, body, signature.decode("latin-1"))
            except HTTPMessageSignaturesException:  # a stranger's Signature field, which is none
                return []
            return [(name.lower().encode(), value.encode()) for name, value in found.items()]

        await self._app(scope, receive, sign_and_send)


def application(server: Server) -> FastAPI:
    """The HTTP interface."""
    app = FastAPI(title="Hanse", version=__version__, responses=_PROBLEMS, docs_url=None, redoc_url=None)

    app.add_middleware(_Signing, identity=server.identity)

    def by(*roles: Role) -> Any:
        async def caller(request: Request, signature: Annotated[Any, _SIGNED]) -> Caller:
            speaker = _speaker(request, server.verifier)
            member = server.members.admit(speaker.key_id, roles)
            request.state.who = member.name
            if member.number is not None:
                server.hear(member.number)
            return Caller(member, speaker)

        return Depends(caller)

    FromClient = Annotated[Caller, by("client")]
    FromOperator = Annotated[Caller, by("operator")]
    FromObserver = Annotated[Caller, by("operator", "observer")]

    @app.exception_handler(Refused)
    async def answer_refusal(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        who = error.who or getattr(request.state, "who", None)
        if who is None:
            server.strangers[error.code] += 1
        elif error.code not in INNOCENT:
            server.blame(who, f"refused: {error}")
        problem = Problem(code=error.code, why=error.why, offset=getattr(error, "offset", None))
        body = problem.model_dump(exclude_none=True)
        return JSONResponse(body, error.status, headers={"Connection": "close"} if _unread(request) else {})

    @app.exception_handler(HanseError)
    async def unwell(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"code": "wrong", "why": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def misspelt(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
        return await answer_refusal(request, Refused(422, "wrong", why[:500]))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = "method" if error.status_code == 405 else "no-path"
        answer = await answer_refusal(request, Refused(error.status_code, code, error.detail))
        answer.headers.update(error.headers or {})
        return answer

    # -- everybody -----------------------------------------------------------------------------

    @app.get("/v1/about")
    async def about() -> About:
        return About(wire=[WIRE], hanse=__version__, time=time.time())

    @app.post("/v1/check", dependencies=[_SIGNED, _INVITED])
    async def check(request: Request, wait_s: Annotated[float, Query(ge=0, le=WAIT_S)] = 0.0) -> Plans:
        """The plans, for whoever holds an invitation and has not joined yet.

        A body may be as large as that of an upload, and is thrown away.
        """
        speaker = _speaker(request, server.joining)
        number = server.members.invitation(_invitation(request))
        await _discard(request, speaker)
        await asyncio.sleep(wait_s)
        return Plans(plans=server.plans(), number=number)

    @app.post("/v1/join", openapi_extra=_describe_body(Join), dependencies=[_SIGNED, _INVITED])
    async def join(request: Request) -> Joined:
        speaker = _speaker(request, server.joining)
        given = _invitation(request)
        server.members.invitation(given)
        asked = await _body(request, speaker, Join)
        member = server.members.join(given, speaker.key_id, asked.name)
        server.members.note(member.name, f"joined as {member.role} {member.id}")
        server.came_or_went()
        return Joined(id=member.id, role=member.role, number=member.number, name=member.name)

    # -- clients -------------------------------------------------------------------------------

    @app.get("/v1/plans")
    async def plans(caller: FromClient) -> Plans:
        return Plans(plans=server.plans(), number=caller.number)

    @app.post("/v1/work", openapi_extra=_describe_body(Poll), response_model=News)
    async def work(request: Request, caller: FromClient) -> Response:
        poll = await _body(request, caller.speaker, Poll)
        _check_wire(poll.wire)
        news = await server.poll(caller.number, poll)
        return Response(news.model_dump_json(), media_type="application/json")  # not checked once more

    @app.get("/v1/runs/{run}/objects/{sha256}", response_class=Response, responses=_OBJECT)
    async def download(request: Request, caller: FromClient, run: str, sha256: str) -> Response:
        led = server.run(run)
        path = (led.plans if sha256 == led.plan[0] else led.objects).path(_hexadecimal(sha256))
        return _file(path, sha256, request)

    @app.get("/v1/runs/{run}/tickets/{ticket}/message")
    async def upload_state(caller: FromClient, run: str, ticket: int, sha256: str, size: int) -> Received:
        led = server.run(run)
        led.mailbox.offer(caller.number, ticket)
        offset = led.spool.offset(ticket, _hexadecimal(sha256), size)
        return Received(offset=offset, durable=offset == size and led.mailbox.has(ticket))

    @app.put("/v1/runs/{run}/tickets/{ticket}/message", openapi_extra=_BYTES)
    async def upload(
        request: Request, caller: FromClient, run: str, ticket: int, sha256: str, size: int, offset: int
    ) -> Received:
        led = server.run(run)
        offer = led.mailbox.offer(caller.number, ticket)
        length = _length(request, CHUNK_BYTES)
        due = min(CHUNK_BYTES, size - offset)
        if offset < 0 or offset % CHUNK_BYTES or length != due:
            raise Refused(422, "wrong", f"bytes {offset} to {offset + length} of {size}")
        if not 0 < size <= offer.limit_bytes:
            why = f"a message of {size} bytes; at most {offer.limit_bytes} are due"
            led.mailbox.fail(ticket, f"refused: {why}")
            raise Refused(413, "too-large", why)
        if led.spool.offset(ticket, _hexadecimal(sha256), size) == size and led.mailbox.has(ticket):
            return Received(offset=size, durable=True)
        chunk = led.spool.writing(ticket, sha256, size, offset)
        try:
            async for data in _chunks(request, length):
                chunk.write(data)
            chunk.keep(caller.speaker.body_sha256)
        finally:
            chunk.close()
        server.hear(caller.number)
        durable = await asyncio.to_thread(led.spool.finish, ticket, sha256, size)
        if durable:
            led.mailbox.arrive(ticket)
        return Received(offset=offset + length, durable=durable)

    @app.post("/v1/runs/{run}/tickets/{ticket}/failure", openapi_extra=_describe_body(Failure))
    async def failure(request: Request, caller: FromClient, run: str, ticket: int) -> dict[str, str]:
        led = server.run(run)
        led.mailbox.offer(caller.number, ticket)
        said = await _body(request, caller.speaker, Failure)
        what = "declined" if said.code in DECLINED else f"failed once {said.state}"
        what = what.removesuffix(" once refused")
        why = f"{what}: {FAILURES[said.code]} ({said.code})"
        led.mailbox.fail(ticket, why)
        server.members.note(caller.member.name, f"ticket {ticket} of {run} {why}")
        return {}

    @app.post("/v1/key", openapi_extra=_describe_body(Rekey))
    async def rekey(request: Request, caller: FromClient) -> dict[str, str]:
        asked = await _body(request, caller.speaker, Rekey)
        check_proof(caller.member.id, asked.public, asked.proof)
        server.members.rekey(caller.member.id, asked.public)
        server.members.note(caller.member.name, f"replaced its key by {asked.public[:16]}...")
        return {}

    @app.post("/v1/leave")
    async def leave(caller: FromClient) -> dict[str, str]:
        server.part(caller.member.id, "left")
        return {}

    # -- the operator --------------------------------------------------------------------------

    @app.get("/v1/status")
    async def status(caller: FromObserver) -> dict[str, Any]:
        return server.status()

    @app.get("/v1/clients")
    async def clients(caller: FromObserver) -> list[dict[str, Any]]:
        return server.clients()

    @app.get("/v1/events")
    async def events(caller: FromObserver, limit: int = 100) -> list[dict[str, Any]]:
        found = server.members.events(max(1, min(limit, 10_000)))
        return [{"at": at, "who": who, "what": what} for at, who, what in found]

    @app.post("/v1/certificate", openapi_extra=_describe_body(Rotation))
    async def rotate(request: Request, caller: FromOperator) -> Rotated:
        rotated = server.rotate(await _body(request, caller.speaker, Rotation))
        what = "in place" if rotated.switched else f"announced; {len(rotated.know)} clients know of it"
        server.members.note(caller.member.name, f"certificate {rotated.fingerprint[:16]}... is {what}")
        return rotated

    @app.post("/v1/invitations", openapi_extra=_describe_body(Invitation))
    async def invite(request: Request, caller: FromOperator) -> Invited:
        asked = await _body(request, caller.speaker, Invitation)
        secret, number = server.members.invite(asked.role, asked.name, asked.number, asked.valid_s)
        return Invited(token=str(Token(server.fingerprint, secret, server.identity.public)), number=number)

    @app.post("/v1/clients/{id}/revoke")
    async def revoke(caller: FromOperator, id: str) -> dict[str, str]:
        return {"revoked": server.part(id, "revoked").name}

    @app.post("/v1/runs/{run}/stop")
    async def stop(caller: FromOperator, run: str) -> dict[str, str]:
        server.run(run).mailbox.stop("its operator stopped it", "stopped")
        return {}

    @app.post("/v1/runs/{run}/drain")
    async def drain(caller: FromOperator, run: str) -> dict[str, str]:
        server.run(run).mailbox.drain()
        return {}

    return app


def _invitation(request: Request) -> bytes:
    """The secret that somebody who wants to join carries. Raises: Refused."""
    secret = request.headers.get("authorization", "").removeprefix("Bearer ")
    if len(secret) != 32 or secret.strip("0123456789abcdef"):
        raise Refused(403, "token", "an invitation is due: Authorization: Bearer <32 hexadecimal digits>")
    return bytes.fromhex(secret)


def _unread(request: Request) -> bool:
    """Whether a body may still be on its way: then the connection ends rather than swallow it."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _hexadecimal(sha256: str) -> str:
    if len(sha256) != 64 or sha256.strip("0123456789abcdef"):
        raise Refused(422, "wrong", "a SHA-256 in 64 hexadecimal digits is due")
    return sha256


def _file(path: Path, sha256: str, request: Request) -> Response:
    """A file that never changes, from where the client wants it."""
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
    start = _start(request.headers.get("range", ""), size)
    headers["Content-Length"] = str(size - start)
    if start:
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    return StreamingResponse(_read(path, start), 206 if start else 200, headers)


def _start(given: str, size: int) -> int:
    """Where an open range begins; 0 for anything else, which is allowed to be ignored."""
    begin = given.removeprefix("bytes=").removesuffix("-")
    if given.startswith("bytes=") and given.endswith("-") and begin.isascii() and begin.isdigit():
        return int(begin) if int(begin) < size else 0
    return 0


async def _read(path: Path, start: int) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        while block := await asyncio.to_thread(file.read, 1 << 20):
            yield block
