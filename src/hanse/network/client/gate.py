"""The one gate through which everything leaves a client. What leaves is in its audit log before.

No other module of the client sends anything. Requests without a body pass here, too, but are not in the log:
they say nothing but their address, which consists of names that the server has given.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from hanse.core import InvalidInput, MessageError, Part
from hanse.core.exchange import Message, Stored, unpack
from hanse.network.client.audit import AuditLog
from hanse.network.client.home import ClientHome
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import certificates
from hanse.network.protocol.errors import Refused, Unreachable
from hanse.network.protocol.spool import Outgoing
from hanse.network.protocol.wire import (
    CHUNK_BYTES,
    JSON_BYTES,
    PLANS_BYTES,
    WIRE,
    About,
    Failure,
    Join,
    Joined,
    KeptHead,
    News,
    Plans,
    Poll,
    Receipt,
    Rekey,
    WorkOrder,
)
from hanse.version import __version__

__all__ = ["Gate", "ask_kept_head", "check_versions", "compare_versions", "fetch_certificate", "read_content"]

T = TypeVar("T")

Insist = Callable[[Callable[[], T]], T]
"""Repeats an attempt until the server answers."""

HEAD = "/v1/audit"
PLAIN = {"User-Agent": f"hanse/{__version__}", "Accept-Encoding": "identity"}


def fetch_certificate(url: str, fingerprint: str) -> str:
    """Returns the certificate that a server shows; see `certificates.fetch`. Nothing of the client leaves."""
    return certificates.fetch(url, fingerprint)


def check_versions(client_home: ClientHome) -> None:
    """Asks a member's server which versions of the wire it speaks, if it can be reached.

    Nothing of the client leaves. Neither question nor answer is signed: versions sign in different ways, so
    the two sides of an upgrade would not understand each other. TLS shows that it is this server.

    Raises: Refused: if it does not speak this client's version.
    """
    member = client_home.membership
    if member is None:
        return
    try:
        with (
            certificates.make_client(verify=certificates.pin(member["certificate"]), timeout=10.0) as asking,
            asking.stream("GET", f"{member['url']}/v1/about", headers=PLAIN) as answer,
        ):
            said = b""
            for chunk in answer.iter_raw():
                said += chunk
                if len(said) > JSON_BYTES:
                    return
        about = About.model_validate_json(said)
    except (httpx.HTTPError, ValueError):
        return  # what is wrong is said where requests are repeated
    compare_versions(about, ", then join again with the same --home")


def compare_versions(about: About, then: str = "") -> None:
    """Checks that a server speaks this client's version of the wire.

    Args:
      then: what to do after the upgrade.

    Raises: Refused.
    """
    if WIRE not in about.wire:
        theirs = ", ".join(map(str, about.wire))
        why = f"the server (hanse {about.hanse}) speaks the wire {theirs}, this client (hanse {__version__}) "
        raise Refused(426, "wire", f"{why}speaks {WIRE}; upgrade the older of the two{then}")


def read_content(poll: Poll) -> Poll:
    """Returns what a poll says, without its time and without the head of the log that records it."""
    return poll.model_copy(update={"wait_s": 0.0, "audit": None})


class Gate:
    """Sends what a client says to its server, after the audit log has it.

    Lines about what leaves have the size and the SHA-256 of what leaves: of the body, of the SHA-256s of a
    message's chunks, or of a poll as `read_content` returns it. A poll that says the same as the last one
    adds no line.

    Args:
      link: to the server.
      audit: the client's log.
      check_consent: called before each request of a member at work, and before each chunk of a message; it
        raises an error if nothing more may be sent.
    """

    def __init__(
        self, link: ServerLink, audit: AuditLog, check_consent: Callable[[], None] = lambda: None
    ) -> None:
        self.link, self._audit, self._check_consent = link, audit, check_consent
        self._said = ""
        self._compared = False

    def close(self) -> None:
        """Ends all connections."""
        self.link.close()

    def _note(self, what: str, body: BaseModel | None = None, **about: Any) -> None:
        """Notes a body that is about to leave."""
        data = b"" if body is None else body.model_dump_json().encode()
        self._audit.write(what, **about, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    # -- enrolment -----------------------------------------------------------------------------

    def ask_about(self) -> About:
        """Asks for the server's versions."""
        return self.link.ask("GET", "/v1/about", About)

    def check(self, wait_s: float) -> Plans:
        """Sends zeros, as many as a chunk has, to a server that this client has not joined."""
        sha256 = hashlib.sha256(bytes(CHUNK_BYTES)).hexdigest()
        self._audit.write("checks", server=self.link.url, bytes=CHUNK_BYTES, sha256=sha256)
        return self.link.probe("/v1/check", Plans, wait_s, PLANS_BYTES)

    def ask_plans(self, *, invited: bool = False) -> Plans:
        """Asks for the plans of the server's runs: with the invitation of the link, or as a member."""
        if not invited:
            return self.link.ask("GET", "/v1/plans", Plans, limit=PLANS_BYTES)
        self._note("asks for plans", server=self.link.url)
        return self.link.ask("POST", "/v1/check", Plans, limit=PLANS_BYTES)

    def join(self, request: Join) -> tuple[Joined, Mapping[str, Any]]:
        """Asks to join; returns the membership, and the server's receipt."""
        self._note("joins", request, server=self.link.url, name=request.name)
        return self.link.receipt("POST", "/v1/join", Joined, request)

    def replace_key(self, request: Rekey) -> tuple[Receipt, Mapping[str, Any]]:
        """Asks to replace this client's key; returns the server's answer, and its receipt."""
        self._note("replaces its key", request, key=request.public)
        return self.link.receipt("POST", "/v1/key", Receipt, request)

    def leave(self) -> tuple[Receipt, Mapping[str, Any]]:
        """Says that this client leaves; returns the server's answer, and its receipt."""
        self._note("consent withdrawn", server=self.link.url)
        return self.link.receipt("POST", "/v1/leave", Receipt)

    # -- work ----------------------------------------------------------------------------------

    def poll(self, poll: Poll, *, shows_log: bool) -> News:
        """Polls. The first time, compares the log with the head that the server keeps.

        Args:
          shows_log: whether the poll carries the head of the log. One thread alone does that, so that no
            earlier head arrives after a later one.

        Raises: InvalidInput: if the server keeps another log; Refused; Unreachable; Withdrawn.
        """
        self._check_consent()
        if shows_log and not self._compared:
            self._check_log()
            self._compared = True
        said = read_content(poll)
        if (content := said.model_dump_json()) != self._said:
            self._note("polls", said, **said.model_dump(include={"doing", "have", "know", "expects"}))
            self._said = content
        if shows_log:
            poll = poll.model_copy(update={"audit": self._audit.head()})
        news = self.link.ask("POST", "/v1/work", News, poll)
        if news.audit is not None:
            self._audit.check(news.audit)
        return news

    def ask_head(self) -> KeptHead:
        """Asks for the head of the log that the server keeps."""
        return self.link.ask("GET", HEAD, KeptHead)

    def _check_log(self) -> None:
        """Compares the log with the head that the server keeps, and tells the server if it differs."""
        kept = self.ask_head()
        try:
            self._audit.check(kept)
        except InvalidInput:
            shown = self._audit.head_at(kept.lines)
            self._note("shows its log", shown, lines=shown.lines)
            with contextlib.suppress(Refused, Unreachable):
                self.link.plain("POST", HEAD, shown)
            raise

    def send(
        self,
        work: WorkOrder,
        message: Outgoing,
        insist: Insist[None],
        leave: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Sends the message of a ticket, and notes the server's receipt.

        Args:
          leave: called with the bytes of each chunk before it leaves, also if it has left before; below 0
            if it has not left.

        Raises: Withdrawn, and what `leave` raises.
        """

        def check(size: int) -> None:
            self._check_consent()
            leave(size)

        self._check_consent()
        about: dict[str, Any] = {"run": work.run, "ticket": work.ticket}
        size, sha256, parts = message.size, message.sha256, describe_parts(message)
        self._audit.write("sends", **about, work=work.work, parts=parts, bytes=size, sha256=sha256)
        insist(lambda: self.link.upload(work.run, work.ticket, message, check))
        self._audit.write("sent", **about, bytes=size)

    def fail(self, work: WorkOrder, failure: Failure, insist: Insist[Any]) -> None:
        """Says by a code that a ticket will not be answered. A refusal of the server ends the attempts.

        Raises: Withdrawn.
        """
        self._check_consent()
        about = {"run": work.run, "ticket": work.ticket, "code": failure.code, "state": failure.state}
        self._note("fails", failure, **about)
        path = f"/v1/runs/{work.run}/tickets/{work.ticket}/failure"
        with contextlib.suppress(Refused, Unreachable):
            insist(lambda: (self._check_consent(), self.link.plain("POST", path, failure)))

    def download(
        self, path: str, sha256: str, size: int, to: Path, arrive: Callable[[int], None] = lambda size: None
    ) -> None:
        """Fetches an object into a file; see `ServerLink.download`. Raises: Withdrawn."""
        self._check_consent()
        self.link.download(path, sha256, size, to, arrive)


def ask_kept_head(client_home: ClientHome) -> KeptHead:
    """Asks for the head of a client's log that its server keeps.

    Raises: InvalidInput: if the client has joined no server, or has left; Refused; Unreachable.
    """
    gate = Gate(client_home.link(), client_home.audit)
    try:
        return gate.ask_head()
    finally:
        gate.close()


def describe_parts(message: Outgoing) -> dict[str, Any] | str:
    """Describes the parts of a message: the bytes of each, and whether it has a weight other than 1."""
    try:
        parts = unpack(Stored(message.path), Message, only=(Message, Part)).parts
        return {str(name): _describe_part(part) for name, part in parts.items()}
    except (MessageError, AttributeError, TypeError):
        return "unknown"


def _describe_part(part: Part | None) -> dict[str, Any] | str:
    if part is None:
        return "withheld"
    return {"bytes": sum(tensor.nbytes for tensor in part.values.values()), "weight": part.weight != 1.0}
