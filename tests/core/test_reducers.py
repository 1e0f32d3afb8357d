import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hanse.core import layout, reducers
from hanse.core.errors import CompositionError, InvalidInput
from hanse.core.keys import Key
from hanse.core.layout import Stored
from hanse.core.reducers import Reducer, TreeFold, fixed_mean, mean, reduce, stack
from hanse.core.reducers import sum as sum_
from hanse.core.spec import Spec, TensorSpec
from hanse.core.values import pack, unpack
from hanse.core.work import Part, Parts

RNG = np.random.default_rng(1)
NUM = 64
PARTS = [
    Part(
        {"w": RNG.normal(size=(3, 2)).astype(np.float32), "b": np.array(RNG.normal())},
        float(RNG.integers(0, 9)),
    )
    for _ in range(NUM)
]
positions = st.sets(st.integers(0, NUM - 1), min_size=1).map(sorted)
REDUCERS = [mean(), sum_(), fixed_mean(3.5), stack()]


def bits(total):
    return {n: (v.dtype, v.shape, v.tobytes()) for n, v in total.values.items()}, total.weight, total.count


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, NUM])
@pytest.mark.parametrize("reducer", [mean(), sum_(), fixed_mean(3.5)])
def test_parts_are_lifted_together_to_the_bits_of_the_tree(reducer, count):
    parts = PARTS[:count]
    together = Parts(
        {name: np.stack([part.values[name] for part in parts]) for name in ("w", "b")},
        np.array([part.weight for part in parts]),
    )
    assert bits(reducer.result(reducer.lift_many(together))) == bits(reduce(reducer, parts))


def test_a_fixed_mean_divides_by_its_own_number_alone():
    parts = [
        Part({"w": np.array([1.0, 2.0], np.float32)}, 3.0),
        Part({"w": np.array([5.0, 0.0], np.float32)}),
    ]
    total = reduce(fixed_mean(4.0), parts)
    assert (total.values["w"].tolist(), total.values["w"].dtype) == ([2.0, 1.5], np.float32)
    assert (total.weight, total.count) == (4.0, 2)
    assert reduce(fixed_mean(4.0), parts[:1]).values["w"].tolist() == [0.75, 1.5]
    for denominator in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="write a number above 0"):
            fixed_mean(denominator)
    with pytest.raises(CompositionError, match=r"divides.*use sum\(\)"):
        fixed_mean(4.0).accepts(Spec({"w": TensorSpec((2,), "uint64")}, kind="ring"))


def test_a_total_of_none_needs_known_shapes():
    spec = Spec({"w": TensorSpec((2, 3), "float32"), "n": TensorSpec((), "int64")})
    zero = sum_().zero(spec)
    assert {n: (v.shape, v.dtype.name, v.any()) for n, v in zero.values.items()} == {
        "w": ((2, 3), "float32", False),
        "n": ((), "int64", False),
    }
    assert sum_().zero(Spec({"w": TensorSpec(("rows", 3), "float32")})) is None
    assert mean().zero(spec) is stack().zero(spec) is None


# -- what the folds amount to ---------------------------------------------------------------------

weights = st.one_of(st.integers(0, 1000), st.floats(0, 1000, width=32))
weighted = st.lists(st.tuples(arrays("float64", (2, 3), elements=st.floats(-1e3, 1e3)), weights), min_size=1)


@settings(deadline=None)
@given(weighted)
def test_mean_and_sum_are_numpys(pairs):
    stacked, of = np.array([x for x, _ in pairs]), np.array([w for _, w in pairs], float)
    parts = [Part({"w": x}, w) for x, w in pairs]
    total = reduce(sum_(), parts)
    np.testing.assert_allclose(total.values["w"], np.tensordot(of, stacked, 1), atol=1e-6)
    assert (total.weight, total.count) == (pytest.approx(of.sum()), len(pairs))
    if of.sum() > 1e-6:
        expected = np.average(stacked, axis=0, weights=of)
        np.testing.assert_allclose(reduce(mean(), parts).values["w"], expected, rtol=1e-6, atol=1e-6)


def test_stack_collects_in_the_order_of_the_cohort():
    total = reduce(stack(), PARTS[:5])
    np.testing.assert_array_equal(total.values["w"], [part.values["w"] for part in PARTS[:5]])
    np.testing.assert_array_equal(total.values["weight"], [part.weight for part in PARTS[:5]])
    assert total.count == 5
    assert total.values["b"].shape == (5,)


@pytest.mark.parametrize("reducer", [mean(), sum_(), fixed_mean(1.0), stack()], ids=str)
def test_one_part_is_its_own_reduction(reducer):
    total = reduce(reducer, [Part({"w": np.array([2.0, -3.0])}, 1.0)])
    np.testing.assert_array_equal(total.values["w"].reshape(-1), [2, -3])
    assert (total.weight, total.count) == (1.0, 1)


@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
def test_nothing_can_not_be_reduced(reducer):
    assert TreeFold(reducer).result() is None
    with pytest.raises(CompositionError, match="at least one part"):
        reduce(reducer, [])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
def test_dtypes_and_shapes_are_kept(reducer, dtype):
    parts = [
        Part({"w": np.ones((2, 1), dtype), "s": np.array(2, dtype), "e": np.zeros((0, 3), dtype)}, w)
        for w in (1, 2)
    ]
    total = reduce(reducer, parts)
    leading = (2,) if reducer == stack() else ()
    for name, shape in (("w", (2, 1)), ("s", ()), ("e", (0, 3))):
        assert (total.values[name].dtype, total.values[name].shape) == (dtype, leading + shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_without_weight_do_not_count(dtype):
    nothing, something = Part({"w": np.full(2, 9, dtype)}, 0.0), Part({"w": np.full(2, 3, dtype)}, 2.0)
    assert reduce(mean(), [nothing, something]).values["w"].tolist() == [3, 3]
    total = reduce(mean(), [nothing, nothing])
    assert (total.values["w"].tolist(), total.weight, total.count) == ([0, 0], 0.0, 2)
    assert reduce(sum_(), [nothing]).values["w"].tolist() == [0, 0]


def test_a_vanishing_weight_leaves_the_mean_finite():
    assert np.isfinite(reduce(mean(), [Part({"w": np.ones(2, np.float32)}, 1e-50)]).values["w"]).all()


def test_tables_of_counts_add_up_exactly():
    big = 2**53 + 1
    tables = [Part({"n": np.array([[i, big]])}) for i in range(5)]
    total = reduce(sum_(), tables)
    assert total.values["n"].dtype == np.int64
    assert total.values["n"].tolist() == [[10, 5 * big]]
    np.testing.assert_allclose(reduce(mean(), tables).values["n"], [[2, big]])


def test_rings_add_up_modulo_two_to_the_64th():
    ring = [Part({"n": np.array([2**64 - 1, 5], np.uint64)}), Part({"n": np.array([3, 2**63], np.uint64)})]
    assert reduce(sum_(), ring).values["n"].tolist() == [2, 2**63 + 5]


def test_integers_count_with_their_whole_weight():
    parts = [Part({"n": np.array([4])}, 0.5), Part({"n": np.array([8])}, 1.5)]
    assert reduce(mean(), parts).values["n"].tolist() == [7]
    assert reduce(sum_(), parts).values["n"].tolist() == [14]


def test_flags_are_counted_or_refused():
    spec = Spec.of({"hit": np.array(True)})
    try:
        sum_().accepts(spec)
    except CompositionError:
        return
    assert reduce(sum_(), [Part({"hit": np.array(True)})] * 3).values["hit"] == 3


# -- the tree -------------------------------------------------------------------------------------


def _node(reducer, present, low, height):
    """What the tree's definition makes of positions low to low + 2^height; None if all are absent."""
    if height == 0:
        return reducer.lift(PARTS[low]) if low in present else None
    half = 1 << (height - 1)
    left = _node(reducer, present, low, height - 1)
    right = _node(reducer, present, low + half, height - 1)
    if left is None or right is None:
        return right if left is None else left
    return reducer.merge(left, right)


@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
@settings(deadline=None, max_examples=60)
@given(present=positions)
def test_the_fold_is_the_fixed_tree_for_whoever_is_present(reducer, present):
    fold = TreeFold(reducer)
    for position in present:
        fold.add(position, reducer.lift(PARTS[position]))
    assert bits(fold.result()) == bits(reducer.result(_node(reducer, set(present), 0, 6)))


@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), present=positions)
def test_any_aligned_block_may_be_folded_elsewhere(reducer, data, present):
    whole, shared = TreeFold(reducer), TreeFold(reducer)
    for position in present:
        whole.add(position, reducer.lift(PARTS[position]))
    low = 0
    while low < NUM:
        height = data.draw(st.integers(0, min(6, (low & -low).bit_length() - 1 if low else 6)))
        block = _node(reducer, set(present), low, height)
        if block is not None:
            shared.add(low + data.draw(st.integers(0, (1 << height) - 1)), block)
        low += 1 << height
    assert bits(whole.result()) == bits(shared.result())


@dataclass(frozen=True)
class _Shape(Reducer):
    """Writes down who meets whom."""

    def accepts(self, spec): ...

    def lift(self, part):
        return part

    def merge(self, left, right):
        return (left, right)

    def result(self, accumulator):
        return accumulator


def test_neighbours_meet_first_and_absentees_leave_the_others_where_they_are():
    def shape(*present):
        fold = TreeFold(_Shape())
        for position in present:
            fold.add(position, position)
        return fold.result()

    assert shape(0, 1, 2, 3, 4) == (((0, 1), (2, 3)), 4)
    assert shape(1, 2, 3) == (1, (2, 3))
    assert shape(0, 3, 4, 6, 7) == ((0, 3), (4, (6, 7)))
    assert shape(5, 1000) == (5, 1000)
    assert shape(2**40, 2**40 + 1, 2**41) == ((2**40, 2**40 + 1), 2**41)


def test_few_accumulators_are_held():
    fold, most = TreeFold(_Shape()), 0
    for position in range(1024):
        fold.add(position, 0)
        most = max(most, len(fold._nodes))
    assert most <= 11


def _on_disk(folder, part, number):
    path = folder / str(number)
    path.write_bytes(pack(part))
    return unpack(Stored(path), Part)


@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
@pytest.mark.parametrize("in_memory", [(), (0,), (2, 5)])
def test_parts_on_disk_are_folded_to_the_same_bits(reducer, in_memory, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MAPPED_BYTES", 0)
    monkeypatch.setattr(reducers, "WINDOW", 4)
    parts = [
        Part({**part.values, "many": RNG.normal(size=(3, 3)), "n": np.arange(5), "no": np.ones((0, 2))}, w)
        for part, w in zip(PARTS, (1.0, 2.0, 0.5, 0.0, 3.0, 1.0, 7.0, 2.0), strict=False)
    ]
    fold, whole = TreeFold(reducer), TreeFold(reducer)
    for number, part in enumerate(parts):
        whole.add(number + number // 3, reducer.lift(part))
        part = part if number in in_memory else _on_disk(tmp_path, part, number)
        fold.lift(number + number // 3, part)
    assert bits(fold.result()) == bits(whole.result())


@pytest.mark.parametrize("reducer", REDUCERS[:2], ids=str)
def test_memory_does_not_grow_with_the_number_of_parts_on_disk(reducer, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MAPPED_BYTES", 0)
    monkeypatch.setattr(reducers, "WINDOW", 1000)
    part = Part({"w": np.ones(100_000)}, 1.0)
    peaks = []
    for num_parts in (2, 32):
        fold = TreeFold(reducer)
        tracemalloc.start()
        for number in range(num_parts):
            fold.lift(number, _on_disk(tmp_path, part, number))
        tracemalloc.reset_peak()
        fold.result()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 3 * part.values["w"].nbytes
    assert peaks[1] < peaks[0] + 0.3 * part.values["w"].nbytes


@pytest.mark.parametrize("reducer", REDUCERS, ids=str)
def test_folding_leaves_the_parts_alone(reducer):
    before = [part.values["w"].copy() for part in PARTS[:4]]
    reduce(reducer, PARTS[:4])
    for part, values in zip(PARTS[:4], before, strict=True):
        np.testing.assert_array_equal(part.values["w"], values)


# -- composition ----------------------------------------------------------------------------------

REAL = Spec.of({"w": np.zeros(2)})


@pytest.mark.parametrize("reducer", [mean(), sum_()], ids=str)
@pytest.mark.parametrize("kind", ["real", "ring", "table"])
def test_what_can_be_added_is_accepted(reducer, kind):
    reducer.accepts(REAL.like(kind=kind))


@pytest.mark.parametrize("reducer", [mean(), sum_()], ids=str)
@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (REAL.like(kind="coded"), "coded"),
        (REAL.like(kind="sparse"), "sparse"),
        (REAL.like(summable=False), "different at each client"),
    ],
)
def test_what_can_not_be_added_is_refused_with_the_remedy(reducer, spec, what):
    with pytest.raises(CompositionError, match=rf"{what}.*quantize.*stack\(\)") as refused:
        reducer.accepts(spec)
    assert str(reducer) in str(refused.value)


@pytest.mark.parametrize("spec", [REAL, REAL.like(kind="coded"), REAL.like(summable=False)])
def test_anything_of_a_fixed_shape_can_be_collected(spec):
    stack().accepts(spec)


def test_what_has_dimensions_of_its_own_can_not_be_stacked():
    with pytest.raises(CompositionError, match="one fixed shape"):
        stack().accepts(Spec({"w": TensorSpec(("n", 2), "float64")}))


def test_a_tensor_called_weight_is_not_lost():
    part = Part({"weight": np.array([3.0, 4.0])}, 5.0)
    try:
        stack().accepts(Spec.of(part.values))
    except CompositionError:
        return
    assert reduce(stack(), [part]).values["weight"].tolist() == [[3, 4]]


def test_a_reducer_without_a_protocol_says_so():
    assert not mean.hides
    with pytest.raises(CompositionError, match=r"mean\(\) has no protocol"):
        mean().protocol({"update": REAL}, (1, 2), Key.from_seed(0))
