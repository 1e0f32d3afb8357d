"""Join tokens, which are invitations as text."""

import base64
from dataclasses import dataclass

from hanse.core import InvalidInput
from hanse.network.protocol.signing import Identity

__all__ = ["Token"]


RAW_BYTES = 80
"""32 of the fingerprint, 16 of the secret, 32 of the key. A token without the key would bind to nobody."""


@dataclass(frozen=True)
class Token:
    """An invitation as text: the certificate's fingerprint, a secret that is good once, the server's key.

    >>> token = Token("ab" * 32, b"0" * 16, "cd" * 32)
    >>> Token.parse(str(token)) == token
    True

    Args:
      fingerprint: of the certificate that the server shows.
      secret: is good for one client to join. It is never sent: the key that is made of it signs requests.
      key: the public key of the server, which signs its answers.
    """

    fingerprint: str
    secret: bytes
    key: str

    def __str__(self) -> str:
        raw = bytes.fromhex(self.fingerprint) + self.secret + bytes.fromhex(self.key)
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    @property
    def invitation(self) -> Identity:
        """The key of the invitation, of which the server knows the public half only."""
        return Identity.derive(self.secret)

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Reads a token from text. Raises: InvalidInput."""
        try:
            raw = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        except ValueError:
            raw = b""
        if len(raw) != RAW_BYTES:
            raise InvalidInput(
                f"{text[:8]!r}... ({len(text)} characters) is not a join token, which has 107 characters; "
                "copy the whole line or file of the operator"
            )
        return cls(raw[:32].hex(), raw[32:48], raw[48:].hex())
