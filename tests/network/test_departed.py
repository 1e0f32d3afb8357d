"""Members that are gone: what they sent to an open exchange is dropped, and others may have their numbers."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from federation import FED_AVG, NUM_CLIENTS, Federation, federation, job, simulated
from test_hostile import LIAR, Without
from test_kill import free_port

from hanse.network.client.home import ClientHome
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.spool import Outgoing
from hanse.network.protocol.uploads import Spool
from hanse.network.protocol.wire import News, Poll
from hanse.network.server.https import _invite
from hanse.network.server.members import Members

LAST = 0
"""The client that the open exchange waits for."""


def await_message(here: Federation, run: str) -> int:
    """Waits until all but the last have answered the open exchange; returns the liar's ticket."""
    box = here.server.run(run).mailbox

    def answered() -> list[int]:
        return [o.ticket for n in range(NUM_CLIENTS) for o in box._offers.get(n, {}).values()]

    here.wait_until(
        lambda: len(answered()) == NUM_CLIENTS and sum(map(box.has, answered())) == NUM_CLIENTS - 1,
        "not all have answered",
    )
    (ticket,) = (t for t, offer in box._holders.items() if offer.party == LIAR)
    return ticket


def test_an_arrived_message_of_a_revoked_client_is_dropped(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 1))
        here.client_home(LAST)
        here.show_up()
        here.enter(range(1, NUM_CLIENTS))
        ticket = await_message(here, run)
        here.server.part(f"c{LIAR}", "revoked")
        assert f"client {LIAR}: revoked; 1 of its messages that had arrived are dropped" in here.events()
        box = here.server.run(run).mailbox
        here.wait_until(lambda: box.doing == "heard 3 of 5, 1 failed", box.doing)
        here.enter([LAST])
        assert here.end(run)["params_sha256"] == simulated(FED_AVG, 1, Without())
        assert f"ticket {ticket} is not counted: it left, or was revoked" in here.events()
        assert [record.usage.counted for record in here.records] == [0, NUM_CLIENTS - 1]
        assert not here.server.run(run).mailbox.outcomes().get(LIAR)  # nobody would acknowledge them


@pytest.mark.parametrize("replace", [False, True], ids=["gone", "replaced"])
def test_it_is_dropped_by_a_server_that_is_served_again(replace: bool, tmp_path: Path) -> None:
    """It was revoked before the run had read its spool, and perhaps another has its number already."""
    port = free_port()
    with federation(tmp_path, port=port) as here:
        run = here.lead(job(FED_AVG, 1))
        here.client_home(LAST)
        here.show_up()
        here.enter(range(1, NUM_CLIENTS))
        ticket = await_message(here, run)
    with federation(tmp_path, port=port) as here:
        here.server.part(f"c{LIAR}", "revoked")
        numbers = [*range(1, LIAR), LAST]
        if replace:
            (tmp_path / f"client-{LIAR}").rename(tmp_path / "gone")
            assert here.client_home(LIAR).membership["id"] != f"c{LIAR}"  # type: ignore[index]
            numbers.append(LIAR)
        led = here.lead(job(FED_AVG, 1), run)
        assert led == run
        here.enter(numbers)
        due = simulated(FED_AVG, 1) if replace else simulated(FED_AVG, 1, Without())
        assert here.end(run)["params_sha256"] == due
        log = ClientHome(tmp_path / f"client-{LIAR}").audit.lines()
        assert ticket in [line["ticket"] for line in log if line["what"] == "sent"]


def test_an_upload_that_ends_after_the_revocation_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 1))
        links = [here.client_home(number).link() for number in range(NUM_CLIENTS)]
        here.show_up()
        (work,) = links[LIAR].ask("POST", "/v1/work", News, Poll(wait_s=20)).work
        finish: Callable[..., bool] = Spool.finish

        def revoke_first(self: Spool, *message: object) -> bool:
            here.server.part(f"c{LIAR}", "revoked")
            return finish(self, *message)

        monkeypatch.setattr(Spool, "finish", revoke_first)
        led = here.server.run(run)
        with pytest.raises(Refused, match="has been revoked"):
            links[LIAR].upload(run, work.ticket, Outgoing.write(tmp_path, work.ticket, [b"late"]))
        assert not led.mailbox.has(work.ticket)
        assert work.ticket not in led.spool.tickets()
        for link in links:
            link.close()
        led.mailbox.stop()


def test_a_poll_that_is_held_tells_a_revoked_client(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        here.enter([LIAR])
        here.wait_until(lambda: here.server.presence.waiting == 1, "it does not wait")
        here.server.part(f"c{LIAR}", "revoked")
        here.threads[0].join(20.0)  # a poll is held for 25 s otherwise
        assert not here.threads[0].is_alive()


def test_a_number_that_is_free_is_given_to_another(tmp_path: Path) -> None:
    """A run that has not begun invites somebody in place of those who are gone."""
    port = free_port()
    with federation(tmp_path, port=port) as here:
        for number in range(NUM_CLIENTS):
            here.client_home(number)
        here.server.part("c1", "left")
        here.server.part("c3", "revoked")
    with federation(tmp_path, port=port) as here:
        lines: list[str] = []
        _invite(here.server, here.url, NUM_CLIENTS, lines.append, replace_departed=True)
        assert [line.split("--home hanse-client-")[1][0] for line in lines[1:]] == ["1", "3"]
        for number in (1, 3):
            (tmp_path / f"client-{number}").rename(tmp_path / f"gone-{number}")
        run = here.lead(job(FED_AVG, 2))
        here.enter()
        assert here.end(run)["params_sha256"] == simulated(FED_AVG, 2)
        states = {one["id"]: one["state"] for one in here.server.clients() if one["number"] in (1, 3)}
        assert {states["c1"], states["c3"]} == {"left", "revoked"}
        assert list(states.values()).count("active") == 2
        gone = ClientHome(tmp_path / "gone-3").link()
        with pytest.raises(Refused, match="has been revoked"):
            gone.ask("POST", "/v1/work", News, Poll())
        gone.close()
        assert here.server.members.find_uncounted(run) == []


def test_numbers_are_reserved_freed_and_taken_over(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    keys = [Identity.generate().public for _ in range(4)]
    secrets = [members.invite()[0] for _ in range(3)]
    for secret, key in zip(secrets, keys, strict=False):
        members.join(Identity.derive(secret).public, key)
    with pytest.raises(Exception, match="number 1 is taken"):
        members.invite(number=1)
    members.part("1", "revoked")
    one, number = members.invite()
    assert number == 1  # the lowest that is free
    assert members.invite()[1] == 3  # for 1 is reserved now
    members.note("client 1", "before")
    assert members.join(Identity.derive(one).public, keys[3]).party == 1
    assert members.clients() == (frozenset({0, 1, 2}), 3)
    assert members.part("1", "revoked").public == keys[3]  # the active one of two
    members.close()


def test_a_register_with_unique_numbers_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "members.db"
    with sqlite3.connect(path) as old:
        old.executescript(
            "CREATE TABLE members (id TEXT PRIMARY KEY, role TEXT NOT NULL, number INTEGER UNIQUE, "
            "name TEXT NOT NULL, public TEXT NOT NULL UNIQUE, state TEXT NOT NULL, joined REAL NOT NULL, "
            "party TEXT); CREATE TABLE invitations (secret_sha256 TEXT PRIMARY KEY, role TEXT NOT NULL, "
            "number INTEGER UNIQUE, name TEXT NOT NULL, expires REAL NOT NULL, used_by TEXT, party TEXT);"
            "PRAGMA user_version = 2;"
        )
        key = Identity.generate().public
        old.execute("INSERT INTO members VALUES ('c0', 'client', 0, 'a', ?, 'left', 1.0, NULL)", (key,))
        old.execute("INSERT INTO invitations VALUES ('used', 'client', 0, 'a', 1.0, ?, NULL)", (key,))
    for turn in range(2):  # it is renewed once
        members = Members(path)
        secret, number = members.invite()
        assert number == turn
        members.join(Identity.derive(secret).public, Identity.generate().public)
        assert [m.state for m in members.all() if m.number == 0] == ["left", "active"]
        members.close()
