"""Checks of settings when a value is made; each error says what to write instead."""

import math

from hanse.core.errors import InvalidInput

__all__ = ["check_below_one", "check_count", "check_fraction", "check_not_negative", "check_positive"]


def check_fraction(fraction: float) -> None:
    """Raises InvalidInput unless `fraction` is a share of the clients: above 0 and at most 1."""
    if not 0 < fraction <= 1:
        raise InvalidInput(f"fraction is {fraction}; write a share of the clients above 0 and at most 1")


def check_count(name: str, count: int) -> None:
    """Raises InvalidInput if `count` is less than 1."""
    if not count >= 1:
        raise InvalidInput(f"{name} is {count}; write at least 1")


def check_positive(name: str, number: float) -> None:
    """Raises InvalidInput unless `number` is above 0 and finite."""
    if not 0 < number < math.inf:
        raise InvalidInput(f"{name} is {number}; write a number above 0")


def check_not_negative(name: str, number: float) -> None:
    """Raises InvalidInput if `number` is negative or not finite."""
    if not 0 <= number < math.inf:
        raise InvalidInput(f"{name} is {number}; write a number of at least 0")


def check_below_one(name: str, number: float) -> None:
    """Raises InvalidInput if `number` is negative, or not below 1."""
    if not 0 <= number < 1:
        raise InvalidInput(f"{name} is {number}; write a number of at least 0 and below 1")
