"""The parts of a request that signatures cover, and those of the answer that is bound to it (RFC 9421)."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = [
    "ANSWER",
    "COMPONENTS",
    "COVERED",
    "DIGEST",
    "GIVEN",
    "GIVEN_ANSWER",
    "METHOD",
    "NONCE",
    "SIGNATURE",
    "TAG",
    "URL",
    "Asked",
    "build_base",
    "content_digest",
]

COVERED = ("@method", "@path", "@query", "content-digest")
TAG = "hanse"

# A signed request as clients write it. Whatever matches here has one meaning only.
COMPONENTS = tuple(f'"{name}"' for name in COVERED)
GIVEN = re.compile(
    rf"{TAG}=(?P<parameters>\({re.escape(' '.join(COMPONENTS))}\);created=(?P<created>[1-9][0-9]{{9}})"
    rf';keyid="(?P<keyid>[0-9a-z-]{{1,64}})";alg="ed25519";nonce="(?P<nonce>[0-9A-Za-z_-]{{1,64}})"'
    rf';tag="{TAG}")'
)
SIGNATURE = re.compile(rf"{TAG}=:(?P<bytes>[0-9A-Za-z+/]{{86}}==):")
DIGEST = re.compile(r"sha-256=:[0-9A-Za-z+/]{43}=:")
URL = re.compile(
    r"https://[0-9a-z.-]+(?::[0-9]{1,4})?(?P<path>(?:/[0-9A-Za-z_-]+)+)(?P<query>\?[0-9A-Za-z_=&.-]+)?"
)
METHOD = re.compile(r"[A-Z]+")

NONCE = re.compile(r"[ !#-\[\]-~]{1,64}")  # whatever needs no escape in a field

ANSWER = "hanse-answer"
"""The tag of signed answers."""

ANSWERED = ("@status", "content-digest")
ASKED = ("@method", "@path", "@query", "content-digest", "signature")
ANSWER_COMPONENTS = (*(f'"{name}"' for name in ANSWERED), *(f'"{name}";req' for name in ASKED))

# A signed answer as servers write it. No other notation is accepted.
GIVEN_ANSWER = re.compile(
    rf"{TAG}=(?P<parameters>\({re.escape(' '.join(ANSWER_COMPONENTS))}\);created=[1-9][0-9]{{9}}"
    rf';keyid="server";alg="ed25519";nonce="(?P<nonce>{NONCE.pattern})";tag="{ANSWER}")'
)


def content_digest(sha256: bytes) -> str:
    """Returns the Content-Digest field of a body with this SHA-256."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def build_base(covered: Mapping[str, str], given: str) -> bytes:
    """Builds the signature base of RFC 9421, section 2.5: components, and the parameters of the signature."""
    lines = [*(f"{name}: {text}" for name, text in covered.items()), f'"@signature-params": {given}']
    return "\n".join(lines).encode()


@dataclass(frozen=True)
class Asked:
    """A signed request: as the client sent it, or as the server verified it. Its answer is bound to it.

    Args:
      query: with its question mark, which stands alone if there is none.
      digest: the Content-Digest field.
      signature: the Signature field.
    """

    method: str
    path: str
    query: str
    digest: str
    nonce: str
    signature: str

    @classmethod
    def read(cls, method: str, url: str, headers: Mapping[str, str]) -> "Asked":
        """Reads a request that `Identity.sign` has signed.

        Args:
          headers: of the request, with names in lower case.
        """
        parts = urlsplit(url)
        nonce = headers["signature-input"].partition(';nonce="')[2].partition('"')[0]
        digest, signature = headers["content-digest"], headers["signature"]
        return cls(method.upper(), parts.path or "/", f"?{parts.query}", digest, nonce, signature)

    def cover(self, status: int, digest: str) -> dict[str, str]:
        """Returns the components that the signature of an answer covers.

        Args:
          status, digest: of the answer.
        """
        asked = (self.method, self.path, self.query, self.digest, self.signature)
        return dict(zip(ANSWER_COMPONENTS, (str(status), digest, *asked), strict=True))
