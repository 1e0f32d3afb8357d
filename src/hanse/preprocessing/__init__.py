"""Preprocessing: a program that learns from all clients' sums how features are encoded."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.preprocessing.program import Encoder, Preprocessing, tabular
    from hanse.preprocessing.schema import Schema
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.preprocessing.program": ("Encoder", "Preprocessing", "tabular"),
            "hanse.preprocessing.schema": ("Schema",),
        },
        registers={
            "hanse.preprocessing.moments": (
                "Moments",
                "moments",
                "column_moments",
                "column_sums",
                "column_deviations",
                "merged_moments",
                "two_sums",
                "standardised",
                "unscaled",
            ),
            "hanse.preprocessing.vocabularies": (
                "tally",
                "category_counts",
                "most_frequent",
                "own_category",
                "Vocabulary",
            ),
        },
    )

__all__ = [
    "Encoder",
    "Preprocessing",
    "Schema",
    "tabular",
]
