"""Write the inputs of all tools: data, the start, and Hanse's draws for each round.

    python benchmarks/simulators/tools/prepare.py W1 NUM_ROUNDS

`hanse.run` trains a learner that computes nothing and only notes clients and the order of their rows.
Cohorts and orders depend on the seed and on the clients' numbers of examples, not on the model.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ours import model, num_classes
from safetensors.numpy import save_file
from workloads import WORKLOADS, Workload

import hanse
from hanse.algorithms import fed_avg
from hanse.core import DifferentiableLearner, Examples, Key, Keys, Learner, LocalProblem
from hanse.data import from_clients
from hanse.learners import Model, batches


@dataclass
class Noted(DifferentiableLearner):
    """A learner that notes the client and the rows of each local training."""

    metrics = ("loss",)
    seen: list[Any] = field(default_factory=list)

    def init(self, key: Key) -> Mapping[str, Any]:
        return {"w": np.zeros(1, np.float32)}

    def predict(self, params: Any, x: Any) -> Any:
        raise NotImplementedError

    def local_sgd(self, params: Any, problem: LocalProblem) -> Mapping[str, Any]:
        data = problem.data
        everything = np.arange(len(data))
        order = batches(len(data), problem.steps, problem.key)
        rows = np.concatenate([everything[chosen] for chosen in order])
        self.seen.append((int(data.x[0, 0]), rows))
        return {"w": np.zeros(1, np.float32)}

    def objective(self, params: Any, data: Examples) -> float:
        raise NotImplementedError

    def gradient(self, params: Any, data: Examples) -> Any:
        raise NotImplementedError

    def hessian_vector(self, params: Any, data: Examples, vector: Any) -> Any:
        raise NotImplementedError

    def evaluate(self, params: Any, data: Examples) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Noting(Model):
    """The model of an existing learner."""

    learner: Noted

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
        return self.learner


def draw(workload: Workload, num_rounds: int) -> tuple[Any, Any]:
    """Return (rounds, cohort) clients and (rounds, cohort, examples) rows."""
    learner = Noted()
    clients = [
        Examples(np.full((workload.examples, 1), number, np.float32), np.zeros(workload.examples))
        for number in range(workload.clients)
    ]
    hanse.run(
        data=from_clients(clients),
        model=Noting(learner),
        algorithm=fed_avg(
            workload.lr, workload.cohort / workload.clients, epochs=1, batch_size=workload.batch
        ),
        rounds=num_rounds,
        evaluate_every=0,
    )
    shape = (num_rounds, workload.cohort)
    return (
        np.array([client for client, _ in learner.seen]).reshape(shape),
        np.array([rows for _, rows in learner.seen], np.int32).reshape(*shape, workload.examples),
    )


def main() -> None:
    workload, num_rounds = WORKLOADS[sys.argv[1]], int(sys.argv[2])
    folder = workload.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "start.npz").exists():
        x, y = workload.generate()
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
        learner = model(workload).bind(x.shape[2:], num_classes(workload))
        start = dict(learner.init(Keys.from_seed(0).public.fold_in("model")))
        if workload.model == "softmax":  # NumPy's learner has other names, and the transposed layout
            start = {"output.weight": start["weights"].T, "output.bias": start["bias"]}
            start = {name: np.ascontiguousarray(value, np.float32) for name, value in start.items()}
        save_file(start, folder / "start.safetensors")
        np.savez(folder / "start.npz", **start)
    clients, rows = draw(workload, num_rounds)
    np.save(folder / "clients.npy", clients)
    np.save(folder / "rows.npy", rows)


if __name__ == "__main__":
    main()
