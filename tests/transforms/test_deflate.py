import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hanse.core import Chain, CompositionError, Keys, MessageError, Part, Spec
from hanse.transforms import deflate, quantize

KEYS = Keys.from_seed(1)
tensors = st.dictionaries(
    st.text(max_size=2),
    st.sampled_from(["float32", "float64", "uint8", "int64", "float16"]).flatmap(
        lambda d: arrays(d, array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=9))
    ),
    max_size=3,
)


@settings(deadline=None)
@given(tensors)
def test_every_bit_comes_back(values):
    stage = deflate()(Spec.of(values))
    sent, _ = stage.encode(None, Part(values, 2.0), {}, KEYS)
    stage.out.check(sent.values)
    finite = all(v.dtype.kind != "f" or np.isfinite(v).all() for v in values.values())
    if not finite:
        with pytest.raises(MessageError, match="not finite"):
            stage.open(None, sent, KEYS.public)
        return
    back = stage.open(None, sent, KEYS.public)
    assert back.weight == 2.0
    assert list(back.values) == list(values)
    for name, v in values.items():
        assert (back.values[name].dtype, back.values[name].shape) == (v.dtype, v.shape)
        assert back.values[name].tobytes() == v.tobytes()


def test_noise_grows_by_little():
    x = {"w": np.frombuffer(np.random.default_rng(1).bytes(100_000), np.uint8)}
    stage = deflate()(Spec.of(x))
    sent, _ = stage.encode(None, Part(x), {}, KEYS)
    assert sent.values["packed"].size < 100_100
    stage.open(None, sent, KEYS.public)


def test_it_may_follow_calibrated_noise_and_stays_sealed():
    chain = Chain.bind(Spec.of({"w": np.zeros(2)}, sealed=True), (deflate(),))
    assert chain.out.sealed


def test_only_one_can_be_last():
    with pytest.raises(CompositionError, match="leave all but the last one out"):
        Chain.bind(Spec.of({"w": np.zeros(2)}), (deflate(), deflate()))
    with pytest.raises(CompositionError, match="these are coded: put it before"):
        Chain.bind(Spec.of({"w": np.zeros(2)}), (deflate(), quantize(2)))


# -- hostile bytes --------------------------------------------------------------------------------


def packed(data, strategy=zlib.Z_DEFAULT_STRATEGY):
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
    return np.frombuffer(coder.compress(data) + coder.flush(), np.uint8)


def opened(values, data):
    return deflate()(Spec.of(values)).open(None, Part({"packed": data}), KEYS.public)


def test_a_bomb_takes_no_more_memory_than_the_spec_allows():
    bomb = packed(bytes(10**8))
    assert bomb.size < 10**5
    tracemalloc.start()
    with pytest.raises(MessageError, match="not exactly 400000"):
        opened({"w": np.zeros(100_000, np.float32)}, bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 10**6


@pytest.mark.parametrize(
    "data",
    [
        packed(bytes(15)),
        packed(bytes(17)),
        packed(bytes(16))[:-1],
        np.append(packed(bytes(16)), np.uint8(0)),
        np.zeros(0, np.uint8),
        np.full(16, 255, np.uint8),
    ],
    ids=["short", "long", "cut", "followed", "empty", "nonsense"],
)
def test_what_does_not_unpack_to_exactly_the_spec_is_refused(data):
    with pytest.raises(MessageError):
        opened({"w": np.zeros(4, np.float32)}, data)


def test_a_message_longer_than_any_packing_is_refused_unread():
    with pytest.raises(MessageError, match="never take so many"):
        opened({"w": np.zeros(4, np.float32)}, np.zeros(1000, np.uint8))
    stage = deflate()(Spec.of({"w": np.zeros(1000, np.float32)}))
    assert stage.out.num_bytes is None
    assert 4000 < stage.out.limit_bytes < 4100


def test_what_it_unpacks_is_checked():
    nan = np.full(4, np.nan, np.float32).view(np.uint8).reshape(-1, 4).T.tobytes()
    with pytest.raises(MessageError, match="not finite"):
        opened({"w": np.zeros(4, np.float32)}, packed(nan))


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_whatever_the_bytes_nothing_but_a_message_error_comes_of_them(data):
    try:
        back = opened({"w": np.zeros(4, np.float32)}, np.frombuffer(data, np.uint8))
    except MessageError:
        return
    assert back.values["w"].shape == (4,)
