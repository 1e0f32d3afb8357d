from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.chain import Stage, Transform
from hanse.core.coordinator import Coordinator
from hanse.core.errors import CompositionError, HanseError, InvalidInput, MessageError
from hanse.core.keys import Key
from hanse.core.party import Message
from hanse.core.program import Channel, Close, Collect, Decode, Discount, Dispatch, Drop, Flow, Sample, Usage
from hanse.core.reducers import Reducer, mean, stack
from hanse.core.reducers import sum as sum_
from hanse.core.spec import Spec, TensorSpec
from hanse.core.tensors import tree_map
from hanse.core.values import pack, unpack, value
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
    return Dispatch(asked_of_party(), cohort, shared or {}, uplink or {"u": Channel(SPEC)}, key, version)


def answer(ticket, values=W, weight=1.0):
    return Message(ticket, {"u": Part(values, weight)})


def folded(desk, tickets, messages, dropped=None, **close):
    return desk.fold(Collect(tickets, Close(**close)), messages, dropped if dropped is not None else {})


@pytest.fixture
def desk():
    return Coordinator(10, SECRET)


# -- sampling -------------------------------------------------------------------------------------


def test_a_cohort_has_nobody_twice_and_nobody_busy(desk):
    desk.dispatch(asking(0, 3, "server"))
    for i in range(200):
        cohort = desk.sample(Sample(KEY.fold(i), count=5)).cohort
        assert len(set(cohort)) == 5
        assert not {0, 3} & set(cohort)
        assert all(type(client) is int and 0 <= client < 10 for client in cohort)
    assert sorted(desk.sample(Sample(KEY, count=99)).cohort) == [1, 2, 4, 5, 6, 7, 8, 9]
    assert sorted(desk.sample(Sample(KEY, fraction=1.0)).cohort) == [1, 2, 4, 5, 6, 7, 8, 9]
    assert desk.sample(Sample(KEY, count=0)).cohort == ()


def test_everybody_free_is_drawn_as_often_and_in_any_order(desk):
    desk.dispatch(asking(0, 3))
    drawn = np.array([desk.sample(Sample(KEY.fold(i), count=3)).cohort for i in range(4000)])
    for column in drawn.T:
        # 7 degrees of freedom: 30 is exceeded once in 10,000 fair trials.
        counts = np.bincount(column, minlength=10)[[1, 2, 4, 5, 6, 7, 8, 9]]
        assert np.square(counts - 500).sum() / 500 < 30


def test_a_cohort_follows_from_its_key_alone(desk):
    drawn = desk.sample(Sample(KEY, count=4))
    assert drawn == desk.sample(Sample(KEY, count=4)) == Coordinator(10, KEY).sample(Sample(KEY, count=4))
    assert drawn.num_clients == 10


def test_who_has_answered_is_free_again(desk):
    tickets = desk.dispatch(asking(*range(10))).tickets
    assert desk.sample(Sample(KEY, count=5)).cohort == ()
    desk.fold(
        Collect(None, Close(goal=1)), [(tickets[4], answer(tickets[4]))], {tickets[6]: "it dropped out"}
    )
    assert sorted(desk.sample(Sample(KEY, count=5)).cohort) == [4, 6]


def test_nobody_is_drawn_where_nobody_is():
    assert Coordinator(0, SECRET).sample(Sample(KEY, fraction=1.0)).cohort == ()


# -- tickets out ----------------------------------------------------------------------------------


def test_each_member_of_a_cohort_gets_a_ticket_of_its_own(desk):
    tickets = desk.dispatch(asking(5, "server", 2)).tickets + desk.dispatch(asking(1)).tickets
    assert len(set(tickets)) == 4
    assert [desk.task(t).party for t in tickets] == [5, "server", 2, 1]
    assert all(desk.is_open(t) for t in tickets)
    assert len({desk.task(t).key for t in tickets}) == 4
    assert desk.task(tickets[0]).key == KEY.fold("party", 5)
    assert not desk.is_open(99)


def test_no_ticket_is_ever_given_twice(desk):
    given = []
    for cohort in ((1, 2), (), (3,), ()):
        given += desk.dispatch(asking(*cohort)).tickets
        desk.settle(abandoned=False)
        desk.restore(unpack(pack(desk.snapshot())))
    assert len(set(given)) == 3


def test_peers_number_their_tickets_apart():
    first, second = (Coordinator(3, SECRET, owner=n, first_ticket=1000 * n) for n in (1, 2))
    assert first.dispatch(asking(0, 1)).tickets == (1000, 1001)
    assert second.dispatch(asking(0, 1)).tickets == (2000, 2001)


def test_a_party_twice_in_a_cohort_is_refused():
    with pytest.raises(InvalidInput, match="twice in the cohort"):
        asking(1, 2, 1)


@pytest.mark.parametrize("party", [10, -1, 10**20])
def test_a_client_that_is_not_registered_is_refused(desk, party):
    with pytest.raises(HanseError, match=rf"no client {party}: 10 are registered"):
        desk.dispatch(asking(1, party))
    assert desk.open_tickets() == ()


def test_parts_that_can_not_stand_together_are_refused_before_anybody_is_asked(desk):
    with pytest.raises(CompositionError, match="adds messages up"):
        desk.dispatch(asking(1, u=Channel(SPEC.like(summable=False))))
    with pytest.raises(CompositionError, match="does not train 'u' inside a restricted space"):
        desk.dispatch(asking(1, u=Channel(SPEC, (random_mask(0.5),))))
    assert desk.open_tickets() == ()


# -- messages in ----------------------------------------------------------------------------------


def test_a_good_message_is_taken(desk):
    (ticket,) = desk.dispatch(asking(1)).tickets
    message = desk.receive(ticket, pack(answer(ticket, weight=3)))
    assert message.ticket == ticket
    assert message.parts["u"].weight == 3
    np.testing.assert_array_equal(message.parts["u"].values["w"], W["w"])


@pytest.mark.parametrize("weight", [0, 0.0, 1, 2.5, 1e7, 10**7])
def test_weights_up_to_their_cap_are_taken(desk, weight):
    (ticket,) = desk.dispatch(asking(1)).tickets
    assert desk.receive(ticket, pack(answer(ticket, weight=weight))).parts["u"].weight == weight


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
def test_other_weights_are_refused(desk, weight):
    (ticket,) = desk.dispatch(asking(1)).tickets
    with pytest.raises(MessageError, match="'u' has weight"):
        desk.receive(ticket, pack(answer(ticket, weight=weight)))


def test_the_cap_on_weights_is_the_channels(desk):
    (ticket,) = desk.dispatch(asking(1, u=Channel(SPEC, max_weight=2.0))).tickets
    desk.receive(ticket, pack(answer(ticket, weight=2.0)))
    with pytest.raises(MessageError, match="0 to 2 is allowed"):
        desk.receive(ticket, pack(answer(ticket, weight=2.1)))


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
def test_other_values_are_refused(desk, values, says):
    (ticket,) = desk.dispatch(asking(1)).tickets
    with pytest.raises(MessageError, match=says):
        desk.receive(ticket, pack(answer(ticket, values)))


@pytest.mark.parametrize(
    "parts",
    [{}, {"v": Part(W)}, {"u": Part(W), "v": Part(W)}, {"u": None}, {"u": 5}, {"u": (Part(W),)}],
    ids=str,
)
def test_other_parts_are_refused(desk, parts):
    (ticket,) = desk.dispatch(asking(1)).tickets
    with pytest.raises(MessageError, match="part"):
        desk.receive(ticket, pack(Message(ticket, parts)))


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
    desk = Coordinator(10, SECRET)
    (ticket,) = desk.dispatch(asking(1)).tickets
    for data in (pack(message), pack(Message(ticket, {"u": Part(5)}))):
        with pytest.raises(MessageError):
            desk.receive(ticket, data)


def test_what_is_hidden_must_not_be_sent(desk):
    (ticket,) = desk.dispatch(asking(1, u=Channel(SPEC, into=blindfold()))).tickets
    assert desk.receive(ticket, pack(Message(ticket, {"u": None}))).parts == {"u": None}
    with pytest.raises(MessageError, match=r"part 'u' is open, which blindfold\(\) does not allow"):
        desk.receive(ticket, pack(answer(ticket)))
    with pytest.raises(MessageError, match="part 'u' is open"):
        desk.receive(ticket, pack(Message(ticket, {"u": W["w"]})))


def test_the_message_of_another_ticket_is_refused(desk):
    mine, yours = desk.dispatch(asking(1, 2)).tickets
    with pytest.raises(MessageError, match=f"a message for ticket {yours} under ticket {mine}"):
        desk.receive(mine, pack(answer(yours)))


@pytest.mark.parametrize("data", [b"", b"nonsense", pack({"u": 1}), pack(Part(W))])
def test_what_is_no_message_is_refused(desk, data):
    (ticket,) = desk.dispatch(asking(1)).tickets
    with pytest.raises(MessageError):
        desk.receive(ticket, data)


@pytest.mark.parametrize(
    "values", [{"w": np.zeros(10**6)}, {f"x{i}": np.zeros(0) for i in range(5000)}], ids=["b", "n"]
)
def test_an_oversized_message_is_refused_unread(desk, values):
    (ticket,) = desk.dispatch(asking(1)).tickets
    data = pack(answer(ticket, values))
    with pytest.raises(MessageError, match=rf"a message of {len(data)} bytes, at most \d+ are due"):
        desk.receive(ticket, data)


def test_a_bound_that_is_known_where_the_size_is_not_is_kept(desk):
    table = Spec({"n": TensorSpec(("nodes",), "uint8")}, kind="table", max_bytes=1000)
    (ticket,) = desk.dispatch(asking(1, u=Channel(table, into=sum_()))).tickets
    assert desk.receive(ticket, pack(answer(ticket, {"n": np.ones(1000, np.uint8)})))
    with pytest.raises(MessageError, match=r"a message of \d+ bytes, at most \d+ are due"):
        desk.receive(ticket, pack(answer(ticket, {"n": np.ones(100_000, np.uint8)})))


def test_what_is_no_value_of_a_tensor_is_bounded_however_large_the_model(desk):
    model = {"w": np.zeros(10**6)}
    (ticket,) = desk.dispatch(asking(1, u=Channel(Spec.of(model)))).tickets
    data = pack(((),) * 50_000)  # in JSON, an empty list takes 3 bytes, and in memory many times that
    with pytest.raises(MessageError, match=r"a header of \d+ bytes; at most \d+ are allowed"):
        desk.receive(ticket, data)


def test_of_a_strangers_classes_only_those_of_a_message_are_built(desk):
    (ticket,) = desk.dispatch(asking(1)).tickets
    with pytest.raises(MessageError, match="a key, which is not allowed here"):
        desk.receive(ticket, pack(Message(ticket, {"u": KEY})))


def test_a_model_of_many_small_tensors_fits(desk):
    layers = {f"backbone.layer{i}.block.bn.running_mean": np.zeros(64, np.float32) for i in range(600)}
    (ticket,) = desk.dispatch(asking(1, u=Channel(Spec.of(layers)))).tickets
    assert desk.receive(ticket, pack(answer(ticket, layers))).ticket == ticket


def test_messages_whose_size_nobody_knows_are_taken_as_they_are(desk):
    table = Spec({"n": TensorSpec(("nodes", 2), "int64")}, kind="table")
    (ticket,) = desk.dispatch(asking(1, u=Channel(table, into=sum_()))).tickets
    counts = {"n": np.ones((50_000, 2), np.int64)}
    assert desk.receive(ticket, pack(answer(ticket, counts))).parts["u"].values["n"].shape == (50_000, 2)


def test_what_each_client_coded_is_opened_before_the_fold(desk):
    tickets = desk.dispatch(asking(1, 2, u=Channel(SPEC, (as_ratio(),)))).tickets
    sent = [
        (t, desk.receive(t, pack(answer(t, ratio(of))))) for t, of in zip(tickets, (1.0, 2.0), strict=True)
    ]
    np.testing.assert_allclose(folded(desk, tickets, sent)["u"].values["w"], 0.75 * W["w"])


@pytest.mark.parametrize("of", [-1.0, 1e-45])
def test_what_can_not_be_opened_is_refused_by_name_and_the_round_goes_on(desk, of):
    good, bad = desk.dispatch(asking(1, 2, u=Channel(SPEC, (as_ratio(),)))).tickets
    arrived, dropped = [], {}
    for ticket, denominator in ((good, 2.0), (bad, of)):
        try:
            arrived.append((ticket, desk.receive(ticket, pack(answer(ticket, ratio(denominator))))))
        except MessageError as error:
            dropped[ticket] = str(error)
    got = folded(desk, (good, bad), arrived, dropped)
    assert (got.counted, [drop.party for drop in got.dropped]) == ((good,), [2])
    assert got["u"].values["w"].tolist() == [0.5, 1]


# -- the fold -------------------------------------------------------------------------------------


def test_a_collect_folds_what_it_counts(desk):
    tickets = desk.dispatch(asking(4, 5, 6)).tickets
    got = folded(desk, tickets, [(t, answer(t, {"w": t * W["w"]}, t + 1)) for t in tickets])
    np.testing.assert_allclose(got["u"].values["w"], (0 * 1 + 1 * 2 + 2 * 3) / 6 * W["w"], rtol=1e-6)
    assert (got["u"].weight, got["u"].count, got.counted, got.parties) == (6.0, 3, tickets, (4, 5, 6))
    assert (got.dropped, got.abandoned) == ((), None)
    assert not any(desk.is_open(t) for t in tickets)


VALUES = [np.random.default_rng(i).normal(size=2).astype(np.float32) for i in range(32)]


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(32)), st.sets(st.integers(0, 31), max_size=20))
def test_the_result_depends_neither_on_arrival_nor_on_how_the_tickets_are_numbered(order, absent):
    """Positions are those of the cohort."""
    results = []
    for arrival, before in ((order, 0), (range(32), 3)):
        desk = Coordinator(32, SECRET)
        desk.dispatch(asking(*range(before)))
        tickets = desk.dispatch(asking(*range(32))).tickets
        received = {}
        for i in arrival:
            if i not in absent:
                message = pack(answer(tickets[i], {"w": VALUES[i]}))
                received[tickets[i]] = desk.receive(tickets[i], message)
        dropped = {tickets[i]: "late" for i in absent}
        got = folded(
            desk, tickets, [(t, received[t]) for t in sorted(received)], dropped, minimum_fraction=0.1
        )
        results.append((got["u"].values["w"].tobytes(), got.parties))
    assert results[0] == results[1]


def test_who_was_too_late_is_named_with_the_reason(desk):
    a, b, c = desk.dispatch(asking(4, 5, 6)).tickets
    got = folded(
        desk, (a, b, c), [(b, answer(b))], {c: "it was too late", a: "it dropped out"}, minimum_fraction=0.3
    )
    assert got.counted == (b,)
    assert got.dropped == (Drop(a, 4, "it dropped out"), Drop(c, 6, "it was too late"))
    assert desk.open_tickets() == ()


def test_drops_may_be_added_while_the_messages_are_read(desk):
    a, b = desk.dispatch(asking(4, 5)).tickets
    dropped = {}

    def arriving():
        yield a, answer(a)
        dropped[b] = "what it sent can't be taken"

    got = folded(desk, (a, b), arriving(), dropped)
    assert got.dropped == (Drop(b, 5, "what it sent can't be taken"),)


def test_too_few_abandon_the_round_and_everybody_is_dropped(desk):
    tickets = desk.dispatch(asking(4, 5, 6)).tickets
    dropped = dict.fromkeys(tickets[1:], "it dropped out")
    got = folded(desk, tickets, [(tickets[0], answer(tickets[0]))], dropped, minimum_fraction=0.5)
    assert (
        got.abandoned
        == "1 of 3 contributions were counted, 2 are needed; the first that was not: 5 (it dropped out)"
    )
    assert (got.totals, got.counted, got.parties) == ({}, (), ())
    assert {drop.ticket: drop.reason for drop in got.dropped} == {
        **dropped,
        tickets[0]: "the round was abandoned",
    }
    usage, settled = desk.settle(abandoned=True)
    assert (usage.counted, usage.dropped) == (0, 3)
    assert settled == {4: ((), tickets[:1]), 5: ((), tickets[1:2]), 6: ((), tickets[2:])}


def test_nobody_at_all_abandons_a_round_that_needs_nobody(desk):
    tickets = desk.dispatch(asking(4)).tickets
    assert "0 of 1" in folded(desk, tickets, [], {tickets[0]: "late"}, minimum_fraction=0.0).abandoned


def test_a_collect_that_names_none_leaves_the_others_in_flight(desk):
    a, b, c = desk.dispatch(asking(1, 2, 3)).tickets
    got = desk.fold(Collect(None, Close(goal=1)), [(b, answer(b))], {c: "it dropped out"})
    assert (got.counted, got.abandoned) == ((b,), None)
    assert desk.open_tickets() == (a,)
    nothing = desk.fold(Collect(None), [], {})
    assert (nothing.totals, nothing.counted, nothing.abandoned) == ({}, (), None)


def test_stale_contributions_count_less(desk):
    old = desk.dispatch(asking(1, version=2)).tickets[0]
    new = desk.dispatch(asking(2, version=5)).tickets[0]
    command = Collect(None, version=5, discount=Discount(1.0))
    got = desk.fold(command, [(old, answer(old, weight=8.0)), (new, answer(new, weight=3.0))], {})
    assert got["u"].weight == 8.0 / 4 + 3.0


def test_parts_are_folded_each_by_its_own_reducer(desk):
    channels = {"u": Channel(SPEC), "n": Channel(SPEC, into=sum_()), "all": Channel(SPEC, into=stack())}
    tickets = desk.dispatch(asking(1, 2, **channels)).tickets
    messages = [(t, Message(t, {name: Part(W, 2.0) for name in channels})) for t in tickets]
    got = folded(desk, tickets, messages)
    assert got["u"].values["w"].tolist() == [1, 2]
    assert got["n"].values["w"].tolist() == [4, 8]
    assert got["all"].values["w"].tolist() == [[1, 2], [1, 2]]


def test_hidden_parts_are_missing_from_the_totals_until_they_are_decoded(desk):
    channels = {"u": Channel(SPEC, (counted_sum(),), blindfold()), "open": Channel(SPEC)}
    tickets = desk.dispatch(asking(1, 2, **channels)).tickets
    got = folded(desk, tickets, [(t, Message(t, {"u": None, "open": Part(W)})) for t in tickets])
    assert got.totals.keys() == {"open"}
    added = desk.payload(tickets[0]).plans["u"][0][1]
    total = Total({"w": W["w"] + 2 * np.float32(added)}, 2.0, 2)
    decoded = desk.decode(Decode(tickets[0], "u", total)).total
    np.testing.assert_array_equal(decoded.values["w"], W["w"])


def test_the_servers_states_go_on_from_round_to_round(desk):
    channel = Channel(SPEC, (counted_sum(),), sum_())
    for clients, before in ((3, 0), (2, 3), (4, 2)):
        tickets = desk.dispatch(asking(*range(clients), u=channel)).tickets
        ((state, added),) = desk.payload(tickets[0]).plans["u"]
        assert state == before
        sent = {"w": W["w"] + np.float32(added)}
        got = folded(desk, tickets, [(t, answer(t, sent)) for t in tickets])
        assert got["u"].values["w"].tolist() == [clients, 2 * clients]
        desk.settle(abandoned=False)
    other = desk.dispatch(asking(1, v=channel)).tickets[0]
    assert desk.payload(other).plans["v"][0][0] == 0


def test_a_plan_of_each_dispatch_can_not_be_undone_on_a_sum_over_several(desk):
    channel = Channel(SPEC, (counted_sum(),), sum_())
    tickets = [desk.dispatch(asking(client, u=channel)).tickets[0] for client in (1, 2)]
    with pytest.raises(CompositionError, match=r"counted_sum\(\) draws its plan for each dispatch.*several"):
        desk.fold(Collect(None), [(t, answer(t)) for t in tickets], {})


def test_an_abandoned_round_leaves_the_servers_states_as_they_were(desk):
    channel = Channel(SPEC, (counted_sum(),), sum_())
    for clients, abandoned, before in ((3, False, 0), (2, True, 3), (4, False, 3)):
        tickets = desk.dispatch(asking(*range(clients), u=channel)).tickets
        assert desk.payload(tickets[0]).plans["u"][0][0] == before
        folded(desk, tickets, [(t, answer(t)) for t in tickets])
        desk = _reopened(desk)
        desk.settle(abandoned)


def test_no_two_folds_draw_from_the_same_secret(desk):
    SECRETS.clear()
    tickets = desk.dispatch(asking(1, 2, 3, u=Channel(SPEC, (counted_sum(),), sum_()))).tickets
    for ticket in tickets[:2]:
        desk.fold(Collect(None, Close(goal=1)), [(ticket, answer(ticket))], {})
    assert len(set(SECRETS)) == 2


def test_what_protects_people_follows_from_the_servers_secret():
    SECRETS.clear()
    for secret in (SECRET, Key.from_seed(3)):
        desk = Coordinator(10, secret)
        (ticket,) = desk.dispatch(asking(1, u=Channel(SPEC, (counted_sum(),), sum_()))).tickets
        folded(desk, (ticket,), [(ticket, answer(ticket))])
    assert len(set(SECRETS)) == 2


# -- memory: the tickets of one client ------------------------------------------------------------


def test_the_tickets_of_a_client_go_on_from_each_other(desk):
    a, b = (desk.dispatch(asking(1, 2)).tickets[0] for _ in range(2))
    assert (desk.task(a).after, desk.task(b).after) == (None, a)
    folded(desk, (a,), [(a, answer(a))])
    c = desk.dispatch(asking(1)).tickets[0]
    assert desk.task(c).after == b


def test_the_next_ticket_goes_on_from_the_last_that_was_counted_and_not_from_one_that_was_dropped(desk):
    a = desk.dispatch(asking(1)).tickets[0]
    folded(desk, (a,), [(a, answer(a))])
    b = desk.dispatch(asking(1)).tickets[0]
    folded(desk, (b,), [], {b: "late"}, minimum_fraction=0.0)
    assert desk.task(desk.dispatch(asking(1)).tickets[0]).after == a


def test_after_a_round_tickets_go_on_from_what_is_committed(desk):
    a = desk.dispatch(asking(1)).tickets[0]
    folded(desk, (a,), [(a, answer(a))])
    desk.settle(abandoned=False)
    assert desk.task(desk.dispatch(asking(1)).tickets[0]).after is None


def test_a_drop_takes_along_what_was_built_on_it(desk):
    a, other, b, c = (desk.dispatch(asking(client)).tickets[0] for client in (1, 2, 1, 1))
    got = desk.fold(Collect(None, ALL), [], {a: "late"})
    assert [(drop.ticket, drop.party) for drop in got.dropped] == [(a, 1), (b, 1), (c, 1)]
    assert "built on ticket" in got.dropped[1].reason
    assert desk.open_tickets() == (other,)
    assert desk.task(desk.dispatch(asking(1)).tickets[0]).after is None
    assert desk.settle(abandoned=False)[0].dropped == 3


def test_what_was_built_on_a_drop_is_not_counted(desk):
    a, b = (desk.dispatch(asking(1)).tickets[0] for _ in range(2))
    c = desk.dispatch(asking(2)).tickets[0]
    got = folded(desk, (a, b, c), [(b, answer(b)), (c, answer(c))], {a: "late"}, minimum_fraction=0.1)
    assert got.counted == (c,)
    assert [drop.ticket for drop in got.dropped] == [a, b]


def test_an_abandoned_round_takes_along_what_was_built_on_it(desk):
    a = desk.dispatch(asking(1)).tickets[0]
    folded(desk, (a,), [(a, answer(a))])
    b = desk.dispatch(asking(1)).tickets[0]
    _, settled = desk.settle(abandoned=True)
    assert settled == {1: ((), (a, b))}
    assert not desk.is_open(b)


# -- the end of a round ---------------------------------------------------------------------------


def test_settling_says_who_counted_and_forgets_it(desk):
    a, b, server, later = desk.dispatch(asking(1, 2, "server", 3)).tickets
    desk.fold(Collect(None), [(a, answer(a)), (server, answer(server))], {b: "late"})
    _, settled = desk.settle(abandoned=False)
    assert settled == {1: ((a,), ()), 2: ((), (b,)), "server": ((server,), ())}
    assert desk.open_tickets() == (later,)
    assert desk.settle(abandoned=False)[1] == {}


def test_a_round_that_was_abandoned_commits_nothing(desk):
    a, b = desk.dispatch(asking(1, 2)).tickets
    desk.fold(Collect(None), [(a, answer(a))], {b: "late"})
    assert desk.settle(abandoned=True)[1] == {1: ((), (a,)), 2: ((), (b,))}


def test_nothing_is_kept_that_nobody_needs(desk):
    for _ in range(5):
        tickets = desk.dispatch(asking(*range(5), shared={"params": W})).tickets
        folded(desk, tickets, [(t, answer(t)) for t in tickets])
        desk.settle(abandoned=False)
        desk.dispatch(asking())
    left = desk.dispatch(asking(1)).tickets
    desk.settle(abandoned=False)
    held = desk.snapshot()
    assert (list(held.tickets), list(held.sent)) == ([left[0]], [left[0]])


# -- what it cost ---------------------------------------------------------------------------------


def test_bytes_are_those_that_were_sent(desk):
    tickets = desk.dispatch(asking(1, 2, "server", shared={"params": W})).tickets
    sent = {t: pack(answer(t)) for t in tickets}
    down = sum(len(desk.pack_payload(t)) + len(pack(desk.task(t))) for t in tickets[:2])
    assert desk.pack_payload(tickets[0]) == pack(desk.payload(tickets[0]))
    messages = [(t, desk.receive(t, data)) for t, data in sent.items()]
    refused = pack(answer(tickets[0], {}))
    with pytest.raises(MessageError):
        desk.receive(tickets[0], refused)
    folded(desk, tickets, messages)
    up = len(sent[tickets[0]]) + len(sent[tickets[1]]) + len(refused)
    desk.add_virtual_seconds(1.5)
    again = Coordinator(10, SECRET)
    again.restore(unpack(pack(desk.snapshot())))
    flows = (Flow("down", "params", (), 2, (16,)), Flow("up", "u", (), 2, (16,)))
    (usage, _), (restored, _) = desk.settle(abandoned=False), again.settle(abandoned=False)
    assert usage == restored
    assert replace(usage, clients={}) == Usage(up, down, 2, 0, 1.5, flows)
    assert usage.clients == {
        1: (up - len(sent[tickets[1]]), down // 2),
        2: (len(sent[tickets[1]]), down // 2),
    }


def test_each_round_begins_at_nothing(desk):
    desk.dispatch(asking(1, 2))
    first = desk.settle(abandoned=False)[0]
    assert sum(down for _, down in first.clients.values()) == first.bytes_down > 0
    assert desk.settle(abandoned=False)[0] == Usage()


def test_what_an_owner_sends_itself_costs_nothing():
    peer = Coordinator(3, SECRET, owner=1)
    own, neighbour = peer.dispatch(asking(1, 2)).tickets
    peer.receive(own, pack(answer(own)))
    folded(peer, (own, neighbour), [(own, answer(own))], {neighbour: "late"}, minimum_fraction=0.1)
    down = len(peer.pack_payload(neighbour)) + len(pack(peer.task(neighbour)))
    assert peer.settle(abandoned=False)[0] == Usage(bytes_down=down, dropped=1, clients={2: (0, down)})


# -- crashes --------------------------------------------------------------------------------------


def _reopened(desk):
    again = Coordinator(10, SECRET)
    again.restore(unpack(pack(desk.snapshot())))
    return again


def _story(reopen):
    """Three rounds with tickets that are counted, dropped, left in flight and asked again."""
    desk, told = Coordinator(10, SECRET), []
    channels = {"u": Channel(SPEC, (counted_sum(),), sum_()), "v": Channel(SPEC, (as_ratio(),))}
    for number in range(3):
        key = KEY.fold(number)
        for step in range(2):
            desk = reopen(desk)
            cohort = desk.sample(Sample(key.fold(step), count=3)).cohort + (("server",) if step else ())
            desk = reopen(desk)
            tickets = desk.dispatch(asking(*cohort, key=key.fold(step), version=number, **channels)).tickets
            desk = reopen(desk)
            told.append((cohort, tickets, [desk.task(t) for t in tickets], repr(desk.payload(tickets[0]))))
            arrived = [
                (t, desk.receive(t, pack(Message(t, {"u": Part(W), "v": Part(ratio(1 + number))}))))
                for t in tickets[1:]
            ]
            close = Close(minimum_fraction=0.2)
            got = desk.fold(Collect(tickets, close, number, Discount()), arrived, {tickets[0]: "late"})
            desk = reopen(desk)
            told.append(pack(got))
            desk.dispatch(asking(cohort[0], 9 - number, key=key.fold("more", step)))
            desk = reopen(desk)
        told.append([desk.task(t) for t in desk.open_tickets()])
        told.append(desk.settle(abandoned=number == 1))
    return told


def test_a_coordinator_that_is_restored_at_any_moment_goes_on_identically():
    assert _story(_reopened) == _story(lambda desk: desk)


def test_a_restored_coordinator_lets_nobody_go_on_from_a_dropped_ticket(desk):
    a, b = desk.dispatch(asking(1, 2)).tickets
    folded(desk, (a, b), [(b, answer(b))], {a: "late"})
    again = _reopened(desk)
    tickets = again.dispatch(asking(1, 2)).tickets
    assert [again.task(t).after for t in tickets] == [None, b]


def test_restoring_takes_back_whatever_happened_since(desk):
    tickets = desk.dispatch(asking(1, 2)).tickets
    before = desk.snapshot()
    folded(desk, tickets, [(t, answer(t)) for t in tickets])
    desk.dispatch(asking(3))
    desk.restore(before)
    assert desk.open_tickets() == tickets
    assert pack(desk.snapshot()) == pack(before)
    assert folded(desk, tickets, [(t, answer(t)) for t in tickets])["u"].count == 2


def test_a_desk_is_a_copy(desk):
    tickets = desk.dispatch(asking(1, 2)).tickets
    before = desk.snapshot()
    packed = pack(before)
    folded(desk, tickets, [(t, answer(t)) for t in tickets])
    desk.settle(abandoned=False)
    assert pack(before) == packed


def test_stores_still_know_the_state_by_its_old_names(desk):
    desk.dispatch(asking(1))
    packed = pack(desk.snapshot())
    assert b'{\\"$\\":\\"Desk\\",\\"next_ticket\\":1,' in packed
    assert b'\\"$\\":\\"Sent\\"' in packed


def test_single_facts_need_no_copy_of_the_state(desk):
    first = desk.dispatch(asking(1, 2, shared={"params": W})).tickets
    second = desk.dispatch(asking(3)).tickets
    folded(desk, first, [(t, answer(t)) for t in first])
    state = desk.snapshot()
    assert desk.usage == state.usage
    assert desk.usage.bytes_down > 0
    assert desk.next_ticket == state.next_ticket == 3
    assert desk.tickets == frozenset(state.tickets) == {*first, *second}
    assert [desk.dispatch_of(t) for t in (*first, *second)] == [first[0], first[0], second[0]]
    desk.settle(abandoned=False)
    assert desk.tickets == set(second)
    assert (desk.has_dispatch(first[0]), desk.has_dispatch(second[0])) == (False, True)


def test_means_are_the_default():
    assert Channel(SPEC).into == mean()


def test_those_who_are_away_are_not_drawn():
    desk = Coordinator(6, SECRET)
    assert sorted(desk.sample(Sample(KEY, count=99), frozenset({0, 3})).cohort) == [1, 2, 4, 5]
    everybody = Coordinator(6, SECRET).sample(Sample(KEY, count=3))
    assert desk.sample(Sample(KEY, count=3), frozenset()) == everybody
