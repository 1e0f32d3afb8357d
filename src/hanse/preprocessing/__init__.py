"""Preprocessing: a program that learns from all clients' sums how features are encoded."""

from hanse.preprocessing.program import Encoder, Preprocessing, tabular
from hanse.preprocessing.schema import Schema

__all__ = [
    "Encoder",
    "Preprocessing",
    "Schema",
    "tabular",
]
