"""The server's own certificate, and its fingerprint, which join tokens carry."""

import hashlib
import ipaddress
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hanse.core import InvalidInput
from hanse.network.protocol.errors import Refused, Unreachable
from hanse.network.protocol.reaching import explain, make_client

__all__ = ["fetch", "fingerprint", "hosts_of", "make", "make_client", "pin", "trust"]

VALID_DAYS = 3650

BACKDATED_DAYS = 30
"""The server's own certificate begins so many days before it is made, for clients whose clocks are behind."""

CERTIFICATE, KEY = "certificate.pem", "certificate.key"


def make(folder: Path, hosts: tuple[str, ...]) -> tuple[Path, Path]:
    """Returns the paths of certificate and key in `folder`, and makes both if they do not exist."""
    certificate, key = folder / CERTIFICATE, folder / KEY
    if certificate.exists() and key.exists():
        return certificate, key
    folder.mkdir(parents=True, exist_ok=True)
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=BACKDATED_DAYS))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def hosts_of(pem: str) -> tuple[str, ...]:
    """Returns the hosts that a certificate names."""
    named = x509.load_pem_x509_certificate(pem.encode()).extensions
    names = named.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(name.value) for name in names)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def fingerprint(pem: str) -> str:
    """Returns the SHA-256 of the certificate in a PEM, in hexadecimal."""
    try:
        der = ssl.PEM_cert_to_DER_cert(_first(pem))
    except ValueError:
        raise InvalidInput(f"{pem[:40]!r} ... is not a certificate; give the text of a PEM file") from None
    return hashlib.sha256(der).hexdigest()


def _first(pem: str) -> str:
    end = "-----END CERTIFICATE-----"
    return pem[pem.index("-----BEGIN CERTIFICATE-----") : pem.index(end) + len(end)] + "\n"


def fetch(url: str, expected: str, timeout_s: float = 10.0) -> str:
    """Returns the certificate that a server shows, as PEM.

    Args:
      expected: the fingerprint that it must have.

    Raises: Refused: if it has another; Unreachable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # its certificate is compared with the fingerprint instead
    try:
        with (
            make_client(base_url=url, verify=context, timeout=timeout_s) as http,
            http.stream("GET", f"{url}/v1/about") as response,
        ):
            secured = response.extensions["network_stream"].get_extra_info("ssl_object")
            der = secured.getpeercert(True) or b""
    except httpx.TransportError as error:
        raise Unreachable(explain(url, error)) from None
    shown = hashlib.sha256(der).hexdigest()
    if shown != expected:
        raise Refused(
            495,
            "fingerprint",
            f"{url} shows the certificate {shown[:16]}..., the token says {expected[:16]}...: "
            "somebody intercepts the connection, or the server has a new certificate; ask the operator",
        )
    return ssl.DER_cert_to_PEM_cert(der)


def pin(pem: str) -> ssl.SSLContext:
    """Makes a context that trusts exactly this certificate, whatever name it carries."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trust(context, pem)
    return context


def trust(context: ssl.SSLContext, pem: str) -> None:
    """Makes a context trust this certificate too. Raises: InvalidInput: if it is none."""
    try:
        context.load_verify_locations(cadata=_first(pem))
    except (ValueError, ssl.SSLError):
        raise InvalidInput(f"{pem[:40]!r} ... is not a certificate; give the text of a PEM file") from None
