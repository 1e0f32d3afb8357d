"""Structured updates: training inside a random sparse pattern."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hanse.core.chain import Plan, Stage, Transform
from hanse.core.errors import CompositionError, InvalidInput
from hanse.core.keys import Key
from hanse.core.spec import Spec, TensorSpec
from hanse.core.tensors import Array, Tensors
from hanse.core.values import value
from hanse.core.work import Part, Space

__all__ = ["random_mask"]


@dataclass(frozen=True)
class _Coordinates(Space):
    """The update is zero but at the kept positions of each flattened tensor."""

    kept: Mapping[str, Array]
    full: Mapping[str, TensorSpec]

    def zero(self) -> Tensors:
        return {name: np.zeros(len(at), self.full[name].dtype) for name, at in self.kept.items()}

    def expand(self, coordinates: Tensors) -> Tensors:
        return {name: self._scatter(name, values) for name, values in coordinates.items()}

    def _scatter(self, name: str, values: Array) -> Array:
        spec = self.full[name]
        flat = np.zeros(spec.num_values or 0, values.dtype)
        flat[self.kept[name]] = values
        return flat.reshape(tuple(int(dim) for dim in spec.shape))

    def pullback(self, gradient: Tensors) -> Tensors:
        return {name: gradient[name].reshape(-1)[at] for name, at in self.kept.items()}


@value
class random_mask(Transform):
    """Each client trains only a random share of each tensor's entries, drawn anew for each ticket.

    Only their values travel; the positions follow from the ticket's key. The mean over clients of
    masked updates is an estimate of `fraction` times the full one.

    Args:
      fraction: of each tensor's entries that are trained, above 0 and at most 1; at least one entry.
    Runs at: client (within), server (open).
    Reveals: every contribution to the server.
    Spec: real[d] -> real[ceil(fraction d)], not summable: each client has its own positions.
    Raises: CompositionError: if given values that are not real, or of no fixed shape.
    References: Konecny et al., "Federated learning: strategies for improving communication efficiency",
      2016, arXiv 1610.05492, section 2 (random mask).
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise InvalidInput(f"random_mask({self.fraction}): write a fraction above 0 and at most 1")

    def __call__(self, spec: Spec) -> Stage:
        sizes = {name: tensor.num_values for name, tensor in spec.tensors.items()}
        if spec.kind != "real" or None in sizes.values():
            raise CompositionError(f"{self} needs real tensors of fixed shapes: put it first")
        num_kept = {name: max(1, int(np.ceil(self.fraction * (size or 0)))) for name, size in sizes.items()}

        def within(plan: Plan, client_key: Key) -> Space:
            kept = {
                name: np.sort(client_key.fold(name).rng().permutation(sizes[name] or 0)[:k])
                for name, k in num_kept.items()
            }
            return _Coordinates(kept, spec.tensors)

        def open(plan: Plan, part: Part, client_key: Key) -> Part:
            return replace(part, values=within(plan, client_key).expand(part.values))

        shapes = {name: TensorSpec((k,), spec.tensors[name].dtype) for name, k in num_kept.items()}
        return Stage(spec.like(tensors=shapes, summable=False), within=within, open=open)
