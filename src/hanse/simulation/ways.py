"""How a simulation computes its clients: in this process or in several, one by one or together."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from hanse.core.errors import InvalidInput
from hanse.core.values import value

__all__ = ["Way", "auto", "cohort", "num_processors", "plain"]


class Way(ABC):
    """How clients are computed. It changes seconds, and bits only where a learner batches clients."""

    @property
    @abstractmethod
    def most(self) -> int:
        """The largest number of worker processes; 1: clients are computed in this process."""

    @property
    @abstractmethod
    def together(self) -> bool | None:
        """Whether a work computes several clients at once where it can; None: where that is faster."""

    @abstractmethod
    def alone(self) -> "Way":
        """The same in one process."""


@value
class auto(Way):
    """What a short measurement finds fastest.

    A run begins in this process. If it is going to take much longer than worker processes need to start,
    they are started beside it and go on with it, as long as they prove faster. The bits are the same.
    Clients are computed together where that was measured to be faster: linear models in NumPy and models
    in JAX, which keeps the bits, but for JAX on a GPU, which differs by rounding.

    Args:
      num_workers: processes at most; None: one for each processor.
    """

    num_workers: int | None = None

    def __post_init__(self) -> None:
        _check(1 if self.num_workers is None else self.num_workers)

    @property
    def most(self) -> int:
        return num_processors() if self.num_workers is None else self.num_workers

    def alone(self) -> Way:
        return replace(self, num_workers=1)

    @property
    def together(self) -> None:
        return None


@dataclass(frozen=True)
class Numbered(Way):
    """A way with a number of processes that is said beforehand."""

    num_workers: int = 1

    def __post_init__(self) -> None:
        _check(self.num_workers)

    @property
    def most(self) -> int:
        return self.num_workers

    def alone(self) -> Way:
        return replace(self, num_workers=1)


@value
class plain(Numbered):
    """Client by client, in this process or in workers: what the other ways are held to.

    Args:
      num_workers: processes; 1: this one.
    """

    @property
    def together(self) -> bool:
        return False


@value
class cohort(Numbered):
    """Several clients at once, wherever a work and its learner can.

    Args:
      num_workers: processes; 1: this one.
    """

    @property
    def together(self) -> bool:
        return True


def _check(num_workers: int) -> None:
    if type(num_workers) is not int or num_workers < 1:
        raise InvalidInput(f"num_workers is {num_workers!r}; write a whole number of at least 1")


def num_processors() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
