"""Accounting: what all noised totals of a run reveal together, as epsilon for a delta.

Which totals there were, with which noise and which sampling, comes from the books of the run: they say what
happened, not what was planned. The arithmetic is that of dp-accounting (extra `privacy`).

References: Mironov, Talwar, Zhang, "Rényi differential privacy of the sampled Gaussian mechanism", arXiv
1908.10530 (RDP); Doroshenko et al., "Connect the dots: tighter discrete approximations of privacy loss
distributions", PoPETs 2022, arXiv 2207.04380 (PLD).
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, TypeAlias

from hanse.core import InvalidInput, Release
from hanse.core.exchange import Record, ReleaseRecord, Usage
from hanse.privacy.correlated import CorrelatedNoise, find_series
from hanse.privacy.local_noise import LOCAL
from hanse.privacy.noise import MECHANISM
from hanse.privacy.skellam_noise import SKELLAM, bound_divergence

__all__ = [
    "Accountant",
    "Spent",
    "Tally",
    "Trust",
    "calibrate",
    "calibrate_series",
    "classify_noise",
    "compose",
    "compute_epsilon",
    "load_accounting",
    "read_books",
    "read_round",
]

Trust: TypeAlias = Literal["central", "local", "distributed"]
"""The model of trust that noise belongs to: the server adds it, each client, or clients in shares."""

_ADDED: Mapping[Trust, str] = {
    "central": "by the server, gaussian(...)",
    "local": "by clients, local_gaussian(...)",
    "distributed": "by clients in shares, skellam(...)",
}

Spent: TypeAlias = Mapping[tuple[float, ...], int]
"""The number of uses of a Gaussian mechanism, by sampling rate and noise multiplier. Of Skellam noise the two
norms of what one client can change follow. Nothing amplifies it: the server knows who was asked."""

Accountant: TypeAlias = Literal["rdp", "pld"]
"""The method: Rényi divergences, which are fast, or privacy loss distributions, which are tighter."""


def classify_noise(release: Release) -> Trust:
    """Returns the model of trust that the noise of a release belongs to.

    >>> classify_noise(Release("local_gaussian", 2.0))
    'local'
    """
    if release.mechanism == LOCAL:
        return "local"
    return "distributed" if release.mechanism == SKELLAM else "central"


def load_accounting() -> Any:
    """Imports dp-accounting. Raises: InvalidInput: if it is not installed."""
    try:
        for accountant in ("rdp", "pld"):
            import_module(f"dp_accounting.{accountant}")
        return import_module("dp_accounting")
    except ImportError:
        raise InvalidInput(
            "accounting of privacy needs the package dp-accounting: pip install 'hanse[privacy]'"
        ) from None


def compose(records: Iterable[ReleaseRecord]) -> Spent:
    """Counts mechanisms. Totals of the same sample are one mechanism, whose noise is that of them together.

    >>> from hanse.core import Release
    >>> one = ReleaseRecord("update", Release("gaussian", 2.0), 0.1, 1)
    >>> dict(compose([one, ReleaseRecord("update", Release("gaussian", 2.0), 0.1, 2)]))
    {(0.1, 2.0): 2}

    The noise of a client gains nothing by sampling: whoever reads its messages knows that it took part.

    Raises: InvalidInput: if a mechanism is unknown, or if some noise is of the server, some of single clients
      or some of clients in shares: they protect something else, against others.
    """
    tally = Tally()
    tally.add(records)
    return tally.spent


class Tally:
    """A count of mechanisms that goes on from round to round.

    Totals with correlated noise are counted by their number: together they are one mechanism on a sequence.
    """

    def __init__(self, other: "Tally | None" = None) -> None:
        self._fresh: Counter[tuple[float, ...]] = Counter()
        self._series: Counter[tuple[str, str]] = Counter()
        self._noise: dict[tuple[str, str], CorrelatedNoise] = {}
        self._trust = set[Trust]()
        if other is not None:
            self._fresh.update(other._fresh)
            self._series.update(other._series)
            self._noise.update(other._noise)
            self._trust |= other._trust

    def add(self, records: Iterable[ReleaseRecord]) -> None:
        """Adds the releases of a round.

        Raises: InvalidInput: if they can't be accounted for, alone or beside those before.
        """
        fresh = list[ReleaseRecord]()
        for record in records:
            self._trust.add(classify_noise(record.release))
            noise = find_series(record.release)
            if noise is None:
                fresh.append(record)
                continue
            self._series[record.part, str(noise)] += 1
            self._noise[record.part, str(noise)] = noise
        self._fresh.update(_compose(fresh))
        if len(self._trust) > 1:
            *some, last = (words for trust, words in _ADDED.items() if trust in self._trust)
            raise InvalidInput(
                f"some parts are noised {', some '.join(some)}, and some {last}: they protect "
                "against different adversaries, and no epsilon covers them together; write one of them"
            )

    @property
    def spent(self) -> Spent:
        """The mechanisms so far. A sequence with correlated noise is one Gaussian, not amplified."""
        found = Counter(self._fresh)
        for name, times in self._series.items():
            noise = self._noise[name]
            assert noise.noise_multiplier is not None
            found[1.0, noise.noise_multiplier / noise.measure_sensitivity(times)] += 1
        return found


def _compose(records: Iterable[ReleaseRecord]) -> Spent:
    """Counts the mechanisms of totals with fresh noise."""
    of_sample: dict[int, list[ReleaseRecord]] = {}
    found: Counter[tuple[float, ...]] = Counter()
    for record in records:
        if record.release.mechanism == SKELLAM:
            norms = record.release.parameters["norm"], record.release.parameters["norm_1"]
            found[1.0, record.release.noise_multiplier, *norms] += 1
            continue
        if record.release.mechanism == LOCAL:
            found[1.0, record.release.noise_multiplier] += 1
            continue
        if record.release.mechanism != MECHANISM:
            raise InvalidInput(
                f"the noise {record.release.mechanism!r} of {record.part!r} can't be accounted for here; use "
                "gaussian(...), tree(...), banded(...), local_gaussian(...) or skellam(...)"
            )
        of_sample.setdefault(record.sample, []).append(record)
    for together in of_sample.values():
        # If one of them went to more than its sample, it may have shown who was drawn.
        sampling = max(record.sampling for record in together)
        precision = math.fsum(record.release.noise_multiplier**-2 for record in together)
        only = together[0].release.noise_multiplier
        found[sampling, only if len(together) == 1 else precision**-0.5] += 1
    return found


def compute_epsilon(spent: Spent, delta: float, accountant: Accountant = "rdp") -> float:
    """Computes the epsilon of all that was spent, for one client that is added or removed.

    >>> round(compute_epsilon({(0.01, 1.0): 1000}, 1e-5), 4)
    2.1014
    >>> round(compute_epsilon({(0.01, 1.0): 1000}, 1e-5, "pld"), 4)
    1.8282
    """
    return _compute(tuple(sorted(item for item in spent.items() if item[1])), delta, accountant)


@lru_cache(maxsize=256)
def _compute(spent: tuple[tuple[tuple[float, ...], int], ...], delta: float, accountant: Accountant) -> float:
    if not spent:
        return 0.0
    dp = load_accounting()
    if any(len(mechanism) > 2 for mechanism, _ in spent):
        return _compute_with_skellam(dp, spent, delta)
    books = dp.rdp.RdpAccountant() if accountant == "rdp" else dp.pld.PLDAccountant()
    with _quiet():
        for (sampling, noise_multiplier), times in spent:
            event = dp.GaussianDpEvent(noise_multiplier)
            if sampling < 1:
                event = dp.PoissonSampledDpEvent(sampling, event)
            books.compose(dp.SelfComposedDpEvent(event, times))
        return float(books.get_epsilon(delta))


ORDERS = (*range(2, 64), *range(64, 1025, 16))
"""The orders of Rényi divergence at which Skellam noise is bounded: its theorem holds for integers."""


def _compute_with_skellam(dp: Any, spent: tuple[tuple[tuple[float, ...], int], ...], delta: float) -> float:
    """Computes epsilon by Rényi divergences; for Skellam noise there are no privacy loss distributions."""
    divergences = [0.0] * len(ORDERS)
    for (sampling, noise_multiplier, *norms), times in spent:
        for i, order in enumerate(ORDERS):
            if norms:
                variance = (noise_multiplier * norms[0]) ** 2
                divergences[i] += times * bound_divergence(order, variance, *norms)
            elif sampling == 1:
                divergences[i] += times * order / (2 * noise_multiplier**2)
    sampled = [item for item in spent if len(item[0]) == 2 and item[0][0] < 1]
    books = dp.rdp.RdpAccountant(ORDERS)
    with _quiet():
        for (sampling, noise_multiplier), times in sampled:
            event = dp.PoissonSampledDpEvent(sampling, dp.GaussianDpEvent(noise_multiplier))
            books.compose(dp.SelfComposedDpEvent(event, times))
        both = [own + float(more) for own, more in zip(divergences, books.rdp, strict=True)]
        return float(dp.rdp.compute_epsilon(ORDERS, both, delta)[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings about orders of Rényi divergence that are left out, which only makes epsilon larger."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


_DIGITS = 4
"""The decimals of a noise multiplier that was found, so that it can be read and written."""


def calibrate(epsilon: float, delta: float, *, sampling: float, times: int) -> float:
    """Computes the smallest noise multiplier, in four decimals, that keeps so many totals within epsilon.

    Raises: InvalidInput: if no noise multiplier below 10,000 does.

    >>> calibrate(2.5806, 1e-5, sampling=0.1, times=100)
    2.0
    """
    unit: int = 10**_DIGITS

    def spend(number: int) -> float:
        return compute_epsilon({(sampling, number / unit): times}, delta)

    low, high = 0, unit // 2  # `low` spends too much, `high` does not
    while spend(high) > epsilon:
        low, high = high, 2 * high
        if high > unit * unit:
            raise InvalidInput(
                f"no noise keeps {times} rounds within epsilon = {epsilon:g} for delta = {delta:g}; write "
                "a larger epsilon, or fewer rounds"
            )
    shift = 0
    while high - low > 1:
        middle = (low + high) // 2
        if low and high - low > 2:  # epsilon is nearly a power of the noise
            ends = math.log(spend(low)), math.log(spend(high))
            share = (ends[0] - math.log(epsilon)) / (ends[0] - ends[1])
            middle = round(low * (high / low) ** share) + shift
            middle = min(max(middle, low + 1), high - 1)
        if spend(middle) > epsilon:
            low, shift = middle, 1  # the next guess lies on the other side, and narrows from there
        else:
            high, shift = middle, -1
    return high / unit


def calibrate_series(epsilon: float, delta: float, *, noise: CorrelatedNoise, times: int) -> float:
    """Computes the smallest noise multiplier, in four decimals, of correlated noise on a sequence of totals.

    Raises: InvalidInput: if no noise suffices.
    """
    one, unit = calibrate(epsilon, delta, sampling=1.0, times=1), 10**_DIGITS
    sensitivity = noise.measure_sensitivity(times)
    low = math.floor((one - 1 / unit) * sensitivity * unit)
    found = next(
        number
        for number in range(max(1, low), low + 10 * unit)
        if compute_epsilon({(1.0, number / unit / sensitivity): 1}, delta) <= epsilon
    )
    return float(found / unit)


def read_books(records: Iterable[Record], planned: Sequence[ReleaseRecord] = ()) -> Iterator[ReleaseRecord]:
    """Lists what the rounds of a run revealed with noise, abandoned ones included; see `read_round`.

    Args:
      planned: what was asked of clients in each round. Empty: as much as in the fullest round.
    """
    kept = tuple(records)
    asked = planned or max((record.usage.releases for record in kept), key=len, default=())
    for record in kept:
        # round 0 only measures the model
        yield from read_round(record.usage, asked if record.round else (), is_closed=record.is_closed)


def read_round(usage: Usage, asked: Sequence[ReleaseRecord], *, is_closed: bool) -> Iterator[ReleaseRecord]:
    """Lists what a round revealed with noise, whether it was abandoned or not.

    - Totals with noise of the server have been seen, also in a round that was abandoned. Only the memory of
      correlated noise is taken back with it, so that they are named, and can't be accounted for.
    - Messages that clients noised themselves have been read, even if they were dropped and no total came of
      them: they count as they were asked for.
    - Shares of noise protect sums alone, and messages without a total were hidden by the reducer.

    Args:
      asked: what was asked of clients in this round.
    """
    own = [one for one in asked if classify_noise(one.release) == "local"]
    summed = [one for one in usage.releases if classify_noise(one.release) == "local"]
    yield from own if len(own) > len(summed) and (usage.dropped or not is_closed) else summed
    for one in usage.releases:
        if classify_noise(one.release) == "local":
            continue
        if not is_closed and find_series(one.release) is not None:
            mechanism = f"{one.release.mechanism} of an abandoned round"
            one = replace(one, release=replace(one.release, mechanism=mechanism))
        yield one
