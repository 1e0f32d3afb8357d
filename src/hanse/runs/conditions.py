"""Comparisons by which the owner of a file chooses the rows that a run may use. They are data, no code."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeAlias

import numpy as np

from hanse.core import Array, InvalidInput, nearest
from hanse.data import ShowsCell, find_gaps, to_categories

__all__ = ["Bound", "Condition", "choose_rows", "read_conditions"]

Bound: TypeAlias = float | date
"""A number, or a day as TOML writes it: 2024-01-31."""

WORDS, BOUNDS = ("among", "not_among"), ("at_least", "at_most")
EXAMPLE = 'where = [{column = "age", at_least = 18}, {column = "ward", among = ["A", "B"]}]'

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Condition:
    """A comparison that a row has to pass. A row without a value in the column does not pass.

    >>> Condition("age", at_least=18.0).holds(np.array([17.0, 18.0, np.nan])).tolist()
    [False, True, False]

    Args:
      column: of the file, or the name of an array.
      among, not_among: the values, as words, that the column must have, or must not have; None: any.
      at_least, at_most: bounds on its number or day; None: none.
    """

    column: str
    among: tuple[str, ...] | None = None
    not_among: tuple[str, ...] | None = None
    at_least: Bound | None = None
    at_most: Bound | None = None

    @property
    def compares_numbers(self) -> bool:
        """Whether the column has to hold numbers."""
        return any(isinstance(bound, float) for bound in (self.at_least, self.at_most))

    def holds(self, values: Array) -> Array:
        """Returns which rows pass, (n,). Raises: InvalidInput: if the values are of another kind."""
        passes = ~find_gaps(values)
        for words, wanted in ((self.among, True), (self.not_among, False)):
            if words is not None:
                passes &= np.isin(to_categories(values), words) == wanted
        low, high = (self._as_kind(bound, values, passes) for bound in (self.at_least, self.at_most))
        if low is not None:
            passes &= values >= low
        if high is not None:
            passes &= values <= high
        return passes

    def _as_kind(self, bound: Bound | None, values: Array, passes: Array) -> Any:
        """Returns a bound that can be compared with the values."""
        if bound is None or (isinstance(bound, float) and values.dtype.kind in "biuf"):
            return bound
        if isinstance(bound, float) or values.dtype.kind != "U":
            kind = "numbers" if isinstance(bound, float) else "days, such as 2024-01-31"
            raise InvalidInput(f"column {self.column!r} does not hold {kind}, as its condition in where does")
        row = next((int(row) for row in np.flatnonzero(passes) if not _DAY.match(values[row])), None)
        if row is not None:
            place = f"in row {row + 1} of the data"
            why = "no day such as 2024-01-31, as its condition in where is"
            raise ShowsCell(
                f"column {self.column!r} is {str(values[row])!r} {place}, which is {why}",
                f"column {self.column!r} holds {place} {why}",
            )
        return bound.isoformat() if bound is self.at_least else f"{bound.isoformat()}~"  # with any time of it

    def to_settings(self) -> dict[str, Any]:
        """Returns the settings that make this condition."""
        said = {name: getattr(self, name) for name in (*WORDS, *BOUNDS)}
        given = {name: list(one) if isinstance(one, tuple) else one for name, one in said.items()}
        return {"column": self.column, **{name: one for name, one in given.items() if one is not None}}


def read_conditions(given: Any, where: str) -> tuple[Condition, ...]:
    """Reads conditions from plain data. Raises: InvalidInput: naming the first that can't be used."""
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise InvalidInput(f"{where} is {given!r}; write a list of conditions, such as {EXAMPLE}")
    return tuple(_read_condition(one, f"{where}[{i}]") for i, one in enumerate(given))


def _read_condition(given: Mapping[str, Any], where: str) -> Condition:
    for name, said in given.items():
        if name not in ("column", *WORDS, *BOUNDS):
            raise InvalidInput(f"{where}: {name} is unknown; {nearest(name, ('column', *WORDS, *BOUNDS))}")
        is_word = isinstance(said, str | int | float)
        fine = {
            "column": isinstance(said, str),
            **dict.fromkeys(
                WORDS, isinstance(said, list) and all(isinstance(w, str | int | float) for w in said)
            ),
            **dict.fromkeys(BOUNDS, type(said) in (int, float, date)),
        }[name]
        if not fine:
            kinds = {"column": "the name of a column", **dict.fromkeys(WORDS, "a list")}
            wanted = kinds.get(name, "a number, or a day such as 2024-01-31")
            also = f": [{said!r}]" if is_word and name in WORDS else ""
            raise InvalidInput(f"{where}: {name} is {said!r}; write {wanted}{also}")
    if "column" not in given or len(given) == 1:
        raise InvalidInput(f"{where}: write a column and a comparison, such as {EXAMPLE}")
    words: dict[str, Any] = {
        name: tuple(to_categories(np.array([str(word) for word in given[name]], str)).tolist())
        for name in WORDS
        if name in given
    }
    bounds: dict[str, Any] = {
        name: float(given[name]) if isinstance(given[name], int) else given[name]
        for name in BOUNDS
        if name in given
    }
    return Condition(given["column"], **words, **bounds)


def choose_rows(where: Sequence[Condition], columns: Mapping[str, Array], file: str) -> Array:
    """Returns which rows pass all conditions, (n,).

    Raises: InvalidInput: if a column is missing, or of another kind, or no row passes.
    """
    passes: Array | None = None
    for condition in where:
        if condition.column not in columns:
            raise InvalidInput(
                f"{file} has no column {condition.column!r} for where; {nearest(condition.column, columns)}"
            )
        column = columns[condition.column]
        if column.ndim > 1:
            raise InvalidInput(f"{file}: column {condition.column!r} for where holds arrays; name another")
        try:
            held = condition.holds(column)
        except InvalidInput as error:
            raise InvalidInput(f"{file}: {error}") from None
        passes = held if passes is None else passes & held
    if passes is not None and not passes.any():
        raise InvalidInput(f"{file}: none of its {len(passes)} rows passes all conditions in where")
    return passes if passes is not None else np.ones(0, bool)
