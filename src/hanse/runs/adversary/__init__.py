"""Liars in a simulation: their data, their messages at its door, and whether a rule caught them."""

from hanse.runs.adversary.backend import LyingBackend
from hanse.runs.adversary.detection import describe_liars, judge_left_out
from hanse.runs.adversary.population import MARKED, PoisonedPopulation, check_adversary, find_parties
from hanse.runs.adversary.tally import LieCount

__all__ = [
    "MARKED",
    "LieCount",
    "LyingBackend",
    "PoisonedPopulation",
    "check_adversary",
    "describe_liars",
    "find_parties",
    "judge_left_out",
]
