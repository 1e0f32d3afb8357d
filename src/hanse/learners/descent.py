"""Local descent for learners that offer a gradient, which is called once a step."""

from abc import ABC

from hanse.core import Array, Examples, Key, Learner, Space, Steps, Tensors
from hanse.core.exchange import Everything
from hanse.learners.model import batches
from hanse.learners.within import descend_within

__all__ = ["ByGradient"]


class ByGradient(Learner, ABC):
    """A learner whose local steps call `gradient`: exact, and as fast as `gradient` is."""

    def local_sgd(
        self,
        params: Tensors,
        data: Examples,
        steps: Steps,
        key: Key,
        *,
        offset: Tensors | None = None,
        space: Space | None = None,
    ) -> Tensors:
        """Local stochastic gradient descent. See `Learner.local_sgd`."""

        def gradient(here: Tensors, rows: Array | slice, number: int) -> Tensors:
            return self.gradient(here, data if isinstance(rows, slice) else data.take(rows))

        space, order = space or Everything(params), batches(len(data), steps, key)
        return descend_within(
            space, params, gradient, order, steps.lr, proximal=steps.proximal, offset=offset
        )
