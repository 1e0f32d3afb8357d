"""Separators within numbers: the decimal point, and the mark between groups of three digits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from hanse.core import InvalidInput

__all__ = ["Separators", "choose_separators", "classify"]

SPACES = " \u00a0\u2009\u202f"
"""Characters that spreadsheets put between groups of digits; all of them are meant by a space."""

Remedy: TypeAlias = tuple[str, Mapping[str, str]]
"""The end of a message, and the settings that it names."""

THOUSANDS = (",", ".", " ", "'", "\u2019")

_KINDS = tuple(
    (kind, re.compile(r"[+-]?" + pattern))
    for kind, pattern in (
        ("1,234", r"[1-9]\d{0,2},\d{3}"),
        ("1,234.5", r"[1-9]\d{0,2}(,\d{3})+\.\d*|[1-9]\d{0,2}(,\d{3}){2,}"),
        ("1.234,5", r"[1-9]\d{0,2}(\.\d{3})+,\d*|[1-9]\d{0,2}(\.\d{3}){2,}"),
        ("1.234", r"[1-9]\d{0,2}\.\d{3}"),
        ("3,5", r"\d*,\d+|\d+,"),
        ("1 234,5", rf"[1-9]\d{{0,2}}([{SPACES}]\d{{3}})+,\d*"),
        ("1 234", rf"[1-9]\d{{0,2}}([{SPACES}]\d{{3}})+(\.\d*)?"),
        ("1'234", r"[1-9]\d{0,2}('\d{3})+(\.\d*)?"),
        ("1\u2019234", r"[1-9]\d{0,2}(\u2019\d{3})+(\.\d*)?"),
    )
)


def classify(word: str) -> str | None:
    """Returns an example of numbers with the same separators; None if a word is no number with separators.

    >>> classify("12,5"), classify("12,345"), classify("-7 000"), classify("<5")
    ('3,5', '1,234', '1 234', None)
    """
    if word[:1] not in "+-,0123456789" or not word:
        return None
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(word)), None)


@dataclass(frozen=True)
class Separators:
    """The marks that a file has within numbers.

    Args:
      decimal: "." or ",".
      thousands: the mark between groups of three digits, or None.
    Raises: InvalidInput: if they can't be used.
    """

    decimal: str = "."
    thousands: str | None = None

    def __post_init__(self) -> None:
        if self.decimal not in (".", ","):
            raise InvalidInput(f'decimal is {self.decimal!r}; write "." or ","')
        if self.thousands is None:
            return
        if self.thousands not in THOUSANDS:
            raise InvalidInput(
                f"thousands is {self.thousands!r}; write one of {', '.join(map(repr, THOUSANDS))}"
            )
        if self.thousands == self.decimal:
            other = "," if self.decimal == "." else "."
            raise InvalidInput(
                f"decimal and thousands are both {self.decimal!r}; write also decimal = {other!r}, or another"
            )

    @property
    def are_plain(self) -> bool:
        """Whether numbers are written as Python writes them."""
        return self.decimal == "." and self.thousands is None

    @cached_property
    def _grouped(self) -> re.Pattern[str]:
        marks = SPACES if self.thousands == " " else self.thousands or ""
        return re.compile(rf"[+-]?\d{{1,3}}([{re.escape(marks)}]\d{{3}})+({re.escape(self.decimal)}\d*)?")

    def to_plain(self, word: str) -> str | None:
        """Returns a number as Python writes it; None if other marks are in the word.

        >>> Separators(",", ".").to_plain("1.234,5"), Separators(",").to_plain("1.234")
        ('1234.5', None)
        """
        if self.are_plain:
            return word
        if self.thousands is not None and self._grouped.fullmatch(word):
            whole, _, decimals = word.partition(self.decimal)
            digits = re.sub(r"[^\d+-]", "", whole)
            return f"{digits}.{decimals}"
        if self.decimal == ",":
            return None if "." in word else word.replace(",", ".")
        return word


def choose_separators(
    marks: Mapping[str, int],
    everywhere: Mapping[str, int],
    now: Separators,
    delimiter: str,
    has_decimals: bool,
) -> Remedy | None:
    """Returns the end of a message, and the settings in it that read a column right.

    Args:
      marks: the number of the column's words by `classify`.
      everywhere: the same of all columns of the file.
      now: the separators that the file was read with.
      delimiter: of the file's cells.
      has_decimals: whether numbers with a decimal point were read somewhere in the file.

    Returns: None if no setting reads all words. There are no settings if the owner has to choose.
    """
    kinds = {kind for kind, count in marks.items() if count and kind != "point"}
    if now.decimal == ",":
        return _say(thousands=".") if kinds <= {"1.234", "1.234,5"} and now.thousands is None else None
    if now.thousands is not None:
        return None
    if "point" not in {kind for kind, count in marks.items() if count}:
        if kinds <= {"3,5", "1,234"} and "3,5" in kinds:
            return _say(decimal=",")
        if kinds <= {"3,5", "1.234,5", "1,234"} and "1.234,5" in kinds:
            return _say(decimal=",", thousands=".")
        if kinds <= {"1 234,5", "1 234", "3,5"} and "1 234,5" in kinds:
            return _say(decimal=",", thousands=" ")
    if kinds <= {"1,234", "1,234.5"} and "1,234.5" in kinds:
        return _say(thousands=",")
    for kind, mark in (("1 234", " "), ("1'234", "'"), ("1\u2019234", "\u2019")):
        if kinds == {kind}:
            return _say(thousands=mark)
    return _settle(everywhere, delimiter, has_decimals) if kinds == {"1,234"} else None


def _settle(everywhere: Mapping[str, int], delimiter: str, has_decimals: bool) -> Remedy:
    """Chooses what the comma in numbers such as 1,234 is by the other numbers of the file, if they tell."""
    commas = any(everywhere.get(kind, 0) for kind in ("3,5", "1.234,5", "1 234,5"))
    points = has_decimals or everywhere.get("1,234.5", 0) > 0
    if commas and not points:
        return _say(decimal=",")
    if points and not commas:
        return _say(thousands=",")
    if not commas and delimiter == ",":
        message, settings = _say(thousands=",")
        return f"{message}: 1,234 is 1234 then. If it is 1.234, write it with a point", settings
    message = (
        "whether 1,234 is 1234 or 1.234 can't be told: set thousands to the comma in the first case, and "
        "decimal to the comma in the second"
    )
    return message, {}


def _say(**settings: str) -> Remedy:
    return "write " + " and ".join(f'{name} = "{mark}"' for name, mark in settings.items()), settings
