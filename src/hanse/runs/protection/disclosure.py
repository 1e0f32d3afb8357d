"""The disclosure of a run about its clients, found by a trial of its first exchange."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hanse.core import Program, RoundAbandoned
from hanse.core.exchange import Collect, Dispatch, ReleaseRecord, Sample, Sampled
from hanse.privacy import PREPROCESSING, WEIGHTS, Exposures
from hanse.simulation import Simulation

__all__ = ["Disclosure", "describe_open", "rehearse"]


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
    is_poisson = False
    with suppress(StopIteration, RoundAbandoned):
        command = next(program)
        while isinstance(command, Sample | Dispatch):
            event = runtime.perform(command)
            if isinstance(command, Dispatch):
                for part_spec in command.uplink.values():
                    if part_spec.into.hides and not is_poisson:  # whose size is drawn anew in each round
                        part_spec.into.check_number(len(command.cohort))
                releases += exposures.find_releases(command)
                found |= dict.fromkeys(exposures.find_open(command))
            elif isinstance(event, Sampled):
                exposures.see_sample(command, event)
                is_poisson = command.rate is not None
            command = program.send(event)
        if isinstance(command, Collect):
            runtime.coordinator.check(command, strict=True)
    program.close()
    return releases, found


def describe_open(name: str) -> str:
    """Formats what clients send un-noised."""
    known = {PREPROCESSING: "the sums for preprocessing", WEIGHTS: "clients' numbers of examples, as weights"}
    return known.get(name, f"the part {name!r} of messages")
