"""The audit log: its chain, and its head, which the server keeps."""

import fcntl
import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from federation import Federation, Threaded, federation
from typer.testing import CliRunner

from hanse.cli.commands import app
from hanse.core import InvalidInput
from hanse.network.client import audit
from hanse.network.client.audit import AuditLog
from hanse.network.client.gate import Gate, ask_kept_head
from hanse.network.client.home import ClientHome
from hanse.network.protocol.spool import durably
from hanse.network.protocol.wire import AuditHead, KeptHead, News, Poll


def poll(home: ClientHome, doing: Any = "waiting") -> News:
    gate = Gate(home.link(), home.audit)
    try:
        return gate.poll(Poll(wait_s=0.0, doing=doing), shows_log=True)
    finally:
        gate.close()


def chain(lines: list[dict[str, Any]]) -> str:
    """The text of a log with these lines, whose chain is whole."""
    before, text = "", ""
    for number, line in enumerate(lines):
        line = {**line, "n": number, "before": before}
        line.pop("hash", None)
        before = audit._hash(line)
        text += json.dumps({**line, "hash": before}) + "\n"
    return text


def rewrite(log: AuditLog) -> None:
    lines = list(log.lines())
    log.path.write_text(chain([{**lines[0], "name": "another"}, *lines[1:]]))


def grow(log: AuditLog) -> None:
    lines = list(log.lines())
    log.path.write_text(chain([*lines[1:], *lines[1:], *lines[1:]]))


def cut(log: AuditLog) -> None:
    log.path.write_text("".join(log.path.read_text().splitlines(keepends=True)[:-1]))


TAMPERS: dict[str, tuple[Callable[[AuditLog], None], str, str]] = {
    "rewritten": (rewrite, "line 4 is another than the server keeps", "has another line there"),
    "replaced by a longer one": (grow, "line 4 is another than the server keeps", "has another line there"),
    "cut": (
        cut,
        "it ends with line 3, and the server keeps line 4: from line 4 on it was cut",
        "ends earlier",
    ),
    "deleted": (
        lambda log: log.path.unlink(),
        "it ends with line 0, and the server keeps line 4",
        "ends earl",
    ),
}


def members(here: Federation) -> dict[str, KeptHead]:
    return here.server.members.read_audit_heads()


@pytest.mark.parametrize("how", TAMPERS)
def test_a_log_that_was_tampered_with_shows_on_both_sides(how: str, tmp_path: Path) -> None:
    tamper, why, event = TAMPERS[how]
    with federation(tmp_path) as here:
        home = here.client_home(0)
        for doing in ("waiting", "resting"):
            poll(home, doing)
        kept = ask_kept_head(home)
        assert (kept.lines, kept.hash) == (4, list(home.audit.lines())[3]["hash"])
        tamper(home.audit)
        again = ClientHome(home.folder)
        with pytest.raises(InvalidInput, match=why):
            poll(again)
        assert "client 0: shows another audit log: the server keeps line 4 of 20" in here.events()
        assert event in here.events()
        assert ask_kept_head(home) == kept  # what it showed is not kept

        client = Threaded(ClientHome(home.folder), lambda plan: [], lambda plan: None)
        with pytest.raises(InvalidInput, match=r"is not the audit log that the server keeps.*--begin-new"):
            client.run()

        before = home.audit.path.read_bytes()
        fresh = ClientHome(home.folder)
        assert fresh.audit.begin_new(kept) == home.folder / "audit.1.jsonl"
        assert (home.folder / "audit.1.jsonl").read_bytes() == before
        poll(fresh)
        number = max(4, before.count(b"\n"))
        first = next(fresh.audit.lines())
        assert (first["n"], first["what"], first["old"]) == (number, "begins a new log", "audit.1.jsonl")
        assert ask_kept_head(home).begun == number
        said = (
            f"client 0: has begun a new audit log with line {number + 1}; the server kept line 4 of the last"
        )
        assert said in here.events()
        poll(ClientHome(home.folder), "checking")


def test_a_head_that_lags_is_no_offence_and_heads_outlive_the_server(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        home = here.client_home(0)
        poll(home)
        for n in range(3):
            home.audit.write("receives", sync=False, ticket=n)
        kept = ask_kept_head(home)
        again = ClientHome(home.folder)
        assert (kept.lines, again.audit.head().lines) == (3, 6)
        poll(again, "resting")
        assert ask_kept_head(home).lines == 7
        assert "audit log" not in here.events()
    db = sqlite3.connect(tmp_path / "server" / "members.db")
    assert db.execute("SELECT id, lines, hash FROM audit_heads").fetchall() == [
        ("c0", 7, again.audit.head().hash)
    ]
    db.close()


def test_a_copy_of_a_client_that_works_elsewhere_shows(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        home = here.client_home(0)
        gates = [Gate(home.link(), home.audit)]
        gates[0].poll(Poll(wait_s=0.0), shows_log=True)  # which compares it; the polls after it do, too
        shutil.copytree(home.folder, tmp_path / "copy")
        copy = ClientHome(tmp_path / "copy")
        gates.append(Gate(copy.link(), copy.audit))
        gates[1].poll(Poll(wait_s=0.0), shows_log=True)
        gates[0].poll(Poll(wait_s=0.0, doing="resting"), shows_log=False)
        with pytest.raises(InvalidInput, match="is not the audit log that the server keeps"):
            gates[0].poll(Poll(wait_s=0.0, doing="resting"), shows_log=True)
        assert "client 0: shows another audit log" in here.events()
        for gate in gates:
            gate.close()


def test_the_end_of_a_long_log_is_enough_to_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    hashes = [log.write("line", sync=False, i=i) for i in range(60)]
    monkeypatch.setattr(audit, "LATEST_BYTES", 1000)
    again = AuditLog(log.path)
    assert again.head() == AuditHead(lines=60, hash=hashes[-1])
    for lines in (59, 2, 1):  # also where the end has to be left
        again.check(AuditHead(lines=lines, hash=hashes[lines - 1]))
        with pytest.raises(InvalidInput, match=f"line {lines} is another"):
            again.check(AuditHead(lines=lines, hash="0" * 64))
    again.write("more")
    assert [line["what"] for line in again.lines()] == ["line"] * 60 + ["more"]
    text = log.path.read_text()
    log.path.write_text(text.replace('"i": 58', '"i": 85'))
    with pytest.raises(InvalidInput, match="line 59: it was changed"):
        AuditLog(log.path).head()
    log.path.write_text(text.replace('"i": 7,', '"i": 8,'))
    AuditLog(log.path).write("not seen here")
    with pytest.raises(InvalidInput, match="line 8: it was changed"):
        list(log.lines())
    lines = [json.loads(line) for line in text.splitlines()]
    for change in ({"i": 8}, {"n": 8}):  # and its own hash is right
        line = {**lines[7], **change}
        line["hash"] = audit._hash({name: said for name, said in line.items() if name != "hash"})
        log.path.write_text("".join(json.dumps(one) + "\n" for one in [*lines[:7], line, *lines[8:]]))
        with pytest.raises(InvalidInput, match=r"line [89]: it was changed, or lines before it were"):
            list(log.lines())
    log.path.write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    with pytest.raises(InvalidInput, match="line 1: it was changed"):  # its start was cut off
        AuditLog(log.path).head()


def test_a_new_log_fits_only_the_head_that_it_names(tmp_path: Path) -> None:
    log, head = AuditLog(tmp_path / "audit.jsonl"), KeptHead(lines=60, hash="1" * 64)
    log.begin_new(head)
    log.check(head)
    for other in (AuditHead(lines=60, hash="2" * 64), AuditHead(lines=59, hash="1" * 64)):
        with pytest.raises(
            InvalidInput, match=rf"begins with line 61, .* keeps line {other.lines} of another"
        ):
            log.check(other)


def test_a_log_that_another_program_writes_is_noticed_at_the_next_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write("one", secret=1)
    log.write("two")
    text = log.path.read_text()
    for other in (text.replace("two", "owt"), text.splitlines(keepends=True)[0]):
        log.path.write_text(other)
        with pytest.raises(InvalidInput, match="its line 2 is not the one that was written"):
            log.write("three")
        log.path.write_text(text)
    log.write("three")
    assert len(list(log.lines())) == 3


def test_a_line_for_which_there_was_no_space_leaves_no_trace(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write("one")
    log.write("two")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.write("three", about="a line of another length")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.head().lines == 2
    log.write("four")
    assert [line["what"] for line in log.lines()] == ["one", "two", "four"]


def test_what_is_not_synced_is_not_announced(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    assert log.head() == AuditHead()
    log.write("one", sync=False)
    assert log.head() == AuditHead()
    last = log.write("two")
    assert log.head() == AuditHead(lines=2, hash=last)


def test_changes_of_the_owners_files_are_noted_once(tmp_path: Path) -> None:
    home = ClientHome(tmp_path)
    home.note_settings("starts", hanse="1")
    (tmp_path / "policy.toml").write_text("max_tickets = 1")
    home.note_settings()
    home.note_settings()
    (tmp_path / "hanse.toml").write_text("label = 'ill'")
    home.note_settings()  # it is not in force: a client that is at work does not read it again
    lines = list(home.audit.lines())
    assert [line["what"] for line in lines] == ["starts", "settings"]
    assert [bool(line["policy"]) for line in lines] == [False, True]
    assert [line["contract"] for line in lines] == ["", ""]
    again = ClientHome(tmp_path)
    again.note_contract()
    (tmp_path / "hanse.toml").write_text("label = 'dead'")
    again.note_settings("starts", hanse="1")
    *_, last = again.audit.lines()
    assert last["contract"] == hashlib.sha256(b"label = 'ill'").hexdigest()


def test_the_command_shows_compares_and_begins_anew(tmp_path: Path) -> None:
    def typed(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["audit-log", "--home", str(folder), *words])
        assert result.exit_code == code, result.output
        return result.output

    with federation(tmp_path) as here:
        home = here.client_home(0)
        folder = home.folder
        poll(home)
        home.audit.write(
            "sends", run="r1", parts={"update": {"bytes": 5200, "weight": True}}, sha256="ab" * 32
        )
        shown = typed()
        assert max(map(len, shown.splitlines())) <= 80
        assert "update: 5200 bytes, weighted" in shown
        assert "sha256=abababababababab..." in shown
        assert "complete up to line 4, whose hash is\n" in shown
        assert "it matches what the server keeps, up to line 3 (20" in shown
        lines = [json.loads(line) for line in typed("--json").splitlines() if line.startswith("{")]
        assert lines == list(home.audit.lines())
        cut(home.audit)
        cut(home.audit)
        assert "it ends with line 2, and the server keeps line 3" in typed(code=2)
        with home.claim():
            assert "client-0 is in use: process " in typed("--begin-new", code=2)
            assert len(list(home.audit.lines())) == 2
        assert "audit.1.jsonl" in typed("--begin-new")
        assert "it begins with line 4" not in typed()
    assert "it was not compared with the server: " in typed()
    folder = tmp_path / "new"
    ClientHome(folder)
    assert "this client has joined none" in typed()
    folder = tmp_path / "mistyped"
    for words in ((), ("--begin-new",)):
        assert "mistyped does not exist. Name the folder of hanse join by --home" in typed(*words, code=2)
        assert not folder.exists()


def test_a_line_that_is_written_while_a_new_log_begins_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command has opened the old file already, and waits for it."""
    path = tmp_path / "audit.jsonl"
    AuditLog(path).write("one")
    written = threading.Thread(target=lambda: AuditLog(path).write("beside"))
    waits, flock = threading.Event(), fcntl.flock

    def say_and_lock(file: Any, how: int) -> None:
        if threading.current_thread() is written:
            waits.set()
        flock(file, how)

    def replace(path: Path, data: bytes) -> None:
        written.start()
        assert waits.wait(60.0)
        durably(path, data)

    monkeypatch.setattr(fcntl, "flock", say_and_lock)
    monkeypatch.setattr(audit, "durably", replace)
    assert AuditLog(path).begin_new(KeptHead()) == tmp_path / "audit.1.jsonl"
    written.join(60.0)
    assert [line["what"] for line in AuditLog(path).lines()] == [audit.BEGINS, "beside"]
    assert [line["what"] for line in AuditLog(tmp_path / "audit.1.jsonl").lines()] == ["one"]
