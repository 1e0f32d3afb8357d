"""Two commands deploy a federation, and end in the bits of `hanse.run`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_kill import free_port

import hanse

MAIN = """
import typer
from hanse.apps.parties import Parties
from hanse.network.cli import add_commands
app = typer.Typer(pretty_exceptions_enable=False)
add_commands(app, Parties())
app()
"""

SETTINGS = """
rounds = 3
algorithm = { name = "fed_avg", lr = 0.5, fraction = 1.0 }
partition = { name = "iid", num_clients = 2 }
"""


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], cwd=folder, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def done(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    return said


def served(folder: Path, settings: str) -> tuple[subprocess.Popen[str], list[list[str]]]:
    """A server for two clients, and what these are to type."""
    (folder / "app.toml").write_text(settings)
    server = command(folder, "serve", "app.toml", "--listen", f"127.0.0.1:{free_port()}")
    assert server.stdout is not None
    lines: list[list[str]] = []
    while len(lines) < 2:
        line = server.stdout.readline()
        assert line or server.poll() is None
        if "hanse join" in line:
            lines.append(line.split()[1:])
    return server, lines


def same_bits(folder: Path, said: str) -> None:
    """The server's last words name the parameters of a simulation."""
    found = re.search(r'"params_sha256": "([0-9a-f]{64})"', said)
    assert found, said
    assert found[1] == hanse.run(**vars(hanse.read(folder / "app.toml"))).params_sha256


def test_serve_and_join(tmp_path: Path) -> None:
    server, asked = served(tmp_path, SETTINGS)
    lines = [[word.replace("FILE", "share") for word in line] for line in asked]
    assert "the token is still good" in done(command(tmp_path, *lines[0], "--check"))
    assert "0 clients, 2 open invitations" in done(command(tmp_path, "status"))
    first, second = command(tmp_path, *lines[0]), command(tmp_path, *lines[1])
    assert "client 0: over" in done(first)
    assert "client 1: over" in done(second)
    same_bits(tmp_path, done(server))
    log = done(command(tmp_path, "audit-log", "--home", "hanse-client-0"))
    assert log.count(" sent: ") == 3
    assert "whole; the last line's hash is " in log
    changed = tmp_path / "hanse-client-0" / "audit.jsonl"
    changed.write_text(changed.read_text().replace('"work": "local_sgd"', '"work": "evaluate"', 1))
    assert "it was changed" in done(command(tmp_path, "audit-log", "--home", "hanse-client-0"), 2)


def test_clients_bring_tables_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{20 + i},{'cook' if i % 3 else 'nurse'},{'yes' if i % 7 > 2 else 'no'}" for i in range(60)]
    keyed = [f"{row},{'ab'[i % 2]}" for i, row in enumerate(rows)]
    (tmp_path / "all.csv").write_text("\n".join(["age,job,ill,site", *keyed]))
    (tmp_path / "test.csv").write_text("\n".join(["age,job,ill,site", *keyed[:9]]))
    for i in (0, 1):
        (tmp_path / f"own-{i}.csv").write_text("\n".join(["job,age,ill", *map(swapped, rows[i::2])]))
    settings = """
rounds = 2
data = { name = "csv", path = "all.csv", label = "ill", key = "site", test = "test.csv" }
partition = "by_key"
model = "softmax"
algorithm = { name = "fed_avg", lr = 0.5, fraction = 1.0 }
"""
    server, lines = served(tmp_path, settings)
    (tmp_path / "all.csv").rename(tmp_path / "not-here.csv")  # clients read nothing but their own
    own = [[word.replace("FILE", f"own-{i}.csv") for word in line] for i, line in enumerate(lines)]
    assert "30 examples suit it" in done(command(tmp_path, *own[0], "--check"))
    for client in [command(tmp_path, *line) for line in own]:
        assert "over" in done(client)
    (tmp_path / "not-here.csv").rename(tmp_path / "all.csv")
    same_bits(tmp_path, done(server))


def swapped(row: str) -> str:
    age, job, ill = row.split(",")
    return f"{job},{age},{ill}"
