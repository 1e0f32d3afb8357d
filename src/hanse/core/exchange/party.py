"""The client's half of every exchange: a task and private data in, encoded bytes and a new memory out.

Every runtime runs the work (`run_work`) and encodes its parts (`encode`) with these functions, so the same
task gives the same bytes everywhere.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import field, replace
from functools import cache, cached_property
from typing import Any

from hanse.core.chain import Chain
from hanse.core.errors import CompositionError
from hanse.core.exchange.downlink import HELD, Broadcast, read_broadcasts
from hanse.core.keys import Key, Keys
from hanse.core.program import PartSpec, Plans
from hanse.core.tensors import Tensors, frozen
from hanse.core.values import add_padding, digest, measure_layout, measure_packed_bytes, value
from hanse.core.work import (
    PROMISED,
    VOLATILE,
    Contribution,
    Memory,
    Part,
    PartyId,
    Shared,
    Work,
    own_test,
    player,
)

__all__ = [
    "Fork",
    "Forks",
    "Message",
    "Payload",
    "Task",
    "check_parts",
    "compute",
    "encode",
    "find_test_client",
    "join_memory",
    "pending",
    "run_work",
    "sent",
]


@value
class Payload:
    """The data that all members of a cohort receive.

    `broadcasts` are further shared tensors, for members that hold the same version of each.
    """

    work: Work[Any, Any]
    shared: Mapping[str, Tensors]
    uplink: Mapping[str, PartSpec]
    plans: Plans
    broadcasts: Mapping[str, Broadcast] = field(default_factory=dict)

    @cached_property
    def chains(self) -> Mapping[str, Chain]:
        """The bound chain of each part. Raises: CompositionError: if the parts can't be combined."""
        chains = {name: part_spec.chain() for name, part_spec in self.uplink.items()}
        for name, chain in chains.items():
            restricts = bool(chain.stages) and chain.stages[0].within is not None
            if restricts and name not in self.work.trains_within:
                raise CompositionError(
                    f"{self.work} does not train {name!r} inside a restricted space, which "
                    f"{chain.transforms[0]} needs: use a sketched update (subsample, quantize) instead"
                )
        return chains

    @cached_property
    def frozen(self) -> Mapping[str, Tensors]:
        """The shared tensors, in a form that no client can change."""
        return {name: frozen(tensors) for name, tensors in self.shared.items()}

    @cached_property
    def common(self) -> str:
        """The digest of what all members receive alike: all but the broadcasts."""
        return digest((self.work, dict(self.shared), dict(self.uplink), self.plans))


@value
class Task:
    """One ticket as its holder sees it.

    Args:
      ticket, party: its number, and who holds it.
      key: of the holder's public draws.
      after: the ticket whose memory it continues.
      own: tensors for its holder alone.
    """

    ticket: int
    party: PartyId
    key: Key
    after: int | None
    own: Mapping[str, Tensors] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """The bytes of the packed task. Keys are equally long, so only the numbers' digits vary."""
        if type(self.party) is not int or self.own:
            return measure_packed_bytes(self)
        header, tensors = _task_header()
        digits = len(f"{self.ticket}{self.party}{'null' if self.after is None else self.after}")
        return add_padding(header + digits, tensors)


@cache
def _task_header() -> tuple[int, int]:
    """Measures a packed task without its three numbers."""
    header, tensors = measure_layout(Task(0, 0, Key.from_seed(0), 0))
    return header - 3, tensors


@value
class Message:
    """A client's answer. Parts that a reducer hides are None: they are ready, but stay at the client."""

    ticket: int
    parts: Mapping[str, Part | None]


STAGES = "stages/"
"""Prefix of names in memory that belong to the stages of a part's chain; works need not know them."""


INNER = (VOLATILE, PROMISED, STAGES, HELD)
"""Prefixes of names in memory that are each party's own, also those of a client and of its test role."""


def find_test_client(party: PartyId) -> int | None:
    """Returns the client whose own test examples a party holds; None: it is no such role.

    >>> find_test_client("test/3"), find_test_client(3), find_test_client("server")
    (3, None, None)
    """
    whose = player(party)
    return None if whose is None or party != own_test(whose) else whose


def join_memory(own: Memory, client: Memory) -> Memory:
    """Joins a test role's memory with what its client has committed, which works at the role read."""
    read = {name: v for name, v in client.items() if not name.startswith(INNER)}
    return {**read, **{name: v for name, v in own.items() if name.startswith(INNER)}}


def pending(part: str) -> str:
    """Names the encoded part in a client's memory that it withholds until the protocol asks for it."""
    return f"{VOLATILE}pending/{part}"


def sent(part: str) -> str:
    """Names what a client remembers beside such a part, to compare it with others before they add up.

    These are three digests: of all that the members were sent for it alike, with the broadcasts as they are
    once changes are applied; of the reducer into which the part was promised; and of its encoded spec.
    """
    return f"{VOLATILE}sent/{part}"


def compute(
    task: Task, payload: Payload, learner: Any, data: Any, memory: Memory, secret: Key
) -> tuple["Message", "Fork"]:
    """Computes one ticket: runs the work, then encodes each part through its chain.

    Args:
      memory: the memory that the ticket continues.
      secret: the party's own secret key of this ticket.

    Returns: the message, and the fork of memory that is kept if the ticket is counted.
    """
    done = run_work(task, payload, learner, data, memory, secret)
    message, after = encode(task, payload, *done, memory, secret)
    return message, Fork.between(task.after, memory, after)


def run_work(
    task: Task, payload: Payload, learner: Any, data: Any, memory: Memory, secret: Key
) -> tuple[Contribution, Memory]:
    """Runs the work alone; returns what it emits and the memory that it leaves."""
    chains = payload.chains
    keys = Keys(task.key, secret)
    spaces = {
        name: space
        for name, chain in chains.items()
        if (space := chain.space(payload.plans[name], task.key.fold_in(name))) is not None
    }
    held = read_broadcasts(payload.broadcasts, memory)
    whole = {name: h.tensors for name, h in held.items()}
    private = {name: frozen(tensors) for name, tensors in task.own.items()}
    shared = Shared({**payload.frozen, **whole, **private}, spaces)
    parts, own = payload.work.run(learner, shared, data, memory, keys.fold_in("work"))
    return parts, {**own, **{HELD + name: version for name, version in held.items()}}


def check_parts(payload: Payload, parts: Collection[str]) -> None:
    """Checks what a work emits. Raises: CompositionError: if these are not the parts of the dispatch."""
    if set(parts) != payload.chains.keys():
        raise CompositionError(
            f"{payload.work} emits the parts {sorted(parts)}; the dispatch declares {sorted(payload.chains)}"
        )


def encode(
    task: Task, payload: Payload, parts: Contribution, own: Memory, memory: Memory, secret: Key
) -> tuple["Message", Memory]:
    """Encodes each part of a contribution through its chain. `own` is the memory that the work left."""
    chains, keys = payload.chains, Keys(task.key, secret)
    check_parts(payload, parts)
    kept = {**{n: v for n, v in memory.items() if n.startswith((STAGES, HELD))}, **own}
    encoded: dict[str, Part | None] = {}
    for name, chain in chains.items():
        at = f"{STAGES}{name}"
        part, stages = chain.encode(payload.plans[name], parts[name], kept.pop(at, {}), keys.fold_in(name))
        if stages:
            kept[at] = stages
        into = payload.uplink[name].into
        encoded[name] = None if into.hides else part
        if into.hides:
            kept[pending(name)] = part
            kept[sent(name)] = (_hash_sent(payload, kept), digest(into), digest(chain.out))
    return Message(task.ticket, encoded), kept


def _hash_sent(payload: Payload, memory: Memory) -> str:
    versions = {name: (b.transforms, memory[HELD + name].content) for name, b in payload.broadcasts.items()}
    return digest((payload.common, versions))


@value
class Fork:
    """The changes of one ticket to its client's memory, on top of the ticket that it continued."""

    after: int | None
    changed: Memory
    removed: tuple[str, ...]

    @classmethod
    def between(cls, after: int | None, before: Memory, memory: Memory) -> "Fork":
        """Finds the changes from one memory to the next; a value that is the same object is unchanged."""
        changed = {name: v for name, v in memory.items() if name not in before or v is not before[name]}
        return cls(after, changed, tuple(name for name in before if name not in memory))

    def inner(self) -> "Fork":
        """Returns the changes that a test role keeps: none of what belongs to its client."""
        changed = {name: v for name, v in self.changed.items() if name.startswith(INNER)}
        return Fork(self.after, changed, tuple(name for name in self.removed if name.startswith(INNER)))

    def on(self, memory: Memory) -> Memory:
        """Applies these changes to a memory."""
        kept = {name: v for name, v in memory.items() if name not in self.removed}
        return {**kept, **self.changed}


class Forks:
    """One client's memory: the committed state, and a fork for each ticket that is not settled yet.

    Forks hold changes, not copies: a ticket that only reads, for another coordinator, undoes nothing.
    Promises are kept with the committed state as soon as they are made, so every ticket sees them.
    """

    def __init__(self, committed: Memory | None = None) -> None:
        self.committed: Memory = committed or {}
        self.forks: dict[int, Fork] = {}
        self._latest: tuple[int, Memory] | None = None
        self._settled_promises = self.promises()

    def at(self, after: int | None) -> Memory:
        """Returns the memory that a task continues."""
        chain, number, known = list[Fork](), after, self._latest
        while number is not None and number in self.forks and (known is None or number != known[0]):
            chain.append(self.forks[number])
            number = chain[-1].after
        memory = known[1] if known is not None and number == known[0] else self.committed
        for fork in reversed(chain):
            memory = fork.on(memory)
        if chain and after is not None:  # a chain of tickets is asked for one after the other
            self._latest = after, memory
        return memory

    def keep(self, ticket: int, fork: Fork) -> None:
        """Keeps the fork of a ticket until it is settled. Its promises are kept whatever becomes of it."""
        promised, changed = _part(fork.changed)
        removed = tuple(name for name in fork.removed if not name.startswith(PROMISED))
        self.promise(promised)
        self.forks[ticket] = replace(fork, changed=changed, removed=removed)
        if self._latest is not None and ticket <= self._latest[0]:
            self._latest = None

    def drop(self, ticket: int) -> bool:
        """Drops the fork of a ticket; returns whether there was one."""
        self._latest = None
        return self.forks.pop(ticket, None) is not None

    def promise(self, promises: Memory) -> None:
        """Keeps promises."""
        if promises:
            self.committed = {**self.committed, **promises}
            self._latest = None

    def promises(self) -> Memory:
        """Returns the promises that hold."""
        return _part(self.committed)[0]

    def settle(self, counted: Collection[int], dropped: Iterable[int]) -> bool:
        """Commits the forks of counted tickets and drops the others; returns whether the memory changed.

        Promises end once a ticket is counted and no fork is left from which they could be broken. Those
        that are made for the whole run do not.
        """
        self._latest = None
        for ticket in dropped:
            self.forks.pop(ticket, None)
        changed = False
        for ticket in sorted(counted):
            fork = self.forks.pop(ticket, None)
            if fork is not None:
                lasting = {n: v for n, v in fork.changed.items() if not n.startswith(VOLATILE)}
                changed = changed or bool(lasting or fork.removed)
                self.committed = replace(fork, changed=lasting).on(self.committed)
        if counted and not self.forks:
            self.committed = {n: v for n, v in self.committed.items() if not _ends_with_round(n)}
        before, after = self._settled_promises, self.promises()
        self._settled_promises = after
        return changed or before.keys() != after.keys() or any(after[n] is not before[n] for n in after)


def _ends_with_round(name: str) -> bool:
    """Returns whether a name in memory is that of a promise which does not hold for the whole run."""
    return name.startswith(PROMISED) and not name.startswith(PROMISED * 2)


def _part(memory: Memory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts a memory into promises and the rest."""
    promises = {name: kept for name, kept in memory.items() if name.startswith(PROMISED)}
    return promises, {name: kept for name, kept in memory.items() if name not in promises}
