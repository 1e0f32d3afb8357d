"""Checks of settings that several models share."""

import math
from collections.abc import Iterable

from hanse.core import InvalidInput, check_count, nearest

__all__ = ["check_class_weights", "check_dtype", "check_num_weights", "check_sizes"]

DTYPES = ("float32", "float64")


def check_dtype(dtype: str) -> None:
    """Checks that models compute in this dtype. Raises: InvalidInput: if they do not."""
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype is {dtype!r}; {nearest(dtype, DTYPES)}")


def check_sizes(whose: str, **sizes: int) -> None:
    """Checks that sizes are at least 1. Raises: InvalidInput: if one of them is not."""
    for name, size in sizes.items():
        check_count(f"{whose}: {name}", size)


def check_class_weights(weights: Iterable[float] | None) -> tuple[float, ...] | None:
    """Returns the weights of classes as a tuple. Raises: InvalidInput: if they are no weights."""
    if weights is None:
        return None
    found = tuple(map(float, weights))
    if not all(0 <= weight < math.inf for weight in found) or not any(found):
        raise InvalidInput(
            f"class_weights are {found}; write a finite number of at least 0 for each class, one of them "
            "above 0"
        )
    return found


def check_num_weights(weights: tuple[float, ...] | None, num_classes: int | None) -> tuple[float, ...] | None:
    """Returns weights for so many classes. Raises: InvalidInput: if there are more or fewer than classes."""
    if weights is None:
        return None
    if num_classes is None:
        raise InvalidInput(
            "class_weights weigh examples by their class, and the labels are not one class a row; "
            "leave them out"
        )
    if len(weights) != num_classes:
        raise InvalidInput(
            f"class_weights are {len(weights)} numbers, {weights}, for {num_classes} classes; write one for "
            f"each of the classes 0 to {num_classes - 1}"
        )
    return weights
