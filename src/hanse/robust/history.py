"""Transforms that rules with a memory need: momentum at the clients, and the total of the round before.

Karimireddy, He, Jaggi, "Learning from history for Byzantine robust optimization", ICML 2021, arXiv
2012.10333.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from hanse.core import (
    CompositionError,
    Key,
    Keys,
    Memory,
    Part,
    Plan,
    Spec,
    Stage,
    Total,
    Transform,
    add,
    add_scaled,
    check_below_one,
    scale,
    subtract,
    value,
)

__all__ = ["recentre", "worker_momentum"]


@value
class worker_momentum(Transform):
    """Sends a client's moving mean of its updates in place of the update.

        m <- beta m + (1 - beta) x,   m = x at first

    The mean over rounds lessens what honest clients differ in by chance, in which liars hide. A client keeps
    m and goes on from it when it is asked again; a message that is not counted leaves it as it was. Put it
    first.

    Args:
      beta: how much of the last mean is kept, from 0 to below 1.
    Runs at: client (encode), with memory. Commutes with sums.
    Reveals: nothing more than the reducer does.
    Spec: real -> real; l2_bound unchanged, if all updates of a client keep it.
    Raises: CompositionError: if given values that are not floating-point numbers.
    References: Karimireddy et al., ICML 2021, arXiv 2012.10333, Algorithm 1.
    """

    beta: float = 0.9

    def __post_init__(self) -> None:
        check_below_one("beta", self.beta)

    @property
    def effect(self) -> str:
        return f"averaged with the client's earlier ones (momentum {self.beta:g})"

    def __call__(self, spec: Spec) -> Stage:
        _check_real(self, spec)

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            mean = part.values
            if "mean" in memory:
                mean = add_scaled(scale(memory["mean"], self.beta), 1 - self.beta, mean)
            return replace(part, values=mean), {"mean": mean}

        return Stage(spec, encode=encode)


@value
class recentre(Transform):
    """Takes the total of the round before away from each message, and adds it again to the new total.

        x -> x - v;   v <- v + total,   v = 0 at first

    Before `centred_clipping()` it makes v its centre, as in the paper. v is the server's state. It is
    broadcast with each round, which doubles the bytes down; it tells nothing new to who sees each model. Put
    it behind `worker_momentum()`, and before what makes messages smaller.

    Runs at: client (encode), server (decode). Commutes with means, and not with sums.
    Reveals: nothing more than the reducer does.
    Spec: real -> real; l2_bound is lost.
    Raises: CompositionError: if given values that are not floating-point numbers.
    References: Karimireddy et al., ICML 2021, arXiv 2012.10333, Algorithm 2.
    """

    @property
    def effect(self) -> str:
        return "less the total of the round before"

    def __call__(self, spec: Spec) -> Stage:
        _check_real(self, spec)
        zero = {name: np.zeros(tuple(map(int, t.shape)), t.dtype) for name, t in spec.tensors.items()}

        def plan(state: Any, key: Key) -> Plan:
            return state

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            return replace(part, values=subtract(part.values, plan)), memory

        def decode(state: Any, plan: Plan, total: Total, key: Key) -> tuple[Total, Any]:
            centre = add(plan, total.values)
            return replace(total, values=centre), centre

        return Stage(spec.like(l2_bound=None), init=zero, plan=plan, encode=encode, decode=decode)


def _check_real(transform: Transform, spec: Spec) -> None:
    bad = [n for n, t in spec.tensors.items() if np.dtype(t.dtype).kind != "f" or t.num_values is None]
    if spec.kind != "real" or bad:
        what = f"{bad[0]!r} is {spec.tensors[bad[0]].dtype}" if bad else f"these are {spec.kind}"
        raise CompositionError(f"{transform} needs floating-point tensors, {what}: put it first")
