"""An algorithm whose model stays at the clients: the server has no parameters that could be evaluated."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hanse.core import (
    Algorithm,
    Contribution,
    Examples,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    Tensors,
    Work,
    gather,
    sample,
    sum,
    value,
)

HEAD = "head"
SPEC = Spec.of({"error": np.zeros(()), "close": np.zeros(()), "count": np.zeros(())})


@value
class move_head(Work[Any, Examples]):
    """Moves a client's own number towards the mean of its labels."""

    share: float

    def run(
        self, learner: Any, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        head = memory.get(HEAD, 0.0)
        moved = self.share * (float(data.y.mean()) - head)
        return {"moved": Part({"by": np.array(abs(moved))})}, {**memory, HEAD: head + moved}


@value
class measure_kept_head(Work[Any, Examples]):
    """Measures how far it is from the mean."""

    def run(
        self, learner: Any, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        error = abs(float(data.y.mean()) - memory.get(HEAD, 0.0))
        sums = {"error": error, "close": float(error < 1.0), "count": 1.0}
        return {"sums": Part({name: np.array(number) for name, number in sums.items()})}, memory


@value
class Heads:
    """What the server knows: nothing of the model, but how far the heads moved."""

    params: Tensors
    moved: float | None = None


@value
class own_heads(Algorithm[Heads]):
    """Each client keeps a number of its own.

    Args:
      finishes: whether the heads take one whole step at the end.
      also: a name under which it reports how far the heads moved.
    """

    measured = ("agreement", "error")
    higher_is_better = frozenset({"agreement"})

    finishes: bool = False
    also: str = "moved"

    def init(self, params: Tensors, key: Key) -> Heads:
        return Heads({})

    def round(self, state: Heads, key: Key) -> Program[Heads]:
        return self._move(state, key, 0.25)

    def finish(self, state: Heads, key: Key) -> Program[Heads] | None:
        return self._move(state, key, 1.0) if self.finishes else None

    def _move(self, state: Heads, key: Key, share: float) -> Program[Heads]:
        cohort = (yield from sample(key, fraction=1.0)).cohort
        part = PartSpec(Spec.of({"by": np.zeros(())}), into=sum())
        got = yield from gather(move_head(share), cohort, {}, key, moved=part)
        return replace(state, moved=float(got["moved"].values["by"]))

    def measure(self, state: Heads, key: Key) -> Program[Mapping[str, float]]:
        cohort = (yield from sample(key, fraction=1.0)).cohort
        got = yield from gather(measure_kept_head(), cohort, {}, key, sums=PartSpec(SPEC, into=sum()))
        sums = {name: float(number) for name, number in got["sums"].values.items()}
        return {"agreement": sums["close"] / sums["count"], "error": sums["error"] / sums["count"]}

    def metrics(self, state: Heads) -> Mapping[str, float]:
        return {} if state.moved is None else {self.also: state.moved}
