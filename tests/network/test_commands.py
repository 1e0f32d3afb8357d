"""Two commands deploy a federation, and end in the bits of `hanse.run`."""

import re
import subprocess
import sys
from pathlib import Path

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


def test_serve_and_join(tmp_path: Path) -> None:
    (tmp_path / "app.toml").write_text(SETTINGS)
    server = command(tmp_path, "serve", "app.toml", "--listen", f"127.0.0.1:{free_port()}")
    assert server.stdout is not None
    lines: list[list[str]] = []
    while len(lines) < 2:
        line = server.stdout.readline()
        assert line or server.poll() is None
        if "hanse join" in line:
            lines.append(line.replace("FILE", "share").split()[1:])
    assert "the token is still good" in done(command(tmp_path, *lines[0], "--check"))
    assert "0 clients, 2 open invitations" in done(command(tmp_path, "status"))
    first, second = command(tmp_path, *lines[0]), command(tmp_path, *lines[1])
    assert "client 0: over" in done(first)
    assert "client 1: over" in done(second)
    result = done(server)
    found = re.search(r'"params_sha256": "([0-9a-f]{64})"', result)
    assert found, result
    assert found[1] == hanse.run(**vars(hanse.read(tmp_path / "app.toml"))).params_sha256
    log = done(command(tmp_path, "audit-log", "--home", "hanse-client-0"))
    assert log.count(" sent: ") == 3
    assert "whole; the last line's hash is " in log
    changed = tmp_path / "hanse-client-0" / "audit.jsonl"
    changed.write_text(changed.read_text().replace('"work": "local_sgd"', '"work": "evaluate"', 1))
    assert "it was changed" in done(command(tmp_path, "audit-log", "--home", "hanse-client-0"), 2)
