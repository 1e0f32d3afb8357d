"""Structured updates: training inside a random subspace of low rank."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hanse.core import Array, InvalidInput, Key, Space, Spec, Stage, Tensors, TensorSpec, Transform, value
from hanse.transforms.draws import DrawScope, drawn_stage, per_client
from hanse.transforms.numbers import Fixed, RealTensors, fix_shapes

__all__ = ["Factors", "Layout", "low_rank", "out_first", "out_last", "train_a", "train_b", "train_both"]


class Layout(ABC):
    """A view of tensors of two dimensions or more as matrices of inputs x outputs."""

    @abstractmethod
    def matrix(self, tensor: Array) -> Array:
        """Returns a tensor as a matrix."""

    @abstractmethod
    def tensor(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        """Returns a matrix as a tensor of this shape."""

    @abstractmethod
    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Returns the rows and columns of the matrix of a tensor of this shape."""


@value
class out_first(Layout):
    """Outputs are the first dimension, out x in x h x w, as in PyTorch and in Hanse's own networks."""

    def matrix(self, tensor: Array) -> Array:
        return tensor.reshape(tensor.shape[0], -1).T

    def tensor(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        return matrix.T.reshape(shape)

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return math.prod(shape[1:]), shape[0]


@value
class out_last(Layout):
    """Outputs are the last dimension, in x w x h x out, as in the paper and in JAX's libraries."""

    def matrix(self, tensor: Array) -> Array:
        return tensor.reshape(-1, tensor.shape[-1])

    def tensor(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        return matrix.reshape(shape)

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return math.prod(shape[:-1]), shape[-1]


class Factors(ABC):
    """The factors of H = A B that are trained. The others are random and fixed, and are not sent."""

    trained: ClassVar[tuple[str, ...]]
    drawn: ClassVar[tuple[str, ...]]
    """The factors that begin at random; the others begin at zero, so training begins at an update of 0."""

    @property
    def fixed(self) -> tuple[str, ...]:
        """The factors that are not trained."""
        return tuple(factor for factor in ("A", "B") if factor not in self.trained)

    @property
    def linear(self) -> bool:
        """True if the update is linear in the factors that are trained."""
        return len(self.trained) == 1


@value
class train_b(Factors):
    """A is random and fixed; only B is trained, as in the paper."""

    trained = ("B",)
    drawn = ("A",)


@value
class train_a(Factors):
    """B is random and fixed; only A is trained."""

    trained = ("A",)
    drawn = ("B",)


@value
class train_both(Factors):
    """A begins at random, B at zero; both are trained and sent. Not linear, so never summable."""

    trained = ("A", "B")
    drawn = ("A",)


@dataclass(frozen=True)
class _Matrix:
    """A tensor as a matrix, and the rank that its update is restricted to."""

    full: Fixed
    layout: Layout
    rows: int
    columns: int
    rank: int

    def tensor(self, matrix: Array) -> Array:
        return self.layout.tensor(matrix, self.full.shape)

    def shape(self, factor: str) -> tuple[int, int]:
        return (self.rows, self.rank) if factor == "A" else (self.rank, self.columns)

    def size(self, factors: Factors) -> int:
        return sum(math.prod(self.shape(factor)) for factor in factors.trained)

    def draw(self, factor: str, key: Key) -> Array:
        """Draws normal numbers, so that the columns of A, or the rows of B, have unit length on average."""
        normal = key.fold_in(factor).rng().standard_normal(self.shape(factor), np.float32)
        length = math.sqrt(self.rows if factor == "A" else self.columns)
        return (normal / np.float32(length)).astype(self.full.dtype, copy=False)


class _Products(Space):
    """A space of updates A B of some tensors; the others have all their entries.

    The gradient by one of two trained factors depends on the other's current value. So `pullback` refers
    to the coordinates that were expanded last.
    """

    def __init__(
        self,
        matrices: Mapping[str, _Matrix],
        whole: Mapping[str, Fixed],
        fixed: Tensors,
        start: Tensors,
    ) -> None:
        self._matrices, self._whole, self._fixed, self._start = matrices, whole, fixed, start
        self._at: Tensors = {**fixed, **start}

    def zero(self) -> Tensors:
        whole = {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in self._whole.items()}
        return {**whole, **self._start}

    def expand(self, coordinates: Tensors) -> Tensors:
        self._at = at = {**self._fixed, **coordinates}
        products = {
            name: matrix.tensor(at[f"{name}.A"] @ at[f"{name}.B"]) for name, matrix in self._matrices.items()
        }
        return {**{name: v for name, v in coordinates.items() if name in self._whole}, **products}

    def pullback(self, gradient: Tensors) -> Tensors:
        back = {name: gradient[name] for name in self._whole}
        for name, matrix in self._matrices.items():
            matrix_gradient = matrix.layout.matrix(gradient[name])
            if f"{name}.A" in self._start:
                back[f"{name}.A"] = matrix_gradient @ self._at[f"{name}.B"].T
            if f"{name}.B" in self._start:
                back[f"{name}.B"] = self._at[f"{name}.A"].T @ matrix_gradient
        return back


@value
class low_rank(Transform):
    """Each matrix's update is a product of a random matrix and a trained one, of low rank.

        H = A B,   H: inputs x outputs, A: inputs x rank, B: rank x outputs

    The client trains B itself; only B is sent, and A follows from a key. A convolution's kernel counts as a
    matrix of (in h w) x out. Vectors, and matrices that would not become smaller, are sent whole. Exactly one
    of `rank` and `fraction` is given.

    Args:
      rank: of each matrix's update.
      fraction: of each matrix's full rank, min(inputs, outputs); at least 1.
      factors: `train_b()`, `train_a()` or `train_both()`.
      drawn: `per_client()`; `per_round()` lets all clients train in the same space, so that the factors
        they send can be summed.
      layout: `out_first()` or `out_last()`: which dimension of a tensor counts outputs.
    Runs at: client (within), server (open; drawn per round: decode).
    Reveals: every contribution to the server; drawn per round, what the reducer reveals of the factors.
    Spec: real -> real, factors named "w.A" and "w.B" in place of "w"; no l2_bound; summable if drawn per
      round, unless both are trained.
    Raises: CompositionError: if given values that are not real, or of no fixed shape.
    References: Konecny et al., "Federated learning: strategies for improving communication efficiency",
      2016, arXiv 1610.05492, section 2 (low rank).

    >>> stage = low_rank(2)(Spec.of({"w": np.zeros((6, 5)), "b": np.zeros(5)}))
    >>> {name: tensor.shape for name, tensor in stage.out.tensors.items()}
    {'b': (5,), 'w.B': (2, 6)}
    """

    rank: int | None = None
    fraction: float | None = None
    factors: Factors = train_b()
    drawn: DrawScope = per_client()
    layout: Layout = out_first()

    def __post_init__(self) -> None:
        if (self.rank is None) == (self.fraction is None):
            raise InvalidInput(
                f"low_rank takes a rank or a fraction of the full rank, not {self.rank} and {self.fraction}"
            )
        if self.rank is not None and self.rank < 1:
            raise InvalidInput(f"low_rank({self.rank}): write a rank of at least 1")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise InvalidInput(
                f"low_rank(fraction={self.fraction}): write a share of the full rank above 0 and at most 1"
            )

    @property
    def effect(self) -> str:
        return "trained as matrices of low rank"

    def __call__(self, spec: Spec) -> Stage:
        numbers = RealTensors.of(self, spec, "real")
        matrices = {
            name: matrix
            for name, tensor in numbers.real.items()
            if len(tensor.shape) > 1 and (matrix := self._matrix(tensor)).size(self.factors) < tensor.size
        }
        whole = {name: tensor for name, tensor in numbers.real.items() if name not in matrices}
        rest = fix_shapes(self, numbers.rest)
        out = {
            **{name: spec.tensors[name] for name in (*whole, *rest)},
            **{
                f"{name}.{factor}": TensorSpec(matrix.shape(factor), matrix.full.dtype)
                for name, matrix in matrices.items()
                for factor in self.factors.trained
            },
        }

        def begin(key: Key, wanted: Sequence[str]) -> dict[str, Array]:
            """Returns these factors of each matrix at the start of training."""
            return {
                f"{name}.{factor}": matrix.draw(factor, key.fold_in(name))
                if factor in self.factors.drawn
                else np.zeros(matrix.shape(factor), matrix.full.dtype)
                for name, matrix in matrices.items()
                for factor in wanted
            }

        def within(key: Key) -> Space:
            start = begin(key, self.factors.trained)
            return _Products(matrices, {**whole, **rest}, begin(key, self.factors.fixed), start)

        def undo(key: Key, values: Tensors) -> Tensors:
            return _Products(matrices, {**whole, **rest}, begin(key, self.factors.fixed), {}).expand(values)

        return drawn_stage(self.drawn, spec, out, undo, linear=self.factors.linear, within=within)

    def _matrix(self, tensor: Fixed) -> _Matrix:
        rows, columns = self.layout.sizes(tensor.shape)
        full = min(rows, columns)
        rank = self.rank if self.rank is not None else math.ceil((self.fraction or 0) * full)
        return _Matrix(tensor, self.layout, rows, columns, max(1, min(rank, full)))
