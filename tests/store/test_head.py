"""A store that is older than the head of its run, or that lost the end of its log, is noticed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hanse.core import StoreError
from hanse.core.exchange import Checkpoint, Entry, Record, Sampled, Usage
from hanse.store import Runs, RunStore
from hanse.store.head import SLOT_BYTES


def append(store: RunStore, round: int, step: int, cohort: int = 9) -> None:
    store.append(Entry(f"{round}/{step}", Sampled((round, step), cohort), {"w": np.full(50, round)}))


def save(store: RunStore, round: int, value: float = 0.0) -> None:
    state = {"w": np.full(400, round + value)}
    store.save(Checkpoint(round, state, None), Record(round, {}, Usage(), 0.0), {})


class Served:
    """A run whose store is written as a server does, and copies of its database at moments."""

    def __init__(self, folder: Path) -> None:
        self.path, self.head = folder / "runs.db", folder / "head"
        self.runs = Runs(self.path)
        self.run = self.runs.begin({}, {})

    def open(self) -> RunStore:
        return self.runs.open(self.run, flush_every_s=0, head=self.head)

    def copy(self) -> bytes:
        """The whole database, with what is in its log."""
        with closing(sqlite3.connect(self.path)) as here:
            return here.serialize()

    def restore(self, copy: bytes) -> None:
        for log in self.path.parent.glob("runs.db-*"):
            log.unlink()
        self.path.write_bytes(copy)

    def check(self) -> None:
        Runs(self.path).check(self.run, self.head)

    def refused(self) -> str:
        before, head = self.copy(), self.head.read_bytes()
        with pytest.raises(StoreError) as caught:
            self.check()
        assert (self.copy(), self.head.read_bytes()) == (before, head)
        return str(caught.value)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def test_an_intact_store_is_as_far_as_its_head_at_every_step(served: Served) -> None:
    served.check()
    with served.open() as store:
        served.check()
        for round in range(4):
            for step in range(3):
                append(store, round, step)
                served.check()
            save(store, round)
            served.check()
    served.check()
    with served.open() as store:
        append(store, 4, 0)
    served.check()


def test_a_copy_from_an_earlier_round_is_older(served: Served) -> None:
    with served.open() as store:
        for round in range(6):
            save(store, round)
            if round == 2:
                copy = served.copy()
    newest = served.copy()
    served.restore(copy)
    said = served.refused()
    assert f"of run {served.run}, rounds 3 to 5 are missing" in said
    assert str(served.path) in said
    assert "Put the newer store back" in said
    assert "--fresh" in said
    served.restore(newest)
    served.check()


def test_a_copy_from_the_round_before_is_older(served: Served) -> None:
    with served.open() as store:
        save(store, 0)
        copy = served.copy()
        save(store, 1)
    served.restore(copy)
    assert "round 1 is missing" in served.refused()


def test_a_log_that_lost_its_end_in_the_middle_of_a_round_is_noticed(served: Served) -> None:
    with served.open() as store:
        save(store, 0)
        append(store, 1, 0)
        copy = served.copy()
        append(store, 1, 1)
        append(store, 1, 2)
    served.restore(copy)
    assert "of round 1, 2 of 3 events that were written are missing" in served.refused()


@pytest.mark.parametrize("where", ["journal", "checkpoint"])
def test_a_store_with_another_history_is_noticed(where: str, served: Served) -> None:
    begun = served.copy()
    with served.open() as store:
        save(store, 0, value=0.5 if where == "checkpoint" else 0.0)
        append(store, 1, 0, cohort=8 if where == "journal" else 9)
    head = served.head.read_bytes()
    served.restore(begun)
    with served.open() as store:
        save(store, 0)
        append(store, 1, 0)
    served.head.write_bytes(head)
    assert "its last round, 0, is not the one that was written last" in served.refused()


def test_a_store_that_is_ahead_of_its_head_is_whole(served: Served) -> None:
    """A process may end after it has written its store, and before it writes the head."""
    with served.open() as store:
        save(store, 0)
        head = served.head.read_bytes()
        append(store, 1, 0)
        served.head.write_bytes(head)
        served.check()
        save(store, 1)
        served.head.write_bytes(head)
    served.check()
    served.head.unlink()
    served.check()


@pytest.mark.parametrize("slot", [0, 1])
def test_a_torn_write_of_the_head_leaves_the_position_before(slot: int, served: Served) -> None:
    with served.open() as store:
        save(store, 0)
        copy = served.copy()
        for round in (1, 2):
            save(store, round)
    data = bytearray(served.head.read_bytes())
    data[slot * SLOT_BYTES + 70] ^= 1
    served.head.write_bytes(data)
    served.check()
    served.restore(copy)
    assert "missing" in served.refused()


def test_a_store_that_does_not_know_the_run_at_all(served: Served, tmp_path: Path) -> None:
    heads = [tmp_path / "runs" / name / "head" for name in (served.run, "abc")]
    served.runs.check_known(heads[:1])
    with pytest.raises(StoreError, match="of run abc, everything is missing"):
        served.runs.check_known(heads)
