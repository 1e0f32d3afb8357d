"""The server: who belongs to it and what they are told, each run in a thread of its own."""

import asyncio
import json
import math
import statistics
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from hanse.core import Diverged, InvalidInput, Key, PartyId, Program
from hanse.core.exchange import Progress, Record, Watch, digest, drive, pieces
from hanse.network.protocol.errors import Refused, is_disk_full
from hanse.network.protocol.party import Party
from hanse.network.protocol.signing import Identity, Verifier, public_key, secret_at
from hanse.network.protocol.spool import Objects, Spool
from hanse.network.protocol.wire import WAIT_S, Decision, News, Plan, Poll, Rotated, Rotation, WorkOrder
from hanse.network.server.failed_tickets import FailedTickets
from hanse.network.server.mailbox import Mailbox, Offer, Stopped
from hanse.network.server.members import Member, Members
from hanse.network.server.pace import again_s, pool
from hanse.network.server.rotation import CertificateRotation
from hanse.network.server.runtime import NAMED, Attendance, NetworkRuntime, Patience, Waiting
from hanse.store import Runs
from hanse.version import __version__

__all__ = ["RunJob", "Server", "Uncounted"]

BLAME_S = 60.0
"""The same offence of the same member is noted once in so many seconds."""

FAREWELL_S = 5.0
"""How long a server that is done waits for its clients to hear of it."""

MAX_FAREWELL_S = 600.0
"""The same, for clients that it has told to come back."""

ALIVE_S = 60.0
"""A client of which nothing is heard for so long is not expected."""


@dataclass(frozen=True)
class RunJob:
    """A run as the server leads it.

    Args:
      plan: what clients are told of it; its `run` is filled in.
      begin: where the program stands before its first round.
      program: leads on from a progress.
      learner: the model, for the roles that the server plays.
      role: the data of such a role, "server" above all. Raises: InvalidInput: if it holds none.
      num_clients: the run begins once so many have joined, and `num_present` of them are present.
      patience: how long it waits.
      secret: of the server: what transforms must not tell anybody. None: its own, drawn when it was new.
      settings, environment: kept with the run. None: the plan's settings.
      conclude: makes the result that is kept, from run, status, progress, records, reason and the clients
        that were not counted as they should; its "status" is how the run ended.
      watch: called after each round.
    """

    plan: Plan
    begin: Callable[[], Progress[Any]]
    program: Callable[[Progress[Any]], Program[Progress[Any]]]
    learner: Any
    role: Callable[[str], Any]
    num_clients: int
    num_present: int = 1
    patience: Patience = Patience()
    secret: Key | None = None
    settings: Mapping[str, Any] | None = None
    environment: Mapping[str, str] | None = None
    conclude: "Conclude" = lambda run, status, progress, records, reason, uncounted: {
        "status": "incomplete" if status == "completed" and uncounted else status,
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


@dataclass(frozen=True)
class Uncounted:
    """A client that was not counted as it should have been: see `Members.find_uncounted`.

    Args:
      who: its name.
      asked, counted: in how many rounds.
      why: it was not, the last time.
    """

    number: int
    who: str
    asked: int
    counted: int
    why: str


Conclude: TypeAlias = Callable[
    [str, str, Progress[Any], tuple[Record, ...], str | None, tuple[Uncounted, ...]], Mapping[str, Any]
]


class _Run:
    """A run in its thread."""

    def __init__(self, server: "Server", name: str, job: RunJob) -> None:
        self.name, self._server, self._job = name, server, job
        folder = server.home / "runs" / name
        self.objects = Objects(folder / "objects")
        self.plans = Objects(folder / "plans")
        self.spool = Spool(folder / "spool")
        self.failed_tickets = FailedTickets(folder / "cases")
        self.plan = self.plans.put(pieces(job.plan))
        self.mailbox = Mailbox(server.wake, server.silent_s, server.members.clients)
        self.status, self.reason, self.result = "running", "", dict[str, Any]()
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
        except Stopped as stop:  # before it had begun
            self.status, self.reason = stop.status, stop.reason
        except Exception as error:
            self.status, self.reason = "failed", f"{type(error).__name__}: {error}"
            if is_disk_full(error):
                self.status, self._server.full = "interrupted", True
            self._server.members.note(self.name, f"failed: {error}\n{traceback.format_exc()}"[:20_000])
        self.mailbox.doing = self.status
        self.mailbox.open()
        self._server.end_run(self)

    def _await_clients(self) -> None:
        """Waits until enough have joined, and enough of them are present."""
        job, known = self._job, 0
        needed = job.patience.count_needed(min(job.num_present, job.num_clients))
        waiting = Waiting(self.mailbox, self.say)
        while True:
            here, _ = self._server.members.clients()
            absent = self.mailbox.absent(here, job.patience.silent_s)
            present = len(here) - len(absent)
            if len(here) >= job.num_clients and present >= needed:
                return
            joined = f"; {len(here)} of {job.num_clients} have joined" if len(here) < job.num_clients else ""
            waiting.tell(present, needed, absent, joined)
            known = self.mailbox.wait(time.monotonic() + 3600.0, known)

    def say(self, line: str) -> None:
        """Tells the operator something about this run."""
        self._server.say(f"run {self.name}: {line}")

    def _attend(self, attendance: Attendance) -> None:
        self._server.members.attend(self.name, attendance)
        missed = sorted(attendance.missed.items())
        if missed:
            some = "; ".join(f"client {number}: {why}" for number, why in missed[:NAMED])
            more = f"; and {len(missed) - NAMED} more" if len(missed) > NAMED else ""
            total = len(attendance.counted) + len(missed)
            self.say(
                f"round {attendance.round} counted {len(attendance.counted)} of {total} clients; {some}{more}"
            )

    def _drive(self) -> str:
        job, runs = self._job, self._server.runs
        secret = job.secret or self._server.secret.fold_in("run", self.name)
        with runs.open(self.name, flush_every_s=0) as store:

            def role(name: str) -> Party:
                return Party(job.learner, job.role(name), secret.fold_in("role", name), store.memory(name))

            runtime = NetworkRuntime(
                self.mailbox,
                self.spool,
                self.objects,
                secret,
                role,
                job.patience,
                self._note,
                failed_tickets=self.failed_tickets,
                attend=self._attend,
                say=self.say,
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
            except Stopped as stop:
                saved = store.checkpoint()
                status, self.reason = stop.status, stop.reason
                if saved is None:
                    return status
                reason, progress = stop.reason, saved.state
            except Exception as error:
                store.finish("failed", {"reason": str(error)[:2000]})
                raise
            uncounted = tuple(Uncounted(*one) for one in self._server.members.find_uncounted(self.name))
            records = runs.records(self.name)
            self.result = dict(job.conclude(self.name, status, progress, records, reason, uncounted))
            status = str(self.result.get("status", status))
            self.reason = reason or ""
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
        if self.mailbox.draining:
            self.mailbox.stop("its operator let it end with this round", "stopped")


class Server:
    """What the requests of clients and operator are answered from.

    Args:
      home: the folder where all is kept.
      fingerprint: of the certificate that clients see.
      stay: whether to go on serving when all runs have ended.
      say: told in one line what the operator should see at once.
    """

    def __init__(
        self,
        home: Path,
        fingerprint: str,
        *,
        stay: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.say = say
        self.home, self.fingerprint, self.stay = home, fingerprint, stay
        home.mkdir(parents=True, exist_ok=True)
        self.members = Members(home / "members.db")
        self.runs = Runs(home / "runs.db")
        self.verifier = Verifier(self.members.key)
        self.joining = Verifier(_own_key)
        self.secret = secret_at(home / "secret")
        self.identity = Identity.at(home / "identity.pem")
        self.rotation = CertificateRotation(home)
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
        self.over = self._leaving = self._gone = False
        self.full = False
        """Whether a run was stopped because no space was left on the disk."""
        self.done = threading.Event()
        """Set when all runs have ended and their clients were told."""

    # -- runs ----------------------------------------------------------------------------------

    def lead(self, job: RunJob, run: str | None = None) -> str:
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

    def plans(self) -> list[str]:
        """The plans of these runs, packed, in hexadecimal."""
        return [led.plans.path(led.plan[0]).read_bytes().hex() for led in self.led()]

    def end_run(self, run: _Run) -> None:
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
            led.mailbox.stop()
        for led in self._led.values():
            led.join(timeout_s)

    def hang_up(self) -> None:
        """Answers all polls, for the server goes away."""
        self._gone = True
        self.wake(list(self._bells))

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
            led.mailbox.notify()

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
            self._doing[number] = poll.doing
        self._expects[number] = poll.expects
        bell.set()  # an older poll of the same client is answered
        for run, tickets in poll.know.items():
            if run in self._led:
                self._led[run].mailbox.acknowledge(number, tickets)
        until_s = self._loop.time() + min(poll.wait_s, self._hold_s)
        idle = poll.wait_s > 0 and not any(poll.have.values())
        while True:
            bell.clear()
            news = self._news(number, poll)
            rest_s = until_s - self._loop.time()
            obsolete = self._gone or self._polls[number] != mine
            if news.work or news.decisions or news.over or news.certificate or obsolete:
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
        num_wanted = sum(led.mailbox.most for led in self._led.values() if led.status == "running")
        if num_wanted == 0 or (not let_go and self._waiting < pool(num_wanted)):
            return 0.0
        rounds = [led.round_s for led in self._led.values() if led.round_s is not None]
        draw = self.secret.fold_in("pace", number, self._polls[number]).rng().random()
        return again_s(self._num_alive(), num_wanted, min([self._hold_s, *rounds]), float(draw))

    def _num_alive(self) -> int:
        """Clients heard in the last minute, or told to come back; counted once a second."""
        now = time.monotonic()
        if now - self._alive[0] > 1.0:
            heard = list(self._heard.values())
            self._alive = now, sum(now - at < ALIVE_S for at in heard)
        return self._alive[1]

    def _news(self, number: int, poll: Poll) -> News:
        work: list[WorkOrder] = []
        decisions: list[Decision] = []
        for name, led in self._led.items():
            have = set(poll.have.get(name, ()))
            work += [_work(name, led.plan, o) for o in led.mailbox.offers(number) if o.ticket not in have]
            decisions += [
                Decision(run=name, ticket=ticket, counted=outcome.counted, why=outcome.why)
                for ticket, outcome in sorted(led.mailbox.news(number).items())
            ]
        certificate = self.rotation.news(self.fingerprint, poll.expects)
        return News(work=work[:100], decisions=decisions[:1000], over=self.over, certificate=certificate)

    # -- for the operator ----------------------------------------------------------------------

    def rotate(self, asked: Rotation) -> Rotated:
        """Announces another certificate, or shows the one that was announced. Raises: Refused."""
        if not asked.switch:
            fingerprint = self.rotation.announce(asked.certificate)
            self.wake(list(self._bells))
        else:
            fingerprint = self.rotation.announced
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
        self.fingerprint = self.rotation.switch()
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
                    "doing": led.mailbox.doing,
                    "metrics": led.metrics,
                    "result": led.result,
                    **led.mailbox.count_offers(),
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
                "silent_s": None if m.number is None else _floor_at_zero(self.silent_s(m.number)),
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


def _floor_at_zero(seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, seconds)


def _own_key(key_id: str) -> Any:
    try:
        return public_key(key_id)
    except InvalidInput:
        return None


def _work(run: str, plan: tuple[str, int], offer: Offer) -> WorkOrder:
    return WorkOrder(
        run=run,
        ticket=offer.ticket,
        task=offer.task.hex(),
        payload=offer.payload,
        payload_bytes=offer.payload_bytes,
        plan=plan[0],
        plan_bytes=plan[1],
        limit_bytes=offer.limit_bytes,
        work=offer.work,
    )
