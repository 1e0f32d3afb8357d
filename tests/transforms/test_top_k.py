import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hanse.core import InvalidInput, Keys, MessageError, Part, Spec
from hanse.transforms import none, top_k

KEYS = Keys.from_seed(1)
tensors = st.dictionaries(
    st.text(max_size=2),
    arrays(
        "float32",
        array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=6),
        elements=st.floats(-8, 8, width=16),
    ),
    min_size=1,
    max_size=3,
)


def flat(values):
    return np.concatenate([v.reshape(-1) for v in values.values()])


@settings(deadline=None)
@given(tensors, st.floats(0, 1, exclude_min=True))
def test_the_largest_of_all_tensors_come_back_and_the_others_are_zero(values, fraction):
    stage = top_k(fraction)(Spec.of(values))
    sent, memory = stage.encode(None, Part(values), {}, KEYS)
    stage.out.check(sent.values)
    back = stage.open(None, sent, KEYS.public).values
    assert [(n, v.shape, v.dtype) for n, v in back.items()] == [
        (n, v.shape, v.dtype) for n, v in values.items()
    ]
    x, y, owed = (flat(v).astype(np.float64) for v in (values, back, memory["residual"]))
    k = len(sent.values["values"])
    assert k == max(1, int(np.ceil(fraction * x.size)))
    np.testing.assert_array_equal(y + owed, x)
    largest = np.sort(np.abs(x))[::-1]
    np.testing.assert_array_equal(np.sort(np.abs(y))[::-1][:k], largest[:k])
    assert np.sum((y - x) ** 2) <= (1 - k / x.size) * np.sum(x**2) + 1e-6


def test_of_equal_ones_the_first_is_taken():
    stage = top_k(0.5)(Spec.of({"w": np.zeros(4)}))
    sent, _ = stage.encode(None, Part({"w": np.array([1.0, -2.0, 1.0, 1.0])}), {}, KEYS)
    np.testing.assert_array_equal(stage.open(None, sent, KEYS.public).values["w"], [1, -2, 0, 0])


def test_without_memory_nothing_is_remembered():
    stage = top_k(0.25, residual=none())(Spec.of({"w": np.zeros(4)}))
    assert stage.encode(None, Part({"w": np.arange(4.0)}), {}, KEYS)[1] == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_not_finite_is_refused_by_the_server(bad, count):
    x = np.arange(4.0)
    x[:count] = bad
    stage = top_k(0.5)(Spec.of({"w": x}))
    sent, _ = stage.encode(None, Part({"w": x}), {}, KEYS)
    with pytest.raises(MessageError, match="not finite"):
        stage.out.check(sent.values)


def test_a_message_without_numbers_is_refused():
    with pytest.raises(InvalidInput, match="leave it out"):
        top_k(0.5)(Spec.of({"w": np.zeros(0)}))


@pytest.mark.parametrize("fraction", [0.0, 1.1])
def test_a_fraction_that_can_not_be_is_refused(fraction):
    with pytest.raises(InvalidInput, match="above 0 and at most 1"):
        top_k(fraction)
