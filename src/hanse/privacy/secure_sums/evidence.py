"""Evidence against a server that lies: who advertised a key, and who was told which survivors.

A client's own key certifies a key for protocols, which signs what the client advertises and the list of
survivors that it was sent. Others accept only members of the roster, which each house has approved.

References: Bonawitz et al., CCS 2017, section 6 (a public key infrastructure, and a consistency check).
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping

from hanse.core import Declined, InvalidInput, Memory, PartyId
from hanse.core.exchange import SIGNER, Signer, write_certificate
from hanse.privacy.secure_sums.masks import KEY_BYTES, load_cryptography

__all__ = [
    "PROOF_BYTES",
    "SIGNATURE_BYTES",
    "check_members",
    "check_signatures",
    "find_members",
    "find_signer",
    "make_proof",
    "read_roster",
    "sign_survivors",
]

SIGNATURE_BYTES = 64

PROOF_BYTES = 2 * KEY_BYTES + 2 * SIGNATURE_BYTES
"""The bytes that prove who advertises: identity, key for protocols, certificate and signature."""


def read_roster(roster: tuple[str, ...]) -> frozenset[bytes]:
    """Reads public keys. Raises: InvalidInput: if one is none, or is listed twice."""
    keys = []
    for given in roster:
        try:
            keys.append(bytes.fromhex(given))
        except ValueError:
            keys.append(b"")
        if len(keys[-1]) != KEY_BYTES:
            raise InvalidInput(
                f"roster lists {given!r}; write the 64 hexadecimal digits of a client's public key, as "
                "hanse clients --json shows it"
            )
    if len(set(keys)) != len(keys):
        raise InvalidInput(f"roster lists {len(keys)} keys, and only {len(set(keys))} different ones")
    return frozenset(keys)


def find_signer(memory: Memory) -> Signer | None:
    """Returns the key that signs for this party; None: it is simulated, and signs and checks nothing."""
    signer: Signer | None = memory.get(SIGNER)
    return signer


def _sign(signer: Signer, text: bytes) -> bytes:
    key = load_cryptography().ed25519.Ed25519PrivateKey.from_private_bytes(signer.secret)
    signature: bytes = key.sign(text)
    return signature


def _is_signed(public: bytes, signature: bytes, text: bytes) -> bool:
    try:
        load_cryptography().ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except Exception as error:
        if type(error).__name__ not in ("InvalidSignature", "ValueError"):
            raise
        return False
    return True


def _write_advert(round: bytes, advert: bytes) -> bytes:
    return b"hanse secure sum advertises" + hashlib.sha256(round + advert).digest()


def make_proof(signer: Signer | None, round: bytes, advert: bytes) -> bytes:
    """Proves who advertises a key in a round. A simulated party proves nothing."""
    if signer is None:
        return bytes(PROOF_BYTES)
    key = load_cryptography().ed25519.Ed25519PrivateKey.from_private_bytes(signer.secret)
    public: bytes = key.public_key().public_bytes_raw()
    return signer.identity + public + signer.certificate + _sign(signer, _write_advert(round, advert))


def _find_fault(roster: Collection[bytes], round: bytes, advert: bytes, proof: bytes) -> str | None:
    """Says what is wrong with the proof of who advertises a key; None: nothing is."""
    identity, public = proof[:KEY_BYTES], proof[KEY_BYTES : 2 * KEY_BYTES]
    certificate, signature = proof[2 * KEY_BYTES : -SIGNATURE_BYTES], proof[-SIGNATURE_BYTES:]
    if identity not in roster:
        return "is not in the roster"
    if not _is_signed(identity, certificate, write_certificate(public, identity)) or not _is_signed(
        public, signature, _write_advert(round, advert)
    ):
        return "has not signed what it is said to advertise"
    return None


def find_members(
    roster: Collection[bytes], round: bytes, adverts: Mapping[PartyId, tuple[bytes, bytes]]
) -> set[PartyId]:
    """Finds those whose proofs all others will accept, so that one bad proof ends nobody's sum.

    Args:
      adverts: what each advertises, and its proof; all zeros: it is simulated, and proves nothing.
    """
    if not any(any(proof) for _, proof in adverts.values()):
        return set(adverts)
    proven = {
        party: proof[:KEY_BYTES]
        for party, (advert, proof) in adverts.items()
        if _find_fault(roster, round, advert, proof) is None
    }
    times = Counter(proven.values())
    return {party for party, identity in proven.items() if times[identity] == 1}


def check_members(
    signer: Signer, roster: Collection[bytes], round: bytes, adverts: Mapping[int, tuple[bytes, bytes]]
) -> dict[int, bytes]:
    """Checks that all who advertise are different members of the roster.

    Args:
      adverts: by seat, what each of the others advertises, and its proof.

    Returns: the key for protocols of each.
    Raises: Declined: if one of them proves nothing.
    """
    if signer.identity not in roster:
        raise Declined("its own key is not in the roster of this sum: it may be an older one")
    seen, keys = {signer.identity}, dict[int, bytes]()
    for seat, (advert, proof) in adverts.items():
        identity, public = proof[:KEY_BYTES], proof[KEY_BYTES : 2 * KEY_BYTES]
        if fault := _find_fault(roster, round, advert, proof):
            raise Declined(f"the client at seat {seat} {fault}")
        if identity in seen:
            raise Declined(f"the client at seat {seat} has the key of another one")
        seen.add(identity)
        keys[seat] = public
    return keys


def _write_survivors(told: bytes) -> bytes:
    return b"hanse secure sum survivors" + told


def sign_survivors(signer: Signer | None, told: bytes) -> bytes:
    """Signs the digest of all that a client was told: the round, who advertised what, and who survived."""
    return bytes(SIGNATURE_BYTES) if signer is None else _sign(signer, _write_survivors(told))


def check_signatures(
    told: bytes, keys: Mapping[int, bytes], signatures: Mapping[int, bytes], needed: int
) -> None:
    """Checks that enough others were told the same. Raises: Declined: if they were not.

    Args:
      told: the digest of what this client was told.
      keys: for protocols, of the other survivors.
      signatures: by seat.
      needed: the number of clients that have to agree, this one included.
    """
    text = _write_survivors(told)
    agreeing = [s for s, key in keys.items() if s in signatures and _is_signed(key, signatures[s], text)]
    if len(agreeing) + 1 < needed:
        raise Declined(
            f"{len(agreeing)} others have signed the list of survivors that it was sent, and {needed - 1} "
            "have to"
        )
