"""A client's folder: its key, secret, membership, memory, outgoing messages, audit log, policy and log."""

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput, Key, MessageError, PartyId
from hanse.core.exchange import pack
from hanse.network.client.audit import AuditLog
from hanse.network.client.limits import Spent
from hanse.network.client.own_imports import OwnImports
from hanse.network.client.policy import Approvals, Policy, plan_digest
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import certificates
from hanse.network.protocol.envelope import Envelopes
from hanse.network.protocol.errors import Withdrawn
from hanse.network.protocol.house import change_file, check_is_home, claim_home
from hanse.network.protocol.private_files import read_private
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.signing import Identity, secret_at
from hanse.network.protocol.spool import durably
from hanse.network.protocol.wire import printable

__all__ = ["CONTRACT", "HOUSES_KEY", "KEY", "NEXT_KEY", "ClientHome", "ClientLog"]

ROW = "row.json"
"""The file in a run's folder that holds this party's row, for its owner."""

KEY, NEXT_KEY = "key.pem", "key.next.pem"

HOUSES_KEY = "houses.key"
"""The file with the secret that the houses share, and that the server does not know."""

POLICY, CONTRACT = "policy.toml", "hanse.toml"
"""The files by which a client's owner decides what it does."""
DOWNLOADS = re.compile(r"([0-9a-f]{64}|.*\.payload|.*\.own)(\.part)?")
"""The names of files that a server sends: plans, payloads, and tasks with tensors for this client alone."""


class ClientHome:
    """The folder in which a client keeps everything of its own.

    Args:
      folder: is made if it does not exist, readable for its owner only.

    Raises: InvalidInput: if the folder holds files of others and nothing of a home.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        check_is_home(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)  # also if somebody made it before
        self.identity = Identity.at(folder / KEY)
        self.audit = AuditLog(folder / "audit.jsonl")
        self.approvals = Approvals(folder / "approved.json", self.audit)
        self.own_imports = OwnImports(folder, lambda: self.policy, self.audit)
        self._noted: dict[str, Any] | None = None
        self._plans: set[tuple[str, str]] = set()
        self._contract_sha256 = ""
        self.spent = Spent(folder / "spent.json", begin=self._count_sent)
        self._num_claims = 0

    def describe_plan(self, plan: SealedPlan) -> list[str]:
        """Describes a plan to the client's owner, with what its messages would reveal beside earlier ones."""
        envelopes = Envelopes.read(plan.envelopes)
        return [*self.approvals.describe(plan), *self.policy.describe_releases(envelopes, self.spent)]

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Claims this home for this process while this is entered; entering again does nothing more.

        Raises: InvalidInput: if another process works with it.
        """
        with contextlib.nullcontext() if self._num_claims else claim_home(self.folder):
            self._num_claims += 1
            try:
                yield
            finally:
                self._num_claims -= 1

    def _count_sent(self, day: str) -> dict[str, float]:
        """Counts what has left, by the audit log, on a day or, if it is empty, on all.

        That a message leaves is noted before, and that the server has it after; an early version noted only
        the second.
        """
        left = dict[tuple[str, int], int]()  # a message may leave more than once
        for line in self.audit.lines():
            on = time.strftime("%Y-%m-%d", time.localtime(line["at"]))
            if line["what"] in ("sends", "sent") and day in ("", on):
                left[line.get("run", ""), line.get("ticket", line["n"])] = line["bytes"]
        return {"tickets": len(left), "upload_bytes": sum(left.values())}

    @property
    def policy(self) -> Policy:
        """The policy, as its file reads now."""
        return Policy.read(self.folder / POLICY)

    def note_contract(self) -> None:
        """Notes that the data contract is in force as its file reads now; the file is not read again."""
        self._contract_sha256 = _hash_file(self.folder / CONTRACT)

    def note_settings(self, what: str = "settings", **about: Any) -> None:
        """Notes the SHA-256 of what is in force, at the start and when it changes.

        The policy is read for each ticket. A change of the data contract holds from the next start on.
        """
        found: dict[str, Any] = {
            "policy": _hash_file(self.folder / POLICY),
            "contract": self._contract_sha256,
        }
        if about or found != self._noted:
            self.audit.write(what, **about, **found)
        self._noted = found

    @property
    def secret(self) -> Key:
        """The root of the client's secrets, which nobody else may know."""
        return secret_at(self.folder / "secret")

    @property
    def houses(self) -> Key | None:
        """The secret that the houses share; None: this one has no copy.

        Raises: InvalidInput: if it is damaged, or others can read it.
        """
        path = self.folder / HOUSES_KEY
        if not path.exists():
            return None
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise InvalidInput(f"others can read or write {path}, the secret of the houses: chmod 600 {path}")
        text = read_private(path).decode(errors="replace").strip()
        if not re.fullmatch("[0-9a-fA-F]{64}", text):
            raise InvalidInput(
                f"{path} must hold 64 hexadecimal digits and nothing else, the same at each house; one of "
                "them makes it by openssl rand -hex 32"
            )
        return Key(bytes.fromhex(text))

    @property
    def membership(self) -> dict[str, Any] | None:
        """The federation that this client has joined; None: it has joined none."""
        path = self.folder / "membership.json"
        return dict(json.loads(path.read_text())) if path.exists() else None

    @property
    def party(self) -> PartyId | None:
        """The party that this client plays: its number, or a name; None: it has not joined, or plays none."""
        kept = self.membership or {}
        name, number = kept.get("party", ""), kept.get("number")
        return str(name) if name else None if number is None else int(number)

    @property
    def is_leaving(self) -> bool:
        """Whether this client's owner has withdrawn consent, confirmed by the server or not."""
        kept = self.membership or {}
        return bool(kept.get("leaving") or kept.get("left"))

    def check_consent(self) -> None:
        """Checks that this client's owner has not withdrawn consent, as it reads now. Raises: Withdrawn."""
        if self.is_leaving:
            raise Withdrawn(f"{self.folder} has left or is leaving the federation (hanse leave)")

    def enter(self, membership: dict[str, Any]) -> None:
        """Writes a membership to the disk."""
        durably(self.folder / "membership.json", json.dumps(membership, indent=1).encode())

    def amend(self, **changes: Any) -> None:
        """Changes parts of the membership; None removes one. Another command may change others meanwhile."""
        with change_file(self.folder / "membership.json"):
            amended = {**(self.membership or {}), **changes}
            self.enter({name: part for name, part in amended.items() if part is not None})

    def link(self, identity: Identity | None = None) -> ServerLink:
        """Makes a link to the server that this client has joined.

        Args:
          identity: signs the requests of a client that is leaving or replaces its key; None: its own does.

        Raises: InvalidInput: if it has joined none, has left, or is leaving.
        """
        kept = self.membership
        if kept is None:
            raise InvalidInput(
                f"{self.folder} has not joined a federation; type the line that its operator sent"
            )
        if kept.get("left"):
            raise InvalidInput(
                f"{self.folder} has left the federation at {kept['url']}, and takes no more work from it"
            )
        if kept.get("leaving") and identity is None:
            raise InvalidInput(
                f"{self.folder} is leaving the federation at {kept['url']}, which has not confirmed it yet; "
                f"write hanse leave --home {self.folder}"
            )
        server_key = kept.get("server_key")
        if not server_key:
            raise InvalidInput(
                f"{self.folder} was made by a version that did not keep the key of its server: no answer can "
                "be verified. Let the operator type hanse invite, and join again with the same --home: "
                f"hanse join {kept['url']} --token-file FILE --home {self.folder} --new-server-key"
            )
        link = ServerLink(kept["url"], kept["certificate"], identity or self.identity, kept["id"], server_key)
        if kept.get("next_certificate"):
            link.trust(kept["next_certificate"])
        return link

    @property
    def next_fingerprint(self) -> str:
        """The fingerprint of the certificate that the server has announced; empty: it announced none."""
        pem = (self.membership or {}).get("next_certificate", "")
        return certificates.fingerprint(pem) if pem else ""

    def expect(self, pem: str) -> None:
        """Keeps a certificate that the server announces, or puts the announced one in place once it is shown.

        Args:
          pem: the certificate; if it was announced before, the server shows it now.
        """
        fingerprint = certificates.fingerprint(pem)
        if fingerprint == self.next_fingerprint:
            self.audit.write("certificate in place", fingerprint=fingerprint)
            self.amend(certificate=pem, next_certificate=None)
        else:
            self.audit.write("certificate announced", fingerprint=fingerprint)
            self.amend(next_certificate=pem)

    def run(self, name: str) -> Path:
        """Returns the folder of a run, and makes it if it does not exist."""
        if not name.isalnum() or len(name) > 64:
            raise MessageError(f"{name[:70]!r} can't be the name of a run")
        folder = self.folder / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has_run(self, name: str) -> bool:
        """Returns whether there is a folder of a run. None is made."""
        return name.isalnum() and (self.folder / "runs" / name).is_dir()

    def keep_row(self, run: str, told: str) -> list[str]:
        """Writes a party's row, as its work has left it, for its owner; returns lines that describe it."""
        said = json.loads(told)
        named = {"party": name} if (name := (self.membership or {}).get("name")) else {}
        row, lines = {"run": run, **said["row"], **named}, [printable(line) for line in said["lines"]]
        path = self.run(run) / ROW
        durably(path, json.dumps({"row": row, "lines": lines}, indent=1).encode())
        return [*lines, f"this is kept in {path}"]

    def list_rows(self) -> list[str]:
        """Describes the newest row that is kept here, and says where others are."""
        paths = sorted(self.folder.glob(f"runs/*/{ROW}"), key=lambda path: path.stat().st_mtime)
        if not paths:
            return []
        newest, found = paths[-1], json.loads(paths[-1].read_text())
        lines = [f"run {found['row']['run']}: {line}" for line in found["lines"]]
        others = [f"rows of earlier runs: {', '.join(map(str, paths[-4:-1]))}"] if len(paths) > 1 else []
        return [*lines, f"this is kept in {newest}", *others]

    def list_downloads(self, run: str = "*") -> Iterator[Path]:
        """Yields the files of a run that its server has sent; by default, of all runs."""
        for below in ("*", "test/*"):  # the parts of memory are deeper, and have such names, too
            for path in self.folder.glob(f"runs/{run}/{below}"):
                if DOWNLOADS.fullmatch(path.name) and path.is_file():
                    yield path

    def count_download_bytes(self, to: Path) -> int:
        """Counts the bytes on the disk that servers have sent, but for those of the file `to`."""
        part = to.with_name(f"{to.name}.part")
        return sum(path.stat().st_size for path in self.list_downloads() if path not in (to, part))

    def note_plan(self, plan: SealedPlan) -> None:
        """Notes in the audit log that a plan is here; this process notes each plan once."""
        found = plan.run, plan_digest(plan)
        if found not in self._plans:
            self.audit.write("receives a plan", sync=False, run=plan.run, plan=found[1])
            self._plans.add(found)

    def keep(self, plan: SealedPlan) -> None:
        """Writes a plan to the disk, so that the client's owner can look at it and approve it."""
        packed = pack(plan)
        path = self.run(plan.run) / hashlib.sha256(packed).hexdigest()
        if not path.exists():
            durably(path, packed)

    def log(self) -> "ClientLog":
        """Returns the client's own log of errors. Its texts may quote data, and never leave this folder."""
        return ClientLog(self.folder / "client.log")


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


LOG_BYTES = 10_000_000
"""A log that has grown to this size is renamed to `client.log.1`, and replaces an older one."""


class _PrivateFile(RotatingFileHandler):
    """A rotating file that only its owner can read."""

    def _open(self) -> Any:
        number = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return open(number, self.mode, encoding=self.encoding)


class ClientLog:
    """A log file that only its owner can read. It is open while this is entered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._logger = logging.getLogger(f"{__name__}.{hashlib.sha256(str(path).encode()).hexdigest()[:12]}")
        self._logger.propagate = False
        self._handler: logging.Handler = logging.NullHandler()

    def __enter__(self) -> logging.Logger:
        with contextlib.suppress(OSError):  # if the disk is full, work goes on without a log
            self._handler = _PrivateFile(self._path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]
        self._logger.addHandler(self._handler)
        return self._logger

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
        self._handler.close()
