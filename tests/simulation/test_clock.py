"""The clock of devices with links, against closed forms."""

import math

import numpy as np
import pytest
from support import KEYS, Few, Quadratic

from hanse.core import Close, InvalidInput, Key, Part, PartSpec, Spec, Stalled, TensorSpec, Work, stack, value
from hanse.core.exchange import Collect, Commit, Dispatch, Sample, pack, unpack
from hanse.simulation import (
    Availability,
    InProcess,
    Link,
    Simulation,
    all_of,
    at_random,
    constant_speed,
    daily,
    data_centre,
    hospital_wan,
    log_normal_speed,
    pareto_speed,
    phone_on_wifi,
    timed,
    unstable,
    volunteers,
)

KEY = Key.from_seed(1)
SPEC = PartSpec(Spec({"x": TensorSpec((50,), "float64")}), into=stack())
SLOW = Link(8e3, 4e3, 2.0)  # 1,000 bytes down and 500 bytes up a second


@value
class weigh(Work):
    """Emits 50 numbers; costs as many examples as its party has."""

    def run(self, learner, shared, data, memory, keys):
        return {"x": Part({"x": np.zeros(50)})}, {**memory, "n": memory.get("n", 0) + 1}


def size(party):
    return 5 + 3 * party


def begun(devices):
    backend = InProcess(Quadratic(), Few(), KEYS)
    return Simulation(backend, 6, KEYS, devices, num_examples=size)


def dispatched(runtime, *cohort, key=KEY):
    shared = {"w": {"w": np.zeros(30)}}
    return runtime.perform(Dispatch(weigh(), cohort, shared, {"x": SPEC}, key)).tickets


def collected(runtime, tickets, **close):
    return runtime.perform(Collect(tickets, Close(**{"minimum_fraction": 0.0, **close})))


def committed(runtime):
    return runtime.perform(Commit(1, None, {})).usage


def exchanged(devices, *cohort):
    runtime = begun(devices)
    collected(runtime, dispatched(runtime, *cohort))
    return committed(runtime)


# -- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("polls", "asks_s"), [(True, 2 * 2.0), (False, 0.0)])
def test_one_client_on_one_link_takes_download_latency_computation_latency_and_upload(polls, asks_s):
    used = exchanged(timed(constant_speed(0.5), link=SLOW, polls=polls), 2)
    down_s, up_s = used.bytes_down / 1000, used.bytes_up / 500
    assert used.virtual_s == pytest.approx(asks_s + down_s + 2.0 + 0.5 * size(2) + up_s + 2.0, rel=1e-12)
    (times,) = used.times
    assert (times.party, times.sent_s, times.downloads_s) == (2, 0.0, asks_s)
    assert times.received_s == pytest.approx(asks_s + down_s + 2.0)
    assert times.computed_s == pytest.approx(times.begins_s + 0.5 * size(2))
    assert times.begins_s == times.received_s
    assert times.uploads_s == times.computed_s
    assert times.arrived_s == used.virtual_s


@pytest.mark.parametrize("num", [1, 2, 5])
def test_clients_share_the_bandwidth_of_the_server(num):
    used = exchanged(timed(constant_speed(0.0), server=Link(8e3, 4e3)), *range(num))
    first_up_s = used.bytes_down / num / 1000  # uploads wait for each other, and not for the last download
    per_down_s, per_up_s = used.bytes_down / num / 1000, used.bytes_up / num / 500
    expected = max(per_down_s * (i + 1) + per_up_s * (num - i) for i in range(num))
    assert first_up_s == per_down_s
    assert used.virtual_s == pytest.approx(expected, abs=0.02)  # tickets of 10 and more have a digit more


def test_a_fast_server_does_not_wait_for_slow_clients():
    alone = exchanged(timed(constant_speed(0.0), link=SLOW), 0)
    all_ = exchanged(timed(constant_speed(0.0), link=SLOW), 0, 1, 2, 3)
    assert all_.virtual_s == pytest.approx(alone.virtual_s, abs=0.2)


@pytest.mark.parametrize(("polls", "num_before"), [(True, 3), (False, 1)])
def test_latency_overlaps_with_computation(polls, num_before):
    runtime = begun(
        timed(constant_speed(1.0), link=Link(latency_s=3.0), server=Link(latency_s=0.5), polls=polls)
    )
    first, second = dispatched(runtime, 1), dispatched(runtime, 1)
    collected(runtime, first + second)
    used = committed(runtime)
    assert used.virtual_s == num_before * 3.5 + 2 * size(1) + 3.5, "it had the second task before that began"


@pytest.mark.parametrize("polls", [True, False])
def test_a_client_polls_again_after_each_answer(polls):
    runtime = begun(timed(constant_speed(0.0), link=Link(latency_s=1.0), polls=polls))

    def exchange(*cohort):
        collected(runtime, dispatched(runtime, *cohort))
        return committed(runtime).virtual_s

    alone = 4.0 if polls else 2.0
    assert exchange(0) == alone, "news, request, download, upload"
    assert exchange(1) == alone, "another client, whose poll is there"
    assert exchange(1) == alone + 2 * polls, "the answer that it was counted, and its next poll"
    assert exchange(0, 1) == alone + 2 * polls
    first, second = dispatched(runtime, 2), dispatched(runtime, 2)
    collected(runtime, first + second)
    received = [times.received_s - times.sent_s for times in committed(runtime).times]
    assert received == ([3.0, 5.0] if polls else [1.0, 1.0]), "two orders are two answers"


def test_an_answer_that_is_still_to_be_sent_says_all_that_is_new():
    runtime = begun(timed(constant_speed(1.0), link=Link(latency_s=10.0)))
    for _ in range(2):
        dispatched(runtime, 1)
    runtime.perform(Collect(close=Close(deadline_s=5.0, minimum_fraction=0.0)))
    late = dispatched(runtime, 1)
    runtime.perform(Collect(late, Close(minimum_fraction=0.0)))
    times = committed(runtime).times
    assert times[-1].received_s == 20.0 + 30.0, "it is in the answer of second 20, with the second ticket"


def test_a_client_computes_one_ticket_after_the_other_also_when_one_was_too_late():
    runtime = begun(timed(constant_speed(1.0)))
    assert collected(runtime, dispatched(runtime, 1), deadline_s=3.0).counted == ()
    assert runtime.snapshot().clock_s == 3.0
    collected(runtime, dispatched(runtime, 1))
    assert runtime.snapshot().clock_s == 2 * size(1), "what was begun is finished"


def test_the_first_of_several_close_a_goal_and_the_others_fill_a_later_one():
    runtime = begun(timed(constant_speed(1.0), link=Link(up_bps=8e3)))
    tickets = dispatched(runtime, 0, 1, 2)
    got = runtime.perform(Collect(close=Close(goal=1, minimum_fraction=0.0)))
    assert got.parties == (0,)
    assert got.counted == tickets[:1]
    first = committed(runtime)
    assert first.virtual_s == pytest.approx(size(0) + first.bytes_up / 1000)
    assert runtime.perform(Collect(close=Close(goal=2, minimum_fraction=0.0))).parties == (1, 2)
    second = committed(runtime)
    assert first.virtual_s + second.virtual_s == pytest.approx(size(2) + second.bytes_up / 2000)


@pytest.mark.parametrize("late", [0.99, 1.01])
def test_an_upload_that_is_not_over_at_the_deadline_is_too_late(late):
    whole = exchanged(timed(constant_speed(1.0), link=SLOW), 1).virtual_s
    runtime = begun(timed(constant_speed(1.0), link=SLOW))
    got = collected(runtime, dispatched(runtime, 1), deadline_s=whole * late)
    assert got.counted == (() if late < 1 else (0,))


def test_roles_of_the_server_take_no_time():
    assert exchanged(timed(link=SLOW), "server").virtual_s == 0.0


def test_the_work_is_counted_in_examples_that_are_visited():
    from hanse.algorithms import fed_avg, fed_sgd
    from hanse.core import Steps

    assert Steps(0.1, epochs=3, batch_size=4).count_visits(10) == 30
    assert Steps(0.1, num_steps=6, batch_size=5).count_visits(10) == 30
    assert fed_avg(epochs=2).work(0).cost(7) == 14
    assert fed_sgd() is not None


# -- speeds and links that last -------------------------------------------------------------------


@pytest.mark.parametrize("speed", [log_normal_speed(2.0, 0.7), pareto_speed(2.0, 1.5), constant_speed(2.0)])
def test_a_device_keeps_its_speed(speed):
    drawn = [speed.draw(Key.from_seed(n)) for n in range(1500)]
    assert drawn[:50] == [unpack(pack(speed)).draw(Key.from_seed(n)) for n in range(50)]
    median = {"log_normal_speed": 2.0, "pareto_speed": 2.0 * 2 ** (1 / 1.5), "constant_speed": 2.0}
    assert np.median(drawn) == pytest.approx(median[type(speed).__name__], rel=0.08)
    runtime = begun(timed(speed))
    for _ in range(2):
        collected(runtime, dispatched(runtime, 1))
    once, twice = [times.computed_s - times.begins_s for times in committed(runtime).times]
    assert once == pytest.approx(twice)


def test_jitter_is_drawn_by_ticket():
    runtime = begun(timed(jitter=0.3))
    for n in range(2):
        collected(runtime, dispatched(runtime, 1, key=KEY.fold_in(n)))
    once, twice = [times.computed_s - times.begins_s for times in committed(runtime).times]
    assert once != twice


def test_a_heavy_tail_has_stragglers():
    drawn = np.array([pareto_speed(1.0, 1.5).draw(Key.from_seed(n)) for n in range(4000)])
    assert drawn.min() >= 1.0
    assert abs((drawn > 4).mean() - 4**-1.5) < 0.02


@pytest.mark.parametrize("preset", [data_centre(), hospital_wan(), phone_on_wifi(), volunteers()])
def test_presets_are_devices_with_links(preset):
    assert unpack(pack(preset)) == preset
    assert preset.conditions().link.down_bps > 1e6
    assert exchanged(preset, 0, 1).virtual_s > 0


def test_devices_may_drop_out_whatever_their_links():
    runtime = begun(unstable(1.0, timed(link=SLOW)))
    got = collected(runtime, dispatched(runtime, 1, 2))
    assert [drop.reason for drop in got.dropped] == ["it dropped out"] * 2


# -- availability ---------------------------------------------------------------------------------


def test_a_window_is_open_at_night():
    night = daily(22, 8)
    assert night.period(KEY, 3600.0) == (-7200.0, 21600.0)
    assert night.period(KEY, 21600.0) == (79200.0, 108000.0)
    assert night.period(KEY, 80000.0) == (79200.0, 108000.0)
    assert night.period(KEY, 86400.0 + 7200.0) == (79200.0, 108000.0), "past midnight"


@pytest.mark.parametrize("condition", [daily(20, 6, 5), at_random(600, 0.3), all_of((daily(), at_random()))])
def test_periods_follow_each_other_and_depend_on_the_key_alone(condition):
    for seed in range(5):
        key, at_s, total = Key.from_seed(seed), 0.0, 0.0
        for _ in range(300):
            begin, end = condition.period(key, at_s)
            assert end > at_s
            assert begin < end
            assert condition.period(key, (max(begin, at_s) + end) / 2) == (begin, end)
            total, at_s = total + end - max(begin, at_s), end
        share = {daily: 0.25, at_random: 0.3, all_of: 0.5 * 8 / 24}[type(condition)]
        assert total / at_s == pytest.approx(share, rel=0.2)


def test_a_cohort_waits_until_devices_are_available():
    runtime = begun(timed(availability=daily(3, 2)))
    drawn = runtime.perform(Sample(KEY, count=4))
    assert len(drawn.cohort) == 4
    assert runtime.snapshot().clock_s == 3 * 3600.0


def test_only_available_devices_are_asked():
    devices = timed(availability=at_random(100.0, 0.5))
    runtime = begun(devices)
    for n in range(10):
        drawn = runtime.perform(Sample(KEY.fold_in(n), count=2))
        clock_s = runtime.snapshot().clock_s
        for client in drawn.cohort:
            begin, end = devices.availability.period(runtime._links.device(client).key, clock_s)
            assert begin <= clock_s < end
        collected(runtime, dispatched(runtime, *drawn.cohort))


def test_work_that_does_not_fit_a_period_is_dropped_when_the_period_ends():
    runtime = begun(timed(constant_speed(1000.0), availability=daily(0, 1)))
    got = collected(runtime, dispatched(runtime, 1))
    assert [drop.reason for drop in got.dropped] == ["it dropped out"]
    assert runtime.snapshot().clock_s == 3600.0
    assert committed(runtime).times[0].left_s == 3600.0


def test_devices_are_not_away_at_the_same_moments():
    condition = at_random(3600.0, 0.6)
    for at_s in (0.0, 3600.0, 1e5):
        periods = [condition.period(KEY.fold_in(n), at_s) for n in range(1000)]
        assert np.mean([begin <= at_s < end for begin, end in periods]) == pytest.approx(0.6, abs=0.05)


@value
class Counted(Availability):
    """Counts how often it is asked."""

    def period(self, key, at_s):
        ASKED.append(key)
        return at_random(100.0, 0.5).period(key, at_s)


ASKED = []


def test_few_of_many_devices_are_asked_whether_they_are_available():
    ASKED.clear()
    runtime = Simulation(InProcess(Quadratic(), Few(), KEYS), 2000, KEYS, timed(availability=Counted()))
    cohorts = [runtime.perform(Sample(KEY.fold_in(n), count=10)).cohort for n in range(5)]
    assert len(ASKED) < 5 * 60
    assert np.mean([client for cohort in cohorts for client in cohort]) == pytest.approx(1000, abs=300)
    drawn = runtime.perform(Sample(KEY, rate=0.5)).cohort
    assert len(drawn) == pytest.approx(500, abs=80), "half of those that are available"
    asked = len(ASKED)
    runtime.perform(Sample(KEY, rate=0.5))
    assert len(ASKED) == asked, "their periods are remembered until they end"


def test_conditions_that_never_hold_together_end_with_a_word():
    runtime = begun(timed(availability=all_of((daily(0, 1), daily(12, 1)))))
    with pytest.raises(Stalled, match="none of 6 devices will ever be available"):
        runtime.perform(Sample(KEY, count=1))
    assert collected(runtime, dispatched(runtime, 1)).counted == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Link(0.0),
        lambda: Link(up_bps=-1.0),
        lambda: Link(latency_s=-1.0),
        lambda: Link(down_bps=math.inf),
        lambda: constant_speed(-1.0),
        lambda: pareto_speed(1.0, 0.0),
        lambda: log_normal_speed(1.0, math.nan),
        lambda: daily(25, 1),
        lambda: daily(math.nan, 1),
        lambda: daily(1, 0),
        lambda: at_random(0.0, 0.5),
        lambda: at_random(60.0, 0.0),
        lambda: timed(jitter=-0.1),
        lambda: phone_on_wifi(-1.0),
    ],
)
def test_what_can_not_be_is_refused(make):
    with pytest.raises(InvalidInput, match="write"):
        make()


# -- going on -------------------------------------------------------------------------------------


def test_a_simulation_that_goes_on_has_the_same_times():
    devices = timed(log_normal_speed(1.0), 0.2, SLOW, Link(2e4, 1e4), at_random(900.0, 0.7))

    def step(runtime, n):
        drawn = runtime.perform(Sample(KEY.fold_in(n), count=2))
        dispatched(runtime, *drawn.cohort)
        runtime.perform(Collect(close=Close(goal=1, minimum_fraction=0.0)))
        return runtime.perform(Commit(n, None, {}))

    whole = begun(devices)
    usages = [step(whole, n).usage for n in range(8)]
    for cut in (1, 4):
        first = begun(devices)
        for n in range(cut):
            step(first, n)
        again = begun(devices)
        again.restore(unpack(pack(first.snapshot())))
        again.memory.restore([first.snapshot()])
        assert [step(again, n).usage for n in range(cut, 8)] == usages[cut:]
