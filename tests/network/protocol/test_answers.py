"""Answers are signed by the server, so that whoever ends TLS before it can't speak for it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from federation import FED_AVG, federation, job
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier
from http_message_signatures.algorithms import ED25519

from hanse.core import InvalidInput
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import signing
from hanse.network.protocol.answers import AnswerVerifier
from hanse.network.protocol.asked import ANSWER, ANSWER_COMPONENTS, Asked
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import About, News, Poll

SERVER, CLIENT = Identity.generate(), Identity.generate()


def ask(method: str = "POST", url: str = "https://server/v1/work", body: bytes = bytes(32)) -> Asked:
    signed = CLIENT.sign("c0", method, url, body)
    return Asked.read(method, url, {name.lower(): text for name, text in signed.items()})


ASKED = ask()


@pytest.mark.parametrize(
    "path", ["", "/", "/v1/work", "/v1/runs/a%20b/x?sha256=ab&size=3", "/v1/x?", "/a?b?c=d"]
)
def test_requests_are_signed_as_the_signature_library_does(path: str) -> None:
    ours = CLIENT.sign("c0", "post", f"https://server:1{path}", bytes(range(32)))
    said = ours["Signature-Input"]
    theirs = httpx.Request(
        "POST", f"https://server:1{path}", headers={"Content-Digest": ours["Content-Digest"]}
    )
    keys = signing._Keys(CLIENT._private, lambda key_id: None)
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=keys).sign(
        theirs,
        key_id="c0",
        created=datetime.fromtimestamp(int(said.partition("created=")[2].partition(";")[0]), UTC),
        nonce=said.partition('nonce="')[2].partition('"')[0],
        tag=signing.TAG,
        label=signing.TAG,
        covered_component_ids=signing.COVERED,
        use_existing_digest=True,
    )
    assert ours == {name: theirs.headers[name] for name in ours}


def test_an_answer_is_bound_to_all_of_its_request() -> None:
    headers = SERVER.sign_answer(200, b"{}", ASKED)
    verifier = AnswerVerifier(SERVER.public)
    receipt = json.loads(json.dumps(verifier.check(200, headers, b"{}", ASKED)))
    verifier.check_receipt(receipt)
    unsigned = {name: value for name, value in headers.items() if name == "Content-Digest"}
    replaced = {
        "method": "GET",
        "path": "/v1/leave",
        "query": "?a=b",
        "digest": ask(body=bytes(31) + b"1").digest,
        "nonce": ask().nonce,
        "signature": ask().signature,
    }
    assert replaced.keys() == asdict(ASKED).keys()
    for check in (
        lambda: verifier.check(403, headers, b"{}", ASKED),
        lambda: verifier.check(200, headers, b"[]", ASKED),
        lambda: verifier.check(200, unsigned, b"{}", ASKED),
        lambda: AnswerVerifier(CLIENT.public).check(200, headers, b"{}", ASKED),
        lambda: verifier.check_receipt({**receipt, "answer": "[]"}),
        lambda: verifier.check_receipt({**receipt, "status": 403}),
        lambda: verifier.check_receipt({**receipt, "request": {**receipt["request"], "path": "/"}}),
        *(
            lambda n=n: verifier.check(200, headers, b"{}", replace(ASKED, **{n: replaced[n]}))
            for n in replaced
        ),
    ):
        with pytest.raises(InvalidInput, match="not signed by the server"):
            check()
    with pytest.raises(InvalidInput, match="lacks parts"):
        verifier.check_receipt({"status": 200})


def test_answers_are_signed_as_the_signature_library_does() -> None:
    """The library reads the parts of the request as RFC 9421 writes them, and finds the signature right."""
    asked = ask("PUT", "https://server/v1/runs/a/x?size=3")
    headers = SERVER.sign_answer(200, b"{}", asked)
    request = {"Signature": asked.signature, "Content-Digest": asked.digest}
    theirs = SimpleNamespace(
        status_code=200,
        headers=headers,
        request=httpx.Request("PUT", "https://server/v1/runs/a/x?size=3", headers=request),
    )
    keys = signing._Keys(None, lambda key_id: signing.public_key(SERVER.public))
    (found,) = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=keys).verify(
        theirs, max_age=None, expect_tag=ANSWER, require_components=ANSWER_COMPONENTS[:2], body=b"{}"
    )
    assert tuple(found.covered_components)[:-1] == ANSWER_COMPONENTS
    assert found.nonce == asked.nonce


@contextmanager
def between(
    client_home: ClientHome, change: Callable[[httpx.Response], httpx.Response]
) -> Iterator[ServerLink]:
    """A link with somebody before the server who changes its answers."""
    link = client_home.link()
    send = link._http.send

    def read(request: httpx.Request, **more: object) -> httpx.Response:
        response = send(request, **more)  # type: ignore[arg-type]
        response.read()
        return change(response)

    link._http.send = read  # type: ignore[method-assign, assignment]
    try:
        yield link
    finally:
        link.close()


def same(response: httpx.Response) -> httpx.Response:
    return other(response)


def other(response: httpx.Response, status: int | None = None, body: bytes | None = None) -> httpx.Response:
    return httpx.Response(
        status or response.status_code,
        headers={
            k: v for k, v in response.headers.items() if k not in ("content-length", "content-encoding")
        },
        stream=httpx.ByteStream(response.content if body is None else body),
        request=response.request,
    )


def test_nobody_between_speaks_for_the_server(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        here.lead(job(FED_AVG, 1))
        client_home = here.client_home(0)
        with between(client_home, same) as link:
            assert link.ask("POST", "/v1/work", News, Poll(wait_s=0.0)) == News()
            old = link.ask("GET", "/v1/about", About).model_dump_json().encode()
        for change in (
            lambda response: other(response, body=b'{"over": true}'),
            lambda response: other(response, 403, b'{"code": "revoked", "why": "you"}'),
            lambda response: other(response, 410),
            lambda response: other(response, body=old),
        ):
            with between(client_home, change) as link, pytest.raises(Refused, match="not signed") as refused:
                link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
            assert refused.value.code == "answer"  # which may pass: the client asks again


def test_a_signed_answer_to_one_request_answers_no_other(tmp_path: Path) -> None:
    """Whoever holds the server's TLS key keeps answers and gives them out otherwise; each is whole."""
    signed: list[httpx.Response] = []

    def keep(response: httpx.Response) -> httpx.Response:
        signed.append(response)
        return same(response)

    with federation(tmp_path) as here:
        homes = [here.client_home(0), here.client_home(1)]
        for home in homes:
            with between(home, keep) as link:
                for _ in range(2):
                    link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
        assert len({response.content for response in signed}) == 1
        assert len({response.headers["signature"] for response in signed}) == 4
        for number, home in enumerate(homes):  # each gets earlier ones of its own, and the other's
            for given in signed:
                with (
                    between(home, lambda response, given=given: same(given)) as link,  # type: ignore[misc]
                    pytest.raises(Refused, match="not signed by the server for this request"),
                ):
                    link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
            with between(home, keep) as link:
                link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))
            assert len(signed) == 5 + number


def test_no_part_of_a_signature_may_lack_or_differ(tmp_path: Path) -> None:
    fields = ("created=", 'keyid="', 'alg="', 'nonce="', 'tag="', '"@status"', '";req')
    with federation(tmp_path) as here:
        for name, part in [
            ("signature", ""),
            ("signature-input", ""),
            *(("signature-input", f) for f in fields),
        ]:

            def change(response: httpx.Response, name: str = name, part: str = part) -> httpx.Response:
                text = response.headers.pop(name)
                assert part in text
                at = text.index(part) + len(part)
                if part:
                    response.headers[name] = text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]
                return same(response)

            with between(here.client_home(0), change) as link, pytest.raises(Refused, match="not signed"):
                link.ask("POST", "/v1/work", News, Poll(wait_s=0.0))


def test_a_proxy_may_say_that_the_server_is_away(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        away = b"<html>Bad Gateway</html>"
        with between(here.client_home(0), lambda response: other(response, 502, away)) as link:
            with pytest.raises(Refused) as refused:
                link.ask("GET", "/v1/about", About)
            assert refused.value.code == "unavailable"


def test_refusals_are_signed_and_another_servers_key_is_noticed(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        with between(here.client_home(0), same) as link:
            for method, path in (("GET", "/v1/status"), ("POST", "/v1/runs/none/stop")):
                with pytest.raises(Refused) as refused:
                    link.plain(method, path)
                assert refused.value.code == "role"
        secret, _ = here.server.members.invite()
        token = Token(here.server.fingerprint, secret, CLIENT.public)
        with pytest.raises(Refused, match="not signed by the server"):
            join(ClientHome(tmp_path / "new"), here.url, token)
