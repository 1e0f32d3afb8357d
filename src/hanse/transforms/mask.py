"""Structured updates: training inside a random sparse pattern."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hanse.core import Array, Key, Space, Spec, Stage, Tensors, Transform, value
from hanse.transforms.draws import DrawScope, drawn_stage, per_client
from hanse.transforms.numbers import Fixed, RealTensors, fix_shapes
from hanse.transforms.positions import Positions, check_share

__all__ = ["random_mask"]


@dataclass(frozen=True)
class _Coordinates(Space):
    """A space of updates that are zero except at the kept positions of each flattened tensor."""

    positions: Positions
    kept: Mapping[str, Array]
    out: Mapping[str, Fixed]

    def zero(self) -> Tensors:
        return {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in self.out.items()}

    def expand(self, coordinates: Tensors) -> Tensors:
        return self.positions.scatter(self.kept, coordinates)

    def pullback(self, gradient: Tensors) -> Tensors:
        return self.positions.gather(self.kept, gradient)


@value
class random_mask(Transform):
    """Clients train only a random share of each tensor's entries.

    Only their values are sent; the positions follow from a key. The mean over clients of masked updates is
    an estimate of `fraction` times the full one.

    Args:
      fraction: of each tensor's entries that are trained, above 0 and at most 1; at least one entry.
      drawn: `per_client()`, anew for each ticket; `per_round()` lets all clients train the same entries, so
        that what they send can be summed.
    Runs at: client (within), server (open; drawn per round: decode).
    Reveals: every contribution to the server; drawn per round, what the reducer reveals of the kept entries.
    Spec: real[d] -> real[ceil(fraction d)]; l2_bound unchanged; summable if drawn per round.
    Raises: CompositionError: if given values that are not real, or of no fixed shape.
    References: Konecny et al., "Federated learning: strategies for improving communication efficiency",
      2016, arXiv 1610.05492, section 2 (random mask).

    >>> stage = random_mask(0.5)(Spec.of({"w": np.zeros(6)}))
    >>> stage.within(None, Key.from_seed(0)).expand({"w": np.ones(3)})["w"]
    array([0., 1., 1., 1., 0., 0.])
    """

    fraction: float
    drawn: DrawScope = per_client()

    def __post_init__(self) -> None:
        check_share("random_mask", self.fraction)

    @property
    def effect(self) -> str:
        return f"trained at a random {100 * self.fraction:g} % of its positions"

    def __call__(self, spec: Spec) -> Stage:
        positions = Positions(self.fraction, RealTensors.of(self, spec, "real"))
        coordinates = fix_shapes(self, positions.out)

        def within(key: Key) -> Space:
            return _Coordinates(positions, positions.draw(key), coordinates)

        def undo(key: Key, values: Tensors) -> Tensors:
            return positions.scatter(positions.draw(key), values)

        return drawn_stage(self.drawn, spec, positions.out, undo, within=within, l2_bound=spec.l2_bound)
