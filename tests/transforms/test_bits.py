import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core import MessageError
from hanse.transforms.bits import (
    count_bytes,
    pack_bits,
    pack_positions,
    position_bytes,
    unpack_bits,
    unpack_positions,
)

sizes = st.integers(0, 300)


@settings(deadline=None)
@given(st.integers(1, 8), sizes)
def test_integers_come_back_from_as_few_bytes_as_hold_their_bits(bits, size):
    integers = np.random.default_rng(size).integers(0, 2**bits, size).astype(np.uint8)
    packed = pack_bits(integers, bits)
    assert packed.size == count_bytes(size, bits) == -(-size * bits // 8)
    np.testing.assert_array_equal(unpack_bits(packed, bits, size), integers)


@settings(deadline=None)
@given(st.integers(9, 32), sizes)
def test_wide_integers_come_back(bits, size):
    integers = np.random.default_rng(size).integers(0, 2**bits, size).astype(np.uint32)
    np.testing.assert_array_equal(unpack_bits(pack_bits(integers, bits), bits, size, np.uint32), integers)


def test_no_bits_hold_nothing():
    assert pack_bits(np.zeros(5, np.uint32), 0).size == 0
    np.testing.assert_array_equal(unpack_bits(np.zeros(0, np.uint8), 0, 5), np.zeros(5))


@settings(deadline=None)
@given(st.integers(0, 5000), st.data())
def test_positions_come_back_and_have_the_length_that_both_ends_know(size, data):
    count = data.draw(st.integers(0, size))
    positions = np.sort(np.random.default_rng(size).choice(size, count, replace=False))
    low, high = pack_positions(positions, size)
    assert (low.size, high.size) == position_bytes(count, size)
    np.testing.assert_array_equal(unpack_positions(low, high, count, size), positions)


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.01, 0.001])
def test_positions_take_little_more_than_their_entropy(fraction):
    size = 1_663_370
    count = int(fraction * size)
    entropy = -count * np.log2(fraction) - (size - count) * np.log2(1 - fraction)
    assert entropy < 8 * sum(position_bytes(count, size)) < entropy + count + 16


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 10), st.data())
def test_whatever_the_bytes_the_positions_are_so_many_rise_and_lie_within(size, count, data):
    count = min(count, size)
    lengths = position_bytes(count, size)
    low, high = (np.frombuffer(data.draw(st.binary(min_size=n, max_size=n)), np.uint8) for n in lengths)
    try:
        positions = unpack_positions(low, high, count, size)
    except MessageError:
        return
    assert len(positions) == count
    assert (np.diff(positions) > 0).all()
    assert positions[0] >= 0
    assert positions[-1] < size


def test_repeated_and_too_many_positions_are_refused():
    low, high = pack_positions(np.array([1, 2]), 8)
    with pytest.raises(MessageError, match="rise"):
        unpack_positions(np.zeros_like(low), np.packbits([1, 1, 0, 0]), 2, 8)
    with pytest.raises(MessageError, match="8 positions, but 2 are needed"):
        unpack_positions(low, np.full_like(high, 0xFF), 2, 8)
