from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.chain import Stage, Transform
from hanse.core.errors import CompositionError
from hanse.core.exchange.downlink import HELD, Broadcast, Held
from hanse.core.exchange.party import Fork, Forks, Message, Payload, Task, compute, pending, sent
from hanse.core.keys import Key, Keys
from hanse.core.program import PartSpec
from hanse.core.reducers import Reducer, mean
from hanse.core.spec import Spec
from hanse.core.values import pack, unpack, value
from hanse.core.work import Part, Work
from hanse.transforms import clip, quantize, random_mask

KEY, SECRET = Key.from_seed(1), Key.from_seed(2)
W = {"w": np.array([3.0, 4.0])}
SPEC = Spec.of(W)


@value
class emit(Work):
    """Emits what it was made with, and remembers what it is told to."""

    parts: Mapping[str, Part]
    memory: Mapping[str, Any] | None = None

    def run(self, learner, shared, data, memory, keys):
        return self.parts, memory if self.memory is None else self.memory


@value
class watchful(Work):
    """Shows a test what it was given."""

    trains_within = frozenset({"u"})

    def run(self, learner, shared, data, memory, keys):
        SEEN.append((learner, shared, data, memory, keys))
        space = shared.spaces.get("u")
        return {"u": Part(W if space is None else space.zero())}, memory


SEEN = []


@value
class visits(Transform):
    """Counts, in its own memory, how often it was passed."""

    by: int = 1

    def __call__(self, spec):
        def encode(plan, part, memory, keys):
            return part, {"visits": memory.get("visits", 0) + self.by}

        return Stage(spec, encode=encode)


@value
class withheld(Reducer):
    hides = True

    def accepts(self, spec): ...

    def lift(self, part):
        raise AssertionError("seen")

    merge = result = lift


def payload(work, plans=None, **uplink):
    uplink = uplink or {"u": PartSpec(SPEC)}
    blank = Payload(work, {"params": W}, uplink, {})
    drawn = {name: chain.plan(chain.init(), KEY.fold_in(name)) for name, chain in blank.chains.items()}
    return Payload(work, {"params": W}, uplink, drawn if plans is None else plans)


def performed(work, memory=None, task=None, **uplink):
    task = task or Task(7, 3, KEY, None)
    message, fork = compute(task, payload(work, **uplink), "learner", "data", memory or {}, SECRET)
    assert fork.after == task.after
    return unpack(pack(message), Message), fork.on(memory or {})


# -- perform --------------------------------------------------------------------------------------


def test_a_work_is_given_what_belongs_to_its_ticket():
    SEEN.clear()
    message, memory = performed(watchful(), {"own": 1})
    ((learner, shared, data, remembered, keys),) = SEEN
    assert (learner, data, remembered) == ("learner", "data", {"own": 1})
    np.testing.assert_array_equal(shared["params"]["w"], W["w"])
    assert keys == Keys(KEY, SECRET).fold_in("work")
    assert (message.ticket, memory) == (7, {"own": 1})


def test_what_is_broadcast_can_not_be_written():
    SEEN.clear()
    performed(watchful())
    with pytest.raises(ValueError, match="read-only"):
        SEEN[0][1]["params"]["w"][0] = 9


def test_the_same_task_gives_the_same_bytes():
    uplink = {"u": PartSpec(SPEC, (clip(1.0), quantize(2)))}
    work = emit({"u": Part(W, 2.0)})
    task, given = Task(7, 3, KEY, None), payload(work, **uplink)
    first, again = (pack(compute(task, given, None, None, {}, SECRET)) for _ in range(2))
    assert first == again
    elsewhere = compute(unpack(pack(task)), unpack(pack(given)), None, None, {}, SECRET)
    assert pack(elsewhere) == first


def test_each_part_passes_its_own_chain():
    work = emit({"u": Part(W, 2.0), "v": Part(W, 3.0)})
    message, _ = performed(work, u=PartSpec(SPEC, (clip(1.0),)), v=PartSpec(SPEC))
    np.testing.assert_allclose(message.parts["u"].values["w"], [0.6, 0.8])
    np.testing.assert_array_equal(message.parts["v"].values["w"], W["w"])
    assert (message.parts["u"].weight, message.parts["v"].weight) == (2.0, 3.0)


def test_parts_draw_apart_even_where_they_are_alike():
    work = emit({"u": Part({"w": np.linspace(0, 1, 64)}), "v": Part({"w": np.linspace(0, 1, 64)})})
    rounding = PartSpec(Spec.of({"w": np.zeros(64)}), (quantize(1),))
    parts = performed(work, u=rounding, v=rounding)[0].parts
    assert pack(parts["u"].values) != pack(parts["v"].values)


@pytest.mark.parametrize(
    "parts", [{}, {"u": Part(W), "more": Part(W)}, {"v": Part(W)}], ids=lambda p: str([*p])
)
def test_parts_that_are_not_those_of_the_dispatch_are_refused(parts):
    with pytest.raises(CompositionError, match=r"emits the parts .*; the dispatch declares \['u'\]"):
        performed(emit(parts))


# -- memory ---------------------------------------------------------------------------------------


def test_stages_remember_apart_from_the_work_and_from_other_parts():
    work = emit({"u": Part(W), "v": Part(W)})
    uplink = {"u": PartSpec(SPEC, (visits(), visits(10))), "v": PartSpec(SPEC, (visits(100),))}
    memory = {"own": 1}
    for _ in range(2):
        _, memory = performed(work, memory, **uplink)
    assert memory == {
        "own": 1,
        "stages/u": {"0": {"visits": 2}, "1": {"visits": 20}},
        "stages/v": {"0": {"visits": 200}},
    }


def test_a_work_need_not_know_what_the_stages_remember():
    work, uplink = emit({"u": Part(W)}, memory={"own": 2}), {"u": PartSpec(SPEC, (visits(),))}
    memory = {}
    for _ in range(3):
        _, memory = performed(work, memory, **uplink)
    assert memory == {"own": 2, "stages/u": {"0": {"visits": 3}}}


def test_the_memory_that_a_ticket_goes_on_from_is_not_written_to():
    before = {"own": 1, "stages/u": {"0": {"visits": 1}}}
    _, after = performed(emit({"u": Part(W)}), before, u=PartSpec(SPEC, (visits(),)))
    assert before == {"own": 1, "stages/u": {"0": {"visits": 1}}}
    assert after["stages/u"] == {"0": {"visits": 2}}


def test_what_is_hidden_stays_with_the_client_encoded_and_volatile():
    work = emit({"u": Part(W, 2.0), "v": Part(W)})
    message, memory = performed(work, u=PartSpec(SPEC, (clip(1.0),), withheld()), v=PartSpec(SPEC))
    assert message.parts["u"] is None
    assert message.parts["v"] is not None
    kept = memory[pending("u")]
    np.testing.assert_allclose(kept.values["w"], [0.6, 0.8])
    assert kept.weight == 2.0
    assert memory.keys() == {pending("u"), sent("u")}
    forks = Forks()
    forks.keep(7, Fork.between(None, {}, memory))
    assert not forks.settle([7], [])
    assert forks.committed == {}


def test_clients_know_whether_they_were_sent_the_same():
    """All that is common counts, as it is once changes are applied, but nothing that one alone is sent."""
    part, work, params = PartSpec(SPEC, into=withheld()), emit({"u": Part(W)}), {"w": np.zeros(2)}
    whole = Broadcast((), "named by the server", whole=params)
    plain = Payload(work, {"params": params}, {"u": part}, {"u": ()}, {"b": whole})
    others = {
        "work": emit({"u": Part(W, 2.0)}),
        "shared": {"params": {"w": np.ones(2)}},
        "uplink": {"u": PartSpec(SPEC, (clip(1.0),), into=withheld())},
        "broadcasts": {"b": replace(whole, whole={"w": np.ones(2)})},
    }

    def hash_sent(payload, memory=None, **own):
        task = Task(3, 5, KEY, None, own)
        plans = {name: spec.chain().plan(spec.chain().init(), KEY) for name, spec in payload.uplink.items()}
        payload = replace(payload, plans=plans)
        return compute(task, payload, None, None, memory or {}, SECRET)[1].changed[sent("u")][0]

    known = hash_sent(plain)
    assert hash_sent(plain, mine={"w": np.ones(2)}) == known
    assert all(hash_sent(replace(plain, **{what: other})) != known for what, other in others.items())
    held = {f"{HELD}b": Held("named by the server", params)}
    assert (
        hash_sent(replace(plain, broadcasts={"b": Broadcast((), "so", since="named by the server")}), held)
        == known
    )


# -- spaces ---------------------------------------------------------------------------------------


def test_a_work_that_can_trains_in_its_space():
    SEEN.clear()
    message, _ = performed(watchful(), u=PartSpec(SPEC, (random_mask(0.5),)))
    space = SEEN[0][1].spaces["u"]
    assert message.parts["u"].values["w"].shape == (1,)
    spread = space.expand({"w": np.array([5.0])})["w"]
    assert sorted(spread.tolist()) == [0, 5]


def test_a_work_that_can_not_is_refused_before_it_runs():
    with pytest.raises(
        CompositionError, match=r"does not train 'v' inside a restricted space, which random_mask"
    ):
        _ = payload(watchful(), v=PartSpec(SPEC, (random_mask(0.5),))).chains


def test_a_work_may_train_one_part_in_a_space_and_another_in_full():
    chains = payload(
        watchful(), u=PartSpec(SPEC, (random_mask(0.5),)), v=PartSpec(SPEC, (quantize(2),))
    ).chains
    assert chains["u"].folded == chains["v"].folded == SPEC
    assert PartSpec(SPEC).into == mean()


# -- forks ----------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "~a", "~d"])
memories = st.dictionaries(names, st.integers(0, 5).map(lambda n: (n,)), max_size=4)


def settled_as(memory):
    return {name: v for name, v in memory.items() if not name.startswith("~")}


@given(memories, memories)
def test_a_fork_is_what_leads_from_one_memory_to_the_next(before, after):
    fork = Fork.between(None, before, after)
    assert fork.on(before) == after
    assert fork.on(fork.on(before)) == fork.on(before)
    assert Fork.between(None, before, dict(before)) == Fork(None, {}, ())


@given(st.lists(memories, min_size=1, max_size=5), st.integers(0, 5))
def test_a_chain_of_tickets_commits_what_was_counted_last(steps, num_counted):
    """Each goes on from the one before; a prefix of them is counted, the rest dropped."""
    forks, after = Forks({"a": (9,)}), None
    for ticket, memory in enumerate(steps):
        forks.keep(ticket, Fork.between(after, forks.at(after), memory))
        assert forks.at(ticket) == memory
        after = ticket
    before = forks.committed
    tickets = range(len(steps))
    changed = forks.settle(tickets[:num_counted], tickets[num_counted:])
    expected = settled_as(steps[min(num_counted, len(steps)) - 1]) if num_counted else {"a": (9,)}
    assert settled_as(forks.committed) == forks.committed == expected
    assert changed or forks.committed == before
    assert forks.forks == {}


def test_what_is_dropped_leaves_no_trace():
    forks = Forks({"n": 1})
    forks.keep(4, Fork.between(None, {"n": 1}, {"n": 2, "m": 3}))
    assert not forks.settle([], [4])
    assert (forks.committed, forks.at(None)) == ({"n": 1}, {"n": 1})


def test_a_ticket_still_in_flight_keeps_its_fork_while_earlier_ones_are_committed():
    forks = Forks()
    forks.keep(1, Fork.between(None, {}, {"n": 1, "~v": 1}))
    forks.keep(2, Fork.between(1, forks.at(1), {"n": 2}))
    assert forks.settle([1], [])
    assert (forks.committed, forks.at(2)) == ({"n": 1}, {"n": 2})
    forks.settle([2], [])
    assert forks.committed == {"n": 2}


def test_who_only_reads_undoes_nothing():
    """A peer's neighbours read its memory in rounds of their own, which end when they end."""
    forks = Forks({"step": 1})
    forks.keep(100, Fork.between(None, forks.at(None), dict(forks.at(None))))
    forks.keep(200, Fork.between(None, forks.at(None), {"step": 2}))
    assert forks.settle([200], [])
    assert not forks.settle([100], [])
    assert forks.committed == {"step": 2}


def test_tickets_of_which_nothing_is_known_change_nothing():
    forks = Forks({"n": 1})
    assert not forks.settle([5, 6], [7])
    assert forks.committed == {"n": 1}


def test_a_fork_survives_a_save():
    fork = Fork.between(3, {"gone": 1, "same": 2}, {"same": 2, "new": (1, "x")})
    assert unpack(pack(fork)) == fork
