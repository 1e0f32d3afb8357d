"""Signatures: Ed25519 keys, signed requests and answers (RFC 9421) and digests of bodies (RFC 9530).

A signature covers method, path, query, time, a nonce and the digest of the body. All of these are
headers, so a request is authenticated before any byte of its body is read.
"""

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature as InvalidKeySignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
)
from http_message_signatures.algorithms import ED25519

from hanse.core import InvalidInput, Key
from hanse.core.exchange import Signer, write_certificate
from hanse.network.protocol.asked import (
    ANSWER,
    COMPONENTS,
    COVERED,
    DIGEST,
    GIVEN,
    METHOD,
    NONCE,
    SIGNATURE,
    TAG,
    URL,
    Asked,
    build_base,
    content_digest,
)
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.private_files import make_private, read_private

__all__ = [
    "SKEW_S",
    "Identity",
    "Speaker",
    "Verifier",
    "check_proof",
    "content_digest",
    "digest_in",
    "public_key",
    "secret_at",
]

SKEW_S = 60
"""The seconds by which the two clocks may differ."""


def digest_in(headers: Mapping[str, str]) -> bytes:
    """Returns the SHA-256 that a Content-Digest field announces. Raises: Refused."""
    field = headers.get("content-digest", "")
    try:
        if not (field.startswith("sha-256=:") and field.endswith(":")):
            raise ValueError
        digest = base64.b64decode(field[9:-1], validate=True)
        if len(digest) != 32:
            raise ValueError
    except ValueError:
        raise Refused(401, "unsigned", "Content-Digest must be one sha-256 of the body") from None
    return digest


def public_key(raw: str) -> Ed25519PublicKey:
    """Makes a public key from its 32 bytes in hexadecimal. Raises: InvalidInput."""
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw))
    except ValueError:
        raise InvalidInput(f"{raw[:70]!r} is not an Ed25519 key; give 64 hexadecimal digits") from None


@dataclass
class _Message:
    """A request, with the attributes that the signature library reads."""

    method: str
    url: str
    headers: MutableMapping[str, str]


class _Keys(HTTPSignatureKeyResolver):  # type: ignore[misc,unused-ignore]
    def __init__(
        self, private: Ed25519PrivateKey | None, find: Callable[[str], Ed25519PublicKey | None]
    ) -> None:
        self._private, self._find = private, find

    def resolve_private_key(self, key_id: str) -> Any:
        return self._private

    def resolve_public_key(self, key_id: str) -> Any:
        return self._find(key_id)


class Identity:
    """A private key, which never leaves the machine that made it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.offset_s = 0.0
        """The seconds by which the other side's clock is ahead of ours."""

    @classmethod
    def generate(cls) -> "Identity":
        """Makes a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def derive(cls, secret: bytes) -> "Identity":
        """Makes the key of an invitation from its secret."""
        return cls(Ed25519PrivateKey.from_private_bytes(sha256(b"hanse: invitation\0" + secret)))

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """Reads a key from a PEM file."""
        key = serialization.load_pem_private_key(read_private(path), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidInput(f"{path} does not hold an Ed25519 key")
        return cls(key)

    @classmethod
    def at(cls, path: Path) -> "Identity":
        """Reads the key at a path; makes one there if there is none, readable by its owner only."""
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            make_private(path, pem)
        return cls.load(path)

    @property
    def public(self) -> str:
        """The public key in hexadecimal."""
        return self._private.public_key().public_bytes_raw().hex()

    def sign(self, key_id: str, method: str, url: str, body_sha256: bytes) -> dict[str, str]:
        """Returns the headers that sign a request.

        Args:
          key_id: the name by which the other side knows the key.
          url: an absolute one.
          body_sha256: of the body, which may be empty.
        """
        parts = urlsplit(url)
        digest = content_digest(body_sha256)
        said = method.upper(), parts.path or "/", f"?{parts.query}", digest
        covered = dict(zip(COMPONENTS, said, strict=True))
        about = f';keyid="{key_id}";alg="ed25519";nonce="{secrets.token_urlsafe(16)}";tag="{TAG}"'
        return {
            "Content-Digest": digest,
            **self._sign_components(covered, time.time() + self.offset_s, about),
        }

    def _sign_components(self, covered: Mapping[str, str], created_s: float, about: str) -> dict[str, str]:
        """Signs these components, in a tenth of the time that the library takes."""
        given = f"({' '.join(covered)});created={int(created_s)}{about}"
        signature = base64.b64encode(self._private.sign(build_base(covered, given))).decode()
        return {"Signature-Input": f"{TAG}={given}", "Signature": f"{TAG}=:{signature}:"}

    def prove(self, id: str) -> str:
        """Proves that whoever asks to replace a member's key holds this key."""
        return self._private.sign(_claim(id, self.public)).hex()

    def delegate(self) -> Signer:
        """Derives and certifies the key that signs for this one in protocols between clients."""
        secret = sha256(b"hanse: protocols\0" + self._private.private_bytes_raw())
        identity = bytes.fromhex(self.public)
        public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
        return Signer(identity, self._private.sign(write_certificate(public, identity)), secret)

    def permit(self, key_id: str, asked: Asked) -> str:
        """Proves, as an invitation's key, that a key may make this request; returns the Invitation field."""
        return f"{self.public}.{self._private.sign(_permission(self.public, key_id, asked)).hex()}"

    def sign_answer(self, status: int, body: bytes, asked: Asked) -> dict[str, str]:
        """Returns the headers that sign an answer.

        Args:
          status: of HTTP.
          asked: the request, which was verified.
        """
        digest = content_digest(sha256(body))
        about = f';keyid="server";alg="ed25519";nonce="{asked.nonce}";tag="{ANSWER}"'
        signed = self._sign_components(asked.cover(status, digest), time.time(), about)
        return {"Content-Digest": digest, **signed}


def _claim(id: str, public: str) -> bytes:
    return f"hanse: {public} is to be the key of {id}".encode()


def check_proof(id: str, public: str, proof: str) -> None:
    """Checks that `Identity.prove` made this proof. Raises: Refused: if it did not."""
    try:
        public_key(public).verify(bytes.fromhex(proof), _claim(id, public))
    except (InvalidKeySignature, ValueError, InvalidInput):
        raise Refused(422, "wrong", "the new key does not sign for itself", who=id) from None


def _permission(invitation: str, key_id: str, asked: Asked) -> bytes:
    about = (asked.method, asked.path, asked.query, asked.digest, asked.nonce, asked.signature)
    return "\n".join((f"hanse: the invitation {invitation} permits the key {key_id}", *about)).encode()


@dataclass(frozen=True)
class Speaker:
    """The signer of a request.

    Args:
      body_sha256: the SHA-256 that the body must have.
      created: the second at which the request was signed.
      asked: the request, as it was verified.
    """

    key_id: str
    body_sha256: bytes
    created: int
    asked: Asked

    def read_invitation(self, field: str) -> str:
        """Returns the public key of the invitation that permits this request.

        Args:
          field: the Invitation field.

        Raises: Refused: if none does.
        """
        invitation, _, proof = field.partition(".")
        try:
            said = _permission(invitation, self.key_id, self.asked)
            public_key(invitation).verify(bytes.fromhex(proof), said)
        except (InvalidKeySignature, ValueError, InvalidInput):
            why = "no invitation permits this request: prove one that was not used yet"
            raise Refused(403, "token", why) from None
        return invitation


class Verifier:
    """Checks signatures, each once.

    Nonces are remembered for as long as their time would be accepted. Requests that were signed before a
    restart are refused, so that nonces need not be kept on disk: a client signs again and goes on.

    Args:
      find: returns the public key of a key id; None: it is nobody's.
      clock: returns the seconds since the epoch.
    """

    def __init__(
        self, find: Callable[[str], Ed25519PublicKey | None], clock: Callable[[], float] = time.time
    ) -> None:
        self._find = find
        self._verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=_Keys(None, find))
        self._verifier.max_clock_skew = timedelta(days=36500)  # `_check_time` judges it, with a diagnosis
        self._clock = clock
        self._began = int(clock())
        self._lock = threading.Lock()
        self._seen: Final[dict[str, float]] = {}
        self._swept = clock()

    def verify(self, method: str, url: str, headers: Mapping[str, str]) -> Speaker:
        """Returns the signer of a request.

        Raises: Refused: if nobody signed it, if it was signed at another time, or if it was received before.
        """
        speaker = self.identify(method, url, headers)
        self.check_time(speaker)
        self.check_once(speaker)
        return speaker

    def identify(self, method: str, url: str, headers: Mapping[str, str]) -> Speaker:
        """Returns the signer of a request, at whatever time and however often. Raises: Refused."""
        signed = self._plain(method, url, headers) or self._by_library(method, url, headers)
        created, key_id, nonce = signed
        if not isinstance(nonce, str) or not NONCE.fullmatch(nonce):
            raise Refused(401, "unsigned", "a nonce of 1 to 64 characters is missing", who=key_id)
        parts, digest = urlsplit(url), headers.get("content-digest", "")
        asked = Asked(method, parts.path or "/", f"?{parts.query}", digest, nonce, headers["signature"])
        return Speaker(key_id, digest_in(headers), created, asked)

    def _plain(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[int, str, str] | None:
        """Returns time, key id and nonce of a request that is signed exactly as `Identity.sign` writes it.

        None: the library must judge it, which reads all notations and takes three times as long. It accepts
        whatever is accepted here, and refuses what is refused here.

        Raises: Refused: if nobody has the key. Strangers should cost the server little.
        """
        given = GIVEN.fullmatch(headers.get("signature-input", ""))
        signature = SIGNATURE.fullmatch(headers.get("signature", ""))
        digest = headers.get("content-digest", "")
        at = URL.fullmatch(url)
        if given is None or signature is None or at is None or not DIGEST.fullmatch(digest):
            return None
        key = self._find(given["keyid"])
        if key is None:
            raise Refused(
                401, "unsigned", "the request is not signed by a member: nobody here has its key id"
            )
        if not METHOD.fullmatch(method):
            return None
        covered = dict(zip(COMPONENTS, (method, at["path"], at["query"] or "?", digest), strict=True))
        try:
            key.verify(base64.b64decode(signature["bytes"]), build_base(covered, given["parameters"]))
        except InvalidKeySignature:
            return None
        return int(given["created"]), given["keyid"], given["nonce"]

    def _by_library(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[int, str, Any]:
        """Returns time, key id and nonce of a request that is signed in any notation. Raises: Refused."""
        try:
            (result,) = self._verifier.verify(
                _Message(method, url, dict(headers)), max_age=None, expect_tag=TAG, require_components=COVERED
            )
        except (InvalidSignature, ValueError) as error:
            raise Refused(401, "unsigned", f"the request is not signed by a member: {error}") from None
        return int(result.parameters["created"]), str(result.parameters["keyid"]), result.nonce

    def check_time(self, speaker: Speaker) -> None:
        """Checks that a request was signed now. Raises: Refused."""
        now, created = self._clock(), speaker.created
        if abs(now - created) > SKEW_S:
            side = "behind" if created < now else "ahead of"
            raise Refused(
                401,
                "skewed",
                f"the request was signed {abs(now - created):.0f} s {side} the server's time; set the clock",
            )
        if created < self._began:
            raise Refused(401, "skewed", "the request was signed before the server began; sign it again")

    def check_once(self, speaker: Speaker) -> None:
        """Checks that a request was not received before. Raises: Refused."""
        now, nonce = self._clock(), f"{speaker.key_id} {speaker.asked.nonce}"
        with self._lock:
            if now - self._swept > SKEW_S / 4:
                for old in [n for n, until in self._seen.items() if until < now]:
                    del self._seen[old]
                self._swept = now
            if nonce in self._seen:
                raise Refused(401, "replayed", "this request was received before", who=speaker.key_id)
            self._seen[nonce] = speaker.created + SKEW_S + 1


def sha256(data: bytes) -> bytes:
    """Returns the SHA-256 of bytes."""
    return hashlib.sha256(data).digest()


def secret_at(path: Path) -> Key:
    """Reads the root of secrets at a path; draws one if there is none, readable by its owner only."""
    if not path.exists():
        make_private(path, secrets.token_bytes(32))
    return Key(read_private(path))
