"""The server: its members, its runs, and the answers to requests of clients and of the operator."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput, PartyId
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.signing import Identity, Verifier, public_key, secret_at
from hanse.network.protocol.wire import (
    JSON_BYTES,
    PLANS_BYTES,
    Decision,
    News,
    Poll,
    Rotated,
    Rotation,
    WorkOrder,
    cut,
)
from hanse.network.server.audit_heads import AuditHeads
from hanse.network.server.invitations import Invitations
from hanse.network.server.job import SERVED, RunJob
from hanse.network.server.mailbox import UNFINISHED, Offer
from hanse.network.server.members import Member, Members
from hanse.network.server.pace import again_s, pool
from hanse.network.server.presence import Presence
from hanse.network.server.records import RoundReport, RunStanding, check_outcomes
from hanse.network.server.rehearsal import foresee
from hanse.network.server.rotation import CertificateRotation
from hanse.network.server.run_thread import HEAD, RunThread
from hanse.network.server.sockets import Connections, Rates
from hanse.network.server.upkeep import forget_member
from hanse.store import Runs
from hanse.version import __version__

__all__ = ["Server"]

logger = logging.getLogger(__name__)

FAREWELL_S = 5.0
"""A server that is done waits so long for its clients to hear of it."""

WHY = 2000
"""The most characters of a reason that a client hears."""

MAX_FAREWELL_S = 600.0
"""A server that is done waits so much longer at most for clients that it has asked to come back."""


class Server:
    """Answers the requests of clients and of the operator.

    It keeps the members, starts the runs and says when all have ended, collects the news for a client's poll,
    and shows and steers everything for the operator.

    Args:
      home: the folder where everything is kept; is made if it does not exist, readable for its owner only.
      fingerprint: of the certificate that clients see.
      stay: whether to go on serving when all runs have ended.
      say: called with a line that the operator should see at once.
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
        self.report: Callable[[RoundReport], None] = self._say_absences
        """Called in a run's thread with the report of each round; it must return at once."""
        self.home, self.fingerprint, self.stay = home, fingerprint, stay
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.chmod(0o700)  # also if somebody made it before: it holds clients' updates
        self.members = Members(home / "members.db")
        self.audit_heads = AuditHeads(self.members)
        self.invitations = Invitations(home / "invitations", self.members)
        self.runs = Runs(home / "runs.db")
        self.verifier = Verifier(self.members.key)
        self.joining = Verifier(_find_own_key)
        self.anyone = Verifier(lambda key_id: self.members.key(key_id) or _find_own_key(key_id))
        self.secret = secret_at(home / "secret")
        self.identity = Identity.at(home / "identity.pem")
        self.rotation = CertificateRotation(home)
        self.presence = Presence()
        self._led: dict[str, RunThread] = {}
        self.strangers: Counter[str] = Counter()
        """The refused requests of nobody that belongs here, by code."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Messages that were received, tickets that failed and requests that were refused, each by code."""
        self.observe_round: Callable[[RoundReport], None] = lambda report: None
        """Called in a run's thread before `report` is."""
        self.rates = Rates()
        self.connections: Connections | None = None
        """The connections of the socket that this server is served on; None: it is not yet."""
        self.over = self._leaving = False
        self._dismissed: set[str] = set()  # the runs that their operator has stopped
        self.full = False
        """Whether a run was stopped because no space was left on the disk."""
        self.done = threading.Event()
        """Set when all runs have ended and their clients know it."""

    # -- runs ----------------------------------------------------------------------------------

    def lead(self, job: RunJob, run: str | None = None) -> str:
        """Begins a run, or goes on with the one of this name; returns its name."""
        if run is None:
            kept = {**job.said, SERVED: job.served}
            run = self.runs.begin(kept, job.environment or {}, name=job.name, tags=job.tags)
        foreseen, why = foresee(job)
        if why:
            self.members.note(
                run, f"not all of it could be performed dry, so clients may refuse: {why}"[:1000]
            )
        job = replace(job, plan=replace(job.plan, run=run, envelopes=foreseen.write()))
        # A client that waits for work must not count as silent.
        self.presence.hold_s = min(self.presence.hold_s, job.patience.silent_s / 2)
        self._dismissed.discard(run)
        led = self._led[run] = RunThread(
            run,
            job,
            self.home / "runs" / run,
            self.members,
            self.presence,
            self.runs,
            self.secret,
            lambda line: self.say(line),
            self._end_round,
            self.end_run,
        )
        num_bytes = sum(one.plan[1] for one in self._led.values())
        if 2 * num_bytes > PLANS_BYTES - 10_000:
            raise InvalidInput(
                f"the plans of the runs have {num_bytes} bytes, and clients take {PLANS_BYTES // 2 - 5000}; "
                "use fewer categories, or fewer runs at a time"
            )
        led.start()
        return run

    def check_store(self, resumed: Iterable[str], *, fresh: bool) -> None:
        """Checks that the store is not older than it was, for example a copy that was restored.

        Args:
          resumed: the runs that are to go on.
          fresh: whether new runs are to begin even if the store does not know all runs that left files here.
            Then those are forgotten.

        Raises: StoreError: saying what is missing.
        """
        for run in resumed:
            folder = self.home / "runs" / run
            self.runs.check(run, folder / HEAD)
            check_outcomes(folder, (folder / HEAD).exists())
        heads = sorted((self.home / "runs").glob(f"*/{HEAD}"))
        if not fresh:
            return self.runs.check_known(heads)
        known = {info.run for info in self.runs.infos()}
        for path in heads:
            if path.parent.name not in known:
                path.unlink()

    def run(self, name: str) -> RunThread:
        """Returns a run that this server leads. Raises: Refused."""
        if name not in self._led:
            raise Refused(404, "no-run", f"this server leads no run {name[:40]!r}")
        return self._led[name]

    def _end_round(self, report: RoundReport) -> None:
        self.observe_round(report)
        self.report(report)

    def _say_absences(self, report: RoundReport) -> None:
        """Says it if a round did not count all clients that it asked."""
        if report.missed:
            self.say(f"run {report.run}: round {report.round} {report.describe_counts()}")

    def led(self) -> list[RunThread]:
        """Returns all runs of this server."""
        return list(self._led.values())

    def plans(self) -> list[str]:
        """Returns the plans of these runs, packed, in hexadecimal."""
        if not self._led:
            raise Refused(503, "unavailable", "the server has no runs yet; try again in a moment")
        return [led.plans.path(led.plan[0]).read_bytes().hex() for led in self.led()]

    def end_run(self, run: RunThread) -> None:
        """Notes that a run has ended; if all have, tells the clients, and sets `done`."""
        self.full = self.full or run.disk_full
        self.members.note(run.name, f"{run.status}: {json.dumps(run.result)}")
        if self.stay:
            run.say(f"{run.status}: {run.reason}" if run.reason else run.status)
        if self.full:  # clients wait until the run is served again, so they must not hear that it is over
            self.done.set()
        elif (not self.stay or self._dismissed) and not self._has_run("running"):
            if self._has_run(*UNFINISHED):  # its clients wait until it is served again
                if not self.stay:
                    self.done.set()
                return
            self.over = True
            self.presence.wake_all()
            if self.stay:
                return
            here = self.members.parties()
            back_s = max((-(self.presence.silent_s(party) or 0.0) for party in here), default=0.0)
            until_s = time.monotonic() + FAREWELL_S + min(max(back_s, 0.0), MAX_FAREWELL_S)
            while time.monotonic() < until_s and not self._leaving and not self._all_told():
                time.sleep(0.02)
            self.done.set()

    def stop_run(self, name: str) -> None:
        """Ends a run now, as its operator says. Clients hear that it is over once no run is left.

        A run that has ended already, such as one that failed, no longer keeps them waiting.

        Raises: Refused: if there is no such run.
        """
        led = self.run(name)
        self._dismissed.add(name)
        if led.status == "running":
            led.mailbox.stop("its operator stopped it", "stopped")
        elif not self._has_run("running", *UNFINISHED):
            self.over = True
            self.presence.wake_all()

    def _has_run(self, *statuses: str) -> bool:
        """Returns whether a run has one of these statuses, apart from ended ones that were dismissed."""
        return any(
            led.status in statuses and (led.status == "running" or led.name not in self._dismissed)
            for led in self.led()
        )

    def _all_told(self) -> bool:
        return self.presence.all_told(self.members.parties())

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stops all runs where they are. They can be resumed."""
        self._leaving = True
        for led in self._led.values():
            led.mailbox.stop()
        for led in self._led.values():
            led.join(timeout_s)
            led.mailbox.close_file()

    # -- members -------------------------------------------------------------------------------

    def notify_runs(self) -> None:
        """Tells the runs that members joined or left."""
        for led in self._led.values():
            led.mailbox.notify()

    def blame(self, who: str, error: Refused) -> None:
        """Notes that a member offended; the same offence again is only counted.

        Args:
          who: its id.
        """
        member = self.members.find(who)
        if member is None:
            self.strangers[error.code] += 1
        else:
            self.members.note(member.name, f"refused: {error}", code=f"refused {error.code}", source=who)

    def note_crowd(self) -> None:
        """Notes that a connection was ended because there were too many."""
        self.members.note("the server", "ended a connection, because too many are open", code="crowd")

    def part(self, id: str, state: Any) -> Member:
        """Ends a membership at once."""
        member = self.members.part(id, state)
        party, dropped = member.party, 0
        if party is not None:
            dropped = sum(led.mailbox.withdraw(party) for led in self._led.values())
            self.presence.end_poll(party)
        what = f"{state}; {dropped} of its messages that had arrived are dropped" if dropped else state
        self.members.note(member.name, what, source=member.id)
        logger.info("event=parted member=%s state=%s dropped=%d", member.id, state, dropped)
        self.notify_runs()
        return member

    def forget(self, id: str) -> Member:
        """Removes what is kept of a member that is gone: see `forget_member`."""
        member = forget_member(self.members, self.runs, self.home, id)
        self.members.note("server", f"{member.id} is forgotten")
        return member

    # -- polls ---------------------------------------------------------------------------------

    async def poll(self, party: PartyId, poll: Poll) -> News:
        """Answers a client's poll when there is news, or when the wait is over."""
        for run, tickets in poll.know.items():
            if run in self._led:
                self._led[run].mailbox.acknowledge(party, tickets)
        return await self.presence.answer(party, poll, lambda: self._find_news(party, poll), self._rest_s)

    def _rest_s(self, party: PartyId, num_polls: int, let_go: bool) -> float:
        """Returns the seconds after which a client that is not needed now should come back.

        0: it should wait, or ask at once. Parties that have names do, since rounds can't do without them.
        """
        if isinstance(party, str):
            return 0.0
        num_wanted = sum(led.mailbox.most for led in self._led.values() if led.status == "running")
        if num_wanted == 0 or (not let_go and self.presence.waiting < pool(num_wanted)):
            return 0.0
        rounds = [led.round_s for led in self._led.values() if led.round_s is not None]
        draw = float(self.secret.fold_in("pace", party, num_polls).secret_rng().random())
        pass_s = min([self.presence.hold_s, *rounds])
        return again_s(self.presence.count_alive(), num_wanted, pass_s, float(draw))

    def _find_news(self, party: PartyId, poll: Poll) -> News:
        work: list[WorkOrder] = []
        decisions: list[Decision] = []
        for name, led in self._led.items():
            have = set(poll.have.get(name, ()))
            work += [_work(name, led.plan, offer) for offer in led.mailbox.offers(party, have)]
            decisions += [
                Decision(
                    run=name,
                    ticket=ticket,
                    counted=outcome.counted,
                    why=outcome.why[:WHY],
                    party=outcome.party,
                )
                for ticket, outcome in sorted(led.mailbox.news(party).items())
            ]
        certificate = self.rotation.news(self.fingerprint, poll.expects)
        work = cut(work[:100], JSON_BYTES // 3, lambda order: 1000 + len(order.task))
        decisions = cut(decisions[:1000], JSON_BYTES // 3, lambda decision: 300 + 6 * len(decision.why))
        return News(
            work=work,
            decisions=decisions,
            over=self.over,
            certificate=certificate,
            ended={name: led.status for name, led in self._led.items() if led.status != "running"},
        )

    # -- for the operator ----------------------------------------------------------------------

    def rotate(self, asked: Rotation) -> Rotated:
        """Announces another certificate, or shows the one that was announced. Raises: Refused."""
        if not asked.switch:
            fingerprint = self.rotation.announce(asked.certificate)
            self.presence.wake_all()
        else:
            fingerprint = self.rotation.announced
        active = {m.party: m.name for m in self.members.active("client") if m.party is not None}
        know = [name for party, name in active.items() if self.presence.expects.get(party) == fingerprint]
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
        """Describes the runs, names parties, and counts clients, open invitations and strangers' requests."""
        return {
            "hanse": __version__,
            "is_running": True,
            "as_of": time.time(),
            "runs": [
                {
                    "run": led.name,
                    "status": led.status,
                    "round": led.round,
                    "doing": led.mailbox.doing,
                    "metrics": led.metrics,
                    "result": led.result,
                    **led.mailbox.count_offers(),
                    **_describe_standing(led.standing),
                }
                for led in self._led.values()
            ],
            "clients": len(self.members.clients()[0]),
            "parties": sorted(party for party in self.members.parties() if isinstance(party, str)),
            "open_invitations": self.members.open_invitations(),
            "refused_strangers": dict(self.strangers),
        }

    def clients(self) -> list[dict[str, Any]]:
        """Describes everybody who ever joined."""
        return [
            {
                "id": m.id,
                "role": m.role,
                "number": m.number,
                "party": m.party,
                "name": m.name,
                "key": m.public,
                "state": m.state,
                "joined": m.joined,
                "silent_s": None if m.party is None else _floor_at_zero(self.presence.silent_s(m.party)),
                "doing": "" if m.party is None else self.presence.doing.get(m.party, ""),
            }
            for m in self.members.all()
        ]


def _describe_standing(standing: RunStanding) -> dict[str, Any]:
    names = ("num_rounds", "round_s", "bytes_up", "bytes_down", "num_joined", "present", "awaited")
    return {name: getattr(standing, name) for name in names}


def _floor_at_zero(seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, seconds)


def _find_own_key(key_id: str) -> Any:
    try:
        return public_key(key_id)
    except InvalidInput:
        return None


def _work(run: str, plan: tuple[str, int], offer: Offer) -> WorkOrder:
    return WorkOrder(
        run=run,
        ticket=offer.ticket,
        task=offer.task.hex(),
        own=offer.own,
        own_bytes=offer.own_bytes,
        payload=offer.payload,
        payload_bytes=offer.payload_bytes,
        plan=plan[0],
        plan_bytes=plan[1],
        limit_bytes=offer.limit_bytes,
        work=offer.work,
    )
