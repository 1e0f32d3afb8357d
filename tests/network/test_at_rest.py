"""Status, clients and events of a server that has ended, from its folder, which stays as it is."""

import json
from pathlib import Path

import pytest
from federation import FED_AVG, federation, job
from forked import PIPE, python
from test_commands import typed
from typer.testing import CliRunner
from windows import WIDTHS, type_in_window

from hanse.cli import app
from hanse.network.protocol import claim_home
from hanse.network.server.members import Members
from hanse.network.server.upkeep import find_server_at_rest


def printed(*words: str) -> str:
    """What a command prints on standard output."""
    done = CliRunner().invoke(app, words, prog_name="hanse")
    assert done.exit_code == 0, done.output
    return done.stdout


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_of_a_server_says_the_same_after_its_end(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 2))
        here.enter()
        result = here.end(run)
        before = json.loads(json.dumps(here.server.status()))
        members = here.server.clients()
        events = [event[1:] for event in here.server.members.kept_events.read_after(0, 1000)]
    home = tmp_path / "server"
    kept = contents(home)
    status = json.loads(printed("status", "--home", str(home), "--json"))
    assert (before.pop("is_running"), status.pop("is_running")) == (True, False)
    (was,), (now,) = before["runs"], status["runs"]
    same = ("run", "status", "round", "num_rounds", "metrics", "bytes_up", "bytes_down", "result")
    assert {name: now[name] for name in same} == {name: was[name] for name in same}
    assert now["result"]["params_sha256"] == result["params_sha256"]
    assert [status[name] for name in ("clients", "parties", "open_invitations")] == [5, [], 0]
    listed = json.loads(printed("clients", "--home", str(home), "--json"))
    steady = ("id", "role", "number", "party", "name", "state", "joined")
    assert [[one[n] for n in steady] for one in listed] == [[one[n] for n in steady] for one in members]
    found = list(map(json.loads, printed("events", "--home", str(home), "--json").splitlines()))
    assert [(one["at"], one["who"], one["what"]) for one in found][: len(events)] == events
    assert typed("status", "--home", str(home)).startswith("the server is not running; as of 20")
    assert "joined 20" in typed("clients", "--home", str(home / "operator"))
    for width in WIDTHS:
        assert any(run in line for line in type_in_window(width, "status", "--home", home))
        shown = " ".join(type_in_window(width, "clients", "--home", home))
        assert all(one["id"] in shown for one in listed)
        assert "joined as client" in " ".join(type_in_window(width, "events", "--home", home, "--limit", 5))
    assert contents(home) == kept
    with claim_home(home):  # as if somebody served it
        assert find_server_at_rest(home) is None


def test_events_are_followed_while_no_server_runs(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    members.note("client 0", "was here")
    members.close()
    command = ["-u", "-m", "hanse", "events", "--follow", "--home", str(tmp_path)]
    with python(*command, stdout=PIPE, stderr=PIPE) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        try:
            assert following.stdout.readline().endswith("client 0: was here\n")
            members = Members(tmp_path / "members.db")
            members.note("client 1", "came back")
            assert following.stdout.readline().endswith("client 1: came back\n")
            members.close()
            assert following.stderr.readline().startswith("the server is not running; as of")
            following.send_signal(2)
            assert following.wait(60) == 0
            assert following.stderr.read() == ""  # it is said once
        finally:
            following.kill()


def test_a_damaged_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "members.db").write_bytes(b"no database" * 100)
    with pytest.raises(AssertionError, match="can't be read: file is not a database"):
        typed("clients", "--home", str(tmp_path))
