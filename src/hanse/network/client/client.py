"""A client: outbound requests only, its data, key and memory in its own house, and its own policy.

One thread polls, so that the server knows that it lives; another computes and uploads.
"""

import contextlib
import hashlib
import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal

from hanse.core import HanseError, InvalidInput, Key, MessageError, PartyId, player
from hanse.core.exchange import Fork, Message, Payload, Stored, Task, pack, pieces, unpack
from hanse.network.client.audit import AuditLog
from hanse.network.client.limits import Computation, Day, TimeLimitExceeded
from hanse.network.client.policy import Approvals, Policy
from hanse.network.client.transport import ServerLink, patiently, split
from hanse.network.protocol import certificates
from hanse.network.protocol.errors import Forbidden, Refused, Unreachable, Unsuited, is_disk_full
from hanse.network.protocol.party import Party
from hanse.network.protocol.signing import Identity, secret_at
from hanse.network.protocol.spool import Outgoing, durably
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import (
    WAIT_S,
    WIRE,
    About,
    Code,
    Doing,
    Failure,
    Join,
    Joined,
    News,
    Plan,
    Plans,
    Poll,
    Rekey,
    WorkOrder,
)
from hanse.version import __version__

__all__ = [
    "Client",
    "ClientHome",
    "check",
    "examine",
    "fetch_plans",
    "join",
    "leave",
    "rotate_key",
    "waiting_plans",
]


KEY, NEXT_KEY = "key.pem", "key.next.pem"


class ClientHome:
    """A client's folder: key, secret, membership, memory, messages on their way, audit log, policy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.identity = Identity.at(folder / KEY)
        self.audit = AuditLog(folder / "audit.jsonl")
        self.approvals = Approvals(folder / "approved.json")
        self.day = Day(folder / "seconds.json")

    @property
    def policy(self) -> Policy:
        """As its file says now."""
        return Policy.read(self.folder / "policy.toml")

    @property
    def secret(self) -> Key:
        """The root of what nobody else may know."""
        return secret_at(self.folder / "secret")

    @property
    def membership(self) -> dict[str, Any] | None:
        """Where this house has joined, if it has."""
        path = self.folder / "membership.json"
        return dict(json.loads(path.read_text())) if path.exists() else None

    def enter(self, membership: dict[str, Any]) -> None:
        """Keeps a membership."""
        durably(self.folder / "membership.json", json.dumps(membership, indent=1).encode())

    def link(self) -> ServerLink:
        """To the server that it has joined. Raises: InvalidInput: if it has not, or has left."""
        kept = self.membership
        if kept is None:
            raise InvalidInput(f"{self.folder} has not joined a federation; use the line of its operator")
        if kept.get("left"):
            raise InvalidInput(
                f"{self.folder} has left the federation at {kept['url']}; it is not asked again"
            )
        link = ServerLink(
            kept["url"], kept["certificate"], self.identity, kept["id"], kept.get("server_key", "")
        )
        if kept.get("next_certificate"):
            link.trust(kept["next_certificate"])
        return link

    @property
    def next_fingerprint(self) -> str:
        """Of the certificate that the server has announced; empty: of none."""
        pem = (self.membership or {}).get("next_certificate", "")
        return certificates.fingerprint(pem) if pem else ""

    def expect(self, pem: str) -> None:
        """Keeps the certificate that the server will show; or, if it was expected, the one that it shows."""
        kept = self.membership or {}
        fingerprint = certificates.fingerprint(pem)
        if fingerprint == self.next_fingerprint:
            self.audit.write("certificate in place", fingerprint=fingerprint)
            del kept["next_certificate"]
            self.enter({**kept, "certificate": pem})
        else:
            self.audit.write("certificate announced", fingerprint=fingerprint)
            self.enter({**kept, "next_certificate": pem})

    def run(self, name: str) -> Path:
        """The folder of a run."""
        if not name.isalnum() or len(name) > 64:
            raise MessageError(f"{name[:70]!r} is no name of a run")
        folder = self.folder / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, plan: Plan) -> None:
        """Keeps a plan, so that somebody in this house can look at it and approve it."""
        packed = pack(plan)
        durably(self.run(plan.run) / hashlib.sha256(packed).hexdigest(), packed)

    def log(self) -> "_Log":
        """This house's own log: what went wrong here, with texts that may quote data and never leave."""
        return _Log(self.folder / "client.log")


LOG_BYTES = 10_000_000
"""A log that has grown to this size is put aside as `client.log.1`, in the place of an older one."""


class _Log:
    """A log file that only its owner can read, open while this is entered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._logger = logging.getLogger(f"{__name__}.{hashlib.sha256(str(path).encode()).hexdigest()[:12]}")
        self._logger.propagate = False
        self._handler: logging.Handler = logging.NullHandler()

    def __enter__(self) -> logging.Logger:
        with contextlib.suppress(OSError):  # a full disk: work goes on without a log
            self._path.touch(0o600)
            self._handler = RotatingFileHandler(
                self._path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", delay=True
            )
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]
        self._logger.addHandler(self._handler)
        return self._logger

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
        self._handler.close()


def _stranger(url: str, token: Token, client_home: ClientHome) -> ServerLink:
    split(url)
    pem = certificates.fetch(url.rstrip("/"), token.fingerprint)
    link = ServerLink(url, pem, client_home.identity, client_home.identity.public, token.key)
    try:
        about = link.ask("GET", "/v1/about", About)
        if WIRE not in about.wire:
            theirs = ", ".join(map(str, about.wire))
            raise Refused(
                426,
                "wire",
                f"the server (hanse {about.hanse}) speaks the wire {theirs}, this client (hanse "
                f"{__version__}) speaks {WIRE}; upgrade the older of the two",
            )
    except BaseException:
        link.close()
        raise
    return link


def join(client_home: ClientHome, url: str, token: Token, name: str = "") -> Joined:
    """Becomes a member. Doing it twice changes nothing, but that a token may name a new certificate.

    Raises: Refused, Unreachable, InvalidInput.
    """
    kept = client_home.membership
    if kept is not None:
        if kept["url"] != url.rstrip("/"):
            raise InvalidInput(f"{client_home.folder} has joined {kept['url']}; give {url} a home of its own")
        if token.fingerprint != certificates.fingerprint(kept["certificate"]):
            client_home.expect(certificates.fetch(kept["url"], token.fingerprint))
        client_home.link().close()
        return Joined.model_validate(kept)
    link = _stranger(url, token, client_home)
    try:
        joined = link.ask("POST", "/v1/join", Joined, Join(name=name), headers=_bearer(token))
    finally:
        link.close()
    client_home.audit.write("joined", server=link.url, id=joined.id, key=client_home.identity.public)
    client_home.enter(
        {"url": link.url, "certificate": link.pem, "server_key": token.key, **joined.model_dump()}
    )
    return joined


CHECK_S = WAIT_S
"""How long a request is held open that tries whether all on the way there let polls wait."""


def check(client_home: ClientHome, url: str, token: Token) -> tuple[list[Plan], int]:
    """Tries everything short of joining: network, certificate, versions, invitation; see `fetch_plans`.

    The request is as large as an upload gets, and waits as long as a poll does, so that a proxy that would
    cut them is found now.

    Raises: Refused, Unreachable, InvalidInput.
    """
    link = _stranger(url, token, client_home)
    try:
        return _unpack_plans(Plans.model_validate(link.probe("/v1/check", CHECK_S, _bearer(token))))
    finally:
        link.close()


def _bearer(token: Token) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.secret.hex()}"}


def _unpack_plans(found: Plans) -> tuple[list[Plan], int]:
    return [unpack(bytes.fromhex(packed), Plan) for packed in found.plans], found.number or 0


def fetch_plans(
    client_home: ClientHome, url: str | None = None, token: Token | None = None
) -> tuple[list[Plan], int]:
    """Ask for the plans of the runs that a server leads now, and for the number of this client.

    A member asks under its own key; others need an invitation.

    Raises: Refused, Unreachable, InvalidInput.
    """
    if client_home.membership is not None:
        link = client_home.link()
        try:
            return _unpack_plans(link.ask("GET", "/v1/plans", Plans))
        finally:
            link.close()
    if url is None or token is None:
        raise InvalidInput("write hanse join https://HOST:PORT --token ... --data ...")
    link = _stranger(url, token, client_home)
    try:
        return _unpack_plans(link.ask("POST", "/v1/check", Plans, headers=_bearer(token)))
    finally:
        link.close()


FEW = 100
"""So many examples are enough to see whether a model takes them."""


def examine(
    client_home: ClientHome,
    plan: Plan,
    data: Callable[[Plan], Any],
    bind: Callable[[Plan], Any],
    test: Callable[[Plan], Any] | None = None,
) -> dict[str, int]:
    """Checks that this house may take part in a run, and that its data suit it; how many examples it has.

    The policy is asked first: nothing of the data is opened for a plan that is not allowed.

    Raises: Forbidden: if the policy does not allow the plan, or it waits for approval; it is kept then.
      InvalidInput: if the data can't be read, or don't suit it.
    """
    policy = client_home.policy
    policy.check_plan(plan)
    if policy.approve_plans:
        client_home.keep(plan)
        client_home.approvals.check(plan)
    learner, found = bind(plan), dict[str, int]()
    for what, source in {"examples": data, "test examples": test}.items():
        if source is not None:
            examples = source(plan)
            policy.check_data(len(examples))
            few = examples.take(slice(FEW)) if hasattr(examples, "take") else examples
            learner.objective(learner.init(Key.from_seed(0)), few)
            found[what] = len(examples)
    return found


OWN, TEST = "", "test"
"""What a client plays in a run: itself, and the role of its own test examples. Each has its own folder."""


@dataclass
class _Run:
    """What a client keeps of one run while it lives."""

    plan: Plan
    num_tickets: int = 0
    num_bytes: int = 0


@dataclass
class _Role:
    """What it keeps of one party that it plays there."""

    folder: Path
    party: Party
    decided: set[int] = field(default_factory=set)


class Client:
    """A member at work.

    Args:
      client_home: its folder.
      data: gives its own examples, as a plan wants them, or raises InvalidInput; `len` of them counts them.
      test: gives its own test examples likewise; None: it has none, and declines to measure on them.
      bind: makes the learner of a plan, or raises InvalidInput if the data don't suit it.
      say: told in one line what it is doing.
    """

    def __init__(
        self,
        client_home: ClientHome,
        data: Callable[[Plan], Any],
        bind: Callable[[Plan], Any],
        say: Callable[[str], None] = lambda s: None,
        test: Callable[[Plan], Any] | None = None,
    ) -> None:
        self._home, self._data, self._bind, self._say_line = client_home, data, bind, say
        self._test = test
        self._link = client_home.link()
        self._runs: dict[str, _Run] = {}
        self._roles: dict[tuple[str, str], _Role] = {}
        self._known: dict[str, list[int]] = {}
        self._have: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._deciding = threading.Lock()
        """Held by whoever reads or writes the memory on the disk of a run that is not open yet."""
        self._jobs: queue.Queue[WorkOrder | None] = queue.Queue()
        self._stopping = threading.Event()
        self._line = ""
        self._doing: Doing = "waiting"
        self._log = logging.getLogger(__name__)
        self._abandoned: Computation[Message] | None = None
        self._broken: BaseException | None = None

    def _say(self, what: str, doing: Doing | None = None) -> None:
        """Tells its owner what it is doing, in words; and the server, in one of a closed list."""
        if doing is not None:
            self._doing = doing
        if what != self._line:
            self._line = what
            self._say_line(what)

    def stop(self) -> None:
        """Makes `run` return; from any thread."""
        self._stopping.set()

    # -- polling -------------------------------------------------------------------------------

    def run(self) -> str:
        """Works until the server is done, or this client left, was revoked or stopped: why.

        Raises: Unsuited: if its data don't suit a run that it is asked to take part in.
        """
        with self._home.log() as self._log:
            return self._run()

    def _run(self) -> str:
        worker = threading.Thread(target=self._work, name="work", daemon=True)
        worker.start()
        try:
            return self._poll_on()
        except Exception as error:
            if not is_disk_full(error):
                raise
            raise HanseError(
                f"no space is left at {self._home.folder}: free some, and join again with the same --home "
                "and no token. Nothing that was acknowledged is lost"
            ) from error
        finally:
            self._stopping.set()
            self._jobs.put(None)
            worker.join(30.0)
            self._link.close()

    def _poll_on(self) -> str:
        self._say_line("joined; waiting for work")
        while not self._stopping.is_set():
            try:
                news = patiently(self._poll, self._stopping.wait, self._say)
            except Unreachable:
                break
            except Refused as refused:
                if refused.code in ("revoked", "left"):
                    self._home.audit.write(refused.code)
                    return refused.code
                raise
            self._take(news)
            if news.certificate and self._link.is_signed:
                self._home.expect(news.certificate)
                self._link.trust(news.certificate)
            if news.over and not news.decisions and not news.work:
                return "over"
            if news.again_s > 0:
                self._say(f"not needed now; asking again in {news.again_s:.0f} s", "resting")
                self._stopping.wait(min(news.again_s, 3600.0))
        if self._broken is not None:
            raise self._broken
        return "stopped"

    def _take(self, news: News) -> None:
        with self._deciding:
            self._decide(news)
        for work in news.work:
            with self._lock:
                new = (work.run, work.ticket) not in self._have
                self._have.add((work.run, work.ticket))
            if new:
                self._jobs.put(work)

    def _poll(self, wait_s: float = WAIT_S) -> News:
        with self._lock:
            have: dict[str, list[int]] = {}
            for run, ticket in sorted(self._have):
                have.setdefault(run, []).append(ticket)
            know, self._known = self._known, {}
        try:
            return self._link.ask(
                "POST",
                "/v1/work",
                News,
                Poll(
                    wait_s=wait_s,
                    have=have,
                    know=know,
                    doing=self._doing,
                    expects=self._home.next_fingerprint,
                ),
            )
        except BaseException:
            with self._lock:
                self._known = {**know, **self._known}
            raise

    def _decide(self, news: News) -> None:
        """Commits the memory of counted tickets and drops the rest; both are on the disk then."""
        runs: dict[str, list[Any]] = {}
        for decision in news.decisions:
            runs.setdefault(decision.run, []).append(decision)
        for name, decisions in runs.items():
            counted = [d.ticket for d in decisions if d.counted]
            dropped = [d.ticket for d in decisions if not d.counted]
            for kind in (OWN, TEST):
                self._settle(name, kind, counted, dropped)
            for decision in decisions:
                if not decision.counted:
                    self._say(f"ticket {decision.ticket} was not counted: {decision.why}")
            with self._lock:
                self._known.setdefault(name, []).extend(counted + dropped)
                self._have.difference_update((name, ticket) for ticket in counted + dropped)

    def _settle(self, run: str, kind: str, counted: list[int], dropped: list[int]) -> None:
        """Decides on those of these tickets that a seat holds."""
        folder = self._home.run(run) / kind
        role = self._roles.get((run, kind))
        if role is not None:
            with role.party.lock:
                role.decided.update(counted, dropped)
                if role.party.forks.settle(counted, dropped):
                    self._keep(role)
        else:
            forks = Party(None, None, Key(bytes(32)), None)
            _recall(folder, forks)
            if forks.forks.settle(counted, dropped):
                _remember(folder, forks)
        for ticket in (*counted, *dropped):
            Outgoing.forget(folder, ticket)

    # -- working -------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (work := self._jobs.get()) is not None and not self._stopping.is_set():
                if not self._perform(work) and not self._stopping.is_set():
                    # The poll that is under way says that this ticket is worked on: say that it is not.
                    with contextlib.suppress(Unreachable, Refused):
                        self._take(self._poll(0.0))
                self._say("waiting for work", "waiting")
        except BaseException as error:
            self._broken = error
            self._stopping.set()

    def _perform(self, work: WorkOrder) -> bool:
        """Whether the ticket was answered."""
        state: Literal["refused", "downloaded", "trained"] = "refused"
        try:
            run = self._open(work)
            task = unpack(bytes.fromhex(work.task), Task)
            if task.ticket != work.ticket:
                raise MessageError(f"a task for ticket {task.ticket} under ticket {work.ticket}")
            role = self._take_role(work.run, run, task.party)
            message = Outgoing.find(role.folder, work.ticket)
            if message is None:
                self._home.policy.check_work(work.work, work.limit_bytes)
                self._home.policy.check_use(run.num_tickets + 1, run.num_bytes)
                self._say(f"downloading for ticket {work.ticket}", "downloading")
                payload = self._payload(role, work)
                state = "downloaded"
                self._home.policy.check_work(type(payload.work).__name__, work.limit_bytes)
                self._say(f"{type(payload.work).__name__} for ticket {work.ticket}", "computing")
                _note(role, task, work.payload)
                answer = self._answer(role, task, payload)
                state = "trained"
                size = sum(map(len, answer))
                self._home.policy.check_use(run.num_tickets + 1, run.num_bytes + size)
                with role.party.lock:
                    self._keep(role)
                message = Outgoing.write(role.folder, work.ticket, answer)
                del answer, payload  # what they hold in memory is on the disk
            state = "trained"
            self._upload(run, role, work, message)
            return True
        except Refused as refused:
            self._forget(work, keep=refused.code == "late")
            self._say(f"ticket {work.ticket}: {refused}")
        except Unreachable:
            self._forget(work, keep=True)
        except Forbidden as forbidden:
            self._fail(work, Failure(state="refused", code=forbidden.code), forbidden)
        except Unsuited as error:
            self._fail(work, Failure(state="refused", code="data"), error)
            raise
        except Exception as error:
            if is_disk_full(error):  # the ticket is not given up: it is computed again when there is space
                raise
            self._fail(work, Failure(state=state, code=_code(error)), error)
        return False

    def _answer(self, role: _Role, task: Task, payload: Payload) -> list[bytes | memoryview]:
        """The packed message, in pieces."""
        return pieces(self._compute(role.party, task, payload))

    def _compute(self, party: Party, task: Task, payload: Payload) -> Message:
        """Within the time that the policy allows. Raises: Forbidden: if it is not enough."""
        limit_s = self._home.policy.limit_s(self._home.day.seconds)
        began_s = time.monotonic()
        try:
            if limit_s is None:
                return party.compute(task, payload)
            if self._abandoned is not None and self._abandoned.still_runs(1.0):
                raise Forbidden("a ticket that took too long still runs at this client", "time")
            self._abandoned = Computation(lambda: party.compute(task, payload))
            return self._abandoned.result(limit_s)
        except TimeLimitExceeded:
            why = f"this client's policy allows {limit_s:.4g} s of computation for it: it was stopped"
            raise Forbidden(why, "time") from None
        finally:
            with contextlib.suppress(OSError):  # a full disk is said where the message is kept
                self._home.day.add(time.monotonic() - began_s)

    def _open(self, work: WorkOrder) -> _Run:
        """The run of a ticket, its plan allowed."""
        run = self._runs.get(work.run)
        if run is not None:
            return run
        folder = self._home.run(work.run)
        path = folder / work.plan
        if not path.exists():
            self._fetch(f"/v1/runs/{work.run}/objects/{work.plan}", work.plan, work.plan_bytes, path)
        plan: Plan = unpack(path.read_bytes(), Plan)
        policy = self._home.policy
        policy.check_plan(plan)
        if policy.approve_plans:
            self._home.approvals.check(plan)
        run = _Run(plan)
        for line in self._home.audit.lines():
            if line["what"] == "sent" and line["run"] == work.run:
                run.num_tickets += 1
                run.num_bytes += line["bytes"]
        self._runs[work.run] = run
        return run

    def _take_role(self, name: str, run: _Run, party: PartyId) -> _Role:
        """What this client plays in a run, its data allowed and its memory recalled."""
        kind = OWN if isinstance(party, int) else TEST
        if player(party) != (self._home.membership or {}).get("number"):
            raise MessageError(f"a task for {party!r}, which this client does not play")
        role = self._roles.get((name, kind))
        if role is not None:
            return role
        self._say("reading the data", "checking")
        try:
            data = self._data(run.plan) if kind == OWN else self._test_examples(run.plan)
            learner = self._bind(run.plan)
        except InvalidInput as error:
            raise Unsuited(f"this client's data do not suit run {name}: {error}") from error
        self._home.policy.check_data(len(data))
        secret = self._home.secret.fold_in(name) if kind == OWN else self._home.secret.fold_in(name, kind)
        role = _Role(self._home.run(name) / kind, Party(learner, data, secret))
        role.folder.mkdir(exist_ok=True)
        with self._deciding:
            _recall(role.folder, role.party)
            self._roles[name, kind] = role
        return role

    def _test_examples(self, plan: Plan) -> Any:
        if self._test is None:
            raise Forbidden(
                "this client has no test examples of its own: hanse join --test FILE names them", "no-data"
            )
        return self._test(plan)

    def _payload(self, role: _Role, work: WorkOrder) -> Payload:
        path = role.folder / f"{work.payload}.payload"
        if not path.exists():
            for old in [*role.folder.glob("*.payload"), *role.folder.glob("*.task")]:
                old.unlink()
            self._fetch(f"/v1/runs/{work.run}/objects/{work.payload}", work.payload, work.payload_bytes, path)
        payload: Payload = unpack(Stored(path), Payload)
        return payload

    def _fetch(self, url: str, sha256: str, size: int, to: Path) -> None:
        patiently(lambda: self._link.download(url, sha256, size, to), self._stopping.wait, self._say)

    def _upload(self, run: _Run, role: _Role, work: WorkOrder, message: Outgoing) -> None:
        self._say(f"uploading {message.size} bytes for ticket {work.ticket}", "uploading")
        self._home.audit.write(
            "sends",
            run=work.run,
            ticket=work.ticket,
            work=work.work,
            bytes=message.size,
            sha256=message.sha256,
        )
        patiently(lambda: self._link.upload(work.run, work.ticket, message), self._stopping.wait, self._say)
        self._home.audit.write("sent", run=work.run, ticket=work.ticket, bytes=message.size)
        run.num_tickets += 1
        run.num_bytes += message.size
        Outgoing.forget(role.folder, work.ticket)

    def _forget(self, work: WorkOrder, *, keep: bool = False) -> None:
        """A ticket that is not worked on any more.

        Args:
          keep: its fork stays until the verdict comes. A ticket that is late now may have been counted:
            only the answer to an earlier upload got lost.
        """
        with self._lock:
            self._have.discard((work.run, work.ticket))
        for kind in (OWN, TEST):
            role = self._roles.get((work.run, kind))
            if role is None or (keep and work.ticket not in role.decided):
                continue
            with role.party.lock:
                if role.party.forks.forks.pop(work.ticket, None) is not None:
                    self._keep(role)
            Outgoing.forget(role.folder, work.ticket)

    def _fail(self, work: WorkOrder, failure: Failure, error: Exception) -> None:
        """Tells the server by a code that this ticket will not be answered. Why, is told in this house."""
        self._say(f"ticket {work.ticket} failed ({failure.code}): {(str(error).splitlines() or [''])[0]}")
        self._log.error("ticket %d of run %s failed: %s", work.ticket, work.run, error, exc_info=error)
        self._home.audit.write("fails", run=work.run, ticket=work.ticket, code=failure.code)
        path = f"/v1/runs/{work.run}/tickets/{work.ticket}/failure"
        with contextlib.suppress(Refused, Unreachable):
            patiently(lambda: self._link.plain("POST", path, failure), self._stopping.wait, lambda what: None)
        self._forget(work)

    def _keep(self, role: _Role) -> None:
        _remember(role.folder, role.party)


def _code(error: Exception) -> Code:
    """The code of an error that no policy and no data led to."""
    if isinstance(error, MessageError):
        return "message"
    return "resources" if isinstance(error, MemoryError | OSError) else "internal"


def _note(role: _Role, task: Task, payload: str) -> None:
    """Keeps what a ticket is computed from as long as its payload is here, for `hanse replay`."""
    with role.party.lock:
        before = role.party.forks.at(task.after)
    with contextlib.suppress(OSError):
        (role.folder / f"{task.ticket}.task").write_bytes(pack((task, payload, before)))


def _remember(folder: Path, party: Party) -> None:
    """Writes committed memory and forks; where both say nothing, no file is due."""
    forks = party.forks
    path = folder / "memory"
    if forks.committed or any(fork.changed or fork.removed for fork in forks.forks.values()) or path.exists():
        durably(path, pack((forks.committed, forks.forks)))


def _recall(folder: Path, party: Party) -> None:
    path = folder / "memory"
    if path.exists():
        committed, forks = unpack(path.read_bytes())
        party.forks.committed = committed
        party.forks.forks = {ticket: fork for ticket, fork in forks.items() if isinstance(fork, Fork)}


def waiting_plans(client_home: ClientHome) -> list[Plan]:
    """The plans that this house was asked for."""
    found = [path for path in client_home.folder.glob("runs/*/*") if len(path.name) == 64]
    return [unpack(path.read_bytes(), Plan) for path in found]


def leave(client_home: ClientHome) -> None:
    """Withdraws consent: the server is told, and this house is not asked again. Raises: Unreachable."""
    kept = client_home.membership
    if kept is None:
        raise InvalidInput(f"{client_home.folder} has not joined a federation")
    client_home.audit.write("consent withdrawn", server=kept["url"])
    link = client_home.link()
    client_home.enter({**kept, "left": True})
    try:
        link.plain("POST", "/v1/leave")
    except Refused as refused:
        if refused.code not in ("left", "revoked"):
            raise HanseError(f"the server does not confirm that this house has left: {refused}") from None
    finally:
        link.close()


def rotate_key(client_home: ClientHome) -> None:
    """Replaces the key of a membership, from old to new; a rotation that was cut is completed.

    Raises: Refused, Unreachable, InvalidInput: if it has not joined.
    """
    path = client_home.folder / NEXT_KEY
    new = Identity.at(path)
    request = Rekey(public=new.public, proof=new.prove(f"{(client_home.membership or {}).get('id')}"))
    for identity in (client_home.identity, new):
        client_home.identity = identity  # the new one, if the server has taken it already
        link = client_home.link()
        try:
            link.plain("POST", "/v1/key", request)
            break
        except Refused as refused:
            if refused.code != "unsigned" or identity is new:
                raise
        finally:
            link.close()
    client_home.audit.write("key replaced", key=new.public)
    path.replace(client_home.folder / KEY)
    client_home.identity = new
