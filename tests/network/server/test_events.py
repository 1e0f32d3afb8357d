"""Events reach the register whatever other processes do to its file, and nobody waits for them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hanse.network.server.records import Events, events


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds a file as another process would that copies it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a register. Nothing is tried again before the test says so."""
    monkeypatch.setattr(events, "AGAIN_S", 3600.0)
    return tmp_path / "members.db"


def read_file(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as other:
        return [row[0] for row in other.execute("SELECT what FROM events ORDER BY position")]


def test_an_event_noted_while_another_process_writes_is_written_later(path: Path) -> None:
    with closing(Events(path)) as kept:
        with lock(path):
            kept.note("operator", "invited")
            kept.note("client 1", "failed", code="failure", source="c1")
            kept.note("client 1", "failed", code="failure", source="c1")
            assert read_file(path) == []
            expected = ["invited", "failed (and 1 more of this kind)"]
            assert [what for _, _, what in kept.read(10)] == expected
            assert [what for _, _, what in kept.read(1)] == expected[1:]
        assert [what for _, _, what in kept.read(10)] == expected
        assert read_file(path) == ["invited", "failed"]
        kept.note("client 1", "failed", code="failure", source="c1")
        assert kept.read(1)[0][2] == "failed (and 2 more of this kind)"


def test_an_event_is_tried_again_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = list[object]()

    class Timer:
        def __init__(self, wait_s: float, act: object) -> None:
            self.act = act

        def start(self) -> None:
            begun.append(self.act)

        def cancel(self) -> None: ...

    monkeypatch.setattr(events.threading, "Timer", Timer)
    with closing(Events(path)) as kept:
        with lock(path):
            kept.note("operator", "invited")
            kept.note("operator", "revoked")
            assert len(begun) == 1
            begun.pop()()  # type: ignore[operator]
            assert len(begun) == 1
        begun.pop()()  # type: ignore[operator]
        assert read_file(path) == ["invited", "revoked"]
        assert begun == []


def test_events_that_are_too_many_to_wait_are_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_WAITING", 6)
    monkeypatch.setattr(events, "MAX_WAITING_OF_ONE", 3)
    with closing(Events(path)) as kept:
        with lock(path):
            for n in range(5):
                kept.note("client 1", f"offence {n}", source="c1")
            kept.note("operator", "revoked", source="operator")
            for n in range(4):
                kept.note("run", f"round {n}", source=f"run {n}")
        lost = "lost 4 events, because its register could not be written"
        expected = ["offence 0", "offence 1", "offence 2", "revoked", "round 0", "round 1", lost]
        assert [what for _, _, what in kept.read(10)] == expected
        assert read_file(path) == expected


def test_events_wait_for_a_full_disk_and_for_the_end(path: Path) -> None:
    kept = Events(path)
    size = kept._db.execute("PRAGMA page_count").fetchone()[0]
    kept._db.execute(f"PRAGMA max_page_count={size}")  # SQLite says then that the disk is full
    for n in range(3):
        kept.note("run", f"{n}" * events.MAX_TEXT)
    kept.note("operator", "revoked")
    assert "revoked" not in read_file(path)
    kept._db.execute(f"PRAGMA max_page_count={size + 100}")
    kept.close()
    assert read_file(path)[-1] == "revoked"
    assert len(read_file(path)) == 4
