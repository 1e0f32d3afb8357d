"""The work of privacy of examples: local steps along noised sums of clipped gradients."""

from typing import Any, Protocol

import numpy as np

from hanse.core import (
    Contribution,
    DifferentiableLearner,
    Examples,
    Keys,
    Memory,
    Part,
    Shared,
    Steps,
    Tensors,
    Work,
    value,
    zeros_like,
)
from hanse.core.exchange import digest
from hanse.privacy.example_budget import ExampleBook, NoisedSteps, examples
from hanse.privacy.local_noise import digest_tensors
from hanse.privacy.noise import add_gaussian

__all__ = ["PRIVATE_PART", "noises_examples", "private_sgd", "take_noised_steps"]

PRIVATE_PART = "update"
"""The part in which it sends what is protected."""

SLACK = 1 + 2.0**-16
"""The factor of the noise for clipped norms that are too large by rounding, as float32 sums are by 1e-6."""


class Weighs(Protocol):
    """A rule for the weight of a client, such as `hanse.algorithms.uniform()`."""

    def of(self, num_examples: int) -> float:
        """Returns the weight of a client with this many examples."""


@value
class private_sgd(Work[DifferentiableLearner, Examples]):
    """Runs DP-SGD from the broadcast "params"; emits "update", own less broadcast. See `examples`.

    The client keeps the book of what it spent in its memory, and declines what would pass its budget. Rows
    and noise follow from its secret, from all that it was asked, and from its data: other data get other
    noise, and are booked.

    Args:
      steps: the local steps; their batch size is the expected one.
      weighting: of the client's update.
      budget: of each client.
      rounds: the number of rounds of the run.
    """

    steps: Steps
    weighting: Any
    budget: examples
    rounds: int

    def cost(self, num_examples: int) -> float:
        return self.steps.count_visits(num_examples)

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        noised = self.budget.choose_steps(len(data), self.steps, self.rounds)
        start = shared["params"]
        # the same noise for other data or another model would cancel out of the difference of two answers
        told = digest(self), digest_tensors(start), digest_tensors({"x": data.x, "y": data.y})
        own = Keys(keys.public, keys.secret.fold_in(*told))
        question = own.secret.fold_in("question").digest.hex()
        book = ExampleBook.find(memory).add(noised, self.budget, question)
        update = take_noised_steps(learner, start, data, self.steps, noised, self.budget.max_norm, own)
        return {PRIVATE_PART: Part(update, self.weighting.of(len(data)))}, book.keep(memory)


def noises_examples(work: Work[Any, Any], part: str) -> bool:
    """Returns whether a work noises this part of its message for each example."""
    return isinstance(work, private_sgd) and part == PRIVATE_PART


def take_noised_steps(
    learner: DifferentiableLearner,
    start: Tensors,
    data: Examples,
    steps: Steps,
    noised: NoisedSteps,
    max_norm: float,
    keys: Keys,
) -> Tensors:
    """Takes a client's noised steps of a round, and returns the update.

    Args:
      keys: rows and noise follow the secret one, which must be another for other data or another start; what
        the model draws in training follows the public one.
    """
    now: Tensors = {name: np.array(w) for name, w in start.items()}
    rates, slots = steps.lr_of(now), steps.rule.start(now)
    expected = noised.rate * len(data)  # fixed: the size of the batch that was drawn would tell more
    std = noised.noise_multiplier * max_norm * SLACK
    for number in range(noised.num_steps):
        public, secret = keys.public.fold_in("step", number), keys.secret.fold_in("step", number)
        rows = secret.fold_in("rows").secret_rng().poisson_sample(len(data), noised.rate)
        total: Tensors = zeros_like(now)  # an empty batch releases noise as any other
        if rows:
            total = learner.clipped_sum(now, data.take(np.array(rows)), max_norm, key=public)
        total = add_gaussian(total, std, secret.fold_in("noise"), noise_multiplier=noised.noise_multiplier)
        regulariser = learner.regulariser_gradient(now)
        gradient = {
            name: np.asarray(
                total[name] / w.dtype.type(expected)
                + regulariser[name]
                + w.dtype.type(steps.proximal) * (w - start[name])
            )
            for name, w in now.items()
        }
        direction, slots = steps.rule.direction(number + 1, now, gradient, slots)
        now = {name: np.asarray(w - w.dtype.type(rates[name]) * direction[name]) for name, w in now.items()}
    return {name: np.asarray(w - start[name]) for name, w in now.items()}
