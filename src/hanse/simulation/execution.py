"""Executions: a simulation computes its clients in one process or several, one by one or together."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial

from hanse.core import InvalidInput, value
from hanse.processes import num_processors
from hanse.simulation.automatic import Automatic
from hanse.simulation.backend import ClientBackend, Make
from hanse.simulation.workers import SinglesHere, WorkerPool

__all__ = ["Execution", "auto", "batched", "sequential"]


class Execution(ABC):
    """The execution of clients. It changes seconds, and bits only where a learner batches clients."""

    @abstractmethod
    def backend(self, make: Make, num_rounds: int) -> ClientBackend:
        """Builds the backend, which its user closes.

        Args:
          make: builds the backend of one process, and is pickled for worker processes.
          num_rounds: the number of rounds still to come.

        Raises: WorkersFailed: if worker processes were asked for and can't be started.
        """

    @property
    @abstractmethod
    def together(self) -> bool | None:
        """Returns whether a work computes several clients at once where it can; None: if that is faster."""

    @abstractmethod
    def alone(self) -> "Execution":
        """Returns this execution in one process."""


@value
class auto(Execution):
    """The execution that a short measurement finds fastest.

    A run begins in this process. Once worker processes would save more seconds than their start takes,
    they are started beside it and continue the run, as long as they prove faster. The bits are the same.
    Clients are computed together where that was measured to be faster: linear models in NumPy and models
    in JAX. This keeps the bits, except for JAX on a GPU, which differs by rounding.

    Args:
      num_workers: processes at most; None: one for each processor.
    """

    num_workers: int | None = None

    def __post_init__(self) -> None:
        _check(1 if self.num_workers is None else self.num_workers)

    def backend(self, make: Make, num_rounds: int) -> ClientBackend:
        most = num_processors() if self.num_workers is None else self.num_workers
        if most == 1:
            return make()
        return Automatic(make(), partial(WorkerPool, make, most), most, num_rounds, WorkerPool.start_s)

    def alone(self) -> Execution:
        return replace(self, num_workers=1)

    @property
    def together(self) -> None:
        return None


@dataclass(frozen=True)
class Numbered(Execution):
    """An execution with a given number of processes."""

    num_workers: int = 1

    def __post_init__(self) -> None:
        _check(self.num_workers)

    def backend(self, make: Make, num_rounds: int) -> ClientBackend:
        if self.num_workers == 1:
            return make()
        return SinglesHere(make(), WorkerPool(make, self.num_workers))

    def alone(self) -> Execution:
        return replace(self, num_workers=1)


@value
class sequential(Numbered):
    """Client by client, in this process or in workers: the reference for other executions.

    Args:
      num_workers: processes; 1: this one.
    """

    @property
    def together(self) -> bool:
        return False


@value
class batched(Numbered):
    """Several clients at once, wherever a work and its learner can do so.

    Args:
      num_workers: processes; 1: this one.
    """

    @property
    def together(self) -> bool:
        return True


def _check(num_workers: int) -> None:
    if type(num_workers) is not int or num_workers < 1:
        raise InvalidInput(f"num_workers is {num_workers!r}; write a whole number of at least 1")
