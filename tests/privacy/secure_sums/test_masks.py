import numpy as np
import pytest

from hanse.privacy.secure_sums import add_masks

KEYS = [(bytes([number]) * 16 + b"\xff" * 16, number % 2 == 0) for number in range(3)]
"""Their counters wrap within the first block, which a piece that begins later must allow for."""


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("size", [0, 1, 7, 1001, 300_001])
@pytest.mark.parametrize("num_threads", [2, 3])
def test_threads_add_the_masks_that_one_adds(
    dtype: type[np.unsignedinteger], size: int, num_threads: int
) -> None:
    alone, together = np.arange(size, dtype=dtype), np.arange(size, dtype=dtype)
    add_masks(alone, KEYS)
    add_masks(together, KEYS, num_threads=num_threads)
    np.testing.assert_array_equal(alone, together)
    assert size < 7 or not np.array_equal(alone, np.arange(size, dtype=dtype))
