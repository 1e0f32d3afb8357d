"""Requests: their signatures, which are checked first, and their bodies, which are read afterwards.

A request is refused by its headers alone unless a member signed it and its announced size is within
bounds; only then is its body read, and parsed only after its digest was checked.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, ValidationError

from hanse.core import PartyId
from hanse.network.protocol.asked import Asked
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Speaker, Verifier
from hanse.network.protocol.wire import CHUNK_BYTES, INVITATION, JSON_BYTES, WIRE
from hanse.network.server.members import Member, Role
from hanse.network.server.server import Server
from hanse.version import __version__

__all__ = [
    "INVITED",
    "SIGNED",
    "VERIFIED",
    "Caller",
    "FromAbsent",
    "FromClient",
    "FromObserver",
    "FromOperator",
    "announced_bytes",
    "check_wire",
    "describe_body",
    "discard_body",
    "invitation_in",
    "limit",
    "parse_body",
    "read_chunks",
    "server_of",
    "sha256_in",
    "verify",
]

M = TypeVar("M", bound=BaseModel)

BODY_S = 60.0
"""A body that has not arrived within so many seconds is given up."""

HOLD_S = 1.0
"""The seconds for which the refusal of one request too many is held back."""

# These describe the API only: `verify` and `invitation_in` judge the fields.
SIGNED = Security(
    APIKeyHeader(
        name="Signature",
        scheme_name="signature",
        auto_error=False,
        description="RFC 9421: Ed25519 over @method, @path, @query and Content-Digest; tag, time, nonce",
    )
)
INVITED = Security(
    APIKeyHeader(
        name=INVITATION,
        scheme_name="invitation",
        auto_error=False,
        description="The public key of an invitation, a dot, and its signature of the signed request",
    )
)


def server_of(request: Request) -> Server:
    """Returns the server that a request reached."""
    server: Server = request.app.state.server
    return server


# -- senders -----------------------------------------------------------------------------------


VERIFIED = "hanse.verified"
"""The part of a request's scope that holds the request as it was verified, so that its answer is signed."""


def verify(request: Request, verifier: Verifier) -> Speaker:
    """Returns the signer of a request, and says that its answer may be signed. Raises: Refused.

    A request of another time is answered with a signature, too: the client sets its clock by the answer.
    """
    scope = request.scope
    path = scope.get("raw_path") or scope["path"].encode()
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    url = "https://server" + (path + query).decode("latin-1")
    speaker = verifier.identify(request.method, url, {k.lower(): v for k, v in request.headers.items()})
    verified: list[Asked] = scope[VERIFIED]
    verified.append(speaker.asked)
    verifier.check_time(speaker)
    try:
        verifier.check_once(speaker)
    except Refused:
        verified.clear()
        raise
    announced_bytes(request, CHUNK_BYTES)
    return speaker


@dataclass(frozen=True)
class Caller:
    """A member who signed a request."""

    server: Server
    member: Member
    speaker: Speaker

    @property
    def party(self) -> PartyId:
        """The party that a client plays: its number, or a name."""
        assert self.member.party is not None
        return self.member.party


def _by(*roles: Role, is_heard: bool = True) -> Any:
    """Makes a dependency that admits members of these roles.

    Args:
      is_heard: whether the request shows that a client is at work.
    """

    async def caller(request: Request, signature: Annotated[Any, SIGNED]) -> Caller:
        server = server_of(request)
        speaker = verify(request, server.verifier)
        member = server.members.admit(speaker.key_id, roles)
        request.state.who = member.id
        if server.connections is not None and (connection := getattr(request.state, "connection", None)):
            is_operator = member.role == "operator"
            server.connections.identify(connection, member.id, is_operator=is_operator)
        await limit(server, "requests", member.id)
        if member.party is not None and is_heard:
            server.presence.hear(member.party)
        return Caller(server, member, speaker)

    return Depends(caller)


FromClient = Annotated[Caller, _by("client")]
FromAbsent = Annotated[Caller, _by("client", is_heard=False)]
FromOperator = Annotated[Caller, _by("operator")]
FromObserver = Annotated[Caller, _by("operator", "observer")]


async def limit(server: Server, what: str, who: str) -> None:
    """Counts an act of a member, or of an invitation's holder. Raises: Refused: if there were too many.

    The refusal comes late, so that whoever does not heed it does not keep the server busy with refusing.
    """
    try:
        server.rates.spend(what, who)
    except Refused:
        await asyncio.sleep(HOLD_S)
        raise


def invitation_in(request: Request, speaker: Speaker) -> str:
    """Returns the public key of the invitation that permits a request. Raises: Refused."""
    return speaker.read_invitation(request.headers.get(INVITATION, ""))


def sha256_in(text: str) -> str:
    """Checks a SHA-256 from a path or query, and returns it. Raises: Refused: if it is none."""
    if len(text) != 64 or text.strip("0123456789abcdef"):
        raise Refused(422, "wrong", "write a SHA-256 in 64 hexadecimal digits")
    return text


# -- bodies ------------------------------------------------------------------------------------


def announced_bytes(request: Request, limit: int) -> int:
    """Returns the announced size of a body. Raises: Refused: if it is missing or too large."""
    given = request.headers.get("content-length")
    if given is None and request.headers.get("transfer-encoding") is not None:
        raise Refused(411, "length", "say how long the body is: Content-Length")
    is_number = given is not None and given.isascii() and given.isdigit()
    length = int(given[:20]) if given is not None and is_number else 0
    if length > limit:
        raise Refused(413, "too-large", f"a body of {length} bytes; at most {limit} are allowed")
    return length


async def read_chunks(request: Request, length: int) -> AsyncIterator[bytes]:
    """Yields a body as it arrives. Raises: Refused: if it is too slow."""
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                if chunk:
                    yield chunk
    except TimeoutError:
        raise Refused(408, "slow", f"the body did not arrive within {BODY_S:g} s") from None


async def parse_body(request: Request, speaker: Speaker, kind: type[M]) -> M:
    """Reads, checks and parses a small body. Raises: Refused."""
    length = announced_bytes(request, JSON_BYTES)
    data = b"".join([chunk async for chunk in read_chunks(request, length)])
    if hashlib.sha256(data).digest() != speaker.body_sha256:
        raise Refused(422, "corrupted", "the body is not what its Content-Digest says", who=speaker.key_id)
    try:
        return kind.model_validate_json(data or b"{}")
    except ValidationError as error:
        check_wire(_wire_in(data))  # the body of another version may look different
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(422, "wrong", f"{where or 'the body'}: {first['msg']}", who=speaker.key_id) from None


async def discard_body(request: Request, speaker: Speaker) -> None:
    """Reads a body to its end, checks it, and keeps nothing of it. Raises: Refused."""
    state = hashlib.sha256()
    async for chunk in read_chunks(request, announced_bytes(request, CHUNK_BYTES)):
        state.update(chunk)
    if state.digest() != speaker.body_sha256:
        raise Refused(422, "corrupted", "the body is not what its Content-Digest says", who=speaker.key_id)


def _wire_in(data: bytes) -> Any:
    """Returns the version of the wire that a body names, or ours if it names none."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return WIRE
    return said.get("wire", WIRE) if isinstance(said, dict) else WIRE


def check_wire(version: Any) -> None:
    """Checks that a client speaks this version of the wire. Raises: Refused: if not."""
    if version != WIRE:
        raise Refused(
            426,
            "wire",
            f"this client speaks version {str(version)[:20]} of the wire, the server (hanse {__version__}) "
            f"version {WIRE}; upgrade the older of the two",
        )


def describe_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Describes a body that `parse_body` reads, for the description of the API."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
