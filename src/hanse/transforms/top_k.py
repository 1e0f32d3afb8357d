"""Sketched updates: the largest entries only."""

from dataclasses import replace

import numpy as np

from hanse.core import (
    Array,
    InvalidInput,
    Key,
    Keys,
    Memory,
    Part,
    Plan,
    Spec,
    Stage,
    TensorSpec,
    Transform,
    value,
)
from hanse.transforms.bits import pack_positions, position_bytes, unpack_positions
from hanse.transforms.draws import Redrawn
from hanse.transforms.numbers import RealTensors
from hanse.transforms.positions import check_share, num_kept
from hanse.transforms.residuals import Residual, error_feedback

__all__ = ["top_k"]


@value
class top_k(Transform):
    """Sends the k = ceil(fraction d) entries of largest magnitude of the whole message, and their positions.

        |x̂ - x|² <= (1 - k/d) |x|²

    It is biased: with `error_feedback()` the client adds what was left out to its next message. Positions
      take
    about 2 + log2(d/k) bits each. Values stay real numbers, so `quantize` or `cast` may follow.

    Args:
      fraction: of all d entries together, above 0 and at most 1; at least one entry.
      residual: `error_feedback()` or `none()`.
    Runs at: client (encode; remembers the residual), server (open).
    Reveals: every contribution to the server.
    Spec: real -> sparse, "values" with "low" and "high", the parts of their positions; not summable; no
      l2_bound.
    Raises: CompositionError: if given values that are not real, or of no fixed shape; if it is to remember
      positions that are redrawn in each round.
    References: Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018, arXiv 1809.07599,
      definition 2.1 and algorithm 1; Aji, Heafield, "Sparse communication for distributed gradient
      descent", EMNLP 2017, arXiv 1704.05021.

    >>> stage = top_k(0.4)(Spec.of({"w": np.zeros(3), "b": np.zeros(2)}))
    >>> part = Part({"w": np.array([1.0, -9.0, 2.0]), "b": np.array([7.0, 0.0])})
    >>> sent, memory = stage.encode(None, part, {}, Keys.from_seed(0))
    >>> sent.values["values"], memory["residual"]["w"]
    (array([-9.,  7.]), array([1., 0., 2.]))
    """

    fraction: float
    residual: Residual = error_feedback()

    def __post_init__(self) -> None:
        check_share("top_k", self.fraction)

    @property
    def effect(self) -> str:
        return f"its largest {100 * self.fraction:g} % of values"

    def __call__(self, spec: Spec) -> Stage:
        numbers = RealTensors.of(self, spec, "real")
        if not numbers.size:
            raise InvalidInput(f"{self} has no real entries to choose from: leave it out")
        size, k = numbers.size, num_kept(self.fraction, numbers.size)
        low, high = position_bytes(k, size)
        sparse = {
            "values": TensorSpec((k,), numbers.dtype.name),
            "low": TensorSpec((low,), "uint8"),
            "high": TensorSpec((high,), "uint8"),
            **numbers.rest_specs,
        }

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            flat = numbers.flat(part.values)
            at = _largest(flat, k)
            packed = dict(zip(("low", "high"), pack_positions(at, size), strict=True))
            return replace(
                part, values={"values": flat[at], **packed, **numbers.rest_there(part.values)}
            ), memory

        def open(plan: Plan, part: Part, client_key: Key) -> Part:
            sent = part.values
            flat = np.zeros(size, numbers.dtype)
            flat[unpack_positions(sent["low"], sent["high"], k, size)] = sent["values"]
            return replace(part, values={**numbers.split(flat), **numbers.rest_back(sent)})

        out = Redrawn.after(spec, tensors=sparse, kind="sparse", summable=False, l2_bound=None)
        return self.residual.around(self, spec, Stage(out, encode=encode, open=open))


def _largest(x: Array, k: int) -> Array:
    """Returns the positions of the k entries of largest magnitude, rising; of equal ones the first."""
    sizes = np.abs(x)
    least = np.partition(sizes, -k)[-k]
    above = np.flatnonzero(~(sizes <= least))[:k]  # NaN counts as large: the server will refuse it
    equal = np.flatnonzero(sizes == least)[: k - len(above)]
    return np.sort(np.concatenate([above, equal]))
