"""A full disk stops a server or a client cleanly; with space again, the run ends in the same bits."""

import contextlib
import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from federation import CASES, NUM_CLIENTS, federation, job, learner, population, simulated

from hanse.core import HanseError
from hanse.core.exchange import Record
from hanse.network.client.client import Client
from hanse.network.client.home import ClientHome
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.spool import hash_chunks
from hanse.network.protocol.uploads import Spool

SCAFFOLD = CASES["scaffold"]


@contextmanager
def small_disk(folder: Path, megabytes: int, inodes: int = 0) -> Iterator[Path]:
    """A real file system of a few megabytes, and inodes unless that is 0. Skips where none may be mounted."""
    folder.mkdir()
    size = f"size={megabytes}m,nr_inodes={inodes}"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may mount no file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Until nothing more goes in."""
    with open(folder / "filler", "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass


def test_a_servers_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "server", 8) as disk, federation(tmp_path) as here:
        records: list[Record] = []

        def watch(record: Record) -> None:
            records.append(record)
            if record.round == 2 and not here.server.full:
                fill(disk)

        given = job(SCAFFOLD, 5, watch=watch)
        run = here.server.lead(given)
        here.enter()
        assert here.server.done.wait(60.0)
        led = here.server.run(run)
        assert here.server.full
        assert led.status == "interrupted"
        assert not here.server.over
        (disk / "filler").unlink()
        here.server.full = False
        here.server.lead(given, run)
        assert here.end(run, 60.0)["params_sha256"] == simulated(SCAFFOLD, 5)
        assert [r.round for r in records] == [0, 1, 2, 3, 4, 5]
        assert all(thread.join(60.0) is None and not thread.is_alive() for thread in here.threads)


def test_a_clients_full_disk(tmp_path: Path) -> None:
    people = population()
    with small_disk(tmp_path / "client-0", 1) as disk, federation(tmp_path) as here:
        client_home = here.client_home(0)
        errors: list[Exception] = []

        def joined() -> None:
            client = Client(ClientHome(client_home.folder), lambda plan: people.client(0), learner)
            here.clients.append(client)
            try:
                client.run()
            except HanseError as error:
                errors.append(error)

        def watch(record: Record) -> None:
            if record.round == 1:
                fill(disk)

        run = here.server.lead(job(SCAFFOLD, 5, watch=watch))
        here.server.presence.hold_s = 0.1  # a client ends when its poll does
        here.enter(range(1, NUM_CLIENTS))
        first = threading.Thread(target=joined, daemon=True)
        first.start()
        first.join(60.0)
        assert "no space is left at" in str(errors[0])
        (disk / "filler").unlink()
        again = threading.Thread(target=joined, daemon=True)
        again.start()
        assert here.end(run, 60.0)["params_sha256"] == simulated(SCAFFOLD, 5)
        again.join(60.0)
        assert len(errors) == 1
        list(ClientHome(client_home.folder).audit.lines())  # whole


def test_a_disk_without_inodes_takes_uploads_again_once_there_are_some(tmp_path: Path) -> None:
    with small_disk(tmp_path / "spool", 8, inodes=20) as disk:
        spool, data = Spool(disk), b"a message"
        name = hash_chunks([data])
        with contextlib.suppress(OSError):
            for number in range(100):
                (disk / f"filler-{number}").touch()
        for _ in range(2):
            with pytest.raises(Refused) as caught:
                spool.writing(7, name, len(data), 0)
            assert caught.value.code == "disk-full"
        (disk / "filler-0").unlink()
        chunk = spool.writing(7, name, len(data), 0)
        chunk.write(data)
        chunk.keep(hashlib.sha256(data).digest())
        chunk.close()
        assert spool.finish(7, name, len(data))
        assert spool.read(7) == data


def test_a_server_whose_inodes_are_used_up_in_a_round(tmp_path: Path) -> None:
    """Nothing that its clients send can be kept until there are inodes again; the run goes on by itself."""
    with small_disk(tmp_path / "server", 16, inodes=200) as disk, federation(tmp_path) as here:
        for number in range(NUM_CLIENTS):
            here.client_home(number)
        here.show_up()
        run = here.server.lead(job(SCAFFOLD, 2))
        fillers = disk / "fillers"
        fillers.mkdir()
        here.wait_until(lambda: bool(here.server.run(run).mailbox.count_offers()["orders"]), "no orders")
        with contextlib.suppress(OSError):
            for number in range(1000):
                (fillers / str(number)).touch()
        here.enter()
        here.wait_until(lambda: any("disk-full" in line for line in here.said), "no upload was refused")
        shutil.rmtree(fillers)
        assert here.end(run)["params_sha256"] == simulated(SCAFFOLD, 2)
