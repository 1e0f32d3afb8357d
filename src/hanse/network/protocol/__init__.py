"""The parts that clients and servers share: messages, signatures, certificates, tokens and uploads."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.network.protocol import certificates
    from hanse.network.protocol.certificates import fingerprint, make
    from hanse.network.protocol.errors import Refused, Unreachable
    from hanse.network.protocol.signing import Identity, sha256
    from hanse.network.protocol.spool import hash_chunks
    from hanse.network.protocol.tokens import Token
    from hanse.network.protocol.wire import CHUNK_BYTES, WAIT_S, Invitation, Invited, Plan, Rotated, Rotation
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.network.protocol.certificates": ("fingerprint", "make"),
            "hanse.network.protocol.errors": ("Refused", "Unreachable"),
            "hanse.network.protocol.signing": ("Identity", "sha256"),
            "hanse.network.protocol.spool": ("hash_chunks",),
            "hanse.network.protocol.tokens": ("Token",),
            "hanse.network.protocol.wire": (
                "CHUNK_BYTES",
                "Invitation",
                "Invited",
                "Plan",
                "Rotated",
                "Rotation",
                "WAIT_S",
            ),
        },
    )


__all__ = [
    "CHUNK_BYTES",
    "WAIT_S",
    "Identity",
    "Invitation",
    "Invited",
    "Plan",
    "Refused",
    "Rotated",
    "Rotation",
    "Token",
    "Unreachable",
    "certificates",
    "fingerprint",
    "hash_chunks",
    "make",
    "sha256",
]
