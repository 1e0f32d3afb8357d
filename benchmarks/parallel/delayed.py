"""Delayed gradient averaging on MNIST, beside the same delay without correction, and beside FedSGD.

    python benchmarks/parallel/delayed.py DATA       # writes delayed.json; DATA has MNIST's four files

Runs are computed side by side, one on each processor.

16 clients with two shards of digits each, softmax regression, one gradient of 100 examples a step, 400 steps,
three seeds. "Uncorrected" applies the mean of the gradients D steps late and nothing else. Each takes its
best step size of a grid, by the mean accuracy on the test set. The simulated clock has 1 s of latency each
way and 2 ms an example, so that a step takes .2 s; a ticket is sent at once, without a poll before it.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean as average
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import machine

from hanse import run
from hanse.algorithms import dga, rate
from hanse.algorithms.works import batch_gradient
from hanse.core import (
    Algorithm,
    Diverged,
    Key,
    PartSpec,
    Program,
    Spec,
    Tensors,
    add_scaled,
    collect,
    dispatch,
    value,
)
from hanse.data import mnist, shards
from hanse.learners import softmax
from hanse.simulation import Link, constant_speed, sequential, timed

NUM_CLIENTS, NUM_STEPS, BATCH = 16, 400, 100
GRID = (0.01, 0.03, 0.1, 0.3, 1.0)
SEEDS = (1, 2, 3)
DEVICES = timed(constant_speed(0.002), jitter=0.1, link=Link(latency_s=1.0), polls=False)


@value
class Queue:
    """A model, and the tickets of the steps under way."""

    params: Tensors
    tickets: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    num_steps: int = 0


@value
class uncorrected(Algorithm[Queue]):
    """Applies the mean of gradients D steps late: w <- w - lr mean(t - D), and every client stands at w."""

    lr: float
    delay: int

    def init(self, params: Tensors, key: Key) -> Queue:
        return Queue(params)

    def round(self, state: Queue, key: Key) -> Program[Queue]:
        part = PartSpec(Spec.of(state.params))
        cohort = tuple(range(NUM_CLIENTS))
        sent = yield from dispatch(
            batch_gradient(BATCH), cohort, {"params": state.params}, key, gradient=part
        )
        tickets = {**state.tickets, state.num_steps: sent.tickets}
        state = replace(state, tickets=tickets, num_steps=state.num_steps + 1)
        if len(tickets) > self.delay:
            oldest = min(tickets)
            got = yield from collect(tickets.pop(oldest))
            step = -rate(self.lr, oldest)
            state = replace(
                state, params=add_scaled(state.params, step, got["gradient"].values), tickets=tickets
            )
        return state


METHODS = {
    "FedSGD": lambda lr: dga(lr, 0, batch_size=BATCH),
    "DGA, D=5": lambda lr: dga(lr, 5, batch_size=BATCH),
    "uncorrected, D=5": lambda lr: uncorrected(lr, 5),
    "DGA, D=20": lambda lr: dga(lr, 20, batch_size=BATCH),
    "uncorrected, D=20": lambda lr: uncorrected(lr, 20),
}


def train(folder: str, method: str, lr: float, seed: int) -> dict[str, float]:
    """Train, and return the accuracy on the test set and the simulated seconds.

    A run that diverges has the accuracy of a guess, and no seconds.
    """
    try:
        result = run(
            data=mnist(folder),
            partition=shards(NUM_CLIENTS, 2),
            model=softmax(),
            algorithm=METHODS[method](lr),
            rounds=NUM_STEPS,
            evaluate_every=NUM_STEPS,
            devices=DEVICES,
            execution=sequential(),
            seed=seed,
        )
    except Diverged:
        return {"accuracy": 0.1, "virtual_s": float("nan")}
    virtual_s = sum(record.usage.virtual_s for record in result.records)
    measured = [record.metrics["accuracy"] for record in result.records if "accuracy" in record.metrics]
    return {"accuracy": measured[-1], "virtual_s": virtual_s}


def compare(folder: str, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Return each method's accuracies for all step sizes, and its best."""
    runs = {each: pool.submit(train, folder, *each) for each in itertools.product(METHODS, GRID, SEEDS)}
    found: dict[str, Any] = {}
    for name in METHODS:
        rows = {}
        for lr in GRID:
            ended = [runs[name, lr, seed].result() for seed in SEEDS]
            rows[str(lr)] = {
                "accuracies": [round(each["accuracy"], 4) for each in ended],
                "virtual_s": round(average(each["virtual_s"] for each in ended), 1),
            }
        best = max(rows, key=lambda lr: average(rows[lr]["accuracies"]))
        found[name] = {
            "best_lr": float(best),
            "accuracy": round(average(rows[best]["accuracies"]), 4),
            "virtual_s": rows[best]["virtual_s"],
            "grid": rows,
        }
        print(name, found[name]["best_lr"], found[name]["accuracy"], found[name]["virtual_s"], flush=True)
    return found


def main() -> None:
    """Write delayed.json."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began_s = time.perf_counter()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = compare(sys.argv[1], pool)
    result = {
        "machine": machine(),
        "wall_s": round(time.perf_counter() - began_s),
        "methods": found,
        "times_faster_than_fed_sgd": {
            name: round(found["FedSGD"]["virtual_s"] / found[name]["virtual_s"], 2)
            for name in ("DGA, D=5", "DGA, D=20")
        },
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
