"""A server whose store is older than the clients' memory says what is missing, and does not go on."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from federation import CASES, federation, job, simulated
from test_kill import free_port

from hanse.core import StoreError
from hanse.core.exchange import Record
from hanse.network.server.https import lead

SCAFFOLD = CASES["scaffold"]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a server that its run needs, but not those in which SQLite keeps its locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {str(path): path.read_bytes() for path in files if "members.db" not in path.name}


def test_a_restored_copy_is_refused_and_the_newer_one_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "server"
    copies: list[bytes] = []
    port = free_port()

    def watch(record: Record) -> None:
        with closing(sqlite3.connect(home / "runs.db")) as here:
            copies.append(here.serialize())
        if record.round == 3:
            here_mailbox.stop()

    with federation(tmp_path, port=port) as here:
        run = here.server.lead(job(SCAFFOLD, 4, watch=watch))
        here_mailbox = here.server.run(run).mailbox
        here.enter()
        here.end(run, status="interrupted")
    restore(home, copies[1])
    before = contents(home)
    said: list[str] = []
    with pytest.raises(StoreError, match=f"of run {run}, rounds 2 to 3 are missing.*--fresh"):
        lead([job(SCAFFOLD, 4)], home, ("127.0.0.1", 0), ("127.0.0.1", 0), say=said.append)
    assert contents(home) == before
    restore(home, None)
    with pytest.raises(StoreError, match=f"of run {run}, everything is missing.*--fresh"):
        lead([job(SCAFFOLD, 4)], home, ("127.0.0.1", 0), ("127.0.0.1", 0), say=said.append)
    restore(home, copies[3])
    with federation(tmp_path, port=port) as here:
        here.server.check_store([run], fresh=False)
        assert here.lead(job(SCAFFOLD, 4), run) == run
        here.enter()
        assert here.ended(run).params_sha256 == simulated(SCAFFOLD, 4)


def restore(home: Path, copy: bytes | None) -> None:
    """Puts a copy in place of the store; None: an empty one."""
    for path in home.glob("runs.db*"):
        path.unlink()
    if copy is not None:
        (home / "runs.db").write_bytes(copy)


def test_fresh_runs_begin_beside_a_run_that_is_lost(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        head = tmp_path / "server" / "runs" / "abc" / "head"
        head.parent.mkdir(parents=True)
        head.write_bytes(b"")
        with pytest.raises(StoreError, match="of run abc, everything is missing"):
            here.server.check_store([], fresh=False)
        here.server.check_store([], fresh=True)
        here.server.check_store([], fresh=False)
