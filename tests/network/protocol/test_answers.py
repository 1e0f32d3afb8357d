"""Answers are signed by the server, so that whoever ends TLS before it can't speak for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from federation import FED_AVG, federation, job
from http_message_signatures import HTTPMessageSigner
from http_message_signatures.algorithms import ED25519

from hanse.core import InvalidInput
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import signing
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import AnswerVerifier, Identity
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import About, News, Poll

SERVER, CLIENT = Identity.generate(), Identity.generate()
ASKED = CLIENT.sign("c0", "POST", "https://server/v1/work", bytes(32))["Signature"]


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


def test_an_answer_is_bound_to_status_body_and_request() -> None:
    headers = SERVER.sign_answer(200, b"{}", ASKED)
    verifier = AnswerVerifier(SERVER.public)
    verifier.check(200, headers, b"{}", "POST", ASKED)
    again = CLIENT.sign("c0", "POST", "https://server/v1/work", bytes(32))["Signature"]
    unsigned = {name: value for name, value in headers.items() if name == "Content-Digest"}
    for changed in (
        lambda: verifier.check(403, headers, b"{}", "POST", ASKED),
        lambda: verifier.check(200, headers, b"[]", "POST", ASKED),
        lambda: verifier.check(200, headers, b"{}", "POST", again),
        lambda: verifier.check(200, unsigned, b"{}", "POST", ASKED),
        lambda: AnswerVerifier(CLIENT.public).check(200, headers, b"{}", "POST", ASKED),
    ):
        with pytest.raises(InvalidInput, match="not signed by the server"):
            changed()


@contextmanager
def between(
    client_home: ClientHome, change: Callable[[httpx.Response], httpx.Response]
) -> Iterator[ServerLink]:
    """A link with somebody before the server who changes its answers."""
    link = client_home.link()
    send = link._http.send
    link._http.send = lambda request, **more: change(send(request, **more))  # type: ignore[method-assign]
    try:
        yield link
    finally:
        link.close()


def same(response: httpx.Response) -> httpx.Response:
    return response


def other(response: httpx.Response, status: int | None = None, body: bytes | None = None) -> httpx.Response:
    return httpx.Response(
        status or response.status_code,
        headers={
            k: v for k, v in response.headers.items() if k not in ("content-length", "content-encoding")
        },
        content=response.content if body is None else body,
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
