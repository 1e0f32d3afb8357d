"""Curves that coincide, of which one would hide the other."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["describe_twins", "find_twins"]


def find_twins(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Finds curves that coincide with an earlier one, which they would hide."""
    curves = dict[str, list[tuple[float, float]]]()
    for row in rows:
        curves.setdefault(row["who"], []).append((row["x"], row["y"]))
    names = list(curves)
    firsts = {name: next(other for other in names if curves[other] == curves[name]) for name in names}
    return {name: first for name, first in firsts.items() if name != first}


def describe_twins(rows: Sequence[Mapping[str, Any]]) -> str:
    """Says which curves coincide."""
    found = find_twins(rows)
    return " ".join(f"{name} coincides with {first} and is dashed." for name, first in found.items())
