"""Rounds to the optimum of a convex problem: how much communication more computation saves.

    python benchmarks/convex/run.py DATA

DATA is LIBSVM's a9a.gz, or the folder that holds it (the variable HANSE_A9A serves as well). The problem is
logistic regression, L2 1e-3, no intercept, float64, over 16 clients: once alike (shuffled), once sorted by
label. Writes results.md, results.json and, with the extra `report` installed, convex.png beside this script.
"""

import argparse
import gzip
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hanse.algorithms import (
    Solver,
    Subproblem,
    adding,
    averaging,
    cocoa,
    conjugate_gradients,
    dane,
    fed_avg,
    fed_dyn,
    fed_sgd,
    giant,
    nesterov,
    newton,
    one_shot,
    scaffold,
)
from hanse.core import (
    Algorithm,
    Array,
    DifferentiableLearner,
    Diverged,
    Examples,
    Key,
    Keys,
    LocalProblem,
    Population,
    Program,
    Stop,
    Tensors,
    add,
    add_scaled,
    subtract,
    value,
    zeros_like,
)
from hanse.core.exchange import Progress, Record, drive, training
from hanse.data import Partition, TrainTest, iid, partition_data, shards
from hanse.learners import dual, logistic
from hanse.simulation import InProcess, Simulation

HERE = Path(__file__).parent
NUM_FEATURES = 123
NUM_CLIENTS = 16
L2 = 1e-3
FAR, NEAR = 1e-3, 1e-6
KEYS = Keys.from_seed(0)
NUM_SHUFFLES = 5
REFERENCE = {"optimum": 0.333340752069, "L": 1.572920}
SPLITS: Mapping[str, Partition] = {"IID": iid(NUM_CLIENTS), "sorted by label": shards(NUM_CLIENTS, 1)}


# -- the problem -------------------------------------------------------------------------------


def read(path: Path) -> Examples:
    """Read the examples of a LIBSVM file with labels -1 and 1."""
    with gzip.open(path, "rt") as lines:
        rows = [line.split() for line in lines]
    x = np.zeros((len(rows), NUM_FEATURES))
    for row, (_, *entries) in zip(x, rows, strict=True):
        for entry in entries:
            column, _, number = entry.partition(":")
            row[int(column) - 1] = float(number)
    return Examples(x, np.array([int(float(label) > 0) for label, *_ in rows]))


class Shared(Population):
    """Divide the examples among sixteen clients, once."""

    def __init__(self, data: Examples, partition: Partition, shuffle: int) -> None:
        key = KEYS.public.fold_in("partition", shuffle)
        shared = partition_data(TrainTest(data, num_classes=2), partition, key)
        self.parts = [shared.client(k) for k in range(shared.num_clients)]
        self.pooled = data

    @property
    def num_clients(self) -> int:
        return len(self.parts)

    def client(self, number: int) -> Examples:
        return self.parts[number]

    def role(self, name: str) -> Examples:
        return self.pooled


class Counted(DifferentiableLearner):
    """A count of the clients' computation, in passes. A gradient, two products with the features, is one."""

    def __init__(self, inner: Any, num_examples: int) -> None:
        self.inner, self.num_examples, self.products = inner, num_examples, 0.0

    @property
    def passes(self) -> float:
        """The passes so far; one pass of all clients over their own data, at the same time, counts as one."""
        return self.products / 2

    def _count(self, products: float, data: Examples) -> None:
        self.products += products * len(data) / self.num_examples

    @property
    def metrics(self) -> tuple[str, ...]:
        metrics: tuple[str, ...] = self.inner.metrics
        return metrics

    def init(self, key: Key) -> Tensors:
        start: Tensors = self.inner.init(key)
        return start

    def objective(self, params: Tensors, data: Examples) -> float:
        self._count(1, data)
        return float(self.inner.objective(params, data))

    def gradient(self, params: Tensors, data: Examples) -> Tensors:
        self._count(2, data)
        slope: Tensors = self.inner.gradient(params, data)
        return slope

    def hessian_vector(self, params: Tensors, data: Examples, vector: Tensors) -> Tensors:
        self._count(3, data)
        product: Tensors = self.inner.hessian_vector(params, data, vector)
        return product

    def evaluate(self, params: Tensors, data: Examples) -> dict[str, float]:
        sums: dict[str, float] = self.inner.evaluate(params, data)
        return sums

    def predict(self, params: Tensors, x: Array) -> Array:
        return np.asarray(self.inner.predict(params, x))

    def local_sgd(self, params: Tensors, problem: LocalProblem) -> Tensors:
        self._count(2 * problem.steps.epochs, problem.data)
        update: Tensors = self.inner.local_sgd(params, problem)
        return update

    def dual_ascent(
        self,
        params: Tensors,
        data: Examples,
        dual: Array | None,
        key: Key,
        *,
        epochs: int,
        num_examples: float,
        coupling: float,
    ) -> tuple[Tensors, Array]:
        self._count(2 * epochs, data)
        changes: tuple[Tensors, Array] = self.inner.dual_ascent(
            params, data, dual, key, epochs=epochs, num_examples=num_examples, coupling=coupling
        )
        return changes


@dataclass(frozen=True)
class Problem:
    """The pooled problem: its optimum and its curvature.

    Args:
      learner: the model.
      data: all examples.
      optimum: the least objective.
      curvature: L, the largest that it may have.
    """

    learner: Any
    data: Examples
    optimum: float
    curvature: float

    @classmethod
    def of(cls, data: Examples) -> "Problem":
        """Solve the problem by Newton's method on the pooled data."""
        learner = dual(logistic(L2, intercept=False, dtype="float64")).bind((NUM_FEATURES,), 2)
        best = newton(100, tolerance=1e-12).minimise(
            learner, learner.init(KEYS.public), Subproblem(data, KEYS.public)
        )
        curvature = float(np.linalg.eigvalsh(data.x.T @ data.x / len(data))[-1] / 4 + L2)
        return cls(learner, data, learner.objective(best, data), curvature)


# -- the algorithms ----------------------------------------------------------------------------


@value
class undamped(Solver):
    """Newton's method without a line search: with it DANE diverges where its exact form does not."""

    num_iterations: int = 20

    def minimise(self, learner: DifferentiableLearner, start: Tensors, problem: Subproblem) -> Tensors:
        data, offset, proximal = problem.data, problem.offset, problem.proximal
        update: Tensors = zeros_like(start)
        for _ in range(self.num_iterations):
            here = add(start, update)
            pull = add(learner.gradient(here, data), offset or zeros_like(start))
            gradient = add_scaled(pull, proximal, update)

            def curved(vector: Tensors, here: Tensors = here) -> Tensors:
                return add_scaled(learner.hessian_vector(here, data, vector), proximal, vector)

            update = subtract(update, conjugate_gradients(curved, gradient, 250, 1e-8))
        return update


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
      name: as the reference calls it.
      algorithm: by L.
      rounds: at most.
      reference: rounds to both gaps (or what is said instead), by split.
      shuffles: the number of IID splits; the table shows the first, and the range of all.
      until: it stops at this gap.
    """

    name: str
    algorithm: Callable[[float], Algorithm[Any]]
    rounds: int
    reference: Mapping[str, str]
    shuffles: int = 1
    until: float = NEAR


def both(iid: str, by_label: str = "-") -> Mapping[str, str]:
    return dict(zip(SPLITS, (iid, by_label), strict=True))


def momentum(curvature: float) -> float:
    """Return Nesterov's method, for curvatures from L2 to L."""
    return float((curvature**0.5 - L2**0.5) / (curvature**0.5 + L2**0.5))


MANY_STEPS: dict[str, Any] = {"fraction": 1.0, "epochs": 20, "batch_size": None}
ROWS = [
    Row("gradient descent", lambda L: fed_sgd(1 / L), 1500, both("415 / >1500", "415 / >1500")),
    Row("Nesterov", lambda L: nesterov(1 / L, momentum(L)), 300, both("72 / 195", "72 / 195")),
    Row("DANE mu = 0", lambda L: dane(), 40, both("2 / 3", "diverges"), NUM_SHUFFLES),
    Row("... solved without a line search", lambda L: dane(solver=undamped()), 40, both("-")),
    Row("DANE mu = .003", lambda L: dane(0.003), 40, both("2 / 8", "5 / 10"), NUM_SHUFFLES),
    Row("GIANT", lambda L: giant(), 40, both("3 / 5", "3 / 7"), NUM_SHUFFLES),
    Row("CoCoA (averaging)", lambda L: cocoa(averaging()), 150, both("6 / 57"), NUM_SHUFFLES),
    Row("CoCoA+ (adding)", lambda L: cocoa(adding()), 150, both("5 / 50"), NUM_SHUFFLES),
    Row(
        "FedAvg, 20 local steps",
        lambda L: fed_avg(1 / L, **MANY_STEPS),
        600,
        both("21 / >600", "plateaus"),
        NUM_SHUFFLES,
        until=0.0,
    ),
    Row("one-shot averaging", lambda L: one_shot(), 1, both("gap 1.7e-4", "gap 0.53"), NUM_SHUFFLES),
    Row("SCAFFOLD, 20 local steps", lambda L: scaffold(1 / L, **MANY_STEPS), 400, both("-")),
    Row("FedDyn, 20 local steps", lambda L: fed_dyn(1 / L, **MANY_STEPS, alpha=0.1), 400, both("-")),
]


# -- the runs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """The result of one run: the gap and the passes so far, by round from 0."""

    row: Row
    split: str
    gaps: list[float]
    passes: list[float]
    diverged: str | None
    seconds: float

    def reached(self, target: float) -> int | None:
        """Return the first round with this gap or less."""
        return next((t for t, gap in enumerate(self.gaps) if gap <= target), None)

    @property
    def rounds(self) -> int:
        return len(self.gaps) - 1

    @property
    def plateaus(self) -> bool:
        """Return whether the second half of all allowed rounds brought next to nothing."""
        half = self.gaps[len(self.gaps) // 2]
        return self.rounds == self.row.rounds > 1 and self.gaps[-1] > 0.9 * half

    def rounds_in_words(self) -> str:
        """Return the rounds to both gaps."""
        if self.row.rounds == 1:
            return f"gap {self.gaps[-1]:.2g}"
        if self.diverged:
            return f"diverges in round {self.rounds + 1}"
        words = [str(t) if (t := self.reached(g)) is not None else f">{self.rounds}" for g in (FAR, NEAR)]
        return " / ".join(words)

    def remark(self) -> str:
        """Return a remark on other events."""
        highest = max(self.gaps)
        if highest > 2 * self.gaps[0]:
            times = f"{highest / self.gaps[0]:.3g} times the start's"
            return f"rises to a gap of {highest:.3g}, {times}, in round {self.gaps.index(highest)}"
        if self.plateaus:
            return f"plateaus at a gap of {self.gaps[-1]:.3g}"
        if self.reached(NEAR) is None and self.row.rounds > 1:
            return f"gap {self.gaps[-1]:.2g} after {self.rounds} rounds"
        return ""


def run(row: Row, split: str, problem: Problem, population: Shared) -> Ran:
    """Run one line of the table on one split."""
    learner = Counted(problem.learner, len(problem.data))
    algorithm = row.algorithm(problem.curvature)
    gaps: list[float] = []
    passes: list[float] = []

    def measure(params: Tensors, key: Key) -> Program[Mapping[str, float]]:
        yield from ()
        loss = problem.learner.objective(params, problem.data)
        return {"loss": loss, "gap": loss - problem.optimum}

    def watch(record: Record) -> None:
        gaps.append(record.metrics["gap"])
        passes.append(learner.passes)

    runtime = Simulation(InProcess(learner, population, KEYS), population.num_clients, KEYS)
    start = Progress(0, algorithm.init(learner.init(KEYS.public), KEYS.public))
    program = training(
        algorithm, start, KEYS.public, rounds=row.rounds, evaluate=measure, stop=Stop("gap", target=row.until)
    )
    began, diverged = time.perf_counter(), None
    try:
        drive(program, runtime, watch=watch)
    except Diverged as error:
        diverged = str(error)
    return Ran(row, split, gaps, passes, diverged, time.perf_counter() - began)


# -- the report --------------------------------------------------------------------------------


def thinned(number: int, most: int = 120) -> list[int]:
    """Return the rounds to keep: all of a short run, ever fewer of a long one."""
    return sorted({int(t) for t in np.geomspace(1, number, most)} | {0, number}) if number else [0]


def spread(runs: list[Ran]) -> str:
    """Return the range over several shuffles of the value that the table gives for the first."""
    if len(runs) < 2:
        return "-"
    if runs[0].row.rounds == 1:
        gaps = sorted(ran.gaps[-1] for ran in runs)
        return f"gap {gaps[0]:.2g} to {gaps[-1]:.2g}"
    ranges = []
    for target in (FAR, NEAR):
        rounds = [
            (math.inf, f">{ran.rounds}") if (t := ran.reached(target)) is None else (t, f"{t}")
            for ran in runs
        ]
        least, most = min(rounds)[1], max(rounds)[1]
        ranges.append(least if least == most else f"{least} to {most}")
    return " / ".join(ranges)


def plateaus(runs: list[Ran]) -> str:
    """Return the range of plateaus, if there are several."""
    gaps = sorted(ran.gaps[-1] for ran in runs if ran.plateaus)
    return f" ({gaps[0]:.2g} to {gaps[-1]:.2g} over {len(gaps)} shuffles)" if len(gaps) > 1 else ""


def as_json(problem: Problem, runs: list[list[Ran]]) -> dict[str, Any]:
    return {
        "machine": machine(),
        "problem": {
            "examples": len(problem.data),
            "features": NUM_FEATURES,
            "clients": NUM_CLIENTS,
            "l2": L2,
            "optimum": problem.optimum,
            "L": problem.curvature,
            "reference": REFERENCE,
        },
        "runs": [
            {
                "algorithm": ran.row.name,
                "split": ran.split,
                "reference": ran.row.reference[ran.split],
                "rounds": ran.rounds_in_words(),
                "range": spread([ran, *others]),
                "remark": ran.remark() + plateaus([ran, *others]),
                "last_gaps": [float(f"{each.gaps[-1]:.4g}") for each in (ran, *others)],
                "diverged": ran.diverged,
                "passes": [ran.passes[t] if (t := ran.reached(g)) is not None else None for g in (FAR, NEAR)],
                "seconds": round(ran.seconds, 1),
                "curve": [
                    [t, float(f"{ran.gaps[t]:.4g}"), round(ran.passes[t], 1)] for t in thinned(ran.rounds)
                ],
            }
            for ran, *others in runs
        ],
    }


def as_text(report: dict[str, Any]) -> str:
    """Return JSON with one run per line."""
    head = {name: part for name, part in report.items() if name != "runs"}
    runs = ",\n  ".join(json.dumps(ran) for ran in report["runs"])
    return json.dumps(head, indent=1)[:-2] + f',\n "runs": [\n  {runs}\n ]\n}}\n'


def machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "arithmetic_threads": 1,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def as_markdown(report: dict[str, Any]) -> str:
    about, problem = report["machine"], report["problem"]
    lines = [
        "# Rounds to the optimum of a convex problem",
        "",
        f"{about['date']}, {about['cores']} CPU cores (one arithmetic thread), Python {about['python']}, "
        f"NumPy {about['numpy']}. Written by `run.py`.",
        "",
        f"a9a, logistic regression, L2 {problem['l2']:g}, no intercept; {problem['clients']} clients. "
        f"Optimum {problem['optimum']:.12f} (reference {problem['reference']['optimum']:.12f}), "
        f"L {problem['L']:.6f} (reference {problem['reference']['L']:.6f}). Rounds to a gap of {FAR:g} / "
        f"{NEAR:g}; passes: local computation until then, in passes over a client's own data.",
    ]
    for split in SPLITS:
        lines += [
            "",
            f"## {split}",
            "",
            f"| | reference | rounds | {NUM_SHUFFLES} shuffles | passes | remark | s |",
        ]
        lines.append("|---|---|---|---|---|---|---|")
        for ran in report["runs"]:
            if ran["split"] == split:
                passes = " / ".join("-" if p is None else f"{p:.0f}" for p in ran["passes"])
                cells = (
                    ran["algorithm"],
                    ran["reference"],
                    ran["rounds"],
                    ran["range"],
                    passes,
                    ran["remark"],
                )
                lines.append(f"| {' | '.join(cells)} | {ran['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def find(given: str | None) -> Path:
    """Return the file. Raises: SystemExit: if there is none."""
    if given is None:
        raise SystemExit("name a9a.gz or its folder: run.py DATA, or set HANSE_A9A")
    path = Path(given)
    for candidate in (path, path / "a9a.gz", path / "libsvm" / "a9a.gz"):
        if candidate.is_file():
            return candidate
    raise SystemExit(
        f"no a9a.gz at {given}; it is at www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets (binary)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", default=os.environ.get("HANSE_A9A"), metavar="DATA")
    parser.add_argument("--only", help="run only the algorithms whose name contains this, and write nothing")
    options = parser.parse_args()
    path = find(options.data)
    with threadpool_limits(1):
        problem = Problem.of(read(path))
        print(f"optimum {problem.optimum:.12f}, L {problem.curvature:.6f}")
        runs: list[list[Ran]] = []
        for split, partition in SPLITS.items():
            shuffled = [Shared(problem.data, partition, shuffle) for shuffle in range(NUM_SHUFFLES)]
            for row in ROWS:
                if options.only is None or options.only.lower() in row.name.lower():
                    populations = shuffled[: row.shuffles if split == "IID" else 1]
                    runs.append([run(row, split, problem, population) for population in populations])
                    ran = runs[-1][0]
                    words = f"{ran.rounds_in_words():<24} (reference {row.reference[split]})"
                    print(
                        f"{split:<16} {row.name:<33} {words}  {ran.remark()}  {spread(runs[-1])}", flush=True
                    )
    if options.only is not None:
        return
    report = as_json(problem, runs)
    (HERE / "results.json").write_text(as_text(report))
    (HERE / "results.md").write_text(as_markdown(report))
    try:
        import picture
    except ImportError:
        sys.exit(
            "no picture: pip install 'hanse[report]' for it, then picture.py draws what results.json holds"
        )
    picture.draw(report, HERE / "convex.png")


if __name__ == "__main__":
    main()
