"""Certificate rotation: the certificate that a server shows, and the one that replaces it."""

from collections.abc import Callable
from pathlib import Path

from hanse.network.protocol import certificates
from hanse.network.protocol.errors import Refused

__all__ = ["CertificateRotation"]


class CertificateRotation:
    """The certificate that clients see, and the one that was announced to follow it.

    Args:
      home: of the server. Its own certificate is there, the announced one in the folder "next".
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.reload: Callable[[Path, Path], None] = lambda certificate, key: None
        """Makes the listening socket show another certificate."""
        self.switched: Callable[[str], None] = lambda pem: None
        """Called with the certificate that is shown from now on."""
        path = self._next / certificates.CERTIFICATE
        self.announced = certificates.fingerprint(path.read_text()) if path.exists() else ""
        self._was = ""

    @property
    def _next(self) -> Path:
        return self._home / "next"

    def _pem(self) -> str:
        return (self._next / certificates.CERTIFICATE).read_text()

    def announce(self, pem: str) -> str:
        """Announces another certificate, and returns its fingerprint.

        Args:
          pem: a certificate that a proxy will show; empty: one of the server's own, which is made.

        Raises: Refused.
        """
        path = self._next / certificates.CERTIFICATE
        if pem:
            certificates.fingerprint(pem)
            self._next.mkdir(exist_ok=True)
            path.write_text(pem)
            (self._next / certificates.KEY).unlink(missing_ok=True)
        elif not path.exists():
            own = self._home / certificates.CERTIFICATE
            if not own.exists():
                raise Refused(409, "wrong", "the certificate is not the server's own; name a PEM file")
            certificates.make(self._next, certificates.hosts_of(own.read_text()))
        self.announced = certificates.fingerprint(self._pem())
        return self.announced

    def switch(self) -> str:
        """Shows the announced certificate, and returns its fingerprint."""
        pem, key = self._pem(), self._next / certificates.KEY
        if key.exists():
            key.replace(self._home / certificates.KEY)
            (self._next / certificates.CERTIFICATE).replace(self._home / certificates.CERTIFICATE)
            self.reload(self._home / certificates.CERTIFICATE, self._home / certificates.KEY)
        else:  # a proxy shows it
            (self._next / certificates.CERTIFICATE).replace(self._home / "shown.pem")
        self.announced, self._was = "", pem
        self.switched(pem)
        return certificates.fingerprint(pem)

    def news(self, fingerprint: str, expects: str) -> str:
        """Returns the certificate that a client should learn of now; empty: none.

        Args:
          fingerprint: of the certificate that is shown.
          expects: the fingerprint of the certificate that the client expects to follow it.
        """
        if self.announced and expects != self.announced:
            return self._pem()
        return self._current(fingerprint) if expects and expects == fingerprint else ""

    def _current(self, fingerprint: str) -> str:
        for path in (self._home / certificates.CERTIFICATE, self._home / "shown.pem"):
            if path.exists() and certificates.fingerprint(pem := path.read_text()) == fingerprint:
                return pem
        return self._was
