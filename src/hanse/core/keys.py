"""Splittable keys: the only source of randomness.

A key is a 32-byte digest. Folding a path into it gives a new, independent key, so that every draw
is named by where it happens (round, client, stage) and never by what was drawn before it.
There is no global generator.

References: Claessen, Palka, "Splittable pseudorandom number generators using cryptographic
hashing", Haskell 2013.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from hanse.core.secret_rng import SecretRng

__all__ = ["ClientKeys", "Key", "Keys"]


class _Seed(ISeedSequence):
    """Hands a digest to NumPy's bit generator as it is: 1 us instead of a SeedSequence's 6."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        words = np.frombuffer(self._digest, dtype=dtype)
        if len(words) < n_words:
            raise ValueError(f"a key holds {len(words)} words of {dtype}, {n_words} were asked for")
        return words[:n_words]


@dataclass(frozen=True, slots=True)
class Key:
    """A 32-byte key.

    >>> root = Key.from_seed(7)
    >>> root.fold_in("round", 3) == root.fold_in("round").fold_in(3)
    True
    >>> root.fold_in("round", 3) == root.fold_in("round", "3")
    False
    """

    digest: bytes

    @classmethod
    def from_seed(cls, seed: int) -> "Key":
        """Derives the key of an integer, of any size and sign."""
        return cls(hashlib.blake2b(b"hanse seed %d" % seed, digest_size=32).digest())

    @classmethod
    def from_entropy(cls) -> "Key":
        """Draws a key that nobody can guess, from the operating system."""
        return cls(secrets.token_bytes(32))

    def fold_in(self, *path: str | int) -> "Key":
        """Derives the key at `path` below this one."""
        digest = self.digest
        for step in path:
            word = b"s" + step.encode() if isinstance(step, str) else b"i%d" % step
            digest = hashlib.blake2b(word, key=digest, digest_size=32).digest()
        return Key(digest)

    def rng(self) -> np.random.Generator:
        """Returns a fresh generator; the same key gives the same draws.

        Its draws can be predicted from earlier ones: what protects people comes from `secret_rng`.
        """
        return np.random.Generator(np.random.PCG64(cast(Any, _Seed(self.digest))))

    def secret_rng(self) -> SecretRng:
        """Returns a fresh cryptographic generator, for noise, masks and secret choices."""
        return SecretRng(self.digest)


@dataclass(frozen=True, slots=True)
class Keys:
    """A public key and a secret one, folded together.

    `public` draws what everybody may recompute (batches, masks that travel as a seed); `secret`
    draws what protects people (noise, pairwise masks). Neither determines the other, and only
    public keys are ever sent.
    """

    public: Key
    secret: Key

    @classmethod
    def from_seed(cls, seed: int) -> "Keys":
        """Derives both roots of a simulated run: reproducible, but they protect nobody."""
        root = Key.from_seed(seed)
        return cls(root.fold_in("public"), root.fold_in("secret"))

    @classmethod
    def for_deployment(cls, seed: int) -> "Keys":
        """Derives the public root of `seed`, and draws a secret one from the operating system."""
        return cls(Key.from_seed(seed).fold_in("public"), Key.from_entropy())

    def fold_in(self, *path: str | int) -> "Keys":
        """Derives both keys at `path`."""
        return Keys(self.public.fold_in(*path), self.secret.fold_in(*path))


class ClientKeys:
    """The keys of several clients. Each is derived when it is asked for, since most stages draw nothing.

    >>> keys = ClientKeys(2, lambda number: Keys.from_seed(number))
    >>> keys.fold_in("clip")[1] == Keys.from_seed(1).fold_in("clip")
    True

    Args:
      count: the number of clients.
      derive: derives the keys of the client at an index.
    """

    def __init__(self, count: int, derive: Callable[[int], Keys]) -> None:
        self._count, self._derive = count, derive

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Keys:
        return self._derive(range(self._count)[index])

    def fold_in(self, *path: str | int) -> "ClientKeys":
        """Derives the keys at `path` of each client."""
        return ClientKeys(self._count, lambda index: self[index].fold_in(*path))
