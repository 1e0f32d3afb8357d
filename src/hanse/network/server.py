"""The server: HTTPS for clients and operator in one event loop, each run in a thread of its own.

A request is refused by its headers alone unless a member signed it and its announced size is within
bounds; only then is its body read, and parsed only after its digest was checked.
"""

import asyncio
import hashlib
import json
import math
import statistics
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import Depends, FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from http_message_signatures import HTTPMessageSignaturesException
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from hanse import __version__
from hanse.core.algorithm import Progress
from hanse.core.errors import Diverged, HanseError, InvalidInput
from hanse.core.keys import Key
from hanse.core.program import Program
from hanse.core.runtime import Record, Watch, drive
from hanse.core.values import digest, pieces
from hanse.core.work import PartyId
from hanse.network import certificates
from hanse.network.board import Board, Order, Stopped
from hanse.network.cases import Cases
from hanse.network.errors import Refused, is_disk_full
from hanse.network.members import Member, Members, Role, Token, shown
from hanse.network.pace import again_s, pool
from hanse.network.parties import Party
from hanse.network.runtime import NetworkRuntime, Patience
from hanse.network.signing import Identity, Speaker, Verifier, check_proof, public_key, secret_at
from hanse.network.spool import Objects, Spool
from hanse.network.wire import (
    CHUNK_BYTES,
    JSON_BYTES,
    WAIT_S,
    WIRE,
    About,
    Decision,
    Failure,
    Invitation,
    Invited,
    Join,
    Joined,
    News,
    Plan,
    Poll,
    Problem,
    Received,
    Rekey,
    Rotated,
    Rotation,
    Work,
)
from hanse.store import Runs

__all__ = ["Job", "Server", "application"]

M = TypeVar("M", bound=BaseModel)

BODY_S = 60.0
"""A body that has not arrived by then is given up."""

BLAME_S = 60.0
"""The same offence of the same member is noted once in so many seconds."""

INNOCENT = frozenset({"offset", "busy", "unavailable", "disk-full", "no-run", "no-object"})
"""Refusals that happen to those who do as they should."""

FAREWELL_S = 5.0
"""How long a server that is done waits for its clients to hear of it."""

MAX_FAREWELL_S = 600.0
"""The same, for clients that it has told to come back."""

ALIVE_S = 60.0
"""A client of which nothing is heard for so long is not expected."""


@dataclass(frozen=True)
class Job:
    """A run as the server leads it.

    Args:
      plan: what clients are told of it; its `run` is filled in.
      begin: where the program stands before its first round.
      program: leads on from a progress.
      learner: the model, for the roles that the server plays.
      role: the data of such a role, "server" above all. Raises: InvalidInput: if it holds none.
      num_clients: the run begins once so many have joined.
      patience: how long it waits.
      secret: of the server: what transforms must not tell anybody. None: its own, drawn when it was new.
      settings, environment: kept with the run. None: the plan's settings.
      conclude: makes the result that is kept, from run, status, progress, records and reason.
      watch: called after each round.
    """

    plan: Plan
    begin: Callable[[], Progress[Any]]
    program: Callable[[Progress[Any]], Program[Progress[Any]]]
    learner: Any
    role: Callable[[str], Any]
    num_clients: int
    patience: Patience = Patience()
    secret: Key | None = None
    settings: Mapping[str, Any] | None = None
    environment: Mapping[str, str] | None = None
    conclude: "Conclude" = lambda run, status, progress, records, reason: {
        "rounds": progress.round,
        "reason": reason,
        "params_sha256": digest(progress.state.params),
    }
    watch: Watch = lambda record: None

    @property
    def said(self) -> Mapping[str, Any]:
        """The settings that are kept."""
        plain: Mapping[str, Any] = json.loads(self.plan.settings)
        return plain if self.settings is None else self.settings


Conclude: TypeAlias = Callable[[str, str, Progress[Any], tuple[Record, ...], str | None], Mapping[str, Any]]


class _Run:
    """A run in its thread."""

    def __init__(self, server: "Server", name: str, job: Job) -> None:
        self.name, self._server, self._job = name, server, job
        folder = server.home / "runs" / name
        self.objects = Objects(folder / "objects")
        self.plans = Objects(folder / "plans")
        self.spool = Spool(folder / "spool")
        self.cases = Cases(folder / "cases")
        self.plan = self.plans.put(pieces(job.plan))
        self.board = Board(server.wake, server.silent_s, server.members.clients)
        self.status, self.result = "running", dict[str, Any]()
        self._seconds: deque[float] = deque(maxlen=11)
        self.round, self.metrics = 0, dict[str, float]()
        self._thread = threading.Thread(target=self._lead, name=f"run {name}", daemon=True)

    @property
    def round_s(self) -> float | None:
        """The median time of the last rounds; None: none has passed."""
        return statistics.median(self._seconds) if self._seconds else None

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _lead(self) -> None:
        try:
            self._await_clients()
            self.status = self._drive()
        except Stopped:
            self.status = "interrupted"
        except Exception as error:
            self.status = "failed"
            if is_disk_full(error):
                self.status, self._server.full = "interrupted", True
            self._server.members.note(self.name, f"failed: {error}\n{traceback.format_exc()}"[:20_000])
        self.board.doing = self.status
        self.board.open()
        self._server.ended(self)

    def _await_clients(self) -> None:
        known = 0
        while True:
            here, _ = self._server.members.clients()
            self.board.doing = f"waiting for clients: {len(here)} of {self._job.num_clients} have joined"
            if len(here) >= self._job.num_clients:
                return
            known = self.board.wait(time.monotonic() + 3600.0, known)

    def _drive(self) -> str:
        job, runs = self._job, self._server.runs
        secret = job.secret or self._server.secret.fold("run", self.name)
        with runs.open(self.name, flush_every_s=0) as store:

            def role(name: str) -> Party:
                return Party(job.learner, job.role(name), secret.fold("role", name), store.memory(name))

            runtime = NetworkRuntime(
                self.board, self.spool, self.objects, secret, role, job.patience, self._note, cases=self.cases
            )
            saved = store.checkpoint()
            runtime.round = 0 if saved is None else saved.round + 1
            program = job.program(saved.state if saved else job.begin())
            del saved  # or the first model would be held until the last round
            status, reason = "completed", None
            try:
                progress = drive(program, runtime, store, self._watch)
            except Diverged as error:
                status, reason = "diverged", str(error)
                saved = store.checkpoint()
                progress = saved.state if saved else job.begin()
            except Stopped:
                return "interrupted"
            except Exception as error:
                store.finish("failed", {"reason": str(error)[:2000]})
                raise
            records = runs.records(self.name)
            self.result = dict(job.conclude(self.name, status, progress, records, reason))
            store.finish(status, self.result)
            return status

    def _note(self, who: str, what: str) -> None:
        self._server.members.note(who, f"run {self.name}: {what}")

    def _watch(self, record: Record) -> None:
        self.round = record.round
        if record.round > 0:
            self._seconds.append(record.seconds)
        self.metrics = dict(record.metrics) or self.metrics
        if record.abandoned is not None:
            self._server.members.note(self.name, f"round {record.round} was abandoned: {record.abandoned}")
        self._job.watch(record)
        if self.board.draining:
            self.board.stop()


class Server:
    """What the requests of clients and operator are answered from.

    Args:
      home: the folder where all is kept.
      fingerprint: of the certificate that clients see.
      stay: whether to go on serving when all runs have ended.
    """

    def __init__(self, home: Path, fingerprint: str, *, stay: bool = False) -> None:
        self.home, self.fingerprint, self.stay = home, fingerprint, stay
        home.mkdir(parents=True, exist_ok=True)
        self.members = Members(home / "members.db")
        self.runs = Runs(home / "runs.db")
        self.verifier = Verifier(self.members.key)
        self.joining = Verifier(_own_key)
        self.secret = secret_at(home / "secret")
        self.identity = Identity.at(home / "identity.pem")
        self.shown = Shown(home)
        self._expects: dict[PartyId, str] = {}
        self._led: dict[str, _Run] = {}
        self._heard: dict[PartyId, float] = {}
        self._doing: dict[PartyId, str] = {}
        self._bells: dict[PartyId, asyncio.Event] = {}
        self._polls: Counter[PartyId] = Counter()
        self._told: set[PartyId] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.strangers: Counter[str] = Counter()
        """Refused requests of nobody that belongs, by code."""
        self._blamed: dict[str, float] = {}
        self._hold_s = WAIT_S
        self._waiting, self._alive = 0, (-math.inf, 0)
        self.over = self._leaving = False
        self.full = False
        """Whether a run was stopped because no space was left on the disk."""
        self.done = threading.Event()
        """Set when all runs have ended and their clients were told."""

    # -- runs ----------------------------------------------------------------------------------

    def lead(self, job: Job, run: str | None = None) -> str:
        """Begins a run, or goes on with one; its name."""
        if run is None:
            run = self.runs.begin(job.said, job.environment or {})
        plan = replace(job.plan, run=run)
        self._hold_s = min(self._hold_s, job.patience.silent_s / 2)  # who waits for work is not silent
        led = self._led[run] = _Run(self, run, replace(job, plan=plan))
        led.start()
        return run

    def run(self, name: str) -> _Run:
        """A run that this server leads. Raises: Refused."""
        if name not in self._led:
            raise Refused(404, "no-run", f"no run {name[:40]!r} is led here")
        return self._led[name]

    def led(self) -> list[_Run]:
        """All runs of this server."""
        return list(self._led.values())

    def ended(self, run: _Run) -> None:
        """A run is over."""
        self.members.note(run.name, f"{run.status}: {json.dumps(run.result)}")
        if self.full:  # clients are not told that it is over: they wait until it is served again
            self.done.set()
        elif not self.stay and all(led.status != "running" for led in self._led.values()):
            self.over = True
            self.wake(list(self._bells))
            back_s = max((-(self.silent_s(n) or 0.0) for n in self.members.clients()[0]), default=0.0)
            until_s = time.monotonic() + FAREWELL_S + min(max(back_s, 0.0), MAX_FAREWELL_S)
            while time.monotonic() < until_s and not self._leaving and not self._all_told():
                time.sleep(0.02)
            self.done.set()

    def _all_told(self) -> bool:
        here = {n for n in self.members.clients()[0] if (s := self.silent_s(n)) is not None and s < 30}
        return here <= self._told

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stops all runs where they are; they can be resumed."""
        self._leaving = True
        for led in self._led.values():
            led.board.stop()
        for led in self._led.values():
            led.join(timeout_s)

    # -- who is there --------------------------------------------------------------------------

    def hear(self, party: PartyId, again_s: float = 0.0) -> None:
        """A party was heard, and told to come back after so many seconds."""
        self._heard[party] = time.monotonic() + again_s

    def silent_s(self, party: PartyId) -> float | None:
        """Seconds since a party was heard; below 0: until it should come back."""
        heard = self._heard.get(party)
        return None if heard is None else time.monotonic() - heard

    def wake(self, parties: Iterable[PartyId]) -> None:
        """Answers the polls of these parties; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring, set(parties))

    def _ring(self, parties: set[PartyId]) -> None:
        for party in parties:
            bell = self._bells.get(party)
            if bell is not None:
                bell.set()

    def came_or_went(self) -> None:
        """Members changed."""
        for led in self._led.values():
            led.board.changed()

    def blame(self, who: str, what: str) -> None:
        """Remembers who offended, but not how often: nobody may fill the disk."""
        member = self.members.find(who)
        name = who if member is None else member.name
        now = time.monotonic()
        if now - self._blamed.get(f"{name} {what}", -math.inf) > BLAME_S:
            if len(self._blamed) > 10_000:
                self._blamed.clear()
            self._blamed[f"{name} {what}"] = now
            self.members.note(name, what)

    # -- for clients ---------------------------------------------------------------------------

    async def poll(self, number: int, poll: Poll) -> News:
        """Answers when there is news, or when the wait is over."""
        self._loop = asyncio.get_running_loop()
        bell = self._bells.setdefault(number, asyncio.Event())
        self._polls[number] += 1
        mine = self._polls[number]
        if poll.doing:
            self._doing[number] = shown(poll.doing).replace("\n", " ")
        self._expects[number] = poll.expects
        bell.set()  # an older poll of the same client is answered
        for run, tickets in poll.know.items():
            if run in self._led:
                self._led[run].board.acknowledged(number, tickets)
        until_s = self._loop.time() + min(poll.wait_s, self._hold_s)
        idle = poll.wait_s > 0 and not any(poll.have.values())
        while True:
            bell.clear()
            news = self._news(number, poll)
            rest_s = until_s - self._loop.time()
            replaced = self._polls[number] != mine
            if news.work or news.decisions or news.over or news.certificate or replaced:
                self.hear(number)
                if news.over and not news.decisions:
                    self._told.add(number)
                return news
            again_s = self._again_s(number, let_go=rest_s <= 0) if idle else 0.0
            if rest_s <= 0 or again_s > 0:
                self.hear(number, again_s)
                return news.model_copy(update={"again_s": again_s})
            self._waiting += 1
            try:
                await asyncio.wait_for(bell.wait(), rest_s)
            except TimeoutError:
                continue
            finally:
                self._waiting -= 1

    def _again_s(self, number: int, *, let_go: bool) -> float:
        """When a client that is not needed now should come back; 0: it should wait, or ask at once."""
        num_wanted = sum(led.board.most for led in self._led.values() if led.status == "running")
        if num_wanted == 0 or (not let_go and self._waiting < pool(num_wanted)):
            return 0.0
        rounds = [led.round_s for led in self._led.values() if led.round_s is not None]
        draw = self.secret.fold("pace", number, self._polls[number]).rng().random()
        return again_s(self._num_alive(), num_wanted, min([self._hold_s, *rounds]), float(draw))

    def _num_alive(self) -> int:
        """Clients heard in the last minute, or told to come back; counted once a second."""
        now = time.monotonic()
        if now - self._alive[0] > 1.0:
            heard = list(self._heard.values())
            self._alive = now, sum(now - at < ALIVE_S for at in heard)
        return self._alive[1]

    def _news(self, number: int, poll: Poll) -> News:
        work: list[Work] = []
        decisions: list[Decision] = []
        for name, led in self._led.items():
            have = set(poll.have.get(name, ()))
            work += [_work(name, led.plan, o) for o in led.board.orders(number) if o.ticket not in have]
            decisions += [
                Decision(run=name, ticket=ticket, counted=verdict.counted, why=verdict.why)
                for ticket, verdict in sorted(led.board.news(number).items())
            ]
        certificate = self.shown.news(self.fingerprint, poll.expects)
        return News(work=work[:100], decisions=decisions[:1000], over=self.over, certificate=certificate)

    # -- for the operator ----------------------------------------------------------------------

    def rotate(self, asked: Rotation) -> Rotated:
        """Announces another certificate, or shows the one that was announced. Raises: Refused."""
        if not asked.switch:
            fingerprint = self.shown.announce(asked.certificate)
            self.wake(list(self._bells))
        else:
            fingerprint = self.shown.announced
        active = {m.number: m.name for m in self.members.active("client")}
        know = [name for number, name in active.items() if self._expects.get(number) == fingerprint]  # type: ignore[arg-type]
        missing = [name for name in active.values() if name not in know]
        rotated = Rotated(fingerprint=fingerprint, know=know, missing=missing)
        if not asked.switch:
            return rotated
        if not fingerprint:
            raise Refused(409, "wrong", "no certificate was announced; first: hanse rotate-certificate")
        if missing and not asked.anyway:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise Refused(
                409,
                "wrong",
                f"{len(missing)} clients have not heard of the new certificate ({some}), and would need an "
                "invitation that names it; wait for them, or write --anyway",
            )
        self.fingerprint = self.shown.switch()
        return rotated.model_copy(update={"switched": True})

    def status(self) -> dict[str, Any]:
        """How everything stands."""
        return {
            "hanse": __version__,
            "runs": [
                {
                    "run": led.name,
                    "status": led.status,
                    "round": led.round,
                    "doing": led.board.doing,
                    "metrics": led.metrics,
                    "result": led.result,
                    **led.board.standing(),
                }
                for led in self._led.values()
            ],
            "clients": len(self.members.clients()[0]),
            "open_invitations": self.members.open_invitations(),
            "refused_strangers": dict(self.strangers),
        }

    def clients(self) -> list[dict[str, Any]]:
        """Everybody who ever joined."""
        return [
            {
                "id": m.id,
                "role": m.role,
                "number": m.number,
                "name": m.name,
                "state": m.state,
                "joined": m.joined,
                "silent_s": None if m.number is None else _floored(self.silent_s(m.number)),
                "doing": "" if m.number is None else self._doing.get(m.number, ""),
            }
            for m in self.members.all()
        ]

    def part(self, id: str, state: Any) -> Member:
        """Ends a membership at once."""
        member = self.members.part(id, state)
        self.members.note(member.name, state)
        self.came_or_went()
        if member.number is not None:
            self.wake([member.number])
        return member


def _floored(seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, seconds)


def _own_key(key_id: str) -> Any:
    try:
        return public_key(key_id)
    except InvalidInput:
        return None


def _work(run: str, plan: tuple[str, int], order: Order) -> Work:
    return Work(
        run=run,
        ticket=order.ticket,
        task=order.task.hex(),
        payload=order.payload,
        payload_bytes=order.payload_bytes,
        plan=plan[0],
        plan_bytes=plan[1],
        limit_bytes=order.limit_bytes,
        work=order.work,
    )


# -- HTTP ----------------------------------------------------------------------------------------


def _length(request: Request, limit: int) -> int:
    """The announced size of a body. Raises: Refused: if there is none, or it is too large."""
    given = request.headers.get("content-length")
    if given is None and request.headers.get("transfer-encoding") is not None:
        raise Refused(411, "length", "say how long the body is: Content-Length")
    length = int(given) if given is not None and given.isascii() and given.isdigit() else 0
    if length > limit:
        raise Refused(413, "too-large", f"a body of {length} bytes; at most {limit} are taken here")
    return length


async def _chunks(request: Request, length: int) -> AsyncIterator[bytes]:
    """The body, as it arrives. Raises: Refused: if it is too slow."""
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                if chunk:
                    yield chunk
    except TimeoutError:
        raise Refused(408, "slow", f"the body did not arrive within {BODY_S:g} s") from None


async def _body(request: Request, speaker: Speaker, kind: type[M]) -> M:
    """A small body, checked and parsed."""
    length = _length(request, JSON_BYTES)
    data = b"".join([chunk async for chunk in _chunks(request, length)])
    if hashlib.sha256(data).digest() != speaker.body_sha256:
        raise Refused(422, "corrupted", "the body is not what its Content-Digest says", who=speaker.key_id)
    try:
        return kind.model_validate_json(data or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(422, "wrong", f"{where or 'the body'}: {first['msg']}", who=speaker.key_id) from None


async def _discard(request: Request, speaker: Speaker) -> None:
    """Reads a body to its end, and forgets it."""
    state = hashlib.sha256()
    async for chunk in _chunks(request, _length(request, CHUNK_BYTES)):
        state.update(chunk)
    if state.digest() != speaker.body_sha256:
        raise Refused(422, "corrupted", "the body is not what its Content-Digest says", who=speaker.key_id)


def _speaker(request: Request, verifier: Verifier) -> Speaker:
    scope = request.scope
    path = scope.get("raw_path") or scope["path"].encode()
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    url = "https://server" + (path + query).decode("latin-1")
    _length(request, CHUNK_BYTES)
    return verifier.verify(request.method, url, {k.lower(): v for k, v in request.headers.items()})


@dataclass(frozen=True)
class Caller:
    """A member who signed a request."""

    member: Member
    speaker: Speaker

    @property
    def number(self) -> int:
        """Of a client."""
        assert self.member.number is not None
        return self.member.number


def _documented(kind: type[BaseModel]) -> dict[str, Any]:
    """A body that is read by hand, for the description of the API."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_BYTES = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
_OBJECT: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it", "content": {"application/octet-stream": {}}},
    206: {"description": "From where the client wants it", "content": {"application/octet-stream": {}}},
    304: {"description": "The client has it"},
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (401, 403, 404, 405, 408, 409, 410, 411, 413, 422, 426, 503, 507)
}

# For the description of the API alone: what they find is judged by `_speaker` and `_invitation`.
_SIGNED = Security(
    APIKeyHeader(
        name="Signature",
        scheme_name="signature",
        auto_error=False,
        description="RFC 9421: Ed25519 over @method, @path, @query and Content-Digest; tag, time, nonce",
    )
)
_INVITED = Security(HTTPBearer(scheme_name="invitation", auto_error=False, description="of a join token"))


class Shown:
    """The certificate that clients see, and the one that was announced to follow it.

    Args:
      home: of the server; its own certificate is there, the announced one in "next".
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.reload: Callable[[Path, Path], None] = lambda certificate, key: None
        """Lets the listening socket show another certificate."""
        self.switched: Callable[[str], None] = lambda pem: None
        """Told what is shown from now on."""
        path = self._next / certificates.CERTIFICATE
        self.announced = certificates.fingerprint(path.read_text()) if path.exists() else ""
        self._was = ""

    @property
    def _next(self) -> Path:
        return self._home / "next"

    def _pem(self) -> str:
        return (self._next / certificates.CERTIFICATE).read_text()

    def announce(self, pem: str) -> str:
        """A certificate that a proxy will show, or, if empty, one of its own; its fingerprint."""
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
        """Shows the announced one; its fingerprint."""
        pem, key = self._pem(), self._next / certificates.KEY
        if key.exists():
            key.replace(self._home / certificates.KEY)
            (self._next / certificates.CERTIFICATE).replace(self._home / certificates.CERTIFICATE)
            self.reload(self._home / certificates.CERTIFICATE, self._home / certificates.KEY)
        else:  # a proxy's: it is shown there
            (self._next / certificates.CERTIFICATE).replace(self._home / "shown.pem")
        self.announced, self._was = "", pem
        self.switched(pem)
        return certificates.fingerprint(pem)

    def news(self, fingerprint: str, expects: str) -> str:
        """What a client is to be told that expects a certificate, while one of `fingerprint` is shown."""
        if self.announced and expects != self.announced:
            return self._pem()
        return self._current(fingerprint) if expects and expects == fingerprint else ""

    def _current(self, fingerprint: str) -> str:
        for path in (self._home / certificates.CERTIFICATE, self._home / "shown.pem"):
            if path.exists() and certificates.fingerprint(pem := path.read_text()) == fingerprint:
                return pem
        return self._was


class _Signing:
    """Signs small answers to signed requests. Downloads are checked against their SHA-256 instead."""

    def __init__(self, app: ASGIApp, identity: Identity) -> None:
        self._app, self._identity = app, identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields = dict(scope.get("headers", ()))
        signature = fields.get(b"signature")
        if scope["type"] != "http" or signature is None:
            await self._app(scope, receive, send)
            return
        begun: list[AsgiMessage] = []

        async def signed(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            if begun:
                start = begun.pop()
                if not message.get("more_body"):
                    start["headers"] = [*start["headers"], *sign(start["status"], message.get("body", b""))]
                await send(start)
            await send(message)

        def sign(status: int, body: bytes) -> list[tuple[bytes, bytes]]:
            try:
                found = self._identity.sign_answer(status, body, signature.decode("latin-1"))
            except HTTPMessageSignaturesException:  # a stranger's Signature field, which is none
                return []
            return [(name.lower().encode(), value.encode()) for name, value in found.items()]

        await self._app(scope, receive, signed)


def application(server: Server) -> FastAPI:
    """The HTTP interface."""
    app = FastAPI(title="Hanse", version=__version__, responses=_PROBLEMS, docs_url=None, redoc_url=None)

    app.add_middleware(_Signing, identity=server.identity)

    def by(*roles: Role) -> Any:
        async def caller(request: Request, signature: Annotated[Any, _SIGNED]) -> Caller:
            speaker = _speaker(request, server.verifier)
            member = server.members.admit(speaker.key_id, roles)
            request.state.who = member.name
            if member.number is not None:
                server.hear(member.number)
            return Caller(member, speaker)

        return Depends(caller)

    FromClient = Annotated[Caller, by("client")]
    FromOperator = Annotated[Caller, by("operator")]
    FromObserver = Annotated[Caller, by("operator", "observer")]

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        who = error.who or getattr(request.state, "who", None)
        if who is None:
            server.strangers[error.code] += 1
        elif error.code not in INNOCENT:
            server.blame(who, f"refused: {error}")
        problem = Problem(code=error.code, why=error.why, offset=getattr(error, "offset", None))
        body = problem.model_dump(exclude_none=True)
        return JSONResponse(body, error.status, headers={"Connection": "close"} if _unread(request) else {})

    @app.exception_handler(HanseError)
    async def unwell(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"code": "wrong", "why": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def misspelt(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
        return await refused(request, Refused(422, "wrong", why[:500]))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = "method" if error.status_code == 405 else "no-path"
        answer = await refused(request, Refused(error.status_code, code, error.detail))
        answer.headers.update(error.headers or {})
        return answer

    # -- everybody -----------------------------------------------------------------------------

    @app.get("/v1/about")
    async def about() -> About:
        return About(wire=[WIRE], hanse=__version__, time=time.time())

    @app.post("/v1/check", dependencies=[_SIGNED, _INVITED])
    async def check(request: Request, wait_s: Annotated[float, Query(ge=0, le=WAIT_S)] = 0.0) -> list[str]:
        """The packed plans, in hexadecimal, for whoever holds an invitation and has not joined yet.

        A body may be as large as that of an upload, and is thrown away.
        """
        speaker = _speaker(request, server.joining)
        server.members.invitation(_invitation(request))
        await _discard(request, speaker)
        await asyncio.sleep(wait_s)
        return [led.plans.path(led.plan[0]).read_bytes().hex() for led in server.led()]

    @app.post("/v1/join", openapi_extra=_documented(Join), dependencies=[_SIGNED, _INVITED])
    async def join(request: Request) -> Joined:
        speaker = _speaker(request, server.joining)
        given = _invitation(request)
        server.members.invitation(given)
        asked = await _body(request, speaker, Join)
        member = server.members.join(given, speaker.key_id, asked.name)
        server.members.note(member.name, f"joined as {member.role} {member.id}")
        server.came_or_went()
        return Joined(id=member.id, role=member.role, number=member.number, name=member.name)

    # -- clients -------------------------------------------------------------------------------

    @app.post("/v1/work", openapi_extra=_documented(Poll))
    async def work(request: Request, caller: FromClient) -> News:
        poll = await _body(request, caller.speaker, Poll)
        if poll.wire != WIRE:
            raise Refused(426, "wire", f"version {poll.wire} of the wire; this server speaks {WIRE}")
        return await server.poll(caller.number, poll)

    @app.get("/v1/runs/{run}/objects/{sha256}", response_class=Response, responses=_OBJECT)
    async def download(request: Request, caller: FromClient, run: str, sha256: str) -> Response:
        led = server.run(run)
        path = (led.plans if sha256 == led.plan[0] else led.objects).path(_hexadecimal(sha256))
        return _file(path, sha256, request)

    @app.get("/v1/runs/{run}/tickets/{ticket}/message")
    async def standing(caller: FromClient, run: str, ticket: int, sha256: str, size: int) -> Received:
        led = server.run(run)
        led.board.order(caller.number, ticket)
        offset = led.spool.offset(ticket, _hexadecimal(sha256), size)
        return Received(offset=offset, durable=offset == size and led.board.has(ticket))

    @app.put("/v1/runs/{run}/tickets/{ticket}/message", openapi_extra=_BYTES)
    async def upload(
        request: Request, caller: FromClient, run: str, ticket: int, sha256: str, size: int, offset: int
    ) -> Received:
        led = server.run(run)
        order = led.board.order(caller.number, ticket)
        length = _length(request, CHUNK_BYTES)
        due = min(CHUNK_BYTES, size - offset)
        if offset < 0 or offset % CHUNK_BYTES or length != due:
            raise Refused(422, "wrong", f"bytes {offset} to {offset + length} of {size}")
        if not 0 < size <= order.limit_bytes:
            why = f"a message of {size} bytes; at most {order.limit_bytes} are due"
            led.board.fail(ticket, f"refused: {why}")
            raise Refused(413, "too-large", why)
        if led.spool.offset(ticket, _hexadecimal(sha256), size) == size and led.board.has(ticket):
            return Received(offset=size, durable=True)
        chunk = led.spool.writing(ticket, sha256, size, offset)
        try:
            async for data in _chunks(request, length):
                chunk.write(data)
            chunk.keep(caller.speaker.body_sha256)
        finally:
            chunk.close()
        server.hear(caller.number)
        durable = await asyncio.to_thread(led.spool.finish, ticket, sha256, size)
        if durable:
            led.board.arrive(ticket)
        return Received(offset=offset + length, durable=durable)

    @app.post("/v1/runs/{run}/tickets/{ticket}/failure", openapi_extra=_documented(Failure))
    async def failure(request: Request, caller: FromClient, run: str, ticket: int) -> dict[str, str]:
        led = server.run(run)
        led.board.order(caller.number, ticket)
        said = await _body(request, caller.speaker, Failure)
        what = f"failed once {said.state}" if said.state != "refused" else "declined"
        led.board.fail(ticket, f"{what}: {said.why}")
        trace = f"\n{said.trace}" if said.trace else ""
        server.members.note(caller.member.name, f"ticket {ticket} of {run} {what}: {said.why}{trace}")
        return {}

    @app.post("/v1/key", openapi_extra=_documented(Rekey))
    async def rekey(request: Request, caller: FromClient) -> dict[str, str]:
        asked = await _body(request, caller.speaker, Rekey)
        check_proof(caller.member.id, asked.public, asked.proof)
        server.members.rekey(caller.member.id, asked.public)
        server.members.note(caller.member.name, f"replaced its key by {asked.public[:16]}...")
        return {}

    @app.post("/v1/leave")
    async def leave(caller: FromClient) -> dict[str, str]:
        server.part(caller.member.id, "left")
        return {}

    # -- the operator --------------------------------------------------------------------------

    @app.get("/v1/status")
    async def status(caller: FromObserver) -> dict[str, Any]:
        return server.status()

    @app.get("/v1/clients")
    async def clients(caller: FromObserver) -> list[dict[str, Any]]:
        return server.clients()

    @app.get("/v1/events")
    async def events(caller: FromObserver, limit: int = 100) -> list[dict[str, Any]]:
        found = server.members.events(max(1, min(limit, 10_000)))
        return [{"at": at, "who": who, "what": what} for at, who, what in found]

    @app.post("/v1/certificate", openapi_extra=_documented(Rotation))
    async def rotate(request: Request, caller: FromOperator) -> Rotated:
        rotated = server.rotate(await _body(request, caller.speaker, Rotation))
        what = "in place" if rotated.switched else f"announced; {len(rotated.know)} clients know of it"
        server.members.note(caller.member.name, f"certificate {rotated.fingerprint[:16]}... is {what}")
        return rotated

    @app.post("/v1/invitations", openapi_extra=_documented(Invitation))
    async def invite(request: Request, caller: FromOperator) -> Invited:
        asked = await _body(request, caller.speaker, Invitation)
        secret, number = server.members.invite(asked.role, asked.name, asked.number, asked.valid_s)
        return Invited(token=str(Token(server.fingerprint, secret, server.identity.public)), number=number)

    @app.post("/v1/clients/{id}/revoke")
    async def revoke(caller: FromOperator, id: str) -> dict[str, str]:
        return {"revoked": server.part(id, "revoked").name}

    @app.post("/v1/runs/{run}/stop")
    async def stop(caller: FromOperator, run: str) -> dict[str, str]:
        server.run(run).board.stop()
        return {}

    @app.post("/v1/runs/{run}/drain")
    async def drain(caller: FromOperator, run: str) -> dict[str, str]:
        server.run(run).board.drain()
        return {}

    return app


def _invitation(request: Request) -> bytes:
    """The secret that somebody who wants to join carries. Raises: Refused."""
    secret = request.headers.get("authorization", "").removeprefix("Bearer ")
    if len(secret) != 32 or secret.strip("0123456789abcdef"):
        raise Refused(403, "token", "an invitation is due: Authorization: Bearer <32 hexadecimal digits>")
    return bytes.fromhex(secret)


def _unread(request: Request) -> bool:
    """Whether a body may still be on its way: then the connection ends rather than swallow it."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _hexadecimal(sha256: str) -> str:
    if len(sha256) != 64 or sha256.strip("0123456789abcdef"):
        raise Refused(422, "wrong", "a SHA-256 in 64 hexadecimal digits is due")
    return sha256


def _file(path: Path, sha256: str, request: Request) -> Response:
    """A file that never changes, from where the client wants it."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise Refused(404, "no-object", "this object is no longer needed; ask for work again") from None
    headers = {
        "ETag": f'"{sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    start = _start(request.headers.get("range", ""), size)
    headers["Content-Length"] = str(size - start)
    if start:
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    return StreamingResponse(_read(path, start), 206 if start else 200, headers)


def _start(given: str, size: int) -> int:
    """Where an open range begins; 0 for anything else, which is allowed to be ignored."""
    begin = given.removeprefix("bytes=").removesuffix("-")
    if given.startswith("bytes=") and given.endswith("-") and begin.isascii() and begin.isdigit():
        return int(begin) if int(begin) < size else 0
    return 0


async def _read(path: Path, start: int) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        while block := await asyncio.to_thread(file.read, 1 << 20):
            yield block
