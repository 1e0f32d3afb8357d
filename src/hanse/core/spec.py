"""Specs: what one client emits at a point of the chain, known before anything is computed."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from hanse.core.errors import MessageError
from hanse.core.tensors import Array, Tensors, num_infinite
from hanse.core.values import value

__all__ = ["Kind", "Spec", "TensorSpec"]

Kind: TypeAlias = Literal["real", "ring", "sparse", "table", "coded"]
"""real: numbers that can be averaged. ring: integers modulo 2^bits. sparse: indices and values.
table: counts. coded: bytes that only the stage which wrote them can read."""


@value
class TensorSpec:
    """One tensor's shape and dtype. A dimension that is a word, not a number, is bound by the message.

    All tensors of a message must agree on what a word stands for.
    """

    shape: tuple[int | str, ...]
    dtype: str

    @property
    def num_values(self) -> int | None:
        """The number of entries, or None where a dimension is a word."""
        size = 1
        for dim in self.shape:
            if isinstance(dim, str):
                return None
            size *= dim
        return size


@value
class Spec:
    """Names, shapes and dtypes of a message, and what may be done with it.

    Args:
      tensors: the shape and dtype of each name.
      kind: see `Kind`.
      summable: whether the same position means the same thing at every client, so that
        adding two messages makes sense. False e.g. where each client draws its own mask.
      l2_bound: an upper bound of the Euclidean norm over all tensors together, if one holds. The server
        refuses messages of a larger norm, where it sees single ones.
      sealed: noise was calibrated to these values: nothing after it may change them.
      max_bytes: of the values, if dimensions are words and a bound is known all the same.
      moves: how far a total moves at most, in Euclidean norm, for each unit of a part's norm, if one client
        is added or removed. Chains set it from the reducer; None: nothing bounds it.

    >>> Spec.of({"w": np.zeros((2, 3), np.float32)}).tensors["w"]
    TensorSpec(shape=(2, 3), dtype='float32')
    """

    tensors: Mapping[str, TensorSpec]
    kind: Kind = "real"
    summable: bool = True
    l2_bound: float | None = None
    sealed: bool = False
    max_bytes: int | None = None
    moves: float | None = None

    @classmethod
    def of(cls, tensors: Tensors, **changes: Any) -> "Spec":
        """Returns the spec of given tensors."""
        return cls(
            {name: TensorSpec(tuple(v.shape), v.dtype.name) for name, v in tensors.items()},
            **changes,
        )

    def like(self, **changes: Any) -> "Spec":
        """Returns the spec with some fields changed."""
        return replace(self, **changes)

    @property
    def num_bytes(self) -> int | None:
        """Bytes of the values alone, or None where a dimension is bound by the message."""
        total = 0
        for tensor in self.tensors.values():
            if tensor.num_values is None:
                return None
            total += tensor.num_values * np.dtype(tensor.dtype).itemsize
        return total

    @property
    def limit_bytes(self) -> int | None:
        """The most bytes that the values may take, or None where nothing bounds them."""
        exact = self.num_bytes
        return self.max_bytes if exact is None else exact

    def check(self, tensors: Tensors) -> None:
        """Checks tensors. Raises: MessageError: if they are not of this spec, or not finite."""
        if tensors.keys() != self.tensors.keys():
            missing, extra = (
                self.tensors.keys() - tensors.keys(),
                tensors.keys() - self.tensors.keys(),
            )
            raise MessageError(
                f"wrong names: missing {sorted(missing)}, not asked for {sorted(extra, key=str)}"
            )
        bound: dict[str, int] = {}
        for name, spec in self.tensors.items():
            _check_tensor(name, spec, tensors[name], bound)


def _check_tensor(name: str, spec: TensorSpec, array: Array, bound: dict[str, int]) -> None:
    if not isinstance(array, np.ndarray):
        raise MessageError(f"{name!r} is a {type(array).__name__}; it must be an array")
    if _name(array.dtype) != spec.dtype:
        raise MessageError(f"{name!r} has dtype {array.dtype.name}; it must have {spec.dtype}")
    fits = len(array.shape) == len(spec.shape) and all(
        bound.setdefault(due, dim) == dim if isinstance(due, str) else due == dim
        for due, dim in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise MessageError(f"{name!r} has shape {array.shape}; it must have {spec.shape}")
    if bad := num_infinite(array):
        raise MessageError(f"{name!r} is not finite: {bad} of its {array.size} values are NaN or infinite")


@lru_cache(maxsize=64)
def _name(dtype: np.dtype[Any]) -> str:
    """Returns the name of a dtype, which takes NumPy microseconds to make."""
    return dtype.name
