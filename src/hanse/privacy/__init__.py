"""Differential privacy: noise, accounting, and what an epsilon says.

    noise        gaussian, tree, banded        on a total, by the server: fresh, or correlated over rounds
                 local_gaussian                on a message, by its client before it leaves
                 skellam                       a share at each client, within a sum that hides single messages
    clipping     adaptive_clip                 to a norm that follows the updates
    settings     central                       the server is trusted; the released models are protected
                 local                         nobody is trusted; all that leaves a client is protected
                 examples                      each example of a client, against everybody else (DP-SGD)
    accounting   compose, compute_epsilon, calibrate
    claims       make_claim                    epsilon with unit, adversary, and what is not covered
    audits       audit_guesses                 a lower bound on epsilon, from guesses about canaries
    views        describe_views                who sees what of a part, in words
    encryption   encrypted_sum, encrypted_mean sums that a key holder beside the server decrypts

Accounting needs the extra `privacy`, and encryption the extra `encryption`; each is loaded when it is used.
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.privacy.accounting import (
        Trust,
        calibrate,
        classify_noise,
        compose,
        compute_epsilon,
        load_accounting,
        read_books,
    )
    from hanse.privacy.audit import FEWEST_CANARIES, CanaryAudit, audit_guesses, bound_epsilon
    from hanse.privacy.claim import PrivacyClaim, make_claim
    from hanse.privacy.clipping import adaptive_clip
    from hanse.privacy.correlated import CorrelatedNoise, banded, tree
    from hanse.privacy.encryption import KEY_HOLDER, bfv, encrypted_mean, encrypted_sum
    from hanse.privacy.example_budget import ExampleBook, NoisedSteps, examples
    from hanse.privacy.example_claim import WEIGHTS, ExampleClaim, guard_examples, make_example_claim
    from hanse.privacy.example_steps import PRIVATE_PART, noises_examples, private_sgd, take_noised_steps
    from hanse.privacy.exposure import Exposures
    from hanse.privacy.local_noise import LOCAL, local_gaussian
    from hanse.privacy.models import PREPROCESSING, Privacy, central, local
    from hanse.privacy.noise import gaussian
    from hanse.privacy.participation import find_separation, keep_separation
    from hanse.privacy.skellam_noise import skellam
    from hanse.privacy.spending import BudgetSpent, Spending, refuse_open
    from hanse.privacy.views import View, describe_views
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.privacy.accounting": (
                "Trust",
                "calibrate",
                "classify_noise",
                "compose",
                "compute_epsilon",
                "load_accounting",
                "read_books",
            ),
            "hanse.privacy.audit": ("FEWEST_CANARIES", "CanaryAudit", "audit_guesses", "bound_epsilon"),
            "hanse.privacy.clipping": ("adaptive_clip",),
            "hanse.privacy.claim": ("PrivacyClaim", "make_claim"),
            "hanse.privacy.correlated": ("CorrelatedNoise", "banded", "tree"),
            "hanse.privacy.exposure": ("Exposures",),
            "hanse.privacy.local_noise": ("LOCAL", "local_gaussian"),
            "hanse.privacy.models": ("PREPROCESSING", "Privacy", "central", "local"),
            "hanse.privacy.noise": ("gaussian",),
            "hanse.privacy.participation": ("find_separation", "keep_separation"),
            "hanse.privacy.example_claim": (
                "WEIGHTS",
                "ExampleClaim",
                "guard_examples",
                "make_example_claim",
            ),
            "hanse.privacy.example_budget": ("ExampleBook", "NoisedSteps", "examples"),
            "hanse.privacy.example_steps": (
                "PRIVATE_PART",
                "noises_examples",
                "private_sgd",
                "take_noised_steps",
            ),
            "hanse.privacy.encryption": ("KEY_HOLDER", "bfv", "encrypted_mean", "encrypted_sum"),
            "hanse.privacy.skellam_noise": ("skellam",),
            "hanse.privacy.spending": ("BudgetSpent", "Spending", "refuse_open"),
            "hanse.privacy.views": ("View", "describe_views"),
        },
        registers={
            "hanse.privacy.correlated": ("Draws",),
        },
    )

__all__ = [
    "FEWEST_CANARIES",
    "KEY_HOLDER",
    "LOCAL",
    "PREPROCESSING",
    "PRIVATE_PART",
    "WEIGHTS",
    "BudgetSpent",
    "CanaryAudit",
    "CorrelatedNoise",
    "ExampleBook",
    "ExampleClaim",
    "Exposures",
    "NoisedSteps",
    "Privacy",
    "PrivacyClaim",
    "Spending",
    "Trust",
    "View",
    "adaptive_clip",
    "audit_guesses",
    "banded",
    "bfv",
    "bound_epsilon",
    "calibrate",
    "central",
    "classify_noise",
    "compose",
    "compute_epsilon",
    "describe_views",
    "encrypted_mean",
    "encrypted_sum",
    "examples",
    "find_separation",
    "gaussian",
    "guard_examples",
    "keep_separation",
    "load_accounting",
    "local",
    "local_gaussian",
    "make_claim",
    "make_example_claim",
    "noises_examples",
    "private_sgd",
    "read_books",
    "refuse_open",
    "skellam",
    "take_noised_steps",
    "tree",
]
