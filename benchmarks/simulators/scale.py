"""The cost of a simulation as it grows: in clients, in rounds, and in clients' memory.

    python benchmarks/simulators/scale.py            # about five minutes on a quiet machine

- 1,000,000 registered clients, 10,000 of them in each round: softmax on 784 features, 20 examples a client,
  one epoch in batches of 10. Seconds a round, and the most memory of all processes together.
- The cost of a client in rounds of 100, 1,000 and 10,000 clients, in one process: processor time.
- 10,000 rounds of 10 clients: memory after round 100 and after round 10,000, with a store.
- SCAFFOLD with 20,000 clients that keep 31 kB each: memory in this process and on the disk.

Each is measured in a fresh process.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import save

import hanse
from hanse.algorithms import fed_avg, scaffold
from hanse.core import Examples
from hanse.core.exchange import Record
from hanse.data import FederatedData, generate
from hanse.learners import softmax
from hanse.simulation import Execution, auto

POOL = 60_000
SIZE = 20


class Slices:
    """Clients with neighbouring rows of one pool, which cost nothing until they are used."""

    def __init__(self, num_features: int) -> None:
        rng = np.random.default_rng(0)
        self.x = rng.random((POOL, num_features), dtype=np.float32)
        self.y = rng.integers(0, 10, POOL)

    def __call__(self, client: int) -> Examples:
        start = (client * SIZE) % (POOL - SIZE)
        return Examples(self.x[start : start + SIZE], self.y[start : start + SIZE])


def population(num_clients: int, num_features: int = 784) -> FederatedData:
    return generate(num_clients, Slices(num_features), num_classes=10)


def memory_mb(of: str = "VmRSS") -> float:
    """Return the memory of this process, and that of its workers alone."""
    own = _status("self", of)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return own + sum(_private_mb(child) for child in children)


def _status(process: str, name: str) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def _private_mb(process: str) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def rounds_of(cohort: int, rounds: int, execution: Execution) -> dict[str, Any]:
    """Measure seconds per round, wall-clock and processor time of this process, and peak memory."""
    wall, own, most = [time.perf_counter()], [time.process_time()], [0.0]

    def watch(record: Record) -> None:
        wall.append(time.perf_counter())
        own.append(time.process_time())
        most[0] = max(most[0], memory_mb("VmHWM"))

    hanse.run(
        data=population(1_000_000),
        model=softmax(),
        algorithm=fed_avg(0.1, cohort / 1_000_000, epochs=1, batch_size=10),
        rounds=rounds,
        evaluate_every=0,
        execution=execution,
        watch=watch,
    )
    return {
        "round_s": round(float(np.median(np.diff(wall)[1:])), 4),
        "own_processor_us_a_client": round(float(np.median(np.diff(own)[1:])) / cohort * 1e6, 1),
        "peak_memory_mb": round(most[0]),
    }


def large() -> dict[str, Any]:
    return rounds_of(10_000, 20, auto())


def of_100() -> dict[str, Any]:
    return rounds_of(100, 100, auto(1))


def of_1000() -> dict[str, Any]:
    return rounds_of(1_000, 15, auto(1))


def of_10000() -> dict[str, Any]:
    return rounds_of(10_000, 5, auto(1))


def long() -> dict[str, Any]:
    """Measure memory within a long run in a store."""
    seen: dict[int, float] = {}

    def watch(record: Record) -> None:
        if record.round in (100, 1_000, 5_000, 10_000):
            seen[record.round] = round(memory_mb(), 1)

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        hanse.run(
            data=population(1_000),
            model=softmax(),
            algorithm=fed_avg(0.1, 0.01, epochs=1, batch_size=10),
            rounds=10_000,
            evaluate_every=0,
            execution=auto(1),
            store=Path(folder, "runs.db"),
            watch=watch,
        )
        took_s = time.perf_counter() - began
    grown = seen[10_000] / seen[100] - 1
    return {"memory_mb_after_round": seen, "grown": round(grown, 4), "seconds": round(took_s, 1)}


def remembering() -> dict[str, Any]:
    """Measure SCAFFOLD: all clients once, and then again."""
    seen: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "runs.db")
        hanse.run(
            data=population(20_000),
            model=softmax(),
            algorithm=scaffold(0.1, 0.05, epochs=1, batch_size=10),
            rounds=40,
            evaluate_every=0,
            execution=auto(1),
            store=store,
            watch=lambda record: seen.append(memory_mb()),
        )
        disk = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
    return {
        "memory_mb_after_round": {str(r): round(seen[r - 1], 1) for r in (1, 5, 10, 20, 40)},
        "disk_mb": round(disk, 1),
    }


def fresh(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_lent, (measure.__name__,))
    print(measure.__name__, json.dumps(found), file=sys.stderr, flush=True)
    return found


def _lent(name: str) -> dict[str, Any]:
    found: dict[str, Any] = globals()[name]()
    return found


def main() -> None:
    save(
        __file__,
        {
            "load_before": os.getloadavg()[0],
            "10,000 of 1,000,000 clients a round": fresh(large),
            "cost of a client": {"100": fresh(of_100), "1000": fresh(of_1000), "10000": fresh(of_10000)},
            "10,000 rounds": fresh(long),
            "scaffold, 20,000 clients": fresh(remembering),
        },
    )


if __name__ == "__main__":
    main()
