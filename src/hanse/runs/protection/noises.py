"""Noise that an author wrote into an algorithm, and what of it suits a model of privacy."""

from collections.abc import Iterable
from typing import Any

from hanse.core import Algorithm, CompositionError
from hanse.privacy import (
    CorrelatedNoise,
    Trust,
    central,
    gaussian,
    local,
    local_gaussian,
    skellam,
)

__all__ = ["check_noise", "find_noise"]


def find_noise(algorithm: Algorithm[Any]) -> set[Trust]:
    """Finds the models of trust that the noise in an algorithm's uplink belongs to."""
    kinds: dict[Trust, Any] = {
        "central": gaussian | CorrelatedNoise,
        "local": local_gaussian,
        "distributed": skellam,
    }
    uplink = getattr(algorithm, "uplink", ())
    return {trust for trust, kind in kinds.items() if any(isinstance(stage, kind) for stage in uplink)}


def check_noise(found: Iterable[Trust], privacy: central | local) -> None:
    """Checks that noise belongs to the model of privacy that the settings name.

    Raises: CompositionError: if it protects something else, against others, so that epsilon does not say it.
    """
    own = "central" if isinstance(privacy, central) else "local"
    adds = {"central": "the server adds", "local": "each client adds"}[own]
    for trust in sorted(found):
        if trust == "distributed":
            raise CompositionError(
                f"privacy = {own}(...) has a budget for noise that {adds}, and uplink has skellam(...), "
                "of which clients add shares: leave it out, or leave privacy out, and the claim says what "
                "skellam(...) spends"
            )
        if trust != own:
            noise = "local_gaussian(...)" if trust == "local" else "noise of the server"
            raise CompositionError(
                f"privacy = {own}(...) has a budget for noise that {adds}, and uplink has {noise}, "
                f"which protects against others: leave it out, or write privacy = {trust}(...)"
            )
