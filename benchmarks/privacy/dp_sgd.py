"""Privacy of examples on MNIST: a network of 784-200-200-10 by DP-SGD, pooled, and at noisy clients.

    python benchmarks/privacy/dp_sgd.py DATA     writes dp_sgd.json beside this file

DATA is the folder of MNIST's four files. The budget of each client is epsilon = 3 for delta = 1e-5, for one
example of one client against the server and everybody else; "pooled" is one client that holds all rows: three
seeds, and one for the noisy clients. Epsilon is that of the claim of the run, by privacy loss distributions.
"""

import json
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hanse
from hanse.algorithms import fed_avg
from hanse.data import iid, mnist
from hanse.learners import mlp, torch_engine
from hanse.privacy import examples
from hanse.simulation import sequential

RESULTS = Path(__file__).with_suffix(".json")
BUDGET = examples(epsilon=3.0, delta=1e-5, max_norm=1.0)
CASES: tuple[tuple[dict[str, Any], tuple[int, ...]], ...] = (
    ({"clients": 1, "rounds": 10, "epochs": 4, "batch_size": 4096, "lr": 4.0}, (0, 1, 2)),
    ({"clients": 10, "rounds": 40, "epochs": 1, "batch_size": 1200, "lr": 4.0}, (0,)),
    ({"clients": 100, "rounds": 40, "epochs": 1, "batch_size": 300, "lr": 4.0}, (0,)),
)


def train(folder: str, case: dict[str, Any], seed: int, privacy: examples | None = BUDGET) -> dict[str, Any]:
    """Trains once; returns accuracy, epsilon and seconds."""
    began, began_cpu = time.perf_counter(), time.process_time()
    result = hanse.run(
        data=mnist(folder),
        partition=iid(case["clients"]),
        model=mlp((200, 200), engine=torch_engine()),
        algorithm=fed_avg(case["lr"], 1.0, epochs=case["epochs"], batch_size=case["batch_size"]),
        rounds=case["rounds"],
        seed=seed,
        privacy=privacy,
        evaluate_every=case["rounds"],
        execution=sequential(),
    )
    return {
        "accuracy": result.final.metrics["accuracy"],
        "epsilon": None if result.privacy is None else result.privacy["epsilon"],
        "seconds": time.perf_counter() - began,
        "processor_s": time.process_time() - began_cpu,
    }


def main(folder: str) -> None:
    rows = []
    for case, seeds in CASES:
        runs = [train(folder, case, seed) for seed in seeds]
        rows.append(
            {
                **case,
                "seeds": seeds,
                "accuracy": statistics.fmean(run["accuracy"] for run in runs),
                "accuracies": [run["accuracy"] for run in runs],
                "epsilon": max(run["epsilon"] for run in runs),
                "seconds": [round(run["seconds"], 1) for run in runs],
                "processor_s": [round(run["processor_s"], 1) for run in runs],
            }
        )
        print(rows[-1], flush=True)
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.platform()}
    said = {
        **about,
        "epsilon": BUDGET.epsilon,
        "delta": BUDGET.delta,
        "max_norm": BUDGET.max_norm,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
