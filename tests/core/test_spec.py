import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hanse.core.errors import MessageError
from hanse.core.spec import Spec, TensorSpec
from hanse.core.values import pack, unpack

dtypes = st.sampled_from(["float32", "float64", "int8", "int64", "uint8", "bool"])
tensors = st.dictionaries(
    st.text(max_size=3),
    dtypes.flatmap(
        lambda d: arrays(d, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), fill=st.just(0))
    ),
    max_size=3,
)
FINITE = {"w": np.ones((2, 3), np.float32), "n": np.array(3)}
SPEC = Spec.of(FINITE)


@given(tensors.filter(lambda t: all(v.dtype.kind != "f" or np.isfinite(v).all() for v in t.values())))
def test_tensors_are_of_their_own_spec(given_tensors):
    spec = Spec.of(given_tensors)
    spec.check(given_tensors)
    assert spec.num_bytes == sum(v.nbytes for v in given_tensors.values())
    assert unpack(pack(spec)) == spec


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"w": FINITE["w"]}, r"missing \['n'\], not asked for \[\]"),
        ({**FINITE, "more": np.ones(1)}, r"missing \[\], not asked for \['more'\]"),
        ({**FINITE, "w": FINITE["w"].T}, r"'w' has shape \(3, 2\); it must have \(2, 3\)"),
        ({**FINITE, "w": FINITE["w"].reshape(6)}, r"'w' has shape \(6,\)"),
        ({**FINITE, "w": FINITE["w"].reshape(1, 2, 3)}, r"'w' has shape \(1, 2, 3\)"),
        ({**FINITE, "n": np.array([3])}, r"'n' has shape \(1,\); it must have \(\)"),
        ({**FINITE, "w": FINITE["w"].astype(np.float64)}, "'w' has dtype float64; it must have float32"),
        ({**FINITE, "n": np.array(3, np.int32)}, "'n' has dtype int32; it must have int64"),
        ({}, r"missing \['n', 'w'\]"),
    ],
)
def test_what_is_not_of_the_spec_is_refused_by_name(changed, says):
    with pytest.raises(MessageError, match=says):
        SPEC.check(changed)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_counted(dtype, bad):
    values = np.ones((2, 3), dtype)
    values[0] = bad
    with pytest.raises(MessageError, match="'w' is not finite: 3 of its 6 values"):
        Spec.of({"w": values}).check({"w": values})


def test_complex_numbers_must_be_finite_too():
    values = np.array([1, complex(0, np.nan)], np.complex64)
    with pytest.raises(MessageError, match="not finite"):
        Spec.of({"w": values}).check({"w": values})


@pytest.mark.parametrize(
    "hostile",
    [{1: np.ones(1), "b": np.ones(1)}, {**FINITE, "w": 1.0}, {**FINITE, "w": None}, {**FINITE, "n": (1,)}],
    ids=str,
)
def test_whatever_a_message_holds_instead_is_refused(hostile):
    with pytest.raises(MessageError):
        SPEC.check(hostile)


TABLE = Spec(
    {"counts": TensorSpec(("nodes", 4, "bins"), "int64"), "sums": TensorSpec(("nodes", "bins"), "float32")},
    kind="table",
)


def _table(nodes, bins, other_nodes=None, other_bins=None):
    other = (nodes if other_nodes is None else other_nodes, bins if other_bins is None else other_bins)
    return {"counts": np.zeros((nodes, 4, bins), np.int64), "sums": np.zeros(other, np.float32)}


@pytest.mark.parametrize(("nodes", "bins"), [(1, 1), (3, 5), (0, 2), (7, 7)])
def test_words_are_bound_by_the_message(nodes, bins):
    TABLE.check(_table(nodes, bins))


@pytest.mark.parametrize("wrong", [(3, 5, 5, 3), (3, 5, 3, 4), (3, 5, 2, 5), (1, 5, 0, 5)])
def test_a_word_means_the_same_everywhere(wrong):
    with pytest.raises(MessageError, match="'sums' has shape"):
        TABLE.check(_table(*wrong))


def test_a_word_may_stand_twice_in_one_shape():
    square = Spec({"w": TensorSpec(("n", "n"), "float64")})
    square.check({"w": np.zeros((2, 2))})
    with pytest.raises(MessageError, match=r"\(2, 3\)"):
        square.check({"w": np.zeros((2, 3))})


def test_words_are_bound_anew_by_each_message():
    for nodes in (1, 2, 3):
        TABLE.check(_table(nodes, 2))


def test_the_size_is_unknown_where_a_dimension_is_a_word():
    assert TABLE.num_bytes is None
    assert TABLE.limit_bytes is None
    assert TABLE.like(max_bytes=100).limit_bytes == 100
    assert Spec.of({"w": np.zeros(3)}, max_bytes=100).limit_bytes == 24
    assert TABLE.tensors["counts"].num_values is None
    assert TensorSpec((2, 3), "int8").num_values == 6
    assert TensorSpec((), "int8").num_values == 1
    assert TensorSpec((2, 0), "int8").num_values == 0


def test_changes_leave_the_rest():
    changed = SPEC.like(sealed=True, l2_bound=2.0)
    assert (changed.sealed, changed.l2_bound, changed.tensors) == (True, 2.0, SPEC.tensors)
    assert Spec.of(FINITE, sealed=True, l2_bound=2.0) == changed
    assert not SPEC.sealed
