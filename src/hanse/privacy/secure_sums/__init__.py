"""Secure sums: the server learns the total of what clients send, and nothing else.

thresholds   find_thresholds               how many neighbours and shares are needed
limbs        limbs                         large numbers as several small ones
ring         make_encoding, encode_parts   real numbers as integers whose sum can't wrap
parties      draw_secrets, deal, mask ...  the protocol, without exchanges
reducers     secure_sum, secure_mean       the protocol as reducers
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.privacy.secure_sums.graph import draw_neighbours
    from hanse.privacy.secure_sums.limbs import limbs
    from hanse.privacy.secure_sums.masks import add_masks
    from hanse.privacy.secure_sums.parties import advertise, deal, draw_secrets, mask, reveal, unmask
    from hanse.privacy.secure_sums.promises import TOLD_BYTES, hash_told
    from hanse.privacy.secure_sums.reducers import SecureReducer, secure_mean, secure_sum
    from hanse.privacy.secure_sums.ring import Encoding, encode_parts, make_encoding, split_total, to_dtype
    from hanse.privacy.secure_sums.thresholds import Assumptions, Thresholds, find_range, find_thresholds
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.privacy.secure_sums.graph": ("draw_neighbours",),
            "hanse.privacy.secure_sums.limbs": ("limbs",),
            "hanse.privacy.secure_sums.masks": ("add_masks",),
            "hanse.privacy.secure_sums.parties": (
                "advertise",
                "deal",
                "draw_secrets",
                "mask",
                "reveal",
                "unmask",
            ),
            "hanse.privacy.secure_sums.promises": (
                "TOLD_BYTES",
                "hash_told",
            ),
            "hanse.privacy.secure_sums.reducers": (
                "SecureReducer",
                "secure_mean",
                "secure_sum",
            ),
            "hanse.privacy.secure_sums.ring": (
                "Encoding",
                "encode_parts",
                "make_encoding",
                "split_total",
                "to_dtype",
            ),
            "hanse.privacy.secure_sums.thresholds": (
                "Assumptions",
                "Thresholds",
                "find_range",
                "find_thresholds",
            ),
        },
        registers={
            "hanse.privacy.secure_sums.reducers": (
                "advertise_keys",
                "deal_shares",
                "mask_parts",
                "confirm_survivors",
                "reveal_shares",
            ),
        },
    )

__all__ = [
    "TOLD_BYTES",
    "Assumptions",
    "Encoding",
    "SecureReducer",
    "Thresholds",
    "add_masks",
    "advertise",
    "deal",
    "draw_neighbours",
    "draw_secrets",
    "encode_parts",
    "find_range",
    "find_thresholds",
    "hash_told",
    "limbs",
    "make_encoding",
    "mask",
    "reveal",
    "secure_mean",
    "secure_sum",
    "split_total",
    "to_dtype",
    "unmask",
]
