"""Seconds a round with momentum at the clients beside plain steps, on the same work, round by round in turns.

    python benchmarks/simulators/momentum.py [--workload W1 ...] [--rounds N]

Both runs are in this process, on one thread. Prints the median seconds of each and their ratio, and keeps
them in momentum.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parent / "tools"))

from machine import machine
from ours import model, num_classes
from workloads import WORKLOADS, Workload

import hanse
from hanse.algorithms import fed_avg, sgd
from hanse.core import Examples
from hanse.data import from_clients
from hanse.simulation import sequential

HERE = Path(__file__).parent
ROUNDS = {"W1": 10, "W2": 3, "W3": 40, "W4": 3}


def compare(workload: Workload, num_rounds: int) -> dict[str, Any]:
    """Times rounds of both in turns, after two that compile and warm up."""
    path = os.pathsep.join(map(str, (HERE.parents[1] / "src", HERE)))
    prepare = [sys.executable, str(HERE / "tools" / "prepare.py"), workload.name, "3"]
    subprocess.run(prepare, check=True, env={**os.environ, "PYTHONPATH": path})
    x, y = workload.data
    clients = [Examples(x[i], y[i]) for i in range(workload.clients)]
    data = from_clients(clients, num_classes=num_classes(workload))
    runs, seconds = {}, {"plain": list[float](), "momentum": list[float]()}
    for name, momentum in (("plain", 0.0), ("momentum", 0.9)):
        client = sgd(workload.lr / 10, epochs=1, batch_size=workload.batch, momentum=momentum)
        runs[name] = iter(
            hanse.rounds(
                data=data,
                model=model(workload),
                algorithm=fed_avg(fraction=workload.cohort / workload.clients, client=client),
                rounds=num_rounds + 2,
                evaluate_every=0,
                execution=sequential(),
            )
        )
    for _ in range(num_rounds + 2):
        for name, run in runs.items():
            began_s = time.perf_counter()
            next(run)
            seconds[name].append(time.perf_counter() - began_s)
    medians = {name: statistics.median(took[2:]) for name, took in seconds.items()}
    ratio = round(medians["momentum"] / medians["plain"], 3)
    return {**{name: round(took, 5) for name, took in medians.items()}, "ratio": ratio, "rounds": num_rounds}


def main() -> None:
    """Measures what was asked for, and writes it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(ROUNDS))
    parser.add_argument("--rounds", type=int)
    asked = parser.parse_args()
    kept = HERE / "momentum.json"
    found = json.loads(kept.read_text()) if kept.exists() else {"workloads": {}}
    found["machine"] = machine()
    for name in asked.workload:
        figures = compare(WORKLOADS[name], asked.rounds or ROUNDS[name])
        found["workloads"][name] = figures
        kept.write_text(json.dumps(found, indent=2) + "\n")
        plain, momentum = figures["plain"], figures["momentum"]
        print(f"{name}: momentum {momentum:.4g} s, plain {plain:.4g} s a round: {figures['ratio']} times")


if __name__ == "__main__":
    main()
