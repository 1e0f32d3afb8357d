"""The differential privacy of runs: algorithms are protected, budgets checked, and claims made."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.runs.protection.claims import describe_claim
    from hanse.runs.protection.planning import (
        Disclosure,
        check_budget,
        check_separation,
        claim_of,
        plan_claim,
        protect,
        rehearse,
    )
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.runs.protection.claims": ("describe_claim",),
            "hanse.runs.protection.planning": (
                "Disclosure",
                "check_budget",
                "check_separation",
                "claim_of",
                "plan_claim",
                "protect",
                "rehearse",
            ),
        },
    )

__all__ = [
    "Disclosure",
    "check_budget",
    "check_separation",
    "claim_of",
    "describe_claim",
    "plan_claim",
    "protect",
    "rehearse",
]
