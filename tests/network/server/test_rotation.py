"""Certificates and keys are replaced without anybody being invited again."""

import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from federation import FED_AVG, NUM_CLIENTS, Federation, federation, job, simulated

from hanse.core.exchange import Record
from hanse.network.client.client import Client
from hanse.network.client.enrolment import join, rotate_key
from hanse.network.client.home import ClientHome
from hanse.network.client.poller import Poller
from hanse.network.protocol import certificates
from hanse.network.protocol.errors import Refused, Unreachable
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import News, Poll, Rekey, Rotation


def until(true: Callable[[], bool], timeout_s: float = 90.0) -> None:
    ended = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if true():
            return
        ended.wait(0.02)
    raise AssertionError("it did not come about")


def know(here: Federation) -> int:
    return len(here.server.rotate(Rotation()).know)


def shown(url: str) -> str:
    host, port = url.removeprefix("https://").split(":")
    return certificates.fingerprint(ssl.get_server_certificate((host, int(port))))


def test_all_clients_follow_the_server_to_another_certificate(tmp_path: Path) -> None:
    rotated: list[str] = []
    with federation(tmp_path) as here:
        old = here.server.fingerprint

        def watch(record: Record) -> None:
            here.records.append(record)
            if record.round == 1:
                rotated.append(here.server.rotate(Rotation()).fingerprint)
                until(lambda: know(here) == NUM_CLIENTS)
                assert here.server.rotate(Rotation(switch=True)).switched

        given = job(FED_AVG, 4, watch=watch)
        run = here.server.lead(given)
        here.enter()
        assert here.end(run)["params_sha256"] == simulated(FED_AVG, 4)
        assert here.server.fingerprint == rotated[0] == shown(here.url) != old
        for thread in here.threads:
            thread.join(60.0)
        for number in range(NUM_CLIENTS):
            client_home = ClientHome(here.folder / f"client-{number}")
            said = [line["what"] for line in client_home.audit.lines() if "certificate" in line["what"]]
            assert said[0] == "certificate announced"
            link = client_home.link()  # over a connection of its own
            link.plain("GET", "/v1/about")
            link.close()
        pem = (tmp_path / "server" / "certificate.pem").read_text()
        assert certificates.fingerprint(pem) == rotated[0]
        assert not list((tmp_path / "server" / "next").iterdir())


def test_who_was_away_is_named_and_comes_back_by_a_token(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        here.lead(job(FED_AVG, 1))
        client_home, away = here.client_home(0), here.client_home(1)
        with pytest.raises(Refused, match="no certificate was announced"):
            here.server.rotate(Rotation(switch=True))
        new = here.server.rotate(Rotation()).fingerprint
        link = client_home.link()
        news = link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
        client_home.expect(news.certificate)
        assert client_home.next_fingerprint == new
        assert not link.ask("POST", "/v1/work", News, Poll(wait_s=0.0, expects=new)).certificate
        with pytest.raises(Refused, match=r"1 clients have not heard of the new certificate \(client 1\)"):
            here.server.rotate(Rotation(switch=True))
        assert here.server.rotate(Rotation(switch=True, anyway=True)).missing == ["client 1"]
        link.close()

        link = client_home.link()
        news = link.ask("POST", "/v1/work", News, Poll(wait_s=0.0, expects=client_home.next_fingerprint))
        client_home.expect(news.certificate)
        kept = client_home.membership or {}
        assert certificates.fingerprint(kept["certificate"]) == new
        assert "next_certificate" not in kept
        assert not link.ask("POST", "/v1/work", News, Poll(wait_s=0.0)).certificate
        link.close()

        link = away.link()
        with pytest.raises(Unreachable):
            link.plain("GET", "/v1/about")
        link.close()
        secret, _ = here.server.members.invite()
        token = Token(new, secret, here.server.identity.public)
        assert join(away, here.url, token).id == "c1"
        link = away.link()
        link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
        link.close()
        assert here.server.members.open_invitations() == 1  # which was not used


class Impatient(threading.Event):
    """An event that is set by whoever waits for it, so that a client ends where it would pause."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        if timeout == 0.0:  # it polls again at once
            return self.is_set()
        self.waits.append(timeout)
        self.set()
        return True


def test_an_announcement_is_heeded(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        home = ClientHome(tmp_path / "client")
        secret, _ = here.server.members.invite(number=0)
        join(home, here.url, Token(here.server.fingerprint, secret, here.server.identity.public))
        new = here.server.rotate(Rotation()).fingerprint
        here.server.presence.hold_s = 0.0
        said: list[str] = []
        client = Client(home, lambda plan: [], lambda plan: None, said.append)
        connection = client._connection
        connection.stopping = stopping = Impatient()
        trusted: list[str] = []
        ask, connection.link.trust = connection.link.ask, trusted.append  # type: ignore[method-assign]

        def ask_twice(*given: Any, **more: Any) -> Any:
            if given[1] != "/v1/work":
                return ask(*given, **more)
            if stopping.waits == [] and len(polls) == 1:
                stopping.set()
            polls.append(None)
            return ask(*given, **more)

        polls: list[None] = []
        connection.link.ask = ask_twice  # type: ignore[method-assign]
        assert Poller(connection, client._tickets, client._roles).run() == "stopped"
        connection.link.close()
        audit = [line["what"] for line in home.audit.lines()]
        assert home.next_fingerprint == new
        assert here.server.rotate(Rotation()).know == ["client 0"]
        assert list(map(certificates.fingerprint, trusted)) == [new]
        assert audit == ["joins", "joined", "polls", "certificate announced", "polls"]
        assert (len(polls), stopping.waits) == (2, [])


def test_a_proxys_certificate_is_announced_too(tmp_path: Path) -> None:
    pem = certificates.make(tmp_path / "proxy", ("fed.example.org",))[0].read_text()
    with federation(tmp_path) as here:
        here.lead(job(FED_AVG, 1))
        here.client_home(0)
        rotated = here.server.rotate(Rotation(certificate=pem))
        assert rotated.fingerprint == certificates.fingerprint(pem)
        assert rotated.missing == ["client 0"]
        assert here.server.rotate(Rotation(switch=True, anyway=True)).switched
        assert here.server.fingerprint == rotated.fingerprint
        assert shown(here.url) != rotated.fingerprint  # the proxy shows it
        assert here.server.rotation.news(here.server.fingerprint, rotated.fingerprint) == pem


def test_a_client_replaces_its_key_and_a_cut_in_between_is_mended(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        here.lead(job(FED_AVG, 1))
        client_home = here.client_home(0)
        before = ClientHome(client_home.folder)
        rotate_key(client_home)
        assert client_home.identity.public != before.identity.public
        link = before.link()
        with pytest.raises(Refused) as refused:
            link.plain("POST", "/v1/work", Poll(wait_s=0.0))
        assert refused.value.code == "unsigned"
        link.close()

        new = Identity.at(
            client_home.folder / "key.next.pem"
        )  # told to the server, and killed before it was kept
        here.server.members.rekey("c0", new.public)
        again = ClientHome(client_home.folder)
        rotate_key(again)
        assert again.identity.public == new.public == ClientHome(client_home.folder).identity.public
        link = again.link()
        link.plain("POST", "/v1/work", Poll(wait_s=0.0))
        link.close()
        assert not (client_home.folder / "key.next.pem").exists()
        assert "client 0: replaced its key" in here.events()


def test_a_key_must_sign_for_itself(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        here.lead(job(FED_AVG, 1))
        first, other = here.client_home(0), here.client_home(1)
        link = first.link()
        for public, proof in (
            (other.identity.public, first.identity.prove("c0")),
            (other.identity.public, other.identity.prove("c0")),
        ):
            with pytest.raises(Refused, match=r"sign for itself|belongs to another"):
                link.plain("POST", "/v1/key", Rekey(public=public, proof=proof))
        link.close()
