"""Noise on totals that is correlated over rounds, so that most of it cancels in their sum, the model.

    x_1, x_2, ... -> x + C⁻¹ z,   z ~ N(0, (noise_multiplier b m)²)

What is released is a function of C x + z, a Gaussian mechanism on the sequence of totals. C is lower
triangular with ones on its diagonal. One client moves C x by the norm of the sum of the columns of C for the
rounds in which it takes part. Nothing is gained by sampling: what is needed instead is that each client rests
for so many rounds (`separation`) after it took part, which the algorithm enforces.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    InvalidInput,
    Key,
    Plan,
    Release,
    Spec,
    Stage,
    Total,
    Transform,
    check_count,
    check_positive,
    value,
)
from hanse.privacy.noise import add_steps, draw_noise, measure_noise

__all__ = ["SEPARATION", "CorrelatedNoise", "banded", "find_series", "tree"]

SEPARATION = "separation"
"""The name under which books keep how many rounds two of one client lie apart at least."""


class CorrelatedNoise(Transform, ABC):
    """Noise on a sequence of totals, whose sum it disturbs less than fresh noise in each round would."""

    noise_multiplier: float | None
    mechanism: ClassVar[str]
    """The name of this noise in the books of a run."""

    @property
    @abstractmethod
    def separation(self) -> int | None:
        """The least number of rounds from one in which a client takes part to its next."""

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, float]:
        """The settings, beside its size, by which the sensitivity is computed again from the books."""

    @abstractmethod
    def settle(self, rounds: int) -> "CorrelatedNoise":
        """Returns the noise with all its settings, for a run of so many rounds."""

    @abstractmethod
    def with_multiplier(self, noise_multiplier: float) -> "CorrelatedNoise":
        """Returns the noise with its size set."""

    @abstractmethod
    def measure_sensitivity(self, times: int) -> float:
        """Computes how far one client moves C x in so many rounds, for updates of norm 1."""

    @abstractmethod
    def mix(self, kept: tuple[bytes, ...], number: int) -> tuple[dict[bytes, float], tuple[bytes, ...]]:
        """Returns the factors of earlier draws in the noise of a round, and those draws to keep from now on.

        Args:
          kept: the seeds of earlier draws that were kept, oldest first.
          number: of the round, from 1.
        """

    @property
    def effect(self) -> str:
        return f"the server adds {self.mechanism} noise, of which most cancels over the rounds, to the total"

    def __call__(self, spec: Spec) -> Stage:
        if self.noise_multiplier is None or self.separation is None:
            raise CompositionError(
                f"{self} leaves settings open, which privacy = central(..., mechanism = ...) chooses; write "
                "them, or write it there"
            )
        noise_multiplier = self.noise_multiplier
        measure_noise(self, spec, noise_multiplier)  # refuses what can't be noised

        def decode(state: "Draws", plan: Plan, total: Total, secret_key: Key) -> tuple[Total, "Draws"]:
            size = sum(array.size for array in total.values.values())
            std, step = measure_noise(self, spec, noise_multiplier, size)
            factors, kept = self.mix(state.seeds, state.number + 1)
            draws = [(1.0, secret_key), *((factor, Key(seed)) for seed, factor in factors.items())]
            values = {
                name: add_steps(array, _mix(array, draws, std / step, name), step)
                for name, array in total.values.items()
            }
            return replace(total, values=values), Draws(state.number + 1, (*kept, secret_key.digest))

        release = Release(self.mechanism, noise_multiplier, self.parameters)
        return Stage(spec.like(sealed=True), init=Draws(), decode=decode, release=release)


def _mix(array: Array, draws: Sequence[tuple[float, Key]], scale: float, name: str) -> Array:
    """Adds up draws, in steps. If all factors are whole, so are the draws, and cancel exactly later.

    Else only their sum is rounded, by `add_steps`: it is C⁻¹ z that is released, on the grid, and not z.
    """
    is_whole = all(factor.is_integer() for factor, _ in draws)
    mixed = np.zeros(array.shape)
    for factor, key in draws:
        drawn = draw_noise(array.shape, scale, key.fold_in(name))
        mixed += factor * (np.rint(drawn) if is_whole else drawn)
    return mixed


@value
class Draws:
    """The server's memory of correlated noise: the round, and seeds of the draws that later rounds need."""

    number: int = 0
    seeds: tuple[bytes, ...] = ()


@value
class tree(CorrelatedNoise):
    """Adds the noise of a binary tree: the sum of t totals carries that of as many nodes as t has ones.

        N(t) = sum of the nodes of the intervals of t;   total_t -> total_t + N(t) - N(t-1)

    DP-FTRL, if the server steps along the totals. Each client takes part at most once in a tree. After
    `restart_every` rounds a new tree begins, and the noise of the last sum of the old one stays.

    Args:
      noise_multiplier: the standard deviation of each node, divided by how far one client moves a total.
        None: chosen for a budget.
      restart_every: the rounds of a tree. None: all of the run.
    Runs at: server (decode).
    Reveals: to the server, what the reducer reveals; to everybody else, the noised totals.
    Spec: real[d] with l2_bound -> the same, sealed.
    Raises: CompositionError: if the messages have no bound, or one client can move the total without one.
    References: Kairouz et al., "Practical and private (deep) learning without sampling or shuffling",
      ICML 2021, arXiv 2103.00039, Algorithm 1.

    >>> round(tree(7.0, 1600).measure_sensitivity(1600) ** 2)
    11
    """

    noise_multiplier: float | None = None
    restart_every: int | None = None

    mechanism = "tree"

    def __post_init__(self) -> None:
        _check(self.noise_multiplier, restart_every=self.restart_every)

    @property
    def separation(self) -> int | None:
        return self.restart_every

    @property
    def parameters(self) -> Mapping[str, float]:
        return {SEPARATION: float(self.restart_every or 0)}

    def with_multiplier(self, noise_multiplier: float) -> "tree":
        return replace(self, noise_multiplier=noise_multiplier)

    def settle(self, rounds: int) -> "tree":
        return replace(self, restart_every=self.restart_every or rounds)

    def measure_sensitivity(self, times: int) -> float:
        full, rest = divmod(times, self.restart_every or times)
        return math.sqrt(full * (self.restart_every or times).bit_length() + rest.bit_length())

    def mix(self, kept: tuple[bytes, ...], number: int) -> tuple[dict[bytes, float], tuple[bytes, ...]]:
        assert self.restart_every is not None
        place = (number - 1) % self.restart_every + 1
        if place == 1:
            return {}, ()  # the nodes of the tree before stay in the sum
        first_merged = len(kept) + 1 - (place & -place).bit_length()
        return dict.fromkeys(kept[first_merged:], -1.0), kept[:first_merged]


@value
class banded(CorrelatedNoise):
    """Adds noise by a banded matrix factorisation: that of a round takes back a part of the rounds before.

        total_t -> total_t + z_t - z_{t-1} / 2 - z_{t-2} / 8 - ...,   the num_bands first of (1 - x)^(1/2)

    The sum of the totals carries less noise than with `tree`. The bands are those of C⁻¹, the inverse square
    root of the matrix of prefix sums. The draws of earlier rounds are made again from their seeds,
    so that each round draws num_bands times, and nothing large is kept.

    Args:
      noise_multiplier: the standard deviation of z, divided by how far one client moves a total. None: chosen
        for a budget.
      num_bands: the rounds whose noise is mixed, this one included.
      separation: the least number of rounds between two of one client. None: all of the run, so that each
        client takes part once.
    Runs at: server (decode).
    Reveals: to the server, what the reducer reveals; to everybody else, the noised totals.
    Spec: real[d] with l2_bound -> the same, sealed.
    Raises: CompositionError: if the messages have no bound, or one client can move the total without one.
    References: Choquette-Choo et al., "(Amplified) banded matrix factorization", NeurIPS 2023, arXiv
      2306.08153 (participation); Kalinin, Lampert, "Banded square root matrix factorization", NeurIPS 2024,
      arXiv 2405.13763, Theorem 2 (sensitivity); Kalinin et al., "Back to square roots", arXiv 2505.12128
      (these bands).

    >>> banded(1.0, 2, 2).measure_sensitivity(2)  # C = ((1, 0), (1/2, 1))
    1.118033988749895
    """

    noise_multiplier: float | None = None
    num_bands: int = 16
    separation: int | None = None

    mechanism = "banded"

    def __post_init__(self) -> None:
        _check(self.noise_multiplier, num_bands=self.num_bands, separation=self.separation)

    @property
    def parameters(self) -> Mapping[str, float]:
        return {"num_bands": float(self.num_bands), SEPARATION: float(self.separation or 0)}

    def with_multiplier(self, noise_multiplier: float) -> "banded":
        return replace(self, noise_multiplier=noise_multiplier)

    def settle(self, rounds: int) -> "banded":
        return replace(self, separation=self.separation or rounds)

    def measure_sensitivity(self, times: int) -> float:
        return _measure_toeplitz(self.num_bands, self.separation or times, times)

    def mix(self, kept: tuple[bytes, ...], number: int) -> tuple[dict[bytes, float], tuple[bytes, ...]]:
        newest_first = kept[::-1][: self.num_bands - 1]
        factors = _list_factors(self.num_bands)[1:]
        oldest = max(0, len(kept) - self.num_bands + 2)
        return dict(zip(newest_first, factors, strict=False)), kept[oldest:]


def _check(noise_multiplier: float | None, **counts: int | None) -> None:
    if noise_multiplier is not None:
        check_positive("noise_multiplier", noise_multiplier)
    for name, count in counts.items():
        if count is not None:
            check_count(name, count)


@lru_cache(maxsize=16)
def _list_factors(num_bands: int) -> tuple[float, ...]:
    """Returns the first coefficients of (1 - x)^(1/2): the first column of C⁻¹."""
    factors = [1.0]
    for k in range(1, num_bands):
        factors.append(factors[-1] * (2 * k - 3) / (2 * k))
    return tuple(factors)


@lru_cache(maxsize=16)
def _invert(num_bands: int, size: int) -> Array:
    """Returns the first column of C."""
    factors = np.array(_list_factors(num_bands))
    column = np.zeros(size)
    column[0] = 1.0
    for t in range(1, size):
        last = column[max(0, t - num_bands + 1) : t]
        column[t] = -(factors[len(last) : 0 : -1] @ last)
    return column


@lru_cache(maxsize=64)
def _measure_toeplitz(num_bands: int, separation: int, times: int) -> float:
    """Computes the largest norm of a sum of columns that lie `separation` apart.

    The columns of C have the same positive, falling entries, each one place further down. So the largest sum
    is that of the columns 0, separation, 2 separation, ...
    """
    column = _invert(num_bands, 2 ** max(0, times - 1).bit_length())[:times]
    total = np.zeros(times)
    for start in range(0, times, separation):
        total[start:] += column[: times - start]
    return float(np.linalg.norm(total))


def find_series(release: Release) -> CorrelatedNoise | None:
    """Returns the noise that a release was made with; None: it is not correlated.

    Raises: InvalidInput: if the books lack one of its settings.
    """
    given = {name: int(number) for name, number in release.parameters.items()}
    try:
        if release.mechanism == tree.mechanism:
            return tree(release.noise_multiplier, given[SEPARATION])
        if release.mechanism == banded.mechanism:
            return banded(release.noise_multiplier, given["num_bands"], given[SEPARATION])
    except KeyError as error:
        raise InvalidInput(f"the noise {release.mechanism!r} has no {error} in the books") from None
    return None
