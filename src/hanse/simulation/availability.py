"""When volunteers' devices may take part: a window each day, a window at random, or several conditions."""

import math
from abc import ABC, abstractmethod

from hanse.core import InvalidInput, Key, value

__all__ = ["Availability", "all_of", "always", "at_random", "daily"]

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S

MAX_TRIES = 1_000
"""The number of periods after which conditions are taken never to hold together."""


class Availability(ABC):
    """The periods of virtual time in which a device may work. Time 0 is midnight."""

    @abstractmethod
    def period(self, key: Key, at_s: float) -> tuple[float, float] | None:
        """Finds the first open period that ends after a moment.

        Args:
          key: the device's own, from which everything is drawn that lasts.
          at_s: the moment.

        Returns: its beginning and its end, in seconds; None: it never opens again.
        """


@value
class always(Availability):
    """Devices are available at all times."""

    def period(self, key: Key, at_s: float) -> tuple[float, float] | None:
        return 0.0, math.inf


@value
class daily(Availability):
    """A window each day, such as the night, in which phones are charging.

    >>> daily(22, 8).period(Key.from_seed(0), 0.0)
    (-7200.0, 21600.0)

    Args:
      opens_h: the hour of the day at which it opens, from 0 to 24.
      num_hours: its length.
      spread_h: the range of hours over which the windows of devices are spread evenly, as time zones are.
    """

    opens_h: float = 22.0
    num_hours: float = 8.0
    spread_h: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.opens_h <= 24 or not 0 < self.num_hours <= 24 or not 0 <= self.spread_h <= 24:
            raise InvalidInput(
                f"{self} never opens or is no window of a day; write opens_h from 0 to 24, num_hours above 0 "
                "and at most 24, and spread_h from 0 to 24"
            )

    def period(self, key: Key, at_s: float) -> tuple[float, float] | None:
        if self.num_hours == 24:
            return 0.0, math.inf
        shift_h = self.spread_h * (key.fold_in("daily").rng().random() - 0.5) if self.spread_h else 0.0
        first_s, length_s = (self.opens_h + shift_h) * HOUR_S, self.num_hours * HOUR_S
        day = math.floor((at_s - first_s - length_s) / DAY_S) + 1
        if first_s + day * DAY_S + length_s <= at_s:  # by rounding
            day += 1
        return first_s + day * DAY_S, first_s + day * DAY_S + length_s


@value
class at_random(Availability):
    """A window in each cycle, at a moment drawn by device and cycle: Wi-Fi, a charged battery, idleness.

    Args:
      cycle_s: the length of a cycle. Cycles of devices begin at different moments.
      open_fraction: the share of each cycle in which the device is available.
    """

    cycle_s: float = 3600.0
    open_fraction: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.cycle_s < math.inf or not 0 < self.open_fraction <= 1:
            raise InvalidInput(
                f"{self} never opens or has no length; write a cycle_s above 0 and an open_fraction above 0 "
                "and at most 1"
            )

    def period(self, key: Key, at_s: float) -> tuple[float, float] | None:
        if self.open_fraction == 1:
            return 0.0, math.inf
        phase = key.fold_in("phase").rng().random()
        cycle = math.floor(at_s / self.cycle_s - phase)
        windows = (self._window(key, phase, n) for n in range(cycle, cycle + 3))
        return next(window for window in windows if window[1] > at_s)

    def _window(self, key: Key, phase: float, cycle: int) -> tuple[float, float]:
        drawn = key.fold_in("at random", cycle).rng().random()
        begins_s = (cycle + phase + drawn * (1 - self.open_fraction)) * self.cycle_s
        return begins_s, begins_s + self.open_fraction * self.cycle_s


@value
class all_of(Availability):
    """Several conditions that must hold together: charging at night, and on a network that is not metered.

    Args:
      conditions: the conditions; none: devices are always available.
    """

    conditions: tuple[Availability, ...] = ()

    def period(self, key: Key, at_s: float) -> tuple[float, float] | None:
        begins_s, ends_s = 0.0, math.inf
        for _ in range(MAX_TRIES):
            found = [each.period(key.fold_in(i), at_s) for i, each in enumerate(self.conditions)]
            periods = [period for period in found if period is not None]
            if len(periods) < len(found):
                return None
            begins_s = max((begin for begin, _ in periods), default=0.0)
            ends_s = min((end for _, end in periods), default=math.inf)
            if begins_s < ends_s:
                return begins_s, ends_s
            at_s = begins_s
        return None
