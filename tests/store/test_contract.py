"""What every `Store` promises."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hanse.core import Key, Keys
from hanse.core.exchange import Checkpoint, Dispatched, Entry, InMemory, Record, Sampled, Store, Usage, digest
from hanse.core.program import Drop
from hanse.store import Runs

RECORD = Record(1, {"loss": 0.5}, Usage(), 0.1)
ENTRIES = tuple(Entry(f"digest {i}", Dispatched((i,)), {"at": np.array(i)}) for i in range(4))


def test_a_new_store_is_empty(subject: Any) -> None:
    store = subject.again()
    assert store.checkpoint() is None
    assert store.journal() == ()
    assert store.memory(0) == {}
    assert store.memory("server") == {}


def test_a_checkpoint_comes_back(subject: Any) -> None:
    saved = Checkpoint(7, {"w": np.arange(6.0).reshape(2, 3)}, Keys.from_seed(1))
    subject.store.save(saved, RECORD, {})
    read = subject.again().checkpoint()
    assert digest(read) == digest(saved)
    assert type(read) is Checkpoint


def test_only_the_last_checkpoint_counts(subject: Any) -> None:
    for number in range(5):
        subject.store.save(Checkpoint(number, {"w": np.full(3, number)}, None), RECORD, {})
    read = subject.again().checkpoint()
    assert (read.round, read.state["w"].tolist()) == (4, [4, 4, 4])


def test_the_journal_comes_back_in_order(subject: Any) -> None:
    for entry in ENTRIES:
        subject.store.append(entry)
    assert digest(subject.again().journal()) == digest(ENTRIES)


def test_a_journal_goes_on_where_it_was(subject: Any) -> None:
    subject.store.save(Checkpoint(1, None, None), RECORD, {})
    for entry in ENTRIES:
        subject.store.append(entry)
        assert digest(subject.again().journal()[-1]) == digest(entry)
    assert digest(subject.again().journal()) == digest(ENTRIES)


def test_saving_empties_the_journal(subject: Any) -> None:
    subject.store.append(ENTRIES[0])
    subject.again().append(ENTRIES[1])
    subject.again().save(Checkpoint(1, None, None), RECORD, {})
    assert subject.again().journal() == ()
    subject.store.append(ENTRIES[2])
    assert digest(subject.again().journal()) == digest(ENTRIES[2:3])


def test_memories_come_back(subject: Any) -> None:
    subject.store.save(Checkpoint(1, None, None), RECORD, {0: {"n": 1}, 5: {"w": np.ones(2)}})
    subject.again().save(Checkpoint(2, None, None), RECORD, {0: {"n": 2}, 6: {}})
    store = subject.again()
    assert store.memory(0) == {"n": 2}
    assert store.memory(5)["w"].tolist() == [1, 1]
    assert store.memory(6) == store.memory(7) == {}


def test_a_number_and_a_word_are_two_parties(subject: Any) -> None:
    memories = {3: {"who": "client 3"}, "3": {"who": "the role 3"}, "server": {"who": "the server"}}
    subject.store.save(Checkpoint(1, None, None), RECORD, memories)
    store = subject.again()
    assert {party: store.memory(party) for party in memories} == memories
    assert store.memory('"3"') == {}


def test_what_is_read_can_not_be_written_to(subject: Any) -> None:
    subject.store.append(Entry("", Dispatched(()), {"w": np.zeros(2)}))
    subject.store.save(Checkpoint(1, {"w": np.zeros(2)}, None), RECORD, {0: {"w": np.zeros(2)}})
    store = subject.again()
    for array in (store.checkpoint().state["w"], store.memory(0)["w"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_reading_does_not_depend_on_when_it_was_written(subject: Any) -> None:
    """Scalars of NumPy come back as arrays, lists of pairs as mappings: also from the buffer."""
    subject.store.save(Checkpoint(1, np.float32(1.5), {1: "one"}), RECORD, {0: {"n": np.int64(3)}})
    store = subject.again()
    assert isinstance(store.checkpoint().state, np.ndarray)
    assert store.checkpoint().runtime == {1: "one"}
    assert isinstance(store.memory(0)["n"], np.ndarray)


TENSORS = st.sampled_from(
    ["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex64"]
).flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, min_side=0, max_side=3)))
WORDS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | TENSORS
    | st.builds(Key.from_seed, st.integers())
    | st.builds(Drop, st.integers(), st.integers() | WORDS, WORDS)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(WORDS, inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(state=VALUES, runtime=VALUES, memory=st.dictionaries(WORDS, VALUES, max_size=3))
def test_any_value_comes_back(common_runs: Runs, state: Any, runtime: Any, memory: Any) -> None:
    run = common_runs.begin({}, {})
    checkpoint, entry = Checkpoint(1, state, runtime), Entry("", Sampled((), 0), runtime)
    with common_runs.open(run, flush_every_s=3600.0) as store:
        store.save(checkpoint, RECORD, {0: memory})
        store.append(entry)
        buffered = store.checkpoint(), store.memory(0), store.journal()
        store.flush()
        written = store.checkpoint(), store.memory(0), store.journal()
    expected = digest((checkpoint, memory, (entry,)))
    assert digest(buffered) == expected
    assert digest(written) == expected


POOL = [np.arange(8) * i for i in range(4)]
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["append", "save", "save", "flush", "reopen"]),
        st.lists(st.integers(0, 3), max_size=3),
        st.dictionaries(st.sampled_from([0, 1, "0"]), st.integers(0, 3), max_size=2),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(calls=CALLS)
def test_any_sequence_of_calls_ends_like_the_store_in_memory(
    common_runs: Runs, rows_of: Any, calls: Any
) -> None:
    run, expected = common_runs.begin({}, {}), InMemory()
    store = common_runs.open(run, flush_every_s=3600.0)
    for at, (call, tensors, memories) in enumerate(calls):
        if call == "flush":
            store.flush()
        elif call == "reopen":
            store.close()
            store = common_runs.open(run, flush_every_s=3600.0)
        state = tuple(POOL[i] for i in tensors)
        for either in (expected, store):
            if call == "append":
                either.append(Entry(str(at), Sampled((), at), state))
            if call == "save":
                record = Record(at, {"at": at}, Usage(counted=at), 0.5)
                kept = {party: {"w": POOL[i]} for party, i in memories.items()}
                either.save(Checkpoint(at, state, None), record, kept)
    assert _all_of(store) == _all_of(expected)
    store.close()
    assert common_runs.records(run) == tuple(expected.records)
    with common_runs.open(run) as store:
        assert _all_of(store) == _all_of(expected)
    rows_of(common_runs, run).check_objects()


def _all_of(store: Store) -> str:
    return digest((store.checkpoint(), store.journal(), *(store.memory(party) for party in (0, 1, "0", "1"))))
