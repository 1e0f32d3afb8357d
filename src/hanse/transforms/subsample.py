"""Sketched updates: a random share of the entries."""

from hanse.core import Key, Spec, Stage, Tensors, Transform, value
from hanse.transforms.draws import DrawScope, drawn_stage, per_client
from hanse.transforms.numbers import RealTensors
from hanse.transforms.positions import Positions, check_share

__all__ = ["subsample"]


@value
class subsample(Transform):
    """Sends k = ceil(fraction d) of each tensor's d entries, drawn at random; the server scales them up.

        x̂ = (d/k) Pᵀ P x,   E[x̂] = x,   E|x̂ - x|² = (d/k - 1) |x|²

    The positions follow from a key and are not sent. `drawn=per_round()` lets all clients send the same
    positions: then the k sums are folded and the total is spread out, so a secure sum may carry them.
    The errors of different clients no longer average out, though.

    Args:
      fraction: of each tensor's entries, above 0 and at most 1; at least one entry.
      drawn: `per_client()` or `per_round()`.
    Runs at: client (encode), server (open; drawn per round: decode).
    Reveals: every contribution to the server; drawn per round, what the reducer reveals of the k sums.
    Spec: real[d] -> real[k]; l2_bound unchanged; summable if drawn per round.
    Raises: CompositionError: if given values that are not real, or of no fixed shape.
    References: Konecny et al., "Federated learning: strategies for improving communication efficiency",
      2016, arXiv 1610.05492, section 3 (subsampling).

    >>> import numpy as np
    >>> from hanse.core import Keys
    >>> from hanse.core import Part
    >>> stage = subsample(0.5)(Spec.of({"w": np.zeros(6)}))
    >>> keys = Keys.from_seed(0)
    >>> sent, _ = stage.encode(None, Part({"w": np.arange(6.0)}), {}, keys)
    >>> sent.values["w"], stage.open(None, sent, keys.public).values["w"]
    (array([1., 2., 3.]), array([0., 2., 4., 6., 0., 0.]))
    """

    fraction: float
    drawn: DrawScope = per_client()

    def __post_init__(self) -> None:
        check_share("subsample", self.fraction)

    @property
    def effect(self) -> str:
        return f"at a random {100 * self.fraction:g} % of its positions"

    def __call__(self, spec: Spec) -> Stage:
        positions = Positions(self.fraction, RealTensors.of(self, spec, "real"))

        def encode(key: Key, values: Tensors) -> Tensors:
            return positions.gather(positions.draw(key), values)

        def encode_many(key: Key, values: Tensors) -> Tensors:
            return positions.gather_many(positions.draw(key), values)

        def undo(key: Key, values: Tensors) -> Tensors:
            scales = positions.scales
            scaled = {n: v * v.dtype.type(scales[n]) if n in scales else v for n, v in values.items()}
            return positions.scatter(positions.draw(key), scaled)

        return drawn_stage(
            self.drawn,
            spec,
            positions.out,
            undo,
            encode=encode,
            encode_many=encode_many,
            l2_bound=spec.l2_bound,
        )
