from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hanse.core.chain import Stage, Transform
from hanse.core.errors import CompositionError
from hanse.core.exchange.fold import Block, MessageFold, TransformStates
from hanse.core.exchange.party import Payload
from hanse.core.exchange.tickets import DispatchRecord
from hanse.core.keys import Key
from hanse.core.program import Collect, Discount, PartSpec
from hanse.core.reducers import TreeFold, mean, stack
from hanse.core.reducers import sum as sum_
from hanse.core.spec import Spec
from hanse.core.values import value
from hanse.core.work import Part, Total, Work

KEY = Key.from_seed(1)
W = {"w": np.ones(2)}
SPEC = Spec.of(W)


@value
class asked_to_fold(Work):
    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        raise AssertionError("a fold computes nothing")


@value
class counting(Transform):
    """Adds nothing; its state is the number of contributions in all totals, its plan the state."""

    def __call__(self, spec: Spec) -> Stage:
        return Stage(
            spec,
            init=0,
            plan=lambda state, key: state,
            decode=lambda state, plan, total, key: (total, state + total.count),
        )


def record(states: TransformStates | None = None, version: int = 0, **uplink: PartSpec) -> DispatchRecord:
    blank = Payload(asked_to_fold(), {}, uplink, {})
    plans = (states or TransformStates(KEY, {}, {})).plan(blank.chains, KEY)
    return DispatchRecord(replace(blank, plans=plans), KEY, version)


def parts(number: float, weight: float = 1.0) -> dict[str, Part | None]:
    return {"u": Part({"w": np.full(2, number)}, weight)}


def test_each_part_is_folded_by_its_own_reducer_and_hidden_ones_by_none() -> None:
    dispatch = record(u=PartSpec(SPEC), all=PartSpec(SPEC, into=stack()), hidden=PartSpec(SPEC))
    fold = MessageFold(Collect((5, 3, 4)), (5, 3, 4))
    for ticket in (5, 4):
        part = Part({"w": np.full(2, float(ticket))})
        fold.add(ticket, {"u": part, "all": part, "hidden": None}, dispatch)
    assert fold.counted == (5, 4)
    totals = dict(fold.totals())
    assert list(totals) == ["u", "all"]
    assert totals["u"].values["w"].tolist() == [4.5, 4.5]
    assert totals["all"].values["w"].tolist() == [[5, 5], [4, 4]]


def test_a_discount_lowers_the_weights_of_old_dispatches() -> None:
    command = Collect(None, version=5, discount=Discount(1.0))
    fold = MessageFold(command, (0, 1))
    fold.add(0, parts(1.0, 8.0), record(version=2, u=PartSpec(SPEC)))
    fold.add(1, parts(1.0, 3.0), record(version=5, u=PartSpec(SPEC)))
    assert dict(fold.totals())["u"].weight == 8.0 / 4 + 3.0


def test_a_block_is_folded_to_the_bits_of_its_messages() -> None:
    rng = np.random.default_rng(0)
    dispatch, tickets = record(u=PartSpec(SPEC)), tuple(range(20, 27))
    messages = {ticket: parts(rng.normal(), rng.random()) for ticket in tickets}
    single, blocks = MessageFold(Collect(tickets), tickets), MessageFold(Collect(tickets), tickets)
    for ticket in tickets:
        single.add(ticket, messages[ticket], dispatch)
    for some in (tickets[:4], tickets[4:]):
        tree = TreeFold(mean())
        for ticket in some:
            tree.lift(ticket - 20, messages[ticket]["u"])
        blocks.add_block(Block(some, {"u": tree.accumulator()}, (), {}, {}), dispatch)
    blocks.add_block(Block((), {}, ((27, 10),), {27: "too large"}, {}), dispatch)
    assert blocks.counted == single.counted == tickets
    one, other = dict(single.totals())["u"], dict(blocks.totals())["u"]
    assert one.values["w"].tobytes() == other.values["w"].tobytes()
    assert (one.weight, one.count) == (other.weight, other.count)


def test_states_go_on_from_total_to_total_and_part_from_part() -> None:
    states = TransformStates(KEY, {}, {})
    part_spec = PartSpec(SPEC, (counting(),), sum_())
    for count, before in ((3, 0), (2, 3)):
        dispatch = record(states, u=part_spec, v=part_spec)
        assert dispatch.payload.plans == {"u": (before,), "v": (0,)}
        states.decode("u", dispatch.payload, Total(W, 1.0, count), 7)
    again = TransformStates(KEY, states.states, states.begun)
    assert record(again, u=part_spec).payload.plans == {"u": (5,)}


@pytest.mark.parametrize(("abandoned", "after"), [(True, 3), (False, 5)])
def test_an_abandoned_round_takes_its_states_back(abandoned: bool, after: int) -> None:
    states = TransformStates(KEY, {}, {})
    part_spec = PartSpec(SPEC, (counting(),), sum_())
    for count, gives_up in ((3, False), (2, abandoned)):
        states.decode("u", record(states, u=part_spec).payload, Total(W, 1.0, count), 7)
        states.begin_round(abandoned=gives_up)
    assert record(states, u=part_spec).payload.plans == {"u": (after,)}
    assert states.states == states.begun


def test_a_plan_of_one_dispatch_is_not_undone_on_a_sum_over_several() -> None:
    states = TransformStates(KEY, {}, {})
    dispatches = [record(states, u=PartSpec(SPEC, (counting(),), sum_())) for _ in range(2)]
    fold = MessageFold(Collect(None), (0, 1))
    for ticket, dispatch in enumerate(dispatches):
        fold.add(ticket, parts(1.0), dispatch)
    assert states.decode_totals(fold, dispatches[:1])["u"].values["w"].tolist() == [2, 2]
    with pytest.raises(CompositionError, match=r"counting\(\) draws its plan for each dispatch.*several"):
        states.decode_totals(fold, dispatches)
