"""Buffered asynchrony beside synchronous FedAvg, to 95% on the digits, on devices of heavier tails.

    python benchmarks/parallel/buffered.py       # writes buffered.json

100 clients of the UCI digits (Dirichlet 1), an MLP of 64 units. 40 clients train at the same time; FedBuff
steps whenever 10 have answered, FedAvg when all 40 have, FedAsync whenever one has. All take two local epochs
in batches of 10, and the best of a grid of step sizes, by the number of updates. Durations are log-normal,
drawn for each ticket. Counted are the updates that reached the server, and the simulated seconds, until the
accuracy on the test set is 95%; means of three seeds.
Runs are computed side by side, one on each processor.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean as average
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import machine

from hanse import run
from hanse.algorithms import fed_async, fed_avg, fed_buff
from hanse.core import Stop
from hanse.data import digits, dirichlet
from hanse.learners import mlp
from hanse.simulation import heavy_tailed, sequential

CONCURRENCY, BUFFER, TARGET = 40, 10, 0.95
SIGMAS = (0.0, 0.5, 1.0, 2.0)
LRS = (0.1, 0.3, 0.6, 1.0, 1.5, 2.5)
SEEDS = (1, 2, 3)
EVERYBODY = {"epochs": 2, "batch_size": 10}
METHODS = {
    "fed_avg": (lambda lr: fed_avg(lr, CONCURRENCY / 100, **EVERYBODY), CONCURRENCY, 200),
    "fed_buff": (lambda lr: fed_buff(lr, CONCURRENCY, BUFFER, **EVERYBODY), BUFFER, 600),
    "fed_async": (lambda lr: fed_async(lr, 0.6, concurrency=CONCURRENCY, **EVERYBODY), 1, 3000),
}


def train(name: str, lr: float, sigma: float, seed: int) -> dict[str, float] | None:
    """Train until the target, and return the updates and simulated seconds that it took; None: it did not."""
    make, size, rounds = METHODS[name]
    result = run(
        data=digits(),
        partition=dirichlet(100, 1.0),
        model=mlp((64,)),
        algorithm=make(lr),
        rounds=rounds,
        evaluate_every=max(1, BUFFER // size),
        stop=Stop("accuracy", TARGET),
        devices=heavy_tailed(1.0, sigma),
        execution=sequential(),
        seed=seed,
    )
    if not any(record.metrics.get("accuracy", 0.0) >= TARGET for record in result.records):
        return None
    return {
        "updates": sum(record.usage.counted for record in result.records),
        "virtual_s": sum(record.usage.virtual_s for record in result.records),
        "staleness": average([record.metrics.get("staleness", 0.0) for record in result.records[1:]]),
    }


def find_best(ended: Mapping[float, Sequence[dict[str, float] | None]]) -> dict[str, float] | None:
    """Return the means of the step size that needs the fewest updates; None: none gets there each time."""
    rows = []
    for lr, each_seed in ended.items():
        good = [each for each in each_seed if each is not None]
        if len(good) == len(SEEDS):
            means = {what: round(average(each[what] for each in good), 2) for what in good[0]}
            rows.append({"lr": lr, **means})
    return min(rows, key=lambda row: row["updates"], default=None)


def compare(pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Return a row for each tail: each method's best, and how many times ours they need."""
    runs = {each: pool.submit(train, *each) for each in itertools.product(METHODS, LRS, SIGMAS, SEEDS)}
    table = []
    for sigma in SIGMAS:
        found = {
            name: find_best({lr: [runs[name, lr, sigma, seed].result() for seed in SEEDS] for lr in LRS})
            for name in METHODS
        }
        ours, fewer = found["fed_buff"], dict[str, dict[str, float]]()
        for other in ("fed_avg", "fed_async"):
            if ours is not None and (theirs := found[other]) is not None:
                fewer[other] = {
                    what: round(theirs[what] / ours[what], 2) for what in ("updates", "virtual_s")
                }
        table.append({"sigma": sigma, **found, "times_those_of_fed_buff": fewer})
        print(json.dumps(table[-1]), flush=True)
    return table


def main() -> None:
    """Write buffered.json."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began_s = time.perf_counter()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        table = compare(pool)
    result = {"machine": machine(), "wall_s": round(time.perf_counter() - began_s), "table": table}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
