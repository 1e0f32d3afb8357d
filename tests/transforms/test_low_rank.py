import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from hanse.core import Chain, InvalidInput, Key, Part, Spec, dot
from hanse.transforms import low_rank, out_first, out_last, per_round, train_a, train_b, train_both

KEY = Key.from_seed(1)
LINEAR = [train_b(), train_a()]
LAYOUTS = [out_first(), out_last()]
every_factor = pytest.mark.parametrize("factors", [*LINEAR, train_both()], ids=str)
models = st.dictionaries(
    st.text(max_size=2), array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5), min_size=1, max_size=3
).map(lambda of: {name: np.zeros(shape) for name, shape in of.items()})


def bound(model, transform, key=KEY):
    chain = Chain.bind(Spec.of(model), (transform,))
    plans = chain.plan(chain.init(), KEY.fold_in("plan"))
    return chain, plans, chain.space(plans, key)


def drawn(tensors, name):
    return {n: KEY.fold_in(name, n).rng().normal(size=v.shape).astype(v.dtype) for n, v in tensors.items()}


def as_matrix(tensor, layout):
    if isinstance(layout, out_first):
        return tensor.reshape(tensor.shape[0], -1).T
    return tensor.reshape(-1, tensor.shape[-1])


@settings(deadline=None)
@given(models, st.integers(1, 3), st.sampled_from(LINEAR), st.sampled_from(LAYOUTS))
def test_the_pullback_is_the_transpose_of_the_expansion(model, rank, factors, layout):
    _, _, space = bound(model, low_rank(rank, factors=factors, layout=layout))
    z, g = drawn(space.zero(), "z"), drawn(model, "g")
    assert dot(space.expand(z), g) == pytest.approx(dot(z, space.pullback(g)), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(models, st.integers(1, 3), st.sampled_from([*LINEAR, train_both()]), st.sampled_from(LAYOUTS))
def test_the_server_opens_what_the_client_trained(model, rank, factors, layout):
    chain, plans, space = bound(model, low_rank(rank, factors=factors, layout=layout))
    z = drawn(space.zero(), "z")
    chain.out.check(z)
    sent, _ = chain.encode(plans, Part(z), {}, None)
    opened = chain.open(plans, sent, KEY).values
    chain.folded.check(opened)
    update = space.expand(z)
    for name, tensor in model.items():
        np.testing.assert_array_equal(opened[name], update[name])
        if tensor.ndim > 1:
            assert np.linalg.matrix_rank(as_matrix(update[name], layout)) <= max(
                rank, min(as_matrix(tensor, layout).shape) if name in z else 0
            )


@every_factor
def test_no_step_is_no_update(factors):
    _, _, space = bound({"w": np.zeros((9, 8)), "b": np.zeros(8)}, low_rank(2, factors=factors))
    for update in space.expand(space.zero()).values():
        assert not update.any()


def test_both_are_pulled_back_to_where_they_stand():
    """The derivative of <AB, G> by A is G Bᵀ and by B is Aᵀ G."""
    model = {"w": np.zeros((6, 7))}
    _, _, space = bound(model, low_rank(2, factors=train_both()))
    z, g, moved = drawn(space.zero(), "z"), drawn(model, "g"), drawn(space.zero(), "m")
    space.expand(z)
    slope = dot(moved, space.pullback(g))
    tiny = 1e-6
    ends = [
        dot(space.expand({n: z[n] + sign * tiny * moved[n] for n in z}), g) / (2 * tiny) for sign in (1, -1)
    ]
    assert slope == pytest.approx(ends[0] - ends[1], rel=1e-6)


def test_a_kernel_is_a_matrix_of_inputs_by_outputs():
    torch, paper = {"k": np.zeros((64, 32, 5, 5))}, {"k": np.zeros((32, 5, 5, 64))}
    for model, layout in ((torch, out_first()), (paper, out_last())):
        chain, _, _ = bound(model, low_rank(4, layout=layout))
        assert {n: t.shape for n, t in chain.out.tensors.items()} == {"k.B": (4, 64)}
        chain, _, _ = bound(model, low_rank(4, factors=train_a(), layout=layout))
        assert {n: t.shape for n, t in chain.out.tensors.items()} == {"k.A": (800, 4)}


def test_vectors_and_what_would_not_shrink_travel_whole():
    model = {"b": np.zeros(10), "s": np.zeros(()), "thin": np.zeros((10, 2)), "wide": np.zeros((10, 30))}
    chain, _, space = bound({**model, "steps": np.zeros(2, np.int64)}, low_rank(2))
    assert {n: t.shape for n, t in chain.out.tensors.items()} == {
        "b": (10,),
        "s": (),
        "thin": (10, 2),
        "wide.B": (2, 10),
        "steps": (2,),
    }
    assert space.zero()["steps"].dtype == np.int64


@pytest.mark.parametrize(("fraction", "rank"), [(1 / 4, 25), (1 / 16, 7), (1 / 64, 2), (1e-9, 1)])
def test_a_fraction_is_of_each_matrix_full_rank(fraction, rank):
    chain, _, _ = bound({"w": np.zeros((100, 300))}, low_rank(fraction=fraction))
    assert chain.out.tensors["w.B"].shape == (rank, 100)


def test_clients_train_in_spaces_of_their_own():
    model = {"w": np.zeros((8, 8))}
    spaces = [bound(model, low_rank(1), KEY.fold_in("party", client))[2] for client in range(2)]
    one, other = (space.expand({"w.B": np.ones((1, 8))})["w"] for space in spaces)
    assert (one != other).any()


@pytest.mark.parametrize("factors", LINEAR, ids=str)
def test_drawn_per_round_factors_can_be_summed(factors):
    transform = low_rank(2, factors=factors, drawn=per_round())
    chain, _, space = bound({"w": np.zeros((8, 9))}, transform)
    assert chain.opens is None
    assert chain.decodes == transform
    assert chain.folded.summable
    _, _, other = bound({"w": np.zeros((8, 9))}, transform, KEY.fold_in("another client"))
    z = drawn(space.zero(), "z")
    np.testing.assert_array_equal(space.expand(z)["w"], other.expand(z)["w"])


@pytest.mark.parametrize("shape", [(900, 40), (40, 900)], ids=str)
def test_the_columns_of_a_and_the_rows_of_b_have_unit_length_on_average(shape):
    """In a space whose trained factor picks them out one by one."""
    model, (outputs, inputs), rank = {"w": np.zeros(shape)}, shape, 3
    _, _, space = bound(model, low_rank(rank))
    columns = space.expand({"w.B": np.eye(rank, outputs)})["w"].T[:, :rank]
    _, _, space = bound(model, low_rank(rank, factors=train_a()))
    rows = space.expand({"w.A": np.eye(inputs, rank)})["w"].T[:rank]
    _, _, space = bound(model, low_rank(rank, factors=train_both()))
    for columns_of_a in (columns, space.zero()["w.A"]):
        assert columns_of_a.shape == (inputs, rank)
        spread = math.sqrt(2 / (inputs * rank))
        assert np.square(columns_of_a).sum(axis=0).mean() == pytest.approx(1, abs=5 * spread)
    assert np.square(rows).sum(axis=1).mean() == pytest.approx(1, abs=5 * math.sqrt(2 / (outputs * rank)))


def test_two_trained_factors_are_never_summed():
    chain, _, _ = bound({"w": np.zeros((8, 9))}, low_rank(2, factors=train_both(), drawn=per_round()))
    assert chain.opens is not None


@every_factor
def test_descent_in_it_finds_a_target_of_that_rank(factors):
    """min |A B - T|² / 2 over the trained factors; exact only if both can move or the fixed one fits."""
    target = drawn({"u": np.zeros((8, 1))}, "u")["u"] @ drawn({"v": np.zeros((1, 6))}, "v")["v"]
    _, _, space = bound({"w": np.zeros((6, 8))}, low_rank(2, factors=factors))
    z = space.zero()
    first = np.linalg.norm(target)
    for _ in range(3000):
        error = space.expand(z)["w"] - target.T
        back = space.pullback({"w": error})
        z = {name: z[name] - 0.02 * back[name] for name in z}
    left = np.linalg.norm(space.expand(z)["w"] - target.T) / first
    assert left < (1e-3 if factors == train_both() else 0.99)


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({}, "a rank or a fraction"),
        ({"rank": 1, "fraction": 0.5}, "a rank or a fraction"),
        ({"rank": 0}, "at least 1"),
        ({"fraction": 0.0}, "above 0 and at most 1"),
        ({"fraction": math.nan}, "above 0 and at most 1"),
    ],
)
def test_a_rank_that_can_not_be_is_refused(given, remedy):
    with pytest.raises(InvalidInput, match=remedy):
        low_rank(**given)
