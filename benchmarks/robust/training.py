"""What the benchmarks of liars share: a run among liars, down to its last accuracy."""

import os
import platform
from collections.abc import Sequence
from datetime import date
from typing import Any

import hanse
from hanse.algorithms import ClientOptimiser, fed_avg, uniform
from hanse.attacks import Adversary, Attack
from hanse.core import Reducer, Transform

__all__ = ["describe_machine", "train_among_liars"]


def train_among_liars(
    into: Reducer[Any],
    uplink: Sequence[Transform],
    attack: Attack | None,
    *,
    client: ClientOptimiser,
    fraction: float,
    knows: Any = "colluders",
    rounds: int,
    **settings: Any,
) -> float:
    """Returns the accuracy after the last round, in per cent; 0 where training left the finite numbers.

    Args:
      into, uplink: the rule, and what clients do to their updates before it.
      attack: what the liars do; None: nobody lies.
      client: the training of each client; all of them are asked in each round, and count alike.
      fraction: the share of clients that lies.
      knows: what they know, as in `Adversary`.
      settings: of `hanse.run`.
    """
    try:
        result = hanse.run(
            algorithm=fed_avg(
                fraction=1.0, client=client, weighting=uniform(), uplink=tuple(uplink), into=into
            ),
            adversary=None if attack is None else Adversary(attack, fraction, knows=knows),
            rounds=rounds,
            evaluate_every=rounds,
            **settings,
        )
    except hanse.Diverged:
        return 0.0
    return 100 * result.records[-1].metrics.get("accuracy", float("nan"))


def describe_machine() -> dict[str, str]:
    """Describes when and where a benchmark was performed."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return {"date": date.today().isoformat(), "machine": machine}
