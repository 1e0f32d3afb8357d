"""The backend of one process: a pure function from memory, task and payload to a message or a block."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from hanse.core import (
    HOUSES,
    ClientKeys,
    Declined,
    Key,
    Keys,
    Memory,
    OwnLearners,
    Part,
    PartyId,
    Population,
    Shared,
    Work,
    bind_learner,
)
from hanse.core.exchange import (
    Block,
    Fork,
    Message,
    Payload,
    Task,
    check_parts,
    encode,
    explain_decline,
    pack,
    run_work,
)
from hanse.simulation.backend import Answer, Job, MemoryAt, divide_job
from hanse.simulation.blocks import Folding, Place, Timer, Together

__all__ = ["ONE_PROCESS", "InProcess"]

ONE_PROCESS = "one process"

NUM_LEARNERS = 64
"""The number of parties whose own learners are kept. Those of other parties are made again when needed."""


class InProcess:
    """Computes tickets in this process, one after the other or, where a work can, several at once.

    Args:
      learner: the model, on one engine; or the parties' `OwnLearners`, which compute one by one.
      population: the clients' data.
      keys: each client folds its number into the secret one.
      together: whether several are computed at once where a work can; None: where that is faster.
    """

    def __init__(
        self, learner: Any, population: Population[Any], keys: Keys, *, together: bool | None = None
    ) -> None:
        self.learner: Final = learner
        self._population = population
        self._together = getattr(learner, "together", False) if together is None else together
        self._together = self._together and not isinstance(learner, OwnLearners)
        self._own: dict[PartyId, Any] = {}
        self._secret = keys.secret.fold_in("clients")
        self._houses = keys.secret.fold_in("houses")
        self._joint: Together | None = None

    @property
    def blocks_matter(self) -> bool:
        """Returns whether results depend on which clients share a block."""
        return bool(self._together and getattr(self.learner, "rounds_together", False))

    def __len__(self) -> int:
        return 1

    def ready(self, wait_s: float | None = 0.0) -> bool:
        """Returns True: it can compute at any time."""
        return True

    def settle(self, open_tickets: Collection[int]) -> None:
        """Does nothing: each ticket is computed when it is asked for."""

    def close(self) -> None:
        """Does nothing: nothing was started."""

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        """Computes each block or message when it is asked for."""
        for job in (part for whole in jobs for part in divide_job(whole)):
            before = [memory_at(task) for _, task in job.places]
            if job.folded:
                block, forks = self.fold_block(before, job.places, job.payload)
                yield Answer(job, block, forks, ONE_PROCESS)
            else:
                (memory,), ((_, task),) = before, job.places
                try:
                    message, fork = self.compute_ticket(memory, task, job.payload)
                except Declined as declined:
                    yield Answer(job, declined, (), ONE_PROCESS)
                else:
                    yield Answer(job, pack(message), (fork,), ONE_PROCESS)

    def data(self, party: PartyId) -> Any:
        """Returns the data of a client or role."""
        if isinstance(party, int):
            return self._population.client(party)
        return self._population.role(party)

    def learner_of(self, party: PartyId, data: Any) -> Any:
        """Returns the learner of a party, made from its data unless one serves all."""
        if not isinstance(self.learner, OwnLearners):
            return self.learner
        made = self._own.pop(party) if party in self._own else bind_learner(self.learner, party, data)
        self._own[party] = made  # now the last
        if len(self._own) > NUM_LEARNERS:
            del self._own[next(iter(self._own))]
        return made

    def secret(self, task: Task) -> Key:
        """Returns the secret key of a ticket, which only its party knows."""
        return self._secret.fold_in(task.party, task.ticket)

    def compute_ticket(
        self, before: Memory, task: Task, payload: Payload, timer: Timer | None = None
    ) -> tuple[Message, Fork]:
        """Performs a ticket from the memory that it continues."""
        timer = timer or Timer()
        if payload.work.needs_houses:
            before = {**before, HOUSES: self._houses}
        try:
            data = self.data(task.party) if payload.work.needs_data else None
            timer.book("data")
            learner = self.learner_of(task.party, data) if payload.work.needs_data else None
            secret = self.secret(task)
            parts, own = run_work(task, payload, learner, data, before, secret)
            timer.book("compute")
            message, memory = encode(task, payload, parts, own, before, secret)
            timer.book("encode")
        except Exception as error:
            error.add_note(f"while {task.party!r} performed {payload.work} (ticket {task.ticket})")
            raise
        return message, Fork.between(task.after, before, memory)

    def fold_block(
        self, before: Sequence[Memory], places: Sequence[Place], payload: Payload
    ) -> tuple[Block, Sequence[Fork]]:
        """Performs and folds the tickets of a block from given memories. No forks: no memory changed."""
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
        for memory, (position, task) in zip(before, places, strict=True):
            try:
                message, fork = self.compute_ticket(memory, task, payload, timer)
            except Declined as declined:
                folding.refuse(task, explain_decline(declined))
                forks.append(Fork(task.after, {}, ()))
                continue
            folding.add(position, task, message)
            timer.book("fold")
            forks.append(fork)
        return replace(folding.block(), spent=timer.spent), forks

    def _fold_together(
        self, before: Sequence[Memory], places: Sequence[Place], payload: Payload
    ) -> tuple[Block, Sequence[Fork]] | None:
        """Performs and folds tickets at once; None: that is not possible."""
        if payload.broadcasts or any(task.own for _, task in places):
            return None  # each client reads the version that it holds, or tensors of its own
        if type(payload.work).many is Work.many:
            return None
        if any(chain.stages and chain.stages[0].within is not None for chain in payload.chains.values()):
            return None
        if self._joint is None or self._joint.payload is not payload:
            self._joint = Together(payload)
        timer = Timer()
        data = [self.data(task.party) for _, task in places]
        timer.book("data")
        keys = [task.key.fold_in("work") for _, task in places]
        parts = payload.work.many(self.learner, Shared(payload.frozen), data, keys)
        if parts is None:
            return None
        timer.book("compute")
        check_parts(payload, parts)
        if self._joint.possible:
            tasks = [task for _, task in places]
            each = ClientKeys(len(tasks), lambda i: Keys(tasks[i].key, self.secret(tasks[i])))
            block = self._joint.block(places, parts, each, timer)
            if block is not None:
                return replace(block, spent=timer.spent), ()
            if not self._joint.has_stages:
                return None
        folding, forks = Folding(payload), list[Fork]()
        for i, (position, task) in enumerate(places):
            own = {
                name: Part({n: v[i] for n, v in several.values.items()}, float(several.weights[i]))
                for name, several in parts.items()
            }
            secret = self.secret(task)
            message, memory = encode(task, payload, own, before[i], before[i], secret)
            timer.book("encode")
            folding.add(position, task, message)
            timer.book("fold")
            forks.append(Fork.between(task.after, before[i], memory))
        return replace(folding.block(), together=True, spent=timer.spent), forks
