"""Local descent for learners that offer a gradient, which is called once a step."""

from abc import ABC

from hanse.core.keys import Key
from hanse.core.learner import Examples, Learner, Steps
from hanse.core.tensors import Tensors, tree_map
from hanse.core.work import Everything, Space
from hanse.learners.model import batches

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
        """Runs local stochastic gradient descent. See `Learner.local_sgd`."""
        space = space or Everything(params)
        coordinates = space.zero()
        for rows in batches(len(data), steps, key):
            update = space.expand(coordinates)
            here = tree_map(lambda w, u: w + u, params, update)
            slope = self.gradient(here, data if isinstance(rows, slice) else data.take(rows))
            slope = tree_map(lambda g, u: g + steps.proximal * u, slope, update)
            if offset is not None:
                slope = tree_map(lambda g, o: g + o, slope, offset)
            coordinates = tree_map(lambda z, g: z - steps.lr * g, coordinates, space.pullback(slope))
        return coordinates
