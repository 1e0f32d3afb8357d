import asyncio
from dataclasses import replace

import numpy as np
import pytest
from support import Crash, Fragile

from hanse.core.errors import HanseError, ReplayError
from hanse.core.exchange.changes import Changes
from hanse.core.exchange.runtime import Checkpoint, Entry, InMemory, Led, Record, Runtime, drive
from hanse.core.keys import Key
from hanse.core.program import Collected, Commit, Committed, Sampled, commit, sample
from hanse.core.usage import Usage
from hanse.core.values import digest, value
from hanse.testing import AsyncRuntime, adrive

KEY = Key.from_seed(1)


@value
class tallied:
    """A program's state."""

    total: int = 0


class Answers:
    """Answers the n-th Sample with a cohort of n; notes what was performed."""

    def __init__(self):
        self.num, self.performed = 0, []

    def snapshot(self):
        return self.num

    def restore(self, snapshot, changes=()):
        self.num = snapshot

    def _perform(self, command):
        self.performed.append(command)
        if isinstance(command, Commit):
            return Committed(Usage(counted=self.num), {self.num: {"n": np.array(self.num)}})
        self.num += 1
        return Sampled((self.num,), 10)


class Now(Answers, Runtime):
    perform = Answers._perform


class Later(Answers, AsyncRuntime):
    async def perform(self, command):
        await asyncio.sleep(0)
        return self._perform(command)


def tallying(store=None, rounds=3, exchanges=2, salt="x"):
    """Adds up what it is answered; each round is some exchanges and a Commit."""
    saved = store.checkpoint() if store else None
    number, state = (saved.round, saved.state) if saved else (0, tallied())
    while number < rounds:
        number += 1
        for exchange in range(exchanges):
            got = yield from sample(KEY.fold_in(salt, number, exchange, state.total), count=1)
            state = tallied(state.total + 10**exchange * got.cohort[0])
        yield from commit(number, state, {"total": float(state.total)})
    return state


def awaited(store=None, runtime=None, watch=None, **options):
    return asyncio.run(adrive(tallying(store, **options), runtime or Later(), store, watch))


def driven(store=None, runtime=None, watch=None, **options):
    return drive(tallying(store, **options), runtime or Now(), store, watch)


BOTH = pytest.mark.parametrize("lead", [driven, awaited])
UNDISTURBED = driven()


# -- leading --------------------------------------------------------------------------------------


@BOTH
def test_a_program_is_led_to_its_end(lead):
    store, seen = InMemory(), []
    assert lead(store, watch=seen.append) == UNDISTURBED == tallied(1 + 20 + 3 + 40 + 5 + 60)
    assert [record.round for record in seen] == [1, 2, 3]
    assert seen == store.records
    assert [record.metrics for record in seen] == [{"total": 21.0}, {"total": 64.0}, {"total": 129.0}]
    assert [record.usage for record in seen] == [Usage(counted=n) for n in (2, 4, 6)]
    assert all(record.seconds >= 0 and record.abandoned is None for record in seen)


@BOTH
def test_nothing_needs_to_be_kept(lead):
    seen = []
    assert lead(None, watch=seen.append) == UNDISTURBED
    assert len(seen) == 3


@BOTH
def test_a_program_that_asks_nothing_ends_at_once(lead):
    assert lead(rounds=0) == tallied()


def test_a_step_performs_one_command():
    runtime = Now()
    led = Led(tallying(), runtime)
    assert (runtime.performed, led.done) == ([], False)
    led.step()
    assert len(runtime.performed) == 1
    while not led.done:
        led.step()
    assert len(runtime.performed) == 9
    assert led.result == UNDISTURBED


# -- what is kept ---------------------------------------------------------------------------------


def test_a_round_is_saved_whole_and_empties_the_journal():
    store = InMemory()
    led = Led(tallying(store), Now(), store)
    assert (store.checkpoint(), store.journal()) == (None, ())
    led.step()
    led.step()
    assert store.checkpoint() is None
    assert [entry.event for entry in store.journal()] == [Sampled((1,), 10), Sampled((2,), 10)]
    assert [entry.runtime for entry in store.journal()] == [1, 2]
    led.step()
    assert store.journal() == ()
    assert store.checkpoint() == Checkpoint(1, tallied(21), 2)
    assert store.memory(2) == {"n": np.array(2)}
    assert store.memory(1) == {}


class Spends(Answers, Runtime):
    def perform(self, command):
        event = self._perform(command)
        if isinstance(command, Commit):
            return replace(event, execution="2 workers", spent={"compute": 0.123456789, "data": 2e-9})
        return event


@pytest.mark.parametrize("store", [None, InMemory()], ids=["nothing is kept", "kept"])
def test_a_record_says_how_clients_were_computed_and_where_time_went(store):
    records = []
    drive(tallying(store, rounds=2), Spends(), store, records.append)
    for record in records:
        assert record.execution == "2 workers"
        assert record.spent.keys() == {"compute", "data"} | ({"store"} if store else set())
        assert (record.spent["compute"], record.spent["data"]) == (0.1234568, 0.0)
        assert record.spent.get("store", 0.0) >= 0


def test_a_commit_is_never_journaled():
    class Watching(InMemory):
        def append(self, entry):
            assert isinstance(entry.event, Sampled)
            super().append(entry)

    assert driven(Watching()) == UNDISTURBED


def test_what_is_kept_is_a_copy():
    store, state = InMemory(), {"w": np.zeros(2)}
    store.save(Checkpoint(1, state, None), Record(1, {}, Usage(), 0.0), {3: state})
    state["w"] += 1
    assert store.checkpoint().state["w"].tolist() == [0, 0]
    assert store.memory(3)["w"].tolist() == [0, 0]


def test_an_abandoned_round_is_recorded_with_its_reason():
    def giving_up():
        yield from commit(1, tallied(), {}, "nobody came")

    store = InMemory()
    drive(giving_up(), Now(), store)
    assert [record.abandoned for record in store.records] == ["nobody came"]


# -- cuts -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("write", range(1, 10))
def test_a_run_that_was_cut_at_any_write_goes_on_as_if_nothing_had_happened(lead, write, before):
    store = Fragile(write, before=before)
    with pytest.raises(Crash):
        lead(store)
    found = Fragile.load(store.dump())
    runtime = Now() if lead is driven else Later()
    replayed = len(found.journal())
    done = found.checkpoint().round if found.checkpoint() else 0
    assert lead(found, runtime) == UNDISTURBED
    assert len(runtime.performed) == 9 - 3 * done - replayed
    assert [record.round for record in found.records] == list(range(done + 1, 4))


@BOTH
def test_a_run_may_be_cut_again_and_again(lead):
    disk, crashes = Fragile().dump(), 0
    while True:
        store = Fragile.load(disk)
        store.dies_at = 1
        try:
            assert lead(store) == UNDISTURBED
            break
        except Crash:
            disk, crashes = store.dump(), crashes + 1
    assert crashes == 9


@BOTH
def test_a_finished_run_is_not_run_again(lead):
    store, runtime = InMemory(), Now() if lead is driven else Later()
    lead(store)
    assert lead(store, runtime) == UNDISTURBED
    assert runtime.performed == []


def _cut_in_round_two(exchange):
    store = Fragile(3 + exchange)
    with pytest.raises(Crash):
        driven(store)
    return Fragile.load(store.dump())


@BOTH
def test_replay_stops_at_the_first_command_that_differs(lead):
    store, runtime = _cut_in_round_two(2), Now() if lead is driven else Later()
    with pytest.raises(ReplayError, match=r"now asks for a Sample that differs.*resume with the program"):
        lead(store, runtime, salt="y")
    assert runtime.performed == []
    assert len(store.journal()) == 2


def test_replay_answers_what_still_fits_and_stops_then():
    store, runtime = _cut_in_round_two(2), Now()
    first, second = store.journal()
    store._journal.clear()
    for entry in (first, Entry(digest("another"), second.event, second.runtime)):
        store.append(entry)
    led = Led(tallying(store), runtime, store)
    led.step()
    with pytest.raises(ReplayError):
        led.step()
    assert runtime.performed == []


@BOTH
def test_a_round_that_now_ends_earlier_does_not_fit(lead):
    with pytest.raises(ReplayError, match="now asks for a Commit"):
        lead(_cut_in_round_two(2), exchanges=1)


@BOTH
def test_a_program_that_is_led_further_than_before_goes_on(lead):
    store = InMemory()
    lead(store, rounds=1)
    assert lead(store) == lead(rounds=3)


@value
class one_more(Changes):
    """What a command changes in a runtime that counts."""

    since: int


class Counts(Now):
    """Tells its changes, and notes from what it was restored."""

    def __init__(self):
        super().__init__()
        self.told, self.restored = 0, []

    def changes(self):
        since, self.told = self.told, self.num
        return one_more(since)

    def restore(self, snapshot, changes=()):
        self.restored.append((snapshot, [change.since for change in changes]))
        self.num = self.told = (snapshot or 0) + len(changes)


@pytest.mark.parametrize(
    ("write", "restored"), [(1, (None, [0])), (2, (None, [0, 1])), (3, (2, [])), (5, (2, [2, 3]))]
)
def test_a_runtime_goes_on_from_the_last_snapshot_and_the_changes_since_then(write, restored):
    store = Fragile(write)
    with pytest.raises(Crash):
        driven(store, Counts())
    runtime = Counts()
    assert driven(Fragile.load(store.dump()), runtime) == UNDISTURBED
    assert runtime.restored == [restored]


def test_a_snapshot_in_an_entry_stands_for_all_before_it():
    """Version 0.1.0 kept snapshots in entries; a run that was cut under it may be cut again now."""
    store = _cut_in_round_two(1)
    store.dies_at = 1
    with pytest.raises(Crash):
        driven(store, Counts())
    runtime = Counts()
    entries = Fragile.load(store.dump()).journal()
    assert [entry.runtime for entry in entries] == [3, one_more(3)]
    assert driven(Fragile.load(store.dump()), runtime) == UNDISTURBED
    assert runtime.restored == [(3, [3])]


# -- errors ---------------------------------------------------------------------------------------


class Breaks(Now):
    def perform(self, command):
        if self.num == 3:
            raise HanseError("the link is down")
        return super().perform(command)


class BreaksLater(Later):
    async def perform(self, command):
        if self.num == 3:
            raise HanseError("the link is down")
        return await super().perform(command)


@pytest.mark.parametrize(("lead", "runtime"), [(driven, Breaks), (awaited, BreaksLater)])
def test_what_a_runtime_raises_ends_the_run_and_is_not_journaled(lead, runtime):
    store = InMemory()
    with pytest.raises(HanseError, match="the link is down"):
        lead(store, runtime())
    assert len(store.journal()) == 1
    assert lead(store) == UNDISTURBED


def test_what_a_program_raises_comes_out():
    def failing():
        yield from sample(KEY, count=1)
        raise HanseError("diverged")

    store = InMemory()
    with pytest.raises(HanseError, match="diverged"):
        drive(failing(), Now(), store)
    assert len(store.journal()) == 1


def test_a_runtime_that_answers_with_the_wrong_event_is_found_out():
    class Wrong(Now):
        def perform(self, command):
            return Collected({}, (), ())

    with pytest.raises(TypeError, match="Sample was answered by Collected"):
        driven(runtime=Wrong())
