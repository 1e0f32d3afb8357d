"""The thread of a client that computes tickets and uploads their messages."""

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from hanse.core import Declined, InvalidInput, MessageError
from hanse.core.exchange import NotReady, Payload, Stored, Task
from hanse.network.client.allowed_plan import check_again
from hanse.network.client.connection import Connection
from hanse.network.client.limits import PRIVACY, SHARES, UNNOISED, Revealed
from hanse.network.client.role import OpenRole, OpenRun
from hanse.network.client.roles import Roles
from hanse.network.client.ticket_process import ComputationFailed, TimeLimitExceeded
from hanse.network.client.tickets import Tickets, name_ticket
from hanse.network.protocol.envelope_words import find_at_home
from hanse.network.protocol.errors import (
    Forbidden,
    Refused,
    RowStays,
    Unreachable,
    Unsuited,
    Withdrawn,
    WrongContent,
    is_disk_full,
)
from hanse.network.protocol.sealed_plan import explain_unreadable, unpack_sent
from hanse.network.protocol.spool import Outgoing
from hanse.network.protocol.wire import Code, Failure, WorkOrder

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

MOST_WRONG = 3
"""After so many downloads of an object that do not have its SHA-256, its ticket is given up."""


class Worker:
    """Performs work orders one after the other.

    Args:
      connection, tickets, roles: of the client.
      log: the client's own, for texts of errors.
      poll_now: called after a ticket that was not answered.
    """

    def __init__(
        self,
        connection: Connection,
        tickets: Tickets,
        roles: Roles,
        log: logging.Logger,
        poll_now: Callable[[], None],
    ) -> None:
        self._connection, self._tickets, self._roles = connection, tickets, roles
        self._home, self._log, self._poll_now = connection.home, log, poll_now
        self._early: set[tuple[str, int | None]] = set()  # runs and tickets without a result yet
        self.error: BaseException | None = None
        """The error that ended this thread, if one did."""

    def run(self) -> None:
        """Works until there are no more work orders. An error ends the client."""
        stopping = self._connection.stopping
        try:
            while (work := self._tickets.wait()) is not None and not stopping.is_set():
                if not self._perform(work) and not stopping.is_set():
                    # The poll that is under way says that this ticket is worked on; this one corrects it.
                    with contextlib.suppress(Unreachable, Refused):
                        self._poll_now()
                self._connection.say("waiting for work", "waiting")
        except Withdrawn as withdrawn:
            self._connection.say(f"{withdrawn}: this client ends")
            stopping.set()
        except BaseException as error:
            self.error = error
            stopping.set()

    def _perform(self, work: WorkOrder) -> bool:
        """Performs a work order, and returns whether its ticket was answered."""
        say, home = self._connection.say, self._home
        state: Literal["refused", "downloaded", "trained"] = "refused"
        try:
            run = self._roles.open_run(work, partial(self._fetch, work.run))
            task = self._read_task(work, run)
            if task.ticket != work.ticket:
                raise MessageError(f"a task for ticket {task.ticket} under ticket {work.ticket}")
            role = self._roles.open_role(work.run, run, task.party)
            name = name_ticket(task, work.payload, role.plan)
            message = None if self._may_hold_row(run, role) else Outgoing.find(role.folder, work.ticket, name)
            counted_bytes, is_row = 0, False
            if message is None:
                if (work.run, task.after) in self._early:  # it was queued before that was known
                    raise NotReady(f"it goes on from ticket {task.after}, which is not ready yet")
                own = role.name_message(task, name)
                self._check_policy(work, run, role, f"{work.run}/{own}")
                say(f"downloading for ticket {work.ticket}", "downloading")
                payload = self._fetch_payload(role, work)
                state = "downloaded"
                home.audit.write(
                    "receives",
                    sync=False,  # nothing leaves; the next line that says so takes it along
                    run=work.run,
                    ticket=work.ticket,
                    work=type(payload.work).__name__,
                    task=work.own or hashlib.sha256(bytes.fromhex(work.task)).hexdigest(),
                    payload=work.payload,
                )
                home.policy.check_work(type(payload.work).__name__, work.limit_bytes)
                envelope = run.check.check(home, work, payload, task)
                is_owners = bool(find_at_home(envelope.work))
                revealed = (
                    Revealed(0, False)
                    if envelope.is_phase or is_owners
                    else home.policy.measure_message(envelope.work, payload.uplink)
                )
                home.policy.check_epsilon(home.spent, revealed.units, in_shares=revealed.in_shares)
                say(f"{type(payload.work).__name__} for ticket {work.ticket}", "computing")
                if not envelope.is_phase:  # what is kept for a sum must not outlive it
                    role.note(task, work.payload, own)
                answer, own = self._compute(work, role, task, payload, name)
                counted = f"{work.run}/{own}"
                state = "trained"
                if is_owners:
                    self._tell_owner(work.run, role.told)
                    if is_row := bool(payload.uplink):
                        home.policy.check_share()
                        revealed = home.policy.measure_message(envelope.work, payload.uplink)
                examples = role.num_examples or 0
                home.policy.check_work(type(payload.work).__name__, len(answer))
                if not home.spent.has(counted):
                    home.policy.check_use(home.spent, len(answer), examples=examples)
                    counted_bytes = len(answer)
                self._count_release(f"{counted}/{hashlib.sha256(answer).hexdigest()}", revealed)
                home.spent.add(counted, tickets=1, upload_bytes=len(answer), examples=examples)
                role.keep()
                self._early.discard((work.run, work.ticket))
                message = Outgoing.write(role.folder, work.ticket, [answer], name)
                del answer, payload  # both are on the disk now
            state = "trained"
            self._check_settings(work, run, role, message.size)
            self._upload(work, message, counted_bytes, is_row=is_row)
            return True
        except Withdrawn:
            raise
        except Refused as refused:
            self._give_up(work)  # a message may have arrived, whatever is said now
            self._roles.forget_tasks(work.run, [work.ticket])
            say(f"ticket {work.ticket}: {refused}")
        except Unreachable:
            self._give_up(work)
        except Forbidden as forbidden:
            self._fail(work, Failure(state="refused", code=forbidden.code), forbidden)
        except Unsuited as error:
            self._fail(work, Failure(state="refused", code="data"), error)
            raise
        except Exception as error:
            if isinstance(error, ComputationFailed) and self._connection.stopping.is_set():
                self._give_up(work)  # its process was ended with the client
                return False
            if is_disk_full(error):  # the ticket stays open, and is computed again once there is space
                raise
            self._fail(work, Failure(state=state, code=_code(error)), error)
        return False

    def _may_hold_row(self, run: OpenRun, role: OpenRole) -> bool:
        """Returns whether a message that is on the disk may hold a row, which its owner may keep since.

        Such a message is computed again, and held against the policy as it reads now.
        """
        return role.client is not None and run.check.asks_row

    def _tell_owner(self, run: str, told: str) -> None:
        """Shows the client's owner a result that is the owner's own, and keeps it in the client home."""
        lines = self._home.keep_row(run, told)
        for line in lines:
            self._connection.say_line(f"run {run}: {line}")

    def _count_release(self, name: str, revealed: Revealed) -> None:
        """Counts what a message reveals, before it is sent. Another message for the same ticket is another.

        Raises: Forbidden: if the policy does not allow it any more.
        """
        spent, (units, is_open, in_shares) = self._home.spent, revealed
        if (units or is_open) and not spent.has(name):
            self._home.policy.check_epsilon(spent, units, in_shares=in_shares)
            shares = {SHARES: 1} if in_shares else {}
            spent.add(name, **{PRIVACY: units, UNNOISED: int(is_open), **shares})

    def _check_policy(
        self, work: WorkOrder, run: OpenRun, role: OpenRole | None = None, counted: str = ""
    ) -> None:
        """Checks a work order before anything is downloaded for it.

        Args:
          counted: the name by which its ticket is counted, perhaps already; empty: its task is not here yet.

        Raises: Forbidden, Withdrawn.
        """
        self._check_settings(work, run, role, work.limit_bytes)
        if self._home.spent.has(counted):
            return  # `_fetch` checks the bytes
        size = work.own_bytes if role is None else work.payload_bytes
        examples = 0 if role is None else role.num_examples or 0
        self._home.policy.check_use(self._home.spent, download_bytes=size, examples=examples)

    def _check_settings(self, work: WorkOrder, run: OpenRun, role: OpenRole | None, sends_bytes: int) -> None:
        """Checks a work order by all that the owner decides, as it is now, but for the budgets.

        Raises: Forbidden, Withdrawn.
        """
        self._home.check_consent()
        self._home.note_settings()
        check_again(self._home, run.sealed)
        self._home.policy.check_work(work.work, sends_bytes)
        if role is not None and role.has_data:
            self._home.policy.check_data(role.num_examples)

    def _read_task(self, work: WorkOrder, run: OpenRun) -> Task:
        """Reads the task of a work order, and first fetches one that holds tensors for this client alone.

        Raises: Forbidden: if the policy does not allow the work.
        """
        if not work.own:
            return unpack_sent(bytes.fromhex(work.task), Task)
        path = self._roles.own_task(work)
        if not path.exists():
            self._check_policy(work, run)
            url = f"/v1/runs/{work.run}/tickets/{work.ticket}/task"
            self._fetch(work.run, url, work.own, work.own_bytes, path)
        return unpack_sent(Stored(path), Task)

    def _fetch_payload(self, role: OpenRole, work: WorkOrder) -> Payload:
        path = role.folder / f"{work.payload}.payload"
        if not path.exists():
            for old in [*role.folder.glob("*.payload*"), *role.folder.glob("*.task")]:
                if not old.name.startswith(path.name):  # or it is the beginning of this one
                    old.unlink()
            url = f"/v1/runs/{work.run}/objects/{work.payload}"
            self._fetch(work.run, url, work.payload, work.payload_bytes, path)
        try:
            return unpack_sent(Stored(path), Payload)
        except MessageError as error:
            raise explain_unreadable(f"ticket {work.ticket}", error) from None

    def _fetch(self, run: str, url: str, sha256: str, size: int, to: Path) -> None:
        """Downloads an object of a run. Each attempt is within the policy, and what arrives is counted.

        Raises: Forbidden: if the policy does not allow it; MessageError: if what arrives is another object.
        """
        home, part, wrong = self._home, to.with_name(f"{to.name}.part"), [0]

        def attempt() -> None:
            here, arrived = part.stat().st_size if part.exists() else 0, [0]
            home.policy.check_download(size, home.count_download_bytes(to))
            home.policy.check_use(home.spent, download_bytes=max(0, size - here), tickets=0)
            try:
                self._connection.gate.download(url, sha256, size, to, arrived.append)
            except WrongContent as error:
                wrong[0] += 1
                if wrong[0] == MOST_WRONG:
                    raise MessageError(f"{url} had another SHA-256 {MOST_WRONG} times") from error
                raise
            finally:
                if sum(arrived):
                    home.spent.add(download_bytes=sum(arrived))

        self._connection.insist(attempt)

    def _compute(
        self, work: WorkOrder, role: OpenRole, task: Task, payload: Payload, name: str
    ) -> tuple[bytes, str]:
        """Computes a ticket in the time that the policy allows; returns what `OpenRole.compute` does.

        Raises: Forbidden: if that time is not enough. Unsuited: if the data don't suit the run.
        """
        limit_s = self._home.policy.limit_s(self._home.spent.of_today("seconds"))
        began_s = time.monotonic()
        try:
            return role.compute(task, payload, name, limit_s)
        except TimeLimitExceeded:
            why = f"this client's policy allows {limit_s:.4g} s of computation for it: it was stopped"
            raise Forbidden(why, "time") from None
        except Unsuited:
            raise
        except InvalidInput as error:
            raise Unsuited(f"this client's data do not suit run {work.run}: {error}") from error
        finally:
            with contextlib.suppress(OSError):  # a full disk is reported where the message is written
                self._home.spent.add(seconds=time.monotonic() - began_s)

    def _upload(
        self, work: WorkOrder, message: Outgoing, counted_bytes: int, *, is_row: bool = False
    ) -> None:
        """Sends a message. What leaves once more, because a server asks again, counts once more.

        Args:
          counted_bytes: those that are counted already, and have not left.
          is_row: whether it leaves only while the policy shares this client's row, however long that takes.

        Raises: Forbidden: if the policy does not allow so many bytes, or the row any more.
        """
        left_bytes = 0

        def leave(size: int) -> None:
            nonlocal left_bytes
            policy, spent, before = self._home.policy, self._home.spent, max(0, left_bytes - counted_bytes)
            if is_row and size > 0:
                policy.check_share()
            left_bytes += size
            more = max(0, left_bytes - counted_bytes) - before
            if more > 0:
                policy.check_use(spent, upload_bytes=more, tickets=0)
            if more:  # below 0: it has not left
                spent.add(upload_bytes=more)

        connection = self._connection
        connection.say(f"uploading {message.size} bytes for ticket {work.ticket}", "uploading")
        with self._tickets.sending(work):
            connection.gate.send(work, message, connection.insist, leave)
        self._roles.forget_tasks(work.run, [work.ticket])
        logger.debug("event=sent run=%s ticket=%d bytes=%d", work.run, work.ticket, message.size)

    def _give_up(self, work: WorkOrder, *, drop: bool = False) -> None:
        """Stops working on a ticket; for `drop`, see `Roles.forget`."""
        self._tickets.give_up(work)
        self._roles.forget(work.run, work.ticket, drop=drop)

    def _fail(self, work: WorkOrder, failure: Failure, error: Exception) -> None:
        """Tells the server by a code that a ticket will not be answered. The reason stays at the client."""
        is_early, stays = failure.code == "not-ready", isinstance(error, RowStays)
        what = "is not ready yet" if is_early else f"failed ({failure.code})"
        reason = (str(error).splitlines() or [""])[0]
        self._connection.say(reason if stays else f"ticket {work.ticket} {what}: {reason}")
        if is_early:
            self._early.add((work.run, work.ticket))
        else:
            self._roles.forget_tasks(work.run, [work.ticket])
        if not is_early and not stays:
            self._log.error("ticket %d of run %s failed: %s", work.ticket, work.run, error, exc_info=error)
        logger.info("event=failed run=%s ticket=%d code=%s", work.run, work.ticket, failure.code)
        self._connection.gate.fail(work, failure, partial(self._connection.insist, quietly=True))
        self._give_up(work, drop=True)


def _code(error: Exception) -> Code:
    """Returns the code of an error that neither the policy nor the data caused."""
    if isinstance(error, ComputationFailed):
        return error.code
    if isinstance(error, MessageError | Declined):
        return "message" if isinstance(error, MessageError) else "promise"
    if isinstance(error, NotReady):
        return "not-ready"
    return "resources" if isinstance(error, MemoryError | OSError) else "internal"
