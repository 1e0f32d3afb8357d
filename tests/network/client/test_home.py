"""A client decides for itself: policy, approvals and audit log; and a message's files are whole."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from federation import Threaded, federation, job

from hanse.algorithms import fed_avg
from hanse.core import Close, Examples, InvalidInput
from hanse.core.exchange import pack
from hanse.learners import softmax
from hanse.network.client import home
from hanse.network.client.audit import AuditLog
from hanse.network.client.enrolment import join, waiting_plans
from hanse.network.client.home import ClientHome
from hanse.network.client.limits import Spent, count_rows
from hanse.network.client.policy import Approvals, Policy
from hanse.network.client.poller import Poller
from hanse.network.client.roles import MOST_RUNS, Roles
from hanse.network.protocol import spool
from hanse.network.protocol.errors import Forbidden, Refused
from hanse.network.protocol.sealed_plan import seal_plan
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.spool import Outgoing, hash_chunks
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.uploads import Spool
from hanse.network.protocol.wire import Plan, WorkOrder
from hanse.network.server.members import Members

PLAN = seal_plan(Plan("run", '{"rounds": 3}', softmax(), (8, 8), 10))


def test_sums_that_are_lost_are_counted_by_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, at = ClientHome(tmp_path), time.time()
    for days_ago, what, ticket, size in (
        (2, "sent", 1, 5),
        (0, "sends", 2, 7),
        (0, "sent", 2, 7),
        (0, "sends", 3, 11),
    ):
        monkeypatch.setattr(time, "time", lambda days=days_ago: at - 86400 * days)
        own.audit.write(what, run="r", ticket=ticket, bytes=size)
    assert (own.spent.of_all("tickets"), own.spent.of_all("upload_bytes")) == (3, 23)
    assert (own.spent.of_today("tickets"), own.spent.of_today("upload_bytes")) == (2, 18)


def test_few_runs_are_open_at_a_time(tmp_path: Path) -> None:
    own, closed = ClientHome(tmp_path), list[str]()

    class Noting:
        def __init__(self, load: Any) -> None:
            self.load = load

        def close(self) -> None:
            closed.append(self.load().plan.run)

    own.enter({"number": 0})
    connection: Any = SimpleNamespace(home=own, say=lambda *said: None)
    roles = Roles(connection, lambda plan: [0] * 10, lambda plan: None, None, Noting)  # type: ignore[arg-type]

    def order(run: str) -> None:
        packed = pack(replace(PLAN, run=run))
        sha256 = hashlib.sha256(packed).hexdigest()
        (own.run(run) / sha256).write_bytes(packed)
        given = {"payload": sha256, "payload_bytes": 1, "plan": sha256, "plan_bytes": len(packed)}
        work = WorkOrder(run=run, ticket=1, task="", limit_bytes=1, work="local_sgd", **given)
        opened = roles.open_run(work, lambda *asked: None)
        role = roles.open_role(run, opened, 0)
        role.forks.committed = {**role.forks.committed, run: True}
        role.keep()

    names = [f"r{number}" for number in range(MOST_RUNS + 1)]
    for name in (*names[:-1], names[0], names[-1]):
        order(name)
    assert closed == ["r1"]
    assert set(roles._runs) == {run for run, _ in roles._roles} == set(names) - {"r1"}
    order("r1")
    assert closed == ["r1", "r2"]
    assert roles.open_role("r1", roles._runs["r1"], 0).forks.committed == {"r1": True}  # as it was


def test_a_policy_bounds_what_is_asked(tmp_path: Path) -> None:
    spent = Spent(tmp_path / "spent.json", begin=lambda day: {"tickets": 1})
    policy = Policy(("evaluate",), ("logistic",), 2, 1000, 500, 10)
    for refused in (
        lambda: policy.check_work("local_sgd", 10),
        lambda: policy.check_work("evaluate", 501),
        lambda: policy.check_plan(PLAN),
        lambda: policy.check_data(9),
        lambda: policy.check_use(Spent(tmp_path / "none", begin=lambda day: {"tickets": 2})),
        lambda: policy.check_use(spent, 1001),
    ):
        with pytest.raises(Forbidden, match="policy"):
            refused()
    with pytest.raises(Forbidden, match=r"10 examples .* can't be counted: give an object whose len"):
        policy.check_data(None)
    policy.check_data(10)
    Policy().check_data(None)
    Policy().check_data(10)
    with pytest.raises(Forbidden, match=r"wants 10 examples .* a smaller min_examples"):
        Policy().check_data(9)
    with pytest.raises(Forbidden, match="wants examples counted in each day"):
        Policy(max_day_examples=100).check_data(None)
    policy.check_work("evaluate", 500)
    policy.check_use(spent, 1000)
    spent.add(download_bytes=1e12)  # in years: max_download_bytes is of what is on the disk at one time
    policy.check_use(spent, 1000, download_bytes=1000)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (Examples(np.zeros((3, 2)), np.zeros(3)), 3),
        (np.zeros((4, 2)), 4),
        (["a text", "another"], 2),
        ({"age": np.zeros(5), "id": np.zeros(5)}, None),
        ((np.zeros(5), np.zeros(5)), None),
        (iter([1, 2]), None),
        ({}, 0),
        ((), 0),
    ],
    ids=["examples", "array", "texts", "columns", "pair", "stream", "no columns", "nothing"],
)
def test_only_what_has_a_length_of_rows_is_counted(data: Any, count: int | None) -> None:
    assert count_rows(data) == count


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("work = ['x']", "did you mean 'works'"),
        ("works = 'x'", "write a list of names"),
        ("max_tickets = true", "write a whole number"),
        ("approve_plans = 1", "write true or false"),
        ("reveals = 'all'", "write one of updates, sums"),
        ("works = [", "is not TOML"),
        ("imports = ['own.py']", r"write a table of digests, such as \{\"my_module.py\""),
        ("imports = {'own.py' = 'sha256:12'}", "write a table of digests"),
    ],
)
def test_a_policy_that_can_not_be_read_says_why(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(InvalidInput, match=why):
        Policy.read(tmp_path / "policy.toml")


def test_a_new_plan_waits_and_shows_what_is_new(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path / "approved.json", AuditLog(tmp_path / "audit.jsonl"))
    with pytest.raises(Forbidden, match=r"hanse approve [0-9a-f]{16}"):
        approvals.check(PLAN)
    approvals.approve(PLAN)
    approvals.check(PLAN)
    approvals.check(replace(PLAN, run="another run"))
    with pytest.raises(Forbidden, match=r"(?s)- rounds = 3.*\+ rounds = 9"):
        approvals.check(replace(PLAN, settings='{"rounds": 9}'))


def test_a_declined_plan_is_told_to_the_operator(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        client_home = here.client_home(4)
        (client_home.folder / "policy.toml").write_text("approve_plans = true")
        run = here.lead(job(fed_avg(lr=0.5, fraction=1.0, close=Close(minimum_fraction=0.5)), 1))
        here.enter()
        here.end(run, status="incomplete")
        assert here.records[-1].usage.counted == 4
        assert "declined: the plan waits for its owner's approval (approval)" in here.events()
        assert [plan.run for plan in waiting_plans(client_home)] == [run]
        assert "sends" not in [line["what"] for line in client_home.audit.lines()]


def test_half_a_line_of_the_audit_log_is_cut_and_the_chain_goes_on(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write("one", bytes=1)
    log.write("two", bytes=2)
    with open(log.path, "a") as file:
        file.write('{"n": 2, "wh')
    again = AuditLog(tmp_path / "audit.jsonl")
    again.write("three")
    assert [line["what"] for line in again.lines()] == ["one", "two", "three"]
    lines = log.path.read_text().splitlines(keepends=True)
    log.path.write_text(lines[0] + lines[2])
    with pytest.raises(InvalidInput, match="line 2: it was changed"):
        AuditLog(log.path).write("four")


def test_threads_and_other_commands_add_to_one_chain(tmp_path: Path) -> None:
    logs = [AuditLog(tmp_path / "audit.jsonl") for _ in range(2)]  # as of `hanse join` and `hanse leave`
    with ThreadPoolExecutor(4) as threads:
        for writing in [threads.submit(logs[i % 2].write, "line", i=i) for i in range(40)]:
            writing.result()
    assert sorted(line["i"] for line in logs[0].lines()) == list(range(40))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "CHUNK_BYTES", 4000)


DATA = b"0123456789" * 1000


def add(given: Spool, data: bytes, offset: int) -> None:
    chunk = given.writing(7, NAME, len(DATA), offset)
    chunk.write(data)
    try:
        chunk.keep(hashlib.sha256(DATA[offset : offset + 4000]).digest())
    finally:
        chunk.close()


NAME = hashlib.sha256(
    b"".join(hashlib.sha256(DATA[at : at + 4000]).digest() for at in (0, 4000, 8000))
).hexdigest()


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_counts_only_if_it_is_whole(tmp_path: Path) -> None:
    given = Spool(tmp_path)
    add(given, DATA[:4000], 0)
    with pytest.raises(Refused, match="Content-Digest"):
        add(given, b"not that", 4000)
    with open(tmp_path / f"7.{NAME}.{len(DATA)}.upload", "ab") as file:
        file.write(DATA[4000:5000])  # of a chunk in whose middle the server was killed
    again = Spool(tmp_path)
    assert again.offset(7, NAME, len(DATA)) == 4000
    add(again, DATA[4000:8000], 4000)
    again = Spool(tmp_path)
    assert not again.finish(7, NAME, len(DATA))
    add(again, DATA[8000:], 8000)
    again = Spool(tmp_path)  # killed before the message was acknowledged
    assert again.offset(7, NAME, len(DATA)) == len(DATA)
    assert again.finish(7, NAME, len(DATA))
    assert Spool(tmp_path).tickets() == again.tickets() == {7: NAME}
    assert again.read(7) == DATA
    again.keep_only(set(), 7)
    assert again.tickets() == {7: NAME}  # not booked yet: it may be wanted
    again.keep_only(set(), 8)
    assert again.tickets() == Spool(tmp_path).tickets() == {}


@pytest.mark.usefixtures("small_chunks")
def test_an_upload_whose_ticket_is_settled_is_forgotten(tmp_path: Path) -> None:
    given = Spool(tmp_path)
    add(given, DATA[:4000], 0)
    for needed, first_unknown in (({7}, 8), (set[int](), 7)):
        given.keep_only(needed, first_unknown)
        assert given.offset(7, NAME, len(DATA)) == 4000
    given.keep_only(set(), 8)
    assert list(tmp_path.iterdir()) == []
    assert given.offset(7, NAME, len(DATA)) == 0


@pytest.mark.usefixtures("small_chunks")
def test_a_message_on_its_way_out_is_what_it_was_or_it_is_made_again(tmp_path: Path) -> None:
    out = Outgoing.write(tmp_path, 7, [DATA[:3], b"", memoryview(DATA)[3:]])
    assert (out.sha256, out.size, out.path.read_bytes()) == (NAME, len(DATA), DATA)
    assert hash_chunks([DATA]) == NAME
    chunk, digest = out.chunk(8000)
    assert chunk == DATA[8000:]
    assert digest == hashlib.sha256(chunk).digest()
    found = Outgoing.find(tmp_path, 7)
    assert found is not None
    assert (found.path, found.size, found.digests) == (out.path, out.size, out.digests)
    os.truncate(out.path, 5000)  # the machine lost power
    assert Outgoing.find(tmp_path, 7) is None
    assert list(tmp_path.iterdir()) == []
    Outgoing.forget(tmp_path, 7)


def test_a_message_answers_what_was_asked_and_not_another_question_of_the_same_number(tmp_path: Path) -> None:
    """A server whose store was restored gives the numbers of its tickets out again."""
    Outgoing.write(tmp_path, 7, [DATA], "ab" * 32)
    assert Outgoing.find(tmp_path, 7, "ab" * 32) is not None
    assert Outgoing.find(tmp_path, 7, "cd" * 32) is None
    assert list(tmp_path.iterdir()) == []
    Outgoing.write(tmp_path, 7, [DATA])  # an earlier version's
    assert Outgoing.find(tmp_path, 7, "cd" * 32) is not None


def test_an_invitation_is_good_once(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    first, number = members.invite()
    secret = Identity.derive(first).public
    key, other = "11" * 32, "22" * 32
    assert members.is_open(first)
    assert members.join(secret, key).number == number == 0
    assert not members.is_open(first)
    assert members.join(secret, key).id == "c0"
    expired = Identity.derive(members.invite(valid_s=-1)[0]).public
    for given, why in ((secret, "used before"), ("ab" * 32, "unknown"), (expired, "expired")):
        for attempt in (members.join, members.invitation):
            with pytest.raises(Refused, match=why):
                attempt(given, other)
    assert members.invitation(secret, key) == 0
    members.rekey("c0", other)
    for attempt in (members.join, members.invitation):
        with pytest.raises(Refused, match="used before"):  # a key that was replaced is nobody's
            attempt(secret, key)
    members.rekey("c0", key)
    members.part("c0", "revoked")
    with pytest.raises(Refused, match="used before"):  # nor are plans for whoever belonged once
        members.invitation(secret, key)
    with pytest.raises(Refused, match="has been revoked"):
        members.join(secret, key)
    members.close()
    members = Members(tmp_path / "members.db")
    assert members.clients() == (frozenset(), 1)
    members.close()


def test_another_certificate_than_the_tokens_is_refused(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        secret, _ = here.server.members.invite()
        with pytest.raises(Refused, match="somebody intercepts the connection"):
            join(
                ClientHome(tmp_path / "client"),
                here.url,
                Token("ab" * 32, secret, here.server.identity.public),
            )


def test_what_a_client_writes_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "LOG_BYTES", 100)
    folder = tmp_path / "client"
    folder.mkdir(mode=0o755)
    kept = ClientHome(folder)
    assert folder.stat().st_mode & 0o077 == 0
    with kept.log() as log:
        for number in range(9):
            log.error("line %d, which may quote a cell of a table", number)
    logs = sorted(folder.glob("client.log*"))
    assert [path.name for path in logs] == ["client.log", "client.log.1"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in logs)


def test_the_log_says_that_the_owner_stopped_the_client(tmp_path: Path) -> None:
    class Interrupted(Poller):
        def run(self) -> str:
            raise KeyboardInterrupt

    class Stopped(Threaded):
        poller = Interrupted

    with federation(tmp_path) as here:
        client = Stopped(here.client_home(0), lambda plan: None, lambda plan: None)
        with pytest.raises(KeyboardInterrupt):
            client.run()
        *_, last = here.client_home(0).audit.lines()
    assert (last["what"], last["how"]) == ("ends", "stopped")
