"""Whoever ends TLS between client and server reads everything, and can neither take nor fake anything."""

import base64
import json
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from federation import FED_AVG, Federation, federation, job
from played import Heard, HostileServer

from hanse.core import InvalidInput
from hanse.network.client import enrolment, transport
from hanse.network.client.enrolment import check, fetch_plans, join, leave, rotate_key
from hanse.network.client.home import NEXT_KEY, ClientHome
from hanse.network.protocol.answers import AnswerVerifier
from hanse.network.protocol.asked import Asked
from hanse.network.protocol.certificates import fingerprint, make, pin
from hanse.network.protocol.errors import Refused, Unreachable
from hanse.network.protocol.signing import Identity, sha256
from hanse.network.protocol.spool import Outgoing
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import News, Poll, Receipt
from hanse.network.server.members import Members

HOPS = ("connection", "content-length", "transfer-encoding", "host", "date")


class Between:
    """Ends TLS before a server. It forwards everything, unless `lie` answers a request itself."""

    def __init__(self, here: Federation, folder: Path) -> None:
        self.url = here.url
        self.pem = (here.folder / "server" / "certificate.pem").read_text()
        self.http = httpx.Client(verify=pin(self.pem), timeout=60.0)
        self.lie: Callable[[Heard], Iterable[bytes] | None] = lambda heard: None
        self.played = HostileServer(folder, self.answer)
        here.url = self.played.url
        here.server.fingerprint = fingerprint(self.played.pem)

    def forward(self, heard: Heard, method: str = "", path: str = "", **headers: str) -> httpx.Response:
        """Asks the server in the client's place, perhaps for something else."""
        given = {k: v for k, v in heard.headers.items() if k not in HOPS} | headers
        url = self.url + (path or heard.path)
        return self.http.request(method or heard.method, url, content=heard.body, headers=given)

    def answer(self, heard: Heard) -> Iterable[bytes]:
        lie = self.lie(heard)
        return write(self.forward(heard)) if lie is None else lie


def write(response: httpx.Response) -> Iterator[bytes]:
    headers = {k: v for k, v in response.headers.items() if k not in HOPS}
    yield http(response.status_code, response.content, **headers)


def http(status: int, body: bytes | str, **headers: str) -> bytes:
    body = body if isinstance(body, bytes) else body.encode()
    lines = "".join(f"{k}: {v}\r\n" for k, v in {**headers, "content-length": str(len(body))}.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


@contextmanager
def between(folder: Path) -> Iterator[tuple[Federation, Between]]:
    with federation(folder, stay=True) as here:
        here.lead(job(FED_AVG, 1))
        proxy = Between(here, folder / "between")
        with proxy.played, proxy.http:
            yield here, proxy


def invite(here: Federation, number: int = 0) -> Token:
    secret, _ = here.server.members.invite(number=number)
    return Token(here.server.fingerprint, secret, here.server.identity.public)


def test_an_invitation_can_not_be_taken_on_its_way(tmp_path: Path) -> None:
    with between(tmp_path) as (here, proxy):
        token, house = invite(here), ClientHome(tmp_path / "client")
        assert [plan.run for plan in fetch_plans(house, here.url, token)[0]]
        proxy.lie = lambda heard: [http(200, "{}")] if heard.path == "/v1/join" else None  # it holds it back
        with pytest.raises(Refused, match="not signed by the server"):
            join(house, here.url, token)
        assert house.membership is None

        thief = Identity.generate()
        heard = {request.path: request for request in proxy.played.heard}
        for stolen in (heard["/v1/check"], heard["/v1/join"]):
            for invitation in (stolen.headers["invitation"], "", None):
                given = lower(thief.sign(thief.public, "POST", proxy.url + "/v1/join", sha256(stolen.body)))
                asked = Asked.read("POST", "https://a/v1/join", given)
                own = thief.permit(thief.public, asked) if invitation is None else invitation
                answer = proxy.forward(stolen, path="/v1/join", **{**given, "invitation": own})
                assert (answer.status_code, answer.json()["code"]) == (403, "token")
        assert proxy.forward(heard["/v1/check"]).json()["code"] == "replayed"
        assert proxy.forward(heard["/v1/check"], path="/v1/join").json()["code"] == "unsigned"
        assert here.server.members.active("client") == []

        proxy.lie = lambda heard: None
        assert join(house, here.url, token).id == "c0"
        sent = b"\n".join(
            part.encode("latin-1") if isinstance(part, str) else part
            for request in proxy.played.heard
            for part in (request.path, request.body, *request.headers.values())
        )
        raw = token.secret
        for spelling in (
            raw,
            raw.hex().encode(),
            base64.b64encode(raw)[:-3],
            base64.urlsafe_b64encode(raw)[:-3],
        ):
            assert spelling not in sent
        assert str(token).encode() not in sent


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): text for name, text in headers.items()}


Lie: TypeAlias = Callable[[Between, Heard], Iterable[bytes]]


def say(status: int, **body: object) -> Lie:
    return lambda proxy, heard: [http(status, json.dumps(body))]


LIES: dict[str, Lie] = {
    "left": say(200, what="left", id="c0", time=1.0),
    "rekeyed": say(200, what="rekeyed", id="c0", time=1.0),
    "has left": say(403, code="left", why="you have left"),
    "revoked": say(403, code="revoked", why="you were revoked"),
    "token": say(403, code="token", why="it was used before"),
    "late": say(410, code="late", why="the ticket is closed"),
    "unsigned": say(401, code="unsigned", why="nobody knows your key"),
    "skewed": say(401, code="skewed", why="your clock is wrong", time=4e9),
    "replayed": say(401, code="replayed", why="I heard that before"),
    "away": lambda proxy, heard: [http(503, "<html>")],
    "another page": lambda proxy, heard: [http(302, "", location="https://127.0.0.1:1/")],
    "durable": say(200, offset=4, durable=True),
    "hung up": lambda proxy, heard: hang_up(),
    "an answer to an earlier request": lambda proxy, heard: [proxy.earlier],  # type: ignore[attr-defined]
    "a signature of what was not asked": lambda proxy, heard: write(proxy.forward(heard, "GET", "/v1/about")),
    "a signature of a body that was not sent": lambda proxy, heard: write(
        proxy.forward(heard, **{"content-digest": "sha-256=:" + "A" * 43 + "=:"})
    ),
    "a signature of another query": lambda proxy, heard: write(
        proxy.forward(heard, path=heard.path + "?a=b")
    ),
}


def kinds(house: ClientHome) -> list[str]:
    return [line["what"] for line in house.audit.lines()]


def hang_up() -> Iterable[bytes]:
    raise ssl.SSLError("the test ends the connection")


def test_nothing_is_done_before_the_server_has_confirmed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)
    with between(tmp_path) as (here, proxy):
        house = here.client_home(0)
        before = house.identity.public
        link = house.link()
        link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
        proxy.earlier = next(iter(write(proxy.forward(proxy.played.heard[0]))))  # type: ignore[attr-defined]
        message = Outgoing.write(tmp_path, 0, [b"true"])
        for name, lie in LIES.items():
            proxy.lie = lambda heard, lie=lie: lie(proxy, heard)  # type: ignore[misc]
            for act in (
                lambda: rotate_key(house),
                lambda: fetch_plans(house),
                lambda: link.upload("run", 0, message),
            ):
                with pytest.raises((Refused, Unreachable)) as seen:
                    act()
                assert not getattr(seen.value, "is_proven", False), name
            assert house.identity.offset_s == 0.0, name
        link.close()
        assert "rekeyed" not in kinds(house)
        assert ClientHome(house.folder).identity.public == before

        def lost(heard: Heard) -> Iterable[bytes] | None:
            return proxy.forward(heard) and hang_up() if heard.path == "/v1/key" else None

        proxy.lie = lost
        with pytest.raises((Refused, Unreachable)):
            rotate_key(house)  # the server has the new key, and the client has not heard of it
        assert (house.folder / NEXT_KEY).exists()
        proxy.lie = lambda heard: None
        rotate_key(house)
        assert kinds(house)[-1] == "rekeyed"
        assert not (house.folder / NEXT_KEY).exists()
        assert here.server.members.find("c0").public == house.identity.public != before  # type: ignore[union-attr]

        for lie in LIES.values():
            proxy.lie = lambda heard, lie=lie: lie(proxy, heard)  # type: ignore[misc]
            with pytest.raises((Refused, Unreachable)):
                leave(house)
            with pytest.raises(InvalidInput, match=r"is leaving .* write hanse leave"):
                house.link()
        assert not {"left", "revoked"} & set(kinds(house))
        assert kinds(house).count("consent withdrawn") >= len(LIES)  # a line before each request
        assert here.server.members.find("c0").state == "active"  # type: ignore[union-attr]
        proxy.lie = lambda heard: proxy.forward(heard) and hang_up()
        with pytest.raises((Refused, Unreachable)):
            leave(house)
        assert here.server.members.find("c0").state == "left"  # type: ignore[union-attr]
        assert "left" not in kinds(house)
        proxy.lie = lambda heard: None
        leave(ClientHome(house.folder))
        leave(house)  # which changes nothing
        assert kinds(house).count("left") == 1
        check_receipts(house, here)


@pytest.mark.parametrize("wrong", [{"what": "?"}, {"id": "c9"}, {"key": "ab" * 32}])
def test_a_receipt_of_something_else_confirms_nothing(
    wrong: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the server itself could sign such a receipt; what it signs is still not what was asked."""
    pem = make(tmp_path / "server", ("127.0.0.1",))[0].read_text()
    house = ClientHome(tmp_path / "house")
    key = Identity.generate().public
    house.enter({"url": "https://127.0.0.1:1", "certificate": pem, "server_key": key, "id": "c0"})
    before = house.identity.public

    def answer(what: str, key: str) -> None:
        said = {"what": what, "id": "c0", "key": key, "time": 0.0}
        other = {"left": "rekeyed", "rekeyed": "left"}
        said |= {name: other[what] if text == "?" else text for name, text in wrong.items()}
        receipt = Receipt.model_validate(said)
        monkeypatch.setattr(enrolment, "_ask_under_either_key", lambda home, ask: (receipt, {}))

    answer("rekeyed", Identity.at(house.folder / NEXT_KEY).public)
    with pytest.raises(Refused, match="confirms something else"):
        rotate_key(house)
    answer("left", "")
    with pytest.raises(Refused, match="confirms something else"):
        leave(house)
    assert ClientHome(house.folder).identity.public == before
    assert not (house.membership or {}).get("left")
    assert not {"left", "rekeyed"} & set(kinds(house))


def test_a_member_trusts_no_other_server(tmp_path: Path) -> None:
    """Whoever answers at the address of the server, and has its own key, can't become it by an invitation."""
    with between(tmp_path) as (here, proxy):
        house = here.client_home(0)
        before, number = house.membership, len(kinds(house))
        theirs = Token(fingerprint(proxy.played.pem), b"an invitation..!", proxy.played.identity.public)
        with pytest.raises(InvalidInput, match=rf"{theirs.key[:16]}\.\.\..*kept the key .*--new-server-key"):
            join(house, here.url, theirs)
        with pytest.raises(InvalidInput, match="use another --home for https://other:1"):
            join(house, "https://other:1", invite(here, 1))
        assert (house.membership, len(kinds(house))) == (before, number)
        join(house, here.url, theirs, new_server_key=True)
        (changed,) = (line for line in house.audit.lines() if line["what"] == "trusts a server key")
        own = here.server.identity.public
        assert (changed["key"], changed["instead_of"]) == (theirs.key, own)
        assert (house.membership or {})["server_key"] == theirs.key
        with pytest.raises(Refused, match="not signed by the server"):
            fetch_plans(house)  # the true server has the key of before
        house.amend(server_key=None)  # as a version kept it that had no such key
        for act in (lambda: fetch_plans(house), lambda: rotate_key(house)):
            with pytest.raises(InvalidInput, match=r"hanse join https://.* --token-file .*--new-server-key"):
                act()
        with pytest.raises(InvalidInput, match="kept no key of its server"):
            join(house, here.url, invite(here, 1))
        join(house, here.url, invite(here, 1), new_server_key=True)
        assert fetch_plans(house)[0]
        house.amend(server_key=None)
        with pytest.raises(InvalidInput, match="no answer can be verified"):
            leave(house)


def check_receipts(house: ClientHome, here: Federation) -> None:
    """All receipts of a log are the server's, and about what their lines say."""
    verifier = AnswerVerifier(here.server.identity.public)
    paths = {"joined": "/v1/join", "rekeyed": "/v1/key", "left": "/v1/leave"}
    found = [line for line in house.audit.lines() if line["what"] in paths]
    assert [line["what"] for line in found] == list(paths)
    for line in found:
        verifier.check_receipt(line["receipt"])
        assert line["receipt"]["request"]["path"] == paths[line["what"]]


def test_the_server_signs_nothing_for_a_request_that_it_has_not_verified(tmp_path: Path) -> None:
    with between(tmp_path) as (here, proxy):
        house = here.client_home(0)
        leave(house)
        left = proxy.played.heard[-1]
        for answer in (
            proxy.forward(left),
            proxy.forward(left, "GET", "/v1/about"),
            proxy.forward(left, "GET", "/nowhere"),
            proxy.forward(left, path="/v1/leave?a=b"),
            proxy.forward(left, "GET", "/v1/about", **{"signature-input": "", "signature": "junk"}),
        ):
            assert "signature" not in answer.headers, answer.text


def test_a_clock_is_set_by_the_server_alone_and_only_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)
    with between(tmp_path) as (here, _):
        house, token = ClientHome(tmp_path / "client"), invite(here)
        house.identity.offset_s = -7200.0
        monkeypatch.setattr(transport, "CLOCK_S", 0.0)  # as if the answer had been held up
        with pytest.raises(Refused, match=r"7[12][0-9]{2} s behind the server's time"):
            join(house, here.url, token)
        assert house.identity.offset_s == -7200.0
        monkeypatch.undo()
        monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)
        assert join(house, here.url, token).id == "c0"
        assert abs(house.identity.offset_s) < transport.CLOCK_S
        monkeypatch.setattr(enrolment, "CHECK_S", 0.0)
        assert check(ClientHome(tmp_path / "new"), here.url, invite(here, 1))[1] == 1


def test_unused_invitations_of_an_earlier_version_are_dropped(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    used, unused = (members.invite()[0] for _ in range(2))
    members.join(Identity.derive(used).public, "11" * 32)
    members._connection.execute("ALTER TABLE invitations RENAME COLUMN public TO secret_sha256")
    members.close()
    members = Members(tmp_path / "members.db")
    assert not members.is_open(unused)
    assert members.join(Identity.derive(used).public, "11" * 32).id == "c0"
    assert members.invite(number=1)[1] == 1
    members.close()
