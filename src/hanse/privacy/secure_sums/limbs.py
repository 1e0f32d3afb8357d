"""Large numbers in several limbs, each small enough for the integers of a secure sum."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from hanse.core import (
    Array,
    ClientKeys,
    CompositionError,
    Declined,
    InvalidInput,
    Key,
    Keys,
    Memory,
    Part,
    Parts,
    Plan,
    Spec,
    Stage,
    TensorSpec,
    Total,
    Transform,
    value,
)

__all__ = ["limbs"]


@value
class limbs(Transform):
    """Writes each real number as several limbs, so that large numbers fit into a sum of bounded ones.

        x = x_0 + x_1 B + x_2 B² + ...,   B = 2^bits,   |x_0|, |x_1|, ... <= B/2

    Each limb is exact, and so is their sum at one client. Limbs of several clients are added up one by one.

    Args:
      bits: of a limb.
      count: the limbs of a number.
    Runs at: client (encode), server (decode).
    Reveals: nothing more than the reducer does.
    Spec: real -> real, with a last axis for the limbs; no l2_bound; summable if it was.
    Raises: CompositionError: if given values that are not real numbers of double precision.
    References: Knuth, The Art of Computer Programming, volume 2, section 4.1 (balanced number systems).

    >>> stage = limbs(bits=4, count=2)(Spec.of({"w": np.zeros(2)}))
    >>> stage.encode(None, Part({"w": np.array([39.25, -13.0])}), {}, Keys.from_seed(0))[0].values["w"]
    array([[ 7.25,  2.  ],
           [ 3.  , -1.  ]])
    """

    is_setting: ClassVar[bool] = False

    bits: int = 30
    count: int = 3

    def __post_init__(self) -> None:
        if not (1 <= self.bits <= 30 and 1 <= self.count <= 30):
            raise InvalidInput(f"limbs(bits={self.bits}, count={self.count}): write 1 to 30 for each")

    @property
    def effect(self) -> str:
        return f"written as {self.count} numbers each"

    def __call__(self, spec: Spec) -> Stage:
        other = [name for name, tensor in spec.tensors.items() if tensor.dtype != "float64"]
        if spec.kind != "real" or other:
            raise CompositionError(
                f"{self} needs real numbers of type float64, and these are {spec.kind}"
                + (f", with {other[0]!r} of another type" if other else "")
            )

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            return replace(part, values=self._split_all(part.values)), memory

        def encode_many(plan: Plan, parts: Parts, keys: ClientKeys) -> Parts:
            return replace(parts, values=self._split_all(parts.values))

        def decode(state: object, plan: Plan, total: Total, secret_key: Key) -> tuple[Total, object]:
            scales = 2.0 ** (self.bits * np.arange(self.count))
            joined = {name: np.asarray((limb * scales)[..., ::-1].sum(axis=-1))
                      for name, limb in total.values.items()}  # fmt: skip
            return replace(total, values=joined), state

        out = {name: TensorSpec((*one.shape, self.count), one.dtype) for name, one in spec.tensors.items()}
        return Stage(
            spec.like(tensors=out, l2_bound=None), encode=encode, encode_many=encode_many, decode=decode
        )

    def _split_all(self, values: Mapping[str, Array]) -> dict[str, Array]:
        return {name: self._split(name, numbers) for name, numbers in values.items()}

    def _split(self, name: str, numbers: Array) -> Array:
        """Splits numbers into limbs, from the smallest. Raises: Declined: if one of them is too large."""
        base, found, left = 2.0**self.bits, [], np.asarray(numbers, np.float64)
        for _ in range(self.count - 1):
            above = np.rint(left / base)
            found.append(left - above * base)
            left = above
        most = base ** (self.count - 1) * base / 2
        if left.size and not np.abs(left).max() <= base / 2:
            raise Declined(
                f"a number in {name!r} is above {most:.3g}, the most that {self} can write: give the numbers "
                "in a larger unit, such as millions"
            )
        return np.stack([*found, left], axis=-1)
