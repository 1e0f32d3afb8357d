"""Broadcasts as differences: readers hold the server's bits, nothing that is left out is lost."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hanse.core.errors import CompositionError, MessageError
from hanse.core.exchange import downlink
from hanse.core.exchange.coordinator import Coordinator
from hanse.core.exchange.downlink import HELD, Held, Reference, advance, bind_chain, read_broadcasts
from hanse.core.exchange.party import Message, encode, run_work
from hanse.core.keys import Key
from hanse.core.program import Close, Collect, Dispatch, PartSpec
from hanse.core.spec import Spec
from hanse.core.tensors import l2_norm, tree_map
from hanse.core.values import digest, measure_packed_bytes, pack, unpack, value
from hanse.core.work import Part, Work
from hanse.transforms import (
    cast,
    deflate,
    low_rank,
    per_client,
    quantize,
    rotate,
    sign,
    subsample,
    top_k,
)

KEY = Key.from_seed(3)
CHAINS: list[Any] = [
    (rotate(), quantize(1)),
    (rotate(drawn=per_client()), quantize(4)),
    (subsample(0.05),),
    (top_k(0.05), quantize(4), deflate()),
    (sign(),),
    (cast("float16"), deflate()),
]
every_chain = pytest.mark.parametrize("chain", CHAINS, ids=lambda c: "-".join(type(t).__name__ for t in c))


@pytest.fixture(autouse=True)
def nobody_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reader works its version out, as if it had a process of its own."""

    class Nothing(dict[str, Held]):
        def setdefault(self, key: str, default: Any = None) -> Any:
            return default

    monkeypatch.setattr(downlink, "_KNOWN", Nothing())


def walk(steps: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Models of a few rounds."""
    rng = np.random.default_rng(seed)
    tensors = {"w": rng.normal(size=(40, 30)).astype(np.float32), "b": rng.normal(size=30)}
    models = [tensors]
    for _ in range(steps):
        tensors = tree_map(
            lambda v: v + v.dtype.type(0.1) * rng.normal(size=v.shape).astype(v.dtype), tensors
        )
        models.append(tensors)
    return models


def sent(reference: Reference, chain: Any, version: int | None, memory: Any) -> dict[str, Held]:
    """What a reader has after it was sent the latest, over the wire."""
    packed = pack({"params": reference.for_holder(chain, version)})
    return read_broadcasts(unpack(packed), memory)


@every_chain
def test_readers_hold_the_servers_bits_and_what_is_left_out_comes_later(chain: Any) -> None:
    reference: Reference | None = None
    memory: dict[str, Any] = {}
    for number, model in enumerate(walk()):
        before = reference
        reference = advance(before, model, chain, KEY.fold_in(number))
        held = sent(reference, chain, None if before is None else before.version, memory)["params"]
        assert digest(dict(held.tensors)) == digest(dict(reference.tensors)) == reference.names[-1]
        memory = {HELD + "params": held}
        owed = l2_norm(tree_map(np.subtract, model, reference.tensors))
        if before is None:
            assert owed == 0
        else:  # x_t - r_t is the difference less what was sent of it, and never longer
            difference = l2_norm(tree_map(np.subtract, model, before.tensors))
            assert owed <= difference * (1 + 1e-6)
            assert reference.sizes[-1] == measure_packed_bytes(reference.changes[-1])
    assert reference is not None
    again = advance(reference, model, chain, KEY.fold_in("again"))
    assert again is reference  # the same model is no new version


def test_a_model_that_stays_is_approached() -> None:
    """Error feedback: the differences of a model that hardly moves add up to all of it."""
    chain = (top_k(0.1),)
    start, *_ = walk(0)
    target = tree_map(lambda v: v + v.dtype.type(1.0), start)
    reference = advance(None, start, chain, KEY)
    for i in range(12):
        nearly = tree_map(lambda v, i=i: v + v.dtype.type(1e-6 * i), target)
        reference = advance(reference, nearly, chain, KEY.fold_in(i))
    assert l2_norm(tree_map(np.subtract, target, reference.tensors)) < 1e-3 * l2_norm(target)


def test_who_missed_some_gets_these_and_who_missed_many_the_whole() -> None:
    chain = (rotate(), quantize(4))
    models = walk(20)
    reference = advance(None, models[0], chain, KEY)
    memory = sent(reference, chain, None, {})
    for i, model in enumerate(models[1:]):
        reference = advance(reference, model, chain, KEY.fold_in(i))
    kept = len(reference.changes)
    assert 2 < kept < 20
    assert sum(reference.sizes) < measure_packed_bytes(reference.tensors)
    whole = len(pack(reference.for_holder(chain, None)))
    for behind in range(kept + 1):
        edition = reference.for_holder(chain, reference.version - behind)
        assert len(edition.changes) == behind
        assert edition.whole is None
        assert len(pack(edition)) < whole + 1024
    assert reference.for_holder(chain, reference.version - kept - 1).whole is not None
    late = read_broadcasts({"params": reference.for_holder(chain, 0)}, {HELD + "params": memory["params"]})
    assert late["params"].sha256 == reference.names[-1]


def test_a_reader_without_the_version_says_so() -> None:
    chain = (cast("float16"),)
    first, second, third = walk(2)
    one = advance(None, first, chain, KEY)
    two = advance(one, second, chain, KEY.fold_in(2))
    edition = {"params": two.for_holder(chain, one.version)}
    with pytest.raises(MessageError, match="but this client holds none; the server sends it whole"):
        read_broadcasts(edition, {})
    with pytest.raises(MessageError, match="but this client holds abc"):
        read_broadcasts(edition, {HELD + "params": Held("abc", third)})
    wrong = replace(edition["params"], sha256="0" * 64)
    with pytest.raises(MessageError, match="lead to other bits than at the server"):
        read_broadcasts({"params": wrong}, {HELD + "params": Held(one.names[-1], one.tensors)})


def test_what_can_not_be_sent_as_a_difference_is_refused() -> None:
    with pytest.raises(CompositionError, match="'n' is int64: broadcast it whole, with downlink="):
        bind_chain({"n": np.zeros(3, np.int64)}, (quantize(2),))
    with pytest.raises(CompositionError, match="is a space to train in, and a downlink trains nothing"):
        bind_chain({"w": np.zeros((3, 4))}, (low_rank(1),))


# -- the coordinator ------------------------------------------------------------------------------


@value
class asked_to_read(Work):  # type: ignore[type-arg]
    """Emits a zero, and remembers nothing of its own."""

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        return {"u": Part({"n": np.zeros(1)})}, {}


def ask(coordinator: Coordinator, model: Any, number: int, *cohort: int) -> tuple[int, ...]:
    chain = (rotate(), quantize(4))
    uplink = {"u": PartSpec(Spec.of({"n": np.zeros(1)}))}
    command = Dispatch(
        asked_to_read(), cohort, {"params": model}, uplink, KEY.fold_in(number), downlink=chain
    )
    return coordinator.dispatch(command).tickets


def close(coordinator: Coordinator, tickets: tuple[int, ...], *late: int, abandoned: bool = False) -> Any:
    part = Part({"n": np.zeros(1)})
    arrived = [(t, Message(t, {"u": part})) for t in tickets if t not in late]
    coordinator.fold(Collect(tickets, Close(minimum_fraction=0)), arrived, dict.fromkeys(late, "late"))
    return coordinator.settle(abandoned)[0]


def whole(coordinator: Coordinator, ticket: int) -> bool:
    return coordinator.payload(ticket).broadcasts["params"].whole is not None


def test_each_is_sent_the_difference_to_what_it_holds() -> None:
    coordinator, models = Coordinator(4, KEY), walk(8)
    first = ask(coordinator, models[0], 0, 0, 1)
    assert all(whole(coordinator, ticket) for ticket in first)
    usage = close(coordinator, first)
    second = ask(coordinator, models[1], 1, 0, 1, 2)
    assert [whole(coordinator, ticket) for ticket in second] == [False, False, True]
    assert coordinator.pack_payload(second[0]) is coordinator.pack_payload(second[1])
    assert not coordinator.can_fold_in_blocks(Collect(second), second)
    again = Coordinator(4, KEY)
    again.restore(unpack(pack(coordinator.snapshot())))
    assert [again.pack_payload(t) for t in second] == [coordinator.pack_payload(t) for t in second]
    usage = close(coordinator, second, second[1])
    assert {client: down for client, (_, down) in usage.clients.items()} == {
        i: len(desk_bytes) + desk_task
        for i, (desk_bytes, desk_task) in enumerate(
            (again.pack_payload(t), again.task(t).num_bytes) for t in second
        )
    }
    (flow,) = [flow for flow in usage.flows if flow.direction == "down"]
    assert flow.stages == ("downlink(rotate(), quantize(4))",)
    assert flow.num_bytes[0] == 3 * (40 * 30 * 4 + 30 * 8)
    third = ask(coordinator, models[2], 2, 0, 1, 2, 3)
    changes = [len(coordinator.payload(t).broadcasts["params"].changes) for t in third]
    assert changes == [1, 2, 1, 0]  # the second was late once, and holds the first version still
    close(coordinator, third, third[1])
    fourth = ask(coordinator, models[3], 3, 0, 1)
    assert [whole(coordinator, ticket) for ticket in fourth] == [
        False,
        True,
    ]  # late twice: it may hold nothing


def test_an_abandoned_round_gives_nobody_a_version() -> None:
    coordinator, models = Coordinator(4, KEY), walk(4)
    close(coordinator, ask(coordinator, models[0], 0, 0, 1))
    close(coordinator, ask(coordinator, models[1], 1, 0, 1), abandoned=True)
    tickets = ask(coordinator, models[1], 2, 0, 1)  # the same model, the same version
    assert [len(coordinator.payload(t).broadcasts["params"].changes) for t in tickets] == [1, 1]


def ask_whole(coordinator: Coordinator, *cohort: int) -> tuple[int, ...]:
    uplink = {"u": PartSpec(Spec.of({"n": np.zeros(1)}))}
    return coordinator.dispatch(Dispatch(asked_to_read(), cohort, {}, uplink, KEY)).tickets


@pytest.mark.parametrize("settles", [False, True], ids=["within a round", "in rounds of their own"])
def test_a_dispatch_without_downlink_leaves_the_held_versions_as_they_are(settles: bool) -> None:
    """At the server, whether it is counted or not; and in the memory of a reader whose work keeps nothing."""
    coordinator, models = Coordinator(4, KEY), walk(4)
    memories: dict[int, Any] = {0: {}, 1: {}}

    def perform(tickets: tuple[int, ...]) -> None:
        for ticket in tickets:
            task, payload = coordinator.task(ticket), coordinator.payload(ticket)
            _, memories[task.party] = encode(
                task,
                payload,
                *run_work(task, payload, None, None, memories[task.party], KEY),
                memories[task.party],
                KEY,
            )

    first = ask(coordinator, models[0], 0, 0, 1)
    perform(first)
    if settles:
        close(coordinator, first)
    between = ask_whole(coordinator, 0, 1)
    perform(between)
    if settles:
        close(coordinator, between, between[1])
    last = ask(coordinator, models[1], 1, 0, 1)
    assert [len(coordinator.payload(ticket).broadcasts["params"].changes) for ticket in last] == [1, 1]
    perform(last)
    latest = coordinator.payload(last[0]).broadcasts["params"].sha256
    assert [memory[HELD + "params"].sha256 for memory in memories.values()] == [latest] * 2


def test_a_second_exchange_of_a_round_goes_on_from_the_first() -> None:
    coordinator, models = Coordinator(4, KEY), walk(4)
    first = ask(coordinator, models[0], 0, 0)
    second = ask(coordinator, models[0], 1, 0)
    assert not whole(coordinator, second[0])
    assert coordinator.payload(second[0]).broadcasts["params"].changes == ()
    close(coordinator, first + second)
