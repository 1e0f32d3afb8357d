"""The columns that examples have: numbers and categories."""

import numpy as np

from hanse.core import Array, InvalidInput, nearest, value
from hanse.data import find_gaps

__all__ = ["Schema"]


@value
class Schema:
    """The columns of examples. Features without names are numbers, called "0", "1", ...

    >>> Schema.of(np.zeros(2, [("age", float), ("job", "U9")]))
    Schema(numbers=('age',), categories=('job',))

    Args:
      numbers: columns of numbers; a gap is NaN.
      categories: columns of categories; a gap is an empty string.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...] = ()

    @classmethod
    def of(cls, x: Array) -> "Schema":
        """Reads the columns of (n, ...) features."""
        names = x.dtype.names
        if names is None:
            return cls(tuple(str(i) for i in range(x[:1].size if len(x) else 0)))
        is_text = {name: x.dtype[name].kind == "U" for name in names}
        return cls(*(tuple(name for name in names if is_text[name] == kind) for kind in (False, True)))

    def numbers_in(self, x: Array) -> Array:
        """Returns the columns of numbers, (n, columns) in float64.

        Raises: InvalidInput: if `x` has other columns.
        """
        own = Schema.of(x)
        if x.dtype.names is None:
            if own != self:
                named = f" called {', '.join((*self.numbers, *self.categories)[:4])}, ..." * (
                    len(self.categories) > 0 or self.numbers[:1] != ("0",)
                )
                needed = len(self.numbers) + len(self.categories)
                raise InvalidInput(
                    f"{len(own.numbers)} features a row without names, but {needed}{named} are needed"
                )
            return x.reshape(len(x), -1).astype(np.float64, copy=False)
        self._check(own, x)
        if not self.numbers:
            return np.empty((len(x), 0))
        if own == self and x.dtype == np.dtype([(name, np.float64) for name in self.numbers]):
            return np.ascontiguousarray(x).view(np.float64).reshape(len(x), -1)
        return np.column_stack([self._number(x[name]) for name in self.numbers])

    @staticmethod
    def _number(column: Array) -> Array:
        return column if column.dtype.kind == "f" else np.full(len(column), np.nan)

    def category_in(self, x: Array, name: str) -> Array:
        """Returns a column of categories, (n,) of text."""
        column: Array = x[name]
        return column if column.dtype.kind == "U" else np.full(len(column), "")

    def _check(self, own: "Schema", x: Array) -> None:
        """Checks that each column is there and of its kind; one without any value is of both kinds."""
        if own == self:
            return
        present = {*own.numbers, *own.categories}
        for noun, due, found in (
            ("numbers", self.numbers, {*own.numbers}),
            ("categories", self.categories, {*own.categories}),
        ):
            for name in due:
                if name not in present:
                    known = nearest(name, (*own.numbers, *own.categories))
                    raise InvalidInput(f"the table has no column {name!r}, which all parties need; {known}")
                if name not in found and not find_gaps(x[name]).all():
                    example = x[name][int(np.argmin(find_gaps(x[name])))]
                    raise InvalidInput(
                        f"column {name!r} holds {noun} elsewhere, and {str(example)!r} here; give it the "
                        "same kind at all parties"
                    )
