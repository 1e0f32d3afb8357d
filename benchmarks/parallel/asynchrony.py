"""Asynchrony with two worker processes beside one process: seconds, and gradients computed.

    python benchmarks/parallel/asynchrony.py       # writes asynchrony.json

`async_sgd` on softmax regression of 20 classes, 12 clients of 50,000 examples of 100 features each, full
gradients, 6 at a time. 48 steps in this process and in two workers, by turns, five times each after a first
turn that reads the data. Seconds are medians; processor seconds are of all processes. All end in the same
bits.
"""

import json
import os
import statistics
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import machine

from hanse.algorithms import async_sgd
from hanse.core import Examples, Keys
from hanse.core.exchange import Progress, digest, drive, training
from hanse.data import from_clients
from hanse.learners import softmax
from hanse.simulation import InProcess, Simulation, WorkerPool, heavy_tailed

KEYS = Keys.from_seed(1)
NUM_CLIENTS, NUM_EXAMPLES, NUM_FEATURES, NUM_CLASSES = 12, 50_000, 100, 20
NUM_STEPS, TIMES = 48, 5


def make_clients() -> Any:
    """Make clients whose classes are those of one linear model."""
    rng = np.random.default_rng(1)
    target = rng.normal(size=(NUM_FEATURES, NUM_CLASSES)).astype(np.float32)
    parts = []
    for _ in range(NUM_CLIENTS):
        x = rng.normal(size=(NUM_EXAMPLES, NUM_FEATURES)).astype(np.float32)
        parts.append(Examples(x, (x @ target).argmax(axis=1)))
    return from_clients(parts)


def read_processor_s(pids: list[int]) -> float:
    """Return the seconds that this process and others have computed so far."""
    ticks = 0
    for pid in (os.getpid(), *pids):
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(numbers[11]) + int(numbers[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def descend(backend: Any, learner: Any) -> str:
    """Take the steps, and return the digest of the end."""
    algorithm = async_sgd(0.1, batch_size=None, concurrency=6)
    begin = Progress(0, algorithm.init(learner.init(KEYS.public), KEYS.public))
    led = training(algorithm, begin, KEYS.public, rounds=NUM_STEPS)
    return digest(dict(drive(led, Simulation(backend, NUM_CLIENTS, KEYS, heavy_tailed())).state.params))


def main() -> None:
    """Write asynchrony.json."""
    learner, people = softmax().bind((NUM_FEATURES,), NUM_CLASSES), make_clients()
    make = partial(InProcess, learner, people, KEYS)
    wall: dict[str, list[float]] = {"one process": [], "two workers": []}
    used: dict[str, list[float]] = {"one process": [], "two workers": []}
    ends = set()
    with closing(WorkerPool(make, 2)) as pool:
        pool.ready(None)
        backends: dict[str, tuple[Any, list[int]]] = {
            "one process": (make(), []),
            "two workers": (pool, pool.pids),
        }
        for turn in range(TIMES + 1):
            for name, (backend, pids) in backends.items():
                began_s, computed_s = time.perf_counter(), read_processor_s(pids)
                ends.add(descend(backend, learner))
                if turn:  # the first reads the data
                    wall[name].append(time.perf_counter() - began_s)
                    used[name].append(read_processor_s(pids) - computed_s)
    assert len(ends) == 1, "all of them compute the same bits"
    result = {
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "wall_s": {name: round(statistics.median(each), 3) for name, each in wall.items()},
        "processor_s": {name: round(statistics.median(each), 3) for name, each in used.items()},
        "fastest_wall_s": {name: round(min(each), 3) for name, each in wall.items()},
    }
    ones, twos = wall["one process"], wall["two workers"]
    result["times_faster"] = {
        "median": round(statistics.median(ones) / statistics.median(twos), 2),
        "fastest": round(min(ones) / min(twos), 2),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
