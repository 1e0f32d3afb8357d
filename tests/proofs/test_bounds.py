"""A promised bound is kept: who sends more is dropped by name, and who is honest never is."""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liars import LIAR, NUM_CLIENTS, SIZES, bound, loose_clip, make
from support import KEYS

from hanse.algorithms import fed_avg
from hanse.core import Close, Key, Keys, MessageError, Part, PartSpec, Spec, Tensors, Transform, sum, tree_map
from hanse.core.exchange import (
    Collected,
    Command,
    Event,
    Message,
    Payload,
    Progress,
    Task,
    digest,
    drive,
    pack,
    training,
    unpack,
    validate,
)
from hanse.simulation import (
    Answer,
    ClientBackend,
    Devices,
    Job,
    Simulation,
    WorkerPool,
    WrappedBackend,
    ideal,
)
from hanse.transforms import cast, clip, deflate, per_client, per_round, rotate, subsample

ROUNDS = 3


class Without(Devices):
    """Devices of which the liar's always drops out."""

    def duration_s(self, party: Any, key: Any) -> float | None:
        return None if party == LIAR else 1.0


class Watched(Simulation):
    """A simulation that remembers whom it dropped, and why."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.dropped: list[tuple[Any, str]] = []

    def perform(self, command: Command[Any]) -> Event:
        event = super().perform(command)
        if isinstance(event, Collected):
            self.dropped += [(drop.party, drop.reason) for drop in event.dropped]
        return event


def lead(
    uplink: tuple[Transform, ...], backend: ClientBackend, devices: Devices = ideal(), **options: Any
) -> tuple[str, list[tuple[Any, str]]]:
    """The digest of the model after a few rounds, and who was dropped and why."""
    algorithm = fed_avg(lr=0.5, fraction=1.0, batch_size=4, uplink=uplink, close=Close())
    begin = Progress(0, algorithm.init(bound().init(KEYS.public), KEYS.public))
    runtime = Watched(backend, NUM_CLIENTS, KEYS, devices, **options)
    ended = drive(training(algorithm, begin, KEYS.public, rounds=ROUNDS), runtime)
    return digest(dict(ended.state.params)), runtime.dropped


CHAINS: dict[str, tuple[Transform, ...]] = {
    "clip": (),
    "summed in other coordinates": (rotate(), subsample(0.5, drawn=per_round())),
    "opened without loss": (deflate(),),
}


@pytest.mark.parametrize("more", CHAINS.values(), ids=CHAINS.keys())
@pytest.mark.parametrize("how", ["one by one", "in blocks", "together"])
def test_a_liar_is_dropped_by_name_and_the_model_is_that_of_the_others(
    more: tuple[Transform, ...], how: str
) -> None:
    due, absent = lead((clip(0.2), *more), make(), Without())
    assert [party for party, _ in absent] == [LIAR] * ROUNDS
    got, dropped = lead(
        (loose_clip(0.2), *more), make(together=how == "together"), in_blocks=how != "one by one"
    )
    assert got == due
    assert [party for party, _ in dropped] == [LIAR] * ROUNDS
    assert all("its norm is " in why and "; at most 0.2 is allowed" in why for _, why in dropped)


def test_the_clip_of_these_tests_matters_and_costs_nobody_else() -> None:
    honest, dropped = lead((clip(0.2),), make())
    assert dropped == []
    assert honest != lead((clip(0.2),), make(), Without())[0]
    assert honest != lead((clip(20.0),), make())[0]
    assert honest == lead((clip(0.2),), make(together=True))[0]


def test_workers_drop_a_liar_too() -> None:
    due, _ = lead((clip(0.2),), make(), Without())
    with closing(WorkerPool(partial(make, True), 2)) as pool:
        got, dropped = lead((loose_clip(0.2),), pool)
    assert got == due
    assert [party for party, _ in dropped] == [LIAR] * ROUNDS


class Lying(WrappedBackend):
    """A backend whose liar changes its message after it was encoded."""

    def compute(self, jobs: Sequence[Job], memory_at: Any) -> Iterator[Answer]:
        for answer in self.inner.compute(jobs, memory_at):
            ((_, task),) = answer.job.places
            if task.party == LIAR:
                assert isinstance(answer.result, bytes)
                message = unpack(answer.result, Message)
                part: Any = message.parts["update"]
                more = replace(part, values=tree_map(lambda v: 100 * v, part.values))
                answer = replace(answer, result=pack(replace(message, parts={"update": more})))
            yield answer


def test_a_changed_message_is_refused() -> None:
    due, _ = lead((clip(0.2),), make(), Without())
    got, dropped = lead((clip(0.2),), Lying(make()), in_blocks=False)
    assert got == due
    assert len(dropped) == ROUNDS
    for party, why in dropped:
        said = re.fullmatch(r"part 'update': its norm is ([0-9.]+); at most 0\.2 is allowed", why)
        assert said is not None
        assert (party, float(said[1])) == (LIAR, pytest.approx(20.0, rel=1e-6))


# -- whoever is honest ---------------------------------------------------------------------------


def send(values: Tensors, uplink: tuple[Transform, ...], scaled: float = 1.0) -> None:
    """Encodes values as a client does, scales what is sent, and admits it as the server does."""
    part_spec = PartSpec(Spec.of(values), uplink, sum())
    chain, task = part_spec.chain(), Task(3, 0, Key.from_seed(5), None)
    payload = Payload(None, {}, {"x": part_spec}, {"x": chain.plan(chain.init(), KEYS.public)})  # type: ignore[arg-type]
    payload.__dict__["chains"] = {"x": chain}
    keys = Keys(task.key, KEYS.secret).fold_in("x")
    sent, _ = chain.encode(payload.plans["x"], Part(values), {}, keys)
    moved = replace(sent, values=tree_map(lambda v: v * v.dtype.type(scaled), sent.values))
    validate(Message(3, {"x": moved}), task, payload)


BOUNDED: list[tuple[Transform, ...]] = [
    (clip(1.0),),
    (clip(1e-3), clip(1e3)),
    (clip(1.0), rotate()),
    (clip(1.0), rotate(drawn=per_client())),
    (clip(3e-7), subsample(0.3, drawn=per_round()), rotate(block=8)),
    (clip(7.0), deflate()),
    (clip(1.0), cast("bfloat16")),
]
DTYPES = ["float16", "float32", "float64"]


@settings(max_examples=60)
@given(
    st.sampled_from(BOUNDED),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 40), min_size=1, max_size=3),
    st.floats(-7, 4),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_nobody_who_clips_is_refused(
    uplink: tuple[Transform, ...], dtype: str, sizes: list[int], magnitude: float, seed: int, alike: bool
) -> None:
    rng = np.random.default_rng(seed)
    drawn = [np.full(n, rng.normal()) if alike else rng.normal(size=n) for n in sizes]
    send({f"t{i}": (x * 10**magnitude).astype(dtype) for i, x in enumerate(drawn)}, uplink)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("uplink", BOUNDED, ids=str)
def test_nobody_who_sends_a_large_message_is_refused(uplink: tuple[Transform, ...], dtype: str) -> None:
    """Values that are all alike are all rounded in the same direction."""
    for x in (1 / 3, 0.7, 60000.0, 3e-5):
        send({"a": np.full((300, 401), x, dtype), "b": np.full(5003, -x, dtype)}, uplink)


@pytest.mark.parametrize(("dtype", "excess"), [("float16", 0.05), ("float32", 1e-5), ("float64", 1e-7)])
@pytest.mark.parametrize("more", CHAINS.values(), ids=CHAINS.keys())
def test_what_rounding_does_not_explain_is_refused(
    dtype: str, excess: float, more: tuple[Transform, ...]
) -> None:
    """The bound is that of what is sent, or of what the server opens."""
    values = {"w": np.random.default_rng(0).normal(size=(30, 40)).astype(dtype)}
    uplink = (clip(1.0), *(stage for stage in more if stage != subsample(0.5, drawn=per_round())))
    send(values, uplink)
    if deflate() in uplink:
        return  # its bytes can't be scaled
    with pytest.raises(MessageError, match=r"'x': its norm is 1\.\d+; at most 1 is allowed"):
        send(values, uplink, 1 + excess)


def test_each_client_is_known_by_its_weight() -> None:
    assert len(set(SIZES)) == NUM_CLIENTS
