"""Reducers: the only door by which clients' messages reach the server.

A reduce is a commutative fold over a fixed binary tree of cohort positions, so its result depends
neither on the order of arrival nor on who folded which part.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar

import numpy as np

from hanse.core.checks import check_positive
from hanse.core.errors import CompositionError
from hanse.core.keys import Key
from hanse.core.layout import Mapped
from hanse.core.spec import Spec
from hanse.core.tensors import WINDOW, Array, scale, tree_map
from hanse.core.values import brief, value
from hanse.core.work import Part, Parts, PartyId, Total

__all__ = ["Reducer", "TreeFold", "Unveiled", "each", "fixed_mean", "mean", "stack", "sum"]

A = TypeVar("A")


@value
class Unveiled:
    """The outcome of a protocol: the total of each hidden part, and the parties that are in these totals."""

    totals: Mapping[str, Total]
    parties: tuple[PartyId, ...]


class Reducer(ABC, Generic[A]):
    """A commutative fold: `lift` one part, `merge` two accumulators (it may consume them), read `result`."""

    hides: ClassVar[bool] = False
    """Returns whether the server is kept from seeing single contributions. Such a reducer withholds the
    encoded part at the client and obtains the total by its `protocol`."""

    elementwise: ClassVar[bool] = False
    """Returns whether each value of the total depends only on the values at its place and on the weights.
    Large parts are then folded window by window, so that memory does not grow with their number."""

    is_setting: ClassVar[bool] = True
    """Returns whether an algorithm may take it as a setting; if not, only a PartSpec can name it."""

    @property
    def disclosure(self) -> str:
        """The part of it that the server sees, in a few words for the owner of the data."""
        shown = "hides single updates from" if self.hides else "shows single updates to"
        return f"{brief(self)} that {shown} the server"

    @property
    def parties(self) -> tuple[str, ...]:
        """The names of the parties beside the cohort that its protocol asks. No server may play them."""
        return ()

    @property
    def fewest(self) -> int:
        """The fewest honest parties in a total, as it assumes. 0: a server sees single ones or decides."""
        return 0

    @property
    def most(self) -> int:
        """The most parties in a total. 0: no number bounds them."""
        return 0

    @property
    def condition(self) -> str:
        """The condition on which it hides single messages, such as "unless it ...". Empty: there is none."""
        return ""

    @abstractmethod
    def accepts(self, spec: Spec) -> None:
        """Checks a spec. Raises: CompositionError: if this reducer can't fold messages of it."""

    def check_number(self, num_parts: int) -> None:
        """Checks a number of parts. Raises: CompositionError: if this reducer can't fold as many."""
        return None

    @abstractmethod
    def lift(self, part: Part) -> A:
        """Makes the accumulator of one part."""

    def lift_many(self, parts: Parts) -> A | None:
        """Makes the accumulator of neighbours that begin a block of the tree, in the bits of the fold.

        None: they are lifted one by one. Consumes the parts.
        """
        return None

    @abstractmethod
    def merge(self, left: A, right: A) -> A:
        """Merges the accumulators of two disjoint sets of parts."""

    @abstractmethod
    def result(self, accumulator: A) -> Total:
        """Computes the total of the fold."""

    def zero(self, spec: Spec) -> Total | None:
        """Returns the total of no parts of a spec. None: there is none, so a round of none is abandoned."""
        return None

    def moves(self, max_weight: float) -> float | None:
        """Returns how far the total moves at most, for each unit of a part's norm, if a client comes or goes.

        Args:
          max_weight: no part weighs more; a reducer that hides can't rely on it, as weights are hidden, too.

        Returns: the bound on the Euclidean norm; None: there is none, or it depends on the other clients.
        """
        return None

    def protocol(
        self, parts: Mapping[str, Spec], parties: tuple[PartyId, ...], key: Key
    ) -> Generator[Any, Any, Unveiled]:
        """Performs the further exchanges that yield the totals, for reducers that hide.

        All parts of a dispatch that go into equal reducers share one protocol, so the same parties are in
        all of their totals. Tickets of other parties are dropped.

        Args:
          parts: the specs of the encoded parts; each client keeps a part in memory as "~pending/" + name.
          parties: the parties that are ready.
          key: of this round.
        """
        raise CompositionError(f"{self} has no protocol")


def _needs_summable(reducer: Reducer[Any], spec: Spec) -> None:
    flags = [name for name, tensor in spec.tensors.items() if tensor.dtype == "bool"]
    if flags:
        raise CompositionError(f"{reducer} adds numbers, but {flags[0]!r} is bool; emit it as int64")
    if spec.kind not in ("real", "table", "ring") or not spec.summable:
        what = spec.kind if spec.summable else "different at each client"
        raise CompositionError(
            f"{reducer} adds messages up, but these are {what}; put a transform last that the server can "
            "open (such as quantize), or collect them with stack()"
        )


@dataclass
class _Sum:
    values: dict[str, Array]
    weight: float
    count: int


def _lift_sum(part: Part) -> _Sum:
    return _Sum(scale(part.values, part.weight), part.weight, 1)


def _lift_sums(parts: Parts) -> _Sum | None:
    if any(values.dtype.kind != "f" for values in parts.values.values()):
        return None
    sums: dict[str, Array] = {}
    for name, values in parts.values.items():
        weights = parts.weights.astype(values.dtype)
        values *= weights.reshape(-1, *[1] * (values.ndim - 1))
        sums[name] = _tree_sum(values).copy()
    return _Sum(sums, float(_tree_sum(parts.weights.copy())), len(parts.weights))


def _tree_sum(rows: Array) -> Array:
    """Sums over the first axis along the fixed tree, in place; returns the first row as an array."""
    step = 1
    while step < len(rows):
        right = rows[step :: 2 * step]
        left = rows[:: 2 * step][: len(right)]
        np.add(left, right, out=left)
        step *= 2
    return np.asarray(rows[0])


def _merge_sum(left: _Sum, right: _Sum) -> _Sum:
    for name, total in left.values.items():
        more = right.values[name]
        if total.dtype == more.dtype:
            np.add(total, more, out=total)
        else:
            left.values[name] = np.asarray(total + more)
    return _Sum(left.values, left.weight + right.weight, left.count + right.count)


def _divisor(dtype: np.dtype[Any], weight: float) -> Any:
    """Returns the weight, or 1 instead of 0: where nothing counts, the sum is 0 too."""
    exact = np.float64(weight) if dtype.kind in "iu" else dtype.type(weight)
    return exact or type(exact)(1)


class _Summing(Reducer[_Sum]):
    """A reducer that adds weighted messages up; how it scales their sum is left to `result`."""

    elementwise: ClassVar[bool] = True

    def accepts(self, spec: Spec) -> None:
        _needs_summable(self, spec)

    def lift(self, part: Part) -> _Sum:
        return _lift_sum(part)

    def lift_many(self, parts: Parts) -> _Sum | None:
        return _lift_sums(parts)

    def merge(self, left: _Sum, right: _Sum) -> _Sum:
        return _merge_sum(left, right)

    def zero(self, spec: Spec) -> Total | None:
        if any(tensor.num_values is None for tensor in spec.tensors.values()):
            return None  # the messages would say how large they are
        return self.result(
            _Sum(
                {n: np.zeros([int(dim) for dim in t.shape], t.dtype) for n, t in spec.tensors.items()}, 0.0, 0
            )
        )


@value
class mean(_Summing):
    """The weighted mean, sum(w x) / sum(w).

    >>> mean().disclosure
    'a mean that shows single updates to the server'
    >>> parts = [Part({"w": np.array([1.0])}, 1.0), Part({"w": np.array([4.0])}, 2.0)]
    >>> reduce(mean(), parts).values
    {'w': array([3.])}
    """

    @property
    def disclosure(self) -> str:
        return "a mean that shows single updates to the server"

    def result(self, accumulator: _Sum) -> Total:
        weight = accumulator.weight
        scaled = tree_map(lambda v: v / _divisor(v.dtype, weight), accumulator.values)
        return Total(scaled, weight, accumulator.count)

    def zero(self, spec: Spec) -> Total | None:
        return None  # 0 / 0


@value
class sum(_Summing):
    """The weighted sum, sum(w x)."""

    def result(self, accumulator: _Sum) -> Total:
        return Total(accumulator.values, accumulator.weight, accumulator.count)

    def moves(self, max_weight: float) -> float | None:
        return max_weight


@value
class fixed_mean(_Summing):
    """The weighted sum divided by a fixed number, sum(w x) / denominator.

    One client moves it by at most w |x| / denominator, whoever else takes part. This is not true of `mean`,
    which divides by the weights that arrived. So noise is calibrated to this one.

    Args:
      denominator: the expected sum of the weights, such as the sampling rate times the number of clients.
    References: McMahan et al., "Learning differentially private recurrent language models", ICLR 2018,
      arXiv 1710.06963, the estimator f_f.

    >>> reduce(fixed_mean(4.0), [Part({"w": np.array([1.0])}), Part({"w": np.array([5.0])})]).values
    {'w': array([1.5])}
    """

    denominator: float

    def __post_init__(self) -> None:
        check_positive("denominator", self.denominator)

    def accepts(self, spec: Spec) -> None:
        super().accepts(spec)
        if spec.kind == "ring":
            raise CompositionError(f"{self} divides, which integers modulo 2^bits do not allow: use sum()")

    def result(self, accumulator: _Sum) -> Total:
        scaled = tree_map(lambda v: v / _divisor(v.dtype, self.denominator), accumulator.values)
        return Total(scaled, accumulator.weight, accumulator.count)

    def moves(self, max_weight: float) -> float | None:
        return max_weight / self.denominator


class _Gathering(Reducer[tuple[Part, ...]]):
    """A reducer that keeps messages side by side; the form of the total is left to `result`."""

    def lift(self, part: Part) -> tuple[Part, ...]:
        return (part,)

    def merge(self, left: tuple[Part, ...], right: tuple[Part, ...]) -> tuple[Part, ...]:
        return left + right


@value
class stack(_Gathering):
    """All parts, stacked: each tensor gains a leading axis, in cohort order. Weights are in "weight".

    Reveals every contribution to the server.
    """

    def accepts(self, spec: Spec) -> None:
        if "weight" in spec.tensors:
            raise CompositionError('stack() puts the weights under "weight": rename the tensor of that name')
        if any(tensor.num_values is None for tensor in spec.tensors.values()):
            raise CompositionError(
                "stack() needs messages of one fixed shape; these have dimensions of their own"
            )

    def result(self, accumulator: tuple[Part, ...]) -> Total:
        names = accumulator[0].values
        stacked = {name: np.stack([part.values[name] for part in accumulator]) for name in names}
        weights = np.array([part.weight for part in accumulator])
        return Total({**stacked, "weight": weights}, float(weights.sum()), len(accumulator))


@value
class each(_Gathering):
    """Every answer by itself, of whatever shape: `Collected.by_party` and `ask_each` return them by party.

    Reveals every contribution to the server. So it is no setting of an algorithm: only who writes a program
    can put it into a PartSpec.
    """

    is_setting: ClassVar[bool] = False

    def accepts(self, spec: Spec) -> None:
        """Accepts any spec."""

    def result(self, accumulator: tuple[Part, ...]) -> Total:
        values = {f"{i}/{name}": v for i, part in enumerate(accumulator) for name, v in part.values.items()}
        weights = np.array([part.weight for part in accumulator])
        return Total({**values, "weight": weights}, float(weights.sum()), len(accumulator))

    @staticmethod
    def split(total: Total) -> list[Part]:
        """Splits a total of `each()` into the answers, in order of their positions."""
        answers: list[dict[str, Array]] = [{} for _ in range(total.count)]
        for path, values in total.values.items():
            number, _, name = path.partition("/")
            if name:
                answers[int(number)][name] = values
        weights = total.values["weight"].tolist()
        return [Part(values, weight) for values, weight in zip(answers, weights, strict=True)]


class TreeFold(Generic[A]):
    """Folds parts in order of position over the fixed binary tree; absent positions are skipped.

    The leaves are the positions 0, 1, 2, ...; two neighbours meet at the height of the highest bit in
    which their positions differ. At most log2(n) accumulators are held. An aligned block of 2^j
    positions that was folded elsewhere may be given as one, at any of its positions.
    """

    def __init__(self, reducer: Reducer[A]) -> None:
        self.reducer: Final = reducer
        self._nodes: list[A] = []
        self._heights: list[int] = []
        self._last = 0
        self._waiting: list[tuple[int, Part]] = []

    def lift(self, position: int, part: Part) -> None:
        """Adds a part to the right of all earlier ones. One that is on disk is read when it is needed."""
        on_disk = isinstance(part.values, Mapped) and self.reducer.elementwise and not self._nodes
        if on_disk or self._waiting:
            self._waiting.append((position, part))
        else:
            self.add(position, self.reducer.lift(part))

    def add(self, position: int, accumulator: A) -> None:
        """Adds a leaf to the right of all earlier ones."""
        self._read()
        self._add(position, accumulator)

    def _read(self) -> None:
        waiting, self._waiting = self._waiting, []
        for position, part in waiting:
            self._add(position, self.reducer.lift(part))

    def _add(self, position: int, accumulator: A) -> None:
        if self._nodes:
            height = (self._last ^ position).bit_length()
            while self._heights and self._heights[-1] < height:
                self._merge()
            self._heights.append(height)
        self._nodes.append(accumulator)
        self._last = position

    def _merge(self) -> None:
        self._heights.pop()
        right = self._nodes.pop()
        self._nodes[-1] = self.reducer.merge(self._nodes[-1], right)

    def accumulator(self) -> A | None:
        """Returns the accumulator of all parts, as a block for another fold; None if nothing was added."""
        self._read()
        while self._heights:
            self._merge()
        return self._nodes[0] if self._nodes else None

    def result(self) -> Total | None:
        """Returns the total, or None if nothing was added."""
        if self._waiting:
            return _by_windows(self.reducer, self._waiting)
        accumulator = self.accumulator()
        return None if accumulator is None else self.reducer.result(accumulator)


def _by_windows(reducer: Reducer[Any], parts: list[tuple[int, Part]]) -> Total:
    """Folds parts that are on disk. Memory holds only the total and a window of each node of the tree."""
    values: dict[str, Array] = {}
    for name in parts[0][1].values:
        shape = parts[0][1].values[name].shape
        size = math.prod(shape)
        for begin in range(0, max(1, size), WINDOW):
            total = _window(reducer, parts, name, slice(begin, begin + WINDOW))
            window = total.values[name]
            if begin == 0:
                values[name] = np.empty(size, window.dtype)
            values[name][begin : begin + WINDOW] = window
        values[name] = values[name].reshape(shape)
    return Total(values, total.weight, total.count)


def _window(reducer: Reducer[Any], parts: list[tuple[int, Part]], name: str, where: slice) -> Total:
    fold = TreeFold(reducer)
    for position, part in parts:
        window = part.values[name].reshape(-1)[where]
        fold.add(position, reducer.lift(Part({name: window}, part.weight)))
        del window  # or the file would stay mapped
    total = fold.result()
    assert total is not None
    return total


def reduce(reducer: Reducer[Any], parts: "list[Part]") -> Total:
    """Folds a list of at least one part as a reducer does, without a federation."""
    fold = TreeFold(reducer)
    for position, part in enumerate(parts):
        fold.add(position, reducer.lift(part))
    total = fold.result()
    if total is None:
        raise CompositionError("nothing to reduce: give at least one part")
    return total
