"""A role that a client plays in a run: what computes its tickets, and its memory on the disk."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hanse.core import HOUSES, VOLATILE, Key, Memory
from hanse.core.exchange import (
    MIN_COHORT,
    PLAN_DIGEST,
    SIGNER,
    Fork,
    Forks,
    Payload,
    Signer,
    Task,
    digest,
    join_memory,
)
from hanse.imports import Import
from hanse.network.client.allowed_plan import TicketCheck
from hanse.network.client.memory_parts import MEMORY, name_memory, pack_parts, read_parts, sweep_parts
from hanse.network.client.ticket_process import TicketBackend
from hanse.network.protocol.envelope_words import find_at_home
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.spool import Outgoing, durably
from hanse.network.protocol.wire import Plan

__all__ = ["OpenRole", "OpenRun", "read_forks", "settle_forks", "write_forks"]

SECRETS = f"{VOLATILE}secure sum/"
"""Prefix of names in memory of what must not outlive a secure sum: who has it reads what was masked."""


@dataclass
class OpenRun:
    """A run whose plan this client's policy allows.

    Args:
      sealed: the plan as it was sent.
      sha256: of the plan as it was sent.
      check: compares its tickets with the plan.
      imports: see `AllowedPlan`.
    """

    plan: Plan
    sealed: SealedPlan
    sha256: str
    check: TicketCheck
    imports: tuple[Import, ...] = ()


@dataclass
class OpenRole:
    """A role that the client plays in a run, with its data allowed and its memory recalled.

    Args:
      folder: its own in the client home.
      backend: computes its tickets.
      secret: its own; the name of each ticket is folded in.
      forks: its memory.
      signer: gives the key that signs for the client in protocols.
      houses: gives the secret of the houses for this run alone; None: this house has none.
      num_examples: that its data hold; None: they can't be counted.
      has_data: whether it has data; a party that only takes part in protocols needs none.
      client: gives what the client has committed, which the role of its own test examples reads; None: this
        is the client itself.
      min_cohort: gives the fewest clients that the owner wants in one total.
      isolates: whether the policy asked for isolation when the backend was made.
      run: the run, by whose plan the data were opened.
      plan: names all in the run's plan by which tickets are computed, to compare it with other clients.
      data: names the content of its data; see `name_data`. It changes if they are loaded again and differ.
      own: gives the party's number, the number of its training examples, and these if they suffice to train
        on, for works whose results its owner reads.
      decided: the tickets whose outcomes are known.
      lock: held by whoever reads or writes the forks.
    """

    folder: Path
    backend: TicketBackend
    secret: Key
    forks: Forks
    signer: Callable[[], Signer]
    houses: Callable[[], Key | None] = lambda: None
    num_examples: int | None = None
    has_data: bool = True
    client: Callable[[], Memory] | None = None
    min_cohort: Callable[[], int] = lambda: 0
    isolates: bool = False
    run: OpenRun | None = None
    plan: str = ""
    data: str = ""
    own: Callable[[], Any] = lambda: None
    told: str = ""
    """The result of the last work for the owner, in JSON; empty: the last work was none."""
    decided: set[int] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def name_message(self, task: Task, name: str) -> str:
        """Names the message of a ticket by all that it is made of: by what is asked, memory and data.

        A message that differs is drawn with another secret and counts as another, whatever a server calls
        it. One that is computed twice, such as after a kill, has the same bytes and counts once.

        Args:
          name: of the ticket, from `name_ticket`.
        """
        return self._name_message(name, self._recall(task))

    def _name_message(self, name: str, before: Memory) -> str:
        return digest((name, name_memory(before), self.data))

    def _recall(self, task: Task) -> Memory:
        """Returns the memory that a ticket continues."""
        client = None if self.client is None else self.client()
        with self.lock:
            before = self.forks.at(task.after)
        return before if client is None else join_memory(before, client)

    def compute(self, task: Task, payload: Payload, name: str, limit_s: float | None) -> tuple[bytes, str]:
        """Computes a ticket, and keeps the fork of memory that it leads to.

        Args:
          name: of the ticket, from `name_ticket`.

        Returns: the packed message, and its name from `name_message`.

        Raises: TimeLimitExceeded, InvalidInput, ComputationFailed.
        """
        before = self._recall(task)
        own = ""
        while (named := self._name_message(name, before)) != own:  # again if other data were loaded for it
            own = named
            message, fork = self._compute(task, payload, before, self.secret.fold_in(own), limit_s)
        with self.lock:
            self.forks.keep(task.ticket, fork if self.client is None else fork.inner())
        return message, own

    def _compute(
        self, task: Task, payload: Payload, before: Memory, secret: Key, limit_s: float | None
    ) -> tuple[bytes, Fork]:
        if payload.work.signs:
            own = {SIGNER: self.signer(), MIN_COHORT: self.min_cohort(), PLAN_DIGEST: self.plan}
            before = {**before, **own}
        if payload.work.needs_houses and (houses := self.houses()) is not None:
            before = {**before, HOUSES: houses}
        at_home = find_at_home(type(payload.work).__name__)
        if at_home:
            before = {**before, at_home: self.own()}
        message, fork = self.backend.compute(task, payload, before, secret, limit_s)
        self.told = str(fork.changed.get(at_home, "")) if at_home else ""
        if at_home:
            fork = replace(fork, changed={n: kept for n, kept in fork.changed.items() if n != at_home})
        return message, fork

    def keep(self) -> None:
        """Writes committed memory and forks to the disk."""
        with self.lock:
            write_forks(self.folder, self.forks)

    def note(self, task: Task, payload: str, own: str) -> None:
        """Keeps a client's task and memory beside its payload, for `hanse replay`.

        Args:
          own: the name of the message, from `name_message`.
        """
        if self.client is not None:
            return  # what is measured is not replayed
        with self.lock, contextlib.suppress(OSError):
            memory = {n: kept for n, kept in self.forks.at(task.after).items() if not n.startswith(SECRETS)}
            noted = pack_parts(self.folder, (task, payload, memory, own))
            (self.folder / f"{task.ticket}.task").write_bytes(noted)

    def settle(self, counted: list[int], dropped: list[int]) -> None:
        """Commits the memory of counted tickets and drops that of the others, on the disk too."""
        with self.lock:
            self.decided.update(counted, dropped)
            settle_forks(self.folder, self.forks, counted, dropped)

    def forget(self, ticket: int) -> None:
        """Drops the fork and the message of a ticket, on the disk too."""
        with self.lock:
            if self.forks.drop(ticket):
                self.keep()
        Outgoing.forget(self.folder, ticket)


def settle_forks(folder: Path, forks: Forks, counted: list[int], dropped: list[int]) -> None:
    """Commits the forks of counted tickets and drops those of the others, on the disk too."""
    stale = [forks.forks[ticket] for ticket in (*counted, *dropped) if ticket in forks.forks]
    if forks.settle(counted, dropped) or any(fork.changed or fork.removed for fork in stale):
        write_forks(folder, forks)


def write_forks(folder: Path, forks: Forks) -> None:
    """Writes committed memory and forks; while both are empty, no file is needed."""
    path = folder / MEMORY
    if forks.committed or any(fork.changed or fork.removed for fork in forks.forks.values()) or path.exists():
        durably(path, pack_parts(folder, (forks.committed, forks.forks)))
        sweep_parts(folder)


def read_forks(folder: Path) -> Forks:
    """Reads committed memory and forks from the disk; without a file, there are none."""
    path = folder / MEMORY
    if not path.exists():
        return Forks()
    committed, forks = read_parts(path)
    found = Forks(committed)
    found.forks = {ticket: fork for ticket, fork in forks.items() if isinstance(fork, Fork)}
    return found
