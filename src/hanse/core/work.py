"""What one client computes, what it emits, and what it remembers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from hanse.core.keys import Key, Keys
from hanse.core.tensors import Array, Tensors, zeros_like
from hanse.core.values import value

__all__ = [
    "VOLATILE",
    "Contribution",
    "Everything",
    "Memory",
    "Part",
    "Parts",
    "PartyId",
    "Shared",
    "Space",
    "Total",
    "Work",
    "own_test",
    "player",
]

PartyId: TypeAlias = int | str
"""Clients are numbered from 0; roles ("server") are words. Both are addressed alike."""

OWN_TEST = "test/"
"""Begins the role of a client's own test examples."""


def own_test(number: int) -> str:
    """The role that holds a client's own test examples: a work sent to it measures at that client.

    >>> own_test(3)
    'test/3'
    """
    return f"{OWN_TEST}{number}"


def player(party: PartyId) -> int | None:
    """The client that a party is or belongs to; None: the server plays it.

    >>> player(3), player("test/3"), player("server")
    (3, 3, None)
    """
    if isinstance(party, int):
        return party
    number = party.removeprefix(OWN_TEST)
    return int(number) if number != party and number.isascii() and number.isdecimal() else None


Memory: TypeAlias = Mapping[str, Any]
"""What a client keeps between its tickets: values by name. It never leaves the client."""

VOLATILE = "~"
"""Names in memory that begin so are never committed: they last until the round ends."""

L = TypeVar("L", contravariant=True)
D = TypeVar("D", contravariant=True)


@value
class Part:
    """One named part of a contribution: tensors, and the weight that they count with."""

    values: Tensors
    weight: float = 1.0


@dataclass(frozen=True)
class Parts:
    """The same part of several clients: tensors with a leading client axis, (m, ...), and (m,) weights."""

    values: Tensors
    weights: Array


Contribution: TypeAlias = Mapping[str, Part]
"""All that leaves a client, by part: an update, a gradient, counts, metrics."""


@value
class Total:
    """What a reducer makes of many parts: their values, total weight and number."""

    values: Tensors
    weight: float
    count: int


class Space(ABC):
    """A restricted space that a client trains in: few coordinates z, and a linear map to the update.

    Stochastic gradient descent in it starts at `zero()`, evaluates the loss at
    `params + expand(z)` and descends along `pullback(gradient)`.
    """

    @abstractmethod
    def zero(self) -> Tensors:
        """The coordinates of no update at all."""

    @abstractmethod
    def expand(self, coordinates: Tensors) -> Tensors:
        """The update that the coordinates stand for, in the shapes of the parameters."""

    @abstractmethod
    def pullback(self, gradient: Tensors) -> Tensors:
        """The gradient by the coordinates, from the gradient by the parameters."""


@dataclass(frozen=True)
class Everything(Space):
    """No restriction: the coordinates are the update itself."""

    params: Tensors

    def zero(self) -> Tensors:
        return zeros_like(self.params)

    def expand(self, coordinates: Tensors) -> Tensors:
        return coordinates

    def pullback(self, gradient: Tensors) -> Tensors:
        return gradient


@dataclass(frozen=True)
class Shared:
    """What the server broadcasts, as a work sees it: tensors by name, and the space to train in."""

    tensors: Mapping[str, Tensors]
    spaces: Mapping[str, Space] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensors:
        return self.tensors[name]


class Work(ABC, Generic[L, D]):
    """What one client computes in one exchange. Named and registered with `@value`; never shipped as code.

    Its fields are its settings and travel with the task.
    """

    trains_within: ClassVar[frozenset[str]] = frozenset()
    """The parts that this work can compute inside a restricted space (`Shared.spaces`)."""

    @abstractmethod
    def run(
        self, learner: L, shared: Shared, data: D, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        """Computes at one client.

        Args:
          learner: binds the model to the client's engine.
          shared: what the server broadcast. Read only.
          data: the client's own.
          memory: what this client kept; return it, or a changed copy.
          keys: every draw comes from here.

        Returns: what leaves the client, and the memory to keep if it is counted.
        Raises: NotReady: if what was asked for will exist later.
        """

    def many(
        self, learner: L, shared: Shared, data: Sequence[D], keys: Sequence[Key]
    ) -> Mapping[str, Parts] | None:
        """`run` at several clients at once, for works that keep no memory. None: one by one.

        What `run` emits, to within rounding, without the checks whose failure leaves no finite number.

        Args:
          data: each client's own.
          keys: each client's public one.
        """
        return None
