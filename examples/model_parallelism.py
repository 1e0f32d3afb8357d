"""One model over several workers: a linear model split by columns, and two layers as a pipeline.

    python examples/model_parallelism.py

In data parallelism each worker has the whole model and some rows. Here each has all rows and a part of the
model.

- Columns: worker k holds some columns of the table and their weights. A step sends one number a row each way.
- Pipeline: worker 0 has the first layer, worker 1 the second. A batch is cut into micro-batches, so that
  worker 1 computes on one while worker 0 computes on the next. All gradients are added up before the step, so
  the cut changes nothing but time (Huang et al., "GPipe", NeurIPS 2019).

Both end where one worker with the whole model ends. What is printed is how far they are apart, and what the
pipeline takes on a simulated clock. Real seconds are not saved: a simulation computes tickets when they are
collected.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hanse.core import (
    Algorithm,
    Array,
    Close,
    Contribution,
    Key,
    Keys,
    Memory,
    ModelState,
    Part,
    PartSpec,
    Population,
    Program,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Work,
    collect,
    dispatch,
    gather,
    stack,
    value,
)
from hanse.core import sum as sum_
from hanse.core.exchange import Collected, Progress, drive, training
from hanse.simulation import InProcess, Link, Simulation, constant_speed, timed

KEYS = Keys.from_seed(1)
NUM_ROWS, NUM_COLUMNS, NUM_HIDDEN, NUM_STEPS, LR = 64, 12, 8, 20, 0.1
RNG = np.random.default_rng(1)
X = RNG.normal(size=(NUM_ROWS, NUM_COLUMNS))
Y = np.tanh(X @ RNG.normal(size=NUM_COLUMNS))
ROW = Spec({"row": TensorSpec((NUM_ROWS,), "float64")})


@dataclass(frozen=True)
class Held(Population[Array]):
    """What each worker holds of the table."""

    parts: tuple[Array, ...]

    @property
    def num_clients(self) -> int:
        """The number of workers."""
        return len(self.parts)

    def client(self, number: int) -> Array:
        """Return what a worker holds."""
        return self.parts[number]

    def role(self, name: str) -> Array:
        """Return what the server holds: the labels."""
        return Y


def perform(
    algorithm: Algorithm[ModelState], params: Tensors, held: Held, **options: Any
) -> tuple[Any, float]:
    """Perform all steps in a simulation, and return the parameters and the simulated seconds of a step."""
    runtime = Simulation(InProcess(None, held, KEYS), held.num_clients, KEYS, **options)
    records: list[float] = []
    led = training(algorithm, Progress(0, algorithm.init(params, KEYS.public)), KEYS.public, rounds=NUM_STEPS)
    ended = drive(led, runtime, watch=lambda record: records.append(record.usage.virtual_s))
    return ended.state.params, sum(records) / NUM_STEPS


# A linear model, split by columns. --------------------------------------------------------------------------


@value
class score(Work[None, Array]):
    """Computes the part of the scores that a worker's columns make. Its weights never leave it."""

    def run(
        self, learner: None, shared: Shared, data: Array, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        weights = memory.get("weights", np.zeros(data.shape[1]))
        return {"scores": Part({"row": data @ weights})}, {"weights": weights}


@value
class descend(Work[None, Array]):
    """Takes a gradient step on a worker's own weights; emits them, so that this example can compare them."""

    def run(
        self, learner: None, shared: Shared, data: Array, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        weights = memory["weights"] - LR * data.T @ shared["residual"]["row"] / NUM_ROWS
        padded = np.zeros(NUM_COLUMNS)
        padded[: len(weights)] = weights
        return {"weights": Part({"padded": padded})}, {"weights": weights}


@value
class by_columns(Algorithm[ModelState]):
    """Adds up partial scores, and sends the residuals back."""

    num_workers: int

    def init(self, params: Tensors, key: Key) -> ModelState:
        """Return the state before the first step."""
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        """Take one step."""
        everybody = tuple(range(self.num_workers))
        got = yield from gather(score(), everybody, {}, key, scores=PartSpec(ROW, into=sum_()))
        residual = {"residual": {"row": got["scores"].values["row"] - Y}}
        padded = PartSpec(Spec({"padded": TensorSpec((NUM_COLUMNS,), "float64")}), into=stack())
        got = yield from gather(descend(), everybody, residual, key.fold_in(1), weights=padded)
        return ModelState({"padded": got["weights"].values["padded"]})


def fit_at_once() -> Array:
    """Fit the linear model in one place."""
    weights = np.zeros(NUM_COLUMNS)
    for _ in range(NUM_STEPS):
        weights = weights - LR * X.T @ (X @ weights - Y) / NUM_ROWS
    return weights


def compare_columns() -> float:
    """Return how far three workers end from one."""
    cuts = [slice(0, 5), slice(5, 9), slice(9, NUM_COLUMNS)]
    params, _ = perform(by_columns(3), {"padded": np.zeros(0)}, Held(tuple(X[:, cut] for cut in cuts)))
    rows = [row[: cut.stop - cut.start] for row, cut in zip(params["padded"], cuts, strict=True)]
    return float(np.abs(np.concatenate(rows) - fit_at_once()).max())


# Two layers, as a pipeline. ---------------------------------------------------------------------------------

SECONDS_A_ROW = 1 / NUM_ROWS / 3
"""A worker computes for one second a step: one third is the way forward, two thirds the way back."""


@value
class forward(Work[None, Array]):
    """Computes the first layer of a micro-batch, and keeps its activations until the gradient comes back."""

    first: int
    last: int

    def cost(self, num_examples: int) -> float:
        """Return the rows that it computes."""
        return self.last - self.first

    def run(
        self, learner: None, shared: Shared, data: Array, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        hidden = np.tanh(data[self.first : self.last] @ shared["params"]["first"])
        return {"hidden": Part({"hidden": hidden})}, {**memory, f"~{self.first}": hidden}  # ~ is volatile


@value
class turn(Work[None, Array]):
    """Computes the second layer and the loss of a micro-batch, and the gradient back to the first layer."""

    first: int
    last: int

    def cost(self, num_examples: int) -> float:
        """Return the rows that it computes, forward and back."""
        return 3 * (self.last - self.first)

    def run(
        self, learner: None, shared: Shared, data: Array, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        hidden, second = shared["hidden"]["hidden"], shared["params"]["second"]
        residual = (hidden @ second - data[self.first : self.last]) / NUM_ROWS
        parts = {"slope": Part({"hidden": np.outer(residual, second)})}
        return {**parts, "second": Part({"second": hidden.T @ residual})}, memory


@value
class back(Work[None, Array]):
    """Computes the gradient of the first layer for a micro-batch."""

    first: int
    last: int

    def cost(self, num_examples: int) -> float:
        """Return the rows that it computes, back."""
        return 2 * (self.last - self.first)

    def run(
        self, learner: None, shared: Shared, data: Array, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        hidden = memory[f"~{self.first}"]
        slope = shared["slope"]["hidden"] * (1 - hidden**2)
        return {"first": Part({"first": data[self.first : self.last].T @ slope})}, memory


@value
class pipeline(Algorithm[ModelState]):
    """Sends each micro-batch on as soon as it arrives, and steps when all gradients are back."""

    num_micro_batches: int

    def init(self, params: Tensors, key: Key) -> ModelState:
        """Return the state before the first step."""
        return ModelState(params)

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        """Take one step."""
        size = NUM_ROWS // self.num_micro_batches
        spec = PartSpec(Spec({"hidden": TensorSpec((size, NUM_HIDDEN), "float64")}))
        like = {name: PartSpec(Spec.of({name: w})) for name, w in state.params.items()}
        cuts: dict[int, tuple[int, int]] = {}
        gradients = {name: np.zeros_like(w) for name, w in state.params.items()}

        def send(work: Any, worker: int, shared: Mapping[str, Any], **parts: Any) -> Program[None]:
            own = key.fold_in(type(work).__name__, work.first)
            sent = yield from dispatch(work, (worker,), shared, own, own=None, **parts)
            cuts[sent.tickets[0]] = work.first, work.last

        for first in range(0, NUM_ROWS, size):
            shared: dict[str, Tensors] = {"params": {"first": state.params["first"]}}
            yield from send(forward(first, first + size), 0, shared, hidden=spec)
        num_back = 0
        while num_back < self.num_micro_batches:
            got: Collected = yield from collect(close=Close(goal=1))
            (ticket,) = got.counted
            first, last = cuts[ticket]
            if "hidden" in got.totals:
                shared = {"params": {"second": state.params["second"]}, "hidden": got["hidden"].values}
                yield from send(turn(first, last), 1, shared, slope=spec, second=like["second"])
            elif "slope" in got.totals:
                gradients["second"] = gradients["second"] + got["second"].values["second"]
                shared = {"slope": got["slope"].values}
                yield from send(back(first, last), 0, shared, first=like["first"])
            else:
                gradients["first"] = gradients["first"] + got["first"].values["first"]
                num_back += 1
        return ModelState({name: w - LR * gradients[name] for name, w in state.params.items()})


def start() -> dict[str, Array]:
    """Return two random layers."""
    rng = np.random.default_rng(2)
    shape = (NUM_COLUMNS, NUM_HIDDEN)
    return {"first": rng.normal(size=shape) / 3, "second": rng.normal(size=NUM_HIDDEN) / 3}


def train_at_once() -> dict[str, Array]:
    """Train both layers in one place, on whole batches."""
    w = start()
    for _ in range(NUM_STEPS):
        hidden = np.tanh(X @ w["first"])
        residual = (hidden @ w["second"] - Y) / NUM_ROWS
        slope = np.outer(residual, w["second"]) * (1 - hidden**2)
        w = {"first": w["first"] - LR * X.T @ slope, "second": w["second"] - LR * hidden.T @ residual}
    return w


def compare_pipeline(num_micro_batches: int) -> tuple[float, float]:
    """Return how far a pipeline ends from one place, and the simulated seconds of a step."""
    devices = timed(constant_speed(SECONDS_A_ROW), link=Link(latency_s=0.001))
    algorithm = pipeline(num_micro_batches)
    params, seconds = perform(algorithm, start(), Held((X, Y)), devices=devices)
    due = train_at_once()
    return max(float(np.abs(params[name] - due[name]).max()) for name in due), seconds


def main() -> None:
    """Print both comparisons."""
    apart = compare_columns()
    print(f"columns over 3 workers: {apart:.1e} from one place; {NUM_ROWS} numbers a step each way")
    assert apart < 1e-12
    for num_micro_batches in (1, 4, 16):
        apart, seconds = compare_pipeline(num_micro_batches)
        print(f"pipeline, {num_micro_batches:2} micro-batches: {apart:.1e} from one place; {seconds:.3f} s")
        assert apart < 1e-12


if __name__ == "__main__":
    main()
