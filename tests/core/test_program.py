import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.chain import Stage, Transform
from hanse.core.errors import CompositionError, InvalidInput, RoundAbandoned
from hanse.core.gathering import gather
from hanse.core.keys import Key
from hanse.core.program import (
    Close,
    Collect,
    Collected,
    Commit,
    Committed,
    Decode,
    Decoded,
    Discount,
    Dispatch,
    Dispatched,
    Drop,
    PartSpec,
    Sample,
    Sampled,
    Usage,
    collect,
    commit,
    dispatch,
    sample,
)
from hanse.core.reducers import Reducer, Unveiled, mean, stack
from hanse.core.spec import Spec, TensorSpec
from hanse.core.values import pack, unpack, value
from hanse.core.work import Total, Work

KEY = Key.from_seed(1)
SPEC = Spec.of({"w": np.zeros(2)})


@value
class idle(Work):
    def run(self, learner, shared, data, memory, keys):
        return {}, memory


@value
class opened(Transform):
    def __call__(self, spec):
        return Stage(spec.like(kind="coded"), open=lambda plan, part, key: part)


@value
class hidden_sum(Reducer):
    """Hides; its protocol asks for one cohort of its own."""

    hides = True

    def accepts(self, spec):
        if spec.kind != "real":
            raise CompositionError(f"{self} adds real numbers")

    def lift(self, part):
        raise AssertionError("seen")

    merge = result = lift

    def protocol(self, parts, parties, key):
        sampled = yield Sample(key, count=len(parties))
        total = Total({"w": np.ones(2)}, float(len(parties)), len(parties))
        return Unveiled(dict.fromkeys(parts, total), sampled.cohort)


def led(program, *events):
    """The commands of a program that is answered with these events, and what it returns."""
    commands, event = [], None
    try:
        for event in (None, *events):
            commands.append(program.send(event))
    except StopIteration as stop:
        return commands, stop.value
    raise AssertionError(f"it asks for more: {commands[-1]}")


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Sample(KEY, count=3, fraction=0.5), "not 3, 0.5 and None"),
        (lambda: Sample(KEY, count=3, rate=0.5), "not 3, None and 0.5"),
        (lambda: Sample(KEY, rate=0.0), "rate is 0.0"),
        (lambda: Sample(KEY, rate=1.5), "rate is 1.5"),
        (lambda: Sample(KEY, rate=float("nan")), "rate is nan"),
        (lambda: Sample(KEY, fraction=0.0), "fraction is 0.0"),
        (lambda: Sample(KEY, fraction=1.1), "fraction is 1.1"),
        (lambda: Sample(KEY, fraction=float("nan")), "fraction is nan"),
        (lambda: Sample(KEY, count=-1), "count is -1"),
        (lambda: Close(goal=0), "goal is 0"),
        (lambda: Close(deadline_s=0.0), "deadline_s is 0.0"),
        (lambda: Close(deadline_s=float("nan")), "deadline_s is nan"),
        (lambda: Close(minimum_fraction=1.5), "minimum_fraction is 1.5"),
        (lambda: Close(minimum_fraction=-0.1), "minimum_fraction is -0.1"),
        (lambda: Close(minimum_fraction=float("nan")), "minimum_fraction is nan"),
        (lambda: Dispatch(idle(), (1, 2, 1), {}, {}, KEY), "a party is twice in the cohort"),
    ],
)
def test_settings_that_can_not_be_are_refused_with_their_value(make, says):
    with pytest.raises(InvalidInput, match=says):
        make()


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_count_is_at_most_everybody(count, num_clients):
    assert Sample(KEY, count=count).size(num_clients) == min(count, num_clients)


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 10**6))
def test_a_fraction_is_at_least_one_and_at_most_everybody(fraction, num_clients):
    size = Sample(KEY, fraction=fraction).size(num_clients)
    assert 1 <= size <= num_clients
    assert size == 1 or abs(size - fraction * num_clients) <= 0.5


@given(st.integers(0, 100).map(lambda p: p / 128), st.integers(1, 1000))
def test_a_round_needs_its_share_and_at_least_one(fraction, num_asked):
    needed = Close(minimum_fraction=fraction).minimum(num_asked)
    assert needed == max(1, math.ceil(Fraction(fraction) * num_asked))
    assert needed <= num_asked


@pytest.mark.parametrize("percent", [7, 14, 28, 55, 56])
def test_a_share_of_a_hundred_is_that_many(percent):
    assert Close(minimum_fraction=percent / 100).minimum(100) == percent


@given(st.integers(1, 50), st.floats(0, 1), st.integers(1, 100))
def test_a_goal_that_is_reached_is_always_enough(goal, fraction, num_asked):
    close = Close(goal=goal, minimum_fraction=fraction)
    assert close.minimum(num_asked) <= goal
    assert close.minimum(num_asked) <= Close(minimum_fraction=fraction).minimum(num_asked)


def test_a_round_that_nobody_was_asked_in_can_not_close():
    assert Close(minimum_fraction=0.0).minimum(0) == 1


@given(st.floats(0, 4), st.integers(0, 1000))
def test_the_staler_the_less_it_counts(exponent, staleness):
    discount = Discount(exponent)
    assert discount.factor(0) == 1.0
    assert 0 < discount.factor(staleness + 1) <= discount.factor(staleness) <= 1.0
    assert Discount().factor(3) == 0.5


# -- channels -------------------------------------------------------------------------------------


def test_a_channel_is_checked_against_its_reducer():
    assert PartSpec(SPEC).chain().out == SPEC
    with pytest.raises(CompositionError, match="adds messages up"):
        PartSpec(SPEC.like(summable=False)).chain()
    with pytest.raises(CompositionError, match="fixed shape"):
        PartSpec(Spec({"w": TensorSpec(("n",), "float64")}), into=stack()).chain()


def test_what_is_folded_is_what_the_reducer_must_accept():
    """Not what travels: that is opened before."""
    PartSpec(SPEC, (opened(),)).chain()


def test_what_must_be_opened_can_not_be_hidden():
    PartSpec(SPEC, into=hidden_sum()).chain()
    with pytest.raises(
        CompositionError, match=r"opened\(\) must see single .*hidden_sum\(\) hides.*or drop one"
    ):
        PartSpec(SPEC, (opened(),), hidden_sum()).chain()


def test_a_channel_refuses_only_when_it_is_bound():
    """So that settings can be read, saved and compared whatever they say."""
    bad = PartSpec(SPEC, (opened(),), hidden_sum())
    assert unpack(pack(bad)) == bad


# -- helpers --------------------------------------------------------------------------------------


def test_sample_yields_its_command_and_returns_the_event():
    event = Sampled((2, 1), 5)
    assert led(sample(KEY, count=2), event) == ([Sample(KEY, 2)], event)
    assert led(sample(KEY, fraction=0.5), event) == ([Sample(KEY, fraction=0.5)], event)


def test_sample_gives_up_the_round_where_nobody_is_free():
    with pytest.raises(RoundAbandoned, match="none of 5 clients is free"):
        led(sample(KEY, fraction=0.5), Sampled((), 5))
    assert led(sample(KEY, count=0), Sampled((), 5))[1].cohort == ()


def test_dispatch_and_collect_yield_their_commands():
    sent, got = Dispatched((7, 8)), Collected({}, (7,), (1,))
    channels = {"update": PartSpec(SPEC), "loss": PartSpec(SPEC, into=stack())}
    commands, event = led(dispatch(idle(), (1, 2), {}, KEY, version=3, **channels), sent)
    assert (commands, event) == ([Dispatch(idle(), (1, 2), {}, channels, KEY, 3)], sent)
    close, discount = Close(goal=1), Discount(1.0)
    assert led(collect(close=close, version=4, discount=discount), got) == (
        [Collect(None, close, 4, discount)],
        got,
    )


def test_gather_is_dispatch_and_collect():
    got = Collected({"update": Total({"w": np.ones(2)}, 2.0, 2)}, (7,), (1,), (Drop(8, 2, "late"),))
    close = Close(minimum_fraction=0.2)
    commands, event = led(
        gather(idle(), (1, 2), {}, KEY, close=close, update=PartSpec(SPEC)), Dispatched((7, 8)), got
    )
    assert commands == [Dispatch(idle(), (1, 2), {}, {"update": PartSpec(SPEC)}, KEY), Collect((7, 8), close)]
    assert event["update"] is got["update"]
    assert (event.counted, event.parties, event.dropped) == (got.counted, got.parties, got.dropped)


def test_gather_gives_up_the_round_where_too_few_answer():
    with pytest.raises(RoundAbandoned, match="1 of 9"):
        led(gather(idle(), (1,), {}, KEY), Dispatched((1,)), Collected({}, (), (), (), "1 of 9"))


def test_gather_runs_the_protocols_of_what_is_hidden_and_has_it_decoded():
    channels = {"open": PartSpec(SPEC), "hidden": PartSpec(SPEC, into=hidden_sum())}
    seen = Total({"w": np.zeros(2)}, 2.0, 2)
    decoded = Total({"w": np.full(2, 5.0)}, 2.0, 2)
    commands, event = led(
        gather(idle(), (4, 5, 6), {}, KEY, **channels),
        Dispatched((7, 8, 9)),
        Collected({"open": seen}, (7, 9), (4, 6)),
        Sampled((4, 6), 9),
        Decoded(decoded),
    )
    assert [type(command) for command in commands] == [Dispatch, Collect, Sample, Decode]
    assert commands[2] == Sample(KEY.fold_in("protocol", "hidden"), count=2)
    assert (commands[3].ticket, commands[3].part) == (7, "hidden")
    assert event["open"] is seen
    assert event["hidden"] is decoded


def test_commit_yields_its_command():
    event = Committed(Usage(1, 2))
    assert led(commit(3, {"w": 1}, {"loss": 0.5}, "why"), event) == (
        [Commit(3, {"w": 1}, {"loss": 0.5}, "why")],
        event,
    )


@pytest.mark.parametrize(
    "program", [sample(KEY, count=1), collect(), commit(1, None, {})], ids=["s", "c", "t"]
)
def test_an_answer_of_another_kind_is_a_programming_error(program):
    with pytest.raises(TypeError, match="was answered by Dispatched"):
        led(program, Dispatched(()))


# -- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        Sample(KEY, fraction=0.5),
        Sampled((1, "server"), 5),
        Dispatch(idle(), (1, "server"), {}, {"update": PartSpec(SPEC, (opened(),), stack(), 5.0)}, KEY, 2),
        Dispatched((1, 2)),
        Collect(None, Close(3, 1.5, 0.1), 2, Discount(0.1)),
        Collected({}, (1,), ("server",), (Drop(2, 3, "late"),), "why"),
        Commit(3, (1, 2), {"loss": float("nan")}),
        Committed(Usage(1, 2, 3, 4, 5.5), {}),
        mean(),
    ],
    ids=lambda word: type(word).__name__,
)
def test_commands_and_events_survive_the_wire(word):
    assert repr(unpack(pack(word))) == repr(word)
