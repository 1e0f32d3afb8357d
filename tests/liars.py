"""A client that skips its clipping, in a module that worker processes find."""

from dataclasses import replace
from typing import Any

import numpy as np
from support import KEYS

from hanse.core import (
    ClientKeys,
    Examples,
    Keys,
    Memory,
    Part,
    Parts,
    Spec,
    Stage,
    Transform,
    tree_map,
    value,
)
from hanse.data import FederatedData, from_clients
from hanse.learners import softmax
from hanse.simulation import ClientBackend, InProcess
from hanse.transforms import clip

NUM_CLIENTS, LIAR = 11, 6
SIZES = [4 + 3 * number for number in range(NUM_CLIENTS)]
"""Each client is known by its number of examples, which is its weight."""


def population() -> FederatedData:
    rng = np.random.default_rng(3)
    return from_clients([Examples(rng.normal(size=(n, 4)), np.arange(n) % 3) for n in SIZES])


@value
class loose_clip(Transform):
    """Clips as `clip` does, except that one client then sends a hundred times as much."""

    max_norm: float

    def __call__(self, spec: Spec) -> Stage:
        honest = clip(self.max_norm)(spec)
        encode, encode_many = honest.encode, honest.encode_many
        assert encode is not None
        assert encode_many is not None

        def lie(plan: Any, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Any]:
            sent, kept = encode(plan, part, memory, keys)
            factor = _factor(np.array([part.weight]))[0]
            return replace(sent, values=tree_map(lambda v: v * v.dtype.type(factor), sent.values)), kept

        def lie_many(plan: Any, parts: Parts, keys: ClientKeys) -> Parts | None:
            sent, factors = encode_many(plan, parts, keys), _factor(parts.weights)
            assert sent is not None
            return replace(
                sent,
                values=tree_map(
                    lambda v: v * factors.astype(v.dtype).reshape(-1, *[1] * (v.ndim - 1)), sent.values
                ),
            )

        return replace(honest, encode=lie, encode_many=lie_many)


def _factor(weights: Any) -> Any:
    return np.where(weights == SIZES[LIAR], 100.0, 1.0)


def bound() -> Any:
    return softmax().bind((4,), 3)


def make(together: bool = False) -> ClientBackend:
    """Build the backend of one process."""
    return InProcess(bound(), population(), KEYS, together=together)
