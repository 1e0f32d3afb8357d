"""The parts that clients and servers share: messages, signatures, certificates, tokens and uploads."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.network.protocol import certificates
    from hanse.network.protocol.answers import AnswerVerifier
    from hanse.network.protocol.asked import Asked
    from hanse.network.protocol.certificates import fingerprint, make
    from hanse.network.protocol.envelope import Envelopes, describe_ticket
    from hanse.network.protocol.envelope_words import find_at_home
    from hanse.network.protocol.errors import Forbidden, Refused, Unreachable, Unsuited
    from hanse.network.protocol.house import check_is_home, claim_home, find_readable, keep_private
    from hanse.network.protocol.private_files import (
        change_passphrase,
        encrypt_home,
        remove_passphrase,
        write_privately,
    )
    from hanse.network.protocol.sealed_plan import SealedPlan, read_plan, seal_plan
    from hanse.network.protocol.signing import Identity, sha256
    from hanse.network.protocol.spool import hash_chunks
    from hanse.network.protocol.tokens import Token
    from hanse.network.protocol.wire import (
        CHUNK_BYTES,
        LIST_BYTES,
        WAIT_S,
        AuditHead,
        Code,
        Doing,
        Failure,
        Invitation,
        Invited,
        Join,
        KeptHead,
        Plan,
        PlanImport,
        Poll,
        Rekey,
        Rotated,
        Rotation,
        WorkOrder,
        printable,
    )
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.network.protocol.answers": ("AnswerVerifier",),
            "hanse.network.protocol.asked": ("Asked",),
            "hanse.network.protocol.certificates": ("fingerprint", "make"),
            "hanse.network.protocol.envelope": ("Envelopes", "describe_ticket"),
            "hanse.network.protocol.envelope_words": ("find_at_home",),
            "hanse.network.protocol.errors": ("Forbidden", "Refused", "Unreachable", "Unsuited"),
            "hanse.network.protocol.house": ("check_is_home", "claim_home", "find_readable", "keep_private"),
            "hanse.network.protocol.private_files": (
                "change_passphrase",
                "encrypt_home",
                "remove_passphrase",
                "write_privately",
            ),
            "hanse.network.protocol.sealed_plan": ("SealedPlan", "read_plan", "seal_plan"),
            "hanse.network.protocol.signing": ("Identity", "sha256"),
            "hanse.network.protocol.spool": ("hash_chunks",),
            "hanse.network.protocol.tokens": ("Token",),
            "hanse.network.protocol.wire": (
                "AuditHead",
                "CHUNK_BYTES",
                "Code",
                "Doing",
                "Failure",
                "Invitation",
                "Invited",
                "Join",
                "KeptHead",
                "LIST_BYTES",
                "Plan",
                "PlanImport",
                "Poll",
                "Rekey",
                "Rotated",
                "Rotation",
                "WAIT_S",
                "WorkOrder",
                "printable",
            ),
        },
    )


__all__ = [
    "CHUNK_BYTES",
    "LIST_BYTES",
    "WAIT_S",
    "AnswerVerifier",
    "Asked",
    "AuditHead",
    "Code",
    "Doing",
    "Envelopes",
    "Failure",
    "Forbidden",
    "Identity",
    "Invitation",
    "Invited",
    "Join",
    "KeptHead",
    "Plan",
    "PlanImport",
    "Poll",
    "Refused",
    "Rekey",
    "Rotated",
    "Rotation",
    "SealedPlan",
    "Token",
    "Unreachable",
    "Unsuited",
    "WorkOrder",
    "certificates",
    "change_passphrase",
    "check_is_home",
    "claim_home",
    "describe_ticket",
    "encrypt_home",
    "find_at_home",
    "find_readable",
    "fingerprint",
    "hash_chunks",
    "keep_private",
    "make",
    "printable",
    "read_plan",
    "remove_passphrase",
    "seal_plan",
    "sha256",
    "write_privately",
]
