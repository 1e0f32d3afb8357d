"""Differential privacy: noise, accounting, and what an epsilon says.

    noise        gaussian                      on a total, drawn by the server
    settings     central                       the server is trusted; the released models are protected
    accounting   compose, compute_epsilon, calibrate
    claims       make_claim                    epsilon with unit, adversary, and what is not covered

Accounting needs the extra `privacy`, which is loaded when it is used.
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.privacy.accounting import calibrate, compose, compute_epsilon, load_accounting
    from hanse.privacy.claim import PrivacyClaim, make_claim
    from hanse.privacy.exposure import Exposures
    from hanse.privacy.models import PREPROCESSING, Privacy, central
    from hanse.privacy.noise import gaussian
    from hanse.privacy.spending import BudgetSpent, Spending, refuse_open
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.privacy.accounting": ("calibrate", "compose", "compute_epsilon", "load_accounting"),
            "hanse.privacy.claim": ("PrivacyClaim", "make_claim"),
            "hanse.privacy.exposure": ("Exposures",),
            "hanse.privacy.models": ("PREPROCESSING", "Privacy", "central"),
            "hanse.privacy.noise": ("gaussian",),
            "hanse.privacy.spending": ("BudgetSpent", "Spending", "refuse_open"),
        },
    )

__all__ = [
    "PREPROCESSING",
    "BudgetSpent",
    "Exposures",
    "Privacy",
    "PrivacyClaim",
    "Spending",
    "calibrate",
    "central",
    "compose",
    "compute_epsilon",
    "gaussian",
    "load_accounting",
    "make_claim",
    "refuse_open",
]
