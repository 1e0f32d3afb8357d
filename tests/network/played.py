"""A server whose clients a test plays, without a network between; and a server that a test plays."""

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hanse.core import Key, Part, PartSpec, Spec, Work, value
from hanse.core.exchange import Dispatch, Message, PartyMemory, pack
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import certificates
from hanse.network.protocol.asked import Asked
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.spool import Objects, hash_chunks
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.uploads import Spool
from hanse.network.server.mailbox import Mailbox
from hanse.network.server.records import Outcomes
from hanse.network.server.runtime import NetworkRuntime, Patience

KEY = Key.from_seed(1)
W = {"w": np.zeros(3000)}
UPLINK = {"u": PartSpec(Spec.of(W))}


@value
class asked_at_length(Work[Any, Any]):
    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        raise AssertionError("the test answers itself")


class PlayedServer:
    """A runtime on a disk, with three clients that the test plays."""

    def __init__(self, disk: Path) -> None:
        members = frozenset(range(3)), 3
        self.mailbox = Mailbox(
            lambda parties: None,
            lambda party: 0.0,
            lambda: members,
            lambda: members[0],
            Outcomes(disk / "outcomes.db"),
        )
        self.spool, self.objects = Spool(disk / "spool"), Objects(disk / "objects")
        self.disk, patience = disk, Patience(over_select=1.5)
        self.runtime = NetworkRuntime(
            self.mailbox,
            self.spool,
            self.objects,
            Objects(disk / "own"),
            KEY,
            self.play,
            PartyMemory(),
            patience,
        )

    def play(self, role: str) -> Any:
        raise AssertionError("the server plays no role here")

    def dispatch(self, *cohort: int, step: int = 0) -> tuple[int, ...]:
        return self.send(cohort, step)

    def send(self, cohort: tuple[int, ...], step: int) -> tuple[int, ...]:
        """Sends work to this very cohort, which may be the one that a Sample answered with."""
        shared = {"params": {"w": W["w"] + step}}
        event = self.runtime.perform(Dispatch(asked_at_length(), cohort, shared, UPLINK, KEY.fold_in(step)))
        return event.tickets  # type: ignore[attr-defined, no-any-return]

    def answer(self, ticket: int, part: Part | None = Part(W)) -> None:
        data = pack(Message(ticket, {"u": part}))
        name = hash_chunks([data])
        chunk = self.spool.writing(ticket, name, len(data), 0)
        chunk.write(data)
        chunk.keep(hashlib.sha256(data).digest())
        chunk.close()
        assert self.spool.finish(ticket, name, len(data))
        self.mailbox.arrive(ticket)

    def files(self) -> int:
        return sum(len(list((self.disk / folder).iterdir())) for folder in ("spool", "objects"))


class HostileServer:
    """A server over TLS that answers as a test wants, and can sign what it answers. It speaks wire 7.

    Args:
      folder: for its certificate and key.
      answer: called with a request; returns the bytes of the whole answer, in pieces, headers included.
        `sign` makes them.
    """

    def __init__(self, folder: Path, answer: Callable[["Heard"], Iterable[bytes]]) -> None:
        self.identity = Identity.at(folder / "identity.pem")
        certificate, key = certificates.make(folder, ("127.0.0.1",))
        self.pem = certificate.read_text()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}"
        self._answer = answer
        self.heard: list[Heard] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> "HostileServer":
        return self

    def __exit__(self, *about: object) -> None:
        self._listening.close()

    def link(self, identity: Identity, key_id: str = "c0") -> ServerLink:
        """A client's link to this server, which knows the server's key."""
        return ServerLink(self.url, self.pem, identity, key_id, self.identity.public)

    def token(self) -> Token:
        """An invitation that names this server's certificate and key."""
        return Token(certificates.fingerprint(self.pem), b"an invitation..!", self.identity.public)

    def sign(self, heard: "Heard", body: bytes, status: int = 200, **headers: str) -> Iterator[bytes]:
        """An answer that is signed as the server's; the signature covers the body as it is."""
        signed = self.identity.sign_answer(status, body, heard.asked)
        fields = {"Content-Length": str(len(body)), **headers, **signed}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        yield f"HTTP/1.1 {status} OK\r\n{lines}\r\n".encode() + body

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, ValueError),
            self._context.wrap_socket(line, server_side=True) as tls,
        ):
            file = tls.makefile("rb")
            while words := file.readline().split():
                headers = {}
                while b":" in (text := file.readline()):
                    name, _, value = text.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                body = file.read(int(headers.get("content-length", 0)))
                self.heard.append(Heard(words[0].decode(), words[1].decode(), headers, body))
                for piece in self._answer(self.heard[-1]):
                    tls.sendall(piece)


@dataclass(frozen=True)
class Heard:
    """A request that a server has heard."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def asked(self) -> Asked:
        """What the answer's signature covers."""
        return Asked.read(self.method, f"https://server{self.path}", self.headers)
