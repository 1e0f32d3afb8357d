"""Named tensors, and the little arithmetic on them that algorithms need."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "WINDOW",
    "Array",
    "Tensors",
    "add",
    "add_scaled",
    "all_finite",
    "divide",
    "dot",
    "frozen",
    "held_bytes",
    "l2_norm",
    "l2_norms",
    "negate",
    "num_bytes",
    "num_infinite",
    "scale",
    "subtract",
    "sum_squares",
    "tree_map",
    "windows",
    "zeros_like",
]

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]
"""Arrays by name. Receivers never change them in place."""


def tree_map(function: Callable[..., Any], first: Tensors, *others: Tensors) -> dict[str, Array]:
    """Applies `function` name by name.

    >>> tree_map(lambda a, b: a - b, {"w": np.ones(2)}, {"w": np.ones(2)})
    {'w': array([0., 0.])}
    """
    return {
        name: np.asarray(function(value, *(other[name] for other in others))) for name, value in first.items()
    }


def add(a: Tensors, b: Tensors) -> dict[str, Array]:
    """Adds a + b, name by name."""
    return tree_map(np.add, a, b)


def subtract(a: Tensors, b: Tensors) -> dict[str, Array]:
    """Subtracts a - b, name by name."""
    return tree_map(np.subtract, a, b)


def negate(tensors: Tensors) -> dict[str, Array]:
    """Negates each tensor."""
    return tree_map(np.negative, tensors)


def scale(tensors: Tensors, factor: float) -> dict[str, Array]:
    """Multiplies each tensor by a factor, in its own dtype. A fraction turns integers into float64.

    >>> scale({"w": np.ones(2, np.float32), "count": np.array([4])}, 0.5)
    {'w': array([0.5, 0.5], dtype=float32), 'count': array([2.])}
    """

    def scale_one(values: Array) -> Any:
        whole = values.dtype.kind not in "iu" or factor == int(factor)
        return values * (values.dtype.type(factor) if whole else np.float64(factor))

    return tree_map(scale_one, tensors)


def divide(tensors: Tensors, divisor: float) -> dict[str, Array]:
    """Divides each tensor by a number, in its own dtype."""
    return tree_map(lambda v: v / v.dtype.type(divisor), tensors)


def add_scaled(a: Tensors, factor: float, b: Tensors) -> dict[str, Array]:
    """Adds a + factor * b, name by name; the factor is of the dtype of `a`.

    >>> add_scaled({"w": np.ones(2)}, -0.5, {"w": np.array([1.0, 2.0])})
    {'w': array([0.5, 0. ])}
    """
    return tree_map(lambda x, y: x + x.dtype.type(factor) * y, a, b)


def zeros_like(tensors: Tensors) -> dict[str, Array]:
    """Returns zeros of the same names, shapes and dtypes."""
    return tree_map(np.zeros_like, tensors)


def dot(a: Tensors, b: Tensors) -> float:
    """Computes the inner product over all names, summed in float64."""
    return float(sum(np.vdot(a[name].astype(np.float64), b[name]) for name in a))


def l2_norm(tensors: Tensors) -> float:
    """Computes the Euclidean norm over all names together."""
    return float(np.sqrt(sum(np.square(v, dtype=np.float64).sum() for v in tensors.values())))


def l2_norms(tensors: Tensors) -> Array:
    """Computes the norm of each client's tensors, which have a leading client axis, in the bits of `l2_norm`.

    >>> l2_norms({"w": np.array([[3.0, 4.0], [0.0, 2.0]])})
    array([5., 2.])
    """
    squares: Any = sum(map(sum_squares, tensors.values()))
    return np.asarray(np.sqrt(squares))


def sum_squares(rows: Array) -> Array:
    """Sums the squares of each row in float64. A few rows at a time, so that the squares take little memory.

    >>> sum_squares(np.array([[3, 4], [0, 2]]))
    array([25.,  4.])
    """
    flat = rows.reshape(len(rows), -1)
    step = max(1, WINDOW // max(1, flat.shape[1]))
    parts = [np.square(flat[i : i + step], dtype=np.float64).sum(1) for i in range(0, len(flat), step)]
    return np.concatenate(parts)


WINDOW = 1 << 20
"""The number of values of a large array that are processed together."""


def all_finite(tensors: Tensors) -> bool:
    """Returns whether no value is NaN or infinite."""
    return all(num_infinite(value) == 0 for value in tensors.values())


def num_infinite(array: Array) -> int:
    """Counts the values that are NaN or infinite. It takes little memory, however large the array."""
    if array.dtype.kind in "biu":
        return 0
    return sum(block.size - int(np.count_nonzero(np.isfinite(block))) for block in windows(array))


def windows(array: Array) -> Iterator[Array]:
    """Yields the values of an array, a window at a time, since a large message is on disk.

    >>> [window.shape for window in windows(np.zeros((3, WINDOW // 2)))]
    [(1048576,), (524288,)]
    """
    flat = array.reshape(-1)
    for begin in range(0, flat.size, WINDOW):
        yield flat[begin : begin + WINDOW]


def num_bytes(tensors: Tensors) -> int:
    """Counts the bytes of the values alone, uncompressed."""
    return sum([v.nbytes for v in tensors.values()])


def held_bytes(kept: object) -> int:
    """Counts the bytes of all arrays in nested mappings and tuples.

    >>> held_bytes({"control": {"w": np.ones(2)}, "rounds": 3, "pair": (np.ones(1), None)})
    24
    """
    if isinstance(kept, Mapping):
        return sum(map(held_bytes, kept.values()))
    if isinstance(kept, tuple):
        return sum(map(held_bytes, kept))
    return int(getattr(kept, "nbytes", 0))


def frozen(tensors: Tensors) -> dict[str, Array]:
    """Returns views that can't be written to, so that no client can change what the others receive."""
    views = {name: np.asarray(value).view() for name, value in tensors.items()}
    for view in views.values():
        view.flags.writeable = False
    return views
