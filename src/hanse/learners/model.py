"""The part that all engines share: models before they know their data, and the order of batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice

from hanse.core import Array, Key, Learner, Steps

__all__ = ["Model", "batches", "orders"]


class Model(ABC):
    """A model before it knows its data: a value such as `softmax(l2=1e-3)`."""

    @abstractmethod
    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
        """Binds the model to examples of this shape and these classes.

        Args:
          feature_shape: of one row of features; () for a single number.
          num_classes: of the labels; None: they are not classes.

        Raises: InvalidInput: if the model does not suit them.
        """

    def suit_targets(self, target_shape: tuple[int, ...]) -> "Model":
        """Returns the model for real targets of this shape in each row; by default itself."""
        return self

    def load(self) -> None:  # noqa: B027  (most need nothing)
        """Imports what binding needs, if that takes long; it may be called in another thread."""


def batches(num_examples: int, steps: Steps, key: Key) -> Iterator[Array | slice]:
    """Yields the rows of each local step, in the order that every learner follows.

    Epoch e visits `key.fold_in("epoch", e).rng().permutation(num_examples)`. Where a batch holds all
    examples, it is a slice of all rows, and nothing is random.

    >>> [len(rows) for rows in batches(5, Steps(0.1, epochs=2, batch_size=2), Key.from_seed(0))]
    [2, 2, 1, 2, 2, 1]
    >>> list(batches(5, Steps(0.1), Key.from_seed(0)))
    [slice(None, None, None)]
    """
    size = steps.batch_size
    if size is None or size >= num_examples:
        yield from [slice(None)] * steps.count_epochs(num_examples)
        return
    every = (
        order[start : start + size]
        for order in orders(num_examples, steps, key)
        for start in range(0, num_examples, size)
    )
    yield from islice(every, steps.num_steps)


def orders(num_examples: int, steps: Steps, key: Key) -> Iterator[Array]:
    """Yields the order of the examples in each epoch; nothing where a batch holds all of them."""
    if steps.batch_size is None or steps.batch_size >= num_examples:
        return
    for epoch in range(steps.count_epochs(num_examples)):
        yield key.fold_in("epoch", epoch).rng().permutation(num_examples)
