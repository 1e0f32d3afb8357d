"""Attacks: what clients do that lie. They are for simulations, which measure what a rule withstands.

    on labels        label_flip, random_labels
    on messages      sign_flip, scaled_mean, random_update, zero_update, free_rider
    in collusion     alie, inner_product, min_max, mimic, adaptive
    backdoors        pixel_backdoor, semantic_backdoor, model_replacement, constrain_and_scale
    in some rounds   intermittent

An `Adversary` says who lies and how: `hanse.run(adversary=Adversary(scaled_mean(-3.0), fraction=0.2))`.
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.attacks.adversary import Adversary
    from hanse.attacks.attack import Attack, Collusion
    from hanse.attacks.backdoors import (
        constrain_and_scale,
        model_replacement,
        pixel_backdoor,
        semantic_backdoor,
    )
    from hanse.attacks.colluding import adaptive, alie, inner_product, mimic, min_max
    from hanse.attacks.intermittent import intermittent
    from hanse.attacks.labels import label_flip, random_labels
    from hanse.attacks.messages import free_rider, random_update, scaled_mean, sign_flip, zero_update
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.attacks.adversary": ("Adversary",),
            "hanse.attacks.attack": ("Attack", "Collusion"),
            "hanse.attacks.backdoors": (
                "constrain_and_scale",
                "model_replacement",
                "pixel_backdoor",
                "semantic_backdoor",
            ),
            "hanse.attacks.colluding": ("adaptive", "alie", "inner_product", "mimic", "min_max"),
            "hanse.attacks.intermittent": ("intermittent",),
            "hanse.attacks.labels": ("label_flip", "random_labels"),
            "hanse.attacks.messages": (
                "free_rider",
                "random_update",
                "scaled_mean",
                "sign_flip",
                "zero_update",
            ),
        },
        registers={},
    )

__all__ = [
    "Adversary",
    "Attack",
    "Collusion",
    "adaptive",
    "alie",
    "constrain_and_scale",
    "free_rider",
    "inner_product",
    "intermittent",
    "label_flip",
    "mimic",
    "min_max",
    "model_replacement",
    "pixel_backdoor",
    "random_labels",
    "random_update",
    "scaled_mean",
    "semantic_backdoor",
    "sign_flip",
    "zero_update",
]
