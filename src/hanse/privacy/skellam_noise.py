"""Skellam noise: each client adds a share, and only the sum of enough of them protects all.

References: Agarwal, Kairouz, Liu, "The Skellam mechanism for differentially private federated learning",
NeurIPS 2021, arXiv 2110.04995 (the mechanism, theorem 3.5: its Rényi divergence); Kairouz, Liu, Steinke, "The
distributed discrete Gaussian mechanism for federated learning with secure aggregation", ICML 2021, arXiv
2102.06387 (conditional rounding, proposition 22); Hörmann, "The transformed rejection method for generating
Poisson random variables", Insurance: Mathematics and Economics 1993.
"""

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    Declined,
    InvalidInput,
    Key,
    Keys,
    Memory,
    Part,
    Plan,
    Release,
    Spec,
    Stage,
    TensorSpec,
    Total,
    Transform,
    check_positive,
    value,
)

__all__ = ["SKELLAM", "bound_divergence", "bound_norms", "draw_skellam", "round_within", "skellam"]

SKELLAM = "skellam"
"""The name of this noise in the books of a run."""

BETA = math.exp(-0.5)
"""A bound on the probability that a rounding is too long, and is drawn again."""

MOST_TRIES = 1000


@value
class skellam(Transform):
    """Adds a share of noise at each client, so that a sum that hides single messages is private.

        x -> round(s x) + noise,   noise ~ Poisson(v/2) - Poisson(v/2),   v = (noise_multiplier r)² / honest
        total -> total / (s denominator)

    Rounding is random, up or down, and repeated until the norm is at most r, which is about s times the bound
    of `clip`. The noise of `honest` clients has a standard deviation of noise_multiplier times r. Sums
    are taken modulo 2^bits, which changes nothing as long as no sum is longer. `rotate()` before it spreads a
    message evenly, so that no single number is large.

    It protects against the server, too, as long as `honest` of the clients in a total, the protected one
    among them, add their noise and tell it to nobody. The reducer makes sure that so many are in a total.

    Args:
      noise_multiplier: the standard deviation of the noise of `honest` clients, divided by r.
      honest: the fewest clients in a total that add noise as they should.
      denominator: the total is divided by it; for a mean, the number of clients that are expected.
      steps: of which size numbers are: the bound of `clip` has so many. None: as many as make rounding small.
      bits: of the integers, 32 or 64.
      max_clients: the most clients in a total, so that no sum is longer than bits allow. The reducer must not
        allow more.
    Runs at: client (encode), server (decode).
    Reveals: to the server and everybody else, the noised total.
    Spec: real[d] with l2_bound -> ring[d], sealed.
    Raises: CompositionError: if messages have no bound, if sums have no room, or if the reducer lets a total
      have fewer clients than `honest`, or more than `max_clients`.
    References: Agarwal et al. 2021, arXiv 2110.04995.

    >>> from hanse.core import Keys, Spec
    >>> from hanse.transforms import clip
    >>> stage = skellam(1.0, honest=3)(Spec.of({"w": np.zeros(4)}, l2_bound=1.0))
    >>> stage.out.kind, stage.out.tensors["w"].dtype, stage.fewest
    ('ring', 'uint32', 3)
    """

    noise_multiplier: float
    honest: int
    denominator: float = 1.0
    steps: int | None = None
    bits: int = 32
    max_clients: int = 1024

    def __post_init__(self) -> None:
        check_positive("noise_multiplier", self.noise_multiplier)
        check_positive("denominator", self.denominator)
        if self.bits not in (32, 64):
            raise InvalidInput(f"bits is {self.bits}; write 32 or 64")
        if self.steps is not None and self.steps < 1:
            raise InvalidInput(f"steps is {self.steps}; write a whole number above 0")
        if not 1 <= self.honest <= self.max_clients:
            raise InvalidInput(f"honest is {self.honest}; write a number of clients, 1 to {self.max_clients}")

    @property
    def effect(self) -> str:
        return (
            f"with your share of noise; that of {self.honest} clients together is {self.noise_multiplier:g} "
            "times what one client can change"
        )

    def __call__(self, spec: Spec) -> Stage:
        if spec.kind != "real":
            raise CompositionError(
                f"{self} needs real numbers, these are {spec.kind}: put it after clip(...)"
            )
        if spec.l2_bound is None:
            raise CompositionError(f"{self} must know a bound on each message: put clip(max_norm) before it")
        sizes = [tensor.num_values for tensor in spec.tensors.values()]
        if None in sizes:
            raise CompositionError(
                f"{self} must know how many numbers there are, and these have no fixed shape"
            )
        size = int(np.sum([size or 0 for size in sizes]))
        steps = self.steps or 1 << math.ceil(math.log2(max(1024.0, 64 * math.sqrt(size))))
        scale = steps / spec.l2_bound
        norm, norm_1 = bound_norms(steps, size)
        variance = (self.noise_multiplier * norm) ** 2 / self.honest
        longest = self.max_clients * (norm + 1) + 12 * math.sqrt(self.max_clients * variance)
        if longest >= 2.0 ** (self.bits - 1):
            raise CompositionError(
                f"sums of {self.max_clients} messages of {steps} steps and their noise may be {longest:.3g}, "
                f"and integers of {self.bits} bits end at {2.0 ** (self.bits - 1):.3g}: write bits=64, fewer "
                "steps, or a smaller max_clients"
            )
        dtype = np.dtype(f"uint{self.bits}")

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            if part.weight != 1:
                raise Declined(
                    f"its part weighs {part.weight:g}, and noise hides a part of weight 1: write weighting = "
                    "uniform()"
                )
            flat = np.concatenate([part.values[name].reshape(-1) for name in spec.tensors] or [np.empty(0)])
            whole = round_within(flat.astype(np.float64) * scale, norm, keys.secret.fold_in("rounding"))
            whole += draw_skellam(variance, size, keys.secret.fold_in("noise"))
            return replace(part, values=_split(whole.astype(dtype), spec)), memory

        def decode(state: Any, plan: Plan, total: Total, secret_key: Key) -> tuple[Total, Any]:
            values = {
                name: (array.view(f"i{array.itemsize}") / (scale * self.denominator)).astype(
                    spec.tensors[name].dtype
                )
                for name, array in total.values.items()
            }
            return replace(total, values=values), state

        tensors = {name: TensorSpec(tensor.shape, dtype.name) for name, tensor in spec.tensors.items()}
        out = spec.like(tensors=tensors, kind="ring", l2_bound=None, sealed=True)
        parameters = {"norm": norm, "norm_1": norm_1, "honest": float(self.honest)}
        release = Release(SKELLAM, self.noise_multiplier, parameters)
        return Stage(
            out, encode=encode, decode=decode, release=release, fewest=self.honest, most=self.max_clients
        )


def _split(flat: Array, spec: Spec) -> dict[str, Array]:
    values, at = dict[str, Array](), 0
    for name, tensor in spec.tensors.items():
        end = at + (tensor.num_values or 0)
        values[name] = flat[at:end].reshape([int(dim) for dim in tensor.shape])
        at = end
    return values


def bound_norms(steps: float, size: int) -> tuple[float, float]:
    """Bounds the Euclidean norm and the sum of absolute values of a rounded message of norm `steps`.

    The first is the bound of conditional rounding, which `round_within` enforces.

    >>> [round(bound) for bound in bound_norms(1024, 650)]
    [1025, 26122]
    """
    root = math.sqrt(size)
    likely = steps**2 + size / 4 + math.sqrt(2 * math.log(1 / BETA)) * (steps + root / 2)
    squared = math.floor(min(likely, (steps + root) ** 2))  # the squared norm of integers is an integer
    return math.sqrt(squared), float(min(root * math.sqrt(squared), squared))


def bound_divergence(order: int, variance: float, norm: float, norm_1: float) -> float:
    """Bounds the Rényi divergence of Skellam noise from the same, moved by integers of these norms.

    Theorem 3.5 of Agarwal et al. 2021.
    """
    main = order * norm**2 / (2 * variance)
    more = ((2 * order - 1) * norm**2 + 6 * norm_1) / (4 * variance**2)
    return main + min(more, 3 * norm_1 / (2 * variance))


def round_within(values: Array, norm: float, key: Key) -> Array:
    """Rounds each value up or down at random, unbiased, and again until the norm is at most `norm`.

    Raises: InvalidInput: if that does not happen, because the values themselves are too long.
    """
    low = np.floor(values)
    chance = values - low
    draws = key.secret_rng()
    for _ in range(MOST_TRIES):
        rounded = low + (draws.random(values.shape) < chance)
        if float(rounded @ rounded) <= norm**2:
            return rounded.astype(np.int64)
    raise InvalidInput(
        f"a message of norm {np.linalg.norm(values):g} can't be rounded to one of at most {norm:g}: put "
        "clip(...) directly before, or before rotate()"
    )


def draw_skellam(variance: float, size: int, key: Key) -> Array:
    """Draws Skellam noise of mean 0 from a secret key, as int64."""
    return _draw_poisson(variance / 2, size, key.fold_in("+")) - _draw_poisson(
        variance / 2, size, key.fold_in("-")
    )


LARGE = 16.0
"""The mean from which the Poisson distribution is drawn by rejection; below, by a table."""


def _draw_poisson(mean: float, size: int, key: Key) -> Array:
    """Draws from the Poisson distribution, with probabilities that are right to rounding in float64."""
    draws = key.secret_rng()
    if mean < LARGE:
        return np.searchsorted(_tabulate(mean), draws.random(size), side="right").astype(np.int64)
    root = math.sqrt(mean)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    sure = 0.9277 - 3.6224 / (b - 2.0)
    drawn, at = np.empty(size, np.int64), 0
    while at < size:
        count = min(1 << 15, int((size - at) * 1.2) + 16)
        u, v = draws.random((2, count))
        u -= 0.5
        inside = 0.5 - np.abs(u)
        inside_or_tiny = np.maximum(inside, 1e-300)
        k = np.floor((2 * a / inside_or_tiny + b) * u + mean + 0.43)
        taken = (inside >= 0.07) & (v <= sure)
        asked = ~taken & (k >= 0) & ((inside >= 0.013) | (v <= inside)) & (v > 0)
        left = np.log(v[asked] * inverse_alpha / (a / inside_or_tiny[asked] ** 2 + b))
        taken[asked] = left <= _log_poisson(k[asked], mean)
        found = k[taken][: size - at].astype(np.int64)
        drawn[at : at + found.size] = found
        at += found.size
    return drawn


@lru_cache(maxsize=8)
def _tabulate(mean: float) -> Array:
    """Tabulates the distribution function of a small mean, until it is 1 to rounding."""
    terms = [math.exp(-mean)]
    while len(terms) < mean or terms[-1] > 1e-20:
        terms.append(terms[-1] * mean / len(terms))
    return np.asarray(np.minimum(np.cumsum(terms), 1.0))


def _log_poisson(k: Array, mean: float) -> Array:
    """Computes logarithms of Poisson probabilities, without the cancellation of large terms.

    Loader, "Fast and accurate computation of binomial probabilities", 2000: the saddle-point expansion.
    """
    safe = np.maximum(k, 1.0)
    stirling = 1 / (12 * safe) - 1 / (360 * safe**3) + 1 / (1260 * safe**5) - 1 / (1680 * safe**7)
    stirling += 1 / (1188 * safe**9)
    small = safe < 10
    if small.any():
        exact = [
            math.lgamma(one + 1) - ((one + 0.5) * math.log(one) - one + HALF_LOG_2PI) for one in safe[small]
        ]
        stirling[small] = exact
    log = -stirling - _deviance(safe, mean) - 0.5 * np.log(2 * math.pi * safe)
    return np.asarray(np.where(k == 0, -mean, log))


HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _deviance(k: Array, mean: float) -> Array:
    """Computes k log(k / mean) + mean - k, by its series where the terms would cancel."""
    ratio = (k - mean) / (k + mean)
    near = np.abs(ratio) < 0.1
    with np.errstate(divide="ignore", invalid="ignore"):
        found = k * np.log(k / mean) + mean - k
    v = ratio[near]
    total, power = (k[near] - mean) * v, 2 * k[near] * v
    for j in range(1, 12):
        power = power * v * v
        total = total + power / (2 * j + 1)
    found[near] = total
    return found
