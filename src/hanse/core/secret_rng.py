"""Draws that nobody can predict: a generator over a cryptographic stream, for noise, masks and cohorts.

The stream is SHAKE-256 of the key and a counter, a block at a time. It comes from the standard library, so
all installations draw alike. Methods have the names of NumPy's `Generator`.

References: NIST FIPS 202 (SHAKE-256); Marsaglia, Bray, "A convenient method for generating normal variables",
SIAM Review 1964 (the polar method).
"""

import math
from hashlib import shake_256
from typing import Any

import numpy as np

from hanse.core.errors import InvalidInput
from hanse.core.tensors import Array

__all__ = ["SecretRng"]

_DOMAIN = b"hanse secret stream"
_BLOCK_BYTES = (1 << 10, 1 << 13)
"""The sizes of the first blocks, which are small because most draws are."""

_LARGE_BLOCK_BYTES = 1 << 16
"""The size of all blocks after them."""

_MOST_NORMALS = 1 << 15
"""The number of pairs that are tried at once, so that they stay in the processor's cache."""


class SecretRng:
    """A generator of unpredictable draws. The same key gives the same draws.

    Args:
      digest: the 32 bytes of a key.

    >>> from hanse.core import Key
    >>> Key.from_seed(7).secret_rng().integers(6, 4).tolist()
    [3, 5, 0, 1]
    """

    def __init__(self, digest: bytes) -> None:
        self._prefix, self._blocks = _DOMAIN + digest, 0
        self._rest = memoryview(b"")

    def bytes(self, length: int) -> bytes:
        """Draws bytes."""
        return self._fill(np.empty(length, np.uint8)).tobytes()

    def _fill(self, out: Array) -> Array:
        """Fills an array with the next bytes of the stream."""
        into, at = out.view(np.uint8).data, 0
        while at < len(into):
            if not self._rest:
                size = _BLOCK_BYTES[self._blocks] if self._blocks < len(_BLOCK_BYTES) else _LARGE_BLOCK_BYTES
                block = shake_256(self._prefix + self._blocks.to_bytes(8, "little"))
                self._rest, self._blocks = memoryview(block.digest(size)), self._blocks + 1
            taken = self._rest[: len(into) - at]
            into[at : at + len(taken)] = taken
            self._rest, at = self._rest[len(taken) :], at + len(taken)
        return out

    def _words(self, size: int, kind: str = "<u8") -> Array:
        return self._fill(np.empty(size, kind))

    def integers(self, high: int, size: int | tuple[int, ...] = (), dtype: Any = None) -> Array:
        """Draws integers from 0 to below `high`, at most 2^64, all equally likely.

        Args:
          dtype: of the result; None: uint32 if they fit, else uint64.
        """
        if not 0 < high <= 2**64:
            raise InvalidInput(f"integers below {high}: write a bound from 1 to 2^64")
        kind = "<u4" if high <= 2**32 else "<u8"
        words = self._words(math.prod(_shape(size)), kind)
        largest = words.dtype.type(high - 1)
        if high & (high - 1) == 0:
            words &= largest
        else:  # draw again where a word is too large: its remainder would favour small numbers
            mask = words.dtype.type((1 << (high - 1).bit_length()) - 1)
            words &= mask
            again = np.flatnonzero(words > largest)
            while again.size:
                words[again] = self._words(again.size, kind) & mask
                again = again[words[again] > largest]
        return words.astype(dtype or words.dtype.newbyteorder("="), copy=False).reshape(size)

    def random(self, size: int | tuple[int, ...] = ()) -> Array:
        """Draws multiples of 2^-53, uniform in [0, 1)."""
        words = self._words(math.prod(_shape(size)))
        words >>= np.uint64(11)
        return np.asarray(words * 2.0**-53).reshape(size)

    def standard_normal(self, size: int | tuple[int, ...] = ()) -> Array:
        """Draws from the normal distribution of mean 0 and variance 1, in float64."""
        drawn = np.empty(math.prod(_shape(size)))
        at = 0
        while at < drawn.size:
            pairs = min(_MOST_NORMALS, (drawn.size - at) * 2 // 3 + 8)
            points = self._words(2 * pairs)
            points >>= np.uint64(11)
            x = points * 2.0**-52
            x -= 1.0
            x, y = x[:pairs], x[pairs:]
            squared = x * x + y * y
            inside = (squared < 1.0) & (squared > 0.0)
            squared = squared[inside]
            factor = np.sqrt(-2.0 * np.log(squared) / squared)
            for along in (x, y):
                found = (along[inside] * factor)[: drawn.size - at]
                drawn[at : at + found.size] = found
                at += found.size
        return drawn.reshape(size)

    def choice(self, num: int, size: int) -> Array:
        """Draws `size` of the numbers below `num` without replacement; all orders are equally likely."""
        if not 0 <= size <= num:
            raise InvalidInput(f"choice of {size} numbers below {num}: write a size from 0 to {num}")
        if 2 * size > num:
            return np.argsort(self._words(num), kind="stable")[:size]
        drawn = np.empty(0, np.int64)
        while drawn.size < size:
            more = self.integers(num, size - drawn.size, np.int64)
            drawn = np.concatenate([drawn, more])
            drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        return drawn

    def poisson_sample(self, num: int, rate: float) -> list[int]:
        """Draws each of the numbers below `num` independently with probability `rate`, in ascending order.

        The gaps between them are geometric, so that the cost is that of those drawn.
        """
        if not 0 < rate <= 1:
            raise InvalidInput(f"a rate of {rate}: write a number above 0 and at most 1")
        if rate == 1:
            return list(range(num))
        scale, at, found = math.log1p(-rate), -1, list[int]()
        while True:
            for below_one in self.random(64).tolist():
                at += 1 + int(math.log(1.0 - below_one) / scale)
                if at >= num:
                    return found
                found.append(at)


def _shape(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)
