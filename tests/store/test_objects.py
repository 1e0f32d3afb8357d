"""What is written, how often, and what is left over."""

from typing import Any

import numpy as np
import pytest

from hanse.core import InvalidInput, StoreError, value, values
from hanse.core.exchange import Checkpoint, Entry, Record, Sampled, Usage
from hanse.store import Runs, RunStore, objects

RECORD = Record(1, {}, Usage(), 0.0)


@pytest.fixture
def store(runs: Runs) -> Any:
    with runs.open(runs.begin({}, {}), flush_every_s=0.0) as store:
        yield store


@pytest.fixture
def rows(runs: Runs, rows_of: Any, store: RunStore) -> Any:
    return rows_of(runs, store.run)


def save(store: RunStore, state: Any, memories: Any = None) -> None:
    store.save(Checkpoint(1, state, None), RECORD, memories or {})


def test_unchanged_tensors_are_not_written_again(store: RunStore, rows: Any) -> None:
    backbone = np.arange(1000)
    save(store, {"backbone": backbone})
    before = rows.objects()
    save(store, {"backbone": backbone.copy(), "head": np.ones(3)})
    assert before.items() < rows.objects().items()
    save(store, {"backbone": backbone, "head": np.zeros(3)})
    assert before.items() < rows.objects().items()
    assert len(rows.objects()) == 2
    rows.check_objects()


def test_the_same_array_is_not_even_hashed_again(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, packed = np.arange(1000), []
    monkeypatch.setattr(objects, "pieces", lambda array: packed.append(array.size) or pieces(array))
    save(store, {"backbone": backbone})
    store.append(Entry("", Sampled((), 0), {"backbone": backbone, "step": np.ones(3)}))
    store.append(Entry("", Sampled((), 0), {"backbone": backbone, "step": np.ones(4)}))
    save(store, {"backbone": backbone, "head": np.ones(5)})
    save(store, {"backbone": backbone.copy()})
    assert packed == [1000, 3, 4, 5, 1000]


pieces = objects.pieces


def test_what_nothing_uses_is_deleted(store: RunStore, rows: Any) -> None:
    for number in range(4):
        store.append(Entry("", Sampled((), 0), {"w": np.full(5, number)}))
        store.append(Entry("", Sampled((), 0), {"w": np.full(5, number), "v": np.full(6, number)}))
        save(store, {"w": np.full(7, number)}, {0: {"w": np.full(8, number)}, number: {"w": np.full(9, 0)}})
        rows.check_objects()
        assert len(rows.objects()) == (2 if number == 0 else 3)
    assert rows.ask("select count(*) from journal where run = :run") == [(0,)]
    assert rows.ask("select count(*) from checkpoints where run = :run") == [(1,)]


def test_equal_tensors_are_kept_once(store: RunStore, rows: Any) -> None:
    save(store, tuple(np.zeros(5) for _ in range(10)), {party: {"w": np.ones(5)} for party in range(10)})
    assert len(rows.objects()) == 2
    save(store, (np.zeros(5),), {party: {} for party in range(9)})
    assert len(rows.objects()) == 3
    save(store, None, {9: {}})
    assert len(rows.objects()) == 1
    rows.check_objects()


def test_dtypes_and_shapes_of_equal_bytes_are_kept_apart(store: RunStore, rows: Any) -> None:
    state = (np.zeros(4, "f4"), np.zeros((2, 2), "f4"), np.zeros(4, "i4"), np.zeros(2))
    save(store, state)
    read = store.checkpoint()
    assert read is not None
    assert [(a.dtype, a.shape) for a in read.state] == [(a.dtype, a.shape) for a in state]
    assert len(rows.objects()) == 4


def test_runs_do_not_share_objects(runs: Runs, store: RunStore, rows: Any) -> None:
    state = {"w": np.arange(100)}
    save(store, state)
    with runs.open(runs.begin({}, {})) as other:
        save(other, state)
        other.flush()
        save(other, None)
    assert len(rows.objects()) == 1
    rows.check_objects()


def test_large_values_are_cut_into_pieces(
    store: RunStore, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE_BYTES", 1000)
    monkeypatch.setattr(objects, "BATCH_BYTES", 3000)
    monkeypatch.setattr(objects, "BATCH_ROWS", 3)
    for number in range(3):
        large = {"w": np.arange(2000) + number, "zeros": np.zeros(1000), "small": np.arange(3)}
        memories = {party: {"w": np.arange(500) + number + party, "n": number} for party in range(10)}
        save(store, large, memories)
        rows.check_objects()
        read = store.checkpoint()
        assert read is not None
        assert all(np.array_equal(read.state[name], array) for name, array in large.items())
        for party, memory in memories.items():
            assert np.array_equal(store.memory(party)["w"], memory["w"])


def test_a_round_that_is_superseded_is_never_serialised(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(objects, "flatten", lambda obj: seen.append(obj.round) or flatten(obj))
    run = runs.begin({}, {})
    with runs.open(run, flush_every_s=3600.0) as store:
        for number in range(100):
            store.append(Entry("", Sampled((), 0), None))
            store.save(Checkpoint(number, None, None), Record(number, {}, Usage(), 0.0), {})
    assert seen == [99]
    assert [record.round for record in runs.records(run)] == list(range(100))


flatten = objects.flatten


def test_damage_is_noticed(runs: Runs, store: RunStore, rows: Any) -> None:
    save(store, {"w": np.arange(10)})
    with runs._database.begin() as connection:
        connection.exec_driver_sql("update objects set data = zeroblob(10)")
    with pytest.raises(StoreError, match=r"object [0-9a-f]{12} is damaged: restore the store from a copy"):
        store.checkpoint()
    with runs._database.begin() as connection:
        connection.exec_driver_sql("delete from objects")
    with pytest.raises(StoreError, match=r"object [0-9a-f]{12} is missing"):
        store.checkpoint()


@value
class state_with_a_list:
    items: Any


def test_a_value_of_an_unknown_class_says_so(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, state_with_a_list(()), {0: {"mine": state_with_a_list(())}})
    monkeypatch.delitem(values._CLASSES, "state_with_a_list")
    for read in (store.checkpoint, lambda: store.memory(0)):
        with pytest.raises(
            StoreError, match=r"unknown kind of value 'state_with_a_list'.*import what defines"
        ):
            read()


def test_what_is_no_value_is_refused_when_it_is_written(runs: Runs, rows_of: Any) -> None:
    run = runs.begin({}, {})
    store = runs.open(run)
    save(store, {"w": np.zeros(3)})
    store.flush()
    save(store, state_with_a_list([1]))
    with pytest.raises(InvalidInput, match=r"state/items is a builtins\.list"):
        store.flush()
    with pytest.raises(InvalidInput, match=r"state/items is a builtins\.list"):
        store.close()
    assert len(runs.records(run)) == 1
    rows_of(runs, run).check_objects()


def test_only_numbers_and_words_are_parties(store: RunStore) -> None:
    with pytest.raises(InvalidInput, match="True is a bool; a party is a number or a word"):
        save(store, None, {True: {}})
    assert store.memory(1) == {}
