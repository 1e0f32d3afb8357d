"""Differential privacy of a run: its algorithm is protected, and its budget is checked before it begins."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hanse.algorithms import by_examples, uniform
from hanse.core import (
    Algorithm,
    CompositionError,
    InvalidInput,
    Program,
    RoundAbandoned,
    fixed_mean,
    mean,
)
from hanse.core.exchange import Collect, Dispatch, Record, ReleaseRecord, Sample, Sampled
from hanse.privacy import (
    PREPROCESSING,
    PRIVATE_PART,
    WEIGHTS,
    CorrelatedNoise,
    Exposures,
    NoisedSteps,
    Privacy,
    PrivacyClaim,
    adaptive_clip,
    central,
    compose,
    compute_epsilon,
    examples,
    gaussian,
    make_claim,
    make_example_claim,
    read_books,
    refuse_open,
)
from hanse.runs.protection.training import protect_examples
from hanse.simulation import Simulation
from hanse.transforms import clip

__all__ = [
    "Disclosure",
    "check_budget",
    "check_separation",
    "claim_of",
    "describe_open",
    "plan_claim",
    "protect",
    "rehearse",
]


@dataclass(frozen=True)
class Disclosure:
    """The facts that a run is going to reveal of its clients.

    Args:
      releases: the noised totals of a round.
      open: what clients send un-noised in a round and when the model is measured, by its names.
    """

    releases: tuple[ReleaseRecord, ...] = ()
    open: tuple[str, ...] = ()

    @property
    def beside(self) -> tuple[str, ...]:
        """The parts that are un-noised, in words."""
        return tuple(map(describe_open, self.open))


def protect(
    algorithm: Algorithm[Any], privacy: Privacy | None, num_clients: int, rounds: int
) -> Algorithm[Any]:
    """Returns an algorithm whose updates are clipped, noised and sampled as a budget needs.

    One that adds noise already is left as it is: then its author chose the noise, or it was protected before.

    Raises: CompositionError: if it can't be protected.
    """
    if isinstance(privacy, examples):
        return protect_examples(algorithm, privacy, rounds)
    if not isinstance(privacy, central):
        return algorithm
    privacy.check_delta(num_clients)
    if any(isinstance(stage, gaussian | CorrelatedNoise) for stage in getattr(algorithm, "uplink", ())):
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


def rehearse(
    round: Program[Any],
    measures: Sequence[Program[Any]],
    runtime: Simulation,
    *,
    preprocesses: bool,
    is_private: bool = False,
) -> Disclosure:
    """Performs the first exchange of a round as a trial, up to where clients would compute.

    Args:
      measures: the measurements of the model, which are tried too if the round adds noise.
      preprocesses: whether features were encoded by sums over clients.
      is_private: whether the settings ask for privacy, also if the round adds no noise to totals.

    Raises: CompositionError: if chains, reducers and conditions don't fit each other.
    """
    releases, found = _try_exchange(round, runtime)
    for measure in measures if releases or is_private else ():
        found |= _try_exchange(measure, runtime)[1]
    if preprocesses:
        found[PREPROCESSING] = None
    return Disclosure(tuple(releases), tuple(found))


def _try_exchange(program: Program[Any], runtime: Simulation) -> tuple[list[ReleaseRecord], dict[str, None]]:
    """Returns the noised totals that it will release, and the names of un-noised parts, each once."""
    exposures, releases, found = Exposures(), list[ReleaseRecord](), dict[str, None]()
    with suppress(StopIteration, RoundAbandoned):
        command = next(program)
        while isinstance(command, Sample | Dispatch):
            event = runtime.perform(command)
            if isinstance(command, Dispatch):
                releases += exposures.find_releases(command)
                found |= dict.fromkeys(exposures.find_open(command))
            elif isinstance(event, Sampled):
                exposures.see_sample(command, event)
            command = program.send(event)
        if isinstance(command, Collect):
            runtime.coordinator.check(command, strict=True)
    program.close()
    return releases, found


def check_budget(privacy: Privacy | None, disclosure: Disclosure, rounds: int) -> None:
    """Checks a run against its budget before it begins.

    Raises:
      CompositionError: if clients send un-noised what the settings do not name.
      InvalidInput: if all rounds together would spend more than the budget.
    """
    if isinstance(privacy, examples):  # each client checks its own; what else leaves is checked here
        refuse_open((name for name in disclosure.open if name != PRIVATE_PART), privacy, "the run")
        return
    if not isinstance(privacy, central):
        return
    refuse_open(disclosure.open, privacy, "the run")
    if not disclosure.releases:
        raise CompositionError(
            "privacy is central(...), but no total of a round is noised; write "
            "uplink = [clip(...), gaussian(...)]"
        )
    epsilon = compute_epsilon(compose(_plan_releases(disclosure, rounds)), privacy.delta)
    if epsilon > privacy.epsilon:
        why = ""
        if any(one.sampling == 1 and not one.release.parameters for one in disclosure.releases):
            why = ". The cohort is no Poisson sample, which alone gains by sampling: write sampling_rate"
        raise InvalidInput(
            f"{rounds} rounds would spend epsilon = {epsilon:.4f} for delta = {privacy.delta:g}, and the "
            f"budget is {privacy.epsilon:g}{why}; write more noise, fewer rounds or a larger epsilon, or "
            "leave gaussian(...) out, and the noise is chosen"
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
        read_books(records),
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
    """Makes the claim that a run of so many rounds will come to, if it goes as planned. See `claim_of`."""
    if isinstance(privacy, examples):
        return make_example_claim(privacy, clients, rounds, beside=_beside_examples(privacy, disclosure))
    planned = _plan_releases(disclosure, rounds)
    return make_claim(planned, delta=_delta_of(privacy), beside=disclosure.beside, is_simulated=False)


def _plan_releases(disclosure: Disclosure, rounds: int) -> list[ReleaseRecord]:
    """Lists the noised totals of so many rounds that are all as the first."""
    last = max((one.sample for one in disclosure.releases), default=0) + 1
    return [
        replace(one, sample=one.sample + number * last)
        for number in range(rounds)
        for one in disclosure.releases
    ]


def _beside_examples(privacy: examples, disclosure: Disclosure) -> list[str]:
    beside = [describe_open(name) for name in disclosure.open if name != PRIVATE_PART]
    return [*beside, *([describe_open(WEIGHTS)] if WEIGHTS in privacy.open else [])]


def _delta_of(privacy: Privacy | None) -> float | None:
    return privacy.delta if isinstance(privacy, central) else None


def describe_open(name: str) -> str:
    """Formats what clients send un-noised."""
    known = {PREPROCESSING: "the sums for preprocessing", WEIGHTS: "clients' numbers of examples, as weights"}
    return known.get(name, f"the part {name!r} of messages")
