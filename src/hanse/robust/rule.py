"""The frame of robust rules: reducers that gather contributions and weigh them against each other."""

from abc import abstractmethod
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    CompositionError,
    InvalidInput,
    Part,
    Parts,
    Reducer,
    Spec,
    Total,
)
from hanse.robust.rows import Gathered, MessageRows

__all__ = ["Before", "Rule", "check_byzantine"]


class Rule(Reducer[Gathered]):
    """A reducer that a minority of liars can't lead far astray.

    It sees every contribution, so it can't stand together with reducers that hide. It counts each client
    alike: a weight is what a client says of itself, and a liar would say that it weighs the most. So it also
    ignores the discounts of stale contributions.

    Spec: real -> real, all floating point. Messages on disk stay there; windows of them are read.
    """

    @property
    def can_name(self) -> bool:
        """Returns whether it may leave clients out of the total by name."""
        return False

    @property
    def heeds_weights(self) -> bool:
        """Whether the weights of contributions change the total."""
        return False

    @property
    def disclosure(self) -> str:
        said = super().disclosure
        return said if self.heeds_weights else f"{said}, and counts each client alike"

    def accepts(self, spec: Spec) -> None:
        if spec.kind != "real" or not spec.summable:
            what: str = spec.kind if spec.summable else "different at each client"
            raise CompositionError(
                f"{self} compares messages number by number, but these are {what}: put a transform last that "
                "the server can open (such as quantize)"
            )
        for name, tensor in spec.tensors.items():
            if tensor.num_values is None or np.dtype(tensor.dtype).kind != "f":
                given = "of no fixed shape" if tensor.num_values is None else tensor.dtype
                raise CompositionError(
                    f"{self} needs floating-point tensors of one fixed shape, and {name!r} is {given}: send "
                    "it as a part of its own, into sum()"
                )

    def lift(self, part: Part) -> Gathered:
        return Gathered((part,))

    def lift_many(self, parts: Parts) -> Gathered | None:
        rows = range(len(parts.weights))
        weights = parts.weights.tolist()
        return Gathered(
            tuple(Part({name: v[i] for name, v in parts.values.items()}, weights[i]) for i in rows)
        )

    def merge(self, left: Gathered, right: Gathered) -> Gathered:
        return Gathered(left.parts + right.parts)

    def result(self, accumulator: Gathered) -> Total:
        self.check_number(len(accumulator.parts))
        return self.aggregate(MessageRows.of(accumulator.parts))

    @abstractmethod
    def aggregate(self, rows: MessageRows) -> Total:
        """Computes the total of rows, whose number was checked."""

    def require(self, num_parts: int, needed: int, remedy: str) -> None:
        """Raises CompositionError if there are fewer parts than are needed."""
        if num_parts < needed:
            raise CompositionError(
                f"{self} needs at least {needed} contributions, and there are {num_parts}: ask more clients "
                f"(fraction), or write {remedy}"
            )

    def total(self, rows: MessageRows, coefficients: Array, left_out: Any = ()) -> Total:
        """Returns a linear combination of the rows as a total."""
        return self.wrap(rows, rows.combine(coefficients), left_out)

    def wrap(self, rows: MessageRows, values: Any, left_out: Any = ()) -> Total:
        """Returns values as a total of the rows.

        Args:
          left_out: positions of rows that are not in it.
        """
        places = tuple(sorted(int(i) for i in left_out))
        return Total(values, float(rows.weights.sum()), len(rows), places)


class Before(Rule):
    """A step before another rule: it changes the rows, and leaves the total to `then`."""

    then: Reducer[Any]

    @property
    def can_name(self) -> bool:
        return isinstance(self.then, Rule) and self.then.can_name

    def accepts(self, spec: Spec) -> None:
        if self.then.hides:
            raise CompositionError(
                f"{self} must see single contributions, and {self.then} hides them: use clip() at the "
                "clients before a reducer that hides, or another rule here"
            )
        if not self.then.is_setting:
            raise CompositionError(f"{self}: {self.then} makes no total; write a rule, such as median()")
        super().accepts(spec)
        self.then.accepts(spec)

    def check_number(self, num_parts: int) -> None:
        self.then.check_number(num_parts)

    def pass_on(self, rows: MessageRows) -> Total:
        """Returns the total that `then` makes of the rows."""
        return self.then.aggregate(rows) if isinstance(self.then, Rule) else rows.fold(self.then)


def check_byzantine(num_byzantine: int) -> None:
    """Checks a number of liars. Raises: InvalidInput."""
    if num_byzantine < 0:
        raise InvalidInput(f"num_byzantine is {num_byzantine}; write the number of liars to survive, from 0")
