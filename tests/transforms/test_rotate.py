import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from hanse.core import InvalidInput, Key, Keys, Part, Spec, Total
from hanse.transforms import per_client, rotate

KEYS = Keys.from_seed(1)
OTHER = Key.from_seed(2)
shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12)


def there(stage, values, key=KEYS.public):
    return stage.encode(key, Part(values), {}, KEYS)[0].values


def back(stage, values, key=KEYS.public):
    return stage.decode(None, key, Total(values, 1.0, 1), KEYS.secret)[0].values


@settings(deadline=None)
@given(shapes, st.sampled_from([2, 4, 64, 4096]), st.sampled_from(["float32", "float64"]))
def test_a_rotation_keeps_lengths_and_angles_and_is_undone(shape, block, dtype):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, *shape)).astype(dtype)
    stage = rotate(block)(Spec.of({"w": x}))
    u, v = (there(stage, {"w": z})["w"] for z in (x, y))
    assert (u.shape, u.dtype) == (x.shape, x.dtype)
    exact = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(np.sum(u * v), np.sum(x * y), **exact)
    np.testing.assert_allclose(np.sum(u * u), np.sum(x * x), **exact)
    np.testing.assert_allclose(back(stage, {"w": u})["w"], x, **exact)


def test_it_is_the_hadamard_matrix_after_random_signs():
    size = 16
    stage = rotate(block=size)(Spec.of({"w": np.zeros(size)}))
    columns = np.stack([there(stage, {"w": row})["w"] for row in np.eye(size)], axis=1)
    hadamard = np.ones((1, 1))
    while len(hadamard) < size:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    signs = columns[0] * np.sqrt(size)
    np.testing.assert_allclose(np.abs(signs), 1)
    np.testing.assert_allclose(columns, hadamard * signs / np.sqrt(size), atol=1e-15)


@pytest.mark.parametrize("size", [64, 100, 127, 1000])
def test_a_spike_is_spread_over_its_whole_block(size):
    spike = np.zeros(size)
    spike[size // 3] = 1.0
    stage = rotate()(Spec.of({"w": spike}))
    spread = there(stage, {"w": spike})["w"]
    assert np.abs(spread).max() <= 4 / np.sqrt(size)


def test_rounds_and_tensors_draw_apart_and_follow_from_the_key():
    values = {"w": np.ones(64), "v": np.ones(64)}
    stage = rotate()(Spec.of(values))
    one, again, other = (there(stage, values, key) for key in (KEYS.public, KEYS.public, OTHER))
    np.testing.assert_array_equal(one["w"], again["w"])
    assert (one["w"] != other["w"]).any()
    assert (one["w"] != one["v"]).any()


def test_drawn_per_client_it_is_opened_before_the_fold():
    x = {"w": np.arange(10.0)}
    stage = rotate(drawn=per_client())(Spec.of(x))
    assert stage.decode is None
    assert not stage.out.summable
    sent, _ = stage.encode(None, Part(x), {}, KEYS)
    np.testing.assert_allclose(stage.open(None, sent, KEYS.public).values["w"], x["w"], atol=1e-12)


def test_after_what_each_client_draws_it_is_opened_though_shared():
    stage = rotate()(Spec.of({"w": np.zeros(8)}, summable=False))
    assert stage.open is not None
    assert stage.decode is None


def test_bounds_stay():
    assert rotate()(Spec.of({"w": np.zeros(8)}, l2_bound=2.0)).out.l2_bound == 2.0


@pytest.mark.parametrize("block", [0, 1, 3, 1000, -4])
def test_a_block_is_a_power_of_two(block):
    with pytest.raises(InvalidInput, match="power of two"):
        rotate(block)
