"""Outcomes and attendance belong to members, not to the numbers that others take over from them."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from federation import FED_AVG, federation, job
from played import KEY, PlayedServer, W

from hanse.core import Close, Part, PartyId, StoreError
from hanse.core.exchange import Collect, Commit, Sample
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.tokens import Token
from hanse.network.server.mailbox import Mailbox
from hanse.network.server.members import Member, Members
from hanse.network.server.records import Attendance, Outcome, Outcomes
from hanse.network.server.run_thread import HEAD
from hanse.network.server.weights import BoundedWeight


def member(id: str, party: int) -> Member:
    return Member(id, "client", party, id, "", "active", 0.0, party)


def test_whoever_takes_over_a_number_hears_no_outcomes_of_its_holder(tmp_path: Path) -> None:
    """Also if the server ends between the exchange and the end of the round, and goes on."""
    server, changes = PlayedServer(tmp_path), []
    players = {n: member(f"c{n}", n) for n in range(3)}
    server.mailbox.find_player = players.get  # type: ignore[assignment, method-assign]
    server.runtime.perform(Sample(KEY, fraction=0.5))
    changes.append(server.runtime.changes())
    tickets = server.dispatch(0, 1, 2)
    changes.append(server.runtime.changes())
    server.answer(tickets[0])
    server.mailbox.fail(tickets[1], "no luck")
    server.answer(tickets[2])
    event = server.runtime.perform(Collect(tickets, Close(minimum_fraction=0.1)))
    changes.append(server.runtime.changes())

    again, booked = PlayedServer(tmp_path), list[Attendance]()
    again.mailbox.find_player = players.get  # type: ignore[assignment, method-assign]
    again.runtime._attend = booked.append
    again.runtime.restore(None, changes)
    again.runtime.recall(event)
    players[2] = member("c2-new", 2)
    again.runtime.perform(Commit(1, None, {}))
    assert again.mailbox.news(0) == {tickets[0]: Outcome(True, "", 0, "c0")}
    assert again.mailbox.news(1) == {tickets[1]: Outcome(False, "no luck", 1, "c1")}
    assert again.mailbox.news(2) == {}
    assert again.mailbox.outcomes().keys() == {0, 1}
    assert booked == [Attendance(1, frozenset({0, "c2"}), {1: "no luck"}, all_wanted=False)]


def test_a_run_that_was_not_served_meanwhile_tells_the_new_member_nothing(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        server = here.server
        for number in range(3):
            here.client_home(number)
        run = server.runs.begin({}, {})
        outcomes = Outcomes(server.home / "runs" / run / "outcomes.db")
        outcomes.record({2: {7: Outcome(True, party=2, member="c2")}, 1: {5: Outcome(True, party=1)}})
        outcomes.close()
        server.part("c2", "revoked")
        secret, _ = server.members.invite(number=2)
        token = Token(server.fingerprint, secret, server.identity.public)
        join(ClientHome(tmp_path / "new"), here.url, token)
        server.lead(job(FED_AVG, 1), run)
        mailbox = server.run(run).mailbox
        assert mailbox.news(2) == {}
        assert mailbox.news(1) == {5: Outcome(True, party=1)}  # an earlier version kept no member


def test_whoever_joins_late_is_due_in_later_rounds_alone(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")

    def enter(number: int) -> None:
        secret, _ = members.invite(number=number)
        members.join(Identity.derive(secret).public, Identity.generate().public)

    for number in range(3):
        enter(number)
    for round in range(1, 11):
        if round == 7:
            members.part("c2", "left")
            enter(2)
            enter(3)
        members.attend("run", Attendance(round, frozenset(range(3)), {}, True))
    assert [one[0] for one in members.find_uncounted("run")] == [3]  # it took part in no round
    members.attend("run", Attendance(11, frozenset({0, 1, 2}), {}, True))
    members.part("c3", "left")
    enter(3)  # and this one joined after the last
    assert members.find_uncounted("run") == []
    members.close()


# -- what is lost of these files ----------------------------------------------------------------


def test_a_register_that_lost_its_log_is_refused(tmp_path: Path) -> None:
    path, older = tmp_path / "members.db", tmp_path / "older.db"
    members = Members(path)
    secret, _ = members.invite(number=0)
    members.join(Identity.derive(secret).public, Identity.generate().public)
    members.close()
    shutil.copy(path, older)
    members = Members(path)
    members.part("c0", "revoked")
    members.close()
    Members(path).close()  # whole
    newer = path.read_bytes()
    shutil.copy(older, path)
    lost = r"members\.db is older than it was.*the last 1 of 3 changes are missing.*remove .*members\.head"
    with pytest.raises(StoreError, match=lost):
        Members(path)
    path.write_bytes(newer)
    members = Members(path)
    assert members.part("c0", "revoked").state == "revoked"
    members.close()
    path.unlink()
    with pytest.raises(StoreError, match=r"members\.db is older than it was.*it is missing"):
        Members(path)
    (tmp_path / "members.head").unlink()
    Members(path).close()  # as the operator wants


def test_outcomes_that_are_lost_are_noticed_before_a_run_goes_on(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.server.runs.begin({}, {})
        folder = here.server.home / "runs" / run
        path = folder / "outcomes.db"
        Outcomes(path).close()
        (folder / HEAD).write_bytes(b"")
        here.server.check_store([run], fresh=False)
        none = path.read_bytes()
        outcomes = Outcomes(path)
        outcomes.record({0: {1: Outcome(True)}})
        outcomes.acknowledge(0, [1])
        outcomes.close()
        here.server.check_store([run], fresh=False)
        path.write_bytes(none)
        with pytest.raises(StoreError, match=r"outcomes\.db is older.*the last 1 of 1 changes are missing"):
            here.server.check_store([run], fresh=False)
        path.unlink()
        with pytest.raises(StoreError, match=r"outcomes\.db is missing, and it was there"):
            here.server.check_store([run], fresh=False)
        path.touch()
        (folder / "outcomes.head").unlink()
        here.server.check_store([run], fresh=False)  # as the operator wants


def test_a_disk_that_takes_nothing_tells_outcomes_again(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.db"
    outcomes = Outcomes(path)
    outcomes._db.execute("PRAGMA busy_timeout = 0")
    told = {ticket: Outcome(True, party=0) for ticket in range(150)}
    outcomes.record({0: told, 1: {7: Outcome(True, party=1)}})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # from now on each write is an OperationalError
        outcomes.acknowledge(0, range(100))
        outcomes.acknowledge(0, outcomes.told(0))
        outcomes.forget(1)
        assert outcomes.told(1) == {}
        outcomes.close()
    again = Outcomes(path)
    assert len(again.told(0)) == 100
    for _ in range(2):
        again.acknowledge(0, again.told(0))
    again.close()
    last = Outcomes(path)
    assert last.told(0) == {}
    assert last.told(1) == {7: Outcome(True, party=1)}
    last.keep_own(1, "c1")
    assert last.told(1) == {7: Outcome(True, party=1)}
    last.close()


# -- bounds of weights -------------------------------------------------------------------------


def test_a_bound_is_noted_as_it_was_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that the disk has damaged is sent again, and may change the bound."""
    server, noted = PlayedServer(tmp_path), list[tuple[int, BoundedWeight]]()
    server.runtime._note_bound = lambda round, bounded: noted.append((round, bounded))
    server.dispatch(0)
    tickets = server.dispatch(0, 1, 2, step=1)
    for ticket, weight in zip(tickets, (1.0, 1.0, 1e7), strict=True):
        server.answer(ticket, Part(W, weight))
    (path,) = (tmp_path / "spool").glob(f"{tickets[0]}.*")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    ask_again = Mailbox.ask_again

    def answer_again(self: Mailbox, ticket: int) -> None:
        ask_again(self, ticket)
        server.answer(ticket, Part(W, 3.0))

    monkeypatch.setattr(Mailbox, "ask_again", answer_again)
    server.runtime.perform(Collect(tickets))
    assert [(one.party, one.bound, one.dispatch) for _, one in noted] == [(2, 30.0, 1)]


def test_bounds_of_each_exchange_are_kept_and_said_once(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    party: PartyId = 3
    first, second = (BoundedWeight(party, "update", 5.0, 1.0, dispatch) for dispatch in (1, 2))
    assert members.bound("a", 1, first)
    assert not members.bound("a", 1, first)
    assert members.bound("a", 1, second)
    assert members.list_bounds("a") == [(1, first), (1, second)]
    members.close()
