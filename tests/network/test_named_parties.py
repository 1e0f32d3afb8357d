"""Members play parties that have names: they join by an invitation, are waited for, and are asked again."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import houses
import pytest
from federation import Federation, InThread, Threaded, federation
from houses import (
    EVERYBODY,
    PARTIES,
    ROUNDS,
    Houses,
    ahead,
    around,
    begin,
    beside,
    never_ready,
    program,
    sha256,
    visit_house,
    visit_later,
)
from learning import nothing
from typer.testing import CliRunner

from hanse.cli import app
from hanse.core import Close, InvalidInput, MessageError, PartyId, Program
from hanse.core.exchange import InMemory, Led, NotReady, Record, Sampled, Task, drive, pack, restore
from hanse.network.client.client import Client
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import Plan
from hanse.network.server import mailbox, runtime
from hanse.network.server.failed_tickets import FailedTickets
from hanse.network.server.https import _appoint, _invite_parties
from hanse.network.server.job import RunJob
from hanse.network.server.mailbox import Mailbox, Offer
from hanse.network.server.members import Members
from hanse.network.server.runtime import OverSelection, Patience

PATIENCE = Patience(silent_s=20.0)


def simulated(algorithm: Any, progress: Any = None) -> tuple[str, list[Record]]:
    store = InMemory()
    led = program(algorithm, progress or begin(algorithm))
    return sha256(drive(led, houses.simulation(store), store).state.params), store.records


def own_role(name: str) -> Any:
    assert name == "server", f"the server was to play {name!r}"
    return Houses().role(name)


def job(algorithm: Any, **options: Any) -> RunJob:
    given = RunJob(
        plan=Plan("", "{}", None, (3,), None),
        begin=lambda: begin(algorithm),
        program=lambda progress: program(algorithm, progress),
        learner=None,
        role=own_role,
        num_clients=houses.NUM_CLIENTS,
        num_present=houses.NUM_CLIENTS,
        patience=PATIENCE,
        parties=PARTIES,
    )
    return replace(given, **options)


def enter(here: Federation, *parties: PartyId, kind: type[Client] = Threaded) -> Client:
    """Starts members in threads; returns the last."""
    for party in parties:
        data, home = Houses().of(party), here.client_home(party)
        (home.folder / "policy.toml").write_text("min_examples = 1")  # a house has few rows
        client = kind(home, lambda plan, data=data: data, nothing, here.said.append)
        here.clients.append(client)
        here.threads.append(threading.Thread(target=client.run, daemon=True))
        here.threads[-1].start()
    return here.clients[-1]


def leave(here: Federation, client: Client) -> None:
    """Stops a member, as if its machine were switched off."""
    client.stop()
    here.server.presence.wake_all()
    thread = here.threads[here.clients.index(client)]
    thread.join(60.0)
    assert not thread.is_alive()


def wait_for_status(here: Federation, run: str, words: str) -> None:
    box = here.server.run(run).mailbox
    here.wait_until(lambda: words in box.doing, f"not {words!r}: {box.doing}")


# -- joining ---------------------------------------------------------------------------------------


def test_a_member_plays_a_party_with_its_own_data_in_the_bits_of_the_simulation(tmp_path: Path) -> None:
    due, records = simulated(around())
    with federation(tmp_path, stay=True) as here:
        run = here.lead(job(around()))
        enter(here, 0, 1, 2)
        wait_for_status(here, run, "waiting for clients: 3 of 4 are present; not heard: hospital")
        assert here.server.status()["parties"] == []
        enter(here, "hospital", kind=Client)  # it computes in a child process
        assert here.end(run)["params_sha256"] == due
        for mine, theirs in zip(here.records, records, strict=True):
            assert mine.usage == replace(theirs.usage, virtual_s=0.0), mine.round
            assert mine.metrics == theirs.metrics
        assert {party for party, _, _ in here.server.runs.traffic(run)} == set(EVERYBODY)
        status = here.server.status()
        assert (status["clients"], status["parties"]) == (3, ["hospital"])
        (member,) = [one for one in here.server.clients() if one["party"] == "hospital"]
        assert member["id"].startswith("hospital-")
        assert (member["number"], member["name"], member["state"]) == (None, "hospital", "active")
        assert member["silent_s"] is not None
        assert member["doing"] in ("waiting", "computing", "uploading", "downloading", "checking")
        with sqlite3.connect(tmp_path / "server" / "members.db") as register:
            rows = register.execute("SELECT number, asked, counted FROM attendance ORDER BY number")
            assert list(rows) == [(party, ROUNDS, ROUNDS) for party in EVERYBODY]
        assert here.server.members.find_uncounted(run) == []


def test_a_name_is_held_by_one_active_member(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        members = here.server.members

        def enrol(home: str, secret: bytes) -> Any:
            token = Token(here.server.fingerprint, secret, here.server.identity.public)
            return join(ClientHome(tmp_path / home), here.url, token)

        first, second = (members.invite(party="key_holder")[0] for _ in range(2))
        joined = enrol("a", first)
        assert (joined.party, joined.number) == ("key_holder", None)
        with pytest.raises(Refused, match=r"another member plays party 'key_holder'.*revoke"):
            enrol("b", second)
        with pytest.raises(InvalidInput, match=rf"'key_holder' is played by {joined.id} .*revoke"):
            members.invite(party="key_holder")
        assert members.part("key_holder", "revoked").id == joined.id
        assert members.parties() == frozenset()
        anew = enrol("b", second)
        assert anew.party == "key_holder"
        assert anew.id != joined.id
        assert members.parties() == {"key_holder"}
        assert members.part("key_holder", "left").id == anew.id
        assert enrol("c", members.invite(party="key_holder", name="the bank's")[0]).name == "the bank's"
        assert here.client_home(0).membership == {**(here.client_home(0).membership or {}), "party": ""}
        assert members.clients() == (frozenset({0}), 1)
        assert members.parties() == {0, "key_holder"}


@pytest.mark.parametrize("name", ["server", "test/3", "3", "a b", "x" * 41, "ärztin", "-"])
def test_not_everything_can_be_the_name_of_a_party(name: str, tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    with pytest.raises(InvalidInput, match="write a letter, then letters, digits"):
        members.invite(party=name)
    with pytest.raises(InvalidInput, match="write a letter, then letters, digits"):
        job(around(), parties=(name,))
    members.close()


@pytest.mark.parametrize("other", [{"role": "observer"}, {"number": 3}])
def test_a_party_is_played_by_a_client_without_a_number(other: Any, tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    with pytest.raises(InvalidInput, match=r"party 'bank' and (role 'observer'|number 3)"):
        members.invite(party="bank", **other)
    members.close()


def test_a_register_of_an_earlier_version_takes_parties_with_names(tmp_path: Path) -> None:
    path = tmp_path / "members.db"
    with sqlite3.connect(path) as old:
        old.executescript(
            "CREATE TABLE members (id TEXT PRIMARY KEY, role TEXT NOT NULL, number INTEGER UNIQUE, "
            "name TEXT NOT NULL, public TEXT NOT NULL UNIQUE, state TEXT NOT NULL, joined REAL NOT NULL);"
            "CREATE TABLE invitations (secret_sha256 TEXT PRIMARY KEY, role TEXT NOT NULL, "
            "number INTEGER UNIQUE, name TEXT NOT NULL, expires REAL NOT NULL, used_by TEXT);"
            "PRAGMA user_version = 1;"
        )
        key = Identity.generate().public
        old.execute("INSERT INTO members VALUES ('c4', 'client', 4, 'a', ?, 'active', 1.0)", (key,))
    for _ in range(2):  # it is renewed once
        members = Members(path)
        assert members.parties() - {"bank"} == {4}
        if "bank" not in members.parties():
            invitation = Identity.derive(members.invite(party="bank")[0]).public
            members.join(invitation, Identity.generate().public)
        assert members.parties() == {4, "bank"}
        members.close()


def test_the_join_line_names_the_party_until_somebody_plays_it(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        said: list[str] = []
        _invite_parties(here.server, here.url, ("bank", "hospital"), said.append)
        here.client_home("bank")
        assert said[0].startswith("0 of 2 named parties have joined")
        assert [line.split()[0] for line in said[1:]] == ["bank:", "hospital:"]
        assert "--home hanse-client-hospital --data FILE" in said[2]
        token = said[2].split("--token ")[1].split()[0]
        assert join(ClientHome(tmp_path / "h"), here.url, Token.parse(token)).party == "hospital"
        said.clear()
        _invite_parties(here.server, here.url, ("bank", "hospital"), said.append)
        assert said == []


def test_an_operator_invites_a_party_and_sees_it(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        _appoint(here.server, here.url, (tmp_path / "server" / "certificate.pem").read_text())

        def typed(*words: str, code: int = 0) -> str:
            given = CliRunner().invoke(app, [*words, "--home", str(tmp_path / "server" / "operator")])
            assert given.exit_code == code, given.output
            return given.output

        line = typed("invite", "--party", "key_holder")
        assert "--home hanse-client-key_holder --data FILE" in line
        join(ClientHome(tmp_path / "k"), here.url, Token.parse(line.split("--token ")[1].split()[0]))
        assert "\n0 clients, key_holder, 0 open invitations" in "\n" + typed("status")
        assert any(
            row.startswith("key_holder-") and " active " in row for row in typed("clients").splitlines()
        )
        assert "'key_holder' is played by key_holder-" in typed("invite", "--party", "key_holder", code=1)
        assert "can't be the name of a party" in typed("invite", "--party", "server", code=1)
        assert typed("revoke", "key_holder") == "key_holder is revoked\n"
        assert "\n0 clients, 0 open invitations" in "\n" + typed("status")


def test_a_member_with_a_name_plays_nobody_else(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        client = Client(here.client_home("hospital"), lambda plan: [], nothing)
        for party in (0, "bank", "test/0", "test/hospital", "server"):
            with pytest.raises(MessageError, match="does not play"):
                client._roles.open_role("a", None, party)  # type: ignore[arg-type]
        client.stop()


def test_failed_tickets_are_kept_by_the_name_of_the_party(tmp_path: Path) -> None:
    payload = tmp_path / ("0" * 64)
    payload.write_bytes(pack({}))
    failed = FailedTickets(tmp_path / "cases")
    for number, party in enumerate([2, "key-holder", 10]):
        failed.keep(7, Task(number, party, houses.KEYS.public, None), payload)
    assert failed.kept() == [(7, 2), (7, 10), (7, "key-holder")]


# -- waiting ---------------------------------------------------------------------------------------


def switch_off(here: Federation, given: RunJob, after: int, silent_s: float) -> tuple[str, Client]:
    """Leads a run whose hospital is switched off after a round, and was last heard so long ago."""
    left = threading.Event()

    def watch(record: Record) -> None:
        here.records.append(record)
        if record.round == after and not left.is_set():
            leave(here, hospital)
            here.server.presence.hear("hospital", -silent_s)
            left.set()

    run = here.server.lead(replace(given, watch=watch))
    hospital = enter(here, *EVERYBODY)
    assert left.wait(60.0)
    return run, hospital


def test_who_is_away_for_a_while_costs_no_round_and_no_bit(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run, _ = switch_off(here, job(around()), after=2, silent_s=500.0)
        wait_for_status(here, run, "waiting for clients: 0 of 1 are present; not heard: hospital")
        assert [record.round for record in here.records] == [0, 1, 2]
        enter(here, "hospital")
        assert here.end(run)["params_sha256"] == simulated(around())[0]
        assert [record.abandoned for record in here.records] == [None] * (ROUNDS + 1)
        assert [record.usage.dropped for record in here.records] == [0] * (ROUNDS + 1)


def test_who_is_really_away_costs_no_round_either(tmp_path: Path) -> None:
    """The hospital is away for more than thrice the time after which clients are given up."""
    with federation(tmp_path) as here:
        run, _ = switch_off(here, job(around(), patience=Patience(silent_s=0.3)), after=2, silent_s=0.0)
        began_s = time.monotonic()
        wait_for_status(here, run, "not heard: hospital")
        mailbox = here.server.run(run).mailbox
        here.wait_until(lambda: mailbox.silent_s("hospital") > 1.0, "time stands still")
        assert time.monotonic() - began_s > 0.5
        enter(here, "hospital")
        assert here.end(run)["params_sha256"] == simulated(around())[0]
        assert [record.abandoned for record in here.records] == [None] * (ROUNDS + 1)


def test_a_wait_that_is_over_interrupts_the_run_which_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        run, _ = switch_off(here, job(around()), after=2, silent_s=601.0)
        here.end(run, status="interrupted")
        led = here.server.run(run)
        assert led.reason.startswith(
            "hospital is away, and the run can't go on without it: nothing was heard"
        )
        assert here.server.runs.info(run).status == "interrupted"
        assert [record.round for record in here.records] == [0, 1, 2]
        here.lead(job(around()), run)
        wait_for_status(here, run, "not heard: hospital")  # before it begins
        enter(here, "hospital")
        assert here.end(run)["params_sha256"] == simulated(around())[0]
        assert [record.round for record in here.records] == list(range(ROUNDS + 1))


def test_a_member_that_was_revoked_is_waited_for_and_named(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run, _ = switch_off(here, job(around()), after=2, silent_s=0.0)
        here.server.part("hospital", "revoked")
        wait_for_status(here, run, "not heard: hospital")
        here.server.presence.hear("hospital", -601.0)
        here.end(run, status="interrupted")
        assert "without it: it left, or was revoked. Serve it again" in here.server.run(run).reason


class Later:
    """A clock that can be set forward."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


def test_the_time_of_an_exchange_begins_when_all_are_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round may take an hour, and the hospital is away for two."""
    clock = Later()
    monkeypatch.setattr(runtime, "time", clock)
    with federation(tmp_path) as here:
        run, _ = switch_off(here, job(around()), after=2, silent_s=500.0)
        wait_for_status(here, run, "not heard: hospital")
        clock.ahead_s = 2 * PATIENCE.round_s
        enter(here, "hospital")
        assert here.end(run)["params_sha256"] == simulated(around())[0]


class FailingBackend(InThread):
    def compute(self, *ticket: Any) -> Any:
        raise RuntimeError("no such luck")


class Failing(Threaded):
    backend = FailingBackend


def test_a_party_that_fails_interrupts_the_run_after_three_attempts(tmp_path: Path) -> None:
    said: list[str] = []
    with federation(tmp_path, stay=True) as here:
        here.server.say = said.append
        run = here.lead(job(around(), patience=Patience(silent_s=2.0)))  # so polls are answered soon
        enter(here, 0, 1, 2)
        failing = enter(here, "hospital", kind=Failing)
        here.end(run, status="interrupted")
        assert here.server.run(run).reason.startswith(
            "round 1 was attempted 3 times: 0 of 1 contributions were counted, 1 are needed; the first "
            "that was not: hospital (failed once downloaded: an error"
        )
        assert [record.round for record in here.records] == [0, 1, 1, 1]
        assert here.server.runs.info(run).status == "interrupted"
        assert not [line for line in said if "counted" in line and "interrupted" not in line], (
            "an attempt is no round that lacks somebody"
        )
        assert [case[0] for case in here.server.run(run).failed_tickets.kept()] == [1]
        here.lead(job(around(), patience=Patience(silent_s=2.0)), run)
        here.end(run, status="interrupted")
        assert [case[0] for case in here.server.run(run).failed_tickets.kept()] == [1], "it is round 1 still"
        leave(here, failing)
        here.lead(job(around()), run)
        enter(here, "hospital")
        due, _ = simulated(around(), replace(begin(around()), first={"norm": 0.0}, attempts=6))
        assert here.end(run)["params_sha256"] == due
        assert here.server.members.find_uncounted(run) == []


def test_served_attempts_draw_as_simulated_ones(tmp_path: Path) -> None:
    failing = around(visit_house(fails=0.1))
    due, records = simulated(failing)
    with federation(tmp_path) as here:
        run = here.lead(job(failing))
        enter(here, *EVERYBODY)
        assert here.end(run)["params_sha256"] == due
        assert [(r.round, r.abandoned is None) for r in here.records] == [
            (r.round, r.abandoned is None) for r in records
        ]
        with sqlite3.connect(tmp_path / "server" / "members.db") as register:
            rows = register.execute("SELECT number, asked, counted FROM attendance ORDER BY number")
            assert list(rows) == [(party, ROUNDS, ROUNDS) for party in EVERYBODY]


def test_a_member_without_a_wait_is_given_up_and_reported_by_name(tmp_path: Path) -> None:
    said: list[str] = []
    together = around(close=Close(minimum_fraction=0.5), cohorts=(EVERYBODY,))
    with federation(tmp_path) as here:
        here.server.say = said.append
        run = here.lead(job(together))
        enter(here, 0, 1, 2)
        enter(here, "hospital", kind=Failing)
        here.end(run, status="incomplete")
        why = "hospital: failed once downloaded: an error, which its own log describes (internal)"
        assert said.count(f"run {run}: round 1 counted 3 of 4 clients; {why}") == 1
        assert f"hospital: run {run}: ticket 3 is not counted: failed once" in here.events()


# -- over-selection --------------------------------------------------------------------------------


def hear(program: Program[Any], heard: Callable[[Any], None]) -> Program[Any]:
    """Performs a program, and shows each of its events."""
    try:
        command = next(program)
        while True:
            event = yield command
            heard(event)
            command = program.send(event)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("cut", [None, 3], ids=str)
def test_more_are_asked_than_counted_of_a_sample_and_never_of_a_cohort_that_is_named(
    cut: int | None, tmp_path: Path
) -> None:
    """Also where both are the same clients in the same order, and if the run is cut after it sampled."""
    drawn: list[Any] = []
    with federation(tmp_path, stay=True) as here:

        def heard(event: Any) -> None:
            is_dry = threading.current_thread() is threading.main_thread()  # what the plan will list
            if isinstance(event, Sampled) and not is_dry:
                drawn.append(event.cohort)
                if len(drawn) == cut:
                    here.server.led()[0].mailbox.stop()

        given = job(
            beside(),
            program=lambda progress: hear(program(beside(), progress, rounds=6), heard),
            patience=Patience(20.0, over_select=2.0),
            num_clients=2,
            num_present=2,
            parties=(),
        )
        run = here.lead(given)
        enter(here, 0, 1)
        if cut is not None:
            here.end(run, status="interrupted")
            here.lead(given, run)
        here.end(run)
        if cut is not None:
            assert drawn[cut - 1] == drawn[cut], "the sample came from the journal"
        assert {(0, 1), (1, 0)} == set(drawn), "both orders were drawn, or this shows nothing"
        assert [record.usage.counted for record in here.records] == [0] + [2 + 1 + 2] * 6
        assert [record.usage.dropped for record in here.records] == [0] + [1] * 6


def test_an_over_selection_of_an_earlier_version_can_be_read() -> None:
    skeleton = '{"$":"OverSelection","cohort":[1,0],"wanted":1,"new":false}'
    assert restore(skeleton, {}) == OverSelection((1, 0), 1)


# -- results that do not exist yet -----------------------------------------------------------------


@contextmanager
def early(party: PartyId, exists: Callable[[], bool]) -> Iterator[None]:
    houses.EARLY[houses.key_of(Houses().of(party))] = exists
    try:
        yield
    finally:
        houses.EARLY.clear()


class Twice:
    """Says no twice, then yes."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked > 2


@pytest.mark.parametrize("party", ["hospital", "server"])
def test_a_result_that_does_not_exist_yet_is_asked_for_again(party: PartyId, tmp_path: Path) -> None:
    due, _ = simulated(around(visit_later()))
    algorithm, store, refused = around(visit_later()), InMemory(), 0
    with early(party, Twice()):
        led = Led(program(algorithm, begin(algorithm)), houses.simulation(store), store)
        while not led.done:
            try:
                led.step()
            except NotReady:
                refused += 1
    assert (refused, sha256(led.result.state.params)) == (2, due)
    with federation(tmp_path) as here, early(party, Twice()):
        run = here.lead(job(algorithm, patience=Patience(silent_s=600.0)))
        enter(here, *EVERYBODY)
        ended = here.end(run, timeout_s=45.0)  # each poll would be held for 25 s, if nothing woke it
        assert ended["params_sha256"] == due, "the attempts before have changed no memory"
        assert [record.abandoned for record in here.records] == [None] * (ROUNDS + 1)
        assert [record.usage.dropped for record in here.records] == [0] * (ROUNDS + 1)
        assert "not counted" not in here.events()
        assert here.server.run(run).failed_tickets.kept() == []


@pytest.mark.parametrize("party", ["hospital", "server"])
def test_a_result_that_does_not_exist_yet_is_not_overtaken(party: PartyId, tmp_path: Path) -> None:
    """Both tickets are open, and the second goes on from the memory of the first."""
    later, asked = ahead(party, visit_later()), list[None]()
    due, _ = simulated(later)

    def exists() -> bool:
        asked.append(None)
        return len(asked) > 1

    with federation(tmp_path) as here, early(party, exists):
        run = here.lead(job(later, num_clients=0, patience=Patience(silent_s=600.0)))
        enter(here, "hospital")
        ended = here.end(run, timeout_s=20.0)  # a poll would be held for 25 s, if nothing woke it
        assert ended["params_sha256"] == due
        assert len(asked) == 1 + 2 * ROUNDS, "the second was asked once in each round"


def test_an_offer_waits_for_the_postponed_one_that_it_goes_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, woken = Later(), list[Any]()
    monkeypatch.setattr(mailbox, "time", clock)
    box = Mailbox(woken.extend, lambda party: 0.0, lambda: (frozenset(), 0), lambda: frozenset({3}))
    chain = {5: None, 6: 5, 7: 6, 8: None}  # 8 is of the client's own test examples
    box.post(Offer(ticket, 3, b"", "0" * 64, 1, 1, "work", after=after) for ticket, after in chain.items())

    def offered() -> list[int]:
        return [offer.ticket for offer in box.offers(3)]

    assert offered() == [5, 6, 7, 8]
    delay_s = box.postpone(5)
    assert offered() == [8]
    clock.ahead_s = delay_s + 1.0
    assert offered() == [5, 8], "6 would begin before 5 exists"
    woken.clear()
    box.arrive(5)
    assert (offered(), woken) == ([6, 7, 8], [3])
    box.postpone(6)
    assert offered() == [8]
    box.close([6])
    assert offered() == [7, 8]
    woken.clear()
    box.arrive(8)
    assert woken == []


def test_the_status_says_who_is_asked_again(tmp_path: Path) -> None:
    """Both the hospital's child process and the server's own role have no result yet."""
    never = around(never_ready(), cohorts=(("server", "hospital"),))  # type: ignore[arg-type]
    with federation(tmp_path) as here:
        run = here.lead(replace(job(never), num_clients=0))
        enter(here, "hospital", kind=Client)
        due = "heard 0 of 1, 0 failed; not ready yet, and asked again: hospital, server"
        wait_for_status(here, run, due)
        assert here.server.status()["runs"][0]["not_ready"] == 1
        assert any("ticket 1 is not ready yet: it does not exist yet" in line for line in here.said)
        here.server.run(run).mailbox.stop()
        here.end(run, status="interrupted")
    assert not (tmp_path / "client-hospital" / "client.log").read_text()


def test_whatever_never_exists_is_too_late_in_the_end(tmp_path: Path) -> None:
    never = around(never_ready(), Close(deadline_s=0.3), (("server",),))  # type: ignore[arg-type]
    with federation(tmp_path) as here:
        given = job(never, program=lambda progress: program(never, progress, rounds=1))
        here.end(here.lead(replace(given, num_clients=0, parties=())))
        assert here.records[-1].abandoned == (
            "0 of 1 contributions were counted, 1 are needed; the first that was not: server "
            "(it was too late)"
        )


def test_an_offer_comes_back_later_and_later() -> None:
    woken: list[Any] = []
    mailbox = Mailbox(woken.extend, lambda party: 0.0, lambda: (frozenset(), 0), lambda: frozenset({"bank"}))
    mailbox.post([Offer(5, "bank", b"", "0" * 64, 1, 1, "work")])
    assert [offer.ticket for offer in mailbox.offers("bank")] == [5]
    delays = [mailbox.postpone(5) for _ in range(8)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert mailbox.offers("bank") == []
    assert mailbox.find_postponed_tickets([5, 6]) == [5]
    mailbox.arrive(5)
    assert mailbox.find_postponed_tickets([5]) == []
