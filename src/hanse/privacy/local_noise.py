"""Gaussian noise that a client adds to its own message before anything leaves it."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from hanse.core import (
    ClientKeys,
    CompositionError,
    Key,
    Keys,
    Memory,
    Part,
    Parts,
    Plan,
    Release,
    Spec,
    Stage,
    Tensors,
    Transform,
    check_positive,
    value,
)
from hanse.privacy.noise import add_gaussian

__all__ = ["LOCAL", "local_gaussian"]

LOCAL = "local_gaussian"
"""The name of this noise in the books of a run."""


@value
class local_gaussian(Transform):
    """Adds normal noise to each message at its client, so much that it hides what data the client holds.

        x -> round(x / g) g + round(noise / g) g,   noise ~ N(0, (2 noise_multiplier b)²)

    Here b is the bound that `clip` put on the norm. Two messages of one client, whatever its data, are at
    most 2b apart, so that a noise multiplier means the same as in `gaussian`: the standard deviation divided
    by how far the data move what is released. Rounding to multiples of g is as in `gaussian`. What follows
    changes nothing about the protection, so the message may be rotated, quantised or sparsified afterwards.

    The noise is drawn from the client's secret key and from the message itself: the same message has the
    same noise if it is computed again, and a message from other data has other noise, which does not cancel.

    Args:
      noise_multiplier: the standard deviation of the noise, divided by 2b.
    Runs at: client (encode).
    Reveals: to everybody, the server included, the noised message.
    Spec: real[d] with l2_bound -> real[d] without one.
    Raises: CompositionError: if the messages have no bound.
    References: Kasiviswanathan et al., "What can we learn privately?", FOCS 2008, arXiv 0803.0924; Dwork,
      Roth, "The algorithmic foundations of differential privacy", 2014, Appendix A.

    >>> from hanse.core import Keys
    >>> from hanse.transforms import clip
    >>> stage = local_gaussian(1.0)(clip(1.0)(Spec.of({"w": np.zeros(2)})).out)
    >>> stage.release.noise_multiplier, stage.out.l2_bound
    (1.0, None)
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        check_positive("noise_multiplier", self.noise_multiplier)

    @property
    def effect(self) -> str:
        return f"your client adds noise of {2 * self.noise_multiplier:g} times the largest norm to it"

    def __call__(self, spec: Spec) -> Stage:
        if spec.kind != "real":
            raise CompositionError(
                f"{self} needs real numbers, these are {spec.kind}: put it directly after clip(...), and "
                "what compresses after it"
            )
        if spec.l2_bound is None:
            raise CompositionError(
                f"{self} must know a bound on the client's message: put clip(max_norm) directly before it"
            )
        std = 2 * self.noise_multiplier * spec.l2_bound

        def add(values: Tensors, secret_key: Key) -> Tensors:
            own = secret_key.fold_in(digest_tensors(values))
            return add_gaussian(values, std, own, noise_multiplier=self.noise_multiplier)

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Any]:
            return replace(part, values=add(part.values, keys.secret)), memory

        def encode_many(plan: Plan, parts: Parts, keys: ClientKeys) -> Parts:
            noised = {name: np.empty_like(array) for name, array in parts.values.items()}
            for i in range(len(keys)):
                own = {name: array[i] for name, array in parts.values.items()}
                for name, array in add(own, keys[i].secret).items():
                    noised[name][i] = array
            return replace(parts, values=noised)

        return Stage(
            spec.like(l2_bound=None),
            encode=encode,
            encode_many=encode_many,
            release=Release(LOCAL, self.noise_multiplier),
        )


def digest_tensors(values: Tensors) -> str:
    """Returns a digest of a message or of data, so that noise is never repeated for others."""
    found = hashlib.sha256()
    for name in sorted(values):
        found.update(f"{name} {values[name].dtype.str} {values[name].shape};".encode())
        found.update(np.ascontiguousarray(values[name]).data)
    return found.hexdigest()
