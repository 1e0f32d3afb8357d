"""Sketched updates: probabilistic quantisation."""

from dataclasses import replace

import numpy as np

from hanse.core import (
    Array,
    InvalidInput,
    Key,
    Keys,
    Memory,
    MessageError,
    Part,
    Plan,
    Spec,
    Stage,
    TensorSpec,
    Transform,
    value,
)
from hanse.transforms.bits import count_bytes, pack_bits, unpack_bits
from hanse.transforms.numbers import RealTensors
from hanse.transforms.ranges import Over, per_tensor

__all__ = ["quantize"]

MAX_BITS = 8


@value
class quantize(Transform):
    """Rounds each entry at random to one of 2^bits even levels between the least and the largest value.

        x̂ = low + Δ (⌊a⌋ + Bernoulli(a - ⌊a⌋)),   a = (x - low) / Δ,   Δ = (high - low) / (2^bits - 1)
        E[x̂] = x,   Var[x̂] <= Δ²/4 for each entry

    The chance is drawn in steps of 2^-16. Each client sends its own ranges, so the server opens every
    message. All levels travel in one array of bits, in Gray code: if most entries are near the middle, as
    after `rotate`, `deflate` nearly halves it.

    Args:
      bits: of each entry, 1 to 8.
      over: which entries share a range: `per_tensor()` or `per_block(size)`.
    Runs at: client (encode), server (open).
    Reveals: every contribution to the server.
    Spec: real or sparse -> coded, "levels" and "ranges"; not summable; no l2_bound.
    Raises: CompositionError: if given values that are neither real nor sparse, or of no fixed shape.
    References: Konecny et al., "Federated learning: strategies for improving communication efficiency",
      2016, arXiv 1610.05492, section 3 (probabilistic quantization); Suresh et al., "Distributed mean
      estimation with limited communication", ICML 2017, arXiv 1611.00429, section 2.2 (its variance).

    >>> stage = quantize(2)(Spec.of({"w": np.zeros(4)}))
    >>> keys = Keys.from_seed(0)
    >>> sent, _ = stage.encode(None, Part({"w": np.array([0.0, 1.0, 2.0, 3.0])}), {}, keys)
    >>> sent.values["levels"].nbytes, stage.open(None, sent, keys.public).values["w"]
    (1, array([0., 1., 2., 3.]))
    """

    bits: int
    over: Over = per_tensor()

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 1 <= self.bits <= MAX_BITS:
            raise InvalidInput(f"quantize({self.bits}): write 1 to {MAX_BITS} bits")

    @property
    def effect(self) -> str:
        return f"in {self.bits} bits a number"

    def __call__(self, spec: Spec) -> Stage:
        numbers = RealTensors.of(self, spec, "real", "sparse")
        num_ranges = sum(self.over.num_rows(tensor.size) for tensor in numbers.real.values())
        coded = {
            "levels": TensorSpec((count_bytes(numbers.size, self.bits),), "uint8"),
            "ranges": TensorSpec((num_ranges, 2), numbers.dtype.name),
            **numbers.rest_specs,
        }

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            levels = np.empty(numbers.size, np.uint8)
            ranges = np.empty((num_ranges, 2), numbers.dtype)
            draws = _draws(keys.public, numbers.size)
            start = first = 0
            for name in numbers.real:
                for rows in self.over.rows(part.values[name].reshape(-1)):
                    end, last = start + rows.size, first + len(rows)
                    own = ranges[first:last]
                    own[:, 0], own[:, 1] = rows.min(1), rows.max(1)
                    levels[start:end] = _levels(rows, own, draws[start:end], self.bits)
                    start, first = end, last
            packed = pack_bits(levels ^ (levels >> np.uint8(1)), self.bits)
            sent = {"levels": packed, "ranges": ranges, **numbers.rest_there(part.values)}
            return replace(part, values=sent), memory

        def open(plan: Plan, part: Part, client_key: Key) -> Part:
            ranges = part.values["ranges"]
            steps = _steps(ranges, self.bits)
            levels = _from_gray(unpack_bits(part.values["levels"], self.bits, numbers.size))
            tensors: dict[str, Array] = {}
            start = first = 0
            for name, tensor in numbers.real.items():
                flat = levels[start : start + tensor.size].astype(numbers.dtype)
                for rows in self.over.rows(flat):
                    last = first + len(rows)
                    rows *= steps[first:last]
                    rows += ranges[first:last, :1]
                    np.minimum(rows, ranges[first:last, 1:], out=rows)  # rounding must not leave the range
                    first = last
                tensors[name] = flat.astype(tensor.dtype, copy=False).reshape(tensor.shape)
                start += tensor.size
            return replace(part, values={**tensors, **numbers.rest_back(part.values)})

        return Stage(Spec(coded, kind="coded", summable=False), encode=encode, open=open)


def _draws(key: Key, size: int) -> Array:
    """Draws random 16-bit numbers: a float for each entry would take longer than all the rest."""
    words = key.rng().integers(0, 2**64, -(-size // 4), np.uint64)
    return words.view(np.uint16)[:size]


@np.errstate(over="ignore", invalid="ignore")  # a range that is not finite is refused by the server
def _levels(rows: Array, ranges: Array, draws: Array, bits: int) -> Array:
    """Draws levels whose expectations are the entries, to 2^-16 of a step."""
    low, width = ranges[:, :1], ranges[:, 1:] - ranges[:, :1]
    at = rows - low
    at /= np.where(width > 0, width, width.dtype.type(1))
    at *= width.dtype.type(((1 << bits) - 1) << 16)
    at += width.dtype.type(0.5)
    fixed: Array = at.astype(np.int32).reshape(-1)
    fixed += draws
    fixed >>= 16
    return fixed


def _steps(ranges: Array, bits: int) -> Array:
    """Returns the distance from one level to the next, in a column."""
    with np.errstate(over="ignore", invalid="ignore"):
        widths = ranges[:, 1:] - ranges[:, :1]
    if not (np.isfinite(widths) & (widths >= 0)).all():
        wrong = ranges[np.flatnonzero(~(np.isfinite(widths) & (widths >= 0)))[0]]
        raise MessageError(
            f"the range {wrong[0]} to {wrong[1]}; both ends and their difference must be finite, the least "
            "first"
        )
    steps: Array = widths / widths.dtype.type((1 << bits) - 1)
    return steps


def _from_gray(levels: Array) -> Array:
    for shift in (1, 2, 4):
        levels ^= levels >> np.uint8(shift)
    return levels
