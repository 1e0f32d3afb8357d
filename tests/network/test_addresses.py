"""Addresses and proxies that can't be used are refused in a sentence."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanse.cli.network import _address
from hanse.core import InvalidInput
from hanse.network.client import ClientHome
from hanse.network.client.enrolment import fetch_plans, join
from hanse.network.client.transport import ServerLink, split
from hanse.network.protocol import Unreachable, certificates, fingerprint
from hanse.network.protocol.reaching import find_proxy
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.tokens import Token
from hanse.network.server.https import bracket, listen, serving
from hanse.network.server.server import Server


@pytest.mark.parametrize(
    "url",
    [
        "https://::1:8443",
        "https://[::1:8443",
        "https://a..b:1",
        "https://h:99999",
        "http://h:1",
        "h:1",
        "https://",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"is not the address of a server; write https://HOST:PORT, .*brackets"
    ):
        split(url)


def test_an_address_has_a_host_and_a_port() -> None:
    assert split("https://[::1]:8443") == ("::1", 8443)
    assert split("https://example.org/") == ("example.org", 443)


@pytest.mark.parametrize("proxy", ["foo://bar", "http://127.0.0.1:notaport"])
def test_a_proxy_that_can_not_be_used_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(
        InvalidInput, match=r"the proxy in the environment .*; set HTTPS_PROXY=http://HOST:PORT, or"
    ):
        certificates.make_client()


def test_a_server_says_whether_the_port_or_the_host_is_wrong() -> None:
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(
            InvalidInput, match=rf"127.0.0.1:{port} \(Address already in use\); write another port"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(
        InvalidInput, match=r"203.0.113.5:0 .*; write an address of this machine, such as 0.0.0.0"
    ):
        listen("203.0.113.5", 0)  # an address for documentation, which no machine has


def test_a_server_listens_on_ipv6() -> None:
    assert _address("[::1]:0") == ("::1", 0)
    with pytest.raises(InvalidInput, match=r"write an IPv6 host in brackets: \[::1\]:8443"):
        _address("::1:8443")
    assert (bracket("::1"), bracket("127.0.0.1")) == ("[::1]", "127.0.0.1")
    try:
        bound = listen("::1", 0)
    except InvalidInput:
        pytest.skip("this machine has no IPv6")
    with bound:
        assert bound.family is socket.AF_INET6


@contextlib.contextmanager
def served(folder: Path, host: str) -> Iterator[tuple[Server, str]]:
    certificate, _ = certificates.make(folder / "server", (host,))
    server = Server(folder / "server", fingerprint(certificate.read_text()))
    with serving(server, listen(host, 0), host) as url:
        yield server, url


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_client_joins_at_an_address_of_ipv6(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    try:
        listen("::1", 0).close()
    except InvalidInput:
        pytest.skip("this machine has no IPv6")
    clean.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    clean.setenv("NO_PROXY", "10.0.0.0/8, ::1/128")
    with served(tmp_path, "::1") as (server, url):
        assert url.startswith("https://[::1]:")
        secret, _ = server.members.invite(number=0)
        token = Token(server.fingerprint, secret, server.identity.public)
        assert join(ClientHome(tmp_path / "client"), url, token).number == 0
        pem = (tmp_path / "server" / certificates.CERTIFICATE).read_text()
        assert certificates.hosts_of(pem) == ("::1",)


@pytest.mark.parametrize(
    ("rules", "url", "is_used"),
    [
        ("10.0.0.0/8", "https://10.1.2.3:8443", False),
        ("10.0.0.0/8", "https://11.1.2.3:8443", True),
        ("10.1.2.3", "https://10.1.2.3", False),
        ("10.1.2.3:8443", "https://10.1.2.3:8443", False),
        ("10.1.2.3:8443", "https://10.1.2.3:8444", True),
        ("fd00::/8", "https://[fd00::7]:8443", False),
        ("[fd00::7]:8443", "https://[fd00::7]:8443", False),
        ("fd00::/8", "https://[fe00::7]:8443", True),
        ("example.org", "https://fed.example.org", False),
        (".example.org", "https://fed.example.org", False),
        ("*.example.org", "https://fed.example.org", False),
        ("example.org", "https://badexample.org", True),
        ("other, *", "https://fed.example.org", False),
        ("", "https://fed.example.org", True),
        ("10.0.0.0/8", "https://fed.example.org", True),
    ],
)
def test_no_proxy_names_hosts_addresses_and_networks(
    rules: str, url: str, is_used: bool, clean: pytest.MonkeyPatch
) -> None:
    clean.setenv("ALL_PROXY", "http://proxy:3128")
    clean.setenv("NO_PROXY", rules)
    assert (find_proxy(url) is not None) == is_used


def reach(url: str, tmp_path: Path, server: str = "ab" * 32) -> str:
    with pytest.raises(Unreachable) as caught:
        fetch_plans(ClientHome(tmp_path / "client"), url, Token(server, b"0" * 16, "cd" * 32))
    return str(caught.value)


def test_a_proxy_that_does_not_answer_is_named(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    port = free_port()
    clean.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{port}")
    said = reach("https://fed.example.org:8443", tmp_path)
    assert f"the proxy http://127.0.0.1:{port} of HTTPS_PROXY does not answer" in said
    assert "hunter2" not in said
    clean.delenv("HTTPS_PROXY")
    clean.setenv("all_proxy", "http://proxy.invalid:3128")
    said = reach("https://fed.example.org:8443", tmp_path)
    assert "the proxy http://proxy.invalid:3128 of all_proxy has a host that is unknown here" in said


def test_a_proxy_that_refuses_is_named(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:

        def refuse() -> None:
            with bound.accept()[0] as there:
                there.recv(4096)
                there.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        clean.setenv("HTTPS_PROXY", f"http://127.0.0.1:{bound.getsockname()[1]}")
        said = reach("https://fed.example.org:8443", tmp_path)
        thread.join()
    assert (
        "of HTTPS_PROXY refuses to connect there (403 Forbidden); name fed.example.org in NO_PROXY?" in said
    )


def test_a_socks_proxy_needs_a_package(clean: pytest.MonkeyPatch) -> None:
    try:
        import socksio  # noqa: F401
    except ImportError:
        clean.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
        said = r"the proxy socks5://127.0.0.1:1080 of ALL_PROXY is a SOCKS proxy, .* 'httpx\[socks\]'"
        with pytest.raises(InvalidInput, match=said):
            certificates.make_client(base_url="https://fed.example.org")


def test_a_host_without_an_address_is_named(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    said = reach("https://fed.invalid:8443", tmp_path)
    assert "no address is known for the host fed.invalid; is it misspelt, or is DNS down?" in said


@pytest.mark.parametrize(
    ("backdated", "valid", "why"),
    [
        (-3, 3650, r"clock says 20.* UTC; the certificate begins at 20.* UTC; set the clock"),
        (30, -1, r"clock says 20.* UTC; the certificate ended at 20.* UTC; set the clock, or ask"),
    ],
)
def test_a_clock_that_is_days_off_is_named(
    backdated: int, valid: int, why: str, tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    """A certificate of the future is to this machine what a clock three days behind is to the server's."""
    clean.setattr(certificates, "BACKDATED_DAYS", backdated)
    clean.setattr(certificates, "VALID_DAYS", valid)
    with served(tmp_path, "127.0.0.1") as (_, url):
        pem = (tmp_path / "server" / certificates.CERTIFICATE).read_text()
        link = ServerLink(url, pem, Identity.generate(), "c0")
        with contextlib.closing(link), pytest.raises(Unreachable, match=why):
            link.plain("GET", "/v1/about")


def test_a_new_certificate_holds_for_a_clock_three_days_behind(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509

    certificate, _ = certificates.make(tmp_path, ("h",))
    begins = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_before_utc
    assert begins < datetime.now(UTC) - timedelta(days=7)
