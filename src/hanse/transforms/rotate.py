"""Sketched updates: a random rotation, before quantising."""

import math

import numpy as np

from hanse.core import Array, InvalidInput, Key, Spec, Stage, Tensors, Transform, value
from hanse.transforms.draws import DrawScope, drawn_stage, per_round
from hanse.transforms.numbers import RealTensors

__all__ = ["rotate"]


@value
class rotate(Transform):
    """Rotates each tensor at random, so that no entry is much larger than others; the server rotates back.

        y = H D x / √B,   x = D H y / √B

    D holds random signs and H is the Hadamard matrix of a block of B entries. Quantising y instead of x
    has an error that grows with log B, not with the number of entries, if few entries are large. The
    entries of a block are spread evenly over the tensor. Those left over at its end are rotated in a last
    block that overlaps the others, so nothing is padded and the shapes stay.

    It takes only additions and one scaling, so the bits are the same on every processor.

    Args:
      block: entries of a block, a power of two; smaller for tensors with fewer entries.
      drawn: `per_round()`; `per_client()` where contributions of several dispatches are folded.
    Runs at: client (encode), server (decode; drawn per client, or after what each client draws for
      itself: open).
    Reveals: nothing more than the reducer does; the rotation is public.
    Spec: real -> real, same shapes and l2_bound; summable if it was and is drawn per round.
    Raises: CompositionError: if given values that are neither real nor sparse.
    References: Suresh et al., "Distributed mean estimation with limited communication", ICML 2017, arXiv
      1611.00429, section 3; Konecny et al., 2016, arXiv 1610.05492, section 3 (structured random rotations).

    >>> from hanse.core import Keys
    >>> from hanse.core import Part
    >>> stage = rotate()(Spec.of({"w": np.zeros(8)}))
    >>> plan = stage.plan(None, Keys.from_seed(0).public)
    >>> spike = Part({"w": np.array([8.0, 0, 0, 0, 0, 0, 0, 0])})
    >>> np.abs(stage.encode(plan, spike, {}, Keys.from_seed(1))[0].values["w"]).round(3)
    array([2.828, 2.828, 2.828, 2.828, 2.828, 2.828, 2.828, 2.828])
    """

    block: int = 4096
    drawn: DrawScope = per_round()

    def __post_init__(self) -> None:
        if self.block < 2 or self.block & (self.block - 1):
            raise InvalidInput(f"rotate(block={self.block}): write a power of two, at least 2")

    @property
    def effect(self) -> str:
        return "rotated at random"

    def __call__(self, spec: Spec) -> Stage:
        numbers = RealTensors.of(self, spec, "real", "sparse")

        def encode(key: Key, values: Tensors) -> Tensors:
            return {n: self._there(key.fold_in(n), v) if n in numbers.real else v for n, v in values.items()}

        def undo(key: Key, values: Tensors) -> Tensors:
            return {n: self._back(key.fold_in(n), v) if n in numbers.real else v for n, v in values.items()}

        return drawn_stage(self.drawn, spec, spec.tensors, undo, encode=encode, l2_bound=spec.l2_bound)

    def _block(self, size: int) -> int:
        return min(self.block, 1 << (size.bit_length() - 1))

    def _there(self, key: Key, tensor: Array) -> Array:
        if not tensor.size:
            return tensor
        block = self._block(tensor.size)
        whole = tensor.size - tensor.size % block
        signs = _signs(key, tensor.size + block)
        x = tensor.reshape(-1) * signs[: tensor.size]
        x[:whole] = _hadamard(x[:whole], block)
        if whole < tensor.size:
            x[-block:] = _hadamard(x[-block:] * signs[tensor.size :], block)
        return x.astype(tensor.dtype, copy=False).reshape(tensor.shape)

    def _back(self, key: Key, tensor: Array) -> Array:
        if not tensor.size:
            return tensor
        block = self._block(tensor.size)
        whole = tensor.size - tensor.size % block
        signs = _signs(key, tensor.size + block)
        x = tensor.flatten()
        if whole < tensor.size:
            x[-block:] = _hadamard(x[-block:], block) * signs[tensor.size :]
        x[:whole] = _hadamard(x[:whole], block)
        x *= signs[: tensor.size]
        return x.reshape(tensor.shape)


def _signs(key: Key, size: int) -> Array:
    """Draws random signs, as int8."""
    words = key.rng().integers(0, 2**64, -(-size // 64), np.uint64)
    bits = np.unpackbits(words.view(np.uint8), count=size).view(np.int8)
    signs: Array = np.int8(1) - np.int8(2) * bits
    return signs


def _hadamard(x: Array, block: int) -> Array:
    """Multiplies entries i, i + n/block, i + 2 n/block, ... by the orthonormal Hadamard matrix."""
    x, y = x.copy(), np.empty_like(x)
    half = x.size // 2
    run = x.size // block
    while run <= half:
        pairs, out = x.reshape(-1, 2, run), y.reshape(-1, 2, run)
        np.add(pairs[:, 0], pairs[:, 1], out=out[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=out[:, 1])
        x, y, run = y, x, run * 2
    x *= x.dtype.type(1 / math.sqrt(block))
    return x
