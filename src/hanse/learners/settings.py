"""Checks of settings that several models share."""

from hanse.core import InvalidInput, check_count, nearest

__all__ = ["check_dtype", "check_sizes"]

DTYPES = ("float32", "float64")


def check_dtype(dtype: str) -> None:
    """Checks that models compute in this dtype. Raises: InvalidInput: if they do not."""
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype is {dtype!r}; {nearest(dtype, DTYPES)}")


def check_sizes(whose: str, **sizes: int) -> None:
    """Checks that sizes are at least 1. Raises: InvalidInput: if one of them is not."""
    for name, size in sizes.items():
        check_count(f"{whose}: {name}", size)
