"""The tensors of a message that a transform changes: those of real numbers. The rest is sent unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hanse.core import Array, CompositionError, Kind, Spec, Tensors, TensorSpec, Transform

__all__ = ["Fixed", "RealTensors", "fix_shapes"]


@dataclass(frozen=True)
class Fixed:
    """One tensor of a fixed shape."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of its entries."""
        size = 1
        for dim in self.shape:
            size *= dim
        return size


def fix_shapes(transform: Transform | str, tensors: Mapping[str, TensorSpec]) -> dict[str, Fixed]:
    """Returns the fixed shapes of tensors.

    Raises: CompositionError: if a shape is bound only by the message.
    """
    shapes: dict[str, Fixed] = {}
    for name, tensor in tensors.items():
        sizes = tuple(dim for dim in tensor.shape if not isinstance(dim, str))
        if len(sizes) < len(tensor.shape):
            raise CompositionError(
                f"{transform} needs real tensors of fixed shapes, but the shape of {name!r} is "
                f"{tensor.shape}: leave it out, or send {name!r} as a part of its own"
            )
        shapes[name] = Fixed(sizes, tensor.dtype)
    return shapes


@dataclass(frozen=True)
class RealTensors:
    """The tensors that precede a transform: those of real numbers, by name, and the rest."""

    real: Mapping[str, Fixed]
    rest: Mapping[str, TensorSpec]

    @classmethod
    def of(cls, transform: Transform, spec: Spec, *kinds: Kind) -> "RealTensors":
        """Divides the tensors of `spec`, which must be of one of these kinds.

        Raises: CompositionError: if it is of another, holds no real tensor, or a shape is not fixed.
        """
        if spec.kind not in kinds:
            raise CompositionError(
                f"{transform} needs real tensors, these are {spec.kind}: put it before what made them "
                f"{spec.kind}, or leave one of the two out"
            )
        real = {n: t for n, t in spec.tensors.items() if np.dtype(t.dtype).kind == "f"}
        if spec.tensors and not real:
            dtypes = ", ".join(sorted({tensor.dtype for tensor in spec.tensors.values()}))
            raise CompositionError(f"{transform} needs real tensors, these are all {dtypes}: leave it out")
        return cls(fix_shapes(transform, real), {n: t for n, t in spec.tensors.items() if n not in real})

    @property
    def size(self) -> int:
        """The number of real numbers in all tensors."""
        return sum(tensor.size for tensor in self.real.values())

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The dtype that holds all real numbers, float32 at least."""
        return np.result_type(np.float32, *(tensor.dtype for tensor in self.real.values()))

    def flat(self, values: Tensors) -> Array:
        """Joins all real numbers in one row."""
        return np.concatenate(
            [np.zeros(0, self.dtype), *(values[name].reshape(-1) for name in self.real)], dtype=self.dtype
        )

    def split(self, flat: Array) -> dict[str, Array]:
        """Cuts one row into the tensors that `flat` joined."""
        tensors: dict[str, Array] = {}
        start = 0
        for name, tensor in self.real.items():
            own = flat[start : start + tensor.size]
            tensors[name] = own.astype(tensor.dtype, copy=False).reshape(tensor.shape)
            start += tensor.size
        return tensors

    @property
    def rest_specs(self) -> dict[str, TensorSpec]:
        """Names and shapes of the rest, beside what a transform names itself."""
        return {f"rest/{name}": tensor for name, tensor in self.rest.items()}

    def rest_there(self, values: Tensors) -> dict[str, Array]:
        """Returns the rest under the names of `rest_specs`."""
        return {f"rest/{name}": values[name] for name in self.rest}

    def rest_back(self, values: Tensors) -> dict[str, Array]:
        """Returns the rest under its own names."""
        return {name: values[f"rest/{name}"] for name in self.rest}
