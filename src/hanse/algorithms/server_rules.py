"""Shared parts of algorithms in which the server judges clients by data or a memory of its own."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from hanse.algorithms.client_optimisers import sgd
from hanse.algorithms.local import LocalTraining
from hanse.algorithms.optimisers import OptimiserState, ServerOptimiser, check_server
from hanse.algorithms.own_training import make_training_parts
from hanse.algorithms.schedules import Rate
from hanse.core import (
    CompositionError,
    Key,
    PartSpec,
    PartyId,
    Program,
    RoundAbandoned,
    Spec,
    Tensors,
    Transform,
    add_scaled,
    each,
    gather,
    sample,
    zeros_like,
)
from hanse.core.exchange import Collected, Sample

__all__ = ["TRUSTED", "ServerRule", "combine"]

TRUSTED = "validation"
"""The role whose examples the server trusts by default."""

S = TypeVar("S", bound=OptimiserState)


@dataclass(frozen=True)
class ServerRule(LocalTraining[S], ABC):
    """Local training whose updates the server sees one by one and weights itself.

    Args:
      server_lr: step size on the total of the updates: a number or a schedule.
      server: how the server uses that total: `sgd()`, `momentum()`, `adam()`, ...
      uplink: transforms of the updates, first to last.
      downlink: transforms of the broadcast.
    """

    server_lr: Rate = 1.0
    server: ServerOptimiser = sgd()
    uplink: tuple[Transform, ...] = ()
    downlink: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_server(self.server, self.server_lr)

    @property
    def can_name(self) -> bool:
        """Returns whether it may leave clients out of the total by name."""
        return True

    def collect_updates(self, state: S, key: Key, *, needed: int = 1) -> Program[dict[PartyId, Tensors]]:
        """Trains a cohort, and returns the update of each client that answered in time.

        Args:
          needed: the fewest updates that the algorithm can use.

        Raises:
          CompositionError: if no cohort is as large.
          RoundAbandoned: if fewer answer.
        """
        sampled = yield from sample(key, fraction=self.fraction)
        cohort = sampled.cohort
        self._check_number(Sample(key, fraction=self.fraction).size(sampled.num_clients), needed)
        got: Collected = yield from gather(
            self.work(state.num_rounds),
            cohort,
            {"params": state.params},
            key,
            close=self.close,
            downlink=self.downlink,
            own=None,
            update=PartSpec(Spec.of(state.params), self.uplink, each()),
            **make_training_parts(self.training),
        )
        updates = {party: part.values for party, part in got.by_party("update").items()}
        try:
            self._check_number(len(updates), needed)
        except CompositionError as reason:
            raise RoundAbandoned(str(reason)) from None
        return updates

    def _check_number(self, num_updates: int, needed: int) -> None:
        if num_updates < needed:
            raise CompositionError(
                f"{type(self).__name__} needs at least {needed} contributions, and there are {num_updates}: "
                "ask more clients (fraction), or write a smaller num_byzantine"
            )


def combine(params: Tensors, updates: Mapping[PartyId, Tensors], weights: Mapping[PartyId, float]) -> Tensors:
    """Averages updates by weights that are not negative; those of weight 0 are not read. All 0: no update."""
    total = sum(weights.values())
    mean = zeros_like(params)
    for party, weight in weights.items():
        if weight > 0:
            mean = add_scaled(mean, weight / total, updates[party])
    return mean
