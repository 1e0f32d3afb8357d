"""Transforms: both halves of a feature, client's and server's, in one value."""

from hanse.transforms.clip import clip
from hanse.transforms.mask import random_mask
from hanse.transforms.quantize import quantize

__all__ = ["clip", "quantize", "random_mask"]
