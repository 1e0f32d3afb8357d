"""What several algorithms share: works, the exchange that carries them to a cohort, and steps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hanse.core.algorithm import Evaluate
from hanse.core.chain import Transform
from hanse.core.keys import Key, Keys
from hanse.core.learner import Examples, Learner, Steps
from hanse.core.program import Channel, Close, Collected, Program, gather, sample
from hanse.core.reducers import sum as sum_
from hanse.core.spec import Spec, TensorSpec
from hanse.core.tensors import Tensors, tree_map
from hanse.core.values import value
from hanse.core.work import Contribution, Memory, Part, Parts, PartyId, Shared, Work

__all__ = [
    "Weighting",
    "by_examples",
    "evaluate",
    "evaluation",
    "exchange",
    "gradient",
    "local_sgd",
    "moved",
    "uniform",
]


class Weighting(ABC):
    """How much a client counts."""

    @abstractmethod
    def of(self, num_examples: int) -> float:
        """The weight of a client with so many examples."""


@value
class by_examples(Weighting):
    """In proportion to its examples: every example counts alike."""

    def of(self, num_examples: int) -> float:
        return float(num_examples)


@value
class uniform(Weighting):
    """Every client counts alike."""

    def of(self, num_examples: int) -> float:
        return 1.0


@value
class local_sgd(Work[Learner, Examples]):
    """Stochastic gradient descent from the broadcast "params"; emits "update", own less broadcast."""

    trains_within = frozenset({"update"})

    steps: Steps
    weighting: Weighting = by_examples()

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        space = shared.spaces.get("update")
        update = learner.local_sgd(shared["params"], data, self.steps, keys.public, space=space)
        return {"update": Part(update, self.weighting.of(len(data)))}, memory

    def many(
        self, learner: Learner, shared: Shared, data: Sequence[Examples], keys: Sequence[Key]
    ) -> Mapping[str, Parts] | None:
        updates = learner.local_sgd_many(shared["params"], data, self.steps, keys)
        if updates is None:
            return None
        weights = np.array([self.weighting.of(len(examples)) for examples in data], np.float64)
        return {"update": Parts(updates, weights)}


@value
class gradient(Work[Learner, Examples]):
    """The gradient of the client's objective at the broadcast "params"; emits "gradient"."""

    weighting: Weighting = by_examples()

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        slope = learner.gradient(shared["params"], data)
        return {"gradient": Part(slope, self.weighting.of(len(data)))}, memory


def exchange(
    work: Work[Any, Any],
    shared: Mapping[str, Tensors],
    key: Key,
    *,
    fraction: float,
    close: Close = Close(),
    downlink: tuple[Transform, ...] = (),
    **uplink: Channel,
) -> Program[Collected]:
    """Broadcasts to a random fraction of the clients and gathers what they answer."""
    chosen = yield from sample(key, fraction=fraction)
    return (yield from gather(work, chosen.cohort, shared, key, close=close, downlink=downlink, **uplink))


def moved(params: Tensors, direction: Tensors, step: float = 1.0) -> Tensors:
    """params + step * direction, in the dtypes of the parameters."""
    return tree_map(lambda w, d: w + w.dtype.type(step) * d, params, direction)


@value
class evaluate(Work[Learner, Examples]):
    """Sums of the learner's metrics over the party's examples; emits "metrics"."""

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        sums = learner.evaluate(shared["params"], data)
        return {"metrics": Part({name: np.asarray(v, np.float64) for name, v in sums.items()})}, memory


MEANS = {"correct": "accuracy"}
"""What the mean of a sum over examples is called, where it has a name of its own."""


def evaluation(learner: Learner, parties: tuple[PartyId, ...] = ("server",)) -> Evaluate:
    """A program that measures parameters over the examples of some parties: means of metrics."""
    names = (*learner.metrics, "count")
    channel = Channel(Spec({name: TensorSpec((), "float64") for name in names}), into=sum_())

    def measure(params: Tensors, key: Key) -> Program[dict[str, float]]:
        got = yield from gather(evaluate(), parties, {"params": params}, key, metrics=channel)
        sums = got["metrics"].values
        return {MEANS.get(name, name): float(sums[name] / sums["count"]) for name in learner.metrics}

    return measure
