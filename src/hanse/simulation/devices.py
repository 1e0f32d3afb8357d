"""Simulated devices: how fast and how reliable they are."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from hanse.core import InvalidInput, Key, PartyId, value

__all__ = ["Devices", "heavy_tailed", "ideal", "unstable"]


class Devices(ABC):
    """A model of devices that says how long a ticket takes on the simulated clock."""

    draws: ClassVar[bool] = True
    """Returns whether it uses the key."""

    @abstractmethod
    def duration_s(self, party: PartyId, key: Key) -> float | None:
        """Draws the seconds from dispatch to arrival from `key`; None: the device drops out on the way."""

    def conditions(self) -> Any:
        """Returns the `timed` devices that decide in place of `duration_s`; None: there are none."""
        return None

    def drops_out(self, key: Key) -> bool:
        """Draws from `key` whether a device drops out of a ticket, whatever its speed and link."""
        return False


@value
class ideal(Devices):
    """Every device answers after one second, and none drops out."""

    draws = False

    def duration_s(self, party: PartyId, key: Key) -> float | None:
        return 1.0


@value
class heavy_tailed(Devices):
    """Log-normal durations: most devices are fast, a few are very slow.

    Args:
      median_s: median of the durations.
      sigma: standard deviation of their logarithm.
    """

    median_s: float = 1.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not self.median_s > 0 or not self.sigma >= 0:
            raise InvalidInput(
                f"heavy_tailed({self.median_s}, {self.sigma}): write a median above 0 s "
                "and a sigma of at least 0"
            )

    def duration_s(self, party: PartyId, key: Key) -> float | None:
        return float(self.median_s * key.rng().lognormal(0.0, self.sigma))


@value
class unstable(Devices):
    """Clients that drop out of a fraction of their tickets, at random. Roles that the server plays never do.

    Args:
      fraction: of the tickets that are never answered.
      devices: how long those that are answered take.
    References: Bonawitz et al., "Towards federated learning at scale", MLSys 2019: 6 to 10%.
    """

    fraction: float
    devices: Devices = ideal()

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise InvalidInput(f"unstable({self.fraction}): write a fraction from 0 to 1")

    def duration_s(self, party: PartyId, key: Key) -> float | None:
        if key.fold_in("drops out").rng().random() < self.fraction:
            return None
        return self.devices.duration_s(party, key)

    def conditions(self) -> Any:
        return self.devices.conditions()

    def drops_out(self, key: Key) -> bool:
        drawn = key.fold_in("drops out").rng().random() < self.fraction
        return drawn or self.devices.drops_out(key)
