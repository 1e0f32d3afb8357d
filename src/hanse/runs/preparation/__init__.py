"""Preparing an experiment: its data, its measures, what its server trusts, and all checks before it runs."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.runs.preparation.assessing import assess_model
    from hanse.runs.preparation.comparing import Turnout, compare_run, find_guess
    from hanse.runs.preparation.data import client_tests, load_population
    from hanse.runs.preparation.prepare import prepare_run
    from hanse.runs.preparation.prepared import Prepared
    from hanse.runs.preparation.served_rows import ServedRows
    from hanse.runs.preparation.trusted import find_led
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.runs.preparation.assessing": ("assess_model",),
            "hanse.runs.preparation.comparing": (
                "Turnout",
                "compare_run",
                "find_guess",
            ),
            "hanse.runs.preparation.data": (
                "client_tests",
                "load_population",
            ),
            "hanse.runs.preparation.prepare": ("prepare_run",),
            "hanse.runs.preparation.prepared": ("Prepared",),
            "hanse.runs.preparation.served_rows": ("ServedRows",),
            "hanse.runs.preparation.trusted": ("find_led",),
        },
    )

__all__ = [
    "Prepared",
    "ServedRows",
    "Turnout",
    "assess_model",
    "client_tests",
    "compare_run",
    "find_guess",
    "find_led",
    "load_population",
    "prepare_run",
]
