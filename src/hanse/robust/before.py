"""Steps before another rule: nearest-neighbour mixing, bucketing and a bound of the norms."""

from typing import Any

import numpy as np

from hanse.core import Reducer, Total, check_count, check_positive, mean, value
from hanse.robust.rows import MessageRows, squared_distances
from hanse.robust.rule import Before, Rule, check_byzantine

__all__ = ["bucketing", "nearest_neighbour_mixing", "norm_bound"]


@value
class nearest_neighbour_mixing(Before):
    """Replaces each contribution by the mean of its n - num_byzantine nearest ones, then applies a rule.

    Itself is one of them. What is left of differences between clients' data is small, so a rule such as
    `trimmed_mean()` then loses less of it. It needs n >= 2 num_byzantine + 1, and what `then` needs. Of equal
    distances the first positions win. Weights are ignored.

    Args:
      num_byzantine: the number of liars to withstand.
      then: the rule. Positions that it leaves out are those of the clients whose mixtures they were.
    Runs at: server. Reveals: every contribution to the server.
    References: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by mixing: A recipe for
      optimal Byzantine ML under heterogeneity", AISTATS 2023, arXiv 2302.01772, Algorithm 2.
    """

    num_byzantine: int
    then: Reducer[Any]

    def __post_init__(self) -> None:
        check_byzantine(self.num_byzantine)

    def check_number(self, num_parts: int) -> None:
        self.require(num_parts, 2 * self.num_byzantine + 1, "a smaller num_byzantine")
        super().check_number(num_parts)

    def aggregate(self, rows: MessageRows) -> Total:
        rows = rows.bound()
        num_near = len(rows) - self.num_byzantine
        distances = squared_distances(rows.gram())
        np.fill_diagonal(distances, -1.0)  # it is the nearest to itself, before any equal one
        near = np.argsort(distances, axis=1, kind="stable")[:, :num_near]
        mixing = np.zeros((len(rows), len(rows)))
        np.put_along_axis(mixing, near, 1 / num_near, axis=1)
        return self.pass_on(rows.mix(mixing))


@value
class bucketing(Before):
    """Replaces contributions by the means of random buckets, then applies a rule to these.

    Buckets resemble each other more than clients do, so a rule loses less of what clients' data differ in. A
    liar spoils one bucket: `then` must withstand as many buckets as there are liars, among ceil(n / size).
    The buckets are drawn from the messages themselves, anew in each round. Weights are ignored.

    Args:
      size: of a bucket; the last may be smaller. 1 changes nothing but the order.
      then: the rule. All clients of a bucket that it leaves out are named.
    Runs at: server. Reveals: every contribution to the server.
    References: Karimireddy, He, Jaggi, "Byzantine-robust learning on heterogeneous datasets via bucketing",
      ICLR 2022, arXiv 2006.09365, Algorithm 1.
    """

    size: int
    then: Reducer[Any]

    def __post_init__(self) -> None:
        check_count("size", self.size)

    def check_number(self, num_parts: int) -> None:
        super().check_number(-(-num_parts // self.size))

    def aggregate(self, rows: MessageRows) -> Total:
        order = rows.draw().permutation(len(rows))
        buckets = [order[i : i + self.size] for i in range(0, len(rows), self.size)]
        mixing = np.zeros((len(buckets), len(rows)))
        for line, bucket in zip(mixing, buckets, strict=True):
            line[bucket] = 1 / len(bucket)
        total = self.pass_on(rows.mix(mixing))
        return self.wrap(rows, total.values, (i for at in total.left_out for i in buckets[at]))


@value
class norm_bound(Before):
    """Scales contributions down to a Euclidean norm of at most `max_norm`, then applies a rule.

        x -> x * min(1, max_norm / |x|)

    It bounds what one client can do to the total, also under the mean: model replacement by one client is
    then no more than one client's share. Unlike `clip()` it is done at the server, so a liar can't skip it.
    Weights go on to `then`; `mean()` heeds them, and the rules here do not.

    Args:
      max_norm: the bound, above 0, over all tensors of a message together.
      then: the reducer or rule.
    Runs at: server. Reveals: every contribution to the server.
    References: Sun, Kairouz, Suresh, McMahan, "Can you really backdoor federated learning?", 2019, arXiv
      1911.07963, "norm thresholding".

    >>> from hanse.core import Part, reduce
    >>> reduce(norm_bound(1.0), [Part({"w": np.array([x])}) for x in (0.5, 1e9)]).values
    {'w': array([0.75])}
    """

    max_norm: float
    then: Reducer[Any] = mean()

    def __post_init__(self) -> None:
        check_positive("max_norm", self.max_norm)

    @property
    def heeds_weights(self) -> bool:
        return not isinstance(self.then, Rule) or self.then.heeds_weights

    def aggregate(self, rows: MessageRows) -> Total:
        rows = rows.bound()
        norms = np.sqrt(np.diag(rows.gram()))
        if norms.max() > self.max_norm:
            rows = rows.scale(self.max_norm / np.maximum(norms, self.max_norm))
        return self.pass_on(rows)
