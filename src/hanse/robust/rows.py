"""Contributions as rows of a matrix that is never held: only windows of it are read from the messages."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hanse.core import Array, Part, Reducer, Tensors, Total, reduce

__all__ = ["SORTED_VALUES", "Gathered", "MessageRows", "squared_distances"]

READ_VALUES = 1 << 20
"""The number of values, over all rows, that are read together."""

SORTED_VALUES = 4096
"""The number of coordinates that are sorted together: their rows fit into a processor's cache."""

LARGEST = 1e100
"""MessageRows with larger values are scaled down to this one, so that no square is infinite."""


@dataclass(frozen=True)
class Gathered:
    """An accumulator that keeps parts side by side, in order of their positions. On disk they stay there."""

    parts: tuple[Part, ...]

    @property
    def values(self) -> Tensors:
        """All tensors, for checks that none has a number that is not finite."""
        return {f"{i}/{name}": v for i, part in enumerate(self.parts) for name, v in part.values.items()}


@dataclass(frozen=True)
class MessageRows:
    """The rows that a rule sees. Each is a message, or a linear combination of messages.

    Args:
      parts: the messages, in order of their positions.
      mixing: (m, n) coefficients of the rows; None: the rows are the messages.
      factors: (n,) of the messages, if some of them are scaled down before anything is computed.
      weights: what the rows count with, for reducers that heed it.
    """

    parts: tuple[Part, ...]
    weights: Array
    mixing: Array | None = None
    factors: Array | None = None

    @classmethod
    def of(cls, parts: Sequence[Part]) -> "MessageRows":
        """Returns the rows of messages."""
        return cls(tuple(parts), np.array([part.weight for part in parts], np.float64))

    def __len__(self) -> int:
        return len(self.parts) if self.mixing is None else len(self.mixing)

    def mix(self, coefficients: Array) -> "MessageRows":
        """Returns linear combinations of these rows, a line of (k, m) coefficients for each, of weight 1."""
        mixing = coefficients if self.mixing is None else coefficients @ self.mixing
        return replace(self, mixing=mixing, weights=np.ones(len(coefficients)))

    def scale(self, factors: Array) -> "MessageRows":
        """Returns the rows times a factor each, with the weights that they have."""
        if self.mixing is not None:
            return replace(self, mixing=factors[:, None] * self.mixing)
        return replace(self, factors=factors if self.factors is None else factors * self.factors)

    def bound(self) -> "MessageRows":
        """Returns rows whose squares are finite. Only a row of enormous numbers is another one."""
        if self.factors is not None:
            return self
        largest = np.zeros(len(self.parts))
        for name in self._names:
            if self.parts[0].values[name].dtype.itemsize > 4:
                for _, window in self._read(name, READ_VALUES):
                    np.maximum(largest, np.abs(window).max(axis=1, initial=0), out=largest)
        if largest.max(initial=0) <= LARGEST:
            return self
        return replace(self, factors=LARGEST / np.maximum(largest, LARGEST))

    def gram(self) -> Array:
        """Computes the inner products of all pairs of rows, in float64. Each message is read once."""
        products = np.zeros((len(self.parts), len(self.parts)))
        for name in self._names:
            for _, window in self._read(name, READ_VALUES):
                products += window @ window.T
        return products if self.mixing is None else self.mixing @ products @ self.mixing.T

    def combine(self, coefficients: Array) -> dict[str, Array]:
        """Computes a linear combination of the rows, from those messages alone that are in it."""
        given = coefficients if self.mixing is None else coefficients @ self.mixing
        used = [i for i, factor in enumerate(given) if factor]
        values: dict[str, Array] = {}
        for name in self._names:
            like = self.parts[0].values[name]
            total = np.zeros(like.size, like.dtype)
            if used:
                for where, window in self._read(name, READ_VALUES, used):
                    total[where] = given[used] @ window
            values[name] = total.reshape(like.shape)
        return values

    def map_windows(self, function: Any, num_values: int = SORTED_VALUES) -> dict[str, Array]:
        """Computes what depends on each coordinate alone, some coordinates at a time.

        Args:
          function: from (coordinates, rows), which it may change, to one number for each coordinate.
          num_values: of coordinates at a time.
        """
        values: dict[str, Array] = {}
        for name in self._names:
            held = [part.values[name].reshape(-1) for part in self.parts]
            like = self.parts[0].values[name]
            total = np.empty(like.size, like.dtype)
            columns = np.empty((num_values, len(held)), like.dtype)
            for begin in range(0, like.size, num_values):
                window = columns[: min(num_values, like.size - begin)]
                for i, row in enumerate(held):
                    window[:, i] = row[begin : begin + num_values]
                if self.factors is not None:
                    window *= self.factors
                mixed = window if self.mixing is None else (window @ self.mixing.T).astype(like.dtype)
                total[begin : begin + num_values] = function(mixed)
            values[name] = total.reshape(like.shape)
        return values

    def fold(self, then: Reducer[Any]) -> Total:
        """Folds the rows by a reducer that is none of these rules."""
        if self.mixing is None and self.factors is None:
            return reduce(then, list(self.parts))
        if not then.elementwise:
            parts = [self.combine(line) for line in np.eye(len(self))]
            pairs = zip(parts, self.weights.tolist(), strict=True)
            return reduce(then, [Part(values, weight) for values, weight in pairs])
        total = None

        def fold_window(columns: Array) -> Array:
            nonlocal total
            pairs = zip(columns.T, self.weights.tolist(), strict=True)
            total = reduce(then, [Part({"": np.ascontiguousarray(x)}, weight) for x, weight in pairs])
            return total.values[""]

        values = self.map_windows(fold_window, max(1, READ_VALUES // len(self)))
        if total is None:
            total = reduce(then, [Part({}, weight) for weight in self.weights.tolist()])
        return replace(total, values=values)

    def draw(self) -> np.random.Generator:
        """Makes a generator from the beginning of each message: another in each round, for all alike."""
        state = hashlib.sha256()
        for part in self.parts:
            for name in self._names:
                state.update(part.values[name].reshape(-1)[:SORTED_VALUES].tobytes())
        return np.random.Generator(np.random.PCG64(int.from_bytes(state.digest(), "big")))

    @property
    def _names(self) -> list[str]:
        return list(self.parts[0].values)

    def _read(
        self, name: str, num_values: int, used: Sequence[int] | None = None
    ) -> Iterator[tuple[slice, Array]]:
        """Yields windows of a tensor of messages, (messages, values) in float64; each replaces the last."""
        held = [
            part.values[name].reshape(-1)
            for part in (self.parts if used is None else [self.parts[i] for i in used])
        ]
        step = max(1, num_values // len(held))
        rows = np.empty((len(held), min(step, held[0].size)))
        for begin in range(0, held[0].size, step):
            where = slice(begin, min(begin + step, held[0].size))
            size = where.stop - where.start
            window = rows if size == rows.shape[1] else np.empty((len(held), size))
            for i, row in enumerate(held):
                window[i] = row[where]
            if self.factors is not None:
                window *= self.factors[:, None] if used is None else self.factors[used, None]
            yield where, window


def squared_distances(gram: Array) -> Array:
    """Computes the squared distances of all pairs of rows from their inner products.

    >>> squared_distances(np.array([[1.0, 0.0], [0.0, 4.0]]))
    array([[0., 5.],
           [5., 0.]])
    """
    squares = np.diag(gram)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
    np.fill_diagonal(distances, 0)
    return np.asarray(distances)
