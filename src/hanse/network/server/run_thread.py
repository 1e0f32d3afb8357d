"""A run in a thread of its own, which its server answers requests about."""

import contextlib
import json
import logging
import statistics
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hanse.core import Diverged, Key, PartyId, Program, Stalled, bind_learner
from hanse.core.exchange import Commit, PartyMemory, Record, drive, pieces
from hanse.network.protocol.errors import is_disk_full
from hanse.network.protocol.party import Party
from hanse.network.protocol.sealed_plan import seal_plan
from hanse.network.protocol.spool import Objects, durably
from hanse.network.protocol.uploads import Spool
from hanse.network.server.failed_tickets import FailedTickets
from hanse.network.server.job import RunJob, Uncounted
from hanse.network.server.mailbox import UNFINISHED, Mailbox, Stopped
from hanse.network.server.members import Members
from hanse.network.server.presence import Presence
from hanse.network.server.records import (
    NAMED,
    Attendance,
    Outcomes,
    Recording,
    RoundReport,
    RunEnd,
    RunStanding,
    describe_party,
    order_parties,
)
from hanse.network.server.runtime import NetworkRuntime
from hanse.network.server.waiting import Waiting
from hanse.network.server.weights import BoundedWeight
from hanse.store import Runs

__all__ = ["HEAD", "RunThread"]

logger = logging.getLogger(__name__)

HEAD = "head"
"""The name of the file in a run's folder that tells how far the run has got, in case its store is lost."""

NOTES = "notes.json"
"""The name of the file there that holds what the program has noted beside its state."""


class RunThread:
    """Leads a run from its first round, or from where it was interrupted, to its end.

    Args:
      folder: of the run's files.
      members, presence: of the server.
      store: where results and snapshots are kept.
      secret: of the server.
      say: called with a line that the operator should see at once.
      report: called with the report of each round. It must return at once: the run waits for it.
      ended: called in the run's thread when the run has ended.
    """

    def __init__(
        self,
        name: str,
        job: RunJob,
        folder: Path,
        members: Members,
        presence: Presence,
        store: Runs,
        secret: Key,
        say: Callable[[str], None],
        report: Callable[[RoundReport], None],
        ended: "Callable[[RunThread], None]",
    ) -> None:
        self.name, self._job, self._members, self._store = name, job, members, store
        self._secret, self._say, self._report, self._ended = secret, say, report, ended
        self._folder = folder
        self.objects = Objects(folder / "objects")
        self.own = Objects(folder / "own")
        self.plans = Objects(folder / "plans")
        self.spool = Spool(folder / "spool")
        self.failed_tickets = FailedTickets(folder / "cases")
        self._name_foreign()
        self.plan = self.plans.put(pieces(seal_plan(job.plan)))
        self.mailbox = Mailbox(
            presence.wake,
            presence.silent_s,
            members.clients,
            members.parties,
            Outcomes(folder / "outcomes.db"),
            members.find_player,
        )
        self.status, self.reason, self.result = "running", "", dict[str, Any]()
        self.disk_full = False
        """Whether the run was stopped because no space was left on the disk."""
        self._seconds: deque[float] = deque(maxlen=11)
        self.round, self.metrics = 0, dict[str, float]()
        self._attendance: Attendance | None = None
        self._round_began_s, self._bytes_up, self._bytes_down = time.monotonic(), 0, 0
        self._thread = threading.Thread(target=self._lead, name=f"run {name}", daemon=True)

    def _name_foreign(self) -> None:
        """Notes which files in the run's folders are not Hanse's."""
        kinds = (self.objects, self.own, self.plans, self.spool, self.failed_tickets)
        found = [path for kept in kinds for path in kept.find_foreign()]
        if found:
            some = ", ".join(str(path) for path in found[:NAMED]) + (", ..." if len(found) > NAMED else "")
            what = "1 file that is" if len(found) == 1 else f"{len(found)} files that are"
            self._members.note(self.name, f"found {what} not Hanse's, and leaves them alone: {some}")

    @property
    def round_s(self) -> float | None:
        """The median time of the last rounds; None: none has passed."""
        return statistics.median(self._seconds) if self._seconds else None

    @property
    def is_alive(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    @property
    def standing(self) -> RunStanding:
        """The standing of the run at this moment. Any thread may ask."""
        clients, named = self._members.clients()[0], set(self._job.parties)
        joined: set[PartyId] = {*clients, *(named & self._members.parties())}
        present = joined - self.mailbox.absent(joined, self._job.patience.silent_s)
        return RunStanding(
            self.name,
            self.status,
            self.round,
            self._job.num_rounds,
            self.mailbox.doing,
            dict(self.metrics),
            time.monotonic() - self._round_began_s,
            self._bytes_up,
            self._bytes_down,
            len(joined),
            tuple(order_parties(present)),
            tuple(order_parties(self.mailbox.find_open_holders())),
            self._job.metric,
        )

    @property
    def end(self) -> RunEnd:
        """The end of the run, or of its serving."""
        counted = self._members.attendance.list_counts(self.name)
        is_over = self.status not in ("running", *UNFINISHED)
        return RunEnd(self.name, self.status, self.reason, self.result, self._job.said, counted, is_over)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Waits for the thread to end."""
        self._thread.join(timeout_s)

    def _lead(self) -> None:
        logger.info("event=run-started run=%s", self.name)
        try:
            self.status = self._perform()
        except Exception as error:
            self.status, self.reason = "failed", f"{type(error).__name__}: {error}"
            if is_disk_full(error):
                self.status, self.disk_full = "interrupted", True
            self._members.note(self.name, f"failed: {error}"[:1000] + f"\n{traceback.format_exc()[-2900:]}")
            logger.error("event=run-failed run=%s error=%s", self.name, type(error).__name__)
        if self.status not in UNFINISHED:  # nobody is asked again for what is left open
            self.mailbox.close_all()
            self.mailbox.open()
            self.own.keep_only(set())
        self.mailbox.doing = self.status
        logger.info("event=run-ended run=%s status=%s round=%d", self.name, self.status, self.round)
        self._ended(self)

    def _perform(self) -> str:
        """Waits for the clients and performs the program; returns the run's status."""
        try:
            if self._store.info(self.name).status != "completed":  # else it was killed while it said goodbye
                self._await_clients()
        except Stopped as stop:  # before it had begun
            self.reason = stop.reason
            before = self._store.info(self.name).result
            self._store.finish(self.name, stop.status, before or {"reason": stop.reason})
            return stop.status
        return self._drive()

    def _await_clients(self) -> None:
        """Waits until enough clients have joined, and enough of them and all named parties are present."""
        job, known = self._job, 0
        records = self._store.records(self.name)
        has_begun = bool(records)  # then some may have left for good
        for record in records:
            self.round, self.metrics = record.round, {**self.metrics, **record.metrics}
            self._bytes_up += record.usage.bytes_up
            self._bytes_down += record.usage.bytes_down
        num_clients = 0 if has_begun else job.num_clients
        waiting = Waiting(self.mailbox, self.say)
        while True:
            here, _ = self._members.clients()
            all_here = len(here) if has_begun else num_clients
            needed = job.patience.count_needed(min(job.num_present, all_here))
            absent = self.mailbox.absent(here, job.patience.silent_s)
            missing = set(job.parties) - self._members.parties()
            missing |= self.mailbox.absent(job.parties, job.patience.silent_s)
            present = len(here) - len(absent)
            if len(here) >= num_clients and present >= needed and not missing:
                return
            joined = f"; {len(here)} of {num_clients} have joined" if len(here) < num_clients else ""
            enough = min(present, needed) if missing else present  # others do not stand in for named ones
            num_here = enough + len(job.parties) - len(missing)
            waiting.tell(num_here, needed + len(job.parties), {*absent, *missing}, joined)
            known = self.mailbox.wait(time.monotonic() + 3600.0, known)

    def say(self, line: str) -> None:
        """Tells the operator something about this run."""
        with contextlib.suppress(OSError):  # nobody may read any more what is said
            self._say(f"run {self.name}: {line}")

    def _attend(self, attendance: Attendance) -> None:
        self._members.attend(self.name, attendance)
        self._attendance = attendance

    def _note_bound(self, round: int, bounded: BoundedWeight) -> None:
        """Records that a client's weight was bounded, and tells the operator of it once a round."""
        if self._members.bound(self.name, round, bounded):
            who, what = describe_party(bounded.party), bounded.describe()
            self._note(who, f"round {round}: {what}")
            self.say(f"round {round}: {who} {what}")

    def _describe_bounds(self) -> list[dict[str, str]]:
        """Describes, in the form of findings, which clients' weights were bounded in this run."""
        found: dict[PartyId, list[BoundedWeight]] = {}
        for _, bounded in self._members.list_bounds(self.name):
            found.setdefault(bounded.party, []).append(bounded)
        return [
            {
                "code": "weight_bounded",
                "text": f"{describe_party(party)} {bounds[-1].describe()} ({len(bounds)} times in this run)",
                "cure": "find out how many examples it has; if it has so many, serve with a larger "
                "--max-weight-ratio, else revoke it",
            }
            for party, bounds in found.items()
        ]

    def _drive(self) -> str:
        """Performs the program, keeps the run's result, and returns its status."""
        job = self._job
        secret = job.secret or self._secret.fold_in("run", self.name)
        with self._store.open(self.name, flush_every_s=0, head=self._folder / HEAD) as store:

            def role(name: str) -> Party:
                data = job.role(name)
                return Party(bind_learner(job.learner, name, data), data, secret.fold_in("role", name))

            runtime = NetworkRuntime(
                self.mailbox,
                self.spool,
                self.objects,
                self.own,
                secret,
                role,
                PartyMemory(store.memory),
                job.patience,
                self._note,
                failed_tickets=self.failed_tickets,
                attend=self._attend,
                say=self.say,
                parties=job.parties,
                joined_s=self._find_joined,
                note_bound=self._note_bound,
                recording=None if job.record is None else Recording(job.record, job.plan),
            )
            saved = store.checkpoint()
            runtime.round = 0 if saved is None else saved.state.round + 1
            job.recall(self._store.records(self.name))
            self._read_notes()
            program = self._keep_notes(job.program(saved.state if saved else job.begin()))
            del saved  # or the first model would be held until the last round
            status, reason = "completed", None
            try:
                progress = drive(program, runtime, store, self._watch)
            except Diverged as error:
                status, reason = "diverged", str(error)
                saved = store.checkpoint()
                progress = saved.state if saved else job.begin()
            except Stalled as stall:
                saved = store.checkpoint()
                status, reason = "interrupted", str(stall)
                progress = saved.state if saved else job.begin()
            except Stopped as stop:
                saved = store.checkpoint()
                status, self.reason = stop.status, stop.reason
                if saved is None:
                    store.finish(status, {"reason": stop.reason})
                    return status
                reason, progress = stop.reason, saved.state
            except Exception as error:
                store.finish("failed", {"reason": str(error)[:2000]})
                raise
            uncounted = tuple(Uncounted(*one) for one in self._members.find_uncounted(self.name))
            records = self._store.records(self.name)
            self.result = dict(job.conclude(self.name, status, progress, records, reason, uncounted))
            if bounds := self._describe_bounds():
                self.result["findings"] = [*self.result.get("findings", ()), *bounds]
            status = str(self.result.get("status", status))
            self.reason = reason or ""
            store.finish(status, self.result)
            return status

    def _read_notes(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._job.notes.update(json.loads((self._folder / NOTES).read_text(encoding="utf-8")))

    def _keep_notes(self, program: Program[Any]) -> Program[Any]:
        """Performs a program, and writes what it has noted before each of its rounds is saved."""
        kept = json.dumps(self._job.notes)
        try:
            command = next(program)
            while True:
                if isinstance(command, Commit) and (noted := json.dumps(self._job.notes)) != kept:
                    durably(self._folder / NOTES, noted.encode())
                    kept = noted
                command = program.send((yield command))
        except StopIteration as end:
            return end.value
        finally:
            program.close()

    def _make_report(self, record: Record) -> RoundReport:
        report = RoundReport(
            self.name,
            record.round,
            record.metrics,
            record.usage.bytes_up,
            record.usage.bytes_down,
            record.seconds,
            record.abandoned,
        )
        here, self._attendance = self._attendance, None
        if here is None or here.round != record.round:
            return report
        return replace(report, num_counted=len(here.counted), missed=here.missed, late=here.late)

    def _find_joined(self, party: PartyId) -> float | None:
        """Returns when the member that plays a party joined; None: no member plays it."""
        player = self._members.find_player(party)
        return None if player is None else player.joined

    def _note(self, who: str, what: str) -> None:
        source = f"run {self.name}, {who}"
        self._members.note(who, f"run {self.name}: {what}", code=what.partition(": ")[2], source=source)

    def _watch(self, record: Record) -> None:
        self.round = record.round
        if record.round > 0:
            self._seconds.append(record.seconds)
        self.metrics = {**self.metrics, **record.metrics}
        self._round_began_s = time.monotonic()
        self._bytes_up += record.usage.bytes_up
        self._bytes_down += record.usage.bytes_down
        with contextlib.suppress(OSError):
            self._report(self._make_report(record))
        if record.abandoned is not None:
            self._members.note(self.name, f"round {record.round} was abandoned: {record.abandoned}")
        logger.info(
            "event=round-ended run=%s round=%d seconds=%.3f abandoned=%s",
            self.name,
            record.round,
            record.seconds,
            record.abandoned is not None,
        )
        self._job.watch(record)
        if self.mailbox.draining:
            self.mailbox.stop("its operator let it end with this round", "stopped")
