"""The memory of many parties: what each keeps between its tickets, and the forks of tickets in flight."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from hanse.core.exchange.party import Fork, Forks, Task, find_test_client, join_memory
from hanse.core.tensors import held_bytes
from hanse.core.work import PROMISED, Memory, PartyId

__all__ = ["PartyMemory", "Recall", "Settled"]

Recall: TypeAlias = Callable[[PartyId], Memory]
"""A function that returns a party's committed memory when it is needed and not here."""

Settled: TypeAlias = Mapping[PartyId, tuple[tuple[int, ...], tuple[int, ...]]]
"""For each party, its tickets of a round: the counted ones, and the dropped ones."""

KEPT_BYTES = 64 * 2**20
"""The most bytes of committed memory that are kept here, if they can be recalled."""


class SavedMemory(Protocol):
    """A value that keeps forks and promises by party, such as a snapshot of a runtime or its changes."""

    @property
    def forks(self) -> Mapping[PartyId, Mapping[int, Fork]]:
        """The forks of tickets."""

    @property
    def promises(self) -> Mapping[PartyId, Memory]:
        """The promises."""


Saved: TypeAlias = tuple[Mapping[PartyId, Mapping[int, Fork]], Mapping[PartyId, Memory]]
"""The forks and promises of parties."""


class PartyMemory:
    """The memory of parties, apart from the computing of their tickets.

    A ticket is computed from `at(task)`, and its fork is given to `keep`; `settle` ends a round.
    The role of a client's own test examples reads what the client has committed, and does not change it.

    Args:
      recall: gives a party's committed memory; None: nothing is kept elsewhere, so all of it is kept here.
    """

    def __init__(self, recall: Recall | None = None) -> None:
        self._recall = recall
        self._forks: dict[PartyId, Forks] = {}
        self._held: dict[PartyId, int] = {}
        self._promising: dict[PartyId, None] = {}
        self._promised: dict[PartyId, dict[str, Any]] = {}  # since `changes` was last asked

    def at(self, task: Task) -> Memory:
        """Returns the memory that a ticket continues."""
        memory, client = self._at(task.party, task.after), find_test_client(task.party)
        return memory if client is None else join_memory(memory, self._at(client, None))

    def _at(self, party: PartyId, after: int | None) -> Memory:
        known = self._forks.get(party)
        if known is None:
            memory = {} if self._recall is None else self._recall(party)
            if not memory:
                return memory
            known = self._forks[party] = Forks(memory)
        return known.at(after)

    def keep(self, task: Task, fork: Fork) -> None:
        """Keeps the fork that a ticket led to until it is settled."""
        fork = fork if find_test_client(task.party) is None else fork.inner()
        if fork.changed or fork.removed or fork.after is not None:
            self._forks_of(task.party).keep(task.ticket, fork)
            promised = {name: kept for name, kept in fork.changed.items() if name.startswith(PROMISED)}
            if promised:
                self._promising[task.party] = None
                self._promised.setdefault(task.party, {}).update(promised)

    def _forks_of(self, party: PartyId) -> Forks:
        if party not in self._forks:
            self._forks[party] = Forks(None if self._recall is None else self._recall(party))
        return self._forks[party]

    def settle(self, settled: Settled) -> Mapping[PartyId, Memory]:
        """Commits and drops forks, and returns the memories that changed."""
        changed: dict[PartyId, Memory] = {}
        for party, (counted, dropped) in settled.items():
            self._promising.pop(party, None)
            self._promised.pop(party, None)
            forks = self._forks.get(party)
            if forks is None:
                continue  # nothing was kept for it
            if forks.settle(counted, dropped):
                changed[party] = forks.committed
            elif not forks.committed and not forks.forks:
                del self._forks[party]
        if self._recall is not None:
            read = (find_test_client(party) for party in settled)
            self._let_go([*settled, *(client for client in read if client is not None)])
        return changed

    def _let_go(self, settled: Iterable[PartyId]) -> None:
        """Bounds the memory kept here: that of parties heard longest ago is recalled when it is needed."""
        for party in settled:
            forks = self._forks.pop(party, None)
            if forks is None:
                self._held.pop(party, None)
            else:
                self._forks[party] = forks  # now the last
                self._held[party] = held_bytes(forks.committed)
        excess = sum(self._held.values()) - KEPT_BYTES
        for party in list(self._forks):
            if excess <= 0:
                break
            if not self._forks[party].forks and party not in self._promising:
                del self._forks[party]
                excess -= self._held.pop(party, 0)

    def forks(self, holders: Mapping[int, PartyId]) -> Mapping[PartyId, Mapping[int, Fork]]:
        """Returns the forks of those tickets that were computed and are not settled yet.

        Args:
          holders: the party of each ticket.
        """
        kept: dict[PartyId, dict[int, Fork]] = {}
        for ticket, party in holders.items():
            own = self._forks.get(party)
            if own is not None and ticket in own.forks:
                kept.setdefault(party, {})[ticket] = own.forks[ticket]
        return kept

    def snapshot(self, holders: Mapping[int, PartyId]) -> Saved:
        """Returns the forks of these tickets, and the promises made since their parties were settled.

        Args:
          holders: the party of each ticket.
        """
        return self.forks(holders), {party: self._forks[party].promises() for party in self._promising}

    def changes(self, holders: Mapping[int, PartyId]) -> Saved:
        """Returns the forks of these tickets, and the promises that were made since this was last asked.

        What a settled party has promised is left out: it stands in the memories that `settle` returns.

        Args:
          holders: the party of each ticket.
        """
        promised, self._promised = self._promised, {}
        return self.forks(holders), promised

    def restore(self, saved: Iterable[SavedMemory]) -> None:
        """Restores saved forks and promises, first to last; committed memory is recalled when needed."""
        for each in saved:
            for party, promises in each.promises.items():
                self._forks_of(party).promise(promises)
                self._promising[party] = None
            for party, own in each.forks.items():
                for ticket, fork in own.items():
                    self._forks_of(party).keep(ticket, fork)
        self._promised = {}
