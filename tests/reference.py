"""What a reference round is made of: the arithmetic of two models in plain NumPy, and what a run did.

Nothing here calls an algorithm, a work, a solver or a learner of Hanse to find the numbers that are due.
Parameters are one vector, the bias last.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from support import KEYS, Few

from hanse.core import Close, Examples, Key, Program, Tensors
from hanse.core.exchange import Collect, Collected, Commit, Dispatch, Progress, Sampled, drive, training
from hanse.learners import least_squares, logistic
from hanse.simulation import Devices, InProcess, Simulation, unstable

F = TypeVar("F", bound=Callable[..., Any])
Array = Any

REFERENCES: set[type] = set()
"""The algorithms of which a test recomputes some rounds."""

L2 = 0.3
FREE_BIAS = np.array([1.0, 1.0, 1.0, 0.0])
ALL = slice(None)


def reference_of(*algorithms: type) -> Callable[[F], F]:
    """Marks a test that recomputes rounds of these algorithms."""
    REFERENCES.update(algorithms)
    return lambda test: test


# -- the clients and their models -----------------------------------------------------------------


class Labelled(Few):
    """The unequal clients of `Few`, with two classes as labels."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [Examples(part.x, (part.y > k).astype(int)) for k, part in enumerate(self.parts)]


class Far(Few):
    """The unequal clients of `Few`, some of which want nearly the opposite of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [Examples(part.x, part.y * (-3) ** (k % 3 == 1)) for k, part in enumerate(self.parts)]
        self.pooled = Examples(*(np.concatenate([getattr(p, n) for p in self.parts]) for n in "xy"))


@dataclass(frozen=True)
class Ridge:
    """F_k(w) = |X w - y|² / 2n + (L2/2) |w without bias|²."""

    population: Few = field(default_factory=Few)
    model: Any = least_squares(L2, dtype="float64")
    num_classes: int | None = None

    def rows(self, k: int, rows: Any = ALL) -> tuple[Array, Array]:
        part = self.population.parts[k]
        return np.column_stack([part.x, np.ones(len(part))])[rows], part.y[rows]

    def size(self, k: int) -> int:
        return len(self.population.parts[k])

    def objective(self, w: Array, k: int) -> float:
        x, y = self.rows(k)
        return float(np.sum((x @ w - y) ** 2) / (2 * len(y)) + L2 / 2 * np.sum((FREE_BIAS * w) ** 2))

    def gradient(self, w: Array, k: int, rows: Any = ALL) -> Array:
        x, y = self.rows(k, rows)
        return x.T @ (x @ w - y) / len(y) + L2 * FREE_BIAS * w

    def hessian(self, w: Array, k: int) -> Array:
        x, y = self.rows(k)
        return x.T @ x / len(y) + L2 * np.diag(FREE_BIAS)


@dataclass(frozen=True)
class Logistic(Ridge):
    """F_k(w) = sum log(1 + exp(-s m)) / n + (L2/2) |w without bias|², with m = X w and s = 1 or -1."""

    population: Few = field(default_factory=Labelled)
    model: Any = logistic(L2, dtype="float64")
    num_classes: int | None = 2

    def objective(self, w: Array, k: int) -> float:
        x, y = self.rows(k)
        losses = np.log1p(np.exp(-(2 * y - 1) * (x @ w)))
        return float(losses.mean() + L2 / 2 * np.sum((FREE_BIAS * w) ** 2))

    def gradient(self, w: Array, k: int, rows: Any = ALL) -> Array:
        x, y = self.rows(k, rows)
        return x.T @ (1 / (1 + np.exp(-(x @ w))) - y) / len(y) + L2 * FREE_BIAS * w

    def hessian(self, w: Array, k: int) -> Array:
        x, y = self.rows(k)
        p = 1 / (1 + np.exp(-(x @ w)))
        return (x.T * (p * (1 - p))) @ x / len(y) + L2 * np.diag(FREE_BIAS)


def flatten(params: Tensors) -> Array:
    return np.append(params["weights"], params.get("bias", ()))


# -- local steps ----------------------------------------------------------------------------------


def batches(key: Key, party: int, n: int, epochs: int, size: int | None) -> list[Any]:
    """The rows of each local step of one client, in the order that every learner follows."""
    if size is None or size >= n:
        return [ALL] * epochs
    own = key.fold_in("party", party).fold_in("work")
    orders = [own.fold_in("epoch", epoch).rng().permutation(n) for epoch in range(epochs)]
    return [order[start : start + size] for order in orders for start in range(0, n, size)]


def descend(
    model: Ridge, w: Array, k: int, steps: Sequence[Any], lr: float, *, mu: float = 0.0, tilt: Array = 0.0
) -> Array:
    """w_k - w after one step for each batch along grad F_k(v) + mu (v - w) + tilt."""
    v = w.copy()
    for rows in steps:
        v = v - lr * (model.gradient(v, k, rows) + mu * (v - w) + tilt)
    return v - w


def average(values: Sequence[Array], weights: Sequence[float]) -> Array:
    return sum(n * v for n, v in zip(weights, values, strict=True)) / sum(weights)


# -- what a run did -------------------------------------------------------------------------------


@dataclass
class Round:
    """The commands of one round, the answers of each exchange, and the parameters after it."""

    cohort: tuple[Any, ...] = ()
    sent: list[tuple[Dispatch, tuple[int, ...]]] = field(default_factory=list)
    closes: list[Close] = field(default_factory=list)
    heard: list[Collected] = field(default_factory=list)
    abandoned: bool = False
    params: Array = None
    reported: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """The key of the only dispatch."""
        ((command, _),) = self.sent
        return command.key

    @property
    def parties(self) -> tuple[Any, ...]:
        """The clients that were counted in the only exchange."""
        (got,) = self.heard
        return got.parties


def note(program: Program[Any], rounds: list[Round]) -> Program[Any]:
    """Passes a program's commands and events on, and notes them."""
    now, event = Round(), None
    while True:
        try:
            command = next(program) if event is None else program.send(event)
        except StopIteration as stop:
            return stop.value
        event = yield command
        if isinstance(event, Sampled):
            now.cohort = event.cohort
        elif isinstance(command, Dispatch):
            now.sent.append((command, event.tickets))
        elif isinstance(command, Collect):
            now.closes.append(command.close)
            now.heard.append(event)
        elif isinstance(command, Commit):
            now.abandoned = command.abandoned is not None
            now.params = flatten(command.state.state.params)
            now.reported = command.reported
            rounds.append(now)
            now = Round()


UNRELIABLE = unstable(0.2)
"""Some clients of each cohort do not answer."""


def perform(
    algorithm: Any, num_rounds: int, model: Ridge, devices: Devices = UNRELIABLE, learner: Any = None
) -> list[Round]:
    """Runs rounds from zeros and returns what was done in each."""
    population = model.population
    learner = learner or model.model.bind((3,), model.num_classes)
    backend = InProcess(learner, population, KEYS)
    begin = Progress(0, algorithm.init(learner.init(KEYS.public), KEYS.public))
    rounds: list[Round] = []
    led = note(training(algorithm, begin, KEYS.public, rounds=num_rounds), rounds)
    drive(led, Simulation(backend, population.num_clients, KEYS, devices))
    return rounds


def trained(rounds: Sequence[Round]) -> list[Round]:
    """The rounds with their first exchange alone, in which clients trained."""
    return [replace(round, heard=round.heard[:1]) for round in rounds]


def one_by_one(
    rounds: Sequence[Round], size: int, more: Set[str] = frozenset()
) -> Iterator[tuple[int, Round]]:
    """Yields the closed rounds with their numbers; in some of them clients must have been missing.

    Args:
      rounds: of a run.
      size: of the cohort that is due in each round.
      more: the roles that are asked beside it.
    """
    answered = [set(round.heard[-1].parties) - more for round in rounds]
    assert any(len(parties) < size for parties in answered), "nobody dropped out: this shows too little"
    assert any(b - a for a, b in pairwise(answered)), "nobody came back"
    for number, round in enumerate(round for round in rounds if not round.abandoned):
        assert len(round.cohort) == size
        assert all(set(got.parties) - more <= set(round.cohort) for got in round.heard[-1:])
        yield number, round


def assert_close(found: Array, due: Array) -> None:
    np.testing.assert_allclose(found, due, rtol=1e-9, atol=1e-12)
