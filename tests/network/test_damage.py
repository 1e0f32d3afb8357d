"""Damaged uploads: a message that differs from its SHA-256 is asked again, and one that is lost, too."""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from federation import CASES, NUM_CLIENTS, federation, job, simulated

from hanse.network.protocol.uploads import Spool
from hanse.network.server.runtime import MAX_DAMAGED

SCAFFOLD = CASES["scaffold"]
FOLDERS = ("spool", "objects", "own", "plans")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # a bit of a number: the message is as well-formed as before
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "deleted": lambda path: path.unlink(),
}


class BadDisk:
    """Damages the first messages that a server acknowledges, or those of one ticket."""

    def __init__(
        self, patch: pytest.MonkeyPatch, damage: Callable[[Path], None], most: int, only: int = 0
    ) -> None:
        self.damaged: list[Path] = []
        finish, lock = Spool.finish, threading.Lock()

        def finish_and_damage(spool: Spool, ticket: int, sha256: str, size: int) -> bool:
            durable = finish(spool, ticket, sha256, size)
            path = spool._folder / f"{ticket}.{sha256}.message"
            with lock:
                if durable and len(self.damaged) < most and only in (0, ticket) and path.exists():
                    damage(path)
                    self.damaged.append(path)
            return durable

        patch.setattr(Spool, "finish", finish_and_damage)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_message_is_asked_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = BadDisk(monkeypatch, DAMAGES[damage], 2)
    with federation(tmp_path) as here:
        run = here.lead(job(SCAFFOLD, 2))
        here.enter()
        assert here.ended(run).params_sha256 == simulated(SCAFFOLD, 2)
        assert [record.usage.dropped for record in here.records] == [0] * 3
        events = [(who, what) for _, who, what in here.server.members.events(1000)]
        named = [what for who, what in events if who == "the server's disk"]
        more = [re.search(r"\(and (\d+) more of this kind\)", what) for what in named]  # in quick succession
        assert sum(1 + int(found[1]) if found else 1 for found in more) == len(disk.damaged) == 2, (
            here.events()
        )
        for what in named:
            assert "it is asked again" in what
            assert any(f"{path} is damaged" in what for path in disk.damaged)
        clients = {member.name for member in here.server.members.all()}
        assert not [what for who, what in events if who in clients and "not counted" in what]
        left = [*tmp_path.glob("client-*/runs/*/*.message")]
        assert left == []  # clients keep their messages until they know the outcome, and no longer


def test_a_ticket_whose_messages_are_always_damaged_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = BadDisk(monkeypatch, DAMAGES["flipped"], 10**6, only=2)
    with federation(tmp_path) as here:
        run = here.lead(job(CASES["fed_avg"], 1))
        here.enter()
        assert here.end(run, status="incomplete")["rounds"] == 1
        assert len(disk.damaged) == MAX_DAMAGED + 1
        assert here.records[1].usage.counted == NUM_CLIENTS - 1
        assert "ticket 2 is not counted: the server's disk damaged its message 4 times" in here.events()


def test_foreign_files_in_a_runs_folders_are_named_and_left_alone(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.server.runs.begin(job(SCAFFOLD, 1).said, {})
        foreign = [tmp_path / "server" / "runs" / run / folder / "notes.message" for folder in FOLDERS]
        for path in foreign:
            path.parent.mkdir(parents=True)
            path.write_bytes(b"somebody's")
        (foreign[0].parent / "lost+found").mkdir()
        here.lead(job(SCAFFOLD, 1), run)
        here.enter()
        assert here.ended(run).params_sha256 == simulated(SCAFFOLD, 1)
        assert [path.read_bytes() for path in foreign] == [b"somebody's"] * 4
        (named,) = [line for line in here.events().splitlines() if "not Hanse's" in line]
        assert "5 files that are not Hanse's" in named
        assert str(foreign[0].parent) in named
