"""Finds the role of a column of a table: label, party, group, or none since it identifies rows."""

import re
from collections.abc import Mapping

import numpy as np

from hanse.core import Array
from hanse.data import IDENTIFIES, find_gaps, is_numbering, names_places

__all__ = [
    "MAX_CLASSES",
    "explain_drop",
    "find_group",
    "find_key",
    "find_label",
    "has_label_name",
    "list_labels",
    "names_place",
    "numbers_persons",
    "seems_to_identify",
]

LABELS = (
    "label",
    "class",
    "target",
    "y",
    "outcome",
    "diagnosis",
    "died",
    "income",
    "response",
    "result",
    "price",
)
KEYS = ("hospital", "site", "centre", "center", "client", "user", "user_id", "writer", "role", "institution",
        "clinic", "bank", "branch", "region", "school", "device", "owner")  # fmt: skip
MAX_CLASSES, MAX_KEYS = 30, 500


def explain_drop(name: str, column: Array) -> str | None:
    """Returns why a column should be left out; None: it may describe the rows."""
    if numbers_persons(name, column):
        return "it numbers persons or cases, and does not describe them"
    if seems_to_identify(name, column):
        return "almost each row has another value: it identifies rows and does not describe them"
    if column.ndim == 1 and find_gaps(column).all():
        return "it is empty in every row"
    if column.ndim == 1 and len(np.unique(column[~find_gaps(column)])) == 1:
        return "it has the same value in every row"
    return None


def list_labels(columns: Mapping[str, Array]) -> list[str]:
    """Lists the columns that look like labels, those with a typical name first."""
    few = [n for n, c in columns.items() if c.ndim == 1 and 2 <= len(np.unique(c)) <= MAX_CLASSES]
    typical = [name for name in columns if has_label_name(name)]
    return [*typical, *(name for name in reversed(few) if name not in typical)]


def has_label_name(name: str) -> bool:
    """Returns whether a column has a typical name of a label."""
    return name.lower() in LABELS


def find_label(columns: Mapping[str, Array], key: str | None = None) -> str:
    """Chooses the column with a typical name, or else the last one of numbers or of few different words."""
    names = [name for name in columns if name != key]
    for name in names:
        if has_label_name(name):
            return name
    last = names[-1]
    if columns[last].dtype.kind != "U" and not seems_to_identify(last, columns[last]):
        return last
    few = (n for n in reversed(names) if 2 <= len(np.unique(columns[n])) <= MAX_CLASSES)
    return next(few, last)


def find_key(columns: Mapping[str, Array], label: str | None) -> str | None:
    """Chooses the column of the party that each row belongs to; None: none has a typical name."""
    for known in KEYS:
        for name, column in columns.items():
            if name.lower() == known and name != label and 2 <= len(np.unique(column)) <= MAX_KEYS:
                return name if not _gaps(column) else None
    return None


def _gaps(column: Array) -> bool:
    return bool((column == "").any() if column.dtype.kind == "U" else np.isnan(column).any())


def seems_to_identify(name: str, column: Array) -> bool:
    """Returns whether a column seems to identify rows or persons, and not to describe them."""
    distinct = len(np.unique(column)) if column.ndim == 1 else 0
    if numbers_persons(name, column):
        return True
    if distinct == len(column) > 1 and re.fullmatch(r"(.*_)?id|index|row|unnamed: 0", name.lower()):
        return True
    if column.dtype.kind == "U":
        return bool(distinct > IDENTIFIES and 2 * distinct > np.count_nonzero(column != ""))
    return column.ndim == 1 and is_numbering(name, column)


def names_place(name: str, column: Array) -> bool:
    """Returns whether a column holds numbers that are postcodes, by its name."""
    return column.ndim == 1 and column.dtype.kind != "U" and names_places(name, column)


PERSONS = re.compile(
    r"id|pid|mrn|(.*[ _.-])?(patient|patienten|pat|subject|person|proband|probanden|participant|case|fall"
    r"|record|pseudonym)(?P<number>[ _.-]*(id|nr|no|num|number|nummer|code|key))?\.?",
    re.IGNORECASE,
)
"""Names of columns that number persons or cases."""

FEWEST_PERSONS = 10
"""A column that is only called patient or case may hold so few kinds of them, such as in and out."""


def numbers_persons(name: str, column: Array) -> bool:
    """Returns whether a column seems to number persons or cases, of whom some have several rows."""
    found = PERSONS.fullmatch(name.strip())
    if found is None or column.ndim > 1:
        return False
    distinct = len(np.unique(column[~find_gaps(column)]))
    is_number = found[2] is None or found["number"] is not None
    return 1 < distinct < len(column) and (is_number or distinct > FEWEST_PERSONS)


def find_group(columns: Mapping[str, Array]) -> str | None:
    """Chooses the column of the person whom each row is of, if some have several rows: that of the fewest."""
    found = [name for name, column in columns.items() if numbers_persons(name, column)]
    return min(found, key=lambda name: len(np.unique(columns[name])), default=None)
