import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hanse.core import InvalidInput, Keys, MessageError, Part, Spec
from hanse.transforms import cast

KEYS = Keys.from_seed(1)


def exchange(x, dtype):
    stage = cast(dtype)(Spec.of({"w": x}))
    sent, _ = stage.encode(None, Part({"w": x}), {}, KEYS)
    stage.out.check(sent.values)
    assert sent.values["w"].itemsize == 2
    back = stage.open(None, sent, KEYS.public).values["w"]
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    return back


@given(arrays("float32", (7,), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_bfloat16_rounds_to_the_nearest(x):
    try:
        back = exchange(x, "bfloat16").astype(np.float64)
    except MessageError:
        assert np.abs(x).max() > 3.38e38
        return
    assert (np.abs(back - x) <= np.maximum(2**-8 * np.abs(x.astype(np.float64)), 1e-40)).all()


@pytest.mark.parametrize(
    ("word", "rounded"),
    [
        (0x3F808000, 0x3F80),  # a tie goes to the even
        (0x3F818000, 0x3F82),
        (0x3F808001, 0x3F81),
        (0x80000000, 0x8000),  # minus zero
        (0x00000001, 0x0000),
    ],
)
def test_bfloat16_ties_go_to_even(word, rounded):
    x = np.array([word], np.uint32).view(np.float32)
    stage = cast("bfloat16")(Spec.of({"w": x}))
    assert stage.encode(None, Part({"w": x}), {}, KEYS)[0].values["w"][0] == rounded


@given(arrays("float64", (3, 2), elements=st.floats(-6e4, 6e4)))
def test_float16_rounds_to_the_nearest(x):
    assert (np.abs(exchange(x, "float16") - x) <= np.maximum(2**-11 * np.abs(x), 2**-25) * 1.001).all()


@pytest.mark.parametrize(("dtype", "value"), [("float16", 7e4), ("float16", np.nan), ("bfloat16", np.nan)])
def test_what_the_format_does_not_hold_is_refused(dtype, value):
    with pytest.raises(MessageError, match="not finite"):
        exchange(np.array([1.0, value], np.float32), dtype)


def test_a_hostile_bfloat16_is_refused():
    stage = cast("bfloat16")(Spec.of({"w": np.zeros(2)}))
    for word in (0x7F80, 0xFF80, 0x7FC1):
        with pytest.raises(MessageError, match="not finite"):
            stage.open(None, Part({"w": np.array([0, word], np.uint16)}), KEYS.public)


def test_an_unknown_format_is_refused():
    with pytest.raises(InvalidInput, match="did you mean 'bfloat16'"):
        cast("bfloat")
