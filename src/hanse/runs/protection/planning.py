"""Differential privacy of a run: its algorithm is protected, and its budget is checked before it begins.

Each model of privacy protects an algorithm in a module of its own: `central`, `local` and, for `examples`,
`training`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hanse.core import Algorithm, CompositionError, InvalidInput
from hanse.core.exchange import Record, ReleaseRecord
from hanse.privacy import (
    PRIVATE_PART,
    WEIGHTS,
    NoisedSteps,
    Privacy,
    PrivacyClaim,
    central,
    classify_noise,
    compose,
    compute_epsilon,
    examples,
    local,
    make_claim,
    make_example_claim,
    read_books,
    refuse_open,
)
from hanse.runs.protection.central import protect_totals
from hanse.runs.protection.disclosure import Disclosure, describe_open
from hanse.runs.protection.local import protect_messages
from hanse.runs.protection.noises import check_noise
from hanse.runs.protection.training import protect_examples

__all__ = ["check_budget", "claim_of", "plan_claim", "protect"]


def protect(
    algorithm: Algorithm[Any], privacy: Privacy | None, num_clients: int, rounds: int
) -> Algorithm[Any]:
    """Returns an algorithm that is protected by the model of privacy that the settings name.

    One that adds noise already is left as it is: then its author chose the noise, or it was protected before.

    Raises: CompositionError: if it can't be protected.
    """
    if isinstance(privacy, central):
        return protect_totals(algorithm, privacy, num_clients, rounds)
    if isinstance(privacy, local):
        return protect_messages(algorithm, privacy, num_clients, rounds)
    if isinstance(privacy, examples):
        return protect_examples(algorithm, privacy, rounds)
    return algorithm


def check_budget(privacy: Privacy | None, disclosure: Disclosure, rounds: int) -> None:
    """Checks a run against its budget before it begins.

    Raises:
      CompositionError: if clients send un-noised what the settings do not name.
      InvalidInput: if all rounds together would spend more than the budget.
    """
    if isinstance(privacy, examples):  # each client checks its own; what else leaves is checked here
        refuse_open((name for name in disclosure.open if name != PRIVATE_PART), privacy, "the run")
    elif isinstance(privacy, central | local):
        refuse_open(disclosure.open, privacy, "the run")
        _check_releases(privacy, disclosure.releases, rounds)


def _check_releases(privacy: central | local, releases: Sequence[ReleaseRecord], rounds: int) -> None:
    if not releases:
        raise CompositionError(
            f"privacy is {type(privacy).__name__}(...), but no total of a round is noised; write "
            f"uplink = [clip(...), {'gaussian' if isinstance(privacy, central) else 'local_gaussian'}(...)]"
        )
    check_noise({classify_noise(one.release) for one in releases}, privacy)
    epsilon = compute_epsilon(compose(_plan_releases(releases, rounds)), privacy.delta)
    if epsilon > privacy.epsilon:
        why = ""
        if isinstance(privacy, central) and any(
            one.sampling == 1 and not one.release.parameters for one in releases
        ):
            why = ". The cohort is no Poisson sample, which alone gains by sampling: write sampling_rate"
        raise InvalidInput(
            f"{rounds} rounds would spend epsilon = {epsilon:.4f} for delta = {privacy.delta:g}, and the "
            f"budget is {privacy.epsilon:g}{why}; write more noise, fewer rounds or a larger epsilon, or "
            "leave the noise out, and the noise is chosen"
        )


def claim_of(
    records: Sequence[Record],
    privacy: Privacy | None,
    disclosure: Disclosure,
    *,
    is_simulated: bool,
    clients: Sequence[NoisedSteps] | None = None,
) -> PrivacyClaim | None:
    """Makes the claim about a run, from the books of its rounds. None: it released nothing noised.

    Args:
      clients: the noised steps of each client in a round, where they are known and examples are protected.
    """
    if isinstance(privacy, examples):
        rounds = sum(record.round > 0 for record in records)
        beside = _beside_examples(privacy, disclosure)
        return make_example_claim(privacy, clients, rounds, beside=beside, is_simulated=is_simulated)
    return make_claim(
        read_books(records, disclosure.releases),
        delta=_delta_of(privacy),
        beside=disclosure.beside,
        is_simulated=is_simulated,
    )


def plan_claim(
    privacy: Privacy | None,
    disclosure: Disclosure,
    rounds: int,
    clients: Sequence[NoisedSteps] | None = None,
) -> PrivacyClaim | None:
    """Makes the claim that a run of so many rounds will come to, if it goes as planned, simulated or served.

    See `claim_of`.
    """
    if isinstance(privacy, examples):
        beside = _beside_examples(privacy, disclosure)
        return make_example_claim(privacy, clients, rounds, beside=beside, is_simulated=None)
    planned = _plan_releases(disclosure.releases, rounds)
    return make_claim(planned, delta=_delta_of(privacy), beside=disclosure.beside, is_simulated=None)


def _plan_releases(releases: Sequence[ReleaseRecord], rounds: int) -> list[ReleaseRecord]:
    """Lists the noised totals of so many rounds that are all as the first."""
    last = max((one.sample for one in releases), default=0) + 1
    return [replace(one, sample=one.sample + number * last) for number in range(rounds) for one in releases]


def _beside_examples(privacy: examples, disclosure: Disclosure) -> list[str]:
    beside = [describe_open(name) for name in disclosure.open if name != PRIVATE_PART]
    return [*beside, *([describe_open(WEIGHTS)] if WEIGHTS in privacy.open else [])]


def _delta_of(privacy: Privacy | None) -> float | None:
    return privacy.delta if isinstance(privacy, central | local) else None
