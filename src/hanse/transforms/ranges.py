"""Groups of entries that share a range or a scale."""

from abc import ABC, abstractmethod

from hanse.core import Array, InvalidInput, value

__all__ = ["Over", "per_block", "per_tensor"]


class Over(ABC):
    """Divides a flattened tensor into rows that have one range each."""

    @abstractmethod
    def rows(self, flat: Array) -> list[Array]:
        """Returns views of the tensor: matrices whose rows follow one another in it."""

    @abstractmethod
    def num_rows(self, size: int) -> int:
        """Returns the number of rows of a tensor of this many entries."""


@value
class per_tensor(Over):
    """One range for each tensor."""

    def rows(self, flat: Array) -> list[Array]:
        return [flat.reshape(1, -1)] if flat.size else []

    def num_rows(self, size: int) -> int:
        return min(1, size)


@value
class per_block(Over):
    """One range for each block of this many consecutive entries of a tensor; its last block may be smaller.

    Small blocks have small errors and more ranges to send.

    Args:
      size: the number of entries in a block.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InvalidInput(f"per_block({self.size}): write at least 1 entry")

    def rows(self, flat: Array) -> list[Array]:
        whole = flat.size - flat.size % self.size
        parts = flat[:whole].reshape(-1, self.size), flat[whole:].reshape(1, -1)
        return [part for part in parts if part.size]

    def num_rows(self, size: int) -> int:
        return -(-size // self.size)
