"""Local training for learners that offer a gradient, which is called once a step."""

from abc import ABC

from hanse.core import Array, DifferentiableLearner, LocalProblem, Tensors
from hanse.learners.within import descend_within

__all__ = ["ByGradient"]


class ByGradient(DifferentiableLearner, ABC):
    """A learner whose local steps call `gradient`: exact, and as fast as `gradient` is."""

    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        """Trains locally. See `DifferentiableLearner.local_sgd`."""
        data = problem.data

        def gradient(here: Tensors, rows: Array | slice, number: int) -> Tensors:
            return self.gradient(here, data if isinstance(rows, slice) else data.take(rows))

        return descend_within(params, problem, gradient)
