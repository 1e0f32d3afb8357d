"""The routes for everybody: what the server speaks, and how one joins."""

import asyncio
import logging
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request

from hanse.network.protocol.errors import Refused
from hanse.network.protocol.wire import WAIT_S, WIRE, About, Join, Joined, Plans
from hanse.network.server.requests import (
    INVITED,
    SIGNED,
    describe_body,
    discard_body,
    invitation_in,
    limit,
    parse_body,
    server_of,
    verify,
)
from hanse.version import __version__

__all__ = ["public_routes"]

logger = logging.getLogger(__name__)

public_routes = APIRouter()


@public_routes.get("/v1/about")
async def about(request: Request) -> About:
    """Returns the versions and the time to everybody, signed to whoever signed the request."""
    if "signature" in request.headers:
        try:
            verify(request, server_of(request).anyone)
        except Refused as refused:
            if refused.code != "unsigned":
                raise
    return About(wire=[WIRE], hanse=__version__, time=time.time())


@public_routes.post("/v1/check", dependencies=[SIGNED, INVITED])
async def check(request: Request, wait_s: Annotated[float, Query(ge=0, le=WAIT_S)] = 0.0) -> Plans:
    """Returns the plans to the holder of an invitation who has not joined yet.

    The body may be as large as that of an upload, and is thrown away.
    """
    server = server_of(request)
    speaker = verify(request, server.joining)
    invitation = invitation_in(request, speaker)
    party = server.members.invitation(invitation, speaker.key_id)
    await limit(server, "attempts to join", invitation)
    await discard_body(request, speaker)
    await asyncio.sleep(wait_s)
    return Plans(plans=server.plans(), number=party if isinstance(party, int) else None)


@public_routes.post("/v1/join", openapi_extra=describe_body(Join), dependencies=[SIGNED, INVITED])
async def join(request: Request) -> Joined:
    server = server_of(request)
    speaker = verify(request, server.joining)
    invitation = invitation_in(request, speaker)
    server.members.invitation(invitation, speaker.key_id)
    await limit(server, "attempts to join", invitation)
    asked = await parse_body(request, speaker, Join)
    member = server.members.join(invitation, speaker.key_id, asked.name)
    server.members.note(member.name, f"joined as {member.role} {member.id}", code="joined", source=member.id)
    logger.info("event=joined member=%s role=%s", member.id, member.role)
    server.notify_runs()
    party = member.party if isinstance(member.party, str) else ""
    return Joined(id=member.id, role=member.role, number=member.number, name=member.name, party=party)
