"""Answers, as clients check them before anything in them is decompressed or parsed; and their receipts."""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import httpx
from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel, ValidationError

from hanse.core import InvalidInput
from hanse.network.protocol.asked import GIVEN_ANSWER, SIGNATURE, Asked, build_base, content_digest
from hanse.network.protocol.errors import Refused, Unreachable
from hanse.network.protocol.signing import public_key, sha256
from hanse.network.protocol.wire import CHUNK_BYTES, WAIT_S, Problem, printable

__all__ = [
    "UNPROVEN",
    "AnswerVerifier",
    "Reply",
    "hasten",
    "read_answer",
    "read_body",
    "read_json",
    "read_refusal",
]

M = TypeVar("M", bound=BaseModel)

ANSWER_S = 60.0
"""The seconds within which the body of a small answer must arrive, once its headers have."""

SLOW_S, SLOW_BYTES = 60.0, 1 << 16
"""A download that brings fewer bytes in so many seconds is given up, and goes on later from there."""

BLOCK_BYTES = 1 << 18
"""The bytes of a download that are hashed and written at a time."""

MAX_CONTAINERS = 100_000
"""An answer of more objects and lists is not parsed: they take far more memory than their text."""

MOST_ERRORS = 20
"""So many errors of an answer are described; the text of more may be as large as a bomb."""


@dataclass(frozen=True)
class Reply:
    """An answer whose signature was checked, if the server's key is known.

    Args:
      content: as it came.
      receipt: see `AnswerVerifier.check`; empty: the server's key is not known.
    """

    status_code: int
    content: bytes
    receipt: Mapping[str, Any] = field(default_factory=dict)


class AnswerVerifier:
    """Checks that answers come from the holder of a key, and answer the request that was sent.

    Args:
      public: the key, in hexadecimal.
    """

    def __init__(self, public: str) -> None:
        self._key = public_key(public)

    def check(self, status: int, headers: Mapping[str, str], body: bytes, asked: Asked) -> dict[str, Any]:
        """Checks that the key holder gave this answer to this request, and returns the receipt.

        Args:
          headers: of the answer, with names in any case.
          body: as it came, before anything in it is decompressed or parsed.

        Raises: InvalidInput: if it did not.
        """
        said = {name.lower(): text for name, text in headers.items()}
        receipt = {
            "status": status,
            "answer": body.decode("utf-8", "replace"),
            "signature-input": said.get("signature-input", ""),
            "signature": said.get("signature", ""),
            "request": asdict(asked),
        }
        self._check(status, body, receipt, asked)
        return receipt

    def check_receipt(self, receipt: Mapping[str, Any]) -> None:
        """Checks the receipt of an earlier answer. Raises: InvalidInput: if the key holder gave none such."""
        try:
            asked, body = Asked(**receipt["request"]), receipt["answer"].encode()
            self._check(receipt["status"], body, receipt, asked)
        except (KeyError, TypeError, AttributeError):
            raise InvalidInput("the receipt lacks parts of a signed answer") from None

    def _check(self, status: int, body: bytes, said: Mapping[str, Any], asked: Asked) -> None:
        given = GIVEN_ANSWER.fullmatch(said["signature-input"])
        signature = SIGNATURE.fullmatch(said["signature"])
        if given is None or signature is None or given["nonce"] != asked.nonce:
            raise InvalidInput("the answer is not signed by the server for this request")
        covered = asked.cover(status, content_digest(sha256(body)))
        try:
            self._key.verify(base64.b64decode(signature["bytes"]), build_base(covered, given["parameters"]))
        except InvalidSignature:
            raise InvalidInput(
                "the answer is not signed by the server: status, body or request differ, or another signed it"
            ) from None


def read_body(response: httpx.Response, limit: int) -> bytes:
    """Reads the body of an answer as it comes. Raises: Refused: if it is too large; Unreachable: too slow."""
    blocks, size, until_s = [], 0, time.monotonic() + ANSWER_S
    for block in response.iter_raw():
        size += len(block)
        if size > limit:
            refused = Refused(response.status_code, "answer", f"an answer of more than {limit} bytes")
            refused.is_proven = False
            raise refused
        if time.monotonic() > until_s:
            raise Unreachable(f"an answer did not arrive within {ANSWER_S:g} s")
        blocks.append(block)
    return b"".join(blocks)


def hasten(response: httpx.Response, arrive: Callable[[int], None] = lambda size: None) -> Iterator[bytes]:
    """Yields a download as it comes, in blocks; the last one is lost if it is cut.

    Args:
      arrive: called with the number of bytes of each piece, as it arrives.

    Raises: Unreachable: if it is too slow.
    """
    since_s, size, block = time.monotonic(), 0, bytearray()
    for piece in response.iter_raw():
        arrive(len(piece))
        block += piece
        size += len(piece)
        if len(block) >= BLOCK_BYTES:
            yield bytes(block)
            block.clear()
        if time.monotonic() - since_s > SLOW_S:
            if size < SLOW_BYTES:
                raise Unreachable(f"the download brought {size} bytes in {SLOW_S:g} s")
            since_s, size = time.monotonic(), 0
    yield bytes(block)


def read_json(path: str, reply: Reply) -> Any:
    """Returns an answer as plain data. Raises: Refused."""
    if _is_bomb(reply.content):
        raise Refused(502, "answer", f"the answer to {path} has more than {MAX_CONTAINERS} lists and objects")
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError) as error:
        raise Refused(502, "answer", f"the answer to {path} is not JSON: {error}") from None


def _is_bomb(content: bytes) -> bool:
    return content.count(b"{") + content.count(b"[") > MAX_CONTAINERS


def read_answer(kind: type[M], path: str, answer: Any) -> M:
    """Makes a message of plain data. Raises: Refused."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        many = error.error_count()
        why = str(error) if many <= MOST_ERRORS else f"it has {many} errors"
        raise Refused(502, "answer", f"the answer to {path} can't be read: {why:.2000}") from None


def read_refusal(status: int, content: bytes) -> tuple[Refused, float | None]:
    """Returns a refusal, and the time of the server if it names that."""
    try:
        problem = Problem.model_validate_json(b"" if _is_bomb(content) else content)
    except ValidationError:
        return _explain_status(status, content), None
    return Refused(status, problem.code, problem.why), problem.time


def _explain_status(status: int, content: bytes) -> Refused:
    """Returns what an answer means that is none of the server's."""
    if status == 413:
        most = f"it must let {CHUNK_BYTES >> 20} MiB pass (nginx: client_max_body_size 16m)"
        return Refused(413, "proxy", f"a proxy in front of the server refuses large bodies; {most}")
    if status == 504:
        least = f"it must wait for more than {WAIT_S:g} s (nginx: proxy_read_timeout 60s)"
        return Refused(504, "proxy", f"a proxy in front of the server cut the request off; {least}")
    if status in (502, 503):
        return Refused(status, "unavailable", "no server answers behind the proxy")
    text = printable(content[:200].decode("utf-8", "replace").strip())
    return Refused(status, "answer", f"answered with {status}: {text}")


UNPROVEN = frozenset({"unavailable", "proxy", "unsigned", "skewed", "replayed"})
"""Codes of refusals that keep their names without a signature. After any such, the client asks again."""
