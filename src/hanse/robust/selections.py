"""Rules that choose whole contributions by their distances: Krum, multi-Krum, minimum diameter and Bulyan."""

import numpy as np

from hanse.core import Array, CompositionError, Total, check_count, value
from hanse.robust.coordinates import mean_around_median
from hanse.robust.rows import MessageRows, squared_distances
from hanse.robust.rule import Rule, check_byzantine

__all__ = ["MAX_SUBSETS", "bulyan", "krum", "minimum_diameter", "multi_krum"]

MAX_SUBSETS = 10**6
"""The most sets of clients that `minimum_diameter` compares."""


@value
class krum(Rule):
    """The one contribution that is nearest to its n - num_byzantine - 2 nearest others.

        k = argmin_i sum_{j near i} |x_i - x_j|²;   total = x_k

    It needs n >= 2 num_byzantine + 3. Of equal scores the first position wins. It follows a single client, so
    it learns little where data differ.

    Args:
      num_byzantine: the number of liars to withstand.
    Runs at: server. Reveals: every contribution to the server. Names all others as left out.
    References: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine learning with adversaries: Byzantine
      tolerant gradient descent", NeurIPS 2017, arXiv 1703.02757, Section 3.

    >>> from hanse.core import Part, reduce
    >>> total = reduce(krum(1), [Part({"w": np.array([x])}) for x in (1.0, 2.5, 2.0, 1.6, 99.0)])
    >>> total.values, total.left_out
    ({'w': array([2.])}, (0, 1, 3, 4))
    """

    num_byzantine: int

    def __post_init__(self) -> None:
        check_byzantine(self.num_byzantine)

    @property
    def can_name(self) -> bool:
        return True

    def check_number(self, num_parts: int) -> None:
        self.require(num_parts, 2 * self.num_byzantine + 3, "a smaller num_byzantine")

    def aggregate(self, rows: MessageRows) -> Total:
        rows = rows.bound()
        scores = _score(squared_distances(rows.gram()), self.num_byzantine)
        return _mean_of(self, rows, np.argsort(scores, kind="stable")[:1])


@value
class multi_krum(Rule):
    """The mean of the `num_selected` contributions with the best scores of `krum`.

    It needs n >= 2 num_byzantine + 3, and n >= num_selected + num_byzantine. Of equal scores the first
    positions win. With num_selected=1 it is `krum`, with num_byzantine=0 and num_selected=n the plain mean.

    Args:
      num_byzantine: the number of liars to withstand.
      num_selected: the number of contributions in the mean.
    Runs at: server. Reveals: every contribution to the server. Names the others as left out.
    References: Blanchard et al., NeurIPS 2017, arXiv 1703.02757, Section 4.
    """

    num_byzantine: int
    num_selected: int

    def __post_init__(self) -> None:
        check_byzantine(self.num_byzantine)
        check_count("num_selected", self.num_selected)

    @property
    def can_name(self) -> bool:
        return True

    def check_number(self, num_parts: int) -> None:
        self.require(num_parts, 2 * self.num_byzantine + 3, "a smaller num_byzantine")
        self.require(num_parts, self.num_selected + self.num_byzantine, "a smaller num_selected")

    def aggregate(self, rows: MessageRows) -> Total:
        rows = rows.bound()
        scores = _score(squared_distances(rows.gram()), self.num_byzantine)
        return _mean_of(self, rows, np.argsort(scores, kind="stable")[: self.num_selected])


@value
class minimum_diameter(Rule):
    """The mean of those n - num_byzantine contributions whose largest distance is the smallest.

    It needs n >= 2 num_byzantine + 1. One of the two contributions that are farthest apart has to go, and so
    on: 2^num_byzantine sets are compared. More than a million are refused. Of equal diameters the set with
    the first positions wins.

    Args:
      num_byzantine: the number of liars to withstand.
    Runs at: server. Reveals: every contribution to the server. Names the others as left out.
    References: El Mhamdi, Guerraoui, Guirguis, Rouault, "SGD: Decentralized Byzantine resilience", 2019,
      arXiv 1905.03853, "minimum-diameter averaging"; Rousseeuw, "Multivariate estimation with high breakdown
      point", 1985.
    """

    num_byzantine: int

    def __post_init__(self) -> None:
        check_byzantine(self.num_byzantine)
        if 2**self.num_byzantine > MAX_SUBSETS:
            raise CompositionError(
                f"{self} would compare {2**self.num_byzantine} sets of clients, and at most {MAX_SUBSETS} "
                "are allowed: write a smaller num_byzantine, or use multi_krum() or geometric_median()"
            )

    @property
    def can_name(self) -> bool:
        return True

    def check_number(self, num_parts: int) -> None:
        self.require(num_parts, 2 * self.num_byzantine + 1, "a smaller num_byzantine")

    def aggregate(self, rows: MessageRows) -> Total:
        rows = rows.bound()
        distances = squared_distances(rows.gram())
        _, kept = _find_narrowest(distances, tuple(range(len(rows))), self.num_byzantine, {})
        return _mean_of(self, rows, np.array(kept))


@value
class bulyan(Rule):
    """The mean around the median, coordinate by coordinate, of contributions that Krum chooses.

    Krum chooses n - 2 num_byzantine, one after the other among those that are left. Of each coordinate,
    the n - 4 num_byzantine values nearest the median count. It needs n >= 4 num_byzantine + 3. Krum looks at
    one neighbour at least, however few are left; two nearest neighbours then have the same score, and the
    first position wins.

    Args:
      num_byzantine: the number of liars to withstand.
    Runs at: server. Reveals: every contribution to the server. Names those that Krum does not choose.
    References: El Mhamdi, Guerraoui, Rouault, "The hidden vulnerability of distributed learning in
      Byzantium", ICML 2018, arXiv 1802.07927, Section 4.
    """

    num_byzantine: int

    def __post_init__(self) -> None:
        check_byzantine(self.num_byzantine)

    @property
    def can_name(self) -> bool:
        return True

    def check_number(self, num_parts: int) -> None:
        self.require(num_parts, 4 * self.num_byzantine + 3, "a smaller num_byzantine")

    def aggregate(self, rows: MessageRows) -> Total:
        rows = rows.bound()
        distances = squared_distances(rows.gram())
        left, chosen = list(range(len(rows))), list[int]()
        while len(chosen) < len(rows) - 2 * self.num_byzantine:
            best = int(_score(distances[np.ix_(left, left)], self.num_byzantine).argmin())
            chosen.append(left.pop(best))
        num_kept = len(chosen) - 2 * self.num_byzantine
        order = sorted(chosen)
        values = rows.map_windows(lambda columns: mean_around_median(columns[:, order], num_kept))
        return self.wrap(rows, values, left)


def _score(distances: Array, num_byzantine: int) -> Array:
    """Sums each row's squared distances to its nearest others."""
    num_near = max(1, len(distances) - num_byzantine - 2)
    return np.asarray(np.sort(distances, axis=1)[:, 1 : num_near + 1].sum(axis=1))  # the first is its own


def _mean_of(rule: Rule, rows: MessageRows, chosen: Array) -> Total:
    coefficients = np.zeros(len(rows))
    coefficients[chosen] = 1 / len(chosen)
    return rule.total(rows, coefficients, set(range(len(rows))) - set(chosen.tolist()))


def _find_narrowest(
    distances: Array,
    among: tuple[int, ...],
    num_removed: int,
    known: dict[tuple[int, ...], tuple[float, tuple[int, ...]]],
) -> tuple[float, tuple[int, ...]]:
    """Finds the set of least diameter that is left when so many are removed; returns both.

    Args:
      known: the outcomes for sets that were met before, on other ways.
    """
    if among not in known:
        inside = distances[np.ix_(among, among)]
        first, second = divmod(int(inside.argmax()), len(among))
        if not num_removed:
            known[among] = float(inside[first, second]), among
        elif first == second:  # all are equal
            known[among] = 0.0, among[: len(among) - num_removed]
        else:
            known[among] = min(
                _find_narrowest(distances, among[:i] + among[i + 1 :], num_removed - 1, known)
                for i in (first, second)
            )
    return known[among]
