"""Algorithms against drift, on MNIST with four partitions: the table of NIID-bench.

    python benchmarks/niid/run.py FOLDER                     # every cell that has no result yet
    python benchmarks/niid/run.py FOLDER --cell two-labels scaffold --rounds 3
    python benchmarks/niid/run.py --table                    # results.md from the available results

The folder holds the four idx files. 10 clients, all in each round; 10 local epochs, batches of 64; the
network of the published table (two convolutions of 6 and 16 channels, then 120 and 84 units). At two labels
a client FedAvg and SCAFFOLD run for 50 rounds as published, also with the published steps of 0.01 with
momentum 0.9 (fed_avg_momentum, scaffold_momentum); everything else for 10 rounds with steps of 0.03 without
momentum, seed 0. With plain steps of 0.1 FedAvg ends no better and SCAFFOLD diverges at two labels a client
(940 local steps a round); both are kept in the results under "steps of 0.1".
Needs the extra torch. Two cells are computed at a time, of one thread each.

Reference: Li, Diao, Chen, He, "Federated learning on non-IID data silos: an experimental study", ICDE
2022, arXiv 2102.02079; the figures are those of Flower's reproduction.
"""

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import machine
from torch import Tensor, nn

from hanse.algorithms import evaluation, fed_avg, fed_nova, fed_prox, scaffold, sgd
from hanse.core import Keys
from hanse.core.exchange import Progress, Record, drive, training
from hanse.data import dirichlet, iid, labels_per_client, mnist, partition_data
from hanse.learners import torch_module
from hanse.simulation import InProcess, Simulation

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
NUM_CLIENTS = 10
LOCAL: dict[str, Any] = {"lr": 0.03, "fraction": 1.0, "epochs": 10, "batch_size": 64}

ALGORITHMS = {
    "fed_avg": fed_avg(**LOCAL),
    "scaffold": scaffold(**LOCAL),
    "fed_prox": fed_prox(mu=0.01, **LOCAL),
    "fed_nova": fed_nova(**LOCAL),
}
MOMENTUM = sgd(0.01, momentum=0.9, epochs=10, batch_size=64)
PUBLISHED_STEPS = {
    "fed_avg_momentum": fed_avg(fraction=1.0, client=MOMENTUM),
    "scaffold_momentum": scaffold(fraction=1.0, client=MOMENTUM),
}
"""With the published steps, at two labels a client only."""

PARTITIONS = {
    "two-labels": labels_per_client(NUM_CLIENTS, 2),
    "three-labels": labels_per_client(NUM_CLIENTS, 3),
    "dirichlet": dirichlet(NUM_CLIENTS, 0.5),
    "iid": iid(NUM_CLIENTS),
}
PUBLISHED = {
    "two-labels": (96.86, 96.92, 96.85, 96.65),
    "three-labels": (97.86, 97.91, 97.85, 97.62),
    "dirichlet": (98.89, 99.07, 99.02, 98.03),
    "iid": (99.09, 99.06, 99.16, 99.05),
}
"""Per cent after 50 rounds, in the order of ALGORITHMS."""

FULL = {("two-labels", name) for name in ("fed_avg", "scaffold", *PUBLISHED_STEPS)}


class Convolutional(nn.Module):
    """NIID-bench's network for MNIST: 44,426 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.hidden1, self.hidden2, self.output = nn.Linear(256, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of images (n, 28, 28)."""
        x = x[:, None]
        for convolution in (self.conv1, self.conv2):
            x = nn.functional.max_pool2d(convolution(x).relu(), 2)
        x = self.hidden1(x.flatten(1)).relu()
        return self.output(self.hidden2(x).relu())


def run(folder: str, partition: str, algorithm: str, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Return one cell: the accuracy on the 10,000 test images after each round."""
    keys = Keys.from_seed(seed)
    population = partition_data(mnist(folder).load(), PARTITIONS[partition], keys.public.fold_in("partition"))
    learner = torch_module(Convolutional).bind(population.feature_shape, population.num_classes)
    chosen = (ALGORITHMS | PUBLISHED_STEPS)[algorithm]
    params = learner.init(keys.public.fold_in("model"))
    program = training(
        chosen,
        Progress(0, chosen.init(params, keys.public.fold_in("algorithm"))),
        keys.public,
        rounds=rounds,
        evaluate=evaluation(learner),
    )
    accuracies: list[float] = []

    def watch(record: Record) -> None:
        accuracies.append(record.metrics["accuracy"])
        print(f"{partition} {algorithm} round {record.round}: {record.metrics}", file=sys.stderr, flush=True)

    began = time.perf_counter()
    drive(program, Simulation(InProcess(learner, population, keys), NUM_CLIENTS, keys), watch=watch)
    return {
        "seed": seed,
        "settings": repr(chosen),
        "seconds_a_round": round((time.perf_counter() - began) / rounds, 1),
        "accuracies": accuracies,
    }


def perform(folder: str) -> None:
    """Compute the missing cells, longest first; save each when it is done."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cells": {}, "steps of 0.1": {}}
    cells = sorted({(p, a) for p in PARTITIONS for a in ALGORITHMS} | FULL, key=lambda c: (c not in FULL, c))
    missing = [cell for cell in cells if " ".join(cell) not in results["cells"]]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        started = {pool.submit(run, folder, *cell, 50 if cell in FULL else 10): cell for cell in missing}
        for done in as_completed(started):
            results["machine"] = machine()
            results["cells"][" ".join(started[done])] = done.result()
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def ending(name: str, found: dict[str, Any]) -> str:
    """Summarise a long run in a line: single rounds jump by a point or two."""
    tail = found["accuracies"][-10:]
    mean, best = sum(tail) / len(tail), max(found["accuracies"])
    rounds, on = len(found["accuracies"]) - 1, found.get("machine")
    where = f" ({on['date']}, {on['processor']})" if on else ""
    return (
        f"- {name}: {rounds} rounds, the last {tail[-1]:.2%}, mean of the last {len(tail)} {mean:.2%}, "
        f"best {best:.2%}{where}"
    )


def table() -> str:
    """Return the available results as Markdown."""
    results = json.loads(RESULTS.read_text())
    cells, measured = results["cells"], results["machine"]
    lines = [
        "# Four algorithms on MNIST, with four partitions",
        "",
        "Made by `python benchmarks/niid/run.py --table`; `run.py` says what was run. Accuracy in per cent",
        f"on the 10,000 test images, seed 0. {measured['date']}, {measured['processor']}, one thread a cell.",
        "",
    ]
    for rounds, title in ((50, "After 50 rounds"), (10, "After 10 rounds")):
        lines += [f"## {title}", "", f"| | {' | '.join(ALGORITHMS)} |", "|---" * (len(ALGORITHMS) + 1) + "|"]
        for partition in PARTITIONS:
            row = []
            for algorithm in ALGORITHMS:
                found = cells.get(f"{partition} {algorithm}", {"accuracies": ()})["accuracies"]
                row.append(f"{100 * found[rounds]:.2f}" if len(found) > rounds else "")
            if any(row):
                lines.append(f"| {partition} | {' | '.join(row)} |")
        if rounds == 50:
            published = " | ".join(f"{figure:.2f}" for figure in PUBLISHED["two-labels"])
            lines.append(f"| published, two-labels | {published} |")
        lines.append("")
    long = {" ".join(cell): cells[" ".join(cell)] for cell in sorted(FULL) if " ".join(cell) in cells}
    lines += [ending(cell, found) for cell, found in long.items()]
    lines += [ending(f"{cell}, steps of 0.1", found) for cell, found in results["steps of 0.1"].items()]
    lines += ["", "Published after 50 rounds, for comparison:", ""]
    lines += [f"- {name}: {', '.join(f'{x:.2f}' for x in figures)}" for name, figures in PUBLISHED.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the command line."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("folder", nargs="?", help="of the four idx files")
    asked.add_argument("--cell", nargs=2, metavar=("PARTITION", "ALGORITHM"), help="this one, printed only")
    asked.add_argument("--rounds", type=int, default=10, help="of that cell")
    asked.add_argument("--table", action="store_true", help="write results.md")
    given = asked.parse_args()
    if given.folder is None and not given.table:
        asked.error("give a folder, or --table")
    if given.cell is not None:
        print(json.dumps(run(given.folder, *given.cell, given.rounds)))
        return
    if given.folder is not None:
        perform(given.folder)
    (HERE / "results.md").write_text(table())


if __name__ == "__main__":
    main()
