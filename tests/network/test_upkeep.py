"""A server's folder is copied while it serves, restored, and forgets who is gone."""

import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from federation import FED_AVG, NUM_CLIENTS, federation, job, simulated
from test_commands import typed
from test_departed import LAST, await_message
from test_kill import free_port

from hanse.core import InvalidInput
from hanse.network.client.transport import ServerLink
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.wire import About
from hanse.network.server.members import Member, Members
from hanse.network.server.upkeep import back_up, note_restoration, restore_backup


def test_a_backup_of_a_server_in_mid_round_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Messages that had arrived are in it, so nobody is asked for them again."""
    port = free_port()
    server = tmp_path / "server"
    with federation(tmp_path, port=port) as here:
        run = here.lead(job(FED_AVG, 2))
        here.client_home(LAST)
        here.show_up()
        here.enter(range(1, NUM_CLIENTS))
        await_message(here, run)
        said = typed("backup", "--home", str(server), "--to", str(tmp_path / "kept"))
        assert "it holds the server's keys, so guard it" in said
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "kept").rglob("*.pem"))
    shutil.rmtree(server)
    assert f"{server} is as it was at" in typed("restore", str(tmp_path / "kept"), "--home", str(server))
    assert len(list((server / "runs" / run / "spool").glob("*.message"))) == NUM_CLIENTS - 1
    with federation(tmp_path, port=port) as here:
        notes: list[str] = []
        for _ in range(2):  # it is told once
            note_restoration(server, here.server.members, notes.append)
        assert len(notes) == 3
        assert "server: restored from the backup of" in here.events()
        here.lead(job(FED_AVG, 2), run)
        here.enter()
        assert here.end(run)["params_sha256"] == simulated(FED_AVG, 2)
        sent = [line["ticket"] for line in here.client_home(1).audit.lines() if line["what"] == "sent"]
        assert len(sent) == len(set(sent)) == 2


def test_what_is_no_backup_or_is_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not the folder of a server"):
        back_up(tmp_path / "nothing", tmp_path / "kept")
    with federation(tmp_path) as here:
        server, kept = here.server.home, tmp_path / "kept"
        here.server.runs.begin({}, {})
        back_up(server, kept)
        with pytest.raises(InvalidInput, match="kept exists already"):
            back_up(server, kept)
    with pytest.raises(InvalidInput, match="server exists already"):
        restore_backup(kept, server)
    with pytest.raises(InvalidInput, match="server is not a complete backup"):
        restore_backup(server, tmp_path / "again")
    data = (kept / "runs.db").read_bytes()
    (kept / "runs.db").write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(InvalidInput, match=r"runs\.db of the backup is damaged"):
        restore_backup(kept, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def enter(members: Members, number: int, name: str) -> str:
    """Makes a client a member, and returns its key."""
    secret, _ = members.invite(number=number, name=name)
    members.join(Identity.derive(secret).public, key := Identity.generate().public)
    return key


def test_a_client_that_left_is_forgotten(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        members, runs = here.server.members, here.server.runs
        for number in range(2):
            here.client_home(number)
        key = enter(members, 2, "St. Anne")
        members.note("St. Anne", "ticket 3 failed")
        members.note("operator", "spoke with St. Anne, not with St. Annes")
        members.note("client 2", "run a: ticket 4 is not counted")
        members.note("client 1", "stays")
        run = runs.begin({}, {})
        runs.finish(run, "completed", {"findings": [{"text": "St. Anne was counted in no round"}]})
        case = here.server.home / "runs" / run / "cases" / "1-7-2.case"
        case.parent.mkdir(parents=True)
        case.write_bytes(b"")
        (other := case.with_name("1-8-12.case")).write_bytes(b"")
        with pytest.raises(InvalidInput, match="is active; revoke it first"):
            here.server.forget("c2")
        here.server.part("c2", "left")
        assert here.server.forget("St. Anne").id == "c2"
        events = here.events()
        assert "spoke with c2, not with St. Annes" in events
        assert "ticket 3" not in events
        assert "ticket 4" not in events
        assert "client 1: stays" in events
        assert runs.info(run).result == {"findings": [{"text": "c2 was counted in no round"}]}
        assert not case.exists()
        assert other.exists()
        assert members.key("c2") is None
        assert members.clients()[1] == 3  # the number stays in the count
        with pytest.raises(InvalidInput, match=r"no member is called 'St\. Anne'"):
            here.server.forget("St. Anne")
        with sqlite3.connect(here.server.home / "members.db") as register:
            dump = "\n".join(register.iterdump()).replace("St. Annes", "")
        assert "St. Anne" not in dump
        assert key not in dump
    members = Members(tmp_path / "server" / "members.db")  # it can be read again
    assert [m.name for m in members.all() if m.number == 2] == ["forgotten c2"]
    members.close()


@pytest.mark.parametrize("name", ["rounds", "0", "completed", "client 1", "operator"])
def test_a_name_that_results_and_events_hold_too_changes_neither(name: str, tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        members, runs = here.server.members, here.server.runs
        enter(members, 2, name)
        members.note("client 1", "run a: ticket 1 is not counted", source="run a, client 1")
        members.note("operator", "drained run a", source="operator")
        result = {"rounds": 3, "status": "completed", "loss": [0.5, 0], "models": {"0": "softmax"}}
        runs.finish(run := runs.begin({}, {}), "completed", result)
        here.server.part("c2", "left")
        here.server.forget("c2")
        assert runs.info(run).result == result
        assert "client 1: run a: ticket 1 is not counted" in here.events()
        assert "operator: drained run a" in here.events()


@pytest.mark.parametrize("name", ['St. "Anna"', "Klinik (Nord)", "Übersee"])
def test_a_name_of_any_letters_is_forgotten(name: str, tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        members, runs = here.server.members, here.server.runs
        enter(members, 2, name)
        result = {"findings": [{"code": "client_uncounted", "text": f"{name} was counted in no round"}]}
        runs.finish(run := runs.begin({}, {}), "incomplete", result)
        members.note(run, f"incomplete: {json.dumps(result)}")
        here.server.part("c2", "left")
        here.server.forget("c2")
        text = "c2 was counted in no round"
        assert runs.info(run).result == {"findings": [{"code": "client_uncounted", "text": text}]}
        assert text in here.events()


def test_whoever_has_the_number_now_keeps_its_failed_tickets(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        members, ids = here.server.members, []
        cases = here.server.home / "runs" / "a" / "cases"
        cases.mkdir(parents=True)
        for ticket in (7, 8):
            enter(members, 3, f"hospital {ticket}")
            member = next(m for m in members.active("client") if m.number == 3)
            ids.append(member.id)
            (cases / f"1-{ticket}-3.case").write_bytes(b"")
            os.utime(cases / f"1-{ticket}-3.case", (member.joined, member.joined))
            here.server.part(member.id, "left")
        here.server.forget(ids[0])
        assert [path.name for path in cases.iterdir()] == ["1-8-3.case"]
        here.server.forget(ids[1])
        assert list(cases.iterdir()) == []


def test_the_server_answers_others_while_it_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with federation(tmp_path, stay=True) as here:
        server, begun, go_on = here.server, threading.Event(), threading.Event()
        enter(server.members, 2, "St. Anne")
        server.part("c2", "left")
        forget = server.forget

        def forget_slowly(id: str) -> Member:
            begun.set()
            assert go_on.wait(60.0)
            return forget(id)

        monkeypatch.setattr(server, "forget", forget_slowly)
        identity = Identity.generate()
        server.members.appoint("operator", "operator", identity.public)
        pem = (tmp_path / "server" / "certificate.pem").read_text()
        with closing(ServerLink(here.url, pem, identity, "operator")) as link:
            answers = list[object]()
            other = threading.Thread(
                target=lambda: answers.append(link.plain("POST", "/v1/clients/St. Anne/forget"))
            )
            other.start()
            assert begun.wait(60.0)
            with closing(ServerLink(here.url, pem, identity, "operator")) as beside:
                assert beside.ask("GET", "/v1/about", About).hanse
            go_on.set()
            other.join(60.0)
        assert answers == [{"forgotten": "c2"}]


def test_what_can_not_be_rewritten_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with federation(tmp_path) as here:
        members, runs = here.server.members, here.server.runs
        enter(members, 2, "St. Anne")
        here.server.part("c2", "left")
        runs.finish(runs.begin({}, {}), "completed", {"reason": "St. Anne was away"})
        with monkeypatch.context() as patch:
            patch.setattr(runs, "finish", lambda *given: pytest.fail("the disk is full"))
            with pytest.raises(pytest.fail.Exception):
                here.server.forget("c2")
        assert here.server.forget("St. Anne").id == "c2"
        assert runs.infos()[0].result == {"reason": "c2 was away"}
