from dataclasses import replace

import numpy as np
import pytest
from support import KEYS, Few, Quadratic, simulation

from hanse.core import (
    Algorithm,
    Close,
    Discount,
    Diverged,
    HanseError,
    Key,
    Part,
    PartSpec,
    Spec,
    TensorSpec,
    Work,
    gather,
    sample,
    stack,
    value,
)
from hanse.core.exchange import (
    Collect,
    Command,
    Commit,
    Dispatch,
    InMemory,
    ModelState,
    NotReady,
    PartyMemory,
    Progress,
    Sample,
    Usage,
    digest,
    drive,
    pack,
    training,
    unpack,
)
from hanse.core.program import Drop
from hanse.simulation import Devices, InProcess, Simulation, heavy_tailed, unstable

KEY = Key.from_seed(1)
VISITS = PartSpec(Spec({"n": TensorSpec((2,), "float64")}), into=stack())


@value
class visit(Work):
    """Counts, in memory, how often a client was visited; emits its size and the count. Some send nonsense."""

    bad: tuple[int, ...] = ()
    fails: tuple[int, ...] = ()
    early: bool = False

    def run(self, learner, shared, data, memory, keys):
        if len(data) in self.fails:
            raise ZeroDivisionError("broken data")
        if self.early and "n" not in memory:
            raise NotReady("nobody was here yet")
        n = memory.get("n", 0) + 1
        emitted = np.array([np.nan if len(data) in self.bad else len(data), n], float)
        return {"n": Part({"n": emitted}, float(n))}, {**memory, "n": n, "~n": n}


@value
class timetable(Devices):
    """Seconds by client, in turn for each ticket; None where it drops out."""

    seconds: tuple

    def duration_s(self, party, key):
        return self.seconds[party] if isinstance(party, int) else 0.5


def size(client):
    return 5 + 3 * client


def dispatched(runtime, *cohort, work=visit(), key=KEY):
    return runtime.perform(Dispatch(work, cohort, {}, {"n": VISITS}, key)).tickets


def collected(runtime, tickets, **close):
    return runtime.perform(Collect(tickets, Close(**{"minimum_fraction": 0.0, **close})))


def committed(runtime, abandoned=None):
    return runtime.perform(Commit(1, None, {}, abandoned))


def clock(runtime):
    return runtime.snapshot().clock_s


def reasons(got):
    return {drop.party: drop.reason for drop in got.dropped}


STAGGERED = timetable((1.0, 2.0, 3.0, 4.0, 5.0, None))
EVERYBODY = range(6)


# -- when a round closes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("close", "counted", "late", "closes_s"),
    [
        ({}, (0, 1, 2, 3, 4), (), 5.0),
        ({"goal": 1}, (0,), (1, 2, 3, 4), 1.0),
        ({"goal": 3}, (0, 1, 2), (3, 4), 3.0),
        ({"goal": 5}, (0, 1, 2, 3, 4), (), 5.0),
        ({"goal": 9}, (0, 1, 2, 3, 4), (), 5.0),
        ({"deadline_s": 3.0}, (0, 1, 2), (3, 4), 3.0),
        ({"deadline_s": 3.5}, (0, 1, 2), (3, 4), 3.5),
        ({"deadline_s": 0.5}, (), (0, 1, 2, 3, 4), 0.5),
        ({"deadline_s": 99.0}, (0, 1, 2, 3, 4), (), 99.0),
        ({"deadline_s": 3.5, "goal": 2}, (0, 1), (2, 3, 4), 2.0),
        ({"deadline_s": 3.5, "goal": 4}, (0, 1, 2), (3, 4), 3.5),
        ({"deadline_s": float("inf")}, (0, 1, 2, 3, 4), (), 5.0),
    ],
    ids=str,
)
def test_a_named_collect_closes_all_its_tickets(close, counted, late, closes_s):
    """The last client drops out; the server can't know, and waits for it until the deadline, if any."""
    runtime = simulation(devices=STAGGERED)
    got = collected(runtime, dispatched(runtime, *EVERYBODY), **close)
    assert got.parties == counted
    assert reasons(got) == dict.fromkeys(late, "it was too late") | {5: "it dropped out"}
    assert clock(runtime) == (closes_s if counted or got.abandoned else None)
    if counted:
        np.testing.assert_array_equal(got["n"].values["n"][:, 0], [size(client) for client in counted])
    else:
        assert got.abandoned.startswith("0 of 6")


def test_a_round_ends_before_its_deadline_where_nobody_is_left_to_wait_for():
    runtime = simulation(devices=STAGGERED)
    assert collected(runtime, dispatched(runtime, 0, 1, 2), deadline_s=99.0).parties == (0, 1, 2)
    assert clock(runtime) == 3.0


def test_a_goal_that_is_reached_closes_the_round_whoever_else_is_awaited():
    runtime = simulation(devices=STAGGERED)
    collected(runtime, dispatched(runtime, *EVERYBODY), goal=5, deadline_s=99.0)
    assert clock(runtime) == 5.0


def test_a_goal_that_is_not_reached_is_awaited_until_the_deadline():
    runtime = simulation(devices=timetable((1.0, 2.0, 50.0)))
    tickets = dispatched(runtime, 0, 1, 2, work=visit(bad=(size(1), size(2))))
    assert collected(runtime, tickets, goal=2, deadline_s=99.0).parties == (0,)
    assert clock(runtime) >= 50.0


def test_the_fastest_count_and_ties_are_broken_by_ticket():
    runtime = simulation(devices=timetable((5.0, 1.0, 3.0, 1.0, 1.0, 9.0)))
    assert collected(runtime, dispatched(runtime, 5, 4, 0, 3, 1, 2), goal=2).parties == (4, 3)


def test_what_is_folded_stands_in_the_order_of_the_cohort_whoever_was_first():
    runtime = simulation(devices=timetable((5.0, 1.0, 3.0, 2.0, 4.0, 9.0)))
    got = collected(runtime, dispatched(runtime, 0, 2, 1, 5, 3, 4), goal=4)
    assert got.parties == (2, 1, 3, 4)
    assert got["n"].values["n"][:, 0].tolist() == [size(client) for client in (2, 1, 3, 4)]


def test_too_few_abandon_the_round():
    runtime = simulation(devices=STAGGERED)
    got = collected(runtime, dispatched(runtime, *EVERYBODY), deadline_s=2.5, minimum_fraction=0.5)
    assert got.abandoned.startswith("2 of 6 contributions were counted, 3 are needed")
    assert committed(runtime, got.abandoned).usage.dropped == 6
    assert got.counted == ()


def test_who_is_late_is_not_even_computed():
    asked = []

    class Lazy(Few):
        def client(self, number):
            asked.append(number)
            return super().client(number)

    runtime = simulation(devices=STAGGERED, population=Lazy())
    collected(runtime, dispatched(runtime, *EVERYBODY), goal=2)
    assert asked == [0, 1]


# -- asynchrony -----------------------------------------------------------------------------------


def test_a_collect_that_names_none_takes_the_first_and_leaves_the_rest_in_flight():
    runtime = simulation(devices=STAGGERED)
    dispatched(runtime, *EVERYBODY)
    got = collected(runtime, None, goal=2)
    assert (got.parties, clock(runtime)) == ((0, 1), 2.0)
    assert reasons(got) == {5: "it dropped out"}
    assert sorted(runtime.perform(Sample(KEY, fraction=1.0)).cohort) == [0, 1, 5]
    dispatched(runtime, 0)
    got = collected(runtime, None, goal=2)
    assert (got.parties, clock(runtime)) == ((2, 0), 3.0)
    got = collected(runtime, None)
    assert (got.parties, clock(runtime)) == ((3, 4), 5.0)
    assert collected(runtime, None, goal=3).parties == ()
    assert clock(runtime) == 5.0


def test_who_arrived_while_the_server_was_busy_counts_at_once():
    runtime = simulation(devices=timetable((1.0, 10.0)))
    slow = dispatched(runtime, 1)
    quick = dispatched(runtime, 0)
    collected(runtime, slow)
    assert clock(runtime) == 10.0
    assert collected(runtime, quick).parties == (0,)
    assert clock(runtime) == 10.0


def test_a_ticket_begins_when_it_is_given_out_however_long_ago_the_one_before_it_was_done():
    runtime = simulation(devices=timetable((1.0, 10.0)))
    slow, done = dispatched(runtime, 1), dispatched(runtime, 0)
    collected(runtime, slow)
    assert clock(runtime) == 10.0
    next_one = dispatched(runtime, 0)  # goes on from a ticket that was done at 1 s and is still open
    assert runtime.coordinator.task(next_one[0]).after == done[0]
    assert collected(runtime, done + next_one).parties == (0, 0)
    assert clock(runtime) == 11.0


def test_a_deadline_counts_from_when_it_is_set():
    runtime = simulation(devices=STAGGERED)
    dispatched(runtime, *EVERYBODY)
    assert collected(runtime, None, deadline_s=1.5).parties == (0,)
    assert clock(runtime) == 1.5
    assert collected(runtime, None, deadline_s=1.5).parties == (1, 2)
    assert clock(runtime) == 3.0


def test_staleness_is_that_of_the_dispatch():
    runtime = simulation()
    command = Dispatch(visit(), (0,), {}, {"n": VISITS}, KEY, 3)
    runtime.perform(command)
    got = runtime.perform(Collect(version=6, discount=Discount(0.5)))
    assert got["n"].weight == 0.5


# -- the clock ------------------------------------------------------------------------------------


def test_rounds_take_the_time_of_the_last_that_was_awaited():
    runtime = simulation(devices=STAGGERED)
    assert committed(runtime).usage.virtual_s == 0.0
    for slowest in (1, 4):
        collected(runtime, dispatched(runtime, 0, slowest))
        collected(runtime, dispatched(runtime, "server"))
        assert committed(runtime).usage.virtual_s == slowest + 1.0  # a role takes no time
    assert clock(runtime) == 2.0 + 5.0


def test_ideal_devices_take_a_second_an_exchange():
    runtime = simulation()
    collected(runtime, dispatched(runtime, *EVERYBODY))
    assert committed(runtime).usage.virtual_s == 1.0


def test_a_ticket_takes_as_long_as_its_key_says():
    devices = unstable(0.3, heavy_tailed())
    runtime = simulation(devices=devices)
    dispatched(runtime, *EVERYBODY)
    expected = [devices.duration_s(p, KEY.fold_in("party", p).fold_in("device")) for p in EVERYBODY]
    assert list(runtime.snapshot().due_s.values()) == expected


# -- messages that can't be taken -----------------------------------------------------------------


def test_who_sends_nonsense_is_refused_by_name_and_the_round_goes_on():
    runtime = simulation(devices=STAGGERED)
    got = collected(runtime, dispatched(runtime, *EVERYBODY, work=visit(bad=(size(0), size(3)))))
    assert got.parties == (1, 2, 4)
    assert got.dropped[0] == Drop(0, 0, "part 'n': 'n' is not finite: 1 of its 2 values are NaN or infinite")
    assert [drop.party for drop in got.dropped] == [0, 3, 5]


@pytest.mark.parametrize("goal", [None, 2, 3])
def test_of_three_tickets_of_one_client_of_which_the_first_sends_nonsense_none_counts(goal):
    """Nor do they fill a goal, although they arrive before all others."""
    runtime = simulation(devices=timetable((7.0, 1.0, 8.0, 9.0)))
    chain = dispatched(runtime, 1, work=visit(bad=(size(1),)))
    chain += dispatched(runtime, 1) + dispatched(runtime, 1)
    others = dispatched(runtime, 0, 2, 3, key=KEY.fold_in("others"))
    got = collected(runtime, chain + others, goal=goal)
    counted = (0, 2, 3)[:goal]
    assert got.parties == counted
    assert got["n"].values["n"][:, 0].tolist() == [size(k) for k in counted]
    assert [(drop.ticket, drop.reason[:29]) for drop in got.dropped[:3]] == [
        (chain[0], "part 'n': 'n' is not finite: "),
        (chain[1], "it was built on ticket 0, whi"),
        (chain[2], "it was built on ticket 1, whi"),
    ]
    assert committed(runtime).memories == {k: {"n": 1} for k in counted}


def test_a_goal_counts_only_what_can_be_taken():
    runtime = simulation(devices=STAGGERED)
    got = collected(runtime, dispatched(runtime, *EVERYBODY, work=visit(bad=(size(0), size(2)))), goal=2)
    assert got.parties == (1, 3)
    assert {p: r[:8] for p, r in reasons(got).items()} == {
        0: "part 'n'",
        2: "part 'n'",
        4: "it was t",
        5: "it dropp",
    }
    assert clock(runtime) == 4.0


def test_nonsense_leaves_no_trace_in_memory():
    runtime = simulation()
    collected(runtime, dispatched(runtime, 0, 1, work=visit(bad=(size(0),))))
    assert committed(runtime).memories == {1: {"n": 1}}


@value
class fussy(Algorithm):
    """Abandons a round in which anybody is missing; clients of these sizes send NaN."""

    bad: tuple[int, ...]

    def init(self, params, key):
        return ModelState(params)

    def round(self, state, key):
        everybody = yield from sample(key, fraction=1.0)
        whole = Close(minimum_fraction=1.0)
        yield from gather(visit(bad=self.bad), everybody.cohort, {}, key, close=whole, n=VISITS)
        return state


def _fussy_run(*bad):
    store, algorithm = InMemory(), fussy(tuple(map(size, bad)))
    begin = Progress(0, ModelState({"w": np.zeros(1)}))
    drive(training(algorithm, begin, KEY, rounds=2), simulation(store), store)
    return [record.abandoned for record in store.records]


def test_where_everybody_sends_nonsense_the_run_ends():
    with pytest.raises(Diverged, match="not finite"):
        _fussy_run(*EVERYBODY)


def test_where_one_client_sends_nonsense_the_run_goes_on():
    assert all("5 of 6" in abandoned for abandoned in _fussy_run(3))


# -- memory ---------------------------------------------------------------------------------------


def test_memory_is_kept_where_it_counted():
    runtime = simulation(devices=STAGGERED)
    collected(runtime, dispatched(runtime, *EVERYBODY), goal=3)
    assert committed(runtime).memories == {0: {"n": 1}, 1: {"n": 1}, 2: {"n": 1}}
    collected(runtime, dispatched(runtime, *EVERYBODY), goal=1)
    assert committed(runtime).memories == {0: {"n": 2}}
    got = collected(runtime, dispatched(runtime, 0, 1, 3))
    assert got["n"].values["n"][:, 1].tolist() == [3, 2, 1]
    assert committed(runtime, "abandoned").memories == {}
    assert collected(runtime, dispatched(runtime, 0, 1, 3))["n"].values["n"][:, 1].tolist() == [3, 2, 1]


def test_within_a_round_tickets_go_on_from_each_other():
    runtime = simulation()
    for count in (1, 2, 3):
        assert collected(runtime, dispatched(runtime, 4))["n"].values["n"][0, 1] == count
    assert committed(runtime).memories == {4: {"n": 3}}


def test_a_ticket_in_flight_goes_on_from_what_was_committed_meanwhile():
    runtime = simulation()
    collected(runtime, dispatched(runtime, 4))
    later = dispatched(runtime, 4)
    assert committed(runtime).memories == {4: {"n": 1}}
    assert collected(runtime, later)["n"].values["n"][0, 1] == 2
    assert committed(runtime).memories == {4: {"n": 2}}


@pytest.mark.parametrize("first", [5.0, None])
def test_a_clients_tickets_run_in_order(first):
    @value(name="first_slow")
    class first_slow(Devices):
        """A client's later tickets take a second."""

        def duration_s(self, party, key):
            return first if key == KEY.fold_in("party", 1).fold_in("device") else 1.0

    runtime = simulation(devices=first_slow())
    slow, _, later = dispatched(runtime, 1, 2) + dispatched(runtime, 1, key=KEY.fold_in("later"))
    got = collected(runtime, runtime.coordinator.open_tickets(), goal=2)
    assert later not in got.counted or slow in got.counted
    assert not set(got.counted) & {drop.ticket for drop in got.dropped}


def test_committed_memory_is_recalled_when_it_is_first_needed():
    asked = []

    def recall(party):
        asked.append(party)
        return {"n": 10 * party}

    runtime = Simulation(InProcess(Quadratic(), Few(), KEYS), 6, KEYS, STAGGERED, PartyMemory(recall))
    for _ in range(2):
        got = collected(runtime, dispatched(runtime, *EVERYBODY), goal=3)
        committed(runtime)
    assert got["n"].values["n"][:, 1].tolist() == [2, 12, 22]
    assert len(asked) == len(set(asked))
    assert {0, 1, 2} <= set(asked)


@value
class hoard(Work):
    """Remembers more than is kept in this process."""

    def run(self, learner, shared, data, memory, keys):
        n = memory.get("n", 0) + 1
        hoard = np.broadcast_to(np.float64(0), (10_000_000,))  # 80 MB by its shape, 8 bytes in truth
        return {"n": Part({"n": np.array([len(data), n], float)})}, {"n": n, "hoard": hoard}


def test_memory_that_is_evicted_takes_no_unsettled_fork_along():
    """Of two coordinators that share clients, one ends a round while the other's tickets are not settled."""
    kept, asked = {}, []

    def recall(party):
        asked.append(party)
        return kept.get(party, {})

    backend, memory = InProcess(Quadratic(), Few(), KEYS), PartyMemory(recall)
    one, other = (Simulation(backend, 6, KEYS, memory=memory, first_ticket=first) for first in (0, 1000))
    for _ in range(3):
        collected(one, dispatched(one, 1, 2, work=hoard()))
        kept.update(committed(one).memories)
    for _ in range(2):
        collected(one, dispatched(one, 1, 2))
        collected(other, dispatched(other, 3, work=hoard()))
        kept.update(committed(other).memories)
        got = collected(one, dispatched(one, 1, 2))
        kept.update(committed(one).memories)
    assert got["n"].values["n"][:, 1].tolist() == [7, 7]
    assert [kept[k]["n"] for k in (1, 2, 3)] == [7, 7, 2]
    assert min(asked.count(k) for k in (1, 2, 3)) > 1, "their memory was evicted in between"


# -- errors ---------------------------------------------------------------------------------------


def test_an_error_says_whose_it_was():
    runtime = simulation()
    tickets = dispatched(runtime, 0, 3, work=visit(fails=(size(3),)))
    with pytest.raises(ZeroDivisionError) as raised:
        collected(runtime, tickets)
    assert raised.value.__notes__ == [f"while 3 performed {visit(fails=(size(3),))} (ticket {tickets[1]})"]


def test_a_role_that_nobody_plays_is_an_error():
    runtime = simulation()
    with pytest.raises(HanseError, match="no role 'nobody'"):
        collected(runtime, dispatched(runtime, "nobody"))


def test_a_command_that_is_unknown_is_an_error():
    class Wish(Command):
        pass

    with pytest.raises(HanseError, match="can't perform a Wish"):
        simulation().perform(Wish())


def _asked_too_early(**close):
    """One client is asked for what only a second ticket of its own provides."""
    runtime = simulation(devices=STAGGERED)
    collected(runtime, dispatched(runtime, 0, 2))
    committed(runtime)
    early = dispatched(runtime, 0, 1, 2, 5, work=visit(early=True))
    before = digest(runtime.snapshot().coordinator)
    with pytest.raises(NotReady):
        collected(runtime, early, **close)
    return runtime, early, before


def test_who_is_asked_too_early_leaves_everything_as_it_was():
    runtime, early, before = _asked_too_early()
    assert digest(runtime.snapshot().coordinator) == before
    collected(runtime, dispatched(runtime, 1))
    committed(runtime)
    got = collected(runtime, early)
    assert got.parties == (0, 1, 2)
    assert got["n"].values["n"][:, 1].tolist() == [2, 2, 2]


def test_who_is_asked_too_early_leaves_everything_as_it_was_even_with_a_goal():
    runtime, _, before = _asked_too_early(goal=2)
    assert digest(runtime.snapshot().coordinator) == before


# -- going on from a snapshot ---------------------------------------------------------------------


def _story(reopen):
    """Rounds of every kind of close, on unreliable devices; `reopen` after each command."""
    runtime, told, memories = simulation(devices=unstable(0.2, heavy_tailed())), [], {}

    def performed(command):
        nonlocal runtime
        event = runtime.perform(command)
        runtime = reopen(runtime, memories)
        told.append(digest(event))
        return event

    closes = [Close(minimum_fraction=0.0), Close(goal=2), Close(None, 1.0, 0.9)]
    for number in range(9):
        key = KEY.fold_in(number)
        cohort = performed(Sample(key, count=4)).cohort
        sent = performed(Dispatch(visit(bad=(size(2),)), cohort, {}, {"n": VISITS}, key, number))
        named = sent.tickets if number % 2 else None
        got = performed(Collect(named, closes[number % 3], number, Discount()))
        event = runtime.perform(Commit(number, None, {}, got.abandoned))
        memories.update(event.memories)
        runtime = reopen(runtime, memories)
        told.append(digest(replace(event, memories={})))
        told.append(sorted(event.memories))
    return told, memories


def test_a_simulation_that_is_restored_at_any_moment_goes_on_identically():
    def reopened(runtime, memories):
        memory = PartyMemory(lambda party: memories.get(party, {}))
        backend = InProcess(Quadratic(), Few(), KEYS)
        again = Simulation(backend, 6, KEYS, unstable(0.2, heavy_tailed()), memory)
        again.restore(unpack(pack(runtime.snapshot())))
        return again

    told, memories = _story(lambda runtime, memories: runtime)
    assert (told, memories) == _story(reopened)
    assert memories


def test_what_a_round_cost_is_counted():
    runtime = simulation(devices=STAGGERED)
    collected(runtime, dispatched(runtime, *EVERYBODY), goal=2)
    usage = committed(runtime).usage
    assert (usage.counted, usage.dropped, usage.virtual_s) == (2, 4, 2.0)
    assert 0 < usage.bytes_up < usage.bytes_down
    assert committed(runtime).usage == Usage()
