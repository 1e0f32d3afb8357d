"""The memory of a client between rounds, for a training function of the user's own."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hanse.core import Array, InvalidInput, Lent, value

__all__ = ["give", "keep", "kept_list", "kept_tensor"]


@value
class kept_tensor:
    """A tensor of the engine in a client's memory."""

    values: Array


@value
class kept_list:
    """A list in a client's memory."""

    items: tuple[Any, ...]


def keep(obj: Any, lent: Lent, path: str) -> Any:
    """Converts what a function leaves in its memory to values. See `give`."""
    if obj is None or type(obj) in (bool, int, float, str, bytes):
        return obj
    if isinstance(obj, np.ndarray | np.generic):
        return np.array(obj)
    if isinstance(obj, list | tuple):
        items = tuple(keep(item, lent, f"{path}/{i}") for i, item in enumerate(obj))
        return kept_list(items) if isinstance(obj, list) else items
    if isinstance(obj, Mapping):
        return {key: keep(item, lent, f"{path}/{key}") for key, item in obj.items()}
    array = lent.to_array(obj)
    if array is None:
        raise InvalidInput(
            f"memory[{path!r}] is a {type(obj).__name__}, which can't be kept; keep numbers, strings, "
            "arrays, and lists and dictionaries of these, such as optimiser.state_dict()"
        )
    return kept_tensor(array)


def give(obj: Any, lent: Lent) -> Any:
    """Converts values of a memory to what the function had left there, in copies that it may change."""
    if isinstance(obj, kept_tensor):
        return lent.to_tensor(np.array(obj.values))
    if isinstance(obj, kept_list):
        return [give(item, lent) for item in obj.items]
    if isinstance(obj, tuple):
        return tuple(give(item, lent) for item in obj)
    if isinstance(obj, Mapping):
        return {key: give(item, lent) for key, item in obj.items()}
    return np.array(obj) if isinstance(obj, np.ndarray) else obj
