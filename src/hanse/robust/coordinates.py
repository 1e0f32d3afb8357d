"""Rules that look at each coordinate by itself: the median and the trimmed mean.

Yin, Chen, Ramchandran, Bartlett, "Byzantine-robust distributed learning: Towards optimal statistical rates",
ICML 2018, arXiv 1803.01498, Definitions 1 and 2.
"""

import numpy as np

from hanse.core import Array, Total, check_not_negative, value
from hanse.robust.rows import MessageRows
from hanse.robust.rule import Rule

__all__ = ["mean_around_median", "median", "trimmed_mean"]


@value
class median(Rule):
    """The median of each coordinate; of an even number, the mean of the middle two.

    It withstands fewer liars than half of the contributions. Where clients' data differ it follows none of
    them: a coordinate that most clients leave alone stays where it is.

    Runs at: server. Reveals: every contribution to the server.
    References: Yin et al., ICML 2018, arXiv 1803.01498, Definition 1.

    >>> from hanse.core import Part, reduce
    >>> rows = [Part({"w": np.array([x])}) for x in (1.0, 2.0, 1e9)]
    >>> reduce(median(), rows).values
    {'w': array([2.])}
    """

    def aggregate(self, rows: MessageRows) -> Total:
        return self.wrap(rows, rows.map_windows(_median))


@value
class trimmed_mean(Rule):
    """The mean of each coordinate without its `trim` smallest and `trim` largest values.

    It withstands `trim` liars among at least 2 trim + 1 contributions, and with no liars it is a mean of the
    middle. A value that is left out at one coordinate may count at the next, so no client is left out.

    Args:
      trim: the number of values left out at each end.
    Runs at: server. Reveals: every contribution to the server.
    References: Yin et al., ICML 2018, arXiv 1803.01498, Definition 2.

    >>> from hanse.core import Part, reduce
    >>> rows = [Part({"w": np.array([x])}) for x in (-1e9, 1.0, 2.0, 6.0, 1e9)]
    >>> reduce(trimmed_mean(1), rows).values
    {'w': array([3.])}
    """

    trim: int

    def __post_init__(self) -> None:
        check_not_negative("trim", self.trim)

    def check_number(self, num_parts: int) -> None:
        self.require(num_parts, 2 * self.trim + 1, "a smaller trim")

    def aggregate(self, rows: MessageRows) -> Total:
        return self.wrap(rows, rows.map_windows(lambda columns: _mean_of_middle(columns, self.trim)))


def _median(columns: Array) -> Array:
    columns.sort(axis=1)
    low, high = (columns.shape[1] - 1) // 2, columns.shape[1] // 2
    half = columns.dtype.type(0.5)
    return np.asarray(columns[:, low] if low == high else half * columns[:, low] + half * columns[:, high])


def _mean_of_middle(columns: Array, trim: int) -> Array:
    columns.sort(axis=1)
    return np.asarray(columns[:, trim : columns.shape[1] - trim].mean(axis=1, dtype=np.float64))


def mean_around_median(columns: Array, num_kept: int) -> Array:
    """Computes the mean of the values nearest the median of each line; of two equally near, the smaller.

    >>> mean_around_median(np.array([[0.0, 4.0, 5.0, 7.0, 90.0]]), 3)
    array([5.33333333])
    """
    columns.sort(axis=1)
    middle = _median(columns)[:, None]
    size = columns.shape[1]
    # the nearest are neighbours once sorted, and the farther end of theirs is the nearest
    below, above = columns[:, : size - num_kept + 1], columns[:, num_kept - 1 :]
    begin = np.maximum(middle - below, above - middle).argmin(axis=1)
    kept = np.take_along_axis(columns, begin[:, None] + np.arange(num_kept), axis=1)
    return np.asarray(kept.mean(axis=1, dtype=np.float64))
