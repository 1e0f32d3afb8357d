"""Preprocessing: a program that learns from all clients' sums how features are encoded."""

from hanse.preprocessing.program import Encoder, Preprocessing, Schema, tabular

__all__ = [
    "Encoder",
    "Preprocessing",
    "Schema",
    "tabular",
]
