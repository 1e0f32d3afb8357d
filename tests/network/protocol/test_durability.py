"""A file is on the disk before its name says so: it is synced, then renamed, then its folder is synced."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hanse.network.client.audit import AuditLog
from hanse.network.client.home import ClientHome
from hanse.network.protocol.signing import Identity, secret_at
from hanse.network.protocol.spool import durably, hash_chunks
from hanse.network.protocol.uploads import Spool

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX systems only")
WHOLE = ("file", "rename", "folder")


class History:
    """The order in which files are synced and renamed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._steps: list[tuple[str, int, int]] = []
        sync = os.fsync

        def noted_sync(number: int) -> None:
            sync(number)
            about = os.fstat(number)
            self._steps.append(("sync", about.st_ino, about.st_size))

        patch.setattr(os, "fsync", noted_sync)
        for name in ("replace", "rename"):
            patch.setattr(Path, name, self._noted(getattr(Path, name)))
        patch.setattr(os, "link", self._noted(os.link))

    def _noted(self, move: Callable[[Path, Path], object]) -> Callable[[Path, Path], object]:
        def noted_move(path: Path, target: Path) -> object:
            self._steps.append(("rename", path.stat().st_ino, 0))
            return move(path, target)

        return noted_move

    def of(self, path: Path) -> tuple[str, ...]:
        """Returns what was done: the file was synced with all of its bytes, named, its folder synced."""
        file, folder = path.stat(), path.parent.stat()
        named = {
            ("sync", file.st_ino, file.st_size): "file",
            ("rename", file.st_ino, 0): "rename",
        }
        found = [
            "folder" if step[:2] == ("sync", folder.st_ino) else named.get(step, "") for step in self._steps
        ]
        return tuple(filter(None, found))


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> History:
    return History(monkeypatch)


def test_a_durable_file(tmp_path: Path, history: History) -> None:
    durably(tmp_path / "memory", b"old")
    durably(tmp_path / "memory", b"new one")
    assert (tmp_path / "memory").read_bytes() == b"new one"
    assert history.of(tmp_path / "memory")[-3:] == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


def test_a_message_is_acknowledged_once_it_is_on_the_disk(tmp_path: Path, history: History) -> None:
    data, spool = b"a message", Spool(tmp_path)
    name = hash_chunks([data])
    chunk = spool.writing(7, name, len(data), 0)
    chunk.write(data)
    chunk.keep(hashlib.sha256(data).digest())
    chunk.close()
    assert not spool.tickets()
    assert spool.finish(7, name, len(data))
    assert history.of(tmp_path / f"7.{name}.message")[-3:] == WHOLE
    assert spool.tickets() == {7: name}


@pytest.mark.parametrize("make", [Identity.at, secret_at], ids=["key", "secret"])
def test_a_key_is_whole_or_not_there(
    make: Callable[[Path], object], tmp_path: Path, history: History
) -> None:
    make(tmp_path / "new" / "key")
    assert history.of(tmp_path / "new" / "key")[:2] == WHOLE[:2]
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_membership_is_on_the_disk(tmp_path: Path, history: History) -> None:
    home = ClientHome(tmp_path / "client")
    home.enter({"id": "c0"})
    assert history.of(tmp_path / "client" / "membership.json")[-3:] == WHOLE


def test_a_line_of_the_audit_log_is_on_the_disk_when_it_was_written(tmp_path: Path, history: History) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(3):
        log.write("sends", ticket=number)
        assert history.of(log.path) == ("file",)
