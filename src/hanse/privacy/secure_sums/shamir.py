"""Secret shares: any t of them reveal a number, and fewer say nothing about it.

References: Shamir, "How to share a secret", Communications of the ACM 1979.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

__all__ = ["PRIME", "SHARE_BYTES", "join_shares", "make_shares"]

PRIME = 2**256 - 189
"""The largest prime below 2^256."""

SHARE_BYTES = 32


def make_shares(
    secret: bytes, holders: Sequence[int], needed: int, draw: Callable[[int], bytes]
) -> list[bytes]:
    """Divides a secret into shares, one for each holder.

    Args:
      secret: 32 bytes, a number below the prime.
      holders: the numbers of those who get a share, from 0.
      needed: the number of shares that reveal the secret.
      draw: draws so many unpredictable bytes.

    >>> from hanse.core import Key
    >>> shares = make_shares(b"k" * 32, [0, 1, 5], 2, Key.from_seed(0).secret_rng().bytes)
    >>> join_shares({0: shares[0], 5: shares[2]})
    b'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk'
    """
    number = int.from_bytes(secret, "big")
    if number >= PRIME:
        raise ValueError("a secret must be below the prime")
    coefficients = [_draw(draw) for _ in range(needed - 1)]
    shares = []
    for holder in holders:
        x, value = holder + 1, 0
        for coefficient in coefficients:
            value = (value + coefficient) * x % PRIME
        shares.append(((value + number) % PRIME).to_bytes(SHARE_BYTES, "big"))
    return shares


def _draw(draw: Callable[[int], bytes]) -> int:
    """Draws a number below the prime; all are equally likely."""
    while True:
        number = int.from_bytes(draw(SHARE_BYTES), "big")
        if number < PRIME:
            return number


def join_shares(shares: Mapping[int, bytes]) -> bytes:
    """Reveals the secret of as many shares as are needed, by their holders."""
    total = sum(
        coefficient * int.from_bytes(share, "big")
        for coefficient, share in zip(_interpolate(tuple(shares)), shares.values(), strict=True)
    )
    return (total % PRIME).to_bytes(SHARE_BYTES, "big")


@lru_cache(maxsize=256)
def _interpolate(holders: tuple[int, ...]) -> tuple[int, ...]:
    """Computes the coefficients with which shares add up to the value of their polynomial at 0."""
    points = [holder + 1 for holder in holders]
    coefficients = []
    for x in points:
        above, below = 1, 1
        for other in points:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        coefficients.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(coefficients)
