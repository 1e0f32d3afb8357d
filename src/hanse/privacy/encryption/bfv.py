"""BFV: integers are encrypted under a public key, and ciphertexts add up to the ciphertext of the sum.

A ciphertext is handled as what it is, residues modulo primes. So adding is a few lines of NumPy, the server
needs no library for it, and nobody parses the serialised form of a stranger. Keys are made, and values are
encrypted and decrypted, by TenSEAL, which builds on Microsoft SEAL (extra `encryption`).

References: Brakerski, "Fully homomorphic encryption without modulus switching from classical GapSVP", CRYPTO
2012; Fan, Vercauteren, "Somewhat practical fully homomorphic encryption", ePrint 2012/144; Albrecht et al.,
"Homomorphic encryption standard", ePrint 2019/939, table 1 (parameters of 128-bit security).
"""

import math
from functools import cached_property, lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from hanse.core import Array, InvalidInput, MessageError, value

__all__ = ["Ciphertexts", "bfv", "decrypt", "encrypt", "load_tenseal", "make_key_pair"]

MOST_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
"""The most bits of all primes together at which 128-bit security holds, by degree."""

NOISE_BITS = 30
"""The bits that the noise of a fresh ciphertext takes, generously; each doubling of a sum takes one more."""

HEADER = b"\x5e\xa1\x10"
"""The first bytes of everything that SEAL serialises."""

Ciphertexts = Array
"""Residues of ciphertexts, uint64: (ciphertext, polynomial, prime, coefficient)."""


@value
class bfv:
    """The parameters of the encryption. The default holds sums of 40 bits, in blocks of 8,192 numbers.

    Args:
      degree: of the polynomials, which is the number of values in a ciphertext.
      modulus_bits: the size of each prime; the last one is not a part of ciphertexts.
      plain_bits: the size of the sums: they lie within ±2^(plain_bits - 1).
    Raises: InvalidInput: if these give less than 128 bits of security, or no room for sums.

    >>> bfv().num_primes, bfv().ciphertext_bytes
    (2, 262144)
    >>> bfv(degree=4096)
    Traceback (most recent call last):
    hanse.core.errors.InvalidInput: degree 4096 with primes of 180 bits is not secure: ...
    """

    degree: int = 8192
    modulus_bits: tuple[int, ...] = (60, 60, 60)
    plain_bits: int = 40

    def __post_init__(self) -> None:
        if self.degree not in MOST_BITS:
            raise InvalidInput(f"degree is {self.degree}; write one of {', '.join(map(str, MOST_BITS))}")
        if len(self.modulus_bits) < 2 or not all(20 <= bits <= 60 for bits in self.modulus_bits):
            raise InvalidInput(f"modulus_bits is {self.modulus_bits}; write two or more sizes from 20 to 60")
        total, most = sum(self.modulus_bits), MOST_BITS[self.degree]
        if total > most:
            larger = next((degree for degree, bits in MOST_BITS.items() if bits >= total), max(MOST_BITS))
            raise InvalidInput(
                f"degree {self.degree} with primes of {total} bits is not secure: 128-bit security allows "
                f"{most} bits at this degree (Homomorphic encryption standard, table 1); write "
                f"degree={larger}, or fewer bits"
            )
        least = math.ceil(math.log2(2 * self.degree)) + 3
        room = sum(self.modulus_bits[:-1]) - self.plain_bits - NOISE_BITS
        if not least <= self.plain_bits <= 60 or room < 10:
            raise InvalidInput(
                f"plain_bits is {self.plain_bits}; write {least} to 60, and leave {NOISE_BITS + 10} bits of "
                f"the primes {self.modulus_bits[:-1]} for noise"
            )

    @property
    def num_primes(self) -> int:
        """The number of primes of a ciphertext."""
        return len(self.modulus_bits) - 1

    @cached_property
    def primes(self) -> tuple[int, ...]:
        """The primes of a ciphertext, in its order."""
        found = {b: list(_find_primes(b, self.degree, self.modulus_bits.count(b))) for b in self.modulus_bits}
        return tuple(found[bits].pop() for bits in self.modulus_bits)[:-1]  # the smallest is taken first

    @cached_property
    def plain_modulus(self) -> int:
        """The prime modulo which sums are computed."""
        return _find_primes(self.plain_bits, self.degree, 1)[0]

    @property
    def most(self) -> int:
        """The largest absolute value of a sum."""
        return (self.plain_modulus - 1) // 2

    @property
    def max_terms(self) -> int:
        """The most ciphertexts that may be added up before their noise reaches the sum."""
        room: int = sum(self.modulus_bits[:-1]) - self.plain_bits - NOISE_BITS
        return int(2 ** min(room, 40))

    @property
    def public_bytes(self) -> int:
        """The bytes that a public key takes at most."""
        return 2 * len(self.modulus_bits) * self.degree * 8 + 4096

    @property
    def ciphertext_bytes(self) -> int:
        """The bytes of one ciphertext."""
        return 2 * self.num_primes * self.degree * 8

    def count_blocks(self, num_values: int) -> int:
        """Counts the ciphertexts that so many values take."""
        return -(-num_values // self.degree)


@lru_cache(maxsize=64)
def _find_primes(bits: int, degree: int, count: int) -> tuple[int, ...]:
    """Finds the largest primes of a size that are 1 modulo twice the degree, in descending order."""
    step, found = 2 * degree, list[int]()
    at = ((1 << bits) - 1) // step * step + 1
    while len(found) < count:
        if at < 1 << (bits - 1):
            raise InvalidInput(
                f"there are not {count} primes of {bits} bits for degree {degree}; write more bits"
            )
        if at < 1 << bits and _is_prime(at):
            found.append(at)
        at -= step
    return tuple(found)


_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
"""With these the test of Miller and Rabin makes no mistake below 2^64."""


def _is_prime(number: int) -> bool:
    if any(number % small == 0 for small in _WITNESSES):
        return number in _WITNESSES
    twos = (number - 1 & 1 - number).bit_length() - 1
    odd = (number - 1) >> twos
    for base in _WITNESSES:
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def load_tenseal() -> Any:
    """Imports TenSEAL. Raises: InvalidInput: if it is not installed."""
    try:
        import_module("zstandard")
        return import_module("tenseal")
    except ImportError:
        raise InvalidInput(
            "encrypted sums need the packages tenseal and zstandard: pip install 'hanse[encryption]'"
        ) from None


def make_key_pair(scheme: bfv) -> tuple[bytes, bytes]:
    """Makes a key pair of the operating system's random numbers; returns its public and secret halves."""
    seal = load_tenseal()
    context = seal.context(
        seal.SCHEME_TYPE.BFV,
        scheme.degree,
        plain_modulus=scheme.plain_modulus,
        coeff_mod_bit_sizes=list(scheme.modulus_bits),
        n_threads=1,
    )
    halves = []
    for secret in (False, True):
        halves.append(
            context.serialize(
                save_public_key=True,
                save_secret_key=secret,
                save_galois_keys=False,
                save_relin_keys=False,
            )
        )
    return halves[0], halves[1]


def encrypt(scheme: bfv, public: bytes, values: Array) -> Ciphertexts:
    """Encrypts integers of at most `scheme.most`, in blocks of `scheme.degree`.

    Args:
      public: a public key, from somebody who is known: it is parsed.
      values: int64, one-dimensional; zeros are put behind them.
    """
    seal = load_tenseal()
    context = seal.context_from(public, n_threads=1)
    blocks = scheme.count_blocks(values.size)
    padded = np.zeros(blocks * scheme.degree, np.int64)
    padded[: values.size] = values
    out = np.empty((blocks, 2, scheme.num_primes, scheme.degree), np.uint64)
    for block, row in zip(out, padded.reshape(blocks, -1), strict=True):
        _, body = _take_apart(seal.bfv_vector(context, row).serialize())
        block[:] = np.frombuffer(body, "<u8", offset=len(body) - block.nbytes).reshape(block.shape)
    return out


def decrypt(scheme: bfv, secret: bytes, residues: Ciphertexts) -> Array:
    """Decrypts the integers of ciphertexts, as int64 of one dimension."""
    seal = load_tenseal()
    context = seal.context_from(secret, n_threads=1)
    around, body = _take_apart(seal.bfv_vector(context, np.zeros(scheme.degree, np.int64)).serialize())
    values = np.empty((len(residues), scheme.degree), np.int64)
    for row, block in zip(values, residues, strict=True):
        own = np.ascontiguousarray(block, "<u8").tobytes()
        sealed = _put_together(around, body[: len(body) - len(own)] + own)
        row[:] = seal.bfv_vector_from(context, sealed).decrypt()
    return values.reshape(-1)


def _take_apart(vector: bytes) -> tuple[tuple[bytes, bytes], bytes]:
    """Takes a serialised vector apart: what names its size, SEAL's version, and the ciphertext itself."""
    at = vector.index(HEADER)
    named = vector[: vector.rindex(b"\x12", 0, at)]
    version, compression = vector[at + 3 : at + 5], vector[at + 5]
    body = vector[at + 16 :]
    if compression == 2:
        body = import_module("zstandard").ZstdDecompressor().decompress(body)
    elif compression != 0:
        raise MessageError(f"TenSEAL compresses by method {compression}, which this version does not read")
    return (named, version), body


def _put_together(around: tuple[bytes, bytes], body: bytes) -> bytes:
    """Serialises a vector around a ciphertext, without compression."""
    named, version = around
    whole = HEADER + version + b"\0\0\0" + (16 + len(body)).to_bytes(8, "little") + body
    size, length = len(whole), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return named + b"\x12" + bytes([*length, size]) + whole
