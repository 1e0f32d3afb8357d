"""Addresses and proxies that can't be used are refused in a sentence."""

import socket

import pytest

from hanse.cli.network import _address
from hanse.core import InvalidInput
from hanse.network.client.transport import split
from hanse.network.protocol import certificates
from hanse.network.server.https import bracket, listen


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
