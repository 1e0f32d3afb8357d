"""The form of an attack: what a liar trains on, and what it sends in place of its honest message."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hanse.core import Array, Examples, Key, Part, Tensors

__all__ = ["Attack", "Collusion"]


@dataclass(frozen=True)
class Collusion:
    """The knowledge of the liars of one exchange when they agree on their messages.

    Args:
      part: the name of the part of their messages, such as "update". Its tensors are shaped like the model's.
      round: the number of the round, from 1.
      own: by liar, what it would send, as far as the attacks before this one have changed it.
      honest: what the honest clients send, if the liars know it; else what the liars would send if they were
        honest, which stands for it. All are seen as the rule compares them: after transforms at the client
        such as momentum, and before those that the server opens.
      num_honest: the number of honest clients that were asked.
      shared: what the server has broadcast.
      aggregate: computes the total that the server's rule would make of parts; None: of these it makes none.
      max_norm: the server refuses messages of a larger norm; None: of none.
      memory: by liar, what this attack has kept there: see `Attack.remember`.
      key: of all draws of this attack in this exchange.
      weights: of the messages in `honest`; empty: the rule counts all clients alike.
    """

    part: str
    round: int
    own: tuple[Part, ...]
    honest: tuple[Tensors, ...]
    num_honest: int
    shared: Mapping[str, Tensors]
    aggregate: Callable[[Sequence[Part]], Tensors | None]
    max_norm: float | None
    memory: tuple[Mapping[str, Tensors], ...]
    key: Key
    weights: tuple[float, ...] = ()

    @property
    def num_liars(self) -> int:
        """The number of liars that were asked."""
        return len(self.own)

    @cached_property
    def rows(self) -> Array:
        """The honest messages as rows of a matrix in float64, one for each message."""
        return np.stack([self.flatten(values) for values in self.honest])

    def flatten(self, values: Tensors) -> Array:
        """Returns tensors as one vector in float64."""
        return np.concatenate([np.asarray(values[name], np.float64).reshape(-1) for name in self._like])

    def restore(self, vector: Array) -> dict[str, Array]:
        """Returns a vector in the names, shapes and types of the part."""
        values, at = dict[str, Array](), 0
        for name, like in self._like.items():
            values[name] = vector[at : at + like.size].reshape(like.shape).astype(like.dtype)
            at += like.size
        return values

    def send(self, vector: Array) -> tuple[Part, ...]:
        """Returns the parts of liars that all send the same vector, with the weights that they have."""
        values = self.restore(vector)
        return tuple(Part(values, part.weight) for part in self.own)

    def send_each(self, vectors: Sequence[Array]) -> tuple[Part, ...]:
        """Returns the parts of liars that send a vector each, with the weights that they have."""
        pairs = zip(vectors, self.own, strict=True)
        return tuple(Part(self.restore(vector), part.weight) for vector, part in pairs)

    @property
    def _like(self) -> Tensors:
        return self.own[0].values


class Attack:
    """A lie, as a value marked with `@value`. One kind changes data, another changes messages; some do both.

    Whatever an attack does not define, its liars do honestly.
    """

    @property
    def needs_honest(self) -> bool:
        """Returns whether it needs to know each honest message, and can't guess it from the liars' own."""
        return False

    @property
    def needs_company(self) -> bool:
        """Returns whether it needs messages of several clients, because it uses how they differ."""
        return False

    def is_active(self, round: int) -> bool:
        """Returns whether the liars lie in a round."""
        return True

    def poison(self, data: Examples, num_classes: int | None, key: Key) -> Examples:
        """Returns what a liar trains on in place of its examples. It copies what it changes.

        Args:
          data: its own examples.
          num_classes: of the labels; None: they are not classes.
          key: of this liar's draws, the same in each round.

        Raises: InvalidInput: if it can't be done to such data.
        """
        return data

    @property
    def poisons(self) -> bool:
        """Returns whether it changes data."""
        return type(self).poison is not Attack.poison

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        """Returns what the liars send in place of `seen.own`, in the same order."""
        return seen.own

    @property
    def falsifies(self) -> bool:
        """Returns whether it changes messages."""
        return type(self).falsify is not Attack.falsify

    def remember(self, seen: Collusion) -> Mapping[str, Tensors]:
        """Returns what each liar keeps until it is asked again, if this message is counted."""
        return {}

    @property
    def trigger(self) -> str | None:
        """The name of its trigger in metrics; None: it marks no test examples, so it has none."""
        return None if type(self).mark is Attack.mark else type(self).__name__

    def mark(self, test: Examples, num_classes: int | None) -> Examples | None:
        """Returns test examples on which an accuracy is the success of the attack; None: there are none.

        Such as those with a trigger, and the label that the liars want.
        """
        return None
