"""The cost of a round: bytes by what they went through, tickets, time, and what noised totals revealed."""

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Any, Literal

from hanse.core.values import value
from hanse.core.work import PartyId

__all__ = ["Flow", "Release", "ReleaseRecord", "TicketTimes", "Usage"]


@value
class Flow:
    """The bytes of one name in all messages of a round: raw, and after each stage.

    Args:
      direction: "up", a part of what clients sent; "down", tensors that they were sent.
      name: of the part, or of the tensors.
      stages: the stages that it went through, first to last, as text.
      messages: the number of accepted messages that carried it.
      num_bytes: of its tensors in all of these, raw and after each stage. The last number is what was
        sent, without names and headers. None: a stage in between whose size only the sender knows.
    """

    direction: Literal["up", "down"]
    name: str
    stages: tuple[str, ...]
    messages: int
    num_bytes: tuple[int | None, ...]

    def __add__(self, more: "Flow") -> "Flow":
        """Adds up two flows of the same name and stages."""
        pairs = zip(self.num_bytes, more.num_bytes, strict=True)
        added = tuple(None if a is None or b is None else a + b for a, b in pairs)
        return replace(self, messages=self.messages + more.messages, num_bytes=added)

    @staticmethod
    def merge(flows: "Iterable[Flow]") -> "tuple[Flow, ...]":
        """Merges flows of the same direction, name and stages, in order of first appearance."""
        found: dict[Any, Flow] = {}
        for flow in flows:
            key = (flow.direction, flow.name, flow.stages)
            found[key] = found[key] + flow if key in found else flow
        return tuple(found.values())


@value
class Release:
    """A noised disclosure: what accounting must know of the noise that a stage adds to a total.

    Args:
      mechanism: its name, such as "gaussian".
      noise_multiplier: the noise's standard deviation divided by how far one client can move the total.
      parameters: further ones of the mechanism, by name.
    """

    mechanism: str
    noise_multiplier: float
    parameters: Mapping[str, float] = field(default_factory=dict)


@value
class ReleaseRecord:
    """A noised total that was decoded, as accounting composes it with others.

    Args:
      part: the part of the contributions that it sums.
      release: the mechanism and its noise.
      sampling: the probability with which each client was asked, if one Poisson Sample alone decided that;
        else 1, because nothing is gained.
      sample: names the sample. Releases from the same one compose first, and are amplified together.
    """

    part: str
    release: Release
    sampling: float
    sample: int


@value
class TicketTimes:
    """The times of a ticket on the simulated clock, in seconds since the run began; None: it never happened.

    Args:
      party: its holder.
      sent_s: when the server sent it.
      downloads_s, received_s: when its download began, and when it had arrived.
      begins_s, computed_s: when its computation began and ended.
      uploads_s, arrived_s: when its upload began, and when it had arrived.
      left_s: when its device left, if it dropped out.
    """

    party: PartyId
    sent_s: float
    downloads_s: float | None = None
    received_s: float | None = None
    begins_s: float | None = None
    computed_s: float | None = None
    uploads_s: float | None = None
    arrived_s: float | None = None
    left_s: float | None = None


@value
class Usage:
    """The cost of a round, in bytes, time and privacy.

    Args:
      bytes_up, bytes_down: of the encoded messages of clients (not of roles such as "server").
      counted, dropped: tickets of clients.
      virtual_s: seconds on the simulated clock, 0 without a model of devices.
      flows: the bytes of the tensors in these messages, by name and stage.
      clients: the bytes up and down of each client that took part. Runtimes pass them on to the
        store of the run; they are not kept by round.
      releases: the noised totals that were decoded, even if the round was abandoned later.
      left_out: the counted parties that a reducer kept out of a total, such as a rule against liars.
      times: the times of tickets, where devices have links; of large rounds, those of some tickets.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    counted: int = 0
    dropped: int = 0
    virtual_s: float = 0.0
    flows: tuple[Flow, ...] = ()
    clients: Mapping[PartyId, tuple[int, int]] = field(default_factory=dict, repr=False)
    releases: tuple[ReleaseRecord, ...] = ()
    left_out: tuple[PartyId, ...] = ()
    times: tuple[TicketTimes, ...] = ()
