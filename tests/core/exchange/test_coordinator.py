from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.chain import Stage, Transform
from hanse.core.errors import CompositionError, HanseError, InvalidInput, MessageError
from hanse.core.exchange.coordinator import Coordinator, CoordinatorChanges, CoordinatorState
from hanse.core.exchange.party import Message
from hanse.core.keys import Key
from hanse.core.program import Close, Collect, Decode, Discount, Dispatch, Drop, PartSpec, Sample
from hanse.core.reducers import Reducer, mean, stack
from hanse.core.reducers import sum as sum_
from hanse.core.spec import Spec, TensorSpec
from hanse.core.tensors import tree_map
from hanse.core.usage import Flow, Release, ReleaseRecord, Usage
from hanse.core.values import digest, pack, unpack, value
from hanse.core.work import Part, Total, Work
from hanse.transforms import random_mask

KEY, SECRET = Key.from_seed(1), Key.from_seed(2)
W = {"w": np.array([1.0, 2.0], np.float32)}
SPEC = Spec.of(W)
ALL = Close(minimum_fraction=0.0)


@value
class asked_of_party(Work):
    def run(self, learner, shared, data, memory, keys):
        raise AssertionError("a coordinator computes nothing")


@value
class counted_sum(Transform):
    """Adds a plan at each client and takes it off the sum; remembers how many were in the last one."""

    def __call__(self, spec):
        def plan(state, key):
            return (state, float(key.rng().integers(100)))

        def decode(state, plan, total, key):
            SECRETS.append(key)
            values = tree_map(lambda v: v - v.dtype.type(total.weight * plan[1]), total.values)
            return replace(total, values=values), total.count

        return Stage(spec, init=0, plan=plan, decode=decode)


SECRETS = []


@value
class as_ratio(Transform):
    """Each client sends a numerator and a denominator of its own, above 0."""

    def __call__(self, spec):
        def open(plan, part, key):
            if part.values["of"] <= 0:
                raise MessageError(f"the denominator is {part.values['of']}")
            with np.errstate(over="ignore"):
                return replace(part, values={"w": part.values["w"] / part.values["of"]})

        tensors = {**spec.tensors, "of": TensorSpec((), "float32")}
        return Stage(spec.like(tensors=tensors, kind="coded", summable=False), open=open)


def ratio(of, w=W["w"]):
    return {"w": w, "of": np.array(of, np.float32)}


@value
class blindfold(Reducer):
    hides = True

    def accepts(self, spec): ...

    def lift(self, part):
        raise AssertionError("seen")

    merge = result = lift


def asking(*cohort, key=KEY, version=0, shared=None, **uplink):
    return Dispatch(asked_of_party(), cohort, shared or {}, uplink or {"u": PartSpec(SPEC)}, key, version)


def answer(ticket, values=W, weight=1.0):
    return Message(ticket, {"u": Part(values, weight)})


def folded(coordinator, tickets, messages, dropped=None, **close):
    return coordinator.fold(
        Collect(tickets, Close(**close)), messages, dropped if dropped is not None else {}
    )


@pytest.fixture
def coordinator():
    return Coordinator(10, SECRET)


# -- sampling -------------------------------------------------------------------------------------


def test_a_cohort_has_nobody_twice_and_nobody_busy(coordinator):
    coordinator.dispatch(asking(0, 3, "server"))
    for i in range(200):
        cohort = coordinator.sample(Sample(KEY.fold_in(i), count=5)).cohort
        assert len(set(cohort)) == 5
        assert not {0, 3} & set(cohort)
        assert all(type(client) is int and 0 <= client < 10 for client in cohort)
    assert sorted(coordinator.sample(Sample(KEY, count=99)).cohort) == [1, 2, 4, 5, 6, 7, 8, 9]
    assert sorted(coordinator.sample(Sample(KEY, fraction=1.0)).cohort) == [1, 2, 4, 5, 6, 7, 8, 9]
    assert coordinator.sample(Sample(KEY, count=0)).cohort == ()


def test_everybody_free_is_drawn_as_often_and_in_any_order(coordinator):
    coordinator.dispatch(asking(0, 3))
    drawn = np.array([coordinator.sample(Sample(KEY.fold_in(i), count=3)).cohort for i in range(4000)])
    for column in drawn.T:
        # 7 degrees of freedom: 30 is exceeded once in 10,000 fair trials.
        counts = np.bincount(column, minlength=10)[[1, 2, 4, 5, 6, 7, 8, 9]]
        assert np.square(counts - 500).sum() / 500 < 30


def test_a_cohort_follows_from_its_key_alone(coordinator):
    drawn = coordinator.sample(Sample(KEY, count=4))
    assert (
        drawn == coordinator.sample(Sample(KEY, count=4)) == Coordinator(10, KEY).sample(Sample(KEY, count=4))
    )
    assert drawn.num_clients == 10


def test_who_has_answered_is_free_again(coordinator):
    tickets = coordinator.dispatch(asking(*range(10))).tickets
    assert coordinator.sample(Sample(KEY, count=5)).cohort == ()
    coordinator.fold(
        Collect(None, Close(goal=1)), [(tickets[4], answer(tickets[4]))], {tickets[6]: "it dropped out"}
    )
    assert sorted(coordinator.sample(Sample(KEY, count=5)).cohort) == [4, 6]


def test_nobody_is_drawn_where_nobody_is():
    assert Coordinator(0, SECRET).sample(Sample(KEY, fraction=1.0)).cohort == ()


# -- tickets out ----------------------------------------------------------------------------------


def test_each_member_of_a_cohort_gets_a_ticket_of_its_own(coordinator):
    tickets = coordinator.dispatch(asking(5, "server", 2)).tickets + coordinator.dispatch(asking(1)).tickets
    assert len(set(tickets)) == 4
    assert [coordinator.task(t).party for t in tickets] == [5, "server", 2, 1]
    assert all(coordinator.is_open(t) for t in tickets)
    assert len({coordinator.task(t).key for t in tickets}) == 4
    assert coordinator.task(tickets[0]).key == KEY.fold_in("party", 5)
    assert not coordinator.is_open(99)


def test_no_ticket_is_ever_given_twice(coordinator):
    given = []
    for cohort in ((1, 2), (), (3,), ()):
        given += coordinator.dispatch(asking(*cohort)).tickets
        coordinator.settle(abandoned=False)
        coordinator.restore(unpack(pack(coordinator.snapshot())))
    assert len(set(given)) == 3


def test_peers_number_their_tickets_apart():
    first, second = (Coordinator(3, SECRET, owner=n, first_ticket=1000 * n) for n in (1, 2))
    assert first.dispatch(asking(0, 1)).tickets == (1000, 1001)
    assert second.dispatch(asking(0, 1)).tickets == (2000, 2001)


def test_a_party_twice_in_a_cohort_is_refused():
    with pytest.raises(InvalidInput, match="twice in the cohort"):
        asking(1, 2, 1)


@pytest.mark.parametrize("party", [10, -1, 10**20])
def test_a_client_that_is_not_registered_is_refused(coordinator, party):
    with pytest.raises(HanseError, match=rf"no client {party}: 10 are registered"):
        coordinator.dispatch(asking(1, party))
    assert coordinator.open_tickets() == ()


def test_parts_that_can_not_stand_together_are_refused_before_anybody_is_asked(coordinator):
    with pytest.raises(CompositionError, match="adds messages up"):
        coordinator.dispatch(asking(1, u=PartSpec(SPEC.like(summable=False))))
    with pytest.raises(CompositionError, match="does not train 'u' inside a restricted space"):
        coordinator.dispatch(asking(1, u=PartSpec(SPEC, (random_mask(0.5),))))
    assert coordinator.open_tickets() == ()


# -- messages in ----------------------------------------------------------------------------------


def test_a_good_message_is_taken(coordinator):
    (ticket,) = coordinator.dispatch(asking(1)).tickets
    message = coordinator.receive(ticket, pack(answer(ticket, weight=3)))
    assert message.ticket == ticket
    assert message.parts["u"].weight == 3
    np.testing.assert_array_equal(message.parts["u"].values["w"], W["w"])


@pytest.mark.parametrize("weight", [0, 0.0, 1, 2.5, 1e7, 10**7])
def test_weights_up_to_their_cap_are_taken(coordinator, weight):
    (ticket,) = coordinator.dispatch(asking(1)).tickets
    assert coordinator.receive(ticket, pack(answer(ticket, weight=weight))).parts["u"].weight == weight


BAD_WEIGHTS = [
    1e12,
    1e7 + 1,
    -1,
    -1e-9,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    "1",
    None,
    (1,),
    10**4000,
]


@pytest.mark.parametrize("weight", BAD_WEIGHTS, ids=lambda weight: str(weight)[:8])
def test_other_weights_are_refused(coordinator, weight):
    (ticket,) = coordinator.dispatch(asking(1)).tickets
    with pytest.raises(MessageError, match="'u' has weight"):
        coordinator.receive(ticket, pack(answer(ticket, weight=weight)))


def test_the_cap_on_weights_is_the_channels(coordinator):
    (ticket,) = coordinator.dispatch(asking(1, u=PartSpec(SPEC, max_weight=2.0))).tickets
    coordinator.receive(ticket, pack(answer(ticket, weight=2.0)))
    with pytest.raises(MessageError, match="0 to 2 is allowed"):
        coordinator.receive(ticket, pack(answer(ticket, weight=2.1)))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "part 'u': wrong names"),
        ({"x": W["w"]}, "part 'u': wrong names: missing .'w'., not asked for .'x'"),
        ({**W, "x": W["w"]}, "not asked for .'x'"),
        ({"w": W["w"][:1]}, r"part 'u': 'w' has shape \(1,\); it must have \(2,\)"),
        ({"w": W["w"][None]}, r"shape \(1, 2\)"),
        ({"w": W["w"].astype(np.float64)}, "dtype float64; it must have float32"),
        ({"w": W["w"].view(np.int32)}, "dtype int32"),
        ({"w": np.array([np.nan, 1], np.float32)}, "'w' is not finite: 1 of its 2"),
        ({"w": np.array([np.inf, -np.inf], np.float32)}, "'w' is not finite: 2 of its 2"),
    ],
)
def test_other_values_are_refused(coordinator, values, says):
    (ticket,) = coordinator.dispatch(asking(1)).tickets
    with pytest.raises(MessageError, match=says):
        coordinator.receive(ticket, pack(answer(ticket, values)))


@pytest.mark.parametrize(
    "parts",
    [{}, {"v": Part(W)}, {"u": Part(W), "v": Part(W)}, {"u": None}, {"u": 5}, {"u": (Part(W),)}],
    ids=str,
)
def test_other_parts_are_refused(coordinator, parts):
    (ticket,) = coordinator.dispatch(asking(1)).tickets
    with pytest.raises(MessageError, match="part"):
        coordinator.receive(ticket, pack(Message(ticket, parts)))


MALFORMED = [
    *(Message(0, parts) for parts in (None, 5, "u", (1, 2), {1: Part(W), "z": Part(W)})),
    *(
        answer(0, values)
        for values in (None, 5, (1,), {"w": 1.0}, {"w": None}, {1: W["w"], "z": W["w"]}, {"w": KEY})
    ),
    *(answer(ticket) for ticket in (np.arange(2), "0", None, (0,))),
]


@pytest.mark.parametrize("message", MALFORMED, ids=lambda message: str(message)[:60])
def test_fields_of_any_other_type_are_refused(message):
    coordinator = Coordinator(10, SECRET)
    (ticket,) = coordinator.dispatch(asking(1)).tickets
    for data in (pack(message), pack(Message(ticket, {"u": Part(5)}))):
        with pytest.raises(MessageError):
            coordinator.receive(ticket, data)


def test_what_is_hidden_must_not_be_sent(coordinator):
    (ticket,) = coordinator.dispatch(asking(1, u=PartSpec(SPEC, into=blindfold()))).tickets
    assert coordinator.receive(ticket, pack(Message(ticket, {"u": None}))).parts == {"u": None}
    with pytest.raises(MessageError, match=r"part 'u' is open, which blindfold\(\) does not allow"):
        coordinator.receive(ticket, pack(answer(ticket)))
    with pytest.raises(MessageError, match="part 'u' is open"):
        coordinator.receive(ticket, pack(Message(ticket, {"u": W["w"]})))


def test_the_message_of_another_ticket_is_refused(coordinator):
    mine, yours = coordinator.dispatch(asking(1, 2)).tickets
    with pytest.raises(MessageError, match=f"a message for ticket {yours} under ticket {mine}"):
        coordinator.receive(mine, pack(answer(yours)))


@pytest.mark.parametrize("data", [b"", b"nonsense", pack({"u": 1}), pack(Part(W))])
def test_what_is_no_message_is_refused(coordinator, data):
    (ticket,) = coordinator.dispatch(asking(1)).tickets
    with pytest.raises(MessageError):
        coordinator.receive(ticket, data)


@pytest.mark.parametrize(
    "values", [{"w": np.zeros(10**6)}, {f"x{i}": np.zeros(0) for i in range(5000)}], ids=["b", "n"]
)
def test_an_oversized_message_is_refused_unread(coordinator, values):
    (ticket,) = coordinator.dispatch(asking(1)).tickets
    data = pack(answer(ticket, values))
    with pytest.raises(MessageError, match=rf"a message of {len(data)} bytes; at most \d+ are allowed"):
        coordinator.receive(ticket, data)


def test_a_bound_that_is_known_where_the_size_is_not_is_kept(coordinator):
    table = Spec({"n": TensorSpec(("nodes",), "uint8")}, kind="table", max_bytes=1000)
    (ticket,) = coordinator.dispatch(asking(1, u=PartSpec(table, into=sum_()))).tickets
    assert coordinator.receive(ticket, pack(answer(ticket, {"n": np.ones(1000, np.uint8)})))
    with pytest.raises(MessageError, match=r"a message of \d+ bytes; at most \d+ are allowed"):
        coordinator.receive(ticket, pack(answer(ticket, {"n": np.ones(100_000, np.uint8)})))


def test_what_is_no_value_of_a_tensor_is_bounded_however_large_the_model(coordinator):
    model = {"w": np.zeros(10**6)}
    (ticket,) = coordinator.dispatch(asking(1, u=PartSpec(Spec.of(model)))).tickets
    data = pack(((),) * 50_000)  # in JSON, an empty list takes 3 bytes, and in memory many times that
    with pytest.raises(MessageError, match=r"a header of \d+ bytes; at most \d+ are allowed"):
        coordinator.receive(ticket, data)


def test_of_a_strangers_classes_only_those_of_a_message_are_built(coordinator):
    (ticket,) = coordinator.dispatch(asking(1)).tickets
    with pytest.raises(MessageError, match="a key, which is not allowed here"):
        coordinator.receive(ticket, pack(Message(ticket, {"u": KEY})))


def test_a_model_of_many_small_tensors_fits(coordinator):
    layers = {f"backbone.layer{i}.block.bn.running_mean": np.zeros(64, np.float32) for i in range(600)}
    (ticket,) = coordinator.dispatch(asking(1, u=PartSpec(Spec.of(layers)))).tickets
    assert coordinator.receive(ticket, pack(answer(ticket, layers))).ticket == ticket


def test_messages_whose_size_nobody_knows_are_taken_as_they_are(coordinator):
    table = Spec({"n": TensorSpec(("nodes", 2), "int64")}, kind="table")
    (ticket,) = coordinator.dispatch(asking(1, u=PartSpec(table, into=sum_()))).tickets
    counts = {"n": np.ones((50_000, 2), np.int64)}
    assert coordinator.receive(ticket, pack(answer(ticket, counts))).parts["u"].values["n"].shape == (
        50_000,
        2,
    )


def test_what_each_client_coded_is_opened_before_the_fold(coordinator):
    tickets = coordinator.dispatch(asking(1, 2, u=PartSpec(SPEC, (as_ratio(),)))).tickets
    sent = [
        (t, coordinator.receive(t, pack(answer(t, ratio(of)))))
        for t, of in zip(tickets, (1.0, 2.0), strict=True)
    ]
    np.testing.assert_allclose(folded(coordinator, tickets, sent)["u"].values["w"], 0.75 * W["w"])


@pytest.mark.parametrize("of", [-1.0, 1e-45])
def test_what_can_not_be_opened_is_refused_by_name_and_the_round_goes_on(coordinator, of):
    good, bad = coordinator.dispatch(asking(1, 2, u=PartSpec(SPEC, (as_ratio(),)))).tickets
    arrived, dropped = [], {}
    for ticket, denominator in ((good, 2.0), (bad, of)):
        try:
            arrived.append((ticket, coordinator.receive(ticket, pack(answer(ticket, ratio(denominator))))))
        except MessageError as error:
            dropped[ticket] = str(error)
    got = folded(coordinator, (good, bad), arrived, dropped)
    assert (got.counted, [drop.party for drop in got.dropped]) == ((good,), [2])
    assert got["u"].values["w"].tolist() == [0.5, 1]


# -- the fold -------------------------------------------------------------------------------------


def test_a_collect_folds_what_it_counts(coordinator):
    tickets = coordinator.dispatch(asking(4, 5, 6)).tickets
    got = folded(coordinator, tickets, [(t, answer(t, {"w": t * W["w"]}, t + 1)) for t in tickets])
    np.testing.assert_allclose(got["u"].values["w"], (0 * 1 + 1 * 2 + 2 * 3) / 6 * W["w"], rtol=1e-6)
    assert (got["u"].weight, got["u"].count, got.counted, got.parties) == (6.0, 3, tickets, (4, 5, 6))
    assert (got.dropped, got.abandoned) == ((), None)
    assert not any(coordinator.is_open(t) for t in tickets)


VALUES = [np.random.default_rng(i).normal(size=2).astype(np.float32) for i in range(32)]


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(32)), st.sets(st.integers(0, 31), max_size=20))
def test_the_result_depends_neither_on_arrival_nor_on_how_the_tickets_are_numbered(order, absent):
    """Positions are those of the cohort."""
    results = []
    for arrival, before in ((order, 0), (range(32), 3)):
        coordinator = Coordinator(32, SECRET)
        coordinator.dispatch(asking(*range(before)))
        tickets = coordinator.dispatch(asking(*range(32))).tickets
        received = {}
        for i in arrival:
            if i not in absent:
                message = pack(answer(tickets[i], {"w": VALUES[i]}))
                received[tickets[i]] = coordinator.receive(tickets[i], message)
        dropped = {tickets[i]: "late" for i in absent}
        got = folded(
            coordinator, tickets, [(t, received[t]) for t in sorted(received)], dropped, minimum_fraction=0.1
        )
        results.append((got["u"].values["w"].tobytes(), got.parties))
    assert results[0] == results[1]


def test_who_was_too_late_is_named_with_the_reason(coordinator):
    a, b, c = coordinator.dispatch(asking(4, 5, 6)).tickets
    got = folded(
        coordinator,
        (a, b, c),
        [(b, answer(b))],
        {c: "it was too late", a: "it dropped out"},
        minimum_fraction=0.3,
    )
    assert got.counted == (b,)
    assert got.dropped == (Drop(a, 4, "it dropped out"), Drop(c, 6, "it was too late"))
    assert coordinator.open_tickets() == ()


def test_drops_may_be_added_while_the_messages_are_read(coordinator):
    a, b = coordinator.dispatch(asking(4, 5)).tickets
    dropped = {}

    def arriving():
        yield a, answer(a)
        dropped[b] = "what it sent can't be taken"

    got = folded(coordinator, (a, b), arriving(), dropped)
    assert got.dropped == (Drop(b, 5, "what it sent can't be taken"),)


def test_too_few_abandon_the_round_and_everybody_is_dropped(coordinator):
    tickets = coordinator.dispatch(asking(4, 5, 6)).tickets
    dropped = dict.fromkeys(tickets[1:], "it dropped out")
    got = folded(coordinator, tickets, [(tickets[0], answer(tickets[0]))], dropped, minimum_fraction=0.5)
    assert (
        got.abandoned
        == "1 of 3 contributions were counted, 2 are needed; the first that was not: 5 (it dropped out)"
    )
    assert (got.totals, got.counted, got.parties) == ({}, (), ())
    assert {drop.ticket: drop.reason for drop in got.dropped} == {
        **dropped,
        tickets[0]: "the round was abandoned",
    }
    usage, settled = coordinator.settle(abandoned=True)
    assert (usage.counted, usage.dropped) == (0, 3)
    assert settled == {4: ((), tickets[:1]), 5: ((), tickets[1:2]), 6: ((), tickets[2:])}


def test_nobody_at_all_abandons_a_round_that_needs_nobody(coordinator):
    tickets = coordinator.dispatch(asking(4)).tickets
    assert "0 of 1" in folded(coordinator, tickets, [], {tickets[0]: "late"}, minimum_fraction=0.0).abandoned


def test_a_collect_that_names_none_leaves_the_others_in_flight(coordinator):
    a, b, c = coordinator.dispatch(asking(1, 2, 3)).tickets
    got = coordinator.fold(Collect(None, Close(goal=1)), [(b, answer(b))], {c: "it dropped out"})
    assert (got.counted, got.abandoned) == ((b,), None)
    assert coordinator.open_tickets() == (a,)
    nothing = coordinator.fold(Collect(None), [], {})
    assert (nothing.totals, nothing.counted, nothing.abandoned) == ({}, (), None)


def test_stale_contributions_count_less(coordinator):
    old = coordinator.dispatch(asking(1, version=2)).tickets[0]
    new = coordinator.dispatch(asking(2, version=5)).tickets[0]
    command = Collect(None, version=5, discount=Discount(1.0))
    got = coordinator.fold(command, [(old, answer(old, weight=8.0)), (new, answer(new, weight=3.0))], {})
    assert got["u"].weight == 8.0 / 4 + 3.0


def test_parts_are_folded_each_by_its_own_reducer(coordinator):
    channels = {"u": PartSpec(SPEC), "n": PartSpec(SPEC, into=sum_()), "all": PartSpec(SPEC, into=stack())}
    tickets = coordinator.dispatch(asking(1, 2, **channels)).tickets
    messages = [(t, Message(t, {name: Part(W, 2.0) for name in channels})) for t in tickets]
    got = folded(coordinator, tickets, messages)
    assert got["u"].values["w"].tolist() == [1, 2]
    assert got["n"].values["w"].tolist() == [4, 8]
    assert got["all"].values["w"].tolist() == [[1, 2], [1, 2]]


def test_hidden_parts_are_missing_from_the_totals_until_they_are_decoded(coordinator):
    channels = {"u": PartSpec(SPEC, (counted_sum(),), blindfold()), "open": PartSpec(SPEC)}
    tickets = coordinator.dispatch(asking(1, 2, **channels)).tickets
    added = coordinator.payload(tickets[0]).plans["u"][0][1]
    got = folded(coordinator, tickets, [(t, Message(t, {"u": None, "open": Part(W)})) for t in tickets])
    assert got.totals.keys() == {"open"}
    total = Total({"w": W["w"] + 2 * np.float32(added)}, 2.0, 2)
    decoded = coordinator.decode(Decode(tickets[0], "u", total)).total
    np.testing.assert_array_equal(decoded.values["w"], W["w"])


def test_a_dispatch_stays_until_its_hidden_parts_are_decoded(coordinator):
    hidden = PartSpec(SPEC, (counted_sum(),), blindfold())
    a, b = coordinator.dispatch(asking(1, 2, u=hidden, v=hidden)).tickets
    folded(coordinator, (a, b), [(a, Message(a, {"u": None, "v": None}))], {b: "late"})
    total = Total(W, 1.0, 1)
    coordinator.decode(Decode(a, "u", total))
    with pytest.raises(HanseError, match=r"part 'u' of ticket 0 .* was decoded before"):
        coordinator.decode(Decode(a, "u", total))
    assert coordinator.has_dispatch(a)
    coordinator = _reopened(coordinator)
    coordinator.decode(Decode(a, "v", total))
    assert not coordinator.has_dispatch(a)
    with pytest.raises(HanseError, match="part 'v' of ticket 0 is not hidden by its reducer, or was decoded"):
        coordinator.decode(Decode(a, "v", total))


def test_a_hidden_part_that_is_never_decoded_stays_until_the_round_is_over(coordinator):
    hidden = PartSpec(SPEC, into=blindfold())
    counted, dropped = (coordinator.dispatch(asking(1, u=hidden)).tickets[0] for _ in range(2))
    folded(coordinator, (counted,), [(counted, Message(counted, {"u": None}))])
    folded(coordinator, (dropped,), [], {dropped: "late"})
    assert (coordinator.has_dispatch(counted), coordinator.has_dispatch(dropped)) == (True, False)
    coordinator.settle(abandoned=True)
    assert not coordinator.has_dispatch(counted)


def test_the_servers_states_go_on_from_round_to_round(coordinator):
    part_spec = PartSpec(SPEC, (counted_sum(),), sum_())
    for clients, before in ((3, 0), (2, 3), (4, 2)):
        tickets = coordinator.dispatch(asking(*range(clients), u=part_spec)).tickets
        ((state, added),) = coordinator.payload(tickets[0]).plans["u"]
        assert state == before
        sent = {"w": W["w"] + np.float32(added)}
        got = folded(coordinator, tickets, [(t, answer(t, sent)) for t in tickets])
        assert got["u"].values["w"].tolist() == [clients, 2 * clients]
        coordinator.settle(abandoned=False)
    other = coordinator.dispatch(asking(1, v=part_spec)).tickets[0]
    assert coordinator.payload(other).plans["v"][0][0] == 0


def test_a_plan_of_each_dispatch_can_not_be_undone_on_a_sum_over_several(coordinator):
    part_spec = PartSpec(SPEC, (counted_sum(),), sum_())
    tickets = [coordinator.dispatch(asking(client, u=part_spec)).tickets[0] for client in (1, 2)]
    with pytest.raises(CompositionError, match=r"counted_sum\(\) draws its plan for each dispatch.*several"):
        coordinator.fold(Collect(None), [(t, answer(t)) for t in tickets], {})


def test_an_abandoned_round_leaves_the_servers_states_as_they_were(coordinator):
    part_spec = PartSpec(SPEC, (counted_sum(),), sum_())
    for clients, abandoned, before in ((3, False, 0), (2, True, 3), (4, False, 3)):
        tickets = coordinator.dispatch(asking(*range(clients), u=part_spec)).tickets
        assert coordinator.payload(tickets[0]).plans["u"][0][0] == before
        folded(coordinator, tickets, [(t, answer(t)) for t in tickets])
        coordinator = _reopened(coordinator)
        coordinator.settle(abandoned)


def test_no_two_folds_draw_from_the_same_secret(coordinator):
    SECRETS.clear()
    tickets = coordinator.dispatch(asking(1, 2, 3, u=PartSpec(SPEC, (counted_sum(),), sum_()))).tickets
    for ticket in tickets[:2]:
        coordinator.fold(Collect(None, Close(goal=1)), [(ticket, answer(ticket))], {})
    assert len(set(SECRETS)) == 2


@value
class revealing(counted_sum):
    """Releases something on each total."""

    def __call__(self, spec):
        return replace(super().__call__(spec), release=Release("laplace", 2.0, {"scale": 3.0}))


def test_what_a_protocol_obtained_is_booked_and_never_decoded_twice_from_one_secret(coordinator):
    SECRETS.clear()
    hidden = PartSpec(SPEC, (revealing(),), blindfold())
    booked = []
    for survivors in (2, 1):
        tickets = coordinator.dispatch(asking(1, 2, u=hidden)).tickets
        folded(coordinator, tickets, [(t, Message(t, {"u": None})) for t in tickets])
        assert list(coordinator.usage.releases) == booked
        decode = Decode(tickets[0], "u", Total(W, float(survivors), survivors))
        coordinator.decode(decode)
        with pytest.raises(HanseError, match="decode each hidden part once"):
            coordinator.decode(decode)
        booked.append(ReleaseRecord("u", Release("laplace", 2.0, {"scale": 3.0}), 1.0, tickets[0]))
    assert len(set(SECRETS)) == 2
    assert list(coordinator.usage.releases) == booked
    usage, _ = coordinator.settle(abandoned=True)
    assert list(usage.releases) == booked
    assert coordinator.usage.releases == ()


def test_a_snapshot_keeps_the_sample_and_what_was_booked(coordinator):
    cohort = coordinator.sample(Sample(KEY, rate=0.6)).cohort
    part_spec = PartSpec(SPEC, (revealing(),), sum_())
    for _ in range(2):
        again = Coordinator(10, SECRET)
        again.restore(unpack(pack(coordinator.snapshot())))
        coordinator = again
        sent = coordinator.dispatch(asking(*cohort, u=part_spec))
        again = Coordinator(10, SECRET)
        again.restore(unpack(pack(coordinator.snapshot())))
        coordinator = again
        folded(coordinator, sent.tickets, [(t, answer(t)) for t in sent.tickets])
    assert [(at.sampling, at.sample) for at in coordinator.usage.releases] == [(0.6, 0)] * 2


def test_what_protects_people_follows_from_the_servers_secret():
    SECRETS.clear()
    for secret in (SECRET, Key.from_seed(3)):
        coordinator = Coordinator(10, secret)
        (ticket,) = coordinator.dispatch(asking(1, u=PartSpec(SPEC, (counted_sum(),), sum_()))).tickets
        folded(coordinator, (ticket,), [(ticket, answer(ticket))])
    assert len(set(SECRETS)) == 2


# -- memory: the tickets of one client ------------------------------------------------------------


def test_the_tickets_of_a_client_go_on_from_each_other(coordinator):
    a, b = (coordinator.dispatch(asking(1, 2)).tickets[0] for _ in range(2))
    assert (coordinator.task(a).after, coordinator.task(b).after) == (None, a)
    folded(coordinator, (a,), [(a, answer(a))])
    c = coordinator.dispatch(asking(1)).tickets[0]
    assert coordinator.task(c).after == b


def test_the_next_ticket_goes_on_from_the_last_that_was_counted_and_not_from_one_that_was_dropped(
    coordinator,
):
    a = coordinator.dispatch(asking(1)).tickets[0]
    folded(coordinator, (a,), [(a, answer(a))])
    b = coordinator.dispatch(asking(1)).tickets[0]
    folded(coordinator, (b,), [], {b: "late"}, minimum_fraction=0.0)
    assert coordinator.task(coordinator.dispatch(asking(1)).tickets[0]).after == a


def test_after_a_round_tickets_go_on_from_what_is_committed(coordinator):
    a = coordinator.dispatch(asking(1)).tickets[0]
    folded(coordinator, (a,), [(a, answer(a))])
    coordinator.settle(abandoned=False)
    assert coordinator.task(coordinator.dispatch(asking(1)).tickets[0]).after is None


def test_a_drop_takes_along_what_was_built_on_it(coordinator):
    a, other, b, c = (coordinator.dispatch(asking(client)).tickets[0] for client in (1, 2, 1, 1))
    got = coordinator.fold(Collect(None, ALL), [], {a: "late"})
    assert [(drop.ticket, drop.party) for drop in got.dropped] == [(a, 1), (b, 1), (c, 1)]
    assert "built on ticket" in got.dropped[1].reason
    assert coordinator.open_tickets() == (other,)
    assert coordinator.task(coordinator.dispatch(asking(1)).tickets[0]).after is None
    assert coordinator.settle(abandoned=False)[0].dropped == 3


def test_what_was_built_on_a_drop_is_not_counted(coordinator):
    a, b = (coordinator.dispatch(asking(1)).tickets[0] for _ in range(2))
    c = coordinator.dispatch(asking(2)).tickets[0]
    got = folded(coordinator, (a, b, c), [(b, answer(b)), (c, answer(c))], {a: "late"}, minimum_fraction=0.1)
    assert got.counted == (c,)
    assert [drop.ticket for drop in got.dropped] == [a, b]


def test_of_a_chain_of_three_whose_first_was_dropped_none_is_counted(coordinator):
    a, b, c = (coordinator.dispatch(asking(1)).tickets[0] for _ in range(3))
    other = coordinator.dispatch(asking(2)).tickets[0]
    messages = [(n, answer(n, {"w": np.full(2, n, np.float32)})) for n in (b, c, other)]
    got = folded(coordinator, (a, b, c, other), messages, {a: "late"}, minimum_fraction=0.1)
    assert (got.counted, got["u"].values["w"].tolist()) == ((other,), [other, other])
    assert [(drop.ticket, drop.reason) for drop in got.dropped] == [
        (a, "late"),
        (b, f"it was built on ticket {a}, which was dropped"),
        (c, f"it was built on ticket {b}, which was dropped"),
    ]


def test_an_abandoned_round_takes_along_what_was_built_on_it(coordinator):
    a = coordinator.dispatch(asking(1)).tickets[0]
    folded(coordinator, (a,), [(a, answer(a))])
    b = coordinator.dispatch(asking(1)).tickets[0]
    _, settled = coordinator.settle(abandoned=True)
    assert settled == {1: ((), (a, b))}
    assert not coordinator.is_open(b)


def test_an_attempt_that_is_made_again_leaves_none_of_its_tickets_in_flight(coordinator):
    (early,) = coordinator.dispatch(asking(1)).tickets
    coordinator.settle(abandoned=False)
    a, b = coordinator.dispatch(asking(2, 3)).tickets
    (late,) = coordinator.dispatch(asking(4)).tickets
    resumed = Coordinator(10, SECRET)
    resumed.restore(unpack(pack(coordinator.snapshot())))
    for each in (coordinator, resumed):
        folded(each, (a, b), [(a, answer(a))], {b: "late"}, minimum_fraction=0.5)
        usage, settled = each.settle(abandoned=True, again=True)
        assert settled == {2: ((), (a,)), 3: ((), (b,)), 4: ((), (late,))}
        assert usage.dropped == 3
        assert each.open_tickets() == (early,)
        assert sorted(each.sample(Sample(KEY, fraction=1.0)).cohort) == [0, *range(2, 10)]
    (left,) = coordinator.dispatch(asking(5)).tickets
    coordinator.settle(abandoned=True)
    assert coordinator.open_tickets() == (early, left), "without another attempt it stays in flight"


# -- the end of a round ---------------------------------------------------------------------------


def test_settling_says_who_counted_and_forgets_it(coordinator):
    a, b, server, later = coordinator.dispatch(asking(1, 2, "server", 3)).tickets
    coordinator.fold(Collect(None), [(a, answer(a)), (server, answer(server))], {b: "late"})
    _, settled = coordinator.settle(abandoned=False)
    assert settled == {1: ((a,), ()), 2: ((), (b,)), "server": ((server,), ())}
    assert coordinator.open_tickets() == (later,)
    assert coordinator.settle(abandoned=False)[1] == {}


def test_a_round_that_was_abandoned_commits_nothing(coordinator):
    a, b = coordinator.dispatch(asking(1, 2)).tickets
    coordinator.fold(Collect(None), [(a, answer(a))], {b: "late"})
    assert coordinator.settle(abandoned=True)[1] == {1: ((), (a,)), 2: ((), (b,))}


def test_nothing_is_kept_that_nobody_needs(coordinator):
    for _ in range(5):
        tickets = coordinator.dispatch(asking(*range(5), shared={"params": W})).tickets
        folded(coordinator, tickets, [(t, answer(t)) for t in tickets])
        coordinator.settle(abandoned=False)
        coordinator.dispatch(asking())
    left = coordinator.dispatch(asking(1)).tickets
    coordinator.settle(abandoned=False)
    held = coordinator.snapshot()
    assert (list(held.tickets), list(held.dispatches)) == ([left[0]], [left[0]])


# -- what it cost ---------------------------------------------------------------------------------


def test_bytes_are_those_that_were_sent(coordinator):
    tickets = coordinator.dispatch(asking(1, 2, "server", shared={"params": W})).tickets
    sent = {t: pack(answer(t)) for t in tickets}
    down = sum(len(coordinator.pack_payload(t)) + len(pack(coordinator.task(t))) for t in tickets[:2])
    assert coordinator.pack_payload(tickets[0]) == pack(coordinator.payload(tickets[0]))
    messages = [(t, coordinator.receive(t, data)) for t, data in sent.items()]
    refused = pack(answer(tickets[0], {}))
    with pytest.raises(MessageError):
        coordinator.receive(tickets[0], refused)
    folded(coordinator, tickets, messages)
    up = len(sent[tickets[0]]) + len(sent[tickets[1]]) + len(refused)
    coordinator.add_virtual_seconds(1.5)
    again = Coordinator(10, SECRET)
    again.restore(unpack(pack(coordinator.snapshot())))
    flows = (Flow("down", "params", (), 2, (16,)), Flow("up", "u", (), 2, (16,)))
    (usage, _), (restored, _) = coordinator.settle(abandoned=False), again.settle(abandoned=False)
    assert usage == restored
    assert replace(usage, clients={}) == Usage(up, down, 2, 0, 1.5, flows)
    assert usage.clients == {
        1: (up - len(sent[tickets[1]]), down // 2),
        2: (len(sent[tickets[1]]), down // 2),
    }


def test_each_round_begins_at_nothing(coordinator):
    coordinator.dispatch(asking(1, 2))
    first = coordinator.settle(abandoned=False)[0]
    assert sum(down for _, down in first.clients.values()) == first.bytes_down > 0
    assert coordinator.settle(abandoned=False)[0] == Usage()


def test_what_an_owner_sends_itself_costs_nothing():
    peer = Coordinator(3, SECRET, owner=1)
    own, neighbour = peer.dispatch(asking(1, 2)).tickets
    down = len(peer.pack_payload(neighbour)) + len(pack(peer.task(neighbour)))
    peer.receive(own, pack(answer(own)))
    folded(peer, (own, neighbour), [(own, answer(own))], {neighbour: "late"}, minimum_fraction=0.1)
    assert peer.settle(abandoned=False)[0] == Usage(bytes_down=down, dropped=1, clients={2: (0, down)})


# -- crashes --------------------------------------------------------------------------------------


def _reopened(coordinator, begun=False):
    again = Coordinator(10, SECRET)
    again.restore(unpack(pack(coordinator.snapshot())))
    return again


def _story(reopen):
    """Three rounds with tickets that are counted, dropped, left in flight and asked again."""
    coordinator, told = Coordinator(10, SECRET), []
    channels = {"u": PartSpec(SPEC, (counted_sum(),), sum_()), "v": PartSpec(SPEC, (as_ratio(),))}
    for number in range(3):
        key = KEY.fold_in(number)
        for step in range(2):
            coordinator = reopen(coordinator)
            cohort = coordinator.sample(Sample(key.fold_in(step), count=3)).cohort + (
                ("server",) if step else ()
            )
            coordinator = reopen(coordinator)
            tickets = coordinator.dispatch(
                asking(*cohort, key=key.fold_in(step), version=number, **channels)
            ).tickets
            coordinator = reopen(coordinator)
            told.append(
                (
                    cohort,
                    tickets,
                    [coordinator.task(t) for t in tickets],
                    repr(coordinator.payload(tickets[0])),
                )
            )
            arrived = [
                (t, coordinator.receive(t, pack(Message(t, {"u": Part(W), "v": Part(ratio(1 + number))}))))
                for t in tickets[1:]
            ]
            close = Close(minimum_fraction=0.2)
            got = coordinator.fold(Collect(tickets, close, number, Discount()), arrived, {tickets[0]: "late"})
            coordinator = reopen(coordinator)
            told.append(pack(got))
            coordinator.dispatch(asking(cohort[0], 9 - number, key=key.fold_in("more", step)))
            coordinator = reopen(coordinator)
        told.append([coordinator.task(t) for t in coordinator.open_tickets()])
        told.append(coordinator.settle(abandoned=number == 1))
        coordinator = reopen(coordinator, begun=True)
    return told


class _Journal:
    """Reopens a coordinator from a snapshot at the start of the round and the changes since then."""

    def __init__(self):
        self.state, self.changes, self.num_restored = CoordinatorState(), [], 0

    def __call__(self, coordinator, begun=False):
        if begun:
            self.state, self.changes = unpack(pack(coordinator.snapshot())), []
        else:
            self.changes.append(unpack(pack(coordinator.changes())))
        again, self.num_restored = Coordinator(10, SECRET), self.num_restored + 1
        again.restore(self.state.apply(self.changes))
        assert digest(again.snapshot()) == digest(coordinator.snapshot())
        return again


def test_a_coordinator_that_is_restored_at_any_moment_goes_on_identically():
    assert _story(_reopened) == _story(lambda coordinator, begun=False: coordinator)


def test_changes_lead_from_the_beginning_of_a_round_to_any_moment_of_it():
    journal = _Journal()
    assert _story(journal) == _story(_reopened)
    assert journal.num_restored == 33


def test_asking_for_changes_changes_nothing_and_a_snapshot_takes_none_away(coordinator):
    tickets = coordinator.dispatch(asking(1, 2, shared={"params": W})).tickets
    before = coordinator.snapshot()
    first = coordinator.changes()
    assert first.edits.keys() == {"tickets", "dispatches", "states"}
    assert list(first.edits["tickets"].changed) == [*tickets]
    assert list(first.edits["dispatches"].changed) == [tickets[0]]
    assert digest(coordinator.snapshot()) == digest(before) == digest(CoordinatorState().apply([first]))
    assert coordinator.changes() == CoordinatorChanges(2, replace(coordinator.usage, flows=()), {})


def test_a_long_round_needs_no_more_than_a_short_one():
    coordinator, sizes, spaces = Coordinator(10, SECRET), [], []
    for step in range(60):
        (ticket,) = coordinator.dispatch(asking(step % 3, shared={"params": {"w": np.zeros(500)}})).tickets
        asked = len(pack(coordinator.changes()))
        message = coordinator.receive(ticket, pack(answer(ticket)))
        folded(coordinator, (ticket,), [(ticket, message)])
        sizes.append((asked, len(pack(coordinator.changes()))))
        state = coordinator.snapshot()
        assert (state.tickets, state.dispatches) == ({}, {})
        spaces.append(len(pack(state)))
    assert all(last - first < 50 for first, last in zip(sizes[9], sizes[-1], strict=True))
    assert max(closing for _, closing in sizes) < 1000  # no tensors, and nothing of earlier tickets
    assert (spaces[-1] - spaces[9]) / 50 < 200
    assert coordinator.settle(abandoned=False)[0].counted == 60


def test_a_dispatch_to_nobody_is_kept_until_it_is_collected(coordinator):
    number = coordinator.dispatch(asking(shared={"params": W})).dispatch
    assert list(coordinator.snapshot().dispatches) == [number] == [0]
    assert coordinator.next_ticket == 1
    coordinator.fold(Collect((), dispatch=number), [], {})
    assert coordinator.snapshot().dispatches == {}


def test_states_of_version_0_1_0_held_closed_tickets_and_their_dispatches(coordinator):
    """A round that such a state cuts ends as if it had not been cut."""
    hidden = {"u": PartSpec(SPEC, (counted_sum(),), blindfold()), "open": PartSpec(SPEC)}
    a, b, c = coordinator.dispatch(asking(1, 2, 3, **hidden)).tickets
    tickets, dispatches = coordinator.snapshot().tickets, coordinator.snapshot().dispatches
    coordinator.fold(Collect(None), [(a, Message(a, {"u": None, "open": Part(W)}))], {b: "late"})
    state = coordinator.snapshot()
    states = {a: "counted", b: "dropped", c: "open"}
    former = {n: replace(tickets[n], state=states[n]) for n in (a, b, c)}
    old = replace(state, tickets=former, dispatches=dispatches, closed={}, undecoded={})
    again = Coordinator(10, SECRET)
    again.restore(unpack(pack(old)))
    assert again.open_tickets() == (c,)
    changes = [again.changes()]
    for each in (coordinator, again):
        folded(each, (c,), [], {c: "late"})
    changes.append(again.changes())
    again.restore(unpack(pack(old)).apply(unpack(pack(tuple(changes)))))
    for each in (coordinator, again):
        assert each.decode(Decode(a, "u", Total(W, 1.0, 1))).total.count == 1
        assert not each.has_dispatch(a)
    assert again.settle(abandoned=False) == coordinator.settle(abandoned=False)


def test_a_restored_coordinator_lets_nobody_go_on_from_a_dropped_ticket(coordinator):
    a, b = coordinator.dispatch(asking(1, 2)).tickets
    folded(coordinator, (a, b), [(b, answer(b))], {a: "late"})
    again = _reopened(coordinator)
    tickets = again.dispatch(asking(1, 2)).tickets
    assert [again.task(t).after for t in tickets] == [None, b]


def test_restoring_takes_back_whatever_happened_since(coordinator):
    tickets = coordinator.dispatch(asking(1, 2)).tickets
    before = coordinator.snapshot()
    folded(coordinator, tickets, [(t, answer(t)) for t in tickets])
    coordinator.dispatch(asking(3))
    coordinator.restore(before)
    assert coordinator.open_tickets() == tickets
    assert pack(coordinator.snapshot()) == pack(before)
    assert folded(coordinator, tickets, [(t, answer(t)) for t in tickets])["u"].count == 2


def test_a_desk_is_a_copy(coordinator):
    tickets = coordinator.dispatch(asking(1, 2)).tickets
    before = coordinator.snapshot()
    packed = pack(before)
    folded(coordinator, tickets, [(t, answer(t)) for t in tickets])
    coordinator.settle(abandoned=False)
    assert pack(before) == packed


def test_stores_know_the_state_by_its_class_names(coordinator):
    coordinator.dispatch(asking(1))
    packed = pack(coordinator.snapshot())
    assert b'{\\"$\\":\\"CoordinatorState\\",\\"next_ticket\\":1,' in packed
    assert b'\\"$\\":\\"DispatchRecord\\"' in packed


def test_single_facts_need_no_copy_of_the_state(coordinator):
    first = coordinator.dispatch(asking(1, 2, shared={"params": W})).tickets
    second = coordinator.dispatch(asking(3)).tickets
    folded(coordinator, first, [(t, answer(t)) for t in first])
    state = coordinator.snapshot()
    assert coordinator.usage == state.usage
    assert coordinator.usage.bytes_down > 0
    assert coordinator.next_ticket == state.next_ticket == 3
    assert coordinator.open_tickets() == tuple(state.tickets) == second
    assert list(state.closed) == [*first]
    assert [coordinator.dispatch_of(t) for t in (*first, *second)] == [first[0], first[0], second[0]]
    assert (coordinator.has_dispatch(first[0]), coordinator.has_dispatch(second[0])) == (False, True)


def test_means_are_the_default():
    assert PartSpec(SPEC).into == mean()


def test_those_who_are_away_are_not_drawn():
    coordinator = Coordinator(6, SECRET)
    assert sorted(coordinator.sample(Sample(KEY, count=99), frozenset({0, 3})).cohort) == [1, 2, 4, 5]
    everybody = Coordinator(6, SECRET).sample(Sample(KEY, count=3))
    assert coordinator.sample(Sample(KEY, count=3), frozenset()) == everybody
