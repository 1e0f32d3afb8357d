"""The differential privacy of runs: algorithms are protected, budgets checked, and claims made."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.runs.protection.central import check_separation
    from hanse.runs.protection.claims import describe_claim
    from hanse.runs.protection.disclosure import Disclosure, rehearse
    from hanse.runs.protection.planning import check_budget, claim_of, plan_claim, protect
    from hanse.runs.protection.secrecy import choose_limbs, choose_metrics_sum, guard_hidden, hide_updates
    from hanse.runs.protection.training import private_training
    from hanse.runs.protection.views import describe_preprocessing, find_views
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.runs.protection.central": ("check_separation",),
            "hanse.runs.protection.claims": ("describe_claim",),
            "hanse.runs.protection.disclosure": ("Disclosure", "rehearse"),
            "hanse.runs.protection.planning": ("check_budget", "claim_of", "plan_claim", "protect"),
            "hanse.runs.protection.secrecy": (
                "choose_limbs",
                "choose_metrics_sum",
                "guard_hidden",
                "hide_updates",
            ),
            "hanse.runs.protection.training": ("private_training",),
            "hanse.runs.protection.views": ("describe_preprocessing", "find_views"),
        },
        registers={},
    )

__all__ = [
    "Disclosure",
    "check_budget",
    "check_separation",
    "choose_limbs",
    "choose_metrics_sum",
    "claim_of",
    "describe_claim",
    "describe_preprocessing",
    "find_views",
    "guard_hidden",
    "hide_updates",
    "plan_claim",
    "private_training",
    "protect",
    "rehearse",
]
