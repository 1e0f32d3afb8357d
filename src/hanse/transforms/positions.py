"""Random positions in each tensor, and the values there."""

import math
from collections.abc import Mapping

import numpy as np

from hanse.core import Array, InvalidInput, Key, Tensors, TensorSpec
from hanse.transforms.numbers import Fixed, RealTensors

__all__ = ["Positions", "check_share", "num_kept"]


def check_share(name: str, fraction: float) -> None:
    """Raises InvalidInput unless `fraction` is a share of a tensor's entries: above 0 and at most 1."""
    if not 0 < fraction <= 1:
        raise InvalidInput(f"{name}({fraction}): write a fraction above 0 and at most 1")


def num_kept(fraction: float, size: int) -> int:
    """Returns how many of `size` entries a fraction keeps: at least one, if there is any."""
    return min(size, max(1, math.ceil(fraction * size)))


class Positions:
    """Positions in each real tensor that are drawn uniformly and without repetition."""

    def __init__(self, fraction: float, numbers: RealTensors) -> None:
        self._full: Mapping[str, Fixed] = numbers.real
        self._kept = {name: num_kept(fraction, tensor.size) for name, tensor in numbers.real.items()}
        self.out: dict[str, TensorSpec] = {
            **{name: TensorSpec((k,), numbers.real[name].dtype) for name, k in self._kept.items()},
            **numbers.rest,
        }
        self.scales = {name: self._full[name].size / k for name, k in self._kept.items() if k}

    def draw(self, key: Key) -> dict[str, Array]:
        """Draws rising positions in each flattened tensor."""
        return {
            name: np.sort(
                key.fold_in(name).rng().choice(self._full[name].size, k, replace=False, shuffle=False)
            )
            for name, k in self._kept.items()
        }

    def gather(self, at: Mapping[str, Array], values: Tensors) -> dict[str, Array]:
        """Takes the values at the positions; tensors without positions stay whole."""
        return {name: v.reshape(-1)[at[name]] if name in at else v for name, v in values.items()}

    def gather_many(self, at: Mapping[str, Array], values: Tensors) -> dict[str, Array]:
        """Takes the values at the positions from tensors with a leading client axis."""
        return {n: np.take(v.reshape(len(v), -1), at[n], 1) if n in at else v for n, v in values.items()}

    def scatter(self, at: Mapping[str, Array], values: Tensors) -> dict[str, Array]:
        """Makes tensors that hold the values at the positions and 0 elsewhere."""
        return {name: self._scatter(name, at[name], v) if name in at else v for name, v in values.items()}

    def _scatter(self, name: str, at: Array, values: Array) -> Array:
        full = np.zeros(self._full[name].size, values.dtype)
        full[at] = values
        return full.reshape(self._full[name].shape)
