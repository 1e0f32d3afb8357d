"""A home belongs to one process at a time, and its files to its owner alone."""

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from forked import PIPE, STDOUT, python
from test_commands import done, same_bits, typed
from test_kill import free_port
from test_tokens import TOKEN

from hanse.core import InvalidInput
from hanse.network.client import ClientHome
from hanse.network.client.audit import AuditLog
from hanse.network.client.policy import Approvals
from hanse.network.protocol import claim_home, find_readable, seal_plan
from hanse.network.protocol.wire import Plan
from hanse.store import Runs

SETTINGS = """
rounds = 1
algorithm = { name = "fed_avg", lr = 0.5, fraction = 1.0 }
partition = { name = "iid", num_clients = 2 }
"""


def begin(folder: Path, *words: str) -> Any:
    """Starts a command under the most permissive umask."""
    return python("-m", "hanse", *words, cwd=folder, stdout=PIPE, stderr=STDOUT, umask=0)


@contextmanager
def permissive() -> Iterator[None]:
    """Lets new files be readable and writable for all, as far as the program itself does not object."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def read_until(process: Any, text: str) -> str:
    assert process.stdout is not None
    while text not in (line := process.stdout.readline()):
        print(line, end="")
        assert line or process.poll() is None
    return line


def test_a_house_is_worked_in_by_one_process_and_read_by_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app.toml").write_text(SETTINGS)
    serve = ["serve", "app.toml", "--listen", f"127.0.0.1:{free_port()}"]
    server = begin(tmp_path, *serve)
    lines = [
        read_until(server, "hanse join").replace("FILE", "share").split()[1:],
        read_until(server, "hanse join").replace("FILE", "share").split()[1:],
    ]
    first = begin(tmp_path, *lines[0])
    read_until(first, "waiting for work")
    refused = typed(*lines[0], code=2)
    assert f"hanse-client-0 is in use: process {first.pid} on " in refused
    assert "has worked there since 20" in refused
    said = typed("serve", "app.toml", "--listen", "127.0.0.1:0", code=2)
    assert f".hanse/server is in use: process {server.pid} on " in said
    first.send_signal(signal.SIGKILL)
    done(first, -signal.SIGKILL)
    assert not list(Path(".hanse/server/invitations").glob("*client-0*"))  # the token was used
    begins_again = ["join", "--home", "hanse-client-0"]  # as the guide says
    clients = [begin(tmp_path, *begins_again), begin(tmp_path, *lines[1])]
    for client in clients:
        assert "over" in done(client)
    same_bits(tmp_path, done(server))

    houses = [Path(".hanse"), Path("hanse-client-0"), Path("hanse-client-1")]
    assert [readable for house in houses for readable in find_readable(house)] == []
    assert len([path for house in houses for path in house.rglob("*")]) > 30
    run = next(Path(".hanse/server/runs").iterdir()).name
    with permissive():
        typed("release", run, "--to", "model", "--store", ".hanse/server/runs.db")
    assert {path.stat().st_mode & 0o777 for path in Path("model").iterdir()} == {0o666}


def test_a_simulated_run_is_kept_for_its_owner(tmp_path: Path) -> None:
    with permissive():
        runs = Runs(tmp_path / ".hanse" / "deep" / "runs.db")
        with runs.open(runs.begin({}, {})):
            assert len(list((tmp_path / ".hanse" / "deep").iterdir())) >= 2  # the store and the claim
            assert find_readable(tmp_path / ".hanse") == []


def test_an_open_home_is_named_and_then_tightened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = Path("home")
    key = ClientHome(home).folder / "key.pem"
    key.chmod(0o644)
    outside = tmp_path / "outside"
    outside.write_text("of others")
    outside.chmod(0o644)
    (home / "link").symlink_to(outside)
    assert "home/key.pem; take that away: chmod -R go= home" in typed("doctor", "--home", "home")
    with claim_home(home):
        assert find_readable(home) == []
    assert key.stat().st_mode & 0o777 == 0o600
    assert outside.stat().st_mode & 0o777 == 0o644
    assert "readable by others" not in typed("doctor", "--home", "home")


def test_a_mistyped_home_is_refused_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with permissive():
        Path("tree/deep").mkdir(parents=True)
        for path in ("tree/report.txt", "tree/deep/table.csv"):
            Path(path).write_text("of others")
    before = {path: path.stat().st_mode for path in (Path("tree"), *Path("tree").rglob("*"))}
    Path("app.toml").write_text(SETTINGS)
    refused = "tree is no home of a client or a server, and holds other files, such as 'deep'"
    join = ("join", "https://127.0.0.1:1", "--token", str(TOKEN), "--data", "share", "--home", "tree")
    serve = ("serve", "app.toml", "--listen", "127.0.0.1:0", "--home", "tree")
    for words in (join, (*join, "--encrypt-keys"), serve):
        assert refused in typed(*words, code=2)
    for words in (("passphrase",), ("leave",), ("approve", "12"), ("audit-log",)):
        assert re.search(
            r"tree (holds no keys|is not the folder of a client)", typed(*words, "--home", "tree", code=2)
        )
        assert "typo does not exist" in typed(*words, "--home", "typo", code=2)
    assert {path: path.stat().st_mode for path in (Path("tree"), *Path("tree").rglob("*"))} == before
    assert not Path("typo").exists()


def test_data_beside_a_home_stay_as_they_are(tmp_path: Path) -> None:
    home = ClientHome(tmp_path / "home").folder
    with permissive():
        (home / "runs" / "r").mkdir(parents=True)
        for name in ("my_fed.py", "own.csv", "runs/r/payload", "policy.toml", "audit.1.jsonl"):
            (home / name).write_text("")
    with claim_home(home):
        assert {path.name for path in find_readable(home)} == {"my_fed.py", "own.csv"}


def test_a_client_object_enters_its_own_claim_again(tmp_path: Path) -> None:
    home, same = ClientHome(tmp_path), ClientHome(tmp_path)
    refusal = pytest.raises(InvalidInput, match=rf"in use: process {os.getpid()} on")
    with home.claim(), home.claim(), refusal, same.claim():
        pass
    with same.claim():
        assert (tmp_path / "claim").exists()
    assert not (tmp_path / "claim").exists()


def test_commands_beside_a_running_client_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """`hanse leave` and `hanse approve` write files that the running client writes, too."""
    home = ClientHome(tmp_path)
    home.enter({"url": "https://h:1", "certificate": "old", "id": "c0"})
    approvals = Approvals(tmp_path / "approved.json", AuditLog(tmp_path / "audit.jsonl"))
    beside = Approvals(tmp_path / "approved.json", AuditLog(tmp_path / "audit.jsonl"))
    plans = [seal_plan(Plan("", json.dumps({"n": n}), n, (1,), 2)) for n in range(20)]
    with ThreadPoolExecutor(8) as pool:
        changes = [pool.submit(ClientHome(tmp_path).amend, **{f"part{n}": n}) for n in range(20)]
        changes += [pool.submit(home.amend, left=True)]
        changes += [pool.submit(beside.approve, plan) for plan in plans]
        for change in changes:
            change.result()
    assert home.membership == {
        "url": "https://h:1",
        "certificate": "old",
        "id": "c0",
        "left": True,
        **{f"part{n}": n for n in range(20)},
    }
    for plan in plans:
        approvals.check(plan)


def test_two_commands_that_make_a_key_make_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        homes = list(pool.map(ClientHome, [tmp_path] * 16))
    assert len({home.identity.public for home in homes}) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("key")] == ["key.pem"]
