"""The rules under contract, with what each needs; and vectors to fold."""

from typing import Any

import numpy as np

from hanse.core import Array, Part, Reducer, mean, reduce
from hanse.robust import (
    bucketing,
    bulyan,
    centred_clipping,
    geometric_median,
    krum,
    median,
    minimum_diameter,
    multi_krum,
    nearest_neighbour_mixing,
    norm_bound,
    trimmed_mean,
)

RULES: dict[str, Reducer[Any]] = {
    "median": median(),
    "trimmed_mean": trimmed_mean(2),
    "krum": krum(2),
    "multi_krum": multi_krum(2, 6),
    "geometric_median": geometric_median(),
    "centred_clipping": centred_clipping(3.0, 5),
    "minimum_diameter": minimum_diameter(2),
    "bulyan": bulyan(2),
    "mixing": nearest_neighbour_mixing(2, trimmed_mean(2)),
    "mixing_krum": nearest_neighbour_mixing(2, krum(2)),
    "bucketing": bucketing(2, median()),
    "bucketing_krum": bucketing(2, multi_krum(1, 3)),
    "norm_bound": norm_bound(2.0),
    "norm_bound_rule": norm_bound(2.0, geometric_median()),
    "mixing_mean": nearest_neighbour_mixing(2, mean()),
    "nested": norm_bound(3.0, nearest_neighbour_mixing(2, bulyan(2))),
}
"""Each withstands two liars among eleven."""


def parts(rows: Any, dtype: str = "float64", weights: Any = None) -> list[Part]:
    """Makes messages of two tensors from rows of numbers, the first of which is a scalar."""
    rows = np.asarray(rows, np.float64)
    weights = [1.0] * len(rows) if weights is None else weights
    return [
        Part({"a": np.asarray(row[0], dtype), "b": np.asarray(row[1:], dtype).reshape(1, -1)}, float(w))
        for row, w in zip(rows, weights, strict=True)
    ]


def fold(rule: Any, rows: Any, dtype: str = "float64") -> Array:
    """Folds rows of numbers, and returns the total as a row."""
    values = reduce(rule, parts(rows, dtype)).values
    return np.concatenate([values["a"].reshape(-1), values["b"].reshape(-1)])
