"""Liars in a simulation: their data, their messages at its door, and whether a rule caught them."""

from hanse.runs.adversary.backend import LyingBackend
from hanse.runs.adversary.detection import describe_liars, judge_left_out
from hanse.runs.adversary.population import (
    OF_MARKED,
    PoisonedPopulation,
    check_adversary,
    find_parties,
    find_triggers,
    name_marked,
)
from hanse.runs.adversary.runtime import LyingRuntime
from hanse.runs.adversary.tally import LieCount

__all__ = [
    "OF_MARKED",
    "LieCount",
    "LyingBackend",
    "LyingRuntime",
    "PoisonedPopulation",
    "check_adversary",
    "describe_liars",
    "find_parties",
    "find_triggers",
    "judge_left_out",
    "name_marked",
]
