"""Small integers and sorted positions in few bits. All sizes follow from counts that both ends know.

Bits are kept plane by plane: first the lowest bit of every integer, then the next. So any number of bits
an integer packs and unpacks in a few passes over whole arrays.
"""

import numpy as np

from hanse.core import Array, MessageError

__all__ = ["count_bytes", "pack_bits", "pack_positions", "position_bytes", "unpack_bits", "unpack_positions"]


def count_bytes(size: int, bits: int) -> int:
    """Returns the bytes that `size` integers of this many bits take."""
    return -(-size * bits // 8)


def pack_bits(integers: Array, bits: int) -> Array:
    """Packs unsigned integers below 2^bits into bytes.

    >>> pack_bits(np.array([3, 0, 1, 2], np.uint8), 2)
    array([169], dtype=uint8)
    """
    planes = np.empty((bits, integers.size), bool)
    for j, plane in enumerate(planes):
        np.not_equal(integers & integers.dtype.type(1 << j), 0, out=plane)
    return np.packbits(planes)


def unpack_bits(packed: Array, bits: int, size: int, dtype: type[np.unsignedinteger] = np.uint8) -> Array:
    """Unpacks the `size` integers that `pack_bits` packed."""
    integers = np.zeros(size, dtype)
    planes = np.unpackbits(packed, count=bits * size).reshape(bits, size)
    for j, plane in enumerate(planes):
        integers |= plane.astype(dtype, copy=False) << dtype(j)
    return integers


def _num_low_bits(count: int, size: int) -> int:
    return max(0, (size // max(1, count)).bit_length() - 1)


def position_bytes(count: int, size: int) -> tuple[int, int]:
    """Returns the bytes of the low and of the high part of `count` positions below `size`."""
    low = _num_low_bits(count, size)
    return count_bytes(count, low), -(-(count + (size >> low)) // 8)


def pack_positions(positions: Array, size: int) -> tuple[Array, Array]:
    """Packs strictly rising positions below `size` into about 2 + log2(size / count) bits each.

    The low bits of each are packed as they are. The high parts rise too, and are written in unary: bit
    high_i + i is set. References: Elias, "Efficient storage and retrieval by content and address of
    static files", Journal of the ACM 1974; Fano 1971.

    >>> unpack_positions(*pack_positions(np.array([2, 3, 90]), 100), 3, 100)
    array([ 2,  3, 90])
    """
    count = len(positions)
    bits = _num_low_bits(count, size)
    low = pack_bits((positions & ((1 << bits) - 1)).astype(np.uint32), bits)
    unary = np.zeros(count + (size >> bits), np.uint8)
    unary[(positions >> bits) + np.arange(count)] = 1
    return low, np.packbits(unary)


def unpack_positions(low: Array, high: Array, count: int, size: int) -> Array:
    """Unpacks positions from arrays whose lengths are `position_bytes`.

    Raises: MessageError: if their number is not `count`, or they do not rise, or reach `size`.
    """
    bits = _num_low_bits(count, size)
    ones = np.flatnonzero(np.unpackbits(high))
    if len(ones) != count:
        raise MessageError(f"{len(ones)} positions, but {count} are needed")
    positions = ((ones - np.arange(count)) << bits) | unpack_bits(low, bits, count, np.uint32).astype(
        np.int64
    )
    if count and (positions[-1] >= size or (np.diff(positions) <= 0).any()):
        raise MessageError(f"positions that do not rise strictly from 0 to below {size}")
    return positions
