import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core import Key, Steps
from hanse.learners import batches

KEY = Key.from_seed(5)


@given(n=st.integers(1, 50), size=st.integers(1, 60), epochs=st.integers(1, 3))
def test_each_epoch_visits_every_example_once(n: int, size: int, epochs: int) -> None:
    steps = Steps(0.1, epochs=epochs, batch_size=size)
    got = [np.arange(n)[rows] for rows in batches(n, steps, KEY)]
    assert len(got) == steps.count_steps(n)
    assert all(len(rows) <= size for rows in got)
    per_epoch = len(got) // epochs
    for epoch in range(epochs):
        visited = np.concatenate(got[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert sorted(visited) == list(range(n))


def test_epochs_have_fresh_orders_named_by_their_number() -> None:
    first, second = batches(10, Steps(0.1, epochs=2, batch_size=9), KEY), KEY.fold_in("epoch", 1).rng()
    got = np.concatenate(list(first))
    np.testing.assert_array_equal(got[:10], KEY.fold_in("epoch", 0).rng().permutation(10))
    np.testing.assert_array_equal(got[10:], second.permutation(10))


@pytest.mark.parametrize("size", [None, 10, 11])
def test_full_batches_draw_nothing(size: int | None) -> None:
    assert list(batches(10, Steps(0.1, epochs=2, batch_size=size), KEY)) == [slice(None), slice(None)]
