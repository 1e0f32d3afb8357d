"""Norm clipping."""

from dataclasses import replace
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    ClientKeys,
    CompositionError,
    InvalidInput,
    Keys,
    Memory,
    Part,
    Parts,
    Plan,
    Spec,
    Stage,
    Transform,
    l2_norm,
    l2_norms,
    tree_map,
    value,
)

__all__ = ["clip"]


@value
class clip(Transform):
    """Scales a message down to a Euclidean norm of at most `max_norm`, over all its tensors together.

        x -> x * min(1, max_norm / |x|)

    Args:
      max_norm: the bound, above 0.
    Runs at: client (encode). Commutes with sums.
    Reveals: nothing more than the reducer does.
    Spec: real -> real with l2_bound = max_norm.
    Raises: CompositionError: if given values that are not real numbers, or integers.
    References: Abadi et al., "Deep learning with differential privacy", CCS 2016, arXiv 1607.00133,
      Algorithm 1; per client: McMahan et al., ICLR 2018, arXiv 1710.06963.

    >>> from hanse.core import Keys
    >>> stage = clip(1.0)(Spec.of({"w": np.zeros(2)}))
    >>> part, _ = stage.encode(None, Part({"w": np.array([3.0, 4.0])}), {}, Keys.from_seed(0))
    >>> part.values["w"]
    array([0.6, 0.8])
    """

    max_norm: float

    def __post_init__(self) -> None:
        if not self.max_norm > 0:
            raise InvalidInput(f"clip({self.max_norm}): write a bound above 0")

    @property
    def effect(self) -> str:
        return f"clipped to norm {self.max_norm:g}"

    def __call__(self, spec: Spec) -> Stage:
        if spec.kind != "real":
            raise CompositionError(f"{self} needs real numbers, these are {spec.kind}: put it first")
        whole = [name for name, tensor in spec.tensors.items() if np.dtype(tensor.dtype).kind != "f"]
        if whole:
            raise CompositionError(
                f"{self} needs real numbers, {whole[0]!r} is {spec.tensors[whole[0]].dtype}: scaled down it "
                "would be cut off; send it as a part of its own"
            )
        bound = self.max_norm if spec.l2_bound is None else min(self.max_norm, spec.l2_bound)

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Any]:
            norm = l2_norm(part.values)
            if norm <= self.max_norm:
                return part, memory
            factor = self.max_norm / norm
            return replace(part, values=tree_map(lambda v: _scale(v, factor), part.values)), memory

        def encode_many(plan: Plan, parts: Parts, keys: ClientKeys) -> Parts | None:
            norms = l2_norms(parts.values)
            is_short = norms <= self.max_norm
            if is_short.all():
                return parts
            factors = np.where(is_short, 1.0, self.max_norm / np.where(is_short, 1.0, norms))
            if any(factors.min() < np.finfo(v.dtype).smallest_normal for v in parts.values.values()):
                return None
            return replace(
                parts,
                values={
                    name: v * factors.astype(v.dtype).reshape(-1, *[1] * (v.ndim - 1))
                    for name, v in parts.values.items()
                },
            )

        return Stage(spec.like(l2_bound=bound), encode=encode, encode_many=encode_many)


def _scale(values: Array, factor: float) -> Array:
    """Multiplies by a factor in the dtype of the values, which may be too coarse for a tiny factor."""
    if factor < np.finfo(values.dtype).smallest_normal:
        return np.asarray((values.astype(np.float64) * factor).astype(values.dtype))
    return np.asarray(values * values.dtype.type(factor))
