"""When things are written, and what an interrupt leaves."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from hanse.core import InvalidInput, StoreError
from hanse.core.exchange import Checkpoint, Entry, Record, Sampled, Usage
from hanse.store import Runs, RunStore
from hanse.store import run as run_module
from hanse.store.rows import RunRows


def save(store: RunStore, number: int) -> None:
    store.save(Checkpoint(number, {"w": np.full(3, number)}, None), Record(number, {}, Usage(), 0.0), {})


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s, self.tick_s = 100.0, 0.0

    def monotonic(self) -> float:
        self.now_s += self.tick_s
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_module, "time", clock)
    return clock


def test_zero_means_at_once(runs: Runs) -> None:
    run = runs.begin({}, {})
    with runs.open(run, flush_every_s=0.0) as store:
        for number in range(3):
            save(store, number)
            assert len(runs.records(run)) == number + 1
        store.append(Entry("", Sampled((), 0), None))
        store._sound = False  # nothing is written any more
    with runs.open(run) as store:
        assert len(store.journal()) == 1
    with store._rows._database.connect(durable=True) as connection:
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2


def test_otherwise_after_so_many_seconds(runs: Runs, clock: Clock) -> None:
    run = runs.begin({}, {})
    with runs.open(run, flush_every_s=0.5) as store:
        for number, after_s, written in [(1, 0, 0), (2, 0.4, 0), (3, 0.6, 3), (4, 1.0, 3), (5, 1.2, 5)]:
            clock.now_s = 100 + after_s
            save(store, number)
            assert len(runs.records(run)) == written
        clock.now_s += 0.3
        store.append(Entry("", Sampled((), 0), None))
        save(store, 6)
        assert len(runs.records(run)) == 5
        store.flush()
        assert len(runs.records(run)) == 6
        save(store, 7)
    assert len(runs.records(run)) == 7


def test_the_journal_is_written_when_a_round_takes_long(runs: Runs, clock: Clock) -> None:
    run = runs.begin({}, {})
    with runs.open(run, flush_every_s=0.5) as store:
        for step in range(3):
            clock.now_s += 0.6
            store.append(Entry(str(step), Sampled((), 0), None))
            assert not store._unwritten


def test_what_takes_long_to_write_is_written_less_often(runs: Runs, clock: Clock) -> None:
    with runs.open(runs.begin({}, {}), flush_every_s=0.5) as store:
        save(store, 1)
        clock.tick_s = 2.0  # the time between two looks at the clock, so also that of the flush
        store.flush()
        clock.tick_s = 0.0
        assert store._due_s - clock.now_s == pytest.approx(2.0 / run_module.MAX_SHARE)


def test_an_interrupt_between_the_lines_of_a_save_saves_nothing(runs: Runs) -> None:
    class Memories(Mapping[Any, Any]):
        def __getitem__(self, party: Any) -> Any:
            raise KeyboardInterrupt

        def __iter__(self) -> Iterator[Any]:
            return iter([0])

        def __len__(self) -> int:
            return 1

    def perform(run: str) -> None:
        with runs.open(run) as store:
            save(store, 1)
            store.flush()
            save(store, 2)
            store.save(Checkpoint(3, None, None), Record(3, {}, Usage(), 0.0), Memories())

    run = runs.begin({}, {})
    with pytest.raises(KeyboardInterrupt):
        perform(run)
    assert [record.round for record in runs.records(run)] == [1]
    with runs.open(run) as store:
        assert store.checkpoint().round == 1


@pytest.mark.parametrize("committed", [True, False])
def test_an_interrupt_in_a_write_leaves_it_whole(
    runs: Runs, rows_of: Any, committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RunRows.write

    def cut(rows: RunRows, what: Any) -> None:
        if committed:
            write(rows, what)
        raise KeyboardInterrupt

    run = runs.begin({}, {})
    store = runs.open(run)
    save(store, 1)
    store.flush()
    save(store, 2)
    monkeypatch.setattr(RunRows, "write", cut)
    with pytest.raises(KeyboardInterrupt):
        store.flush()
    monkeypatch.undo()
    with pytest.raises(StoreError, match="was cut short; close it, and open it again"):
        save(store, 3)
    store.close()
    with runs.open(run) as store:
        assert store.checkpoint().round == len(runs.records(run)) == (2 if committed else 1)
        save(store, 3)
    rows_of(runs, run).check_objects()


def test_a_call_that_must_write_and_can_not_does_nothing(runs: Runs, rows_of: Any) -> None:
    run = runs.begin({}, {})
    with runs.open(run, flush_every_s=0.0) as store:
        save(store, 1)
        with pytest.raises(InvalidInput, match=r"is a builtins\.object"):
            store.append(Entry("1", Sampled((), 0), object()))
        with pytest.raises(InvalidInput, match=r"is a builtins\.object"):
            store.save(Checkpoint(2, object(), None), Record(2, {}, Usage(), 0.0), {0: {"n": 2}})
        assert store.journal() == ()
        assert store.memory(0) == {}
        store.append(Entry("2", Sampled((), 0), None))
        assert [entry.digest for entry in store.journal()] == ["2"]
    assert len(runs.records(run)) == 1
    rows_of(runs, run).check_objects()


def test_a_write_that_fails_can_be_tried_again(runs: Runs, rows_of: Any) -> None:
    run = runs.begin({}, {})
    with runs.open(run, flush_every_s=3600.0) as store:
        save(store, 1)
        store.flush()
        connection = store._rows._connection
        size = connection.exec_driver_sql("pragma page_count").scalar()
        connection.exec_driver_sql(f"pragma max_page_count={size}")
        connection.rollback()
        store.save(Checkpoint(2, np.zeros(100_000), None), Record(2, {}, Usage(), 0.0), {0: {"n": 2}})
        with pytest.raises(StoreError, match="no space is left there: free some, then resume"):
            store.flush()
        assert [record.round for record in runs.records(run)] == [1]
        assert store.checkpoint().round == 2
        connection.exec_driver_sql("pragma max_page_count=1000000")
        connection.rollback()
        store.append(Entry("", Sampled((), 0), None))
    assert [record.round for record in runs.records(run)] == [1, 2]
    rows_of(runs, run).check_objects()


def test_closing_does_not_hide_why(runs: Runs) -> None:
    def perform() -> None:
        with runs.open(runs.begin({}, {})) as store:
            save(store, 1)
            store._rows._connection.exec_driver_sql("pragma query_only=1")
            store._rows._connection.rollback()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        perform()
    (note,) = caught.value.__notes__
    assert "while the run was closed: the store" in note
    assert "it is read-only" in note
