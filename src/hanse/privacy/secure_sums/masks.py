"""Keys that two clients agree on, masks drawn from them, and messages that only the other one can read.

X25519 (RFC 7748) gives two clients a common secret, HKDF-SHA256 (RFC 5869) derives keys from it that are
bound to the round, the two clients and the purpose, AES-128 in counter mode draws masks from such a key, and
AES-256-GCM seals messages. All come from the package `cryptography`.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from hanse.core import Array, CompositionError

__all__ = [
    "KEY_BYTES",
    "SEAL_BYTES",
    "WINDOW_BYTES",
    "add_masks",
    "derive_key",
    "is_weak",
    "load_cryptography",
    "make_public",
    "read_secret",
    "seal",
    "unseal",
]

KEY_BYTES = 32

SEAL_BYTES = 16
"""The bytes that a sealed message is longer."""

BLOCK_BYTES = 16
"""The bytes of a block of AES, and of its counter."""

WINDOW_BYTES = 1 << 18
"""Masks are drawn and added in pieces of this size, which stay in the processor's cache."""


@cache
def load_cryptography() -> Any:
    """Imports what is used of `cryptography`. Raises: CompositionError: if it is not installed."""
    try:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise CompositionError(
            "secure sums need the package cryptography: pip install 'hanse[secure]', or 'hanse[server]'"
        ) from None

    class Loaded:
        """The classes that are used."""

    for used in (hashes, ed25519, x25519, Cipher, algorithms, modes, AESGCM, HKDF):
        setattr(Loaded, used.__name__.rpartition(".")[2], used)
    return Loaded


def read_secret(secret: bytes) -> Any:
    """Makes the private key of its 32 bytes; keep it, since that takes longer than to agree."""
    return load_cryptography().x25519.X25519PrivateKey.from_private_bytes(secret)


def make_public(secret: bytes) -> bytes:
    """Computes the public half of a private key."""
    public: bytes = read_secret(secret).public_key().public_bytes_raw()
    return public


WEAK = frozenset(
    bytes.fromhex(key)
    for key in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""The public keys of small order, whose common secret with anybody is 0, with the highest bit clear.

References: Bernstein, "Curve25519: new Diffie-Hellman speed records", PKC 2006; RFC 7748, section 6.1.
"""


def is_weak(public: bytes) -> bool:
    """Returns whether nobody can agree on a secret with the holder of a public key.

    A key whose highest bit is set counts as one, too: it stands for the key without that bit, so that
    somebody could advertise the key of another client as his own.
    """
    return bool(public[-1] & 0x80) or public in WEAK


def derive_key(mine: Any, theirs: bytes, context: bytes) -> bytes:
    """Derives the key that two clients have in common.

    Args:
      mine: the private key, from `read_secret`.
      theirs: the other's public key.
      context: all that the key is for: purpose, round, and both clients in a fixed order.
    """
    loaded = load_cryptography()
    common = mine.exchange(loaded.x25519.X25519PublicKey.from_public_bytes(theirs))
    derive = loaded.HKDF(algorithm=loaded.hashes.SHA256(), length=KEY_BYTES, salt=None, info=context)
    key: bytes = derive.derive(common)
    return key


def seal(key: bytes, text: bytes) -> bytes:
    """Seals the only message of a key."""
    sealed: bytes = load_cryptography().AESGCM(key).encrypt(bytes(12), text, None)
    return sealed


def unseal(key: bytes, sealed: bytes) -> bytes | None:
    """Opens a sealed message; None: it is not what was sealed under this key."""
    try:
        text: bytes = load_cryptography().AESGCM(key).decrypt(bytes(12), sealed, None)
    except Exception as error:
        if type(error).__name__ != "InvalidTag":
            raise
        return None
    return text


def add_masks(total: Array, masks: Iterable[tuple[bytes, bool]], *, num_threads: int = 1) -> None:
    """Adds the masks of keys to a vector of unsigned integers, in place, or subtracts them.

    Args:
      total: modulo 2^bits of its dtype.
      masks: keys of 32 bytes, a key of the cipher and its first counter; and whether the mask is added.
      num_threads: each takes a piece of the vector; the cipher and the sums leave Python to the others.
    """
    keys = list(masks)
    if num_threads == 1:
        _add_from(total, keys, 0)
        return
    share = -(-len(total) // num_threads)
    share += -share % (BLOCK_BYTES // total.itemsize)  # each piece begins with a block of the cipher
    begins = range(0, len(total), max(share, 1))
    with ThreadPoolExecutor(num_threads) as threads:
        pieces = [threads.submit(_add_from, total[begin : begin + share], keys, begin) for begin in begins]
        for piece in pieces:
            piece.result()


def _add_from(total: Array, masks: list[tuple[bytes, bool]], begin: int) -> None:
    """Adds the masks to a piece of a vector that begins with this number."""
    loaded = load_cryptography()
    past = begin * total.itemsize // BLOCK_BYTES
    begun = []
    for key, added in masks:
        counter = (int.from_bytes(key[16:], "big") + past) % (1 << 128)
        mode = loaded.modes.CTR(counter.to_bytes(BLOCK_BYTES, "big"))
        begun.append((loaded.Cipher(loaded.algorithms.AES(key[:16]), mode).encryptor(), added))
    window = WINDOW_BYTES // total.itemsize
    zeros = bytes(WINDOW_BYTES)
    buffer = np.empty(WINDOW_BYTES + 15, np.uint8)
    for start in range(0, len(total), window):
        piece = total[start : start + window]
        for stream, added in begun:
            stream.update_into(memoryview(zeros)[: piece.nbytes], buffer)
            mask = buffer[: piece.nbytes].view(total.dtype.newbyteorder("<"))
            (np.add if added else np.subtract)(piece, mask, out=piece)
