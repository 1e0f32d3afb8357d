"""What can't stand together is refused when it is bound, with the remedy."""

import numpy as np
import pytest

from hanse.core import Chain, CompositionError, PartSpec, Spec, TensorSpec, mean
from hanse.transforms import (
    cast,
    clip,
    deflate,
    low_rank,
    none,
    per_round,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
)

SPEC = Spec.of({"w": np.zeros((8, 8), np.float32), "b": np.zeros(8, np.float32)})
REAL = [clip(1.0), subsample(0.5), random_mask(0.5), low_rank(2), top_k(0.5)]
REAL_OR_SPARSE = [rotate(), quantize(2), sign(), cast("float16")]
CODED = [quantize(2), sign(), cast("bfloat16"), deflate()]
SPACES = [random_mask(0.5), low_rank(2)]


def name(transform):
    return type(transform).__name__


@pytest.mark.parametrize("first", CODED, ids=name)
@pytest.mark.parametrize("second", [*REAL, *REAL_OR_SPARSE], ids=name)
def test_nothing_but_deflate_follows_what_codes(first, second):
    with pytest.raises(CompositionError, match=r"put it (first|before what made them coded)"):
        Chain.bind(SPEC, (first, second))


@pytest.mark.parametrize("transform", [*REAL, *REAL_OR_SPARSE], ids=name)
def test_deflate_follows_anything_else(transform):
    chain = Chain.bind(SPEC, (transform, deflate()))
    assert chain.opens is not None
    PartSpec(SPEC, (transform, deflate()), mean()).chain()


@pytest.mark.parametrize("second", [t for t in REAL if t != clip(1.0)], ids=name)
def test_sparse_entries_are_neither_sampled_nor_trained(second):
    with pytest.raises(CompositionError, match=r"these are sparse: put it before|put it first"):
        Chain.bind(SPEC, (top_k(0.5), second))


@pytest.mark.parametrize("second", [rotate(), quantize(2), sign(residual=none()), cast("float16")], ids=name)
def test_the_values_of_sparse_entries_may_be_shortened(second):
    assert Chain.bind(SPEC, (top_k(0.5), second)).folded == SPEC


@pytest.mark.parametrize("space", SPACES, ids=name)
@pytest.mark.parametrize("before", [clip(1.0), rotate(), subsample(0.5)], ids=name)
def test_a_space_to_train_in_comes_first(before, space):
    with pytest.raises(CompositionError, match="move it to the front"):
        Chain.bind(SPEC, (before, space))


@pytest.mark.parametrize("transform", [*REAL, *REAL_OR_SPARSE, deflate()], ids=name)
def test_shapes_must_be_fixed(transform):
    growing = Spec({"w": TensorSpec(("n", 2), "float32")})
    if transform == clip(1.0):
        assert transform(growing).encode is not None
        return
    with pytest.raises(CompositionError, match="fixed shapes"):
        transform(growing)


@pytest.mark.parametrize("transform", [t for t in [*REAL, *REAL_OR_SPARSE] if t != clip(1.0)], ids=name)
def test_integers_modulo_a_power_are_not_real(transform):
    with pytest.raises(CompositionError, match="these are ring"):
        transform(Spec.of({"w": np.zeros(4, np.uint64)}, kind="ring"))
    with pytest.raises(CompositionError, match="these are all int64: leave it out"):
        transform(Spec.of({"w": np.zeros(4, np.int64)}))


@pytest.mark.parametrize(
    "transform", [subsample(0.5), rotate(), quantize(2), top_k(0.5), sign(), cast("float16")], ids=name
)
def test_nothing_but_deflate_follows_calibrated_noise(transform):
    sealed = SPEC.like(sealed=True)
    with pytest.raises(CompositionError, match="move it before the noise"):
        Chain.bind(sealed, (transform,))
    assert Chain.bind(sealed, (deflate(),)).out.sealed


@pytest.mark.parametrize(
    "uplink",
    [
        (clip(1.0), subsample(0.5, drawn=per_round()), rotate()),
        (random_mask(0.5, drawn=per_round()), rotate()),
    ],
    ids=str,
)
def test_bounds_last_through_what_keeps_or_shortens(uplink):
    bounded = SPEC.like(l2_bound=3.0)
    assert Chain.bind(bounded, uplink).folded.l2_bound == (1.0 if clip(1.0) in uplink else 3.0)


@pytest.mark.parametrize("transform", [quantize(2), sign(), cast("float16"), top_k(0.5)], ids=name)
def test_what_rounds_promises_no_bound(transform):
    assert transform(SPEC.like(l2_bound=3.0)).out.l2_bound is None
