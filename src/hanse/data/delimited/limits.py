"""Numbers that are limits, as laboratories write them: "<5" is below 5, and ">100" above 100."""

import re
from typing import Literal, TypeAlias

__all__ = ["CENSORED", "Censored", "find_limit", "read_limit"]

Censored: TypeAlias = Literal["limit", "half", "missing"]
"""How a cell such as "<5" is read: as 5, as 2.5, or as a gap."""

CENSORED: tuple[Censored, ...] = ("limit", "half", "missing")

_LIMIT = re.compile(r"[<>\u2264\u2265]=?\s*([-+]?[\d.,].*)")


def find_limit(word: str) -> str | None:
    """Returns what stands behind a mark such as "<"; None if a word has no such mark before a digit.

    >>> find_limit("<5"), find_limit(">= 1.000"), find_limit("<b>")
    ('5', '1.000', None)
    """
    if word[:1] not in ("<", ">", "\u2264", "\u2265"):
        return None
    found = _LIMIT.fullmatch(word)
    return None if found is None else found[1]


def read_limit(word: str, limit: str, censored: Censored) -> str:
    """Returns the number that a limit is read as, "" for a gap.

    >>> [read_limit("<5", "5", "half"), read_limit(">100", "100", "half"), read_limit("<5", "5", "missing")]
    ['2.5', '100', '']
    """
    if censored == "missing":
        return ""
    is_below = word[0] in "<\u2264" and float(limit) > 0
    return repr(float(limit) / 2) if censored == "half" and is_below else limit
