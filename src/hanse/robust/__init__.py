"""Reducers that a minority of lying clients can't lead far astray.

    by coordinate    median, trimmed_mean
    by distance      krum, multi_krum, minimum_diameter, bulyan
    by a centre      geometric_median, centred_clipping
    before a rule    nearest_neighbour_mixing, bucketing, norm_bound

They are settings of an algorithm, such as `fed_avg(into=trimmed_mean(2))`. All see single contributions,
so none stands together with a reducer that hides them. `worker_momentum` and `recentre` are transforms that
give clients and the server the memory that centred clipping counts on.
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.robust.before import bucketing, nearest_neighbour_mixing, norm_bound
    from hanse.robust.centres import centred_clipping, geometric_median
    from hanse.robust.coordinates import median, trimmed_mean
    from hanse.robust.history import recentre, worker_momentum
    from hanse.robust.rule import Rule
    from hanse.robust.selections import bulyan, krum, minimum_diameter, multi_krum
    from hanse.robust.trust import cosine_trust
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.robust.before": ("bucketing", "nearest_neighbour_mixing", "norm_bound"),
            "hanse.robust.centres": ("centred_clipping", "geometric_median"),
            "hanse.robust.coordinates": ("median", "trimmed_mean"),
            "hanse.robust.history": ("recentre", "worker_momentum"),
            "hanse.robust.rule": ("Rule",),
            "hanse.robust.selections": ("bulyan", "krum", "minimum_diameter", "multi_krum"),
            "hanse.robust.trust": ("cosine_trust",),
        },
        registers={},
    )

__all__ = [
    "Rule",
    "bucketing",
    "bulyan",
    "centred_clipping",
    "cosine_trust",
    "geometric_median",
    "krum",
    "median",
    "minimum_diameter",
    "multi_krum",
    "nearest_neighbour_mixing",
    "norm_bound",
    "recentre",
    "trimmed_mean",
    "worker_momentum",
]
