"""Devices whose downloads, computation and uploads take time: speeds, links and presets."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from hanse.core import InvalidInput, Key, PartyId, value
from hanse.simulation.availability import Availability, all_of, always, at_random, daily
from hanse.simulation.devices import Devices

__all__ = [
    "Link",
    "Speed",
    "constant_speed",
    "data_centre",
    "hospital_wan",
    "log_normal_speed",
    "pareto_speed",
    "phone_on_wifi",
    "timed",
    "volunteers",
]


def _check_at_least_0(whose: object, **given: float) -> None:
    for name, number in given.items():
        if not 0 <= number < math.inf:
            raise InvalidInput(
                f"{name} of {type(whose).__name__} is {number}; write a finite number of at least 0"
            )


def _check_above_0(whose: object, **given: float) -> None:
    for name, number in given.items():
        if not 0 < number < math.inf:
            raise InvalidInput(f"{name} of {type(whose).__name__} is {number}; write a number above 0")


# -- speeds ------------------------------------------------------------------------------------


class Speed(ABC):
    """The seconds that a device needs for one example, which it keeps for the whole run."""

    @abstractmethod
    def draw(self, key: Key) -> float:
        """Draws the seconds that a device needs for one example from its own key."""


@value
class constant_speed(Speed):
    """All devices are equally fast.

    Args:
      s_per_example: seconds for the gradient of one example.
    """

    s_per_example: float = 0.001

    def __post_init__(self) -> None:
        _check_at_least_0(self, s_per_example=self.s_per_example)

    def draw(self, key: Key) -> float:
        return self.s_per_example


@value
class log_normal_speed(Speed):
    """Log-normal seconds: most devices are about as fast as the median, a few are several times slower.

    Args:
      median_s_per_example: the median of the seconds for the gradient of one example.
      sigma: the standard deviation of their logarithm.
    """

    median_s_per_example: float = 0.001
    sigma: float = 0.5

    def __post_init__(self) -> None:
        _check_at_least_0(self, median_s_per_example=self.median_s_per_example, sigma=self.sigma)

    def draw(self, key: Key) -> float:
        return float(self.median_s_per_example * key.rng().lognormal(0.0, self.sigma))


@value
class pareto_speed(Speed):
    """Pareto seconds: a heavy tail of stragglers. P(T > t) = (least / t)^tail.

    Args:
      least_s_per_example: the seconds of the fastest device for the gradient of one example.
      tail: the exponent; the smaller, the heavier. At 1 or less the mean is infinite.
    """

    least_s_per_example: float = 0.001
    tail: float = 2.0

    def __post_init__(self) -> None:
        _check_at_least_0(self, least_s_per_example=self.least_s_per_example)
        _check_above_0(self, tail=self.tail)

    def draw(self, key: Key) -> float:
        return float(self.least_s_per_example * (1.0 + key.rng().pareto(self.tail)))


# -- links -------------------------------------------------------------------------------------


@value
class Link:
    """The link of a device, or of the server, whose bandwidth all share.

    Args:
      down_bps, up_bps: bits a second that the clients receive and send; None: without limit.
      latency_s: the seconds that each message is under way, once it was sent.
      sigma: the spread of devices' bandwidths: the standard deviation of their logarithm.
    """

    down_bps: float | None = None
    up_bps: float | None = None
    latency_s: float = 0.0
    sigma: float = 0.0

    def __post_init__(self) -> None:
        for name, bps in (("down_bps", self.down_bps), ("up_bps", self.up_bps)):
            if bps is not None and not 0 < bps < math.inf:
                raise InvalidInput(
                    f"{name} of a link is {bps}; write bits a second above 0, such as 10e6 for 10 Mbit/s, "
                    "or leave it out for no limit"
                )
        _check_at_least_0(self, latency_s=self.latency_s, sigma=self.sigma)

    def seconds_down(self, num_bytes: int) -> float:
        """Returns how long clients' side of the link is occupied by a download."""
        return 0.0 if self.down_bps is None else 8 * num_bytes / self.down_bps

    def seconds_up(self, num_bytes: int) -> float:
        """Returns how long the link is occupied by an upload."""
        return 0.0 if self.up_bps is None else 8 * num_bytes / self.up_bps

    def draw(self, key: Key) -> "Link":
        """Draws the link of one device, which it keeps, from its own key."""
        if not self.sigma:
            return self
        scale = float(key.rng().lognormal(0.0, self.sigma))
        down, up = (None if bps is None else bps * scale for bps in (self.down_bps, self.up_bps))
        return Link(down, up, self.latency_s)


# -- devices -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Device:
    """One device, as long as a run lasts: its speed, its link, and the key of its times of availability."""

    s_per_example: float
    link: Link
    key: Key


@value
class timed(Devices):
    """Devices with a lasting speed, links with bandwidth and latency, and a server that all share.

        [poll, request] -> download (bytes / bandwidth) -> latency -> examples x seconds -> upload -> latency

    Downloads, computation and uploads each occupy their resource, in the order in which they are ready;
    latency occupies nothing. So a device can receive its next task while it computes. Bytes are those of the
    real packed messages. A device works only while it is available: a ticket whose computation is not over
    when its period ends is dropped, and is not asked until it is available again.

    Args:
      speed: of each device: `constant_speed`, `log_normal_speed` or `pareto_speed`.
      jitter: the standard deviation of the logarithm of a factor, drawn by ticket, of its computation.
      link: of each device.
      server: the server's own link, which all devices share; its latency comes in addition.
      availability: when devices may work: `always`, `daily`, `at_random`, or `all_of` several.
      polls: whether devices hear of a ticket from the answer to a poll and ask for its download, as clients
        of `hanse serve` do: two latencies more for a ticket, and two more for a device that was asked in the
        round before. Otherwise the server sends the download at once, as the processes of a cluster do.
    """

    speed: Speed = constant_speed()
    jitter: float = 0.0
    link: Link = Link()
    server: Link = Link()
    availability: Availability = always()
    polls: bool = True

    def __post_init__(self) -> None:
        _check_at_least_0(self, jitter=self.jitter)

    def duration_s(self, party: PartyId, key: Key) -> float | None:
        num_latencies = 4 if self.polls else 2
        return num_latencies * (self.link.latency_s + self.server.latency_s)  # without bytes or work

    def conditions(self) -> "timed":
        return self

    def device(self, key: Key) -> Device:
        """Draws one device from its own key."""
        return Device(self.speed.draw(key.fold_in("speed")), self.link.draw(key.fold_in("link")), key)

    def draw_jitter(self, key: Key) -> float:
        """Draws the factor of one ticket's computation."""
        return float(key.rng().lognormal(0.0, self.jitter)) if self.jitter else 1.0


@dataclass(frozen=True)
class Preset(Devices):
    """A named choice of devices; `conditions` says which."""

    s_per_example: float = 0.001

    def __post_init__(self) -> None:
        _check_at_least_0(self, s_per_example=self.s_per_example)

    def duration_s(self, party: PartyId, key: Key) -> float | None:
        return self.conditions().duration_s(party, key)

    @abstractmethod
    def conditions(self) -> timed:
        """Returns the speeds and links that the preset stands for."""


@value
class data_centre(Preset):
    """Equal machines in one data centre: 10 Gbit/s and .25 ms each way; the server has the same link.

    Args:
      s_per_example: seconds for the gradient of one example; `hanse plan` measures yours.
    References: the round trip of .5 ms is that of Dean, "Designs, lessons and advice from building large
      distributed systems", LADIS 2009; 10 Gbit/s is a common network card.
    """

    def conditions(self) -> timed:
        return timed(constant_speed(self.s_per_example), 0.0, Link(10e9, 10e9, 0.00025), Link(10e9, 10e9))


@value
class hospital_wan(Preset):
    """Hospitals on the internet: 100 Mbit/s both ways, 20 ms each way; the server has 1 Gbit/s.

    Args:
      s_per_example: the median of the seconds for the gradient of one example; their sigma is .3.
    References: 100 Mbit/s is what hospitals need according to the Federal Communications Commission, "Health
      care broadband in America", OBI technical paper 5, 2010. Latency, server and spread are our assumptions.
    """

    def conditions(self) -> timed:
        speed = log_normal_speed(self.s_per_example, 0.3)
        return timed(speed, 0.1, Link(100e6, 100e6, 0.02), Link(1e9, 1e9))


@value
class phone_on_wifi(Preset):
    """Phones on Wi-Fi: 6 Mbit/s down, 2 Mbit/s up, 50 ms each way; the server has 10 Gbit/s.

    Args:
      s_per_example: the median of the seconds for the gradient of one example; their sigma is .7.
    References: .75 MB/s down and .25 MB/s up are those of Wang et al., "A field guide to federated
      optimization", 2021, arXiv 2107.06917, for phones. Latency, server and spreads are our assumptions.
    """

    def conditions(self) -> timed:
        speed = log_normal_speed(self.s_per_example, 0.7)
        return timed(speed, 0.2, Link(6e6, 2e6, 0.05, 0.5), Link(10e9, 10e9))


@value
class volunteers(Preset):
    """Phones on Wi-Fi that work only at night, while they charge, and in 60% of each hour, while idle.

    Args:
      s_per_example: seconds for one training example.
    References: that phones work while charging, idle and on a network that is not metered is from Bonawitz et
      al., "Towards federated learning at scale", MLSys 2019. The hours are our assumptions.
    """

    def conditions(self) -> timed:
        night = all_of((daily(22.0, 8.0, 4.0), at_random(3600.0, 0.6)))
        return replace(phone_on_wifi(self.s_per_example).conditions(), availability=night)
