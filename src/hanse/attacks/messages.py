"""Attacks on messages that need no search."""

import math
from collections.abc import Mapping

import numpy as np

from hanse.attacks.attack import Attack, Collusion
from hanse.core import (
    Array,
    InvalidInput,
    Part,
    Tensors,
    check_not_negative,
    check_positive,
    negate,
    value,
    zeros_like,
)

__all__ = ["free_rider", "random_update", "scaled_mean", "sign_flip", "zero_update"]


@value
class sign_flip(Attack):
    """Sends the liar's own honest message with the opposite sign."""

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        return tuple(Part(negate(part.values), part.weight) for part in seen.own)


@value
class zero_update(Attack):
    """Sends zeros, as a client does that has learned nothing."""

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        return tuple(Part(zeros_like(part.values), part.weight) for part in seen.own)


@value
class scaled_mean(Attack):
    """Sends the mean of the honest messages times a factor, which a mean of all then follows backwards.

    Args:
      factor: such as -3; with f of n clients lying, the mean turns around below -(n - f)/f.
    """

    factor: float = -3.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.factor):
            raise InvalidInput(f"factor is {self.factor}; write a finite number, such as -3")

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        return seen.send(self.factor * seen.rows.mean(axis=0))


@value
class random_update(Attack):
    """Sends normal numbers, others for each liar.

    Args:
      deviation: their standard deviation.
    """

    deviation: float = 10.0

    def __post_init__(self) -> None:
        check_positive("deviation", self.deviation)

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        rng, size = seen.key.rng(), seen.rows.shape[1]
        return seen.send_each(list(self.deviation * rng.standard_normal((seen.num_liars, size))))


@value
class free_rider(Attack):
    """Trains nothing, and sends what looks like an update: the last step of the model, with a little noise.

        w - w before + noise,   since the liar was asked before;  only noise the first time

    It repeats the step only in parts called "update", and only if the whole model is broadcast; otherwise it
    sends noise.

    Args:
      deviation: the standard deviation of the noise.
    References: Lin, Du, Liu, "Free-riders in federated learning: attacks and defenses", 2019,
      arXiv 1911.12560.
    """

    deviation: float = 1e-3

    def __post_init__(self) -> None:
        check_not_negative("deviation", self.deviation)

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        rng, size = seen.key.rng(), seen.rows.shape[1]
        noise = self.deviation * rng.standard_normal((seen.num_liars, size))
        steps = [self._find_step(seen, memory) for memory in seen.memory]
        return seen.send_each([step + own for step, own in zip(steps, noise, strict=True)])

    def _find_step(self, seen: Collusion, memory: Mapping[str, Tensors]) -> Array:
        if "params" not in memory or "params" not in seen.shared:
            return np.zeros(seen.rows.shape[1])
        return seen.flatten(seen.shared["params"]) - seen.flatten(memory["params"])

    def remember(self, seen: Collusion) -> Mapping[str, Tensors]:
        return {"params": seen.shared["params"]} if seen.part == "update" and "params" in seen.shared else {}
