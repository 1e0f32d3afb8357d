import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from hanse.core import Chain, CompositionError, InvalidInput, Key, Part, Spec, TensorSpec, dot
from hanse.transforms import random_mask

KEY = Key.from_seed(1)
shapes = array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=5)
models = st.dictionaries(
    st.text(max_size=2), st.tuples(shapes, st.sampled_from(["float32", "float64"])), min_size=1, max_size=3
).map(lambda of: {name: np.zeros(shape, dtype) for name, (shape, dtype) in of.items()})
fractions = st.floats(0, 1, exclude_min=True)
clients = st.integers(0, 1000).map(lambda n: KEY.fold_in("party", n))


def drawn(tensors, key, name="draws"):
    return {n: key.fold_in(name, n).rng().normal(size=v.shape).astype(v.dtype) for n, v in tensors.items()}


def bound(tensors, fraction, key):
    """The chain, and the space of one client."""
    chain = Chain.bind(Spec.of(tensors), (random_mask(fraction),))
    return chain, chain.space(chain.plan(chain.init(), KEY), key)


@settings(deadline=None)
@given(models, fractions, clients)
def test_the_pullback_is_the_transpose_of_the_expansion(model, fraction, key):
    _, space = bound(model, fraction, key)
    z, g = drawn(space.zero(), key, "z"), drawn(model, key, "g")
    assert dot(space.expand(z), g) == pytest.approx(dot(z, space.pullback(g)), rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(models, fractions, clients)
def test_expanding_embeds_the_coordinates(model, fraction, key):
    chain, space = bound(model, fraction, key)
    z = drawn(space.zero(), key)
    spread = space.expand(z)
    assert [(n, v.shape, v.dtype) for n, v in spread.items()] == [
        (n, v.shape, v.dtype) for n, v in model.items()
    ]
    for name, back in space.pullback(spread).items():
        np.testing.assert_array_equal(back, z[name])
        assert np.count_nonzero(spread[name]) <= back.size
    chain.out.check(z)
    chain.folded.check(spread)


@settings(deadline=None)
@given(models, fractions, clients)
def test_the_server_opens_what_the_client_sends(model, fraction, key):
    chain, space = bound(model, fraction, key)
    z = drawn(space.zero(), key)
    sent, _ = chain.encode((None,), Part(z, 3.0), {}, None)
    opened = chain.open((None,), sent, key)
    assert opened.weight == 3.0
    for name, values in space.expand(z).items():
        np.testing.assert_array_equal(opened.values[name], values)


@settings(deadline=None)
@given(models, fractions)
def test_the_share_is_that_of_each_tensor_and_at_least_one_entry(model, fraction):
    out = random_mask(fraction)(Spec.of(model)).out
    assert not out.summable
    for name, tensor in model.items():
        (kept,) = out.tensors[name].shape
        assert kept == max(1, math.ceil(fraction * tensor.size)) <= tensor.size
        assert out.tensors[name].dtype == tensor.dtype.name


def test_all_of_it_is_no_restriction():
    model = {"w": np.zeros((3, 2)), "b": np.zeros(())}
    _, space = bound(model, 1.0, KEY)
    full = drawn(model, KEY)
    spread = space.expand(space.pullback(full))
    assert all((spread[name] == v).all() for name, v in full.items())


def test_positions_differ_by_client_and_by_tensor_and_follow_from_the_key():
    model = {"w": np.zeros(100), "v": np.zeros(100)}
    kept = [bound(model, 0.2, KEY.fold_in("party", client))[1].kept for client in range(50)]
    assert len({bytes(k[name]) for k in kept for name in k}) == 100
    assert all((np.diff(k["w"]) > 0).all() for k in kept)
    again = bound(model, 0.2, KEY.fold_in("party", 7))[1].kept
    np.testing.assert_array_equal(again["w"], kept[7]["w"])


def test_every_position_is_kept_as_often():
    model = {"w": np.zeros(20)}
    counts = np.zeros(20)
    for client in range(2000):
        counts[bound(model, 0.25, KEY.fold_in("party", client))[1].kept["w"]] += 1
    # 500 each; 19 degrees of freedom, and variance 3/4 of independent draws.
    assert np.square(counts - 500).sum() / (500 * 0.75) < 50


def test_the_mean_estimates_the_fraction_of_the_whole():
    model = {"w": np.linspace(1, 2, 40)}
    opened = []
    for client in range(1500):
        _, space = bound(model, 0.25, KEY.fold_in("party", client))
        opened.append(space.expand(space.pullback(model))["w"])
    np.testing.assert_allclose(np.mean(opened, axis=0), 0.25 * model["w"], atol=0.1)


def test_empty_tensors_stay_empty():
    model = {"none": np.zeros((0, 3)), "w": np.zeros(4)}
    chain, space = bound(model, 0.5, KEY)
    chain.out.check(space.zero())
    chain.folded.check(space.expand(space.zero()))


def test_what_is_folded_is_the_whole():
    spec = Spec.of({"w": np.zeros((3, 2))}, l2_bound=2.0)
    chain = Chain.bind(spec, (random_mask(0.5),))
    assert chain.folded == spec
    assert chain.opens == random_mask(0.5)


@pytest.mark.parametrize(
    "spec",
    [
        Spec.of({"w": np.zeros(2)}, kind="coded"),
        Spec.of({"w": np.zeros(2)}, kind="ring"),
        Spec({"w": TensorSpec(("n",), "float64")}),
    ],
    ids=["coded", "ring", "open"],
)
def test_only_real_tensors_of_fixed_shapes_can_be_masked(spec):
    with pytest.raises(CompositionError, match=r"random_mask\(fraction=0\.5.*needs"):
        random_mask(0.5)(spec)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_a_fraction_that_can_not_be_is_refused(fraction):
    with pytest.raises(InvalidInput, match="above 0 and at most 1"):
        random_mask(fraction)
