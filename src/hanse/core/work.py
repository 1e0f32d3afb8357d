"""Works: what one client computes, emits and keeps in its memory."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from hanse.core.keys import Key, Keys
from hanse.core.tensors import Array, Tensors, zeros_like
from hanse.core.values import value

__all__ = [
    "HOUSES",
    "PROMISED",
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
"""A client's number, from 0, or a role's name ("server"). Both are addressed alike."""

OWN_TEST = "test/"
"""Prefix of the role of a client's own test examples."""


def own_test(number: int) -> str:
    """Names the role of a client's own test examples: a work sent to it measures at that client.

    >>> own_test(3)
    'test/3'
    """
    return f"{OWN_TEST}{number}"


def player(party: PartyId) -> int | None:
    """Returns the client that a party is or belongs to; None: the server plays it.

    >>> player(3), player("test/3"), player("server")
    (3, 3, None)
    """
    if isinstance(party, int):
        return party
    number = party.removeprefix(OWN_TEST)
    return int(number) if number != party and number.isascii() and number.isdecimal() else None


Memory: TypeAlias = Mapping[str, Any]
"""A client's values between its tickets, by name. They never leave the client."""

VOLATILE = "~"
"""Prefix of names in memory that are never committed: they last until the round ends."""

PROMISED = "!"
"""Prefix of names in memory that no drop undoes: what a client keeps here before it answers, it still knows
if the ticket is dropped, if the round is abandoned, and in a ticket that continues from before the promise.

A work may replace a promise, but not take it back. All promises of a client are cleared once one of its
tickets is counted and none is in flight any more. So write the round into the name: a promise of an abandoned
round is still there in the next one. A ticket may be computed twice, also after a crash: compare what is
asked with the promise, answer the same question again, and raise `Declined` for another one.
Promises whose names begin with "!!" are not cleared: they hold until the run is over.
"""

HOUSES = f"{VOLATILE}houses"
"""The name in memory of the secret `Key` that the houses share in a run, and the server does not know. Only
works that say so (`Work.needs_houses`) find it there, and it is never kept."""

L = TypeVar("L", contravariant=True)
D = TypeVar("D", contravariant=True)


@value
class Part:
    """One named part of a contribution: tensors, and the weight that they count with."""

    values: Tensors
    weight: float = 1.0


@dataclass(frozen=True)
class Parts:
    """One part of several clients: tensors with a leading client axis, (m, ...), and (m,) weights."""

    values: Tensors
    weights: Array


Contribution: TypeAlias = Mapping[str, Part]
"""All that leaves a client, by part: an update, a gradient, counts, metrics."""


@value
class Total:
    """A reducer's result for many parts: their values, total weight and number.

    Args:
      left_out: which of the parts, by their number in the fold, a rule has kept out of the values.
    """

    values: Tensors
    weight: float
    count: int
    left_out: tuple[int, ...] = ()


class Space(ABC):
    """A restricted space that a client trains in: few coordinates z, and a linear map to the update.

    Stochastic gradient descent in it starts at `zero()`, evaluates the loss at
    `params + expand(z)` and descends along `pullback(gradient)`.
    """

    @abstractmethod
    def zero(self) -> Tensors:
        """Returns the coordinates of no update at all."""

    @abstractmethod
    def expand(self, coordinates: Tensors) -> Tensors:
        """Returns the update that the coordinates stand for, in the shapes of the parameters."""

    @abstractmethod
    def pullback(self, gradient: Tensors) -> Tensors:
        """Computes the gradient by the coordinates from the gradient by the parameters."""


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
    """The server's broadcast as a work sees it: tensors by name, and the space to train in."""

    tensors: Mapping[str, Tensors]
    spaces: Mapping[str, Space] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensors:
        return self.tensors[name]


class Work(ABC, Generic[L, D]):
    """One client's computation in one exchange: named, registered with `@value`, never shipped as code.

    Its fields are its settings and travel with the task.
    """

    signs: ClassVar[bool] = False
    """Returns whether it signs for its party: a real party's memory then holds its Signer."""

    trains_within: ClassVar[frozenset[str]] = frozenset()
    """The parts that this work can compute inside a restricted space (`Shared.spaces`)."""

    needs_data: ClassVar[bool] = True
    """Returns whether it reads its party's data or learner. If not, a party that has none may compute it."""

    needs_houses: ClassVar[bool] = False
    """Returns whether it reads the secret of the houses, under `HOUSES` in memory. A rehearsal does not have
    it, so it makes up the answers: the program must be able to go on with any of the right spec."""

    @abstractmethod
    def run(
        self, learner: L, shared: Shared, data: D, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        """Computes at one client.

        Args:
          learner: binds the model to the client's engine.
          shared: what the server broadcast. Read only.
          data: the client's own data.
          memory: what this client kept; return it, or a changed copy.
          keys: every draw comes from here.

        Returns: what leaves the client, and the memory to keep if it is counted.
        Raises: NotReady: if the requested result will only exist later.
        """

    def cost(self, num_examples: int) -> float:
        """Returns the number of examples whose gradients it computes, if its party has so many examples.

        It is what the simulated clock multiplies with a device's seconds per example. By default all examples
        are visited once, or none if the work needs no data.
        """
        return float(num_examples if self.needs_data else 0)

    def many(
        self, learner: L, shared: Shared, data: Sequence[D], keys: Sequence[Key]
    ) -> Mapping[str, Parts] | None:
        """Runs the work at several clients at once, if it keeps no memory. None: they run one by one.

        Emits what `run` emits, to within rounding, without the checks whose failure leaves no finite number.

        Args:
          data: each client's own data.
          keys: each client's public key.
        """
        return None
