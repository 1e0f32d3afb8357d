"""Clipping to a norm that follows the updates, at a price that is charged."""

import math
from dataclasses import replace

import numpy as np

from hanse.core import (
    Array,
    ClientKeys,
    CompositionError,
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
    check_below_one,
    check_positive,
    l2_norm,
    l2_norms,
    value,
)

__all__ = ["COUNT", "adaptive_clip"]

COUNT = "~not clipped"
"""The name of the tensor that says whether a client's update was short enough."""


@value
class adaptive_clip(Transform):
    """Clips updates to a norm C that follows a quantile of their norms, which the server learns with noise.

        x -> (√(1 - s) x min(1/C, 1/|x|), ±√s),   + if |x| <= C;   C <- C exp(-lr (b - quantile))

    Each message has norm 1 at most: the update in units of C, and one number that says whether it was
    short enough. The noise that follows covers both, in one vector, so its noise multiplier z is what is
    booked. The server reads b, the noised share of short ones, from the mean, and multiplies the rest by C.
    Alone, the update has the noise multiplier z_delta and the count of short ones the noise sigma_b:

        z_delta = (z⁻² - (2 sigma_b)⁻²)^(-1/2) = z / √(1 - s),   sigma_b = z / (2 √s)

    Args:
      initial: C in the first round.
      quantile: the share of updates that is not clipped.
      lr: the step by which the logarithm of C follows.
      count_fraction: s, the share of the spending (of z⁻²) that goes to the count.
    Runs at: client (encode) and server (plan, decode). Follow it with noise, and write into=fixed_mean(n)
      with the expected number of clients n, or else b is no share.
    Reveals: C, to everybody; to the server, what the reducer reveals, and who was clipped.
    Spec: real -> real and one more number, with l2_bound = 1.
    Raises: CompositionError: if given values that are not real numbers.
    References: Andrew, Thakkar, McMahan, Ramaswamy, "Differentially private learning with adaptive clipping",
      NeurIPS 2021, arXiv 1905.03871, Algorithm 1, Theorem 1.

    >>> round(adaptive_clip(count_fraction=0.01).measure_update_noise(1.0), 6)
    1.005038
    """

    initial: float = 0.1
    quantile: float = 0.5
    lr: float = 0.2
    count_fraction: float = 0.01

    def __post_init__(self) -> None:
        check_positive("initial", self.initial)
        check_positive("lr", self.lr)
        for name in ("quantile", "count_fraction"):
            check_below_one(name, getattr(self, name))
            check_positive(name, getattr(self, name))

    @property
    def effect(self) -> str:
        return f"clipped to a norm that follows the {self.quantile:g} quantile, and marked if it was shorter"

    def measure_update_noise(self, noise_multiplier: float) -> float:
        """Computes z_delta, the noise multiplier of the update alone."""
        return noise_multiplier / math.sqrt(1 - self.count_fraction)

    def measure_count_noise(self, noise_multiplier: float) -> float:
        """Computes sigma_b, the standard deviation of the noise on the number of short updates."""
        return noise_multiplier / (2 * math.sqrt(self.count_fraction))

    def __call__(self, spec: Spec) -> Stage:
        if spec.kind != "real" or any(np.dtype(t.dtype).kind != "f" for t in spec.tensors.values()):
            raise CompositionError(f"{self} needs real numbers, these are {spec.kind}: put it first")
        if COUNT in spec.tensors:
            raise CompositionError(f"{self} is there twice, or a tensor is named {COUNT!r}; leave one out")
        dtype = next(iter(spec.tensors.values())).dtype
        of_update, of_count = math.sqrt(1 - self.count_fraction), math.sqrt(self.count_fraction)

        def plan(state: float, key: Key) -> Plan:
            return state

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            if not isinstance(plan, float) or not 0 < plan < math.inf:
                raise InvalidInput(f"the server's norm to clip to is {plan!r}; it must be a number above 0")
            norm = l2_norm(part.values)
            factor = of_update / max(norm, plan)
            values = {name: _scale(array, factor) for name, array in part.values.items()}
            count = np.array(of_count if norm <= plan else -of_count, dtype)
            return replace(part, values={**values, COUNT: count}), memory

        def encode_many(plan: Plan, parts: Parts, keys: ClientKeys) -> Parts:
            norms = l2_norms(parts.values)
            factors = of_update / np.maximum(norms, plan)
            values = {
                name: _scale(v, factors.reshape(-1, *[1] * (v.ndim - 1))) for name, v in parts.values.items()
            }
            counts = np.where(norms <= plan, of_count, -of_count).astype(dtype)
            return replace(parts, values={**values, COUNT: counts})

        def decode(state: float, plan: Plan, total: Total, secret_key: Key) -> tuple[Total, float]:
            share = (float(total.values[COUNT]) / of_count + 1) / 2
            values = {
                name: _scale(array, plan / of_update) for name, array in total.values.items() if name != COUNT
            }
            return replace(total, values=values), plan * math.exp(-self.lr * (share - self.quantile))

        tensors = {**spec.tensors, COUNT: TensorSpec((), dtype)}
        out = spec.like(tensors=tensors, l2_bound=1.0)
        return Stage(
            out, init=float(self.initial), plan=plan, encode=encode, encode_many=encode_many, decode=decode
        )


def _scale(values: Array, factor: float | Array) -> Array:
    """Multiplies in float64, because the factor may be too small or large for the dtype of the values."""
    return np.asarray((values.astype(np.float64) * factor).astype(values.dtype))
