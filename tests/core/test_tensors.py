import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hanse.core.tensors import (
    add,
    add_scaled,
    all_finite,
    divide,
    dot,
    frozen,
    held_bytes,
    l2_norm,
    negate,
    num_bytes,
    scale,
    subtract,
    sum_squares,
    tree_map,
    windows,
    zeros_like,
)

shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
floats = st.sampled_from(["float32", "float64"])
named = st.dictionaries(
    st.text(max_size=3),
    floats.flatmap(lambda d: arrays(d, shapes, elements=st.floats(-1e6, 1e6, width=32))),
    max_size=3,
)


@given(named)
def test_the_inner_product_and_the_norm_are_those_of_all_values_in_a_row(tensors):
    flat = np.concatenate([np.float64([]), *(v.reshape(-1).astype(np.float64) for v in tensors.values())])
    assert dot(tensors, tensors) == pytest.approx(flat @ flat)
    assert l2_norm(tensors) == pytest.approx(np.linalg.norm(flat))


@given(named)
def test_the_inner_product_is_linear_and_symmetric(tensors):
    twice = tree_map(lambda v: 2 * v.astype(np.float64), tensors)
    assert dot(twice, tensors) == pytest.approx(2 * dot(tensors, tensors))
    assert dot(twice, tensors) == pytest.approx(dot(tensors, twice))


def test_single_precision_is_summed_in_double():
    large = {"w": np.full(10, 1e25, np.float32)}
    assert l2_norm(large) == pytest.approx(1e25 * np.sqrt(10), rel=1e-6)
    many = {"w": np.full(1_000_000, 0.1, np.float32)}
    assert dot(many, many) == pytest.approx(1_000_000 * float(np.float32(0.1)) ** 2, rel=1e-12)


@given(named)
def test_tree_map_keeps_names_shapes_and_order(tensors):
    mapped = tree_map(lambda a, b: a - b, tensors, dict(reversed(tensors.items())))
    assert list(mapped) == list(tensors)
    assert all(isinstance(v, np.ndarray) and not v.any() for v in mapped.values())
    assert [v.shape for v in mapped.values()] == [v.shape for v in tensors.values()]


@given(named, st.floats(-10, 10))
def test_arithmetic_rounds_as_its_formula_does_and_keeps_dtypes(tensors, factor):
    twice = add(tensors, tensors)
    for name, v in tensors.items():
        c = v.dtype.type(factor)
        for found, due in [
            (twice, v + v),
            (subtract(twice, tensors), (v + v) - v),
            (negate(tensors), -v),
            (scale(tensors, factor), c * v),
            (divide(tensors, 3.0), v / v.dtype.type(3)),
            (add_scaled(tensors, factor, twice), v + c * (v + v)),
            (add_scaled(tensors, -factor, twice), v - c * (v + v)),
        ]:
            assert (found[name].dtype, found[name].shape) == (v.dtype, v.shape)
            assert found[name].tobytes() == np.asarray(due).tobytes()


def test_a_fraction_of_integers_is_not_cut_off():
    counts = {"count": np.array([3], np.int64)}
    assert scale(counts, 2.0)["count"].dtype == np.int64
    assert scale(counts, 0.5)["count"] == 1.5


@given(named)
def test_zeros_are_of_the_same_shapes_and_dtypes(tensors):
    zeros = zeros_like(tensors)
    assert [(v.shape, v.dtype) for v in zeros.values()] == [(v.shape, v.dtype) for v in tensors.values()]
    assert l2_norm(zeros) == 0.0


@given(named)
def test_bytes_are_those_of_the_values_alone(tensors):
    assert num_bytes(tensors) == len(b"".join(v.tobytes() for v in tensors.values()))


def test_bytes_that_are_held_are_those_of_all_arrays_however_deep():
    kept = {"a": {"w": np.ones(3)}, "pair": (np.ones(2, np.float32), None), "n": 3, "none": {}, "name": "w"}
    assert held_bytes(kept) == 3 * 8 + 2 * 4
    assert held_bytes(np.float64(1)) == 8


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_is_seen(dtype, bad):
    values = np.ones((3, 4), dtype)
    assert all_finite({"a": values})
    values[2, 1] = bad
    assert not all_finite({"b": np.ones(2), "a": values})


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64"])
def test_integers_are_always_finite(dtype):
    assert all_finite({"a": np.ones(3, dtype), "none": np.zeros((0, 2))})


@pytest.mark.parametrize("value", [np.ones((2, 2)), np.array(1.0), np.float32(1.0), np.zeros(0)])
def test_frozen_views_share_the_values_and_refuse_to_be_written(value):
    view = frozen({"w": value})["w"]
    with pytest.raises(ValueError, match="read-only"):
        view[...] = 5.0
    np.testing.assert_array_equal(view, value)


def test_the_owner_may_go_on_writing():
    own = np.zeros(2)
    view = frozen({"w": own})["w"]
    own += 1
    assert view.tolist() == [1, 1]


def test_windows_and_rows_of_windows_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.core.tensors.WINDOW", 4)
    values = np.arange(22.0).reshape(11, 2)
    assert [window.size for window in windows(values)] == [4, 4, 4, 4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([*windows(values)]), values.reshape(-1))
    np.testing.assert_array_equal(sum_squares(values), (values**2).sum(1))
    assert [*windows(np.float64(3).reshape(()))] == [np.array([3.0])]
