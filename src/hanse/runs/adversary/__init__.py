"""Liars in a simulation: their data, their messages at its door, and whether a rule caught them."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
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
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.runs.adversary.backend": ("LyingBackend",),
            "hanse.runs.adversary.detection": ("describe_liars", "judge_left_out"),
            "hanse.runs.adversary.population": (
                "OF_MARKED",
                "PoisonedPopulation",
                "check_adversary",
                "find_parties",
                "find_triggers",
                "name_marked",
            ),
            "hanse.runs.adversary.runtime": ("LyingRuntime",),
            "hanse.runs.adversary.tally": ("LieCount",),
        },
        registers={
            "hanse.runs.adversary.runtime": ("LyingSnapshot", "LyingChanges"),
            "hanse.runs.adversary.tally": ("Lies",),
        },
    )

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
