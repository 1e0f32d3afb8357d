"""Finds what the distinct cells of a column seem to mean, where these are not just numbers or categories."""

import re
from collections.abc import Collection

__all__ = [
    "find_gap_codes",
    "find_units",
    "find_variants",
    "is_grouped_by_points",
    "is_pointed",
    "seem_codes",
]

GAP_CODES = frozenset([-9.0, -99.0, -999.0, -9999.0, 99.0, 999.0, 9999.0, 99999.0])
"""Numbers that stand for a missing value in many files."""

_UNIT = re.compile(r"(?:[€$£]\s*)?[-+]?\d[\d.,]*(?:\s*(%)|\s+([^\d\s]\S{0,9})|([a-zA-Zµμ]{2,8}))?")
_ANSWERS = ({"1", "y", "yes", "j", "ja", "true"}, {"0", "n", "no", "nein", "false"})
MOST_UNITS = 3


def seem_codes(words: Collection[str]) -> str | None:
    """Returns a cell that shows that a column of numbers holds codes; None if nothing shows it.

    >>> seem_codes(["007", "12"]), seem_codes(["3E04", "12"]), seem_codes(["0", "12"])
    ('007', '3E04', None)
    """
    if not all(re.fullmatch(r"\d+([eE]\d+)?", word) for word in words):
        return None
    return next((word for word in sorted(words) if re.fullmatch(r"0\d+|\d+[eE]\d+", word)), None)


def is_grouped_by_points(words: Collection[str]) -> bool:
    """Returns whether all numbers with a point could be thousands.

    >>> is_grouped_by_points(["1.234", "17"]), is_grouped_by_points(["1.234", "0.125"])
    (True, False)
    """
    pointed = [word for word in words if "." in word]
    return bool(pointed) and all(re.fullmatch(r"[-+]?[1-9]\d{0,2}\.\d{3}", word) for word in pointed)


def is_pointed(word: str) -> bool:
    """Returns whether a word is a number, with at most one point and no comma.

    >>> is_pointed("12.3"), is_pointed("12"), is_pointed("12,3"), is_pointed("1.2.3")
    (True, True, False, False)
    """
    return re.fullmatch(r"[-+]?\d+(\.\d+)?", word) is not None


def find_units(words: Collection[str]) -> tuple[str, ...]:
    """Returns the units if all words are numbers with a unit.

    >>> find_units(["5 mg", "2.5 mg"]), find_units(["80%", "95 %"]), find_units(["A1", "5 mg"])
    (('mg',), ('%',), ())
    """
    found = [_UNIT.fullmatch(word) for word in words]
    if len(found) < 2 or not all(found):
        return ()
    units = {next(filter(None, one.groups()), "") or one[0][:1] for one in found if one is not None}
    units = {unit for unit in units if not re.match(r"[-+\d]", unit)}
    return tuple(sorted(units)) if len(units) <= MOST_UNITS else ()


def find_variants(words: Collection[str]) -> tuple[str, ...]:
    """Returns words that seem to mean the same: by their capitals, or as answers such as 1 and yes.

    >>> find_variants(["Yes", "no", "YES"]), find_variants(["0", "yes", "no"]), find_variants(["a", "b"])
    (('YES', 'Yes'), ('0', 'no'), ())
    """
    same: dict[str, list[str]] = {}
    for word in sorted(words):
        key = word.casefold()
        answer = next((min(answers) for answers in _ANSWERS if key in answers), None)
        same.setdefault(key if answer is None or len(words) > 8 else answer, []).append(word)
    return next((tuple(own) for own in same.values() if len(own) > 1), ())


def find_gap_codes(words: Collection[str]) -> tuple[str, ...]:
    """Returns numbers such as -999 that lie far from the others of a column, as they are written.

    >>> find_gap_codes(["-999", "3", "5", "8"]), find_gap_codes(["99", "97", "98", "100"])
    (('-999',), ())
    """
    numbers = {word: float(word) for word in words}
    found = []
    for word, number in numbers.items():
        others = [one for one in numbers.values() if one not in GAP_CODES]
        if number not in GAP_CODES or len(others) < 3:
            continue
        low, high = min(others), max(others)
        is_far = max(low - number, number - high) > high - low
        if is_far or number < 0 <= low:
            found.append(word)
    return tuple(sorted(found))
