"""Local privacy of a run: each client adds noise to its own messages."""

from dataclasses import replace
from typing import Any

from hanse.algorithms import by_examples, uniform
from hanse.core import Algorithm, CompositionError
from hanse.privacy import local
from hanse.runs.protection.noises import check_noise, find_noise
from hanse.transforms import clip

__all__ = ["protect_messages"]


def protect_messages(
    algorithm: Algorithm[Any], privacy: local, num_clients: int, rounds: int
) -> Algorithm[Any]:
    """Returns an algorithm whose clients clip and noise their updates before all else.

    Raises: CompositionError: if it can't be protected; InvalidInput: if delta is too large.
    """
    privacy.check_delta(num_clients)
    found = find_noise(algorithm)
    check_noise(found, privacy)
    if found:
        return algorithm
    own: Any = algorithm
    if not hasattr(own, "sampling_rate"):
        raise CompositionError(
            f"privacy = local(...) noises the update of each client, but {type(algorithm).__name__}() sends "
            "or keeps more of its clients; write fed_avg, fed_prox, fed_adagrad, fed_adam or fed_yogi, or "
            "put clip(...) and local_gaussian(...) into its uplink"
        )
    if own.weighting not in (by_examples(), uniform()):
        raise CompositionError(
            f"algorithm.weighting is {own.weighting}, but under privacy = local(...) all clients count "
            "alike, because a weight would leave without noise; write weighting = uniform()"
        )
    noised = (clip(privacy.max_norm), privacy.choose_noise(rounds), *own.uplink)
    protected: Algorithm[Any] = replace(own, weighting=uniform(), uplink=noised)
    return protected
