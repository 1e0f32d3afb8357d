"""A client's link to its server: signed requests over HTTPS to one pinned certificate."""

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from hanse.core import InvalidInput
from hanse.network.protocol import certificates
from hanse.network.protocol.errors import Refused, Unreachable
from hanse.network.protocol.reaching import explain
from hanse.network.protocol.signing import AnswerVerifier, Identity, sha256
from hanse.network.protocol.spool import Outgoing
from hanse.network.protocol.wire import CHUNK_BYTES, WAIT_S, Problem, Received
from hanse.version import __version__

__all__ = ["ServerLink", "patiently", "split"]

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

TIMEOUT = httpx.Timeout(60.0, connect=10.0)


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
    """

    def __init__(self, url: str, pem: str, identity: Identity, key_id: str, server_key: str = "") -> None:
        self._answers = AnswerVerifier(server_key) if server_key else None
        self.url = url.rstrip("/")
        self.pem, self.identity, self.key_id = pem, identity, key_id
        self._context = certificates.pin(pem)
        self._http = certificates.make_client(
            base_url=self.url,
            verify=self._context,
            timeout=TIMEOUT,
            headers={"User-Agent": f"hanse/{__version__}"},
            trust_env=True,
        )

    @property
    def is_signed(self) -> bool:
        """Whether the server signs its answers, so that a proxy that ends TLS can't change them."""
        return self._answers is not None

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
        stream: bool = False,
        digest: bytes | None = None,
    ) -> httpx.Response:
        """Sends a request; signs and sends it again if the clocks turn out to differ.

        Args:
          digest: the SHA-256 of the body; None: it is computed here.

        Raises: Refused, Unreachable.
        """
        digest = digest or sha256(body)
        for again in (True, False):
            request = self._http.build_request(method, path, content=body, params=params, headers=headers)
            request.headers.update(self._sign(method, request.url, digest))
            try:
                response = self._http.send(request, stream=stream)
                if stream and response.status_code < 400:  # the caller checks its SHA-256
                    return response
                response.read()
            except httpx.TransportError as error:
                raise Unreachable(explain(self.url, error, self.pem)) from None
            forged = self._find_forgery(request, response)
            if response.status_code < 400 and forged is None:
                return response
            refused = _read_refusal(response)
            if forged is not None and refused.code not in ("unavailable", "proxy"):  # a proxy's
                raise Refused(response.status_code, "answer", forged)
            if not (again and refused.code == "skewed"):
                raise refused
            self._set_clock(response)
        raise AssertionError("unreachable")

    def _find_forgery(self, request: httpx.Request, response: httpx.Response) -> str | None:
        """Returns why an answer is not the server's; None: it is."""
        if self._answers is None:
            return None
        try:
            self._answers.check(
                response.status_code,
                response.headers,
                response.content,
                request.method,
                request.headers["signature"],
            )
        except InvalidInput as error:
            return str(error)
        return None

    def _set_clock(self, response: httpx.Response) -> None:
        """Sets the clock of the signatures by the server's clock."""
        try:
            there = parsedate_to_datetime(response.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return
        self.identity.offset_s = there + 0.5 - time.time()
        time.sleep(1.0)  # a server that has just begun refuses requests of the second before

    def ask(
        self,
        method: str,
        path: str,
        kind: type[M],
        body: BaseModel | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> M:
        """Sends a small request, and parses the answer. Raises: Refused, Unreachable."""
        return _validate(kind, path, self.plain(method, path, body, params, headers))

    def plain(
        self,
        method: str,
        path: str,
        body: BaseModel | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Sends a small request, and returns the answer as plain data. Raises: Refused, Unreachable."""
        data = b"" if body is None else body.model_dump_json().encode()
        response = self._send(
            method, path, data, params, {"Content-Type": "application/json", **(headers or {})}
        )
        return _parse(path, response)

    def probe(self, path: str, kind: type[M], wait_s: float, headers: Mapping[str, str]) -> M:
        """Sends a request as large as an upload that waits as long as a poll, and returns the answer.

        Raises: Refused: also if a proxy cuts it; Unreachable.
        """
        response = self._send("POST", path, bytes(CHUNK_BYTES), {"wait_s": wait_s}, headers)
        return _validate(kind, path, _parse(path, response))

    # -- files ---------------------------------------------------------------------------------

    def download(self, path: str, sha256: str, size: int, to: Path) -> None:
        """Fetches an object into a file, and goes on from a part that is there already.

        Raises: Refused, Unreachable.
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
                response = self._send("GET", path, headers=headers, stream=True)
                try:
                    if here and response.status_code != 206:
                        file.truncate(0)
                        state, here = hashlib.sha256(), 0
                    for block in response.iter_raw(1 << 18):
                        here += len(block)
                        if here > size:
                            break
                        file.write(block)
                        state.update(block)
                except httpx.TransportError as error:
                    raise Unreachable(f"the download was cut: {_said(error)}") from None
                finally:
                    response.close()
        if here < size:
            raise Unreachable(f"the download was cut after {here} of {size} bytes")
        if here != size or state.hexdigest() != sha256:
            part.unlink()
            raise Unreachable(f"{path} does not have its SHA-256; it is fetched again")
        part.replace(to)

    def upload(self, run: str, ticket: int, message: Outgoing) -> None:
        """Sends a message in chunks, from the first that the server lacks; returns once it is durable there.

        Raises: Refused, Unreachable.
        """
        path = f"/v1/runs/{run}/tickets/{ticket}/message"
        whole = {"sha256": message.sha256, "size": message.size}
        received = Received(offset=0, durable=False)
        if message.size > CHUNK_BYTES:
            received = self.ask("GET", path, Received, params=whole)
        while not received.durable:
            chunk, digest = message.chunk(received.offset)
            params = {**whole, "offset": received.offset}
            try:
                response = self._send("PUT", path, chunk, params, digest=digest)
                received = Received.model_validate_json(response.content)
            except Refused as refused:
                if refused.code != "offset":
                    raise
                received = self.ask("GET", path, Received, params=whole)


def _parse(path: str, response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise Refused(502, "answer", f"the answer to {path} is not JSON: {error}") from None


def _validate(kind: type[M], path: str, answer: Any) -> M:
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        raise Refused(502, "answer", f"the answer to {path} can't be read: {error}") from None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _read_refusal(response: httpx.Response) -> Refused:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        text = response.text[:200].strip()
        if response.status_code == 413:
            most = f"it must let {CHUNK_BYTES >> 20} MiB pass (nginx: client_max_body_size 16m)"
            return Refused(413, "proxy", f"a proxy in front of the server refuses large bodies; {most}")
        if response.status_code == 504:
            least = f"it must wait for more than {WAIT_S:g} s (nginx: proxy_read_timeout 60s)"
            return Refused(504, "proxy", f"a proxy in front of the server cut the request off; {least}")
        if response.status_code in (502, 503):
            return Refused(response.status_code, "unavailable", "no server answers behind the proxy")
        return Refused(response.status_code, "answer", f"answered with {response.status_code}: {text}")
    retry_s = response.headers.get("retry-after", "")
    return Refused(
        response.status_code,
        problem.code,
        problem.why,
        retry_s=min(float(retry_s), MAX_RETRY_S) if retry_s.isascii() and retry_s.isdigit() else None,
    )


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
            if isinstance(error, Refused) and error.code not in PASSING:
                raise
            least_s = (error.retry_s or 0.0) if isinstance(error, Refused) else 0.0
            say(f"{error}; trying again in {max(wait_s, least_s):.1f} s")
            if pause(max(wait_s * random.uniform(0.5, 1.0), least_s)):
                raise
        wait_s = min(wait_s * 2, 15.0)
