"""Central privacy of a run: the server adds noise to the totals of updates that are clipped and sampled."""

from dataclasses import replace
from typing import Any

from hanse.algorithms import by_examples, uniform
from hanse.core import Algorithm, CompositionError, fixed_mean, mean
from hanse.privacy import CorrelatedNoise, adaptive_clip, central
from hanse.runs.protection.disclosure import Disclosure
from hanse.runs.protection.noises import check_noise, find_noise
from hanse.transforms import clip

__all__ = ["check_separation", "protect_totals"]


def protect_totals(
    algorithm: Algorithm[Any], privacy: central, num_clients: int, rounds: int
) -> Algorithm[Any]:
    """Returns an algorithm whose updates are clipped and sampled, and whose totals are noised by the server.

    Raises: CompositionError: if it can't be protected.
    """
    privacy.check_delta(num_clients)
    found = find_noise(algorithm)
    check_noise(found, privacy)
    if found:
        return algorithm
    own: Any = algorithm
    name = type(algorithm).__name__
    if not hasattr(own, "sampling_rate"):
        raise CompositionError(
            f"privacy = central(...) protects the sum of updates, but {name}() sends or keeps more of its "
            "clients, or chooses them in another way; write fed_avg, fed_prox, fed_adagrad, fed_adam or "
            "fed_yogi"
        )
    if own.into != mean() and not isinstance(own.into, fixed_mean):
        raise CompositionError(
            f"algorithm.into is {own.into}, but noise is added to a sum that is divided by a fixed number; "
            "leave into out"
        )
    if own.weighting not in (by_examples(), uniform()):
        raise CompositionError(
            f"algorithm.weighting is {own.weighting}, but under privacy = central(...) all clients count "
            "alike; write weighting = uniform()"
        )
    if own.close.goal is not None or own.close.wait_s is not None:
        raise CompositionError(
            f"algorithm.close is {own.close}, but a round that waits for its clients, or ends when it has "
            "enough, makes one client's place depend on others; write deadline_s alone"
        )
    rate = own.sampling_rate or own.fraction
    assert rate is not None  # `settle_fraction` has seen to it
    noise = privacy.choose_noise(rate, rounds)
    bound = privacy.max_norm if isinstance(privacy.max_norm, adaptive_clip) else clip(privacy.max_norm)
    if isinstance(noise, CorrelatedNoise):
        how = {"separation": noise.separation}
        cohort = float(_size_resting_cohort(own, noise, num_clients))
    else:
        how, cohort = {"fraction": None, "sampling_rate": rate, "separation": None}, rate * num_clients
    changes: dict[str, Any] = {
        **how,
        "weighting": uniform(),
        "close": replace(own.close, minimum_fraction=0.0),
        "uplink": (*own.uplink, bound, noise),
        "into": fixed_mean(cohort) if own.into == mean() else own.into,
    }
    protected: Algorithm[Any] = replace(own, **changes)
    return protected


def _size_resting_cohort(own: Any, noise: CorrelatedNoise, num_clients: int) -> int:
    """Returns the size of a cohort of which each member rests afterwards.

    Raises: CompositionError: if the clients are too few for that.
    """
    if own.sampling_rate is not None:
        raise CompositionError(
            f"algorithm.sampling_rate is {own.sampling_rate}, but {noise.mechanism}() gains nothing by "
            "Poisson samples, and its clients rest; write fraction"
        )
    size, separation = max(1, round(own.fraction * num_clients)), noise.separation or 1
    if size * separation > num_clients:
        most = num_clients // separation
        remedy = f"fraction = {most / num_clients:.4g} or less, or " if most else ""
        raise CompositionError(
            f"algorithm.fraction is {own.fraction:.4g}, which asks {size} of {num_clients} clients a round, "
            f"but each takes part once in {separation} rounds, so that they do not suffice; write {remedy}a "
            "mechanism that needs less rest, such as tree(restart_every=...) or banded(separation=...)"
        )
    return int(size)


def check_separation(algorithm: Algorithm[Any], disclosure: Disclosure) -> None:
    """Checks that clients rest for as long as correlated noise needs, with or without a budget.

    Raises: CompositionError: if the algorithm does not see to it.
    """
    needed = max((int(one.release.parameters.get("separation", 1)) for one in disclosure.releases), default=1)
    given = getattr(algorithm, "separation", None) or 1
    if given < needed:
        raise CompositionError(
            f"the noise of {type(algorithm).__name__}() hides clients that take part once in {needed} "
            f"rounds, but nothing sees to it: write separation = {needed}, which fed_avg, fed_prox, "
            "fed_adagrad, fed_adam and fed_yogi have"
        )
