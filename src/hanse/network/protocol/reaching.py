"""The way to a server: through which proxy, and in words why it can't be reached."""

import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple
from urllib.request import getproxies

import httpx
from cryptography import x509

from hanse.core import InvalidInput
from hanse.version import __version__

__all__ = ["Proxy", "explain", "find_proxy", "make_client"]

NOT_YET_VALID, EXPIRED = 9, 10
"""Codes of OpenSSL, X509_V_ERR_*."""


class Proxy(NamedTuple):
    """A proxy of the environment.

    Args:
      url: of the proxy.
      variable: the name of the variable that names it.
    """

    url: str
    variable: str

    def __str__(self) -> str:
        try:
            shown = str(httpx.URL(self.url).copy_with(username=None, password=None))
        except httpx.InvalidURL:
            shown = self.url.rpartition("@")[2]
        return f"the proxy {shown} of {self.variable}"


def find_proxy(url: str) -> Proxy | None:
    """Finds the proxy for a server; None: there is none, or NO_PROXY names the server.

    NO_PROXY lists hosts, domains, addresses and networks, such as 10.0.0.0/8, each with a port if need be.
    """
    named = getproxies()
    for kind in ("https", "all"):
        if named.get(kind) and not _is_exempt(httpx.URL(url), named.get("no", "")):
            names = (f"{kind}_proxy", f"{kind}_proxy".upper())
            variable = next((name for name in names if os.environ.get(name)), "this system")
            proxy = named[kind] if "://" in named[kind] else f"http://{named[kind]}"
            return Proxy(proxy, variable)
    return None


def _is_exempt(url: httpx.URL, rules: str) -> bool:
    return any(_matches(url.host, url.port or 443, rule.strip()) for rule in rules.split(",") if rule.strip())


def _matches(host: str, port: int, rule: str) -> bool:
    """Returns whether a rule of NO_PROXY names a host."""
    if rule == "*":
        return True
    try:
        network = ip_network(rule.strip("[]"), strict=False)
    except ValueError:
        name, colon, number = rule.rpartition(":")
        if colon and number.isdigit():
            return int(number) == port and _matches(host, port, name)
        domain = rule.removeprefix("*").removeprefix(".").lower()
        return host == domain or host.endswith(f".{domain}")
    try:
        return ip_address(host) in network
    except ValueError:
        return False


def make_client(**options: Any) -> httpx.Client:
    """Makes a client for the server at `base_url`. It says nothing of its machine but the version of Hanse.

    Raises: InvalidInput: if the environment names a proxy that can't be used.
    """
    proxy = find_proxy(options.get("base_url", "https://"))
    try:
        options = {"headers": {"User-Agent": f"hanse/{__version__}"}, **options, "trust_env": False}
        return httpx.Client(**options, proxy=None if proxy is None else proxy.url)
    except ImportError:
        raise InvalidInput(
            f"{proxy} is a SOCKS proxy, which needs another package: pip install 'httpx[socks]'. Or set "
            "HTTPS_PROXY=http://HOST:PORT, or name the server in NO_PROXY"
        ) from None
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInput(
            f"the proxy in the environment can't be used ({error}); set HTTPS_PROXY=http://HOST:PORT, or "
            "unset HTTPS_PROXY and ALL_PROXY"
        ) from None


def explain(url: str, error: httpx.TransportError, pem: str = "") -> str:
    """Explains in a sentence why a server can't be reached, and what to do.

    Args:
      pem: the certificate that it should show, if that is known.
    """
    causes = list(_list_causes(error))
    proxy, host = find_proxy(url), httpx.URL(url).host
    why = str(error) or type(error).__name__
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{url} can't be reached: {_explain_certificate(cause, pem)}"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        if proxy is not None:
            return f"{url} can't be reached: {proxy} has a host that is unknown here; correct or unset it"
        asked = "is it misspelt, or is DNS down?"
        return f"{url} can't be reached: no address is known for the host {host}; {asked}"
    if isinstance(error, httpx.ProxyError):
        return f"{url} can't be reached: {proxy} refuses to connect there ({why}); name {host} in NO_PROXY?"
    is_connecting = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    if proxy is not None and is_connecting and not any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"{url} can't be reached: {proxy} does not answer ({why}); name {host} in NO_PROXY?"
    return f"{url} can't be reached: {why}"


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explain_certificate(error: ssl.SSLCertVerificationError, pem: str) -> str:
    if error.verify_code not in (NOT_YET_VALID, EXPIRED) or not pem:
        return f"its certificate is not the one of this federation ({error.verify_message})"
    certificate = x509.load_pem_x509_certificate(pem.encode())
    now = f"this machine's clock says {_write(datetime.now(UTC))}"
    if error.verify_code == NOT_YET_VALID:
        return f"{now}; the certificate begins at {_write(certificate.not_valid_before_utc)}; set the clock"
    end = _write(certificate.not_valid_after_utc)
    return f"{now}; the certificate ended at {end}; set the clock, or ask the operator for a new one"


def _write(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
