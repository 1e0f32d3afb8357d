"""Attacks in some rounds only."""

from collections.abc import Mapping

from hanse.attacks.attack import Attack, Collusion
from hanse.core import Examples, InvalidInput, Key, Part, Tensors, check_count, value

__all__ = ["intermittent"]


@value
class intermittent(Attack):
    """Another attack, in some rounds only; in all others its liars are honest.

    >>> from hanse.attacks import sign_flip
    >>> [round for round in range(1, 10) if intermittent(sign_flip(), every=3, first=2).is_active(round)]
    [2, 5, 8]

    Args:
      attack: the attack.
      every: the number of rounds from one attack to the next.
      first: the number of the first round with one.
      last: the number of the last round in which there may be one; None: of the run.
    """

    attack: Attack
    every: int = 1
    first: int = 1
    last: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.attack, Attack):
            raise InvalidInput(f"attack is {self.attack!r}; write an attack, such as sign_flip()")
        check_count("every", self.every)
        check_count("first", self.first)
        if self.last is not None and self.last < self.first:
            raise InvalidInput(f"last is {self.last}, before first, {self.first}; write a later round")

    @property
    def needs_honest(self) -> bool:
        return self.attack.needs_honest

    @property
    def needs_company(self) -> bool:
        return self.attack.needs_company

    @property
    def poisons(self) -> bool:
        return self.attack.poisons

    @property
    def falsifies(self) -> bool:
        return self.attack.falsifies

    def is_active(self, round: int) -> bool:
        begun = round >= self.first and (self.last is None or round <= self.last)
        return begun and (round - self.first) % self.every == 0 and self.attack.is_active(round)

    def poison(self, data: Examples, num_classes: int | None, key: Key) -> Examples:
        return self.attack.poison(data, num_classes, key)

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        return self.attack.falsify(seen)

    def remember(self, seen: Collusion) -> Mapping[str, Tensors]:
        return self.attack.remember(seen)

    @property
    def trigger(self) -> str | None:
        return self.attack.trigger

    def mark(self, test: Examples, num_classes: int | None) -> Examples | None:
        return self.attack.mark(test, num_classes)
