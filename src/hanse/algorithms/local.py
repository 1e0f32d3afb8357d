"""Settings that all algorithms share whose clients train locally."""

from abc import ABC
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeVar

from hanse.algorithms.schedules import Rate, check_rate, rate
from hanse.algorithms.works import Weighting, by_examples
from hanse.core import Algorithm, Close, Steps, check_fraction

__all__ = ["LocalTraining"]

S = TypeVar("S", bound=Any)


@dataclass(frozen=True)
class LocalTraining(Algorithm[S], ABC):
    """Each round, some clients take several local steps of stochastic gradient descent.

    Args:
      lr: the clients' step size: a number or a schedule.
      fraction: of the clients that each round trains; at least one.
      epochs: local passes over the data.
      batch_size: examples a local step; None: all of a client's.
      weighting: how much a client counts: `by_examples()` or `uniform()`.
      close: when a round closes.
    """

    lr: Rate = 0.1
    fraction: float = 0.1
    _: KW_ONLY
    epochs: int = 1
    batch_size: int | None = 10
    weighting: Weighting = by_examples()
    close: Close = Close()

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        check_fraction(self.fraction)
        self.steps(0)

    def steps(self, num_rounds: int, *, proximal: float = 0.0) -> Steps:
        """Returns the local steps after this many closed rounds."""
        return Steps(rate(self.lr, num_rounds), self.epochs, self.batch_size, proximal)
