"""The routes for the operator: looking at runs and clients, inviting, revoking, and ending runs."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from hanse.network.protocol.wire import LIST_BYTES, Invitation, Invited, Rotated, Rotation, cut
from hanse.network.server.requests import FromObserver, FromOperator, describe_body, parse_body

__all__ = ["operator_routes"]

operator_routes = APIRouter()


@operator_routes.get("/v1/status")
async def status(caller: FromObserver) -> dict[str, Any]:
    return caller.server.status()


@operator_routes.get("/v1/clients")
async def clients(caller: FromObserver) -> list[dict[str, Any]]:
    return caller.server.clients()


@operator_routes.get("/v1/events")
async def events(caller: FromObserver, limit: int = 100, after: int = 0) -> list[dict[str, Any]]:
    found = caller.server.members.kept_events.read_after(
        max(0, min(after, 1 << 62)), max(1, min(limit, 10_000))
    )
    order = 1 if after else -1  # whoever follows hears the next ones, and others the last ones
    some = cut(found[::order], LIST_BYTES, lambda event: 200 + 6 * len(event[2] + event[3]))
    return [
        {"position": position, "at": at, "who": who, "what": what}
        for position, at, who, what in some[::order]
    ]


@operator_routes.post("/v1/certificate", openapi_extra=describe_body(Rotation))
async def rotate(request: Request, caller: FromOperator) -> Rotated:
    rotated = caller.server.rotate(await parse_body(request, caller.speaker, Rotation))
    what = "in place" if rotated.switched else f"announced; {len(rotated.know)} clients know of it"
    caller.server.members.note(
        caller.member.name, f"certificate {rotated.fingerprint[:16]}... is {what}", source=caller.member.id
    )
    return rotated


@operator_routes.post("/v1/invitations", openapi_extra=describe_body(Invitation))
async def invite(request: Request, caller: FromOperator) -> Invited:
    server = caller.server
    asked = await parse_body(request, caller.speaker, Invitation)
    about = asked.model_dump()
    token, number = server.invitations.invite(server.fingerprint, server.identity.public, **about)
    return Invited(token=str(token), number=number)


@operator_routes.post("/v1/clients/{id}/revoke")
async def revoke(caller: FromOperator, id: str) -> dict[str, str]:
    return {"revoked": caller.server.part(id, "revoked").name}


@operator_routes.post("/v1/clients/{id}/forget")
async def forget(caller: FromOperator, id: str) -> dict[str, str]:
    gone = await asyncio.to_thread(caller.server.forget, id)  # it may rewrite a hundred thousand events
    return {"forgotten": gone.id}


@operator_routes.post("/v1/runs/{run}/stop")
async def stop(caller: FromOperator, run: str) -> dict[str, str]:
    caller.server.stop_run(run)
    return {}


@operator_routes.post("/v1/runs/{run}/drain")
async def drain(caller: FromOperator, run: str) -> dict[str, str]:
    caller.server.run(run).mailbox.drain()
    return {}
