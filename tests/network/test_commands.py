"""Two commands deploy a federation, and end in the bits of `hanse.run`."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import PIPE, STDOUT, python
from test_kill import free_port
from typer.testing import CliRunner

import hanse
from hanse.cli import app
from hanse.network.client import enrolment
from hanse.network.client.audit import AuditLog
from hanse.runs import load_population

DOCS = Path(__file__).parents[2] / "docs" / "deployment.md"
NEWCOMER = DOCS.read_text(encoding="utf-8").partition("## One machine")[2].partition("\n## ")[0]


@pytest.fixture(autouse=True)
def checks_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "CHECK_S", 0.1)


def blocks(language: str) -> list[str]:
    """Return the blocks that the guide tells a newcomer to type or to save."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", NEWCOMER, re.MULTILINE | re.DOTALL)
    return [block for kind, block in found if kind == language]


def command(folder: Path, *words: str) -> Any:
    return python("-m", "hanse", *words, cwd=folder, stdout=PIPE, stderr=STDOUT)


def newly_started(folder: Path, *words: str) -> Any:
    """Start a command as a user does, in an interpreter that has imported nothing."""
    return subprocess.Popen(
        [sys.executable, "-m", "hanse", *words], cwd=folder, stdout=PIPE, stderr=STDOUT, text=True
    )


def done(process: Any, code: int = 0) -> str:
    said, _ = process.communicate(timeout=280)
    assert process.returncode == code, said
    return said


def typed(*words: str, code: int = 0) -> str:
    """Run a short command in this process and folder."""
    given = CliRunner().invoke(app, words, prog_name="hanse")
    assert given.exit_code == code, given.output
    return given.output


def served(
    folder: Path,
    settings: str,
    num_clients: int,
    serve: str = "hanse serve app.toml",
    start: Callable[..., Any] = command,
) -> tuple[Any, list[list[str]]]:
    """A server, and what its clients are to type."""
    (folder / "app.toml").write_text(settings)
    words = [*serve.split()[1:], "--listen", f"127.0.0.1:{free_port()}"]
    server = start(folder, *words)
    assert server.stdout is not None
    lines: list[list[str]] = []
    while len(lines) < num_clients:
        line = server.stdout.readline()
        assert line or server.poll() is None
        if "hanse join" in line:
            lines.append(line.split()[1:])
    return server, lines


def same_bits(folder: Path, said: str) -> None:
    """The server's last words name the parameters of a simulation."""
    found = re.search(r'"params_sha256": "([0-9a-f]{64})"', said)
    assert found, said
    assert found[1] == hanse.perform(hanse.read(folder / "app.toml")).params_sha256


def test_a_newcomer_follows_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are those of the guide, except for the port, the token and the run."""
    monkeypatch.chdir(tmp_path)
    (settings,), (serve, meanwhile, after) = blocks("toml"), blocks("sh")
    server, asked = served(tmp_path, settings, 3, serve, start=newly_started)
    (example,) = blocks("")
    lines = [[word.replace("FILE", "share") for word in line] for line in asked]
    options = [word for word in lines[0] if word.startswith("-")]  # the output here is no terminal
    assert options == re.findall(r"--[\w-]+", example.replace("--token ", "--token-file "))
    assert "the token is still good" in typed(*lines[0], "--check")
    for line, due in zip(meanwhile.splitlines(), ("0 clients, 3 open invitations", "operator"), strict=True):
        assert due in typed(*line.split()[1:])
    clients = [newly_started(tmp_path, *lines[0]), *(command(tmp_path, *line) for line in lines[1:])]
    for number, client in enumerate(clients):
        assert f"client {number}: over" in done(client)
    said = done(server)
    same_bits(tmp_path, said)
    found = re.search(r"run (\w+): completed", said)
    assert found, said
    for line in after.splitlines():
        typed(*line.replace("RUN", found[1]).split()[1:])
    assert (tmp_path / "model" / "model.safetensors").exists()
    log = AuditLog(tmp_path / "hanse-client-0" / "audit.jsonl")
    assert [line["what"] for line in log.lines()].count("sent") == 5
    log.path.write_text(log.path.read_text().replace('"work": "local_sgd"', '"work": "evaluate"', 1))
    assert "it was changed" in typed("audit-log", "--home", "hanse-client-0", code=2)


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
    server, lines = served(tmp_path, settings, 2)
    (tmp_path / "all.csv").rename(tmp_path / "not-here.csv")  # clients read nothing but their own
    own = [[word.replace("FILE", f"own-{i}.csv") for word in line] for i, line in enumerate(lines)]
    assert "30 examples suit softmax" in typed(*own[0], "--check")
    for client in [command(tmp_path, *line) for line in own]:
        assert "over" in done(client)
    (tmp_path / "not-here.csv").rename(tmp_path / "all.csv")
    same_bits(tmp_path, done(server))


def test_clients_measure_and_multiply_as_in_the_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has no test set, and several threads would add up such large products in another order."""
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    np.savez("wide.npz", x=draws.normal(size=(1500, 784)), y=draws.integers(10, size=1500))
    settings = """
rounds = 2
client_test_fraction = 0.2
data = { name = "npz", path = "wide.npz", test_fraction = 0.0 }
partition = { name = "iid", num_clients = 2 }
model = "softmax"
algorithm = { name = "fed_avg", lr = 0.1, fraction = 1.0, batch_size = 600 }
"""
    server, lines = served(tmp_path, settings, 2)
    people = load_population(hanse.read("app.toml", ["client_test_fraction=0.0"]))
    for number in range(people.num_clients):
        mine = people.client(number)
        np.savez(f"own-{number}.npz", x=mine.x, y=mine.y)
    own = [[word.replace("FILE", f"own-{n}.npz") for word in line] for n, line in enumerate(lines)]
    for client in [command(tmp_path, *line) for line in own]:
        assert "evaluate for ticket" in done(client)
    said = done(server)
    same_bits(tmp_path, said)
    simulated = hanse.perform(hanse.read(tmp_path / "app.toml"))
    result = json.loads(said[said.index("{") :].splitlines()[0])
    assert result["final"] == simulated.to_json()["final"]


def swapped(row: str) -> str:
    age, job, ill = row.split(",")
    return f"{job},{age},{ill}"
