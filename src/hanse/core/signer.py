"""A key that signs for a real party in protocols between clients, so that a server can't invent parties."""

from dataclasses import field
from typing import Final

from hanse.core.values import value
from hanse.core.work import VOLATILE

__all__ = ["MIN_COHORT", "PLAN_DIGEST", "SIGNER", "Signer", "write_certificate"]

SIGNER: Final = f"{VOLATILE}signer"
"""The name in memory under which a work whose `signs` is true finds its party's Signer.

The client puts it there for such a work, and no server can. Simulated parties have none.
"""


MIN_COHORT: Final = f"{VOLATILE}min cohort"
"""The name in memory, beside the Signer, of the fewest clients that a party's owner wants in one total."""

PLAN_DIGEST: Final = f"{VOLATILE}plan"
"""The name in memory, beside the Signer, of a digest of all in a run's plan by which its party computes."""


@value
class Signer:
    """A key for protocols, certified by a client's own key, which never leaves the client's process.

    Args:
      identity: the public half of the client's own key.
      certificate: signed with that key, see `write_certificate`.
      secret: 32 bytes of an Ed25519 key.
    """

    identity: bytes
    certificate: bytes
    secret: bytes = field(repr=False)


def write_certificate(public: bytes, identity: bytes) -> bytes:
    """Writes the sentence that a client's own key signs."""
    return f"hanse: {public.hex()} signs in protocols for {identity.hex()}".encode()
