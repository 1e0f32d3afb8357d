"""A helper of `own_fair`, in the same folder."""

from hanse.core import Tensors, dot


def squared_norm(tensors: Tensors) -> float:
    return float(dot(tensors, tensors))
