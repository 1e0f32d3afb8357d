"""The training objective as a metric: the mean loss over all training examples, plus the regulariser.

    F(w) = sum_k n_k F_k(w) / sum_k n_k,   F_k(w) = mean loss at client k + regulariser

It is what convex algorithms minimise, so it says in one run how many rounds lead to a given gap.
"""

import numpy as np

from hanse.algorithms.works import by_examples
from hanse.core import (
    Close,
    Contribution,
    DifferentiableLearner,
    Examples,
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
    TensorSpec,
    Work,
    gather,
    value,
)
from hanse.core.exchange import Evaluate

__all__ = ["OBJECTIVE", "objective_evaluation"]

OBJECTIVE = "objective"
"""The name of the metric."""


@value
class local_objective(Work[DifferentiableLearner, Examples]):
    """Evaluates the client's own objective, regulariser included; emits "objective"."""

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        found = {OBJECTIVE: np.array(learner.objective(shared["params"], data), np.float64)}
        return {OBJECTIVE: Part(found, by_examples().of(len(data)))}, memory


def objective_evaluation(clients: tuple[PartyId, ...]) -> Evaluate:
    """A program that measures the training objective of some clients. All have to answer."""
    part_spec = PartSpec(Spec({OBJECTIVE: TensorSpec((), "float64")}))
    everybody = Close(minimum_fraction=1.0)

    def measure(params: Tensors, key: Key) -> Program[dict[str, float]]:
        shared = {"params": params}
        got = yield from gather(local_objective(), clients, shared, key, close=everybody, objective=part_spec)
        return {OBJECTIVE: float(got[OBJECTIVE].values[OBJECTIVE])}

    return measure
