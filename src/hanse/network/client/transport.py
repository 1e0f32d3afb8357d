"""A client's link to its server: signed requests over HTTPS to one pinned certificate."""

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from hanse.core import InvalidInput
from hanse.network.protocol import certificates
from hanse.network.protocol.answers import (
    UNPROVEN,
    AnswerVerifier,
    Reply,
    hasten,
    read_answer,
    read_body,
    read_json,
    read_refusal,
)
from hanse.network.protocol.asked import Asked
from hanse.network.protocol.errors import NotSent, Refused, Unreachable, WrongContent
from hanse.network.protocol.reaching import explain
from hanse.network.protocol.signing import Identity, sha256
from hanse.network.protocol.spool import Outgoing
from hanse.network.protocol.wire import (
    CHUNK_BYTES,
    INVITATION,
    JSON_BYTES,
    Received,
)
from hanse.version import __version__

__all__ = ["ServerLink", "patiently", "split"]

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

TIMEOUT = httpx.Timeout(60.0, connect=10.0)

CLOCK_S = 10.0
"""The clock is set only by an answer that came within so many seconds, for else it may have been held up."""


MAX_RETRY_S = 60.0
"""A server, or a proxy, can't make a client wait longer before it tries again."""


def split(url: str) -> tuple[str, int]:
    """Returns host and port of https://host[:port]. Raises: InvalidInput."""
    try:
        parsed = httpx.URL(url)
        port = parsed.port or 443
        parsed.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        parsed = httpx.URL()
    if parsed.scheme != "https" or not parsed.host or parsed.path not in ("", "/") or port > 65535:
        raise InvalidInput(
            f"{url!r} is not the address of a server; write https://HOST:PORT, and an IPv6 host in brackets: "
            "https://[::1]:8443"
        )
    return parsed.host, port


class ServerLink:
    """Sends requests to one server, signed with one key. Threads may share it.

    Args:
      url: https://host:port.
      pem: the certificate that the server must show, unless it is one that `trust` names.
      identity: signs the requests.
      key_id: the name by which the server knows the key.
      server_key: the public key of the server, which signs its answers; empty: TLS alone protects them.
      invitation: permits the requests of somebody who has not joined; None: a member asks.
    """

    def __init__(
        self,
        url: str,
        pem: str,
        identity: Identity,
        key_id: str,
        server_key: str = "",
        invitation: Identity | None = None,
    ) -> None:
        self._answers = AnswerVerifier(server_key) if server_key else None
        self.url = url.rstrip("/")
        self.pem, self.identity, self.key_id = pem, identity, key_id
        self._invitation = invitation
        self.answered_bytes = 0
        """The bytes of all answers but downloads, roughly: threads may add to it at the same time."""
        self._context = certificates.pin(pem)
        self._http = certificates.make_client(
            base_url=self.url,
            verify=self._context,
            timeout=TIMEOUT,
            headers={"User-Agent": f"hanse/{__version__}", "Accept-Encoding": "identity"},
            trust_env=True,
        )

    def trust(self, pem: str) -> None:
        """Accepts another certificate of the server, too."""
        certificates.trust(self._context, pem)

    def close(self) -> None:
        """Ends all connections."""
        self._http.close()

    def _sign(self, method: str, url: httpx.URL, body_sha256: bytes) -> dict[str, str]:
        return self.identity.sign(self.key_id, method, str(url), body_sha256)

    def _send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        digest: bytes | None = None,
        limit: int = JSON_BYTES,
    ) -> Reply:
        """Sends a request, and returns the answer; sends it again if the clocks turn out to differ.

        Args:
          digest: the SHA-256 of the body; None: it is computed here.
          limit: the most bytes of the answer.

        Raises: Refused, Unreachable.
        """
        for again in (True, False):
            request = self._make_request(method, path, body, params, headers, digest)
            try:
                response = self._http.send(request, stream=True)
                try:
                    return self._receive(request, response, limit)
                except _Skewed as skewed:
                    if not (again and self._set_clock(skewed)):
                        raise skewed.refused from None
                finally:
                    response.close()
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                raise NotSent(explain(self.url, error, self.pem)) from None
            except httpx.TransportError as error:
                raise Unreachable(explain(self.url, error, self.pem)) from None
        raise AssertionError("unreachable")

    def _make_request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        digest: bytes | None = None,
    ) -> httpx.Request:
        """Makes a signed request."""
        request = self._http.build_request(method, path, content=body, params=params, headers=headers)
        request.headers.update(self._sign(method, request.url, digest or sha256(body)))
        if self._invitation is not None:
            asked = Asked.read(request.method, str(request.url), request.headers)
            request.headers[INVITATION] = self._invitation.permit(self.key_id, asked)
        request.extensions["began_s"] = time.monotonic()
        return request

    def _receive(self, request: httpx.Request, response: httpx.Response, limit: int) -> Reply:
        """Reads an answer and checks its signature, before anything in it is decompressed or parsed.

        Raises: Refused; also if the answer is not the server's, since the request may succeed later.
        """
        status, content = response.status_code, read_body(response, limit)
        self.answered_bytes += len(content)
        if self._answers is None:
            receipt: Mapping[str, Any] | None = {}
        else:
            asked = Asked.read(request.method, str(request.url), request.headers)
            try:
                receipt = self._answers.check(status, response.headers, content, asked)
            except InvalidInput as error:
                receipt, forged = None, str(error)
        if status < 400 and receipt is not None:
            return Reply(status, content, receipt)
        refused, there_s = read_refusal(status, content)
        if receipt is None and refused.code not in UNPROVEN:
            refused = Refused(status, "answer", forged)
        refused.is_proven, refused.receipt = receipt is not None, receipt or {}
        refused.retry_s = _read_retry(response.headers)
        if refused.code == "skewed" and there_s is not None and receipt is not None:
            raise _Skewed(refused, there_s, request.extensions["began_s"])
        raise refused

    def _set_clock(self, skewed: "_Skewed") -> bool:
        """Sets the clock of the signatures by the server's, and returns whether to sign and send again.

        The server read its clock between the request and the answer. An answer that took long says little:
        somebody may have held it up, so it sets no clock.
        """
        took_s = time.monotonic() - skewed.began_s
        if took_s > CLOCK_S:
            return False
        least_s = skewed.there_s - time.time()
        if not least_s - 1.0 < self.identity.offset_s < least_s + took_s + 1.0:
            self.identity.offset_s = least_s + took_s / 2
        time.sleep(1.0)  # a server that has just begun refuses requests of the second before
        return True

    def ask(
        self,
        method: str,
        path: str,
        kind: type[M],
        body: BaseModel | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = JSON_BYTES,
    ) -> M:
        """Sends a small request, and parses the answer. Raises: Refused, Unreachable."""
        return read_answer(kind, path, self.plain(method, path, body, params, headers, limit))

    def plain(
        self,
        method: str,
        path: str,
        body: BaseModel | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = JSON_BYTES,
    ) -> Any:
        """Sends a small request, and returns the answer as plain data. Raises: Refused, Unreachable."""
        return read_json(path, self._tell(method, path, body, params, headers, limit))

    def receipt(
        self, method: str, path: str, kind: type[M], body: BaseModel | None = None
    ) -> tuple[M, Mapping[str, Any]]:
        """Sends a small request; returns the answer, and the receipt for the audit log.

        Raises: Refused, Unreachable.
        """
        reply = self._tell(method, path, body)
        return read_answer(kind, path, read_json(path, reply)), reply.receipt

    def _tell(
        self,
        method: str,
        path: str,
        body: BaseModel | None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = JSON_BYTES,
    ) -> Reply:
        data = b"" if body is None else body.model_dump_json().encode()
        given = {"Content-Type": "application/json", **(headers or {})}
        return self._send(method, path, data, params, given, limit=limit)

    def probe(self, path: str, kind: type[M], wait_s: float, limit: int) -> M:
        """Sends a request as large as an upload that waits as long as a poll, and returns the answer.

        Raises: Refused: also if a proxy cuts it; Unreachable.
        """
        reply = self._send("POST", path, bytes(CHUNK_BYTES), {"wait_s": wait_s}, limit=limit)
        return read_answer(kind, path, read_json(path, reply))

    # -- files ---------------------------------------------------------------------------------

    def download(
        self, path: str, sha256: str, size: int, to: Path, arrive: Callable[[int], None] = lambda size: None
    ) -> None:
        """Fetches an object into a file, and goes on from a part that is there already.

        Args:
          size: as a signed answer says; no byte more is written.
          arrive: called with the number of bytes of each piece that arrives, kept or not.

        Raises: Refused, Unreachable; WrongContent: if it does not have its SHA-256.
        """
        part = to.with_name(f"{to.name}.part")
        state = hashlib.sha256()
        with open(part, "ab+") as file:
            file.seek(0)
            while block := file.read(1 << 20):
                state.update(block)
            here = file.tell()
            if here < size:
                headers = {"Range": f"bytes={here}-"} if here else {}
                request = self._make_request("GET", path, headers=headers)
                try:
                    response = self._http.send(request, stream=True)
                except httpx.TransportError as error:
                    raise Unreachable(explain(self.url, error, self.pem)) from None
                try:
                    if response.status_code not in (200, 206):  # the caller checks the SHA-256 of these two
                        self._receive(request, response, JSON_BYTES)
                        raise Refused(502, "answer", f"{path} was answered with {response.status_code}")
                    if here and response.status_code != 206:
                        file.truncate(0)
                        state, here = hashlib.sha256(), 0
                    for block in hasten(response, arrive):
                        block = block[: size + 1 - here]
                        here += len(block)
                        if here > size:
                            break
                        file.write(block)
                        state.update(block)
                except _Skewed as skewed:
                    self._set_clock(skewed)
                    raise skewed.refused from None
                except httpx.TransportError as error:
                    raise Unreachable(f"the download was cut: {_said(error)}") from None
                finally:
                    response.close()
        if here < size:
            raise Unreachable(f"the download was cut after {here} of {size} bytes")
        if here != size or state.hexdigest() != sha256:
            part.unlink()
            raise WrongContent(f"{path} does not have its SHA-256; it is fetched again")
        part.replace(to)

    def upload(
        self, run: str, ticket: int, message: Outgoing, check: Callable[[int], None] = lambda size: None
    ) -> None:
        """Sends a message in chunks, from the first that the server lacks; returns once it is durable there.

        Args:
          check: called with the bytes of each chunk before it leaves, and below 0 if it has not left, because
            no connection was made; an error that it raises ends all.

        Raises: Refused, Unreachable.
        """
        path = f"/v1/runs/{run}/tickets/{ticket}/message"
        whole = {"sha256": message.sha256, "size": message.size}
        received = Received(offset=0, durable=False)
        if message.size > CHUNK_BYTES:
            received = self.ask("GET", path, Received, params=whole)
        before = -1
        while not received.durable:
            at = received.offset
            if at % CHUNK_BYTES or not before < at < message.size:
                raise Refused(502, "answer", f"there is no chunk at {at} of {message.size}, or it was sent")
            chunk, digest = message.chunk(at)
            check(len(chunk))
            before, params = at, {**whole, "offset": at}
            try:
                reply = self._send("PUT", path, chunk, params, digest=digest)
                received = read_answer(Received, path, read_json(path, reply))
            except NotSent:
                check(-len(chunk))
                raise
            except Refused as refused:
                if refused.code != "offset":
                    raise
                received = self.ask("GET", path, Received, params=whole)


class _Skewed(Exception):
    """The server says that the clocks differ, and what its own says."""

    def __init__(self, refused: Refused, there_s: float, began_s: float) -> None:
        self.refused, self.there_s, self.began_s = refused, there_s, began_s


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _read_retry(headers: Mapping[str, str]) -> float | None:
    """Returns after how many seconds the same request may succeed; None: the answer does not say."""
    retry_s = headers.get("retry-after", "")
    return min(float(retry_s), MAX_RETRY_S) if retry_s.isascii() and retry_s.isdigit() else None


PASSING = frozenset(
    {"unavailable", "proxy", "busy", "disk-full", "slow", "skewed", "replayed", "corrupted", "answer"}
)
"""Codes of refusals after which the same request may succeed."""


def patiently(
    act: Callable[[], T], pause: Callable[[float], bool], say: Callable[[str], None] = lambda what: None
) -> T:
    """Does something again and again until the server answers, and returns the result.

    Args:
      act: is called until it raises no such error.
      pause: sleeps so many seconds, and returns whether to give up.
      say: called with a line about each failed attempt.

    Raises: Refused: if a refusal is final; Unreachable: if it gave up.
    """
    wait_s = 0.1
    while True:
        try:
            return act()
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.is_proven and error.code not in PASSING:
                raise
            least_s = (error.retry_s or 0.0) if isinstance(error, Refused) else 0.0
            say(f"{error}; trying again in {max(wait_s, least_s):.1f} s")
            if pause(max(wait_s * random.uniform(0.5, 1.0), least_s)):
                raise
        wait_s = min(wait_s * 2, 15.0)
