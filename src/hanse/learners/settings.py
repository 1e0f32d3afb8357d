"""Checks of settings that several models share."""

import math

from hanse.core import InvalidInput, nearest

__all__ = ["check_dtype", "check_l2", "check_sizes"]

DTYPES = ("float32", "float64")


def check_l2(l2: float) -> None:
    """Checks the strength of a regulariser. Raises: InvalidInput: if it is negative or not finite."""
    if not 0 <= l2 < math.inf:
        raise InvalidInput(f"l2 is {l2}; write a number of at least 0")


def check_dtype(dtype: str) -> None:
    """Checks that models compute in this dtype. Raises: InvalidInput: if they do not."""
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype is {dtype!r}; {nearest(dtype, DTYPES)}")


def check_sizes(whose: str, **sizes: int) -> None:
    """Checks that sizes are at least 1. Raises: InvalidInput: if one of them is not."""
    for name, size in sizes.items():
        if size < 1:
            raise InvalidInput(f"{whose}: {name} is {size}; write at least 1")
