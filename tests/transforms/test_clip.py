import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hanse.core import Chain, CompositionError, InvalidInput, Keys, Part, Spec, TensorSpec, dot, l2_norm
from hanse.transforms import clip

KEYS = Keys.from_seed(1)
shapes = array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)
dtypes = st.sampled_from(["float32", "float64"])
tensors = dtypes.flatmap(
    lambda d: st.dictionaries(
        st.text(max_size=2), arrays(d, shapes, elements=st.floats(-1e6, 1e6, width=32)), max_size=3
    )
)
bounds = st.floats(1e-3, 1e6)


def clipped(values, max_norm, weight=1.0):
    stage = clip(max_norm)(Spec.of(values))
    part, memory = stage.encode(None, Part(values, weight), {"own": 1}, KEYS)
    assert memory == {"own": 1}
    return part


@settings(deadline=None)
@given(tensors, bounds)
def test_the_norm_over_all_tensors_is_at_most_the_bound(values, bound):
    after = clipped(values, bound).values
    assert l2_norm(after) <= bound * (1 + 1e-6)
    assert [(n, v.shape, v.dtype) for n, v in after.items()] == [
        (n, v.shape, v.dtype) for n, v in values.items()
    ]


@settings(deadline=None)
@given(tensors, bounds)
def test_what_is_below_the_bound_is_left_alone_and_what_is_above_keeps_its_direction(values, bound):
    after, norm = clipped(values, bound, 3.0), l2_norm(values)
    assert after.weight == 3.0
    if norm <= bound:
        assert all(after.values[name] is v for name, v in values.items())
    else:
        assert l2_norm(after.values) == pytest.approx(bound, rel=1e-5)
        assert dot(after.values, values) == pytest.approx(bound * norm, rel=1e-5)


@pytest.mark.parametrize("bound", [1e-30, 1.0, 1e30])
def test_zeros_stay_zeros(bound):
    assert clipped({"w": np.zeros(3), "none": np.zeros((0, 2))}, bound).values["w"].tolist() == [0, 0, 0]


def test_on_the_bound_nothing_changes():
    values = {"w": np.array([3.0, 4.0])}
    assert clipped(values, 5.0).values["w"] is values["w"]


def test_large_values_in_single_precision_do_not_overflow():
    after = clipped({"w": np.full(4, 1e30, np.float32)}, 2.0).values["w"]
    np.testing.assert_allclose(after, np.ones(4), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_does_not_become_so(bad):
    """So that the server refuses it."""
    assert not np.isfinite(clipped({"w": np.array([1.0, bad])}, 1.0).values["w"]).all()


def test_what_is_given_is_not_written_to():
    values = {"w": np.array([3.0, 4.0])}
    values["w"].flags.writeable = False
    clipped(values, 1.0)
    assert values["w"].tolist() == [3, 4]


def test_the_spec_promises_the_smaller_bound():
    spec = Spec.of({"w": np.zeros(2)})
    assert clip(2.0)(spec).out == spec.like(l2_bound=2.0)
    assert Chain.bind(spec, (clip(2.0), clip(3.0))).out.l2_bound == 2.0
    assert Chain.bind(spec, (clip(3.0), clip(2.0))).out.l2_bound == 2.0


def test_it_commutes_with_sums():
    chain = Chain.bind(Spec.of({"w": np.zeros(2)}), (clip(2.0),))
    assert (chain.opens, chain.decodes, chain.folded) == (None, None, chain.out)


def test_dimensions_may_be_bound_by_the_message():
    assert clip(1.0)(Spec({"w": TensorSpec(("n", 2), "float32")})).out.l2_bound == 1.0


@pytest.mark.parametrize("kind", ["ring", "sparse", "table", "coded"])
def test_only_real_numbers_can_be_clipped(kind):
    with pytest.raises(CompositionError, match=rf"clip\(max_norm=1.0\) needs real numbers, these are {kind}"):
        clip(1.0)(Spec.of({"w": np.zeros(2)}, kind=kind))


def test_integers_are_refused():
    with pytest.raises(CompositionError):
        clip(1.0)(Spec.of({"n": np.array([3, 4])}))


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan")])
def test_a_bound_that_can_not_be_is_refused(bound):
    with pytest.raises(InvalidInput, match="write a bound above 0"):
        clip(bound)
