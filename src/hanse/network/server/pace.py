"""Pace steering: when clients that are not needed now should come back.

If there are few clients, all wait at the server, so the next round finds them at once. If there are many,
enough wait for the next cohort, and the server asks the others to come back at moments that are spread
evenly: as many poll as it can use in a round, and never all of them together.

References: Bonawitz et al., "Towards federated learning at scale: system design", MLSys 2019,
arXiv 1902.01046, section 2.3.
"""

__all__ = ["MAX_AGAIN_S", "again_s", "pool"]

MIN_POOL = 50
"""The number of clients that may always wait."""

COHORTS = 2
"""The number of cohorts that the waiting clients could fill."""

MAX_AGAIN_S = 3600.0
"""The longest time after which a client should come back."""


def pool(num_wanted: int) -> int:
    """Returns how many clients should wait, if so many are asked in a round.

    >>> pool(3), pool(100)
    (50, 200)
    """
    return max(MIN_POOL, COHORTS * num_wanted)


def again_s(num_clients: int, num_wanted: int, pass_s: float, draw: float) -> float:
    """Returns the seconds after which a client should come back; 0: it should wait here.

    Within `pass_s` all clients of the pool are used or let go, and as many others must have come back.

    >>> again_s(50, 10, 20.0, 0.5)
    0.0
    >>> again_s(5000, 100, 20.0, 0.5)
    500.0

    Args:
      num_clients: that are alive: heard lately, or asked to come back.
      num_wanted: asked in a round.
      pass_s: the shorter of a round and of the time that a poll is held.
      draw: uniform in [0, 1), another one for each client.
    """
    if num_clients <= pool(num_wanted):
        return 0.0
    mean_s = num_clients / pool(num_wanted) * max(pass_s, 1.0)
    return min(mean_s * (0.5 + draw), MAX_AGAIN_S)
