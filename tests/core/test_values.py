import json
import os
import random
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, from_dtype

from hanse import algorithms, simulation, transforms  # noqa: F401 - for what they register
from hanse.core import former
from hanse.core.errors import InvalidInput, MessageError
from hanse.core.exchange.party import Message
from hanse.core.keys import Key, Keys
from hanse.core.values import (
    digest,
    fields,
    find_classes,
    flatten,
    former_digest,
    pack,
    renew,
    restore,
    unpack,
    value,
)
from hanse.core.work import Part

DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "complex64"),
]


@value
class leaf_pair:
    left: Any
    right: Any = None


@value
class positive_ratio:
    of: int
    to: int = 1

    def __post_init__(self) -> None:
        if self.of / self.to < 0:
            raise InvalidInput("negative")


def same(a, b):
    """Equal to the last bit, types and order included."""
    if isinstance(a, np.ndarray | np.generic):
        a, native = np.asarray(a), np.asarray(a).dtype.newbyteorder("=")
        return (
            isinstance(b, np.ndarray)
            and (native, a.shape) == (b.dtype, b.shape)
            and a.astype(native).tobytes() == b.tobytes()
        )
    if isinstance(a, MappingProxyType):
        a = dict(a)
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return repr(a) == repr(b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(tuple(a.items()), tuple(b.items()))
    if type(a) is leaf_pair:
        return same((a.left, a.right), (b.left, b.right))
    return a == b


def _laid_out(array, how):
    if how == "fortran":
        return np.asfortranarray(array)
    if how == "every second":
        return array[..., ::2] if array.ndim else array
    if how == "turned":
        return array.T[::-1] if array.ndim else array
    return array.astype(array.dtype.newbyteorder(">")) if how == "big-endian" else array


shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
layouts = st.sampled_from(["plain", "fortran", "every second", "turned", "big-endian"])
plain_arrays = st.sampled_from(DTYPES).flatmap(
    lambda d: arrays(d, shapes, elements=from_dtype(np.dtype(d), allow_nan=True))
)
any_array = st.builds(_laid_out, plain_arrays, layouts)
scalars = st.sampled_from(DTYPES).flatmap(lambda d: from_dtype(np.dtype(d)).map(np.dtype(d).type))
keys = st.binary(min_size=32, max_size=32).map(Key)
names = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=5)
hashable = st.none() | st.booleans() | st.integers() | st.binary(max_size=3) | names | st.tuples(names, names)
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    any_array,
    scalars,
    keys,
    st.builds(Keys, keys, keys),
)
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(names, inner, max_size=3),
        st.dictionaries(names, inner, max_size=3).map(MappingProxyType),
        st.dictionaries(hashable, inner, max_size=3),
        st.builds(leaf_pair, inner, inner),
    ),
    max_leaves=8,
)


# -- there and back -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(values)
def test_what_is_unpacked_is_what_was_packed(obj):
    data = pack(obj)
    back = unpack(data)
    assert same(obj, back)
    assert pack(back) == data


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3)])
def test_every_dtype_and_shape_survives(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    assert same(array, unpack(pack(array)))


@pytest.mark.parametrize(
    "obj",
    [
        {"a/b": np.ones(2), "$": np.zeros(3), "é中\U0001f600": np.ones(()), '"\\\n\0': np.ones(1)},
        {"$": "tensor", "at": "value"},
        {"$": None},
        {1: "int", "1": "word", (1, "1"): "both", None: "none", b"1": "bytes"},
        {-5: {2**70: np.ones(2)}, "": ()},
        (float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 2**4000, True, 1, 1.0, "NaN"),
        ((), {}, ((),), {"": {}}, b"", ""),
        leaf_pair(leaf_pair(np.ones(1)), {"left": np.zeros(1)}),
    ],
    ids=["names", "like a tensor", "like a head", "keys", "nested keys", "numbers", "empty", "classes"],
)
def test_awkward_values_survive(obj):
    assert same(obj, unpack(pack(obj)))
    assert digest(obj) == digest(unpack(pack(obj)))


def _nested(*arrays_at):
    tree: dict[str, Any] = {}
    for number, path in enumerate(arrays_at):
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = np.array([number])
    return tree


@pytest.mark.parametrize(
    "obj",
    [
        _nested(("a/b",), ("a", "b")),
        _nested(("a", "b/c"), ("a/b", "c")),
        _nested(("",), ("value",)),
        _nested(("", "b"), ("b",)),
        _nested(("__metadata__",), ("w",)),
    ],
    ids=str,
)
def test_no_two_tensors_of_a_value_share_a_name(obj):
    assert same(obj, unpack(pack(obj)))
    first, *_ = obj
    assert digest(obj) != digest({**obj, first: np.array([7])})


def test_tensors_are_named_by_where_they_stand():
    """So that other tools can read a saved model."""
    skeleton, tensors = flatten({"params": {"w": np.ones(2), "b": (np.ones(3), 1.5)}})
    assert list(tensors) == ["params/w", "params/b/0"]
    assert same(restore(skeleton, tensors), {"params": {"w": np.ones(2), "b": (np.ones(3), 1.5)}})


def test_unpacked_tensors_can_not_be_written():
    with pytest.raises(ValueError, match="read-only"):
        unpack(pack({"w": np.ones(2)}))["w"][0] = 3


# -- what is no value -----------------------------------------------------------------------------


class _Texts(str):
    pass


@pytest.mark.parametrize(
    "thing",
    [[1], {1}, object(), len, _Texts("a"), range(3), 1j, bytearray(b"a")],
    ids=lambda x: type(x).__name__,
)
def test_what_is_no_value_is_refused_and_located(thing):
    for use in (pack, digest):
        with pytest.raises(InvalidInput, match=r"run/1 is a .*which can't be saved or sent"):
            use({"run": (0, thing)})
    with pytest.raises(InvalidInput, match="the value is a"):
        pack(thing)


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()]),
        np.array(["a"]),
        np.zeros(2, "complex128"),
        np.zeros(1, "M8[s]"),
        np.zeros(1, "V3"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_that_can_not_be_sent_are_refused(array):
    for use in (pack, digest):
        with pytest.raises(InvalidInput):
            use({"a": array})


def _deep(levels):
    obj: Any = 1
    for _ in range(levels):
        obj = (obj,)
    return obj


def test_what_can_not_be_unpacked_is_not_packed():
    for levels in (40, 64, 65, 500):
        try:
            data = pack(_deep(levels))
        except InvalidInput:
            continue
        assert same(_deep(levels), unpack(data))


# -- classes --------------------------------------------------------------------------------------


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(InvalidInput, match=r"two classes are called 'leaf_pair'.*rename yours"):

        @value(name="leaf_pair")
        class other:
            pass


def test_a_class_may_travel_under_another_name():
    @value(name="renamed on the wire")
    class local_name:
        x: int

    assert unpack(pack(local_name(3))) == local_name(3)
    assert "renamed on the wire" in flatten(local_name(3))[0]
    assert find_classes(local_name) == {"renamed on the wire": local_name}


def test_what_an_earlier_version_packed_is_read_under_the_names_of_today(monkeypatch):
    monkeypatch.setattr(former, "CLASSES", {"leaf_couple": "leaf_pair"})
    monkeypatch.setattr(former, "FIELDS", {"leaf_pair": {"first": "left"}})
    for tree in ('{"$":"leaf_couple","first":1,"right":2}', '{"$":"leaf_couple","left":1,"right":2}'):
        assert restore(tree, {}) == leaf_pair(1, 2)
        assert restore(tree, {}, only=(leaf_pair,)) == leaf_pair(1, 2)
    with pytest.raises(MessageError, match="with second, which is unknown here"):
        restore('{"$":"leaf_couple","second":1,"right":2}', {})


def test_plain_data_of_an_earlier_version_are_renewed(monkeypatch):
    monkeypatch.setattr(former, "CLASSES", {"leaf_couple": "leaf_pair", "positive_ratio": "leaf_pair"})
    monkeypatch.setattr(former, "FIELDS", {"leaf_pair": {"first": "left"}})
    old = {"name": "leaf_couple", "first": [{"name": "leaf_couple", "left": 1}], "right": "leaf_couple"}
    new = {"name": "leaf_pair", "left": [{"name": "leaf_pair", "left": 1}], "right": "leaf_couple"}
    assert renew(old) == renew(new) == new
    kept = {"name": "positive_ratio", "of": 1.0, "first": {"name": 3, "first": None}}
    assert renew(kept) == kept  # a class of that name is there today


def test_the_digest_of_an_earlier_version_is_that_of_the_former_names(monkeypatch):
    pair = leaf_pair(np.arange(3), {"deep": leaf_pair(1, 2)})
    assert former_digest(pair) == digest(pair)

    @value(name="leaf_duo")
    class leaf_duo:
        first: Any
        right: Any

    monkeypatch.setattr(former, "CLASSES", {"leaf_duo": "leaf_pair"})
    monkeypatch.setattr(former, "FIELDS", {"leaf_pair": {"first": "left"}})
    assert former_digest(pair) == digest(leaf_duo(np.arange(3), {"deep": leaf_duo(1, 2)}))
    assert former_digest(pair) != digest(pair)


def test_values_can_not_be_changed():
    with pytest.raises(AttributeError):
        leaf_pair(1).left = 2
    assert [f.name for f in fields(leaf_pair)] == ["left", "right"]


def test_an_unknown_kind_names_the_nearest_known_one():
    with pytest.raises(MessageError, match="did you mean 'leaf_pair'"):
        restore('{"$":"leaf_pear","left":1,"right":2}', {})


def test_a_value_of_another_class_than_expected_is_refused():
    assert unpack(pack(leaf_pair(1)), leaf_pair) == leaf_pair(1)
    with pytest.raises(MessageError, match="a positive_ratio where a leaf_pair is needed"):
        unpack(pack(positive_ratio(1)), leaf_pair)


# -- strangers ------------------------------------------------------------------------------------


def _packed(skeleton: str) -> bytes:
    head = json.dumps({"__metadata__": {"hanse": skeleton}}).encode()
    return len(head).to_bytes(8, "little") + head


def test_only_what_is_due_is_built():
    built = []

    @value(name="costly_to_build")
    class costly:
        size: int

        def __post_init__(self) -> None:
            built.append(self.size)

    data = pack({"a": (costly(3),)})
    assert unpack(data, only=(costly,)) == {"a": (costly(3),)}
    built.clear()
    with pytest.raises(MessageError, match="a costly_to_build, which is not allowed here"):
        unpack(data, only=(leaf_pair,))
    assert built == []


def test_a_header_is_bounded_where_a_bound_is_given():
    data = pack({"w": np.ones(1000)})
    head = int.from_bytes(data[:8], "little")
    assert same(unpack(data, max_head_bytes=head), {"w": np.ones(1000)})
    with pytest.raises(MessageError, match=f"a header of {head} bytes; at most {head - 1} are allowed"):
        unpack(data, max_head_bytes=head - 1)


def test_keys_made_to_collide_are_refused():
    """Each of them would be compared with all before it: 40,000 would take minutes."""
    equal = 2**61 - 1  # all its multiples have one hash
    items = ",".join(f"[{number * equal},1]" for number in range(40_000))
    with pytest.raises(MessageError, match="keys of one hash"):
        unpack(_packed(f'{{"$":"map","items":[{items}]}}'))
    few = {number * equal: number for number in range(8)}
    assert unpack(pack(few)) == few


def test_a_long_unknown_kind_is_not_repeated():
    with pytest.raises(MessageError) as caught:
        unpack(_packed(json.dumps({"$": "kind" * 100_000})))
    assert len(str(caught.value)) < 20_000


# -- digests --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(values, values)
def test_digests_are_equal_exactly_where_the_packed_values_are(one, other):
    assert (digest(one) == digest(other)) == (pack(one) == pack(other))


@settings(deadline=None)
@given(plain_arrays, layouts.filter(lambda how: how != "big-endian"))
def test_digests_see_values_not_layouts(array, how):
    laid = _laid_out(array, how)
    assert (
        digest(laid) == digest(np.ascontiguousarray(laid).reshape(laid.shape)) == digest(unpack(pack(laid)))
    )


def test_digests_do_not_see_the_order_of_bytes():
    assert digest(np.arange(3, dtype=">f4")) == digest(np.arange(3, dtype="<f4"))


A = np.arange(6, dtype=np.float32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (A, A.astype(np.float64)),
        (A.view(np.int32), A),
        (A, A.reshape(2, 3)),
        (A.reshape(2, 3), A.reshape(3, 2)),
        (A, A[::-1]),
        (np.zeros((0, 2)), np.zeros((2, 0))),
        (np.zeros(0, np.int8), np.zeros(0, np.uint8)),
        (np.array(1.0), np.array([1.0])),
        (np.float64(1.0), 1.0),
        ({"a": A, "b": 2 * A}, {"a": 2 * A, "b": A}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ((1, 2), (2, 1)),
        ((), {}),
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        (None, "null"),
        ("1", 1),
        ("ab", b"ab"),
        ({"1": A}, {1: A}),
        ({"left": 1, "right": None}, leaf_pair(1)),
        (float("nan"), "nan"),
        (((A, A[:0]), A[:0]), ((A[:0], A), A[:0])),
    ],
)
def test_digests_tell_apart(one, other):
    assert digest(one) != digest(other)


HASHED = """
from hanse.core import Keys
from hanse.core.exchange import digest, pack
import hashlib, numpy as np
obj = {"a": {word: np.arange(3) for word in ("u", "v", "w")}, 7: Keys.from_seed(1), "b": (1, "two", None)}
print(digest(obj), hashlib.sha256(pack(obj)).hexdigest())
"""


def test_digests_and_bytes_do_not_depend_on_the_hash_seed():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", HASHED],
            env={**environment, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.split()) == 2


def test_digests_never_change():
    """Journals of earlier versions are replayed by later ones."""
    assert digest({"w": np.arange(3, dtype=np.float32), "n": (1, 2.5, None, b"x")}) == (
        "d96abc2cca0767b72bc843e27c7ba2cfed767084967efb04f21fd243fd23abdd"
    )


# -- hostile bytes --------------------------------------------------------------------------------

MESSAGE = pack(
    Message(
        3,
        {
            "update": Part(
                {"w": A.reshape(2, 3), "b": np.array(1.0), "none": np.zeros((0, 2), np.int8)}, 2.0
            ),
            "ready": None,
            "odd": {1: (leaf_pair(float("nan")), b"x", positive_ratio(3, 4))},
        },
    )
)
HEADER = int.from_bytes(MESSAGE[:8], "little")
TOKENS = [
    *(
        b'"F32"',
        b'"F64"',
        b'"BF16"',
        b'"F8_E4M3"',
        b'"C64"',
        b'"I64"',
        b'"F4"',
        b'"BOOL"',
        b"[18446744073709551615,0]",
    ),
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"null",
        b"NaN",
        b"-1",
        b"1e999",
        b"99999999999999999999",
        b'\\"$\\"',
    ),
    *(
        b'"shape"',
        b'"data_offsets"',
        b"\\ud800",
        b"\xff",
        b"\0",
        b'"__metadata__"',
        b'\\"at\\"',
        b'\\"hex\\"',
    ),
]


def _unpacks(data):
    """Whether the bytes are a value. Nothing but MessageError may say that they are not."""
    try:
        unpack(data)
    except MessageError:
        return False
    return True


@pytest.mark.parametrize("end", range(0, len(MESSAGE), 7))
def test_no_prefix_of_a_message_is_a_message(end):
    assert not _unpacks(MESSAGE[:end])


def test_a_message_with_something_behind_it_is_none():
    assert _unpacks(MESSAGE)
    assert not _unpacks(MESSAGE + b"\0")


@pytest.mark.parametrize("head", [0, 1, len(MESSAGE) - 7, 2**31, 2**63 - 1, 2**64 - 1])
def test_an_absurd_length_of_the_header_costs_nothing(head):
    tracemalloc.start()
    assert not _unpacks(head.to_bytes(8, "little") + MESSAGE[8:])
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def _spliced(rng, data):
    """The bytes with a token written over, or into, the header, whose length is put right again."""
    token, at = rng.choice(TOKENS), 8 + rng.randrange(HEADER)
    width = rng.choice([0, 1, len(token)])
    data = data[:at] + token + data[at + width :]
    return (HEADER + len(token) - width).to_bytes(8, "little") + data[8:]


def _flipped(rng, data):
    flipped = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        flipped[rng.randrange(len(flipped))] ^= rng.randrange(1, 256)
    return bytes(flipped)


@pytest.mark.parametrize("mutate", [_spliced, _flipped])
def test_thousands_of_mutated_messages_are_refused_or_read(mutate):
    rng = random.Random(0)
    outcomes = {_unpacks(mutate(rng, MESSAGE)) for _ in range(5000)}
    assert outcomes == {True, False}


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_no_message(data):
    assert not _unpacks(data)
    assert not _unpacks(len(data).to_bytes(8, "little") + data)


ODD = st.sampled_from(
    [None, True, -1, 0, 10**400, -(10**400), 1.5, "", "x", [], {}, [1, 2], [["a", 1]], [[1, 10**400]]]
)
HOSTILE = [
    {"$": "float", "is": "x"},
    {"$": "float", "is": []},
    {"$": "float"},
    {"$": "bytes", "hex": "zz"},
    {"$": "bytes", "hex": 5},
    {"$": "map", "items": 5},
    {"$": "map", "items": [[1]]},
    {"$": "map", "items": [[{}, 1]]},
    {"$": "map"},
    {"$": "tensor"},
    {"$": "tensor", "at": "nowhere"},
    {"$": "tensor", "at": []},
    {"$": []},
    {"$": {}},
    {"$": 5},
    {"$": "object"},
    {"$": "__class__"},
    {"$": "leaf_pair"},
    {"$": "leaf_pair", "left": 1, "wrong": 2},
    {"$": "positive_ratio", "of": -1},
    {"$": "positive_ratio", "of": "x"},
    {"$": "key", "digest": 1, "self": 2},
]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"left": 1, "wrong": 2}, "with wrong, which is unknown here"),
        ({"right": 2}, "without left"),
    ],
)
def test_what_another_version_packed_is_refused_in_words(given, why):
    with pytest.raises(MessageError, match=f"a leaf_pair {why}: another version of hanse packed it"):
        restore(json.dumps({"$": "leaf_pair", **given}), {})


@pytest.mark.parametrize("node", HOSTILE, ids=json.dumps)
def test_hostile_skeletons_are_refused(node):
    for tree in (node, [node], {"a": node}, {"$": "leaf_pair", "left": node, "right": 1}):
        with pytest.raises(MessageError):
            restore(json.dumps(tree), {})


@pytest.mark.parametrize("skeleton", ["", "{", "nope", "1 2", '{"a":1', "\ud800", "1" * 5000])
def test_what_is_no_json_is_refused(skeleton):
    with pytest.raises(MessageError):
        restore(skeleton, {})


def _trees(inner):
    classes = st.sampled_from(sorted(find_classes(object)))
    of_class = classes.flatmap(
        lambda name: st.fixed_dictionaries(
            {"$": st.just(name)},
            optional={f.name: inner for f in fields(find_classes(object)[name])} | {"extra": inner},
        )
    )
    return st.one_of(of_class, of_class, st.lists(inner, max_size=3))


@settings(deadline=None, max_examples=300)
@example({"$": "positive_ratio", "of": 1, "to": 0})
@given(st.recursive(ODD | st.sampled_from(HOSTILE), _trees, max_leaves=6))
def test_fields_of_wrong_types_raise_nothing_else(tree):
    with suppress(MessageError):
        restore(json.dumps(tree), {})


@pytest.mark.parametrize("levels", [65, 1000, 100_000])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}"), ('{"$":"map","items":[[1,', "]]}")])
def test_deep_nesting_is_refused(levels, left, right):
    with pytest.raises(MessageError):
        restore(left * levels + "1" + right * levels, {})
    with pytest.raises(MessageError):
        restore('{"a":' + "[" * 50 + left * levels + "1" + right * levels + "]" * 50 + "}", {})


def test_tensors_and_skeleton_must_fit():
    skeleton, tensors = flatten({"a": np.ones(2), "b": np.ones(3)})
    with pytest.raises(MessageError, match="does not use: \\['c'\\]"):
        restore(skeleton, {**tensors, "c": np.ones(1)})
    with pytest.raises(MessageError):
        restore(skeleton, {"a": np.ones(2)})


def test_a_message_holds_a_bounded_multiple_of_its_size():
    """However it is written: no few bytes that unfold to many."""
    noise = '{"a":[' + "[]," * 20_000 + '{"$":"bytes","hex":"' + "00" * 20_000 + '"}]}'
    again = '{"w":{"$":"tensor","at":"w"},"l":[' + ",".join(['{"$":"tensor","at":"w"}'] * 2000) + "]}"
    array = np.zeros(10_000)
    for skeleton, tensors in ((noise, {}), (again, {"w": array})):
        tracemalloc.start()
        restore(skeleton, tensors)
        assert tracemalloc.get_traced_memory()[1] < 50 * len(skeleton)
        tracemalloc.stop()
