"""Transforms: both halves of a feature, client's and server's, in one value.

    structured   random_mask, low_rank           the client trains in a small space; first in a chain
    bounds       clip                            needed by privacy
    sketched     subsample, rotate               unbiased and linear: drawn per round they commute with sums
                 quantize                        unbiased
                 top_k, sign                     biased, with error feedback
                 cast                            shorter numbers
    lossless     deflate                         last

Choices that several of them share are values too: who makes a random draw (`per_client()`, `per_round()`),
which entries share a range (`per_tensor()`, `per_block(size)`), and what happens to what is left out
(`error_feedback()`, `none()`). `wire_bytes` measures a model's size after each transform of a chain.
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.transforms.cast import cast
    from hanse.transforms.clip import clip
    from hanse.transforms.deflate import deflate
    from hanse.transforms.draws import DrawScope, per_client, per_round
    from hanse.transforms.low_rank import (
        Factors,
        Layout,
        low_rank,
        out_first,
        out_last,
        train_a,
        train_b,
        train_both,
    )
    from hanse.transforms.mask import random_mask
    from hanse.transforms.quantize import quantize
    from hanse.transforms.ranges import Over, per_block, per_tensor
    from hanse.transforms.residuals import Residual, error_feedback, none
    from hanse.transforms.rotate import rotate
    from hanse.transforms.sign import sign
    from hanse.transforms.sizes import WireSize, wire_bytes
    from hanse.transforms.subsample import subsample
    from hanse.transforms.top_k import top_k
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.transforms.cast": ("cast",),
            "hanse.transforms.clip": ("clip",),
            "hanse.transforms.deflate": ("deflate",),
            "hanse.transforms.draws": ("DrawScope", "per_client", "per_round"),
            "hanse.transforms.low_rank": (
                "Factors",
                "Layout",
                "low_rank",
                "out_first",
                "out_last",
                "train_a",
                "train_b",
                "train_both",
            ),
            "hanse.transforms.mask": ("random_mask",),
            "hanse.transforms.quantize": ("quantize",),
            "hanse.transforms.ranges": ("Over", "per_block", "per_tensor"),
            "hanse.transforms.residuals": ("Residual", "error_feedback", "none"),
            "hanse.transforms.rotate": ("rotate",),
            "hanse.transforms.sign": ("sign",),
            "hanse.transforms.sizes": ("WireSize", "wire_bytes"),
            "hanse.transforms.subsample": ("subsample",),
            "hanse.transforms.top_k": ("top_k",),
        },
        registers={
            "hanse.transforms.draws": ("Redrawn",),
        },
    )

__all__ = [
    "DrawScope",
    "Factors",
    "Layout",
    "Over",
    "Residual",
    "WireSize",
    "cast",
    "clip",
    "deflate",
    "error_feedback",
    "low_rank",
    "none",
    "out_first",
    "out_last",
    "per_block",
    "per_client",
    "per_round",
    "per_tensor",
    "quantize",
    "random_mask",
    "rotate",
    "sign",
    "subsample",
    "top_k",
    "train_a",
    "train_b",
    "train_both",
    "wire_bytes",
]
