"""The number of neighbours and of shares that a secure sum needs, by hypergeometric tails.

Each client shares its two secrets among k neighbours, and t shares reveal a secret. Clients that collude with
the server must not hold t shares of one client, and those that stay must be enough to hold t.

References: Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017
(all are neighbours); Bell et al., "Secure single-server aggregation with (poly)logarithmic overhead", CCS
2020, arXiv ePrint 2020/704, section 3 (k neighbours).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from hanse.core import CompositionError, InvalidInput

__all__ = [
    "FEWEST_CLIENTS",
    "Assumptions",
    "Thresholds",
    "compute_disconnection",
    "compute_tail",
    "find_range",
    "find_thresholds",
]

FEWEST_CLIENTS = 3
"""The fewest clients of a secure sum. In a sum of two, each knows what the other one sent."""


@dataclass(frozen=True)
class Assumptions:
    """The faults that a secure sum is built to bear.

    Args:
      colluders: the largest share of the clients that tell the server all they know.
      drop_out: the largest share of the clients that fall silent in the course of a sum.
      failure: the probability with which a round with so many silent ones may fail.
      secrecy: the probability with which so many colluders may learn one client's message.
      num_listed: the number of members in a roster, of whom any may collude; None: the server follows the
        protocol, so that it does not choose a cohort of colluders.
    """

    colluders: float
    drop_out: float
    failure: float
    secrecy: float
    num_listed: int | None = None

    def __post_init__(self) -> None:
        for name in ("colluders", "drop_out"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise InvalidInput(f"{name} is {share}; write a share of the clients, at least 0 and below 1")
        for name in ("failure", "secrecy"):
            chance = getattr(self, name)
            if not 0 < chance < 1:
                raise InvalidInput(f"{name} is {chance}; write a probability above 0 and below 1")

    def count_colluders(self, num_clients: int) -> int:
        """Counts those in a cohort who may collude. With a roster, the server may choose all of them."""
        if self.num_listed is None:
            return math.floor(self.colluders * num_clients + 1e-9)
        return min(num_clients, math.floor(self.colluders * self.num_listed + 1e-9))

    def count_honest(self, num_clients: int, num_asked: int | None = None) -> int:
        """Counts those in a total of so many clients who don't collude, at least.

        Args:
          num_asked: the clients of the cohort, of whom the others fell silent; None: nobody did.
        """
        return max(0, num_clients - self.count_colluders(num_asked or num_clients))

    @property
    def condition(self) -> str:
        """The condition on which single messages are hidden."""
        if self.num_listed is None:
            whom = "if it is honest but curious (it follows the protocol, and invents no clients)"
            return f"{whom} and at most {self.colluders:g} of a sum's clients work with it"
        return f"if at most {self.colluders:g} of the roster's members work with it"

    def count_lost(self, num_clients: int) -> int:
        """Counts the clients of a cohort that may fall silent."""
        return math.floor(self.drop_out * num_clients + 1e-9)


@dataclass(frozen=True)
class Thresholds:
    """The sizes of one sum.

    Args:
      num_clients: n, that are ready at its beginning.
      num_neighbours: k, with whom each client shares its secrets; n - 1: with all others.
      num_shares: t, that reveal a secret, and with which a sum can end.
    """

    num_clients: int
    num_neighbours: int
    num_shares: int

    @property
    def is_complete(self) -> bool:
        """Returns whether all clients are neighbours."""
        return self.num_neighbours >= self.num_clients - 1

    def __str__(self) -> str:
        among = "all others" if self.is_complete else f"{self.num_neighbours} neighbours"
        shares = f"{self.num_shares} shares reveal one"
        return f"{self.num_clients} clients, each shares its secrets with {among}, {shares}"


def compute_tail(num_all: int, num_marked: int, num_drawn: int, at_least: int) -> float:
    """Computes the probability that a draw without replacement holds at least so many marked ones.

    >>> compute_tail(4, 2, 2, at_least=2)  # both of two among four
    0.16666666666666666
    """
    tails = _compute_tails(num_all, num_marked, num_drawn)
    return tails[at_least] if at_least < len(tails) else 0.0


@lru_cache(maxsize=1024)
def _compute_tails(num_all: int, num_marked: int, num_drawn: int) -> tuple[float, ...]:
    """Computes the probabilities of at least 0, 1, 2, ... marked ones, exactly up to the last division."""
    most, others = min(num_marked, num_drawn), num_all - num_marked
    ways = [
        math.comb(num_marked, hit) * math.comb(others, num_drawn - hit) if num_drawn - hit <= others else 0
        for hit in range(most + 1)
    ]
    all_ways = math.comb(num_all, num_drawn)
    return tuple(tail / all_ways for tail in reversed(list(accumulate(reversed(ways)))))


def compute_disconnection(num_clients: int, num_gone: int, num_neighbours: int) -> float:
    """Bounds the probability that the clients that are honest and stay fall apart into two groups.

    Neighbours stand on a circle in random order, and each knows k/2 on both sides. So the others stay
    connected unless k/2 who stand together are all gone. The server would learn the sum of each group.
    """
    together = num_neighbours // 2
    if together > num_gone:
        return 0.0
    runs = math.comb(num_gone, together) / math.comb(num_clients, together)
    return min(1.0, num_clients * runs)


def find_range(assumed: Assumptions, num_clients: int, num_neighbours: int) -> tuple[int, int]:
    """Finds the least and the largest number of shares that are secret and robust; the range may be empty.

    >>> assumed = Assumptions(colluders=0.2, drop_out=0.1, failure=2**-20, secrecy=2**-40)
    >>> find_range(assumed, 1000, 80)
    (48, 54)
    """
    colluding, lost = assumed.count_colluders(num_clients), assumed.count_lost(num_clients)
    if num_neighbours >= num_clients - 1:
        # At least two honest clients are in each total, and nobody knows the other one's part by its own.
        least = max(colluding + 2, FEWEST_CLIENTS)
        if assumed.num_listed is not None:  # no two lists of survivors get t signatures each
            least = max(least, (num_clients + colluding) // 2 + 1)
        return least, num_clients - lost
    if compute_disconnection(num_clients, colluding + lost, num_neighbours) >= assumed.secrecy:
        return num_neighbours + 1, num_neighbours
    others = num_clients - 1
    least = 2
    while num_clients * compute_tail(others, colluding, num_neighbours, least) >= assumed.secrecy:
        least += 1
    largest = num_neighbours
    while largest and (
        num_clients * compute_tail(others, lost, num_neighbours, num_neighbours - largest + 1)
        >= assumed.failure
    ):
        largest -= 1
    return least, largest


@lru_cache(maxsize=1024)
def find_thresholds(assumed: Assumptions, num_clients: int, num_neighbours: int | None = None) -> Thresholds:
    """Finds the fewest neighbours that suffice, and the number of shares in the middle of what is possible.

    If they were more than half of the others, all others are neighbours.

    >>> str(find_thresholds(Assumptions(0.1, 0.2, 2**-20, 2**-40), 10))
    '10 clients, each shares its secrets with all others, 5 shares reveal one'

    Args:
      num_neighbours: to take in any case; None: the fewest.

    Raises: CompositionError: if no numbers are secret and robust.
    """
    if num_clients < FEWEST_CLIENTS:
        raise CompositionError(
            f"a secure sum of {num_clients} clients hides nothing: let at least {FEWEST_CLIENTS} take part"
        )
    if num_neighbours is None:
        num_neighbours = _find_fewest(assumed, num_clients)
    neighbours = min(num_neighbours, num_clients - 1)
    least, largest = find_range(assumed, num_clients, neighbours)
    if least <= largest:
        return Thresholds(num_clients, neighbours, (least + largest) // 2)
    colluding, lost = assumed.count_colluders(num_clients), assumed.count_lost(num_clients)
    if neighbours < num_clients - 1:
        raise CompositionError(
            f"{neighbours} neighbours do not suffice for {num_clients} clients of which {colluding} may "
            f"collude and {lost} may fall silent: leave num_neighbours out, and the number is computed"
        )
    lies = (
        "" if assumed.num_listed is None else ", so that a server that lies gets one list of survivors signed"
    )
    raise CompositionError(
        f"no threshold suits {num_clients} clients of which {colluding} may collude and {lost} may fall "
        f"silent: at least {least} shares must be needed{lies}, and only {largest} are left. Let more "
        "clients take part in a round, or write smaller colluders or drop_out"
    )


def _find_fewest(assumed: Assumptions, num_clients: int) -> int:
    """Finds the least even number of neighbours that suffices; n - 1 if more than half of the others do."""
    low, high = 1, (num_clients - 1) // 4
    if assumed.num_listed is not None or high < low or not _suits(assumed, num_clients, 2 * high):
        return num_clients - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _suits(assumed, num_clients, 2 * middle) else (middle + 1, high)
    return 2 * low


def _suits(assumed: Assumptions, num_clients: int, num_neighbours: int) -> bool:
    least, largest = find_range(assumed, num_clients, num_neighbours)
    return least <= largest
