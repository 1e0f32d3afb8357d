"""Gaussian noise on a total, in multiples of a small step."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    Key,
    Plan,
    Release,
    Spec,
    Stage,
    Tensors,
    Total,
    Transform,
    check_positive,
    value,
)

__all__ = ["MECHANISM", "add_gaussian", "gaussian"]

MECHANISM = "gaussian"
"""The name of this noise in the books of a run."""

GRID_BITS = 32
"""The step of the grid is the standard deviation, rounded down to a power of two, times 2^-32."""


@value
class gaussian(Transform):
    """Adds normal noise to the total, so much that it hides whether one client took part.

        total -> round(total / g) g + round(noise / g) g,   noise ~ N(0, (noise_multiplier b m)²)

    Here b is the bound that `clip` put on the norm of each message, and m says how far a message of norm 1
    moves the total: 1 / denominator for `fixed_mean(denominator)`. Total and noise are rounded to multiples
    of a step g that does not depend on the data, and added exactly, because the last bits of a sum of
    floating-point numbers would tell the total. Rounding moves two totals of d numbers apart by at most g √d;
    the standard deviation is larger by that share. The noise is drawn from the server's secret key.

    Args:
      noise_multiplier: the standard deviation of the noise, divided by how far one client can move the total.
    Runs at: server (decode).
    Reveals: to the server, what the reducer reveals; to everybody else, the noised total.
    Spec: real[d] with l2_bound -> the same, sealed: nothing may change the messages afterwards.
    Raises: CompositionError: if the messages have no bound, or one client can move the total without one.
    References: Mironov, "On significance of the least significant bits for differential privacy", CCS 2012;
      Abadi et al., "Deep learning with differential privacy", CCS 2016, arXiv 1607.00133.

    >>> from hanse.core import Spec, PartSpec, fixed_mean
    >>> from hanse.transforms import clip
    >>> spec = Spec.of({"w": np.zeros(2)})
    >>> PartSpec(spec, (clip(1.0), gaussian(2.0)), fixed_mean(10.0), max_weight=1.0).chain().releases
    (Release(mechanism='gaussian', noise_multiplier=2.0, parameters={}),)
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        check_positive("noise_multiplier", self.noise_multiplier)

    @property
    def effect(self) -> str:
        return f"the server adds noise of {self.noise_multiplier:g} times one client's reach to the total"

    def __call__(self, spec: Spec) -> Stage:
        std, _ = measure_noise(self, spec, self.noise_multiplier)

        def decode(state: Any, plan: Plan, total: Total, secret_key: Key) -> tuple[Total, Any]:
            noised = add_gaussian(total.values, std, secret_key, noise_multiplier=self.noise_multiplier)
            return replace(total, values=noised), state

        return Stage(spec.like(sealed=True), decode=decode, release=Release(MECHANISM, self.noise_multiplier))


def measure_noise(
    noise: Transform, spec: Spec, noise_multiplier: float, size: int = 0
) -> tuple[float, float]:
    """Computes the standard deviation of noise on a total of so many numbers, and the step of its grid.

    Raises: CompositionError: if it can't be calibrated to messages of this spec.
    """
    if spec.kind != "real":
        raise CompositionError(f"{noise} needs real numbers, these are {spec.kind}: put it after clip(...)")
    if spec.l2_bound is None:
        raise CompositionError(
            f"{noise} must know a bound on each message: put clip(max_norm) directly before it"
        )
    if spec.moves is None:
        raise CompositionError(
            f"{noise} must know how far one client moves the total, which a reducer with a changing "
            "divisor, or one that keeps messages apart, does not say: write "
            "into=fixed_mean(denominator), with the sampling rate times the number of clients"
        )
    return _widen(noise_multiplier * spec.l2_bound * spec.moves, noise_multiplier, size)


def _widen(std: float, noise_multiplier: float, size: int) -> tuple[float, float]:
    """Returns a standard deviation that makes up for rounding so many numbers, and the step of the grid."""
    step = 2.0 ** (math.floor(math.log2(std)) - GRID_BITS)
    return std + noise_multiplier * step * math.sqrt(size), step


def draw_noise(shape: tuple[int, ...], std: float, secret_key: Key) -> Array:
    """Draws normal noise from a secret key."""
    noise = secret_key.secret_rng().standard_normal(shape)
    noise *= std
    return noise


def add_steps(values: Array, noise: Array, step: float) -> Array:
    """Adds noise in whole steps, in float64, which holds them exactly up to 2^53. Consumes the noise."""
    np.rint(noise, out=noise)
    noise += np.rint(values.astype(np.float64) / step)
    noise *= step
    return noise.astype(values.dtype)


def add_gaussian(values: Tensors, std: float, secret_key: Key, *, noise_multiplier: float) -> Tensors:
    """Adds normal noise to tensors on a grid, by the formula of `gaussian`.

    Args:
      std: the standard deviation of the noise, before it is enlarged for the rounding.
      noise_multiplier: this divided by how far the values may move.
    """
    wide, step = _widen(std, noise_multiplier, sum(array.size for array in values.values()))
    return {
        name: add_steps(array, draw_noise(array.shape, wide / step, secret_key.fold_in(name)), step)
        for name, array in values.items()
    }
