"""A crowd, a greedy member and a failing one: the others notice nothing, and nothing grows without end."""

import resource
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from federation import CASES, FED_AVG, NUM_CLIENTS, federation, job, simulated

from hanse.core import Key
from hanse.core.exchange import Record, Task
from hanse.network.client.transport import ServerLink, patiently
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.wire import AuditHead, Failure, News, Plans, Poll, Received
from hanse.network.server import https, requests
from hanse.network.server.audit_heads import AuditHeads
from hanse.network.server.failed_tickets import FailedTickets
from hanse.network.server.members import Members
from hanse.network.server.records import MAX_OF_ONE, MAX_TOLD, Events, Outcome, Outcomes, events
from hanse.network.server.runtime import Patience
from hanse.network.server.sockets import RATES, Connections, OpenConnection, Rate, Rates, connections


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Crowd:
    """Connections that a test opens."""

    def __init__(self, most: int) -> None:
        self.clock, self.ended, self.num_crowded = Clock(), list[OpenConnection](), 0
        self.connections = Connections(most, self._count, self.clock)

    def _count(self) -> None:
        self.num_crowded += 1

    def enter(self, address: str, member: str | None = None) -> OpenConnection:
        made: list[OpenConnection] = []
        entered = self.connections.enter(address, lambda: self.ended.append(made[0]))
        assert entered is not None
        made.append(entered)
        if member is not None:
            self.connections.identify(made[0], member)
        return made[0]


# -- connections -----------------------------------------------------------------------------------


def test_the_crowded_address_loses_its_oldest_unknown_connection() -> None:
    crowd = Crowd(20)
    alone, member = crowd.enter("192.0.2.1"), crowd.enter("192.0.2.9", "c1")
    many = [crowd.enter("192.0.2.9") for _ in range(9)]
    assert crowd.connections.find_wait_s() == connections.YOUNG_S  # all of them may become members'
    crowd.clock.now_s += connections.YOUNG_S
    assert crowd.connections.find_wait_s() == 0.0
    crowd.enter("192.0.2.2")
    assert crowd.ended == [many[0]]
    crowd.connections.leave(many[1])
    crowd.connections.leave(many[1])  # once
    crowd.enter("192.0.2.3")
    assert crowd.ended == [many[0]]
    assert (alone.member, member.member) == (None, "c1")
    assert (crowd.connections.num_unknown, crowd.connections.num_known, crowd.num_crowded) == (10, 1, 1)


def test_members_make_room_by_their_second_connections() -> None:
    crowd = Crowd(6)
    first = [crowd.enter("192.0.2.1", f"c{n}") for n in range(4)]
    second = crowd.enter("192.0.2.1", "c2")
    crowd.enter("192.0.2.7")
    assert crowd.connections.find_wait_s() == 0.0
    crowd.enter("192.0.2.8", "c9")
    assert crowd.ended == [first[2]]
    assert second.member == "c2"
    crowd.clock.now_s += 10.0
    crowd.enter("192.0.2.8", "c10")
    assert [each.member for each in crowd.ended] == ["c2", None]
    assert crowd.connections.find_wait_s() == connections.RETRY_S  # each member has one


def test_a_member_has_so_many_connections_and_a_proxy_any_number() -> None:
    crowd = Crowd(200)
    own = [crowd.enter("192.0.2.1", "c1") for _ in range(connections.MEMBER_CONNECTIONS + 1)]
    assert crowd.ended == own[:1]
    crowd.connections.identify(own[0], "c1")  # it has ended
    for _ in range(2 * connections.MEMBER_CONNECTIONS):
        shared = crowd.enter("192.0.2.2", "c1")
        crowd.connections.identify(shared, "c2")
        crowd.connections.identify(shared, "c1")
        assert shared.member == ""
        assert shared not in crowd.ended


def test_two_members_that_share_all_connections_leave_room_for_others() -> None:
    crowd = Crowd(80)  # 10 reserved at most, and 8 are
    others = [crowd.enter("192.0.2.3", f"c{n}") for n in range(3, 23)]
    shared = []
    for _ in range(200):
        shared.append(crowd.enter("192.0.2.2", "c1"))
        crowd.connections.identify(shared[-1], "c2")
    crowd.clock.now_s += 10.0
    others += [crowd.enter("192.0.2.3", f"c{n}") for n in range(23, 33)]
    assert crowd.ended == shared[: len(crowd.ended)]  # the oldest first, and nobody else's
    assert len(shared) - len(crowd.ended) == 72 - len(others)
    last = [crowd.enter("192.0.2.3", f"c{n}") for n in range(33, 35)]
    assert crowd.connections.num_known == 72
    crowd.clock.now_s += 10.0
    assert crowd.connections.enter("192.0.2.4", lambda: None) is None  # half of 80 are shared, and may be
    assert not {*others, *last} & {*crowd.ended}


def test_the_operator_has_places_of_its_own() -> None:
    crowd = Crowd(80)
    for n in range(72):
        crowd.enter("127.0.0.1" if n % 2 else "192.0.2.1", f"c{n}")
    assert crowd.connections.find_wait_s() == 0.0
    assert crowd.connections.enter("192.0.2.1", lambda: None) is None
    assert crowd.num_crowded == 1
    own = [crowd.enter("::1") for _ in range(8)]
    crowd.clock.now_s += 10.0
    crowd.connections.identify(own[0], "c99")  # no operator, though of this machine
    assert crowd.ended == own[:1]
    for each in own[1:]:
        crowd.connections.identify(each, "operator", is_operator=True)
    assert crowd.ended == own[:1]
    crowd.enter("127.0.0.1", "c99")
    crowd.enter("127.0.0.1")
    crowd.clock.now_s += 10.0
    crowd.enter("127.0.0.1")  # in place of the last
    assert [each.member for each in crowd.ended] == ["c99", "c99", None]
    assert all(each not in crowd.ended for each in own[1:])
    crowd.connections.identify(own[1], "c5")
    assert (own[1].member, own[1].is_operator, own[1] in crowd.ended) == ("", False, True)


def test_the_operator_reaches_a_server_whose_connections_two_members_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "count_allowed", lambda num_files: 16)
    monkeypatch.setattr(https, "raise_open_files", lambda: 0)
    with federation(tmp_path, stay=True) as here, ExitStack() as stack:
        houses = [here.client_home(n) for n in range(3)]
        operator = Identity.generate()
        here.server.members.appoint("operator", "operator", operator.public)
        for _ in range(16):
            link = stack.enter_context(closing(houses[0].link()))
            link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
            link.identity, link.key_id = houses[1].identity, "c1"
            link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
        with closing(ServerLink(here.url, link.pem, operator, "operator")) as own:
            assert own.plain("GET", "/v1/status")["clients"] == 3
        with closing(houses[2].link()) as other:
            other.ask("POST", "/v1/work", News, Poll(wait_s=0.0))


def test_a_house_with_many_addresses_is_one() -> None:
    crowd = Crowd(8)
    alone = crowd.enter("2001:db8::1")
    for n in range(3):
        crowd.enter(f"2001:db8:0:1::{n}")
    crowd.clock.now_s += 10.0
    crowd.enter("2001:db8::2")
    assert crowd.ended[0].address == "2001:db8:0:1::"
    assert alone.member is None


CROWD = """
import resource, socket, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []
for _ in range(int(sys.argv[2])):
    held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
    held[-1].sendall(b"\\x16\\x03")  # the beginning of a handshake
print("here", flush=True)
sys.stdin.read()
"""


@contextmanager
def gather(url: str, count: int) -> Iterator[None]:
    """Opens sockets in a process of its own, which begin a TLS handshake and do not go on with it."""
    command = [sys.executable, "-c", CROWD, url.rpartition(":")[2], str(count)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        try:
            yield
        finally:
            process.kill()


def test_a_run_with_a_crowd_at_its_door_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "count_allowed", lambda num_files: 60)
    monkeypatch.setattr(connections, "YOUNG_S", 0.02)
    with federation(tmp_path) as here, gather(here.url, 300):
        run = here.lead(job(FED_AVG, 2))
        here.enter()
        assert here.end(run)["params_sha256"] == simulated(FED_AVG, 2)
        assert "the server: ended a connection, because too many are open" in here.events()


def test_a_server_without_files_goes_on_accepting(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert most[0] == most[1]  # the server has raised it
        client_home = here.client_home(0)
        with closing(client_home.link()) as link, ExitStack() as stack:
            link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
            process = gather(here.url, 200)
            with closing(socket.socket()) as free:
                num_used = free.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (num_used + 40, most[1]))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, most)
            stack.enter_context(process)
            here.wait_for("because too many are open", "there were files enough")
            link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))  # a member's connection is as before
        with closing(client_home.link()) as link:
            link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))


# -- rates -----------------------------------------------------------------------------------------


def test_a_bucket_fills_at_its_rate() -> None:
    clock = Clock()
    rates = Rates({"a": Rate(2.0, 3), "b": Rate(0.1, 1)}, clock)
    for _ in range(3):
        rates.spend("a", "c1")
    with pytest.raises(
        Refused, match=r"too many a; the server takes 2 a second; come back in 1 s"
    ) as refused:
        rates.spend("a", "c1")
    assert (refused.value.status, refused.value.code, refused.value.retry_s) == (429, "busy", 0.5)
    rates.spend("a", "c2")
    clock.now_s += 0.5
    rates.spend("a", "c1")
    with pytest.raises(Refused):
        rates.spend("a", "c1")
    rates.spend("b", "c1")
    with pytest.raises(Refused, match="one in 10 s; come back in 10 s"):
        rates.spend("b", "c1")


def test_a_member_that_asks_too_often_is_told_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "HOLD_S", 0.0)
    with federation(tmp_path, stay=True) as here, closing(here.client_home(0).link()) as link:
        here.server.rates = Rates({**RATES, "requests": Rate(0.1, 2)}, Clock())
        link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
        link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
        pauses: list[float] = []
        with pytest.raises(Refused, match="too many requests"):  # it gives up at the third attempt
            patiently(
                lambda: link.ask("POST", "/v1/work", News, Poll(wait_s=0.0)),
                lambda pause_s: pauses.append(pause_s) or len(pauses) == 3,  # type: ignore[func-returns-value]
            )
        assert pauses == [10.0, 10.0, 10.0]
        with closing(here.client_home(1).link()) as other:
            here.server.rates.spend("requests", "c1")
            other.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
        assert here.events().count("too many requests") == 1
        assert "(and 2 more of this kind)" in here.events()


@pytest.mark.parametrize("what", ["new keys", "failures", "attempts to join"])
def test_what_costs_more_is_limited_by_itself(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "HOLD_S", 0.0)
    with federation(tmp_path, stay=True) as here, closing(here.client_home(0).link()) as link:
        spent: list[tuple[str, str]] = []

        class Full(Rates):
            def spend(self, what: str, who: str) -> None:
                spent.append((what, who))
                if what != "requests":
                    raise Refused(429, "busy", f"too many {what}", retry_s=1.0)

        run = here.lead(job(FED_AVG, 1))
        here.show_up()
        for n in range(NUM_CLIENTS):
            here.client_home(n)
        here.server.rates = Full()
        ticket = link.ask("POST", "/v1/work", News, Poll(wait_s=20.0)).work[0].ticket
        path = f"/v1/runs/{run}/tickets/{ticket}/failure"
        acts = {
            "new keys": lambda: link.plain("POST", "/v1/key"),
            "failures": lambda: link.plain("POST", path, Failure(state="refused", code="data")),
            "attempts to join": lambda: here.client_home(NUM_CLIENTS),
        }
        with pytest.raises(Refused, match=f"too many {what}") as refused:
            acts[what]()
        assert refused.value.retry_s == 1.0
        assert spent[-1][0] == what


# -- evidence --------------------------------------------------------------------------------------


def test_repeated_events_are_counted_and_evict_nobodys(tmp_path: Path) -> None:
    clock = Clock()
    kept = Events(tmp_path / "members.db", clock)
    kept.note("operator", "revoked", source="operator")
    for n in range(10_000):
        kept.note("client 0", f"ticket {n} failed", code="failure data", source="c0")
    for n in range(2 * MAX_OF_ONE):
        kept.note("operator", f"offence {n}", source="c1")  # it calls itself so
    found = kept.read(100_000)
    assert [each[1:] for each in found[:2]] == [
        ("operator", "revoked"),
        ("client 0", "ticket 0 failed (and 9999 more of this kind)"),
    ]
    assert [each[2] for each in found[2:]] == [f"offence {n}" for n in range(MAX_OF_ONE, 2 * MAX_OF_ONE)]
    clock.now_s += events.FOLD_S
    kept.note("client 0", "ticket 7 failed", code="failure data", source="c0")
    kept.note("client 0", "ticket 8 failed", code="failure data", source="c0")
    kept.note("client 0", "x" * 100_000, source="c0")
    kept.close()
    again = Events(tmp_path / "members.db", clock)
    assert [each[2] for each in again.read(2)] == [
        "ticket 7 failed (and 1 more of this kind)",
        "x" * events.MAX_TEXT,
    ]
    again.close()


def test_a_member_that_begins_new_audit_logs_is_blamed_once_an_hour(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    member = members.join(invite(members, number=0), Identity.generate().public)
    heads = AuditHeads(members)
    for begun in range(1, 100):
        assert heads.keep(member, AuditHead(lines=begun + 1, hash="ab" * 32, begun=begun)) is None
    ((_, who, what),) = members.events()
    assert who == "client 0"
    assert what.endswith("the server kept line 0 of the last one (and 98 more of this kind)")
    with closing(sqlite3.connect(tmp_path / "members.db")) as register:
        assert register.execute("SELECT source FROM events").fetchall() == [(member.id,)]
    members.close()


def test_whoever_caused_most_events_loses_its_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 20)
    kept = Events(tmp_path / "members.db")
    kept.note("client 1", "only", source="c1")
    for n in range(100):
        kept.note("run", f"abandoned {n}")
    found = kept.read(100)
    assert len(found) == 20
    assert found[0][2] == "only"
    assert found[-1][2] == "abandoned 99"
    kept.close()


def test_events_of_an_earlier_version_stay(tmp_path: Path) -> None:
    path = tmp_path / "members.db"
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE events (position INTEGER PRIMARY KEY, at REAL, who TEXT, what TEXT)")
        old.execute("INSERT INTO events (at, who, what) VALUES (1.0, 'client 0', 'joined')")
        old.commit()
    for _ in range(2):
        with closing(Events(path)) as kept:
            assert kept.read(10) == [(1.0, "client 0", "joined")]


def test_a_client_that_fails_in_each_round_does_not_evict_anothers_failed_ticket(tmp_path: Path) -> None:
    kept = FailedTickets(tmp_path / "cases")
    for round in range(12):
        payload = tmp_path / f"{round:064}"
        payload.write_bytes(b"model")
        for party in (0, 1) if round == 2 else (0,):
            kept.keep(round, Task(2 * round + party, party, None, None, Key.from_seed(0)), payload)  # type: ignore[arg-type]
    assert kept.kept() == [(2, 0), (2, 1), (9, 0), (10, 0), (11, 0)]


def test_files_beside_the_failed_tickets_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    assert FailedTickets(folder).find_foreign() == []
    folder.mkdir()
    foreign = [folder / name for name in ("1-x-0.case", "mine.payload", "notes.case", "notes.txt")]
    for path in foreign:
        path.write_bytes(b"mine")
    unread, orphan = folder / "1-2-3.case", folder / f"{1:064}.payload"
    unread.write_bytes(b"cut off")
    orphan.write_bytes(b"model")
    payload = tmp_path / f"{2:064}"
    payload.write_bytes(b"model")
    kept = FailedTickets(folder)
    kept.keep(2, Task(7, "hospital-2", None, None, Key.from_seed(0)), payload)  # type: ignore[arg-type]
    assert kept.kept() == [(2, "hospital-2")]
    assert kept.find_foreign() == foreign
    assert {path.name for path in folder.iterdir()} == {
        *(path.name for path in foreign),
        "2-7-hospital-2.case",
        f"{2:064}.payload",
    }


# -- outcomes --------------------------------------------------------------------------------------


def test_an_outcome_waits_for_its_client_for_ever_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.db"
    kept, num_rounds = Outcomes(path), 3 * MAX_TOLD
    for ticket in range(num_rounds):
        kept.record(
            {0: {2 * ticket: Outcome(True, party=0)}, "hospital": {2 * ticket + 1: Outcome(False, "late")}}
        )
        kept.acknowledge("hospital", [2 * ticket + 1])
    assert kept.all_told() == {0: {2 * t: Outcome(True, party=0) for t in range(MAX_TOLD)}}
    kept.close()
    kept, heard = Outcomes(path), list[int]()
    assert kept.told("hospital") == {}
    while told := kept.told(0):
        assert len(told) <= MAX_TOLD
        heard += told
        kept.acknowledge(0, [*told, 1])  # of which one is not its own
    assert heard == [2 * ticket for ticket in range(num_rounds)]
    kept.close()
    assert sqlite3.connect(path).execute("SELECT count(*) FROM outcomes").fetchone() == (0,)


def test_outcomes_that_the_run_decides_again_are_forgotten(tmp_path: Path) -> None:
    kept = Outcomes(tmp_path / "outcomes.db")
    kept.record({0: {n: Outcome(True) for n in range(6)}})
    kept.restore({1: {0: Outcome(False, "late")}}, undecided=(2, 4), next_ticket=5)
    assert {party: sorted(own) for party, own in kept.all_told().items()} == {0: [0, 1, 3], 1: [0]}
    kept.close()


def test_who_does_not_acknowledge_is_told_again_but_not_without_end(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here, closing(here.client_home(0).link()) as link:
        run = here.lead(job(FED_AVG, 1))
        here.server.run(run).mailbox.announce({0: {7: Outcome(True, party=0)}})
        told = [link.ask("POST", "/v1/work", News, Poll(wait_s=20.0)).decisions]
        begun = here.server.presence._decided[0][1]
        here.server.presence._decided[0] = (here.server.presence._decided[0][0], begun - 1.8)
        told.append(link.ask("POST", "/v1/work", News, Poll(wait_s=20.0)).decisions)
        assert here.server.presence._decided[0][1] >= begun + 0.2  # not at once
        assert [[one.ticket for one in each] for each in told] == [[7], [7]]
        know = Poll(wait_s=0.0, know={run: [7]})
        assert link.ask("POST", "/v1/work", News, know).decisions == []


# -- the register ----------------------------------------------------------------------------------


def invite(members: Members, **about: Any) -> str:
    """Invites somebody, and returns the public key of the invitation."""
    return Identity.derive(members.invite(**about)[0]).public


def test_changes_of_the_register_reload_nothing_and_are_as_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = Members(tmp_path / "members.db")
    monkeypatch.setattr(members, "_load", lambda: pytest.fail("the register was loaded again"))
    keys = [Identity.generate().public for _ in range(6)]
    for number, key in ((0, keys[0]), (1, keys[1]), (2, keys[2]), (11, keys[5])):
        member = members.join(invite(members, number=number), key, f"house {number}")
        assert member.number == number
        assert member.party in members.parties()
    key_holder = members.join(invite(members, party="key_holder"), keys[3])
    new = Identity.generate().public
    members.rekey("c1", new)
    members.part("c0", "left")
    members.part(key_holder.id, "revoked")
    other = members.join(invite(members, party="key_holder"), keys[4])
    assert members.clients() == (frozenset({1, 2, 11}), 12)
    assert members.parties() == {1, 2, 11, "key_holder"}
    assert members.find(other.id) == other
    disk = Members(tmp_path / "members.db")
    assert disk.all() == members.all()
    assert (disk.clients(), disk.parties()) == (members.clients(), members.parties())
    ids = [member.id for member in disk.all()]
    assert [disk.key(id) for id in ids] == [members.key(id) for id in ids]
    assert [member.number for member in members.all()] == [None, None, 0, 1, 2, 11]
    with pytest.raises(Refused, match="belongs to another"):
        members.rekey("c2", new)
    members.rekey("c2", keys[1])  # which is nobody's any more
    members.close()
    disk.close()


def test_a_key_that_was_replaced_does_not_join_again(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        invitation, old = invite(here.server.members, number=0), Identity.generate().public
        here.server.members.join(invitation, old)
        here.server.members.rekey("c0", Identity.generate().public)
        with pytest.raises(Refused, match="was used before") as refused:
            here.server.members.join(invitation, old)
        assert refused.value.status == 403


# -- requests that were errors of the server -------------------------------------------------------


def test_numbers_of_many_digits_are_refused(tmp_path: Path) -> None:
    with federation(tmp_path) as here, closing(here.client_home(0).link()) as link:
        run = here.lead(job(FED_AVG, 1))
        for n in range(NUM_CLIENTS):
            here.client_home(n)
        here.show_up()
        order = link.ask("POST", "/v1/work", News, Poll(wait_s=20.0)).work[0]
        path = f"/v1/runs/{run}/tickets/{order.ticket}/message"
        long = {"sha256": "ab" * 32, "size": "9" * 300}
        with pytest.raises(Refused) as refused:
            link.ask("GET", path, Received, params=long)
        assert refused.value.status in (413, 422)
        plan = f"/v1/runs/{run}/objects/{order.plan}"
        asked = link._make_request("GET", plan, headers={"Range": f"bytes={'9' * 5000}-"})
        with closing(link._http.send(asked, stream=True)) as response:
            assert len(response.read()) == order.plan_bytes
        assert link.ask("GET", "/v1/plans", Plans).plans


# -- the end of a run ------------------------------------------------------------------------------


def test_clients_wait_for_a_run_that_failed_and_end_it_in_the_same_bits(tmp_path: Path) -> None:
    scaffold, broken = CASES["scaffold"], [True]

    def watch(record: Record) -> None:
        if record.round == 2 and broken:
            raise RuntimeError("a fault of the server")

    with federation(tmp_path) as here:
        given = job(scaffold, 4, patience=Patience(20.0), watch=watch)
        run = here.server.lead(given)
        here.server.presence.hold_s = 0.1
        here.enter()
        here.end(run, status="failed")
        assert here.server.done.wait(60.0)
        assert not here.server.over
        line = f"run {run} is failed at the server; waiting until its operator serves it again"
        here.wait_until(lambda: here.said.count(line) == NUM_CLIENTS, "a client does not say so")
        assert all(thread.is_alive() for thread in here.threads)
        broken.clear()
        here.server.lead(given, run)
        assert here.end(run)["params_sha256"] == simulated(scaffold, 4)
        for thread in here.threads:
            thread.join(60.0)
            assert not thread.is_alive()


def test_the_operator_ends_the_waiting(tmp_path: Path) -> None:
    def fail(record: Record) -> None:
        raise RuntimeError("a fault of the server")

    with federation(tmp_path, stay=True) as here:
        run = here.server.lead(job(FED_AVG, 1, watch=fail))
        here.enter()
        here.end(run, status="failed")
        here.server.stop_run(run)
        for thread in here.threads:
            thread.join(60.0)
            assert not thread.is_alive()
        assert f"run {run} is failed at the server" in here.said


def test_what_the_operator_can_not_read_fails_no_run(tmp_path: Path) -> None:
    def say(line: str) -> None:
        raise BrokenPipeError

    with federation(tmp_path) as here:
        here.server.say = say
        run = here.lead(job(FED_AVG, 1))
        here.server.run(run).say("hello")
        here.enter()
        here.end(run)
    here.server.presence.wake([0])  # also when the loop has ended
