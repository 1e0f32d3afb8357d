"""The clients of a simulation: they compute tickets and keep their memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeAlias

from hanse.core import (
    Examples,
    Keys,
    Learner,
    Memory,
    Part,
    PartyId,
    Population,
    Shared,
    Work,
)
from hanse.core.exchange import (
    Block,
    Fork,
    Forks,
    Message,
    Payload,
    Task,
    check_parts,
    encode,
    held_bytes,
    pack,
    run_work,
)
from hanse.simulation.blocks import Folding, Place, Timer, Together, cut_aligned_blocks

__all__ = ["BLOCK_HEIGHT", "ClientSide", "Clients", "Settled", "add_ticket_note", "nothing"]


BLOCK_HEIGHT = 6
"""At most 2^6 clients are folded together."""


Settled: TypeAlias = Mapping[PartyId, tuple[tuple[int, ...], tuple[int, ...]]]
"""For each party, its tickets of a round: the counted ones, and the dropped ones."""


class ClientSide(Protocol):
    """The interface of a simulation to whatever plays the clients."""

    def expect(self, tasks: Iterable[tuple[Task, Payload]]) -> None:
        """Announces the tickets that will be asked for next, in about this order."""

    def compute(self, task: Task, payload: Payload) -> bytes:
        """Performs a ticket and returns the packed message."""

    def fold(self, places: Sequence[Place], payload: Payload) -> Iterator[Block] | None:
        """Performs tickets of one dispatch and folds their contributions; None: they send messages."""

    def describe_execution(self) -> str:
        """Says how clients were computed since the last call."""

    def settle(self, settled: Settled) -> Mapping[PartyId, Memory]:
        """Ends a round and returns the memories that changed."""

    def forks(self, tasks: Iterable[Task]) -> Mapping[PartyId, Mapping[int, Fork]]:
        """Returns the forks of memory of these tickets."""

    def restore(self, forks: Mapping[PartyId, Mapping[int, Fork]]) -> None:
        """Restores saved forks."""


def add_ticket_note(error: Exception, task: Task, payload: Payload) -> None:
    """Adds a note to an error that says whose ticket led to it."""
    error.add_note(f"while {task.party!r} performed {payload.work} (ticket {task.ticket})")


KEPT_BYTES = 64 * 2**20
"""The most bytes of clients' memory that are kept here, if they can be recalled."""


def nothing(party: PartyId) -> Memory:
    """Recalls no memory: nothing is kept elsewhere."""
    return {}


class Clients:
    """The clients' side: computes tickets and keeps each client's memory.

    Args:
      learner: the model, on one engine.
      population: the clients' data.
      keys: each client folds its number into the secret one.
      recall: gives a client's committed memory when it is needed and not here; without it, all is kept here.
      together: whether several are computed at once where a work can; None: where that is faster.
    """

    def __init__(
        self,
        learner: Learner,
        population: Population,
        keys: Keys,
        recall: Callable[[PartyId], Memory] = nothing,
        *,
        together: bool | None = None,
    ) -> None:
        self._learner, self._population, self._recall = learner, population, recall
        self._together = getattr(learner, "together", False) if together is None else together
        self.blocks_matter: Final[bool] = self._together and getattr(learner, "rounds_together", False)
        """Returns whether results depend on which clients share a block: then no clock may decide it."""
        self._secret = keys.secret.fold_in("clients")
        self._forks: dict[PartyId, Forks] = {}
        self._held: dict[PartyId, int] = {}
        self._joint: Together | None = None
        self._timer = Timer()

    def expect(self, tasks: Iterable[tuple[Task, Payload]]) -> None:
        """Does nothing: each ticket is computed when it is asked for."""

    def compute(self, task: Task, payload: Payload) -> bytes:
        """Performs a ticket and keeps the fork of memory that it leads to."""
        message, fork = self.compute_from(self.memory(task), task, payload)
        self.keep(task, fork)
        return message

    def compute_from(self, before: Memory, task: Task, payload: Payload) -> tuple[bytes, Fork]:
        """Performs a ticket from given memory, and keeps nothing."""
        message, fork = self._compute_ticket(before, task, payload)
        return pack(message), fork

    def _compute_ticket(self, before: Memory, task: Task, payload: Payload) -> tuple[Message, Fork]:
        timer, party = self._timer, task.party
        secret = self._secret.fold_in(party, task.ticket)
        try:
            data = self._data(party)
            timer.book("data")
            parts, own = run_work(task, payload, self._learner, data, before, secret)
            timer.book("compute")
            message, memory = encode(task, payload, parts, own, before, secret)
            timer.book("encode")
        except Exception as error:
            add_ticket_note(error, task, payload)
            raise
        return message, Fork.between(task.after, before, memory)

    def fold(self, places: Sequence[Place], payload: Payload) -> Iterator[Block]:
        """Performs tickets of one dispatch and folds their contributions."""
        for some in cut_aligned_blocks(places, BLOCK_HEIGHT):
            yield self.fold_block(some, payload)

    def fold_block(self, places: Sequence[Place], payload: Payload) -> Block:
        """Performs the tickets of one block and folds their contributions."""
        block, forks = self.fold_from([self.memory(task) for _, task in places], places, payload)
        self.keep_all(places, forks)
        return block

    def keep_all(self, places: Sequence[Place], forks: Sequence[Fork]) -> None:
        """Keeps the forks that tickets led to; no forks: nothing changed."""
        for (_, task), fork in zip(places, forks, strict=bool(forks)):
            self.keep(task, fork)

    def fold_from(
        self, before: Sequence[Memory], places: Sequence[Place], payload: Payload
    ) -> tuple[Block, Sequence[Fork]]:
        """Performs and folds tickets from given memories, and keeps nothing. No forks: no memory changed."""
        failed: Exception | None = None
        if self._together and len(places) > 1:
            try:
                found = self._fold_together(before, places, payload)
            except Exception as error:
                failed = error
            else:
                if found is not None:
                    return found
        folded = self._fold_each(
            before, places, payload
        )  # names the client whose error it is, if it is one's
        if failed is not None:
            failed.add_note(
                f"while {payload.work} was performed together; one by one it succeeds: execution=sequential()"
            )
            raise failed
        return folded

    def _fold_each(
        self, before: Sequence[Memory], places: Sequence[Place], payload: Payload
    ) -> tuple[Block, Sequence[Fork]]:
        """Performs and folds tickets one by one."""
        folding, forks, timer = Folding(payload), list[Fork](), Timer()
        self._timer = timer
        for memory, (position, task) in zip(before, places, strict=True):
            message, fork = self._compute_ticket(memory, task, payload)
            folding.add(position, task, message)
            timer.book("fold")
            forks.append(fork)
        return replace(folding.block(), spent=timer.spent), forks

    def _fold_together(
        self, before: Sequence[Memory], places: Sequence[Place], payload: Payload
    ) -> tuple[Block, Sequence[Fork]] | None:
        """Performs and folds tickets at once; None: that is not possible."""
        if payload.broadcasts:
            return None  # each client reads the version that it holds
        if type(payload.work).many is Work.many:
            return None
        if any(chain.stages and chain.stages[0].within is not None for chain in payload.chains.values()):
            return None
        if self._joint is None or self._joint.payload is not payload:
            self._joint = Together(payload)
        timer = Timer()
        data = [self._data(task.party) for _, task in places]
        timer.book("data")
        keys = [task.key.fold_in("work") for _, task in places]
        parts = payload.work.many(self._learner, Shared(payload.frozen), data, keys)
        if parts is None:
            return None
        timer.book("compute")
        check_parts(payload, parts)
        if self._joint.possible:
            block = self._joint.block(places, parts)
            timer.book("fold")
            return None if block is None else (replace(block, spent=timer.spent), ())
        folding, forks = Folding(payload), list[Fork]()
        for i, (position, task) in enumerate(places):
            own = {
                name: Part({n: v[i] for n, v in several.values.items()}, float(several.weights[i]))
                for name, several in parts.items()
            }
            secret = self._secret.fold_in(task.party, task.ticket)
            message, memory = encode(task, payload, own, before[i], before[i], secret)
            timer.book("encode")
            folding.add(position, task, message)
            timer.book("fold")
            forks.append(Fork.between(task.after, before[i], memory))
        return replace(folding.block(), together=True, spent=timer.spent), forks

    def _data(self, party: PartyId) -> Examples:
        if isinstance(party, int):
            return self._population.client(party)
        return self._population.role(party)

    def memory(self, task: Task) -> Memory:
        """Returns the memory that a ticket continues."""
        known = self._forks.get(task.party)
        if known is None:
            memory = self._recall(task.party)
            if not memory:
                return memory
            known = self._forks[task.party] = Forks(memory)
        return known.at(task.after)

    def keep(self, task: Task, fork: Fork) -> None:
        """Keeps the fork that a ticket led to until it is settled."""
        if fork.changed or fork.removed or fork.after is not None:
            self._forks_of(task.party).keep(task.ticket, fork)

    def _forks_of(self, party: PartyId) -> Forks:
        if party not in self._forks:
            self._forks[party] = Forks(self._recall(party))
        return self._forks[party]

    def describe_execution(self) -> str:
        """Says how clients were computed since the last call: see `AdaptiveClients`."""
        return ""

    def settle(self, settled: Settled) -> Mapping[PartyId, Memory]:
        """Commits and drops forks, and returns the memories that changed."""
        changed: dict[PartyId, Memory] = {}
        for party, (counted, dropped) in settled.items():
            forks = self._forks.get(party)
            if forks is None:
                continue  # nothing was kept for it
            if forks.settle(counted, dropped):
                changed[party] = forks.committed
            elif not forks.committed and not forks.forks:
                del self._forks[party]
        if self._recall is not nothing:
            self._let_go(settled)
        return changed

    def _let_go(self, settled: Iterable[PartyId]) -> None:
        """Bounds the memory kept here: that of clients heard longest ago is recalled when it is needed."""
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
            if not self._forks[party].forks:
                del self._forks[party]
                excess -= self._held.pop(party, 0)

    def forks(self, tasks: Iterable[Task]) -> Mapping[PartyId, Mapping[int, Fork]]:
        """Returns the forks of those tickets that were computed and are not settled yet."""
        kept: dict[PartyId, dict[int, Fork]] = {}
        for task in tasks:
            own = self._forks.get(task.party)
            if own is not None and task.ticket in own.forks:
                kept.setdefault(task.party, {})[task.ticket] = own.forks[task.ticket]
        return kept

    def restore(self, forks: Mapping[PartyId, Mapping[int, Fork]]) -> None:
        """Restores saved forks; committed memory is recalled when needed."""
        for party, own in forks.items():
            self._forks_of(party).forks.update(own)
