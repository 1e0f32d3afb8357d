"""What every transform owes, alone and chained: it travels as a value, emits what its spec says, gives back
what it was given, and meets hostile bytes with a MessageError."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hanse.transforms
from hanse.core import Chain, ClientKeys, Keys, MessageError, Part, Parts, Spec, Tensors, Total, Transform
from hanse.core.exchange import Message, find_classes, pack, unpack
from hanse.transforms import (
    cast,
    clip,
    deflate,
    low_rank,
    none,
    out_last,
    per_block,
    per_client,
    per_round,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
    train_a,
    train_both,
)

KEYS = Keys.from_seed(1)
CHAINS: list[tuple[Transform, ...]] = [
    (clip(1.0),),
    (random_mask(0.3),),
    (random_mask(0.3, drawn=per_round()), rotate(), quantize(4)),
    (low_rank(1),),
    (low_rank(2, factors=train_a(), drawn=per_round(), layout=out_last()), cast("float16")),
    (low_rank(fraction=0.4, factors=train_both()), quantize(3)),
    (subsample(0.3),),
    (subsample(0.3, drawn=per_round()), rotate(block=8), quantize(2, per_block(5)), deflate()),
    (rotate(drawn=per_client()),),
    (quantize(1),),
    (quantize(7, per_block(3)),),
    (top_k(0.2),),
    (top_k(0.6, residual=none()), rotate(), quantize(5), deflate()),
    (clip(1.0), top_k(0.4), cast("bfloat16")),
    (sign(),),
    (sign(per_block(4), none()), deflate()),
    (cast("bfloat16"), deflate()),
    (cast("float16"),),
    (deflate(),),
]
every_chain = pytest.mark.parametrize("uplink", CHAINS, ids=lambda u: "-".join(type(t).__name__ for t in u))

MODEL: Tensors = {
    "weight": np.zeros((6, 7), np.float32),
    "kernel": np.zeros((4, 3, 2, 2)),
    "bias": np.zeros(7, np.float32),
    "scale": np.zeros(()),
    "none": np.zeros((0, 3), np.float32),
    "half": np.zeros(5, np.float16),
}
WITH_INTEGERS: Tensors = {**MODEL, "steps": np.zeros(2, np.int64)}


def message(uplink: tuple[Transform, ...], seed: int = 0) -> tuple[Chain, Any, Part]:
    """A chain, its plans, and what a work hands to it."""
    bounded = any(isinstance(transform, clip) for transform in uplink)  # refuses integers
    chain = Chain.bind(Spec.of(MODEL if bounded else WITH_INTEGERS), uplink)
    plans = chain.plan(chain.init(), KEYS.public)
    trained = chain.stages[0].within is not None
    rng = np.random.default_rng(seed)
    values = {
        name: np.asarray(rng.normal(size=t.shape), t.dtype)
        for name, t in (chain.stages[0].out if trained else chain.source).tensors.items()
    }
    return chain, plans, Part(values, 2.0)


def test_the_chains_hold_every_transform() -> None:
    ours = {n for n, c in find_classes(Transform).items() if c.__module__.startswith("hanse.transforms")}
    assert ours == {type(transform).__name__ for uplink in CHAINS for transform in uplink}
    assert ours <= set(hanse.transforms.__all__)
    for name in ours:
        doc = getattr(hanse.transforms, name).__doc__
        parts = ("Runs at:", "Reveals:", "Spec:", "Raises:", "References:", ">>>")
        assert all(part in doc for part in parts), name


@every_chain
def test_a_transform_is_a_value(uplink: tuple[Transform, ...]) -> None:
    assert unpack(pack(uplink)) == uplink
    chain, plans, _ = message(uplink)
    again = unpack(pack(plans))
    assert pack(again) == pack(plans)
    assert Chain.bind(chain.source, unpack(pack(uplink))).out == chain.out


@every_chain
def test_every_stage_emits_what_its_spec_says(uplink: tuple[Transform, ...]) -> None:
    chain, plans, part = message(uplink)
    for length in range(1, len(uplink) + 1):
        prefix = Chain.bind(chain.source, uplink[:length])
        sent, _ = prefix.encode(plans[:length], part, {}, KEYS)
        prefix.out.check(sent.values)
        assert sent.weight == 2.0
        if prefix.out.num_bytes is not None:
            assert prefix.out.num_bytes == sum(v.nbytes for v in sent.values.values())


@every_chain
def test_the_server_gets_back_names_shapes_and_dtypes(uplink: tuple[Transform, ...]) -> None:
    chain, plans, part = message(uplink)
    sent, _ = chain.encode(plans, part, {}, KEYS)
    opened = chain.open(plans, unpack(pack(sent)), KEYS.public)
    chain.folded.check(opened.values)
    assert opened.weight == 2.0
    total, states = chain.decode(chain.init(), plans, Total(opened.values, 2.0, 1), KEYS.secret)
    chain.source.check(total.values)
    assert (total.weight, total.count) == (2.0, 1)
    assert states == chain.init()
    if chain.stages[0].within is None and "steps" in part.values:
        np.testing.assert_array_equal(total.values["steps"], part.values["steps"])


@every_chain
def test_the_same_keys_give_the_same_bytes_and_change_nothing(uplink: tuple[Transform, ...]) -> None:
    chain, plans, part = message(uplink)
    before = pack(part)
    memory: Any = {}
    sent, kept = chain.encode(plans, part, memory, KEYS)
    again, _ = chain.encode(unpack(pack(plans)), unpack(before), memory, KEYS)
    assert pack(sent) == pack(again)
    assert pack(part) == before
    assert memory == {}
    late = pack(kept)
    chain.encode(plans, part, kept, KEYS)
    assert pack(kept) == late


TOGETHER: list[tuple[Transform, ...]] = [
    (clip(1.0),),
    (clip(1.0), cast("bfloat16")),
    (cast("float16"),),
    (subsample(0.3, drawn=per_round()), clip(0.5)),
    (sign(residual=none()),),
    (clip(1.0), sign(residual=none())),
]
"""Chains that encode several clients at once."""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("uplink", TOGETHER, ids=str)
def test_several_clients_are_encoded_in_the_bits_of_one(uplink: tuple[Transform, ...], dtype: str) -> None:
    model = {"w": np.zeros((9, 1201), dtype), "b": np.zeros((), dtype), "none": np.zeros((0, 3), dtype)}
    chain = Chain.bind(Spec.of(model), uplink)
    plans, rng = chain.plan(chain.init(), KEYS.public), np.random.default_rng(0)
    sizes = [0.0, 1e-3, 0.5, 1.0, 70.0]
    rows = [{n: np.asarray(s * rng.normal(size=v.shape), dtype) for n, v in model.items()} for s in sizes]
    given = {n: np.stack([row[n] for row in rows]) for n in model}
    before = {n: v.tobytes() for n, v in given.items()}
    keys = ClientKeys(len(sizes), lambda i: KEYS.fold_in("client", i))
    weights = np.arange(1.0, 1 + len(sizes))
    got = chain.encode_many(plans, Parts(given, weights), keys)
    assert got is not None
    assert {n: v.tobytes() for n, v in given.items()} == before
    for i, row in enumerate(rows):
        due, memory = chain.encode(plans, Part(row, weights[i]), {}, keys[i])
        assert memory == {}
        assert got.weights[i] == due.weight
        assert {n: (v[i].dtype, v[i].tobytes()) for n, v in got.values.items()} == {
            n: (np.asarray(v).dtype, np.asarray(v).tobytes()) for n, v in due.values.items()
        }


def test_what_remembers_or_draws_for_each_client_is_encoded_one_by_one() -> None:
    alone = (sign(), top_k(0.5), quantize(2), subsample(0.5), rotate(), deflate())
    assert not any(Chain.bind(Spec.of(MODEL), (one,)).can_encode_many for one in alone)
    assert all(Chain.bind(Spec.of(MODEL), uplink).can_encode_many for uplink in TOGETHER)


def test_a_factor_that_is_too_small_for_its_dtype_is_left_to_one_by_one() -> None:
    chain = Chain.bind(Spec.of({"w": np.zeros(3, np.float16)}), (clip(1e-3),))
    far = Parts({"w": np.full((2, 3), 3e4, np.float16)}, np.ones(2))
    assert chain.encode_many((None,), far, ClientKeys(2, lambda i: KEYS)) is None
    sent, _ = chain.encode((None,), Part({"w": far.values["w"][0]}), {}, KEYS)
    np.testing.assert_allclose(sent.values["w"], 1e-3 / np.sqrt(3), rtol=1e-3)


@every_chain
def test_zeros_stay_zero(uplink: tuple[Transform, ...]) -> None:
    chain, plans, part = message(uplink)
    zeros = Part({name: np.zeros_like(v) for name, v in part.values.items()})
    sent, _ = chain.encode(plans, zeros, {}, KEYS)
    total = Total(chain.open(plans, sent, KEYS.public).values, 1.0, 1)
    total, _ = chain.decode(chain.init(), plans, total, KEYS.secret)
    assert not any(v.any() for v in total.values.values())


# -- hostile bytes --------------------------------------------------------------------------------


def corrupted(data: Any, part: Part, out: Spec) -> Part:
    """Values that the server would take for this spec, with some of their bytes replaced."""
    values: dict[str, Any] = {}
    for name, array in part.values.items():
        raw = bytearray(array.tobytes())
        for _ in range(data.draw(st.integers(0, 3))):
            if raw:
                at = data.draw(st.integers(0, len(raw) - 1))
                junk = data.draw(st.binary(min_size=1, max_size=12))
                raw[at : at + len(junk)] = junk[: len(raw) - at]
        values[name] = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
    out.check(values)
    return Part(values)


@every_chain
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_the_bytes_the_server_refuses_them_or_gets_a_message(
    uplink: tuple[Transform, ...], data: Any
) -> None:
    chain, plans, part = message(uplink, data.draw(st.integers(0, 3)))
    sent, _ = chain.encode(plans, part, {}, KEYS)
    with np.errstate(all="ignore"):
        try:
            hostile = corrupted(data, sent, chain.out)
            opened = chain.open(plans, hostile, KEYS.public)
        except MessageError:
            return
    shapes = {name: (v.shape, v.dtype.name) for name, v in opened.values.items()}
    assert shapes == {name: (t.shape, t.dtype) for name, t in chain.folded.tensors.items()}


@pytest.mark.parametrize("transform", [quantize(2), sign(), top_k(0.01), cast("bfloat16")], ids=str)
def test_a_short_message_can_not_ask_for_much(transform: Transform) -> None:
    """Sizes follow from the spec alone: what claims others is refused before it is opened."""
    chain = Chain.bind(Spec.of({"w": np.zeros(10_000, np.float32)}), (transform,))
    sent, _ = chain.encode((None,), Part({"w": np.ones(10_000, np.float32)}), {}, KEYS)
    for name, array in sent.values.items():
        with pytest.raises(MessageError, match=r"has shape .*; it must have"):
            chain.out.check({**sent.values, name: array[:-1]})
    with pytest.raises(MessageError):
        unpack(pack(Message(0, {"update": sent}))[:100], Message)
