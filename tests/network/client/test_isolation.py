"""What is computed in isolation has the same bits, and can do nothing else."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import learning
import pytest
from federation import FED_AVG, InThread, federation, job, population
from first_ticket import PLAN, computed, ticket
from test_commands import typed

from hanse.core import InvalidInput, Key, layout
from hanse.core.exchange import Payload, Record, Stored, pack, unpack
from hanse.imports import Import
from hanse.network.client import client as client_module
from hanse.network.client import find_isolation
from hanse.network.client.client import Client
from hanse.network.client.isolation import Isolation, describe_isolation, launch
from hanse.network.client.ticket_process import ComputationFailed, Loaded, TicketProcess, TimeLimitExceeded
from hanse.network.protocol import Token

ABOUT: dict[str, Any] = {"port": 1, "home": "/nonexistent", "data": "/nonexistent", "bytes": 1, "pid": 1}


def has_namespaces() -> bool:
    """Returns whether this machine lets its users have namespaces, as another program finds."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-Urnm", "true"]).returncode == 0


@pytest.fixture(params=["bubblewrap", "namespaces"])
def isolation(request: pytest.FixtureRequest, tmp_path: Path) -> Isolation:
    if not has_namespaces():
        pytest.skip("this machine allows no namespaces of its users")
    bwrap = shutil.which("bwrap")
    if request.param == "bubblewrap" and bwrap is None:
        if os.getuid() == 0 and shutil.which("apt-get"):
            pytest.fail("bubblewrap is missing, and can be installed: .ci/packages")
        pytest.skip("bubblewrap is not installed, and this user may not install it")
    home = tmp_path / "home"
    (home / "runs" / "run").mkdir(parents=True)
    return Isolation(home, str(bwrap) if request.param == "bubblewrap" else "")


@pytest.fixture
def owners(isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Things of the owner that a hostile work is after."""
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m hanse` does with the current folder
    (isolation.home / "key.pem").write_text("a key")
    (tmp_path / "own.csv").write_text("age\n40\n")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(isolation.home / "socket"))
        local.listen()
        yield {
            "port": server.getsockname()[1],
            "home": str(isolation.home),
            "data": str(tmp_path / "own.csv"),
            "bytes": 3 << 30,
            "pid": os.getpid(),
        }


def test_isolated_tickets_have_the_same_bits(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    task, payload = ticket()
    path = isolation.home / "runs" / "run" / "a.payload"
    path.write_bytes(pack(payload))
    monkeypatch.setattr(layout, "MAPPED_BYTES", 0)
    mapped = unpack(Stored(path), Payload)
    assert isinstance(mapped.shared["params"], layout.Mapped)  # so the child reads it from the disk
    loaded = Loaded(learning.learner, PLAN, population().client(0))
    with closing(TicketProcess(lambda: loaded, isolation)) as backend:
        found = backend.compute(task, mapped, {"own": 1}, Key.from_seed(3), 60.0)
        assert found == computed(backend)
    assert found == computed(InThread(lambda: loaded))


def test_a_hostile_work_can_do_nothing_but_compute(
    isolation: Isolation,
    owners: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HANSE_TEST_SECRET", "hunter2")
    plan = replace(PLAN, settings=json.dumps({"about": owners}))
    small = replace(isolation, memory_bytes=2 << 30)
    loaded = Loaded(learning.attacks, plan, population().client(0))
    with (
        closing(TicketProcess(lambda: loaded, small)) as backend,
        pytest.raises(ComputationFailed) as caught,
    ):
        computed(backend, 60.0)
    assert caught.value.code == "internal"
    found = json.loads(str(caught.value))
    assert found.pop("files of the home") == ["runs"]
    assert {name for name, outcome in found.items() if outcome == "succeeded"} == set(), found
    assert len(found) == 19
    assert "order" not in capfd.readouterr().out
    assert Path(owners["data"]).read_text() == "age\n40\n"


def test_home_and_files_of_the_contract_are_hidden_wherever_they_are(
    isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here they are in the folder of a package that the client has imported, which is shown."""
    package = tmp_path / "owns_rows"
    home = package / "home"
    (home / "runs" / "run").mkdir(parents=True)
    isolation = replace(isolation, home=home)
    for name in ("__init__.py", "rows.csv", "tests.csv"):
        (package / name).write_text("age = 40\n")
    imported = ModuleType("owns_rows")
    imported.__file__ = str(package / "__init__.py")
    monkeypatch.setitem(sys.modules, "owns_rows", imported)
    (home / "hanse.toml").write_text('test = "../tests.csv"\n[data]\nname = "csv"\npath = "../rows.csv"\n')
    (home / "key.pem").write_text("a key")
    (home / "mine.py").write_text("MINE = 1\n")
    mine = Import("mine", "file", "sha256:0", {"mine.py": "0"}, str(home))
    code = (
        "import sys, pathlib\n"
        "def read(path):\n"
        "    try: return path.read_text()\n"
        "    except OSError: return ''\n"
        "print([len(read(pathlib.Path(path))) for path in sys.argv[1:]])"
    )
    files = [
        *(package / name for name in ("__init__.py", "rows.csv", "tests.csv")),
        home / "mine.py",
        home / "key.pem",
    ]
    command = isolation.wrap([sys.executable, "-I", "-S", "-c", code, *map(str, files)], "run", [mine])
    done = subprocess.run(command, env=isolation.environment(), capture_output=True, text=True, timeout=60.0)
    assert (done.stdout, done.stderr) == ("[9, 0, 0, 9, 0]\n", "")


class Noted(InThread):
    """Notes how the tickets are isolated."""

    kinds: ClassVar[list[str]] = []

    def __init__(self, load: Any, isolation: str = "not") -> None:
        super().__init__(load)
        self._isolation = isolation

    def compute(self, *given: Any) -> Any:
        self.kinds.append(self._isolation)
        return super().compute(*given)


def test_isolation_may_be_asked_for_while_the_client_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noting(Client):
        backend = Noted

    monkeypatch.setattr(Noted, "kinds", [])
    monkeypatch.setattr(client_module, "find_isolation", lambda home: "isolated")
    with federation(tmp_path) as here:
        policy = here.client_home(0).folder / "policy.toml"
        here.enter([0], Noting)

        def isolate(record: Record) -> None:
            if record.round == 1:
                policy.write_text("isolate = true")

        here.end(here.server.lead(job(FED_AVG, 2, num_clients=1, watch=isolate)))
    assert Noted.kinds == ["not", "isolated"]


def test_the_attacks_succeed_without_isolation(tmp_path: Path) -> None:
    """So the test above would notice if a process were not isolated."""
    (tmp_path / "key.pem").write_text("a key")
    plan = replace(PLAN, settings=json.dumps({"about": {**ABOUT, "home": str(tmp_path), "pid": os.getpid()}}))
    loaded = Loaded(learning.attacks_a_little, plan, population().client(0))
    with closing(TicketProcess(lambda: loaded)) as backend, pytest.raises(ComputationFailed) as caught:
        computed(backend, 60.0)
    assert set(json.loads(str(caught.value)).values()) == {"succeeded"}


def test_the_end_of_an_isolated_process_is_explained_and_complete(isolation: Isolation) -> None:
    def backend(bind: Any) -> TicketProcess:
        return TicketProcess(lambda: Loaded(bind, PLAN, population().client(0)), isolation)

    with (
        closing(backend(learning.is_killed)) as killed,
        pytest.raises(ComputationFailed, match="killed") as caught,
    ):
        computed(killed, 60.0)
    assert caught.value.code == "resources"
    with closing(backend(learning.spins)) as spinning:
        child = spinning._begin()
        ours = os.dup(child.pipe.fileno())
        with pytest.raises(TimeLimitExceeded):
            computed(spinning, 0.3)
        with socket.socket(fileno=ours) as pipe:  # its other end is closed once the process is gone
            pipe.settimeout(60.0)
            assert pipe.recv(1) == b""


def test_a_hostile_ticket_is_declined_and_its_client_lives(isolation: Isolation, tmp_path: Path) -> None:
    (tmp_path / "client-0").mkdir()
    (tmp_path / "client-0" / "policy.toml").write_text("isolate = true\n")
    with federation(tmp_path) as here:
        given = job(FED_AVG, 1, num_clients=1)
        given = replace(given, plan=replace(given.plan, settings=json.dumps({"about": ABOUT})))
        mine = population().client(0)
        client = Client(here.client_home(0), lambda plan: mine, learning.attacks, here.said.append)
        here.clients.append(client)
        here.threads.append(threading.Thread(target=client.run, daemon=True))
        here.threads[0].start()
        here.lead(given)
        assert here.wait_for("(internal)", "the ticket was not declined")
        here.wait_until(lambda: any("(internal)" in line for line in here.said), "it does not say so")
        declined = next(i for i, line in enumerate(here.said) if "(internal)" in line)
        # the server's verdict on the ticket and the end of the run may be said before it or after it
        here.wait_until(lambda: "waiting for work" in here.said[declined:], "the client does not go on")
        assert here.threads[0].is_alive()
    assert '"reach the server": "' in (tmp_path / "client-0" / "client.log").read_text()


def test_without_a_way_to_isolate_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    monkeypatch.setattr(launch, "_try", lambda way: "unshare: Operation not permitted")
    with pytest.raises(InvalidInput) as caught:
        find_isolation(tmp_path)
    said = str(caught.value)
    assert "bubblewrap (bwrap) is not installed; namespaces of the kernel: unshare: Operation not" in said
    assert "apt install bubblewrap" in said
    assert describe_isolation() == said
    token = str(Token("ab" * 32, bytes(16), "cd" * 32))
    refused = typed("join", "https://127.0.0.1:1", "--token", token, "--data", "share", "--isolate", code=2)
    assert "tickets can't be isolated on this machine" in refused
