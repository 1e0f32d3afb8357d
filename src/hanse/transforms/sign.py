"""Sketched updates: one bit an entry."""

from dataclasses import replace

import numpy as np

from hanse.core import (
    ClientKeys,
    Key,
    Keys,
    Memory,
    MessageError,
    Part,
    Parts,
    Plan,
    Spec,
    Stage,
    TensorSpec,
    Transform,
    value,
)
from hanse.transforms.bits import count_bytes
from hanse.transforms.numbers import RealTensors
from hanse.transforms.ranges import Over, per_tensor
from hanse.transforms.residuals import Residual, error_feedback

__all__ = ["sign"]


@value
class sign(Transform):
    """Sends the sign of each entry, and the mean magnitude.

        x̂ = (|x|₁ / d) sign(x),   |x̂ - x|² = (1 - |x|₁² / (d |x|²)) |x|²

    It is biased: with `error_feedback()` the client adds what was left out to its next message. Zero counts
      as
    positive.

    Args:
      over: which entries share a magnitude: `per_tensor()` or `per_block(size)`.
      residual: `error_feedback()` or `none()`.
    Runs at: client (encode; remembers the residual), server (open).
    Reveals: every contribution to the server.
    Spec: real or sparse -> coded, "signs" and "scales"; not summable; no l2_bound.
    Raises: CompositionError: if given values that are neither real nor sparse, or of no fixed shape; if it
      is to remember positions that are redrawn in each round.
    References: Karimireddy, Rebjock, Stich, Jaggi, "Error feedback fixes SignSGD and other gradient
      compression schemes", ICML 2019, arXiv 1901.09847, algorithm 1 (EF-SignSGD).

    >>> stage = sign()(Spec.of({"w": np.zeros(4)}))
    >>> keys = Keys.from_seed(0)
    >>> sent, memory = stage.encode(None, Part({"w": np.array([1.0, -4.0, 2.0, 1.0])}), {}, keys)
    >>> stage.open(None, sent, keys.public).values["w"], memory["residual"]["w"]
    (array([ 2., -2.,  2.,  2.]), array([-1., -2.,  0., -1.]))
    """

    over: Over = per_tensor()
    residual: Residual = error_feedback()

    @property
    def effect(self) -> str:
        return "as signs, in 1 bit a number"

    def __call__(self, spec: Spec) -> Stage:
        numbers = RealTensors.of(self, spec, "real", "sparse")
        num_scales = sum(self.over.num_rows(tensor.size) for tensor in numbers.real.values())
        coded = {
            "signs": TensorSpec((count_bytes(numbers.size, 1),), "uint8"),
            "scales": TensorSpec((num_scales,), numbers.dtype.name),
            **numbers.rest_specs,
        }

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            flat = [part.values[name].reshape(-1) for name in numbers.real]
            means = [np.abs(rows).mean(1, numbers.dtype) for x in flat for rows in self.over.rows(x)]
            negative = [np.zeros(0, bool), *(x < 0 for x in flat)]
            sent = {
                "signs": np.packbits(np.concatenate(negative)),
                "scales": np.concatenate([np.zeros(0, numbers.dtype), *means]),
                **numbers.rest_there(part.values),
            }
            return replace(part, values=sent), memory

        def encode_many(plan: Plan, parts: Parts, keys: ClientKeys) -> Parts | None:
            count, flat = (
                len(parts.weights),
                [parts.values[n].reshape(len(parts.weights), -1) for n in numbers.real],
            )
            if self.over != per_tensor() or any(x.dtype != numbers.dtype for x in flat):
                return None
            means = [np.abs(x).mean(1, keepdims=True) for x in flat if x.size]
            negative = [np.zeros((count, 0), bool), *(x < 0 for x in flat)]
            sent = {
                "signs": np.packbits(np.concatenate(negative, 1), 1),
                "scales": np.concatenate([np.zeros((count, 0), numbers.dtype), *means], 1),
                **numbers.rest_there(parts.values),
            }
            return replace(parts, values=sent)

        def open(plan: Plan, part: Part, client_key: Key) -> Part:
            scales = part.values["scales"]
            if not (np.isfinite(scales) & (scales >= 0)).all():
                raise MessageError("a scale that is negative or not finite; it is a mean of magnitudes")
            negative = np.unpackbits(part.values["signs"], count=numbers.size)
            flat = numbers.dtype.type(1) - numbers.dtype.type(2) * negative.astype(numbers.dtype)
            start = first = 0
            for tensor in numbers.real.values():
                for rows in self.over.rows(flat[start : start + tensor.size]):
                    last = first + len(rows)
                    rows *= scales[first:last, None]
                    first = last
                start += tensor.size
            return replace(part, values={**numbers.split(flat), **numbers.rest_back(part.values)})

        stage = Stage(
            Spec(coded, kind="coded", summable=False), encode=encode, encode_many=encode_many, open=open
        )
        return self.residual.around(self, spec, stage)
