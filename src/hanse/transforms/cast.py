"""Shorter floating point numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from hanse.core import (
    Array,
    ClientKeys,
    InvalidInput,
    Key,
    Keys,
    Memory,
    MessageError,
    Part,
    Parts,
    Plan,
    Spec,
    Stage,
    Tensors,
    TensorSpec,
    Transform,
    nearest,
    value,
)
from hanse.transforms.numbers import RealTensors

__all__ = ["cast"]


@dataclass(frozen=True)
class _Format:
    """A stored form of numbers, and the conversions from float32 to it and back."""

    stored: str
    shorten: Callable[[Array], Array]
    widen: Callable[[Array], Array]


def _to_float16(x: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(np.float16)


def _to_bfloat16(x: Array) -> Array:
    """Returns the upper half of a float32, rounded to the nearest, ties to even. NaN stays NaN."""
    words = np.asarray(x, order="C").view(np.uint32)
    odd = (words >> np.uint32(16)) & np.uint32(1)
    rounded = ((words + (odd + np.uint32(0x7FFF))) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


def _from_bfloat16(x: Array) -> Array:
    return np.asarray(x.astype(np.uint32) << np.uint32(16)).view(np.float32)


_FORMATS: Mapping[str, _Format] = {
    "bfloat16": _Format("uint16", _to_bfloat16, _from_bfloat16),
    "float16": _Format("float16", _to_float16, lambda x: x.astype(np.float32)),
}


@value
class cast(Transform):
    """Sends shorter floating point numbers, rounded to the nearest.

        |x̂ - x| <= 2^-8 |x| for "bfloat16", 2^-11 |x| for "float16" (from 6e-5 to 65504)

    Numbers beyond the format's largest become infinite, and the server refuses the message.

    Args:
      dtype: "bfloat16" (the range of float32, 8 bits of precision) or "float16" (11 bits).
    Runs at: client (encode), server (open).
    Reveals: every contribution to the server.
    Spec: real or sparse -> coded, same names and shapes; not summable; no l2_bound.
    Raises: CompositionError: if given values that are neither real nor sparse, or of no fixed shape.
    References: IEEE 754-2019 (binary16); Kalamkar et al., "A study of bfloat16 for deep learning
      training", 2019, arXiv 1905.12322.

    >>> stage = cast("bfloat16")(Spec.of({"w": np.zeros(2)}))
    >>> keys = Keys.from_seed(0)
    >>> sent, _ = stage.encode(None, Part({"w": np.array([1.0, 1 / 3])}), {}, keys)
    >>> sent.values["w"].nbytes, stage.open(None, sent, keys.public).values["w"]
    (4, array([1.        , 0.33398438]))
    """

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in _FORMATS:
            raise InvalidInput(f"cast({self.dtype!r}): {nearest(self.dtype, _FORMATS)}")

    @property
    def effect(self) -> str:
        return f"rounded to {self.dtype}"

    def __call__(self, spec: Spec) -> Stage:
        numbers = RealTensors.of(self, spec, "real", "sparse")
        form = _FORMATS[self.dtype]
        coded = {n: TensorSpec(t.shape, form.stored) for n, t in numbers.real.items()} | dict(numbers.rest)

        def shorten(values: Tensors) -> Tensors:
            short = {n: form.shorten(values[n].astype(np.float32, copy=False)) for n in numbers.real}
            return {**values, **short}

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            return replace(part, values=shorten(part.values)), memory

        def encode_many(plan: Plan, parts: Parts, keys: ClientKeys) -> Parts:
            return replace(parts, values=shorten(parts.values))

        def open(plan: Plan, part: Part, client_key: Key) -> Part:
            values: dict[str, Array] = dict(part.values)
            for name, tensor in numbers.real.items():
                values[name] = form.widen(values[name]).astype(tensor.dtype, copy=False)
                if not np.isfinite(values[name]).all():
                    raise MessageError(f"{name!r} has values that are not finite, or beyond {self.dtype}")
            return replace(part, values=values)

        return Stage(
            Spec(coded, kind="coded", summable=False), encode=encode, encode_many=encode_many, open=open
        )
