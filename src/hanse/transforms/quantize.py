"""Sketched updates: probabilistic quantisation."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hanse.core.chain import Plan, Stage, Transform
from hanse.core.errors import CompositionError, InvalidInput, MessageError
from hanse.core.keys import Key, Keys
from hanse.core.spec import Spec, TensorSpec
from hanse.core.tensors import Array, Tensors
from hanse.core.values import value
from hanse.core.work import Memory, Part

__all__ = ["quantize"]


@value
class quantize(Transform):
    """Rounds each entry at random to one of 2^bits even levels between its tensor's least and largest value.

        E[x̂] = x

    Levels are packed into bytes; each client sends its own scales, so the server opens every message.

    Args:
      bits: of each entry, 1, 2, 4 or 8.
    Runs at: client (encode), server (open).
    Reveals: every contribution to the server.
    Spec: real -> coded, not summable.
    Raises: CompositionError: if given values that are not real, or of no fixed shape.
    References: Konecny et al., "Federated learning: strategies for improving communication efficiency",
      2016, arXiv 1610.05492, section 3 (probabilistic quantization).
    """

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in (1, 2, 4, 8):
            raise InvalidInput(f"quantize({self.bits}): write 1, 2, 4 or 8 bits")

    def __call__(self, spec: Spec) -> Stage:
        if spec.kind != "real" or any(tensor.num_values is None for tensor in spec.tensors.values()):
            raise CompositionError(f"{self} needs real tensors of fixed shapes, not {spec.kind} ones")
        sizes = {name: tensor.num_values or 0 for name, tensor in spec.tensors.items()}
        coded = {
            f"{name}.{field}": tensor
            for name, size in sizes.items()
            for field, tensor in (
                ("levels", TensorSpec((-(-size * self.bits // 8),), "uint8")),
                ("range", TensorSpec((2,), spec.tensors[name].dtype)),
            )
        }

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            values: dict[str, Array] = {}
            for name, x in part.values.items():
                levels, scale = _levels(x, self.bits, keys.public.fold(name))
                values[f"{name}.levels"], values[f"{name}.range"] = _pack(levels, self.bits), scale
            return replace(part, values=values), memory

        def open(plan: Plan, part: Part, client_key: Key) -> Part:
            return replace(part, values=_restored(part.values, spec.tensors, self.bits))

        return Stage(Spec(coded, kind="coded", summable=False), encode=encode, open=open)


def _levels(x: Array, bits: int, key: Key) -> tuple[Array, Array]:
    """Random levels whose expectation is x, and the range that they divide."""
    scale = np.array([x.min(), x.max()] if x.size else [0.0, 0.0], x.dtype)
    width = float(scale[1]) - float(scale[0])
    if width == 0.0:
        return np.zeros(x.size, np.uint8), scale
    top = (1 << bits) - 1
    at = (x.reshape(-1) - x.dtype.type(scale[0])) * x.dtype.type(top / width)
    draws = key.rng().random(x.size, dtype=np.float32)
    return np.clip(np.floor(at + draws), 0, top).astype(np.uint8), scale


def _pack(levels: Array, bits: int) -> Array:
    """Puts 8 / bits levels into each byte, the first into its lowest bits."""
    per_byte = 8 // bits
    padded = np.zeros(-(-levels.size // per_byte) * per_byte, np.uint8)
    padded[: levels.size] = levels
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    packed: Array = np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1)
    return packed


def _unpack(packed: Array, bits: int, size: int) -> Array:
    shifts = (np.arange(8 // bits) * bits).astype(np.uint8)
    return ((packed[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)[:size]


def _restored(values: Tensors, shapes: Mapping[str, TensorSpec], bits: int) -> Tensors:
    restored: dict[str, Array] = {}
    for name, spec in shapes.items():
        low, high = (float(v) for v in values[f"{name}.range"])
        if high < low:
            raise MessageError(f"{name!r} has the range {low} to {high}; the least value comes first")
        levels = _unpack(values[f"{name}.levels"], bits, spec.num_values or 0).astype(spec.dtype)
        step = (high - low) / ((1 << bits) - 1)
        restored[name] = (levels * levels.dtype.type(step) + levels.dtype.type(low)).reshape(spec.shape)
    return restored
