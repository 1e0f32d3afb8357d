"""Rules that look for a centre of all contributions: the geometric median and centred clipping."""

import numpy as np

from hanse.core import Array, Total, check_count, check_positive, value
from hanse.robust.rows import MessageRows, squared_distances
from hanse.robust.rule import Rule

__all__ = ["centred_clipping", "geometric_median"]

MAX_STEPS = 1000
"""The most steps of Weiszfeld's algorithm."""

SMALLEST = 1e-14
"""Squared distances below this fraction of the squared norms are rounding: the rows are equal."""


@value
class geometric_median(Rule):
    """The point whose distances to all contributions have the least sum.

        z = argmin_z sum_i |z - x_i|

    It withstands fewer liars than half of the contributions, and needs no number of them. It is found in the
    span of the contributions: by Weiszfeld's steps, and exactly where it is one of them. If all lie on a
    line it may not be unique; then it is the first that is found from the mean.

    Runs at: server. Reveals: every contribution to the server.
    References: Pillutla, Kakade, Harchaoui, "Robust aggregation for federated learning", IEEE TSP 2022, arXiv
      1912.13445; Vardi, Zhang, "The multivariate L1-median", PNAS 2000, equation (2.6), for the exact case.

    >>> from hanse.core import Part, reduce
    >>> corners = [(0.0, 0.0), (2.0, 0.0), (0.0, 2.0), (2.0, 2.0)]
    >>> reduce(geometric_median(), [Part({"w": np.array(x)}) for x in corners]).values
    {'w': array([1., 1.])}
    """

    def aggregate(self, rows: MessageRows) -> Total:
        rows = rows.bound()
        return self.total(rows, _find_median(rows.gram()))


@value
class centred_clipping(Rule):
    """A mean of contributions that are clipped to a ball around the centre, which moves with each iteration.

        v <- v + (1/n) sum_i (x_i - v) min(1, radius / |x_i - v|),   v = 0 at first

    A liar moves the total by at most iterations * radius / n. The paper's centre is the total of the round
    before, and its clients send momenta. A reducer has no memory: put `recentre()` into the `uplink`, which
    keeps that total in the server's state and takes it away from each message, and before it
    `worker_momentum(0.9)`.

    Args:
      radius: of the ball, the paper's tau: about the distance between honest contributions.
      iterations: the paper's l.
    Runs at: server. Reveals: every contribution to the server.
    References: Karimireddy, He, Jaggi, "Learning from history for Byzantine robust optimization", ICML 2021,
      arXiv 2012.10333, equation (CC) and Algorithm 2.

    >>> from hanse.core import Part, reduce
    >>> reduce(centred_clipping(1.0), [Part({"w": np.array([x])}) for x in (0.5, 1e9)]).values
    {'w': array([0.75])}
    """

    radius: float
    iterations: int = 1

    def __post_init__(self) -> None:
        check_positive("radius", self.radius)
        check_count("iterations", self.iterations)

    def aggregate(self, rows: MessageRows) -> Total:
        rows = rows.bound()
        gram, centre = rows.gram(), np.zeros(len(rows))
        for _ in range(self.iterations):
            distances = np.sqrt(_measure_to(gram, centre))
            factors = self.radius / np.maximum(distances, self.radius)
            centre = centre * (1 - factors.mean()) + factors / len(rows)
        return self.total(rows, centre)


def _measure_to(gram: Array, centre: Array) -> Array:
    """Returns the squared distances of all rows to a linear combination of them."""
    products = gram @ centre
    return np.asarray(np.maximum(np.diag(gram) - 2 * products + centre @ products, 0))


def _find_median(gram: Array) -> Array:
    """Returns the coefficients of the geometric median."""
    n, squares = len(gram), np.diag(gram)
    distances = squared_distances(gram)
    is_equal = distances <= SMALLEST * np.maximum(squares[:, None], squares)
    pulls = np.where(is_equal, 0.0, 1 / np.sqrt(np.where(is_equal, 1.0, distances)))
    # row k is the median if unit vectors from it to the others add up to at most its multiplicity
    directions = pulls - np.diag(pulls.sum(axis=1))
    lengths = np.sqrt(np.maximum(((directions @ gram) * directions).sum(axis=1), 0))
    slack = lengths - is_equal.sum(axis=1)
    if slack.min() <= 1e-9:
        return np.asarray(np.eye(n)[int(slack.argmin())])
    # begin amid the nearer half of all rows, however far away the others are
    near = np.argsort(distances[np.sqrt(distances).sum(axis=1).argmin()], kind="stable")[: n // 2 + 1]
    centre = np.bincount(near, minlength=n) / len(near)
    for _ in range(MAX_STEPS):
        away = np.sqrt(np.maximum(_measure_to(gram, centre), SMALLEST * np.maximum(squares, 1e-280)))
        moved = 1 / away / (1 / away).sum()
        step = moved - centre
        centre = moved
        if step @ gram @ step <= 1e-24 * (centre @ gram @ centre):
            break
    return np.asarray(centre)
