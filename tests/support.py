"""What several tests share: a tiny exact learner, a population, and both runtimes."""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    DifferentiableLearner,
    Examples,
    InvalidInput,
    Key,
    Keys,
    LocalProblem,
    Memory,
    PartyId,
    Population,
    Tensors,
)
from hanse.core.exchange import (
    Checkpoint,
    Entry,
    Everything,
    InMemory,
    PartyMemory,
    Progress,
    Record,
    Store,
    Watch,
    drive,
    pack,
    training,
    unpack,
)
from hanse.learners import least_squares
from hanse.learners.linear import duals
from hanse.learners.within import descend_within
from hanse.simulation import Devices, InProcess, Simulation, ideal
from hanse.testing import ClientTasks, ConcurrentSimulation, adrive

KEYS = Keys.from_seed(11)


class Quadratic(DifferentiableLearner):
    """F(w) = |x w + b - y|^2 / 2n in float64: the optimum is known in closed form."""

    metrics = ("loss",)

    def __init__(self, num_features: int = 3) -> None:
        self.num_features = num_features

    def init(self, key: Key) -> Tensors:
        return {"w": np.zeros(self.num_features), "b": np.zeros(())}

    def _residual(self, params: Tensors, data: Examples) -> Any:
        return data.x @ params["w"] + params["b"] - data.y

    def objective(self, params: Tensors, data: Examples) -> float:
        return float(np.square(self._residual(params, data)).mean() / 2)

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        residual = self._residual(params, data) / len(data)
        return {"w": data.x.T @ residual, "b": np.asarray(residual.sum())}

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        moved = (data.x @ vector["w"] + vector["b"]) / len(data)
        return {"w": data.x.T @ moved, "b": np.asarray(moved.sum())}

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        return {"loss": self.objective(params, data) * len(data), "count": float(len(data))}

    def predict(self, params: Tensors, x: Array) -> Array:
        return np.asarray(x @ params["w"] + params["b"])

    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        data, steps, key, offset = problem.data, problem.steps, problem.key, problem.offset
        if not steps.is_plain or steps.num_steps is not None:
            return descend_within(params, problem, lambda at, rows, _: self.gradient(at, data.take(rows)))
        space = problem.space or Everything(params)
        z = dict(space.zero())
        for epoch in range(steps.epochs):
            order = np.arange(len(data))
            if steps.batch_size is not None:
                order = key.fold_in("epoch", epoch).rng().permutation(len(data))
            size = steps.batch_size or len(data)
            for start in range(0, len(data), size):
                moved = space.expand(z)
                at = {name: params[name] + moved[name] for name in params}
                rows = data if steps.batch_size is None else data.take(order[start : start + size])
                slope = dict(self.gradient(at, rows))
                for name in slope:
                    slope[name] = slope[name] + steps.proximal * moved[name]
                    if offset is not None:
                        slope[name] = slope[name] + offset[name]
                back = space.pullback(slope)
                z = {name: np.asarray(z[name] - steps.lr * back[name]) for name in z}
        return z

    def dual_ascent(
        self, params: Tensors, data: Examples, dual: Any, key: Key, **settings: Any
    ) -> tuple[Tensors, Any]:
        """On F + |(w, b)|^2 / 20, which has a dual; b is the weight of a column of ones."""
        ridge = duals.dual(least_squares(0.1, intercept=False, dtype="float64"))
        learner = ridge.bind((self.num_features + 1,), None)
        joint = {"weights": np.append(params["w"], params["b"])}
        with_ones = Examples(np.column_stack([data.x, np.ones(len(data))]), data.y)
        update, change = learner.dual_ascent(joint, with_ones, dual, key, **settings)
        *w, b = update["weights"]
        return {"w": np.array(w), "b": np.asarray(b)}, change


class Few(Population):
    """Unequal clients whose optima differ; everybody's data together are the server's."""

    def __init__(self, num_clients: int = 6, num_features: int = 3) -> None:
        rng = np.random.default_rng(5)
        self.parts = []
        for k in range(num_clients):
            x = rng.normal(size=(5 + 3 * k, num_features)) * (1 + 0.2 * k)
            y = x @ (rng.normal(size=num_features) + k / 3) + k
            self.parts.append(Examples(x, y))
        self.pooled = Examples(
            np.concatenate([p.x for p in self.parts]), np.concatenate([p.y for p in self.parts])
        )

    @property
    def num_clients(self) -> int:
        return len(self.parts)

    def client(self, number: int) -> Examples:
        return self.parts[number]

    def role(self, name: str) -> Examples:
        if name != "server":
            raise InvalidInput(f"no role {name!r}")
        return self.pooled

    def optimum(self) -> np.ndarray:
        """The pooled optimum, b last."""
        x = np.column_stack([self.pooled.x, np.ones(len(self.pooled))])
        return np.linalg.lstsq(x, self.pooled.y)[0]


def simulation(store: Store | None = None, devices: Devices = ideal(), population: Any = None) -> Simulation:
    population = population or Few()
    backend = InProcess(Quadratic(), population, KEYS)
    memory = PartyMemory(store.memory if store else None)
    return Simulation(backend, population.num_clients, KEYS, devices, memory)


def program(algorithm: Any, rounds: int, store: Store | None = None, **options: Any) -> Any:
    saved = store.checkpoint() if store else None
    begin = Progress(0, algorithm.init(Quadratic().init(KEYS.public), KEYS.public))
    return training(algorithm, saved.state if saved else begin, KEYS.public, rounds=rounds, **options)


def simulate(
    algorithm: Any,
    rounds: int,
    devices: Devices = ideal(),
    store: Store | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> Any:
    """The state after so many rounds, in one process."""
    led = program(algorithm, rounds, store, **options)
    return drive(led, simulation(store, devices), store, watch).state


def converse(
    algorithm: Any, rounds: int, devices: Devices = ideal(), store: Store | None = None, **o: Any
) -> Any:
    """The state after so many rounds, by message passing between tasks in a shuffled order."""

    async def shuffle() -> None:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)

    async def run() -> Any:
        recall = store.memory if store else lambda party: {}
        async with ClientTasks(Quadratic(), Few(), KEYS, recall, shuffle) as clients:
            runtime = ConcurrentSimulation(clients, Few().num_clients, KEYS, devices)
            return (await adrive(program(algorithm, rounds, store, **o), runtime, store)).state

    return asyncio.run(run())


class Crash(Exception):
    """Stands for the power cut."""


class Fragile(InMemory):
    """A store whose process dies at its n-th write, just before or just after the write."""

    def __init__(self, dies_at: int = -1, *, before: bool = False) -> None:
        super().__init__()
        self.num_writes, self.dies_at, self.before = 0, dies_at, before

    def _write(self, write: Callable[[], None]) -> None:
        self.num_writes += 1
        dies = self.num_writes == self.dies_at
        if not (dies and self.before):
            write()
        if dies:
            raise Crash

    def append(self, entry: Entry) -> None:
        self._write(lambda: super(Fragile, self).append(entry))

    def save(self, checkpoint: Checkpoint, record: Record, memories: Mapping[PartyId, Memory]) -> None:
        self._write(lambda: super(Fragile, self).save(checkpoint, record, memories))

    def dump(self) -> bytes:
        """All that is on the disk."""
        return pack((self._checkpoint, tuple(self._journal), self._memories))

    @classmethod
    def load(cls, data: bytes) -> "Fragile":
        """The disk, found by the next process."""
        store = cls()
        checkpoint, journal, memories = unpack(data)
        store._checkpoint, store._journal, store._memories = checkpoint, list(journal), dict(memories)
        return store
