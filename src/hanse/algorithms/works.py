"""Works that several algorithms share, and the exchange that carries them to a cohort."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from hanse.core import (
    Close,
    CompositionError,
    Contribution,
    DifferentiableLearner,
    Examples,
    Key,
    Keys,
    Learner,
    LocalProblem,
    Memory,
    Part,
    Parts,
    PartSpec,
    PartyId,
    Program,
    Reducer,
    RoundAbandoned,
    Shared,
    Spec,
    Steps,
    Tensors,
    TensorSpec,
    Transform,
    Work,
    gather,
    value,
)
from hanse.core import sum as sum_
from hanse.core.exchange import Collected, Evaluate, Sample, Sampled

__all__ = [
    "Weighting",
    "batch_gradient",
    "by_examples",
    "draw_batch",
    "evaluate",
    "evaluation",
    "exchange",
    "gradient",
    "local_sgd",
    "make_update_part",
    "uniform",
]


class Weighting(ABC):
    """The weight of a client in a mean or sum."""

    largest: ClassVar[float | None] = None
    """The largest weight of any client; None: there is none, so no noise hides a client in a sum."""

    @abstractmethod
    def of(self, num_examples: int) -> float:
        """Returns the weight of a client with this many examples."""


@value
class by_examples(Weighting):
    """Weights in proportion to the clients' examples: every example counts alike."""

    def of(self, num_examples: int) -> float:
        return float(num_examples)


@value
class uniform(Weighting):
    """Equal weights: every client counts alike."""

    largest: ClassVar[float | None] = 1.0

    def of(self, num_examples: int) -> float:
        return 1.0


@value
class local_sgd(Work[DifferentiableLearner, Examples]):
    """Runs stochastic gradient descent from the broadcast "params"; emits "update", own less broadcast."""

    trains_within = frozenset({"update"})

    steps: Steps
    weighting: Weighting = by_examples()

    def cost(self, num_examples: int) -> float:
        return self.steps.count_visits(num_examples)

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        space = shared.spaces.get("update")
        problem = LocalProblem(data, self.steps, keys.public, space=space)
        update = learner.local_sgd(shared["params"], problem)
        return {"update": Part(update, self.weighting.of(len(data)))}, memory

    def many(
        self, learner: DifferentiableLearner, shared: Shared, data: Sequence[Examples], keys: Sequence[Key]
    ) -> Mapping[str, Parts] | None:
        problems = [LocalProblem(examples, self.steps, key) for examples, key in zip(data, keys, strict=True)]
        updates = learner.local_sgd_many(shared["params"], problems)
        if updates is None:
            return None
        weights = np.array([self.weighting.of(len(examples)) for examples in data], np.float64)
        return {"update": Parts(updates, weights)}


@value
class gradient(Work[DifferentiableLearner, Examples]):
    """Computes the gradient of the client's objective at the broadcast "params"; emits "gradient"."""

    weighting: Weighting = by_examples()

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        gradient = learner.gradient(shared["params"], data)
        return {"gradient": Part(gradient, self.weighting.of(len(data)))}, memory


def draw_batch(data: Examples, batch_size: int | None, key: Key) -> Examples:
    """Draws the first batch of an epoch, as local steps do; None: all examples."""
    if batch_size is None or batch_size >= len(data):
        return data
    return data.take(key.fold_in("epoch", 0).rng().permutation(len(data))[:batch_size])


@value
class batch_gradient(Work[DifferentiableLearner, Examples]):
    """Computes the gradient on one random batch at the broadcast "params"; emits "gradient", of weight 1."""

    batch_size: int | None

    def __post_init__(self) -> None:
        Steps(1.0, batch_size=self.batch_size)

    def cost(self, num_examples: int) -> float:
        return float(min(num_examples, self.batch_size or num_examples))

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        batch = draw_batch(data, self.batch_size, keys.public)
        return {"gradient": Part(learner.gradient(shared["params"], batch))}, memory


def exchange(
    work: Work[Any, Any],
    shared: Mapping[str, Tensors],
    key: Key,
    *,
    fraction: float | None,
    rate: float | None = None,
    without: tuple[PartyId, ...] = (),
    close: Close = Close(),
    downlink: tuple[Transform, ...] = (),
    **uplink: PartSpec,
) -> Program[Collected]:
    """Broadcasts to a random cohort and gathers its answers. For how it is chosen, see `Sample`."""
    chosen = yield Sample(key, fraction=fraction, rate=rate, without=without)
    assert isinstance(chosen, Sampled)
    if not chosen.cohort and rate is None:
        resting = f" {len(without)} of them rest," if without else ""
        raise RoundAbandoned(
            f"none of {chosen.num_clients} clients is free:{resting} others are busy or away"
        )
    return (
        yield from gather(
            work, chosen.cohort, shared, key, close=close, downlink=downlink, own=None, **uplink
        )
    )


def make_update_part(
    params: Tensors, uplink: tuple[Transform, ...], into: Reducer[Any], weighting: Weighting
) -> PartSpec:
    """Makes the part in which clients send updates, with a bound on weights if noise is to hide each client.

    Raises: CompositionError: if the weights have no bound then.
    """
    part = PartSpec(Spec.of(params), uplink, into)
    chain = part.chain() if uplink else None
    if chain is None or not chain.releases:
        return part
    if weighting.largest is None and chain.calibrated is None:
        raise CompositionError(
            f"{type(weighting).__name__}() would send the number of a client's examples without noise, "
            "beside the update that it noises: write weighting = uniform()"
        )
    if weighting.largest is None:
        raise CompositionError(
            f"{type(weighting).__name__}() weights updates after they are clipped, so that a client moves "
            "their sum by as much as it has examples, and no noise is calibrated to that: write "
            "weighting = uniform()"
        )
    return replace(part, max_weight=weighting.largest)


@value
class evaluate(Work[Learner, Examples]):
    """Sums the learner's metrics over the party's examples; emits "metrics"."""

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        sums = learner.evaluate(shared["params"], data)
        return {"metrics": Part({name: np.asarray(v, np.float64) for name, v in sums.items()})}, memory


def evaluation(
    learner: Learner,
    parties: tuple[PartyId, ...] = ("server",),
    into: Reducer[Any] = sum_(),
    uplink: tuple[Transform, ...] = (),
) -> Evaluate:
    """A program that measures parameters over the examples of some parties; `into` adds their metrics up.

    `uplink`: transforms that metrics pass on their way.
    """
    names = (*learner.metrics, "count")
    part_spec = PartSpec(Spec({name: TensorSpec((), "float64") for name in names}), uplink, into=into)

    def measure(params: Tensors, key: Key) -> Program[dict[str, float]]:
        got = yield from gather(evaluate(), parties, {"params": params}, key, metrics=part_spec)
        return learner.summarise({name: float(total) for name, total in got["metrics"].values.items()})

    return measure
