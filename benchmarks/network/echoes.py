"""Algorithms that take means of echoes, in a module of their own: child processes of clients import it."""

from typing import Any

import numpy as np
from crowd import QUICK

from hanse.core import (
    Algorithm,
    Contribution,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    PartyId,
    Program,
    Shared,
    Spec,
    Tensors,
    Work,
    gather,
    sample,
    tree_map,
    value,
)
from hanse.core.exchange import ModelState

EXAMPLES = [0] * 10
"""The data of a client: an echo reads none, but a client's policy wants so many."""


def bind_nothing(plan: Any) -> None:
    """Bind no learner: an echo needs none."""


@value
class echo(Work[Any, Any]):
    """A work that sends an update of the model's size, and computes next to nothing."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        return {"update": Part(tree_map(lambda w: w * w.dtype.type(0.5), shared["params"]))}, memory


@value
class visit(Work[Any, Any]):
    """A work that mixes the model with its party's own numbers, a draw and its count of visits."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        visits = memory.get("visits", 0) + 1
        moved = 0.5 * shared["params"]["w"] + visits * data + keys.public.rng().normal(size=data.shape)
        return {"update": Part({"w": moved})}, {"visits": visits}


class _Echoes(Algorithm[ModelState]):
    """An algorithm whose state is the model."""

    def init(self, params: Tensors, key: Key) -> ModelState:
        return ModelState(params)


@value
class trivial(_Echoes):
    """An algorithm that takes means of echoes."""

    count: int

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        chosen = yield from sample(key, count=self.count)
        return (yield from echoed(state, chosen.cohort, key))


@value
class some_of_them(_Echoes):
    """Means of echoes of clients that wait for work: clients that check in quickly would be late."""

    count: int

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        chosen = yield from sample(key, count=self.count * 13 // 10)
        waiting = [number for number in chosen.cohort if number % QUICK]  # type: ignore[operator]
        return (yield from echoed(state, tuple(waiting[: self.count]), key))


def echoed(state: ModelState, cohort: tuple[PartyId, ...], key: Key) -> Program[ModelState]:
    """Perform one exchange."""
    channel = PartSpec(Spec.of(state.params))
    got = yield from gather(echo(), cohort, {"params": state.params}, key, update=channel)
    return ModelState(dict(got["update"].values))


@value
class part_of_them(_Echoes):
    """An algorithm that takes means of echoes of a fraction of the clients."""

    fraction: float

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        chosen = yield from sample(key, fraction=self.fraction)
        return (yield from echoed(state, chosen.cohort, key))


@value
class keep_tables(Work[Any, Any]):
    """A work that keeps tables of 10 MB, and one of 1 KB; some of them change with each ticket."""

    num_tables: int
    num_changing: int

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        steps = memory.get("steps", np.zeros(128)) + 1
        kept = {"steps": steps}
        for i in range(self.num_tables):
            old = memory.get(f"table{i}")
            changes = old is None or i < self.num_changing
            kept[f"table{i}"] = np.full(1_250_000, i + steps[0]) if changes else old
        return {"n": Part({"n": np.asarray(steps[0])})}, kept


@value
class keeping(_Echoes):
    """An algorithm whose one client keeps tables."""

    num_tables: int
    num_changing: int

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        work = keep_tables(self.num_tables, self.num_changing)
        got = yield from gather(work, (0,), {}, key, n=PartSpec(Spec.of(state.params)))
        return ModelState(dict(got["n"].values))
