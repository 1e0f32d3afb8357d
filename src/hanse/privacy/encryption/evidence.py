"""Evidence: a short code by which the key holder sees that a ciphertext is the sum of members' ciphertexts.

Each member computes a secret linear function of its ciphertext and adds a secret pad of its own. Codes add up
as ciphertexts do. Who knows neither function nor pads can't make the code of any other combination: not of
one member's ciphertext alone, not of one that was left out or multiplied. All secrets follow from one that
the houses share and the server does not know.

References: Agrawal, Boneh, "Homomorphic MACs: MAC-based integrity for network coding", ACNS 2009.
"""

from collections.abc import Iterable

import numpy as np

from hanse.core import Array, Key, Keys, Memory, MessageError
from hanse.core.exchange import SIGNER
from hanse.privacy.encryption.bfv import Ciphertexts, bfv

__all__ = ["HOUSE_BYTES", "add_pads", "compute_codes", "name_house", "vouch_for"]

HOUSE_BYTES = 16
"""The bytes of the name of a house in a sum."""

NUM_FUNCTIONS = 2
"""The number of functions. A forged code fits each with a chance of 2^-32, so all with 2^-64."""

LIMB_BITS = 15


def compute_codes(scheme: bfv, session: Key, residues: Ciphertexts) -> Array:
    """Computes the linear functions of ciphertexts: (function, prime), uint64.

    Args:
      session: of the houses, for these keys and this question alone.

    Raises: MessageError: if a number is not below its prime, since a code would not see all its bits.
    """
    size = 2 * scheme.degree
    sums = np.zeros((scheme.num_primes, 4, 2 * NUM_FUNCTIONS), np.int64)
    shifts = np.arange(4, dtype=np.uint64)[:, None] * np.uint64(LIMB_BITS)
    draws = [session.fold_in("function", i).secret_rng() for i in range(scheme.num_primes)]
    for block in residues:
        for i, drawn in enumerate(draws):
            if (block[:, i] >= scheme.primes[i]).any():
                raise MessageError(f"a number of the ciphertexts is not below the prime {scheme.primes[i]}")
            factors = drawn.integers(2**32, (NUM_FUNCTIONS, size), np.uint32)
            halves = np.concatenate([factors & np.uint32(0xFFFF), factors >> np.uint32(16)])
            limbs = (block[:, i].reshape(1, size) >> shifts) & np.uint64((1 << LIMB_BITS) - 1)
            # At most 2^31 each, and 2^17 of them at most: a float64 holds the sum exactly.
            sums[i] += (limbs.astype(np.float64) @ halves.T.astype(np.float64)).astype(np.int64)
    codes = np.empty((NUM_FUNCTIONS, scheme.num_primes), np.uint64)
    for i, prime in enumerate(scheme.primes):
        for f in range(NUM_FUNCTIONS):
            low, high = sums[i, :, f].tolist(), sums[i, :, NUM_FUNCTIONS + f].tolist()
            total = sum(
                (a + (b << 16)) << (LIMB_BITS * n) for n, (a, b) in enumerate(zip(low, high, strict=True))
            )
            codes[f, i] = total % prime
    return codes


def add_pads(scheme: bfv, session: Key, codes: Array, names: Iterable[bytes]) -> Array:
    """Adds the pads of members to codes.

    Args:
      names: of the members' messages. A pad must cover one ciphertext alone: the difference of two codes of
        one pad is the function of a known ciphertext, and enough of them are the function itself.
    """
    whole = codes.astype(object)
    for name in names:
        drawn = session.fold_in("pad", name.hex()).secret_rng()
        for f in range(NUM_FUNCTIONS):
            for i in range(scheme.num_primes):
                whole[f, i] += int.from_bytes(drawn.bytes(16), "little")
    return np.asarray(whole % np.array(scheme.primes, object), np.uint64)


def vouch_for(session: Key, unused: Array) -> Array:
    """Vouches for a key pair, and for the pairs before it that were never used to decrypt."""
    return np.frombuffer(session.fold_in("vouch", unused.tobytes().hex()).digest, np.uint8)


def name_house(session: Key, memory: Memory, keys: Keys) -> bytes:
    """Names a house under one key pair: all the roles that it plays have one name, so that it counts once."""
    signer = memory.get(SIGNER)
    key = keys.secret.fold_in("name") if signer is None else session.fold_in("house", signer.identity.hex())
    return key.digest[:HOUSE_BYTES]
