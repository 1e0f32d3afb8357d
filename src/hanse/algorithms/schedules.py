"""Step sizes that change from round to round, as values: `fed_avg(lr=inverse_time(0.1, half_life=50))`.

Every step size of an algorithm is a number or a schedule. Rounds are counted from 0, and only those that
closed: an abandoned round changes nothing.
"""

import math
from abc import ABC, abstractmethod
from typing import TypeAlias

from hanse.core import InvalidInput, check_count, check_positive, value

__all__ = [
    "Rate",
    "Schedule",
    "check_rate",
    "constant",
    "exponential_decay",
    "inverse_time",
    "rate",
    "step_decay",
]


class Schedule(ABC):
    """A step size for each round."""

    @abstractmethod
    def at(self, num_rounds: int) -> float:
        """Returns the step size after this many closed rounds."""


Rate: TypeAlias = float | Schedule
"""A step size: one for all rounds, or a schedule."""


def rate(lr: Rate, num_rounds: int) -> float:
    """Returns the step size after this many closed rounds.

    >>> rate(0.1, 7), rate(step_decay(0.1, every=5), 7)
    (0.1, 0.05)
    """
    return lr.at(num_rounds) if isinstance(lr, Schedule) else lr


def check_rate(name: str, lr: Rate) -> None:
    """Raises InvalidInput if `lr` is not a step size. Schedules check themselves."""
    if not isinstance(lr, Schedule) and not 0 < lr < math.inf:
        raise InvalidInput(f"{name} is {lr}; write a step size above 0, or a schedule")


@value
class constant(Schedule):
    """One step size for all rounds.

    >>> constant(0.1).at(1000)
    0.1

    Args:
      lr: the step size.
    """

    lr: float

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)

    def at(self, num_rounds: int) -> float:
        return self.lr


@value
class step_decay(Schedule):
    """A step size that is multiplied by `factor` each time `every` rounds have passed.

        lr factor^floor(t / every)

    >>> [step_decay(1.0, every=2).at(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]

    Args:
      lr: the step size of the first round.
      every: the number of rounds between two decays.
      factor: above 0, at most 1.
    """

    lr: float
    every: int
    factor: float = 0.5

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        _check_factor(self.factor)
        check_count("every", self.every)

    def at(self, num_rounds: int) -> float:
        return float(self.lr * self.factor ** (num_rounds // self.every))


@value
class exponential_decay(Schedule):
    """A step size that is multiplied by `factor` after each round.

        lr factor^t

    >>> [exponential_decay(1.0, factor=0.5).at(t) for t in range(3)]
    [1.0, 0.5, 0.25]

    Args:
      lr: the step size of the first round.
      factor: above 0, at most 1.
    """

    lr: float
    factor: float = 0.99

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        _check_factor(self.factor)

    def at(self, num_rounds: int) -> float:
        return float(self.lr * self.factor**num_rounds)


@value
class inverse_time(Schedule):
    """A step size that falls to a half after `half_life` rounds, a third after twice as many, and so on.

        lr / (1 + t / half_life)

    The steps add up to infinity and their squares do not, so it takes stochastic and local steps to an
    optimum where a constant step stays away from it.

    >>> [inverse_time(1.0, half_life=2.0).at(t) for t in (0, 2, 4)]
    [1.0, 0.5, 0.3333333333333333]

    Args:
      lr: the step size of the first round.
      half_life: the number of rounds after which it is half.
    """

    lr: float
    half_life: float = 1.0

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        check_positive("half_life", self.half_life)

    def at(self, num_rounds: int) -> float:
        return float(self.lr / (1 + num_rounds / self.half_life))


def _check_factor(factor: float) -> None:
    if not 0 < factor <= 1:
        raise InvalidInput(f"factor is {factor}; write a number above 0 and at most 1")
