from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hanse.core import Chain, CompositionError, InvalidInput, Keys, MessageError, Part, Spec, TensorSpec
from hanse.transforms import clip, quantize

KEYS = Keys.from_seed(1)
BITS = [1, 2, 4, 8]
DTYPES = ["float32", "float64"]
every_bits = pytest.mark.parametrize("bits", BITS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
tensors = st.sampled_from(DTYPES).flatmap(
    lambda d: st.dictionaries(
        st.text(max_size=2),
        arrays(
            d,
            array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=9),
            elements=st.floats(-1e3, 1e3, width=32),
        ),
        max_size=3,
    )
)


def sent(values, bits, keys=KEYS, weight=1.0):
    """What travels, checked as the server does."""
    chain = Chain.bind(Spec.of(values), (quantize(bits),))
    part, memory = chain.encode((None,), Part(values, weight), {}, keys)
    assert memory == {}
    chain.out.check(part.values)
    return chain, part


def restored(values, bits, keys=KEYS):
    chain, part = sent(values, bits, keys)
    return chain.open((None,), part, KEYS.public).values


@settings(deadline=None)
@given(tensors, st.sampled_from(BITS))
def test_each_entry_comes_back_within_one_level(values, bits):
    back = restored(values, bits)
    assert [(n, v.shape, v.dtype) for n, v in back.items()] == [
        (n, v.shape, v.dtype) for n, v in values.items()
    ]
    for name, x in values.items():
        if x.size:
            width = np.float64(x.max()) - np.float64(x.min())
            slack = 1e-5 * np.abs(x).max().astype(np.float64) + np.finfo(x.dtype).tiny
            assert np.abs(back[name].astype(np.float64) - x).max() <= width / (2**bits - 1) + slack


@every_dtype
@every_bits
def test_it_is_unbiased(bits, dtype):
    x = np.concatenate([[-1.0, 2.0], np.linspace(-1, 2, 30), [0.0, 1e-3]]).astype(dtype)
    num, step = 1500, 3 / (2**bits - 1)
    draws = np.array([restored({"w": x}, bits, KEYS.fold_in(i))["w"] for i in range(num)], np.float64)
    # A level's standard deviation is at most half a step: six of them.
    np.testing.assert_allclose(draws.mean(axis=0), x, atol=6 * step / 2 / np.sqrt(num))


@every_dtype
@every_bits
def test_the_ends_of_the_range_are_exact(bits, dtype):
    x = np.array([0.1, -3.7, 8.3, 0.1], dtype)
    for i in range(50):
        back = restored({"w": x}, bits, KEYS.fold_in(i))["w"]
        assert back[1] == x[1]
        assert back[2] == pytest.approx(x[2], rel=1e-6)


@every_dtype
@every_bits
@pytest.mark.parametrize(
    "x", [np.zeros(5), np.full((2, 3), -7.25), np.array(3.5), np.array([4.5]), np.zeros((0, 3)), np.zeros(0)]
)
def test_what_has_one_value_or_none_is_exact(x, bits, dtype):
    x = x.astype(dtype)
    back = restored({"w": x}, bits)["w"]
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(back, x)


@every_bits
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 63, 64, 65])
def test_no_level_is_lost_or_moved(bits, size):
    """Multiples of a whole step are exact."""
    x = np.random.default_rng(size).integers(0, 2**bits, size).astype(np.float64)
    x[0], x[-1] = 2**bits - 1, 0.0
    np.testing.assert_array_equal(restored({"a": x, "b": x[::-1]}, bits)["a"], x)
    np.testing.assert_array_equal(restored({"a": x, "b": x[::-1]}, bits)["b"], x[::-1])


@every_bits
def test_bytes_are_those_that_were_promised(bits):
    values = {"w": np.ones((10, 10), np.float32), "b": np.ones(3)}
    chain, part = sent(values, bits)
    assert chain.out.num_bytes == sum(v.nbytes for v in part.values.values())
    assert -(-103 * bits // 8) < chain.out.num_bytes <= -(-100 * bits // 8) + -(-3 * bits // 8) + 48


def test_roundings_differ_by_key_and_by_tensor_and_follow_from_the_key():
    x = np.linspace(0, 1, 100)
    one, other, again = (restored({"w": x, "v": x}, 1, KEYS.fold_in(i)) for i in (1, 2, 1))
    assert (one["w"] != other["w"]).any()
    assert (one["w"] != one["v"]).any()
    np.testing.assert_array_equal(one["w"], again["w"])


def test_weights_pass():
    assert sent({"w": np.ones(2)}, 2, weight=3.5)[1].weight == 3.5


def test_names_that_look_like_its_own_are_kept_apart():
    values = {"w": np.array([1.0, 2.0]), "w.levels": np.array([3.0]), "w.range": np.array([4.0])}
    back = restored(values, 8)
    assert {name: v.tolist() for name, v in back.items()} == {name: v.tolist() for name, v in values.items()}


# -- what is extreme, what is hostile -------------------------------------------------------------


@every_dtype
def test_all_but_vanishing_tensors_come_back(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([0, 1, 2, 3], dtype) * tiny
    for bits in BITS:
        assert (np.abs(restored({"w": x}, bits)["w"] - x) <= 3 * tiny).all()


@every_bits
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scales_do_not_matter(bits, scale):
    x = np.array([-1.0, 0.3, 1.0], np.float32)
    small = restored({"w": x}, bits)["w"]
    np.testing.assert_allclose(restored({"w": x * np.float32(scale)}, bits)["w"], small * scale, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@every_bits
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_the_server(bits, bad):
    chain = Chain.bind(Spec.of({"w": np.zeros(3)}), (quantize(bits),))
    part, _ = chain.encode((None,), Part({"w": np.array([1.0, bad, 2.0])}), {}, KEYS)
    with pytest.raises(MessageError, match="is not finite"):
        chain.out.check(part.values)


def _hostile(low, high, bits, dtype="float32", levels=0xFF):
    """What the server makes of a message of such levels between such ends."""
    chain = Chain.bind(Spec.of({"w": np.zeros(3, dtype)}), (quantize(bits),))
    part, _ = chain.encode((None,), Part({"w": np.arange(3, dtype=dtype)}), {}, KEYS)
    values = {}
    for name, array in part.values.items():
        values[name] = np.full_like(array, levels)
        if array.dtype.kind == "f":
            values[name].reshape(-1, 2)[:] = low, high
    chain.out.check(values)
    return chain.open((None,), Part(values), KEYS.public).values["w"]


@every_bits
def test_a_reversed_range_is_refused(bits):
    with pytest.raises(MessageError, match=r"range 2\.0 to 1\.0"):
        _hostile(2.0, 1.0, bits)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@every_bits
@every_dtype
def test_no_range_opens_to_what_is_not_finite(bits, dtype):
    top = np.finfo(dtype).max
    for levels in (0x00, 0xFF):
        with suppress(MessageError):
            assert np.isfinite(_hostile(-top, top, bits, dtype, levels)).all()


@every_bits
@pytest.mark.parametrize("levels", [0x00, 0x5A, 0xFF])
def test_whatever_the_levels_the_values_lie_in_the_range(bits, levels):
    opened = _hostile(-1.0, 2.0, bits, "float64", levels)
    assert ((opened >= -1) & (opened <= 2)).all()


# -- composition ----------------------------------------------------------------------------------


def test_the_server_must_open_every_message():
    chain = Chain.bind(Spec.of({"w": np.zeros(2)}), (quantize(2),))
    assert (chain.out.kind, chain.out.summable, chain.opens) == ("coded", False, quantize(2))
    assert chain.folded == chain.source


def test_the_bound_of_what_is_folded_holds():
    values = {"w": np.linspace(-0.17, 0.17, 100)}
    chain = Chain.bind(Spec.of(values), (clip(1.0), quantize(1)))
    for i in range(20):
        part, _ = chain.encode((None, None), Part(values), {}, KEYS.fold_in(i))
        norm = np.linalg.norm(chain.open((None, None), part, KEYS.public).values["w"])
        assert chain.folded.l2_bound is None or norm <= chain.folded.l2_bound


@pytest.mark.parametrize(
    "spec",
    [
        Spec.of({"w": np.zeros(2)}, kind="coded"),
        Spec.of({"w": np.zeros(2)}, kind="table"),
        Spec({"w": TensorSpec(("n",), "float64")}),
    ],
    ids=["coded", "table", "open"],
)
def test_only_real_tensors_of_fixed_shapes_can_be_quantized(spec):
    with pytest.raises(CompositionError, match=r"quantize\(bits=2.*needs"):
        quantize(2)(spec)


def test_integers_are_refused():
    with pytest.raises(CompositionError):
        quantize(2)(Spec.of({"n": np.array([3, 4])}))


def test_calibrated_noise_is_not_rounded():
    with pytest.raises(CompositionError, match="move it before the noise"):
        Chain.bind(Spec.of({"w": np.zeros(2)}, sealed=True), (quantize(2),))


@pytest.mark.parametrize("bits", [0, 9, 16, -1])
def test_bits_that_can_not_be_are_refused(bits):
    with pytest.raises(InvalidInput, match="write 1"):
        quantize(bits)
