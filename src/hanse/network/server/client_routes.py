"""The routes for clients: polls, downloads, uploads, failures, a new key, and leaving."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import Field

from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import check_proof
from hanse.network.protocol.wire import (
    CHUNK_BYTES,
    AuditHead,
    Code,
    Failure,
    KeptHead,
    News,
    Plans,
    Poll,
    Receipt,
    Received,
    Rekey,
)
from hanse.network.server.answers import send_file
from hanse.network.server.mailbox import Offer
from hanse.network.server.requests import (
    Caller,
    FromAbsent,
    FromClient,
    announced_bytes,
    check_wire,
    describe_body,
    limit,
    parse_body,
    read_chunks,
    sha256_in,
)
from hanse.network.server.run_thread import RunThread

__all__ = ["client_routes"]

logger = logging.getLogger(__name__)

FAILURES: Mapping[Code, str] = {
    "data": "its data do not suit the run",
    "no-data": "it has no test examples of its own",
    "approval": "the plan waits for its owner's approval",
    "policy": "its policy does not allow this",
    "imports": "its owner's own copy of an import is missing, differs, is not allowed, or can't be imported",
    "budget": "its policy's budget for this run is used up",
    "time": "its policy's time for computing is used up",
    "promise": "its work declines, for example because of a promise",
    "resources": "its memory, disk or another resource is used up",
    "message": "it can't read what the server sent; do the versions differ?",
    "internal": "an error, which its own log describes",
}
"""The meanings of the codes of failures."""

DECLINED = frozenset({"no-data", "approval", "policy", "imports", "budget", "time", "promise"})
"""Codes of failures that are decisions of a client's owner."""

_BYTES = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
_OBJECT: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it", "content": {"application/octet-stream": {}}},
    206: {"description": "From where the client wants it", "content": {"application/octet-stream": {}}},
    304: {"description": "The client has it"},
}

Number: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
Offset: TypeAlias = Annotated[int, Field(gt=-(2**53), lt=2**53)]
"""Numbers of a path or query: a longer one would be no name of a file."""

client_routes = APIRouter()


@client_routes.get("/v1/plans")
async def plans(caller: FromClient) -> Plans:
    return Plans(plans=caller.server.plans(), number=caller.member.number)


@client_routes.post("/v1/work", openapi_extra=describe_body(Poll), response_model=News)
async def work(request: Request, caller: FromClient) -> Response:
    poll = await parse_body(request, caller.speaker, Poll)
    check_wire(poll.wire)
    caller.server.invitations.hear(caller.member.party)
    kept = None if poll.audit is None else caller.server.audit_heads.keep(caller.member, poll.audit)
    if kept is not None:
        poll = poll.model_copy(update={"wait_s": 0.0})  # its client should hear of it at once
    news = await caller.server.poll(caller.party, poll)
    news = news if kept is None else news.model_copy(update={"audit": kept})
    caller.server.members.admit(caller.member.id, ("client",))  # it may have been revoked in the meantime
    return Response(news.model_dump_json(), media_type="application/json")  # not validated a second time


@client_routes.get("/v1/audit")
async def kept_head(caller: FromAbsent) -> KeptHead:
    return caller.server.audit_heads.find(caller.member)


@client_routes.post("/v1/audit", openapi_extra=describe_body(AuditHead))
async def shown_head(request: Request, caller: FromAbsent) -> dict[str, str]:
    """Takes the head of a log that is not the one that the server keeps, from the client that found it."""
    caller.server.audit_heads.keep(caller.member, await parse_body(request, caller.speaker, AuditHead))
    return {}


@client_routes.get("/v1/runs/{run}/objects/{sha256}", response_class=Response, responses=_OBJECT)
async def download(request: Request, caller: FromClient, run: str, sha256: str) -> Response:
    led = caller.server.run(run)
    path = (led.plans if sha256 == led.plan[0] else led.objects).path(sha256_in(sha256))
    return send_file(path, sha256, request)


@client_routes.get("/v1/runs/{run}/tickets/{ticket}/task", response_class=Response, responses=_OBJECT)
async def download_task(request: Request, caller: FromClient, run: str, ticket: Number) -> Response:
    led = caller.server.run(run)
    offer = led.mailbox.offer(caller.party, ticket)  # or it is refused: nobody else may read it
    return send_file(led.own.path(offer.own or "none"), offer.own, request)


@client_routes.get("/v1/runs/{run}/tickets/{ticket}/message")
async def upload_state(caller: FromClient, run: str, ticket: Number, sha256: str, size: Number) -> Received:
    led = caller.server.run(run)
    offer = led.mailbox.offer(caller.party, ticket)
    _check_size(led, offer, size)
    offset = await asyncio.to_thread(led.spool.offset, ticket, sha256_in(sha256), size)
    return Received(
        offset=offset, durable=offset == size and await _finish(caller, led, ticket, sha256, size)
    )


def _check_size(led: RunThread, offer: Offer, size: int) -> None:
    """Checks the announced size of a message. Raises: Refused: if it is too large; the ticket fails."""
    if not 0 < size <= offer.limit_bytes:
        why = f"a message of {size} bytes; at most {offer.limit_bytes} are allowed"
        led.mailbox.fail(offer.ticket, f"refused: {why}")
        raise Refused(413, "too-large", why)


async def _finish(caller: Caller, led: RunThread, ticket: int, sha256: str, size: int) -> bool:
    """Makes a message durable once all of it is here, and tells the run; returns whether it is.

    All of it may be here and yet not durable, if the server was killed in between.
    """
    if led.mailbox.has(ticket):
        return True
    durable = await asyncio.to_thread(led.spool.finish, ticket, sha256, size)
    if durable:
        try:
            caller.server.members.admit(caller.member.id, ("client",))
        except Refused:  # it was revoked in the meantime
            led.spool.discard(ticket)
            raise
        led.mailbox.arrive(ticket)
        caller.server.counts["received", ""] += 1
    return durable


@client_routes.put("/v1/runs/{run}/tickets/{ticket}/message", openapi_extra=_BYTES)
async def upload(
    request: Request, caller: FromClient, run: str, ticket: Number, sha256: str, size: Number, offset: Offset
) -> Received:
    led = caller.server.run(run)
    offer = led.mailbox.offer(caller.party, ticket)
    length = announced_bytes(request, CHUNK_BYTES)
    if offset < 0 or offset % CHUNK_BYTES or length != min(CHUNK_BYTES, size - offset):
        raise Refused(422, "wrong", f"bytes {offset} to {offset + length} of {size} are not a chunk")
    _check_size(led, offer, size)
    if await asyncio.to_thread(led.spool.offset, ticket, sha256_in(sha256), size) == size:
        return Received(offset=size, durable=await _finish(caller, led, ticket, sha256, size))
    chunk = led.spool.writing(ticket, sha256, size, offset)
    try:
        async for data in read_chunks(request, length):
            chunk.write(data)
        chunk.keep(caller.speaker.body_sha256)
    finally:
        chunk.close()
    caller.server.presence.hear(caller.party)
    durable = await _finish(caller, led, ticket, sha256, size)
    logger.debug(
        "event=received member=%s run=%s ticket=%d offset=%d durable=%s",
        caller.member.id,
        led.name,
        ticket,
        offset + length,
        durable,
    )
    return Received(offset=offset + length, durable=durable)


@client_routes.post("/v1/runs/{run}/tickets/{ticket}/failure", openapi_extra=describe_body(Failure))
async def failure(request: Request, caller: FromClient, run: str, ticket: Number) -> dict[str, str]:
    led = caller.server.run(run)
    led.mailbox.offer(caller.party, ticket)
    await limit(caller.server, "failures", caller.member.id)
    said = await parse_body(request, caller.speaker, Failure)
    if said.code == "not-ready":
        delay_s = led.mailbox.postpone(ticket)
        loop, wake = asyncio.get_running_loop(), caller.server.presence.wake
        loop.call_later(delay_s + 0.01, wake, [caller.party])
        logger.debug("event=not-ready member=%s run=%s ticket=%d", caller.member.id, led.name, ticket)
        return {}
    caller.server.counts["failed", said.code] += 1
    what = "declined" if said.code in DECLINED else f"failed once {said.state}"
    what = what.removesuffix(" once refused")
    why = f"{what}: {FAILURES[said.code]} ({said.code})"
    led.mailbox.fail(ticket, why)
    caller.server.members.note(
        caller.member.name,
        f"ticket {ticket} of {run} {why}",
        code=f"failure {run} {said.code}",
        source=caller.member.id,
    )
    logger.info(
        "event=failed member=%s run=%s ticket=%d state=%s code=%s",
        caller.member.id,
        led.name,
        ticket,
        said.state,
        said.code,
    )
    return {}


@client_routes.post("/v1/key", openapi_extra=describe_body(Rekey))
async def rekey(request: Request, caller: FromClient) -> Receipt:
    await limit(caller.server, "new keys", caller.member.id)
    asked = await parse_body(request, caller.speaker, Rekey)
    members = caller.server.members
    check_proof(caller.member.id, asked.public, asked.proof)
    members.rekey(caller.member.id, asked.public)
    members.note(
        caller.member.name, f"replaced its key by {asked.public[:16]}...", code="key", source=caller.member.id
    )
    return Receipt(what="rekeyed", id=caller.member.id, key=asked.public, time=time.time())


@client_routes.post("/v1/leave")
async def leave(caller: FromClient) -> Receipt:
    caller.server.part(caller.member.id, "left")
    return Receipt(what="left", id=caller.member.id, time=time.time())
