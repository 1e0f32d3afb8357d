"""Real numbers as integers modulo 2^bits, scaled so that no sum of all clients can wrap."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    Declined,
    InvalidInput,
    Part,
    RoundAbandoned,
    Spec,
    Tensors,
    value,
)

__all__ = ["Encoding", "encode_parts", "make_encoding", "split_total", "to_dtype"]

FEWEST_STEPS = 1 << 10
"""The fewest steps that the largest number must have, or what is summed is mostly rounding."""

SLACK = 1.001
"""A clipped message may be a little longer than its bound, because of rounding."""


@value
class Encoding:
    """The scale at which a part is written into a ring of integers modulo 2^bits.

    A number x of weight w is the integer nearest to w x 2^fraction_bits; it is exact if x and w are integers.
    The weight itself is the last number of a part, in steps of 2^-weight_bits.

    Args:
      spec: of the part, as its chain encodes it; of kind "ring": its integers are taken as they are.
      bits: 32 or 64.
      fraction_bits: how fine numbers are.
      weight_bits: how fine weights are.
      bound: no number is larger.
      max_weight: no weight is larger.
    """

    spec: Spec
    bits: int
    fraction_bits: int
    weight_bits: int
    bound: float
    max_weight: float

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the ring."""
        return np.dtype(f"uint{self.bits}")

    @property
    def num_values(self) -> int:
        """The number of integers of a part, the weight included."""
        return sum(tensor.num_values or 0 for tensor in self.spec.tensors.values()) + 1

    def encode(self, part: Part) -> Array:
        """Writes a part as integers modulo 2^bits. Raises: Declined: if a number is above its bound."""
        weight, is_ring = part.weight, self.spec.kind == "ring"
        if not 0 <= weight <= self.max_weight or (is_ring and weight != 1):
            raise Declined(
                f"it counts with weight {weight:g}, and the sum is scaled for weights "
                f"{'of 1' if is_ring else f'from 0 to {self.max_weight:g}'}"
            )
        whole = np.empty(self.num_values, self.dtype)
        at = 0
        for name in sorted(self.spec.tensors):
            numbers = part.values[name].reshape(-1)
            whole[at : at + numbers.size] = numbers if is_ring else self._encode(name, numbers, weight)
            at += numbers.size
        whole[at] = _to_ring(np.array(weight * 2.0**self.weight_bits), self.dtype)
        return whole

    def _encode(self, name: str, numbers: Array, weight: float) -> Array:
        largest = max(-float(numbers.min()), float(numbers.max())) if numbers.size else 0.0
        if not largest <= self.bound:
            raise Declined(
                f"a number in {name!r} is not within +-{self.bound:g}, for which the sum is scaled: write a "
                "larger max_value, or clip"
            )
        if numbers.dtype.kind in "iu" and weight == int(weight):
            return (numbers.astype(np.int64) * (int(weight) << self.fraction_bits)).astype(self.dtype)
        return _to_ring(np.multiply(numbers, weight * 2.0**self.fraction_bits, dtype=np.float64), self.dtype)

    def check_total(self, values: Mapping[str, Array], weight: float, count: int) -> None:
        """Checks that so many clients can have made a total.

        Raises: RoundAbandoned: if not, because one sent other integers than its plan allows, or the masks
          of a sum did not cancel.
        """
        if not 0 <= weight <= count * (self.max_weight + 2.0**-self.weight_bits):
            raise RoundAbandoned(
                f"the weights in the total of {count} clients add up to {weight:g}, and at most "
                f"{count * self.max_weight:g} is possible: a client sent wrong numbers"
            )
        most = count * (self.max_weight * self.bound + 2.0**-self.fraction_bits)
        for name, numbers in values.items():
            if self.spec.kind != "ring" and numbers.size and not np.abs(numbers).max() <= most:
                raise RoundAbandoned(
                    f"{name!r} in the total of {count} clients reaches {np.abs(numbers).max():g}, and at "
                    f"most {most:g} is possible: a client sent wrong numbers"
                )

    def decode(self, whole: Array) -> tuple[dict[str, Array], float]:
        """Reads the sum of parts, and the sum of their weights.

        Sums of integers are int64 if they are whole, integers of a ring stay, and others are float64.
        """
        values: dict[str, Array] = {}
        at = 0
        for name in sorted(self.spec.tensors):
            tensor = self.spec.tensors[name]
            numbers = whole[at : at + (tensor.num_values or 0)]
            at += numbers.size
            if self.spec.kind != "ring":
                numbers = _from_ring(numbers)
                whole_step = (1 << self.fraction_bits) if np.dtype(tensor.dtype).kind in "iu" else 0
                if whole_step and not (numbers % whole_step).any():
                    numbers = numbers // whole_step
                else:
                    numbers = numbers * 2.0**-self.fraction_bits
            values[name] = numbers.reshape([int(dim) for dim in tensor.shape])
        return values, float(_from_ring(whole[at : at + 1])[0]) * 2.0**-self.weight_bits


def to_dtype(spec: Spec, name: str, numbers: Array) -> Array:
    """Returns totals in the dtype of a part; totals of integers that are not whole stay float64."""
    dtype = np.dtype(spec.tensors[name].dtype)
    return numbers if dtype.kind in "iu" and numbers.dtype.kind == "f" else numbers.astype(dtype)


def _to_ring(numbers: Array, dtype: np.dtype[Any]) -> Array:
    return np.rint(numbers, out=numbers).astype(np.int64).astype(dtype)


def _from_ring(numbers: Array) -> Array:
    return numbers.view(f"int{8 * numbers.itemsize}").astype(np.int64)


def make_encoding(
    spec: Spec, bits: int, *, max_value: float | None, max_weight: float, max_clients: int
) -> Encoding:
    """Chooses the finest scale at which no sum of `max_clients` parts can wrap.

    >>> spec = Spec.of({"w": np.zeros(2, np.float32)}, l2_bound=1.0)
    >>> make_encoding(spec, 32, max_value=None, max_weight=1.0, max_clients=1000).fraction_bits
    21

    Raises: CompositionError: if nothing bounds the numbers, or if the scale would be too coarse.
    """
    if bits not in (32, 64):
        raise InvalidInput(f"bits is {bits}; write 32 or 64")
    _check_spec(spec, bits)
    if spec.kind == "ring":
        return Encoding(spec, bits, 0, 0, 0.0, 1.0)
    bounds = [bound for bound in (max_value, spec.l2_bound and SLACK * spec.l2_bound) if bound is not None]
    if not bounds:
        raise CompositionError(
            "a secure sum needs to know how large numbers may become, so that the sum can't wrap: put "
            "clip(...) into uplink, or write max_value=..."
        )
    bound = min(bounds)
    fraction_bits = _find_bits(bits, max_clients, max_weight * bound)
    whole = [name for name, tensor in spec.tensors.items() if np.dtype(tensor.dtype).kind in "iu"]
    if whole and fraction_bits < 0:
        raise CompositionError(
            f"{whole[0]!r} holds integers up to {bound:g}, which with weights up to {max_weight:g} of "
            f"{max_clients} clients do not fit into {bits} bits: write bits=64, a smaller max_value, a "
            "smaller max_weight (1 with uniform() weighting), or a smaller max_clients"
        )
    if bound * 2.0**fraction_bits < FEWEST_STEPS:
        raise CompositionError(
            f"numbers up to {bound:g} with weights up to {max_weight:g} of {max_clients} clients leave "
            f"{max(0, int(bound * 2.0**fraction_bits))} steps in {bits} bits, and {FEWEST_STEPS} are needed: "
            "write bits=64, a smaller max_weight (1 with uniform() weighting), or a tighter clip"
        )
    return Encoding(spec, bits, fraction_bits, _find_bits(bits, max_clients, max_weight), bound, max_weight)


def _check_spec(spec: Spec, bits: int) -> None:
    for name, tensor in spec.tensors.items():
        if tensor.num_values is None:
            raise CompositionError(f"a secure sum needs one fixed shape, and {name!r} has {tensor.shape}")
        if tensor.dtype == "bool":
            raise CompositionError(f"a secure sum adds numbers, but {name!r} is bool; emit it as int64")
        if spec.kind == "ring" and tensor.dtype != f"uint{bits}":
            raise CompositionError(
                f"{name!r} has integers modulo 2^{tensor.dtype.removeprefix('uint')}; write bits="
                f"{tensor.dtype.removeprefix('uint')} for the sum"
            )
    if spec.kind not in ("real", "table", "ring") or not spec.summable:
        what = spec.kind if spec.summable else "different at each client"
        raise CompositionError(
            f"a secure sum adds messages up, but these are {what}: use transforms that commute with sums "
            "(clip, a mask or rotation shared by the round)"
        )


def _find_bits(bits: int, max_clients: int, bound: float) -> int:
    """Returns the most bits of a fraction with which max_clients (bound 2^b + 1) stays below 2^(bits - 1)."""
    room = (2.0 ** (bits - 1) - 1) / max_clients - 1
    return math.floor(math.log2(room / bound))


def encode_parts(encodings: Mapping[str, Encoding], parts: Mapping[str, Part]) -> Array:
    """Writes parts side by side, in the order of their names."""
    return np.concatenate([encodings[name].encode(parts[name]) for name in sorted(encodings)])


def split_total(
    encodings: Mapping[str, Encoding], whole: Array, count: int
) -> dict[str, tuple[Tensors, float]]:
    """Reads the sum of what `encode_parts` writes: the values and the weight of each part.

    Args:
      count: the number of clients in it.

    Raises: RoundAbandoned: if so many clients can't have made it.
    """
    found: dict[str, tuple[Tensors, float]] = {}
    at = 0
    for name in sorted(encodings):
        size = encodings[name].num_values
        found[name] = encodings[name].decode(whole[at : at + size])
        encodings[name].check_total(*found[name], count)
        at += size
    return found
