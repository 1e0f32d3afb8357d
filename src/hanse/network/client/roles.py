"""The runs that a client takes part in, the roles that it plays there, and their memory on the disk."""

import threading
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput, Key, Memory, MessageError, PartyId, Work, player
from hanse.core.exchange import (
    find_class,
)
from hanse.network.client.allowed_plan import TicketCheck, allow_plan
from hanse.network.client.connection import Connection
from hanse.network.client.limits import count_rows
from hanse.network.client.role import OpenRole, OpenRun, read_forks, settle_forks
from hanse.network.client.ticket_process import Loaded, TicketBackend
from hanse.network.client.tickets import name_data
from hanse.network.protocol.envelope import Envelopes, name_role
from hanse.network.protocol.errors import Forbidden, Unsuited
from hanse.network.protocol.sealed_plan import read_plan
from hanse.network.protocol.spool import Outgoing
from hanse.network.protocol.wire import Decision, Plan, WorkOrder

__all__ = ["OWN", "TEST", "Roles"]

OWN, TEST = "", "test"
"""The roles that a client plays in a run: itself, and its own test examples. Each has its own folder."""

OWN_TASK = ".own"
"""The end of the name of a file that holds a task with tensors for this client alone."""

MOST_PROCESSES = 4
"""The most roles whose processes run at the same time: those of the latest tickets."""

MOST_RUNS = 4
"""The most runs whose plans and memory are held at the same time: those of the latest tickets."""


class Roles:
    """Opens runs and roles, and settles the memory of their tickets.

    Args:
      connection: of the client.
      data: gives the client's own examples for a plan, or raises InvalidInput.
      bind: makes the learner of a plan, or raises InvalidInput.
      test: gives the client's own test examples for a plan; None: it has none.
      backend: makes what computes a role's tickets, from a function that loads what it needs.
    """

    def __init__(
        self,
        connection: Connection,
        data: Callable[[Plan], Any],
        bind: Callable[[Plan], Any],
        test: Callable[[Plan], Any] | None,
        backend: Callable[[Callable[[], Loaded]], TicketBackend],
    ) -> None:
        self._connection, self._home = connection, connection.home
        self._data, self._bind, self._test, self._backend = data, bind, test, backend
        self._runs: dict[str, OpenRun] = {}
        self._roles: dict[tuple[str, str], OpenRole] = {}
        self._recent: list[OpenRole] = []
        self._over = set[str]()  # runs that have ended
        self.settling = threading.Lock()
        """Held by whoever reads or writes the memory of a role that is not open yet."""

    def open_run(self, work: WorkOrder, fetch: Callable[[str, str, int, Path], None]) -> OpenRun:
        """Returns the run of a ticket, once its plan is here and allowed, and its imports are loaded.

        A server may go on with a run by another plan, such as after an upgrade. That one is decided on anew.

        Args:
          fetch: downloads an object, given its path, SHA-256, size and file.

        Raises: Forbidden.
        """
        before = self._runs.get(work.run)
        if before is not None and before.sha256 == work.plan:
            self._runs[work.run] = self._runs.pop(work.run)  # the latest one is last
            return before
        path = self._home.run(work.run) / work.plan
        if not path.exists():
            fetch(f"/v1/runs/{work.run}/objects/{work.plan}", work.plan, work.plan_bytes, path)
        sealed = read_plan(path.read_bytes())
        plan, imports = allow_plan(self._home, sealed)
        self._sweep(work.run)
        while len(self._runs) >= MOST_RUNS:
            self._close_run(next(iter(self._runs)))
        check = TicketCheck(Envelopes.read(sealed.envelopes))
        run = self._runs[work.run] = OpenRun(plan, sealed, work.plan, check, imports)
        if before is not None:
            self._connection.say(f"run {work.run} goes on with another plan, which is allowed here")
        return run

    def _close_run(self, name: str) -> None:
        """Closes a run and its roles. Its next ticket opens them again from the disk, where all of it is."""
        del self._runs[name]
        with self.settling:
            for key in [key for key in self._roles if key[0] == name]:
                role = self._roles.pop(key)
                role.backend.close()
                self._recent = [other for other in self._recent if other is not role]

    def end_run(self, name: str) -> None:
        """Notes that a run has ended: what the server has sent for it is removed when another run opens.

        Until then `hanse replay` can show what this client has sent last.
        """
        if self._home.has_run(name):
            self._over.add(name)

    def _sweep(self, opening: str) -> None:
        """Removes plans, payloads and tasks of all runs that have ended, but for one that opens again."""
        self._over.discard(opening)
        for name in list(self._over):
            self._over.discard(name)
            if name in self._runs:
                self._close_run(name)
            notes = (self._home.folder / "runs" / name).glob("*.task")
            for path in [*self._home.list_downloads(name), *notes]:
                path.unlink(missing_ok=True)

    def open_role(self, name: str, run: OpenRun, party: PartyId) -> OpenRole:
        """Returns the role of a party in a run, once its data are allowed and its memory is recalled.

        Raises: Forbidden, Unsuited; MessageError: if this client does not play that party.
        """
        kind = self._find_kind(party)
        if kind == TEST and player(party) != self._home.party:
            raise MessageError(f"a task for {party!r}, which this client does not play")
        role = self._roles.get((name, kind))
        if role is None or role.run is not run:
            role = self._open(name, run, kind, party)
        if self._home.policy.isolate != role.isolates:
            role.backend.close()
            role.backend = self._make_backend(lambda: self._load(name, run, kind, party))
            role.isolates = not role.isolates
        self._recent = [role, *(other for other in self._recent if other.folder != role.folder)]
        for other in self._recent[MOST_PROCESSES:]:
            other.backend.close()  # its run may be over; if not, its next ticket starts it again
        del self._recent[MOST_PROCESSES:]
        return role

    def _find_kind(self, party: PartyId) -> str:
        return OWN if party == self._home.party else TEST

    def _open(self, name: str, run: OpenRun, kind: str, party: PartyId) -> OpenRole:
        first = [self._load(name, run, kind, party)]  # checked now, and loaded again after a kill
        secret = self._home.secret.fold_in(name) if kind == OWN else self._home.secret.fold_in(name, kind)
        isolates = self._home.policy.isolate
        backend = self._make_backend(lambda: first.pop() if first else self._load(name, run, kind, party))
        folder = self._home.run(name) / kind
        folder.mkdir(exist_ok=True)
        client, signer = None if kind == OWN else lambda: self._committed(name), self._home.identity.delegate
        count, named = count_rows(first[0].data), name_data(first[0].data)
        with self.settling:
            before = self._roles.get((name, kind))
            role = self._roles[name, kind] = OpenRole(
                folder=folder,
                backend=backend,
                secret=secret,
                forks=read_forks(folder) if before is None else before.forks,
                signer=signer,
                houses=lambda: self._houses(name),
                num_examples=count,
                has_data=_needs_data(run, party),
                client=client,
                min_cohort=lambda: self._home.policy.min_cohort or 0,
                isolates=isolates,
                run=run,
                plan=run.sealed.name_computation(),
                data=named,
                own=lambda: self._find_own(name, run, party),
            )
            if before is not None:  # only the plan is another one
                role.decided, role.lock = before.decided, before.lock
                before.backend.close()
        return role

    def _make_backend(self, load: Callable[[], Loaded]) -> TicketBackend:
        try:
            return self._backend(load)
        except InvalidInput as error:  # the owner asks for an isolation that this machine does not have
            raise Forbidden(str(error)) from error

    def _houses(self, name: str) -> Key | None:
        """Derives the secret of the houses for a run: no key or message of one run is good in another."""
        houses = self._home.houses
        return None if houses is None else houses.fold_in("run", name)

    def _committed(self, name: str) -> Memory:
        """Returns what this client has committed in a run."""
        with self.settling:
            own = self._roles.get((name, OWN))
            return (read_forks(self._home.run(name) / OWN) if own is None else own.forks).committed

    def _load(self, name: str, run: OpenRun, kind: str, party: PartyId) -> Loaded:
        """Reads the data of a role, if they are allowed."""
        if not _needs_data(run, party):
            return Loaded(_bind_nothing, run.plan, None, run.imports, party)
        self._connection.say("reading the data", "checking")
        try:
            data = self._data(run.plan) if kind == OWN else self._test_examples(run.plan)
        except InvalidInput as error:
            raise Unsuited(f"this client's data do not suit run {name}: {error}") from error
        count = count_rows(data)
        self._home.policy.check_data(count)
        if (role := self._roles.get((name, kind))) is not None:  # after a kill; the data may be others now
            role.num_examples, role.data = count, name_data(data)
        return Loaded(self._bind, run.plan, data, run.imports, party)

    def _find_own(self, name: str, run: OpenRun, party: PartyId) -> tuple[int | None, int, Any]:
        """Finds what a work for the owner reads; no model is trained on fewer examples than any other."""
        own = self._data(run.plan)
        count = count_rows(own) or 0
        return player(party), count, own if count >= self._home.policy.fewest_examples else None

    def close(self) -> None:
        """Ends the processes of all roles. Any thread may call this."""
        for role in list(self._roles.values()):
            role.backend.close()

    def _test_examples(self, plan: Plan) -> Any:
        examples = () if self._test is None else self._test(plan)
        if count_rows(examples) == 0:
            why = "this client has no test examples of its own: hanse join --test FILE names them"
            raise Forbidden(why, "no-data")
        return examples

    def settle(self, run: str, decisions: Iterable[Decision]) -> None:
        """Settles tickets in the role that held them, open or not.

        It must be that role alone: a counted ticket may end the promises of its party.
        """
        settled: dict[str, tuple[list[int], list[int]]] = {}
        for said in decisions:
            for kind in (OWN, TEST) if said.party is None else (self._find_kind(said.party),):
                settled.setdefault(kind, ([], []))[0 if said.counted else 1].append(said.ticket)
        for kind, (counted, dropped) in settled.items():
            folder = self._home.run(run) / kind
            role = self._roles.get((run, kind))
            if role is not None:
                role.settle(counted, dropped)
            else:
                settle_forks(folder, read_forks(folder), counted, dropped)
            for ticket in (*counted, *dropped):
                Outgoing.forget(folder, ticket)

    def own_task(self, work: WorkOrder) -> Path:
        """Returns the path of a task that holds tensors for this client alone, whether it exists or not."""
        return self._home.run(work.run) / f"{work.ticket}.{work.own}{OWN_TASK}"

    def forget_tasks(self, run: str, tickets: Collection[int]) -> None:
        """Removes such tasks of these tickets from the disk, also unfinished downloads."""
        named = {str(ticket) for ticket in tickets}
        for path in self._home.run(run).glob(f"*{OWN_TASK}*"):
            if path.name.split(".")[0] in named:
                path.unlink(missing_ok=True)

    def forget_all_tasks(self) -> None:
        """Removes all such tasks from the disk, and the messages whose outcomes will not be known."""
        for kind in (f"*{OWN_TASK}*", "*.message", f"{TEST}/*.message"):
            for path in self._home.folder.glob(f"runs/*/{kind}"):
                path.unlink(missing_ok=True)

    def forget(self, run: str, ticket: int, *, drop: bool = False) -> None:
        """Forgets a ticket that this client does not work on any more, if its outcome is known.

        Args:
          drop: whether to forget it in any case. A ticket that is refused now may have been counted, if only
            the answer to an earlier upload got lost.
        """
        for kind in (OWN, TEST):
            role = self._roles.get((run, kind))
            if role is not None and (drop or ticket in role.decided):
                role.forget(ticket)


def _needs_data(run: OpenRun, party: PartyId) -> bool:
    """Returns whether any work that the plan asks of a party reads data, as far as it is known here."""
    role = name_role(party)
    asked = [envelope.work for envelope in Envelopes.read(run.sealed.envelopes) if envelope.role == role]
    works = [find_class(name, Work) for name in asked]
    return not works or any(work is None or work.needs_data for work in works)


def _bind_nothing(plan: Plan) -> None:
    """Makes no learner, for a party whose works need none."""
