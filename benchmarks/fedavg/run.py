"""FedAvg's table: rounds of communication until MNIST is classified with 97% and 99% accuracy.

    python benchmarks/fedavg/run.py FOLDER 2nn-iid       # one of EXPERIMENTS
    python benchmarks/fedavg/run.py --table              # results.md from the available results

The folder holds the four idx files. 100 clients of 600 examples; a tenth of them trains in each round. A
run ends when its target is reached; the step sizes were named beforehand. Needs the extras jax (2NN) and
torch (CNN).

References: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-efficient learning of deep
networks from decentralized data", AISTATS 2017, arXiv 1602.05629, tables 1 and 2.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import save

from hanse.algorithms import evaluation, fed_avg
from hanse.core import Keys, Stop
from hanse.core.exchange import Progress, Record, drive, training
from hanse.data import Partition, TrainTest, iid, mnist, partition_data, shards
from hanse.learners import Network, cnn, mlp
from hanse.simulation import InProcess, Simulation

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Experiment:
    """One entry of the table: the run, the published figure, and the figure to reach."""

    title: str
    network: Network
    partition: Partition
    lr: float
    epochs: int
    target: float
    published: int
    limit: int
    num_seeds: int

    @property
    def max_rounds(self) -> int:
        """The number of rounds after which a run is given up."""
        return 2 * self.limit


EXPERIMENTS = {
    "2nn-iid": Experiment("2NN, IID", mlp(), iid(100), 0.1, 1, 0.97, 87, 90, 3),
    "2nn-shards": Experiment("2NN, two shards a client", mlp(), shards(100, 2), 0.05, 1, 0.97, 664, 700, 3),
    "cnn-iid": Experiment("CNN, IID", cnn(), iid(100), 0.1, 5, 0.99, 20, 30, 1),
}


def rounds_to(target: float, accuracies: list[float]) -> float | None:
    """Return the round in which the best accuracy so far crosses the target, interpolated as in the paper.

    >>> rounds_to(0.5, [0.1, 0.4, 0.3, 0.6])
    2.5
    """
    best = accuracies[0]
    for number, accuracy in enumerate(accuracies[1:], start=1):
        if accuracy >= target:
            return number - 1 + (target - best) / (accuracy - best)
        best = max(best, accuracy)
    return None


def run(experiment: Experiment, data: TrainTest, seed: int) -> dict[str, Any]:
    """Run until the target is reached, or for the most rounds allowed."""
    keys = Keys.from_seed(seed)
    population = partition_data(data, experiment.partition, keys.public.fold_in("partition"))
    learner = experiment.network.bind(population.feature_shape, population.num_classes)
    algorithm = fed_avg(lr=experiment.lr, fraction=0.1, epochs=experiment.epochs, batch_size=10)
    params = learner.init(keys.public.fold_in("model"))
    program = training(
        algorithm,
        Progress(0, algorithm.init(params, keys.public.fold_in("algorithm"))),
        keys.public,
        rounds=experiment.max_rounds,
        evaluate=evaluation(learner),
        stop=Stop(target=experiment.target),
    )
    records: list[Record] = []

    def watch(record: Record) -> None:
        records.append(record)
        print(f"seed {seed} round {record.round}: {record.metrics}", file=sys.stderr, flush=True)

    began = time.perf_counter()
    drive(
        program, Simulation(InProcess(learner, population, keys), population.num_clients, keys), watch=watch
    )
    seconds = time.perf_counter() - began
    accuracies = [record.metrics["accuracy"] for record in records]
    reached = accuracies[-1] >= experiment.target
    crossed = rounds_to(experiment.target, accuracies)
    return {
        "seed": seed,
        "rounds": len(accuracies) - 1 if reached else None,
        "rounds_interpolated": None if crossed is None else round(crossed, 1),
        "best_accuracy": max(accuracies),
        "seconds_a_round": round(seconds / (len(accuracies) - 1), 3),
        "accuracies": accuracies,
    }


def perform(name: str, folder: str) -> None:
    """Run an experiment with all its seeds; write NAME.json."""
    experiment, data = EXPERIMENTS[name], mnist(folder).load()
    runs = [run(experiment, data, seed) for seed in range(experiment.num_seeds)]
    engine = experiment.network.engine.module
    save(
        str(HERE / f"{name}.py"),
        {
            "experiment": experiment.title,
            "network": repr(experiment.network),
            "engine": f"{engine} {version(engine).partition('+')[0]}",
            "lr": experiment.lr,
            "epochs": experiment.epochs,
            "batch_size": 10,
            "fraction": 0.1,
            "target": experiment.target,
            "published": experiment.published,
            "limit": experiment.limit,
            "runs": runs,
        },
    )


def table() -> str:
    """Return the available results as Markdown."""
    lines = [
        "# FedAvg on MNIST: rounds to a target accuracy",
        "",
        "Made by `python benchmarks/fedavg/run.py --table` from the results beside it; `run.py` says what",
        "was run. Rounds are the first whose test accuracy reaches the target, one for each seed (0, 1, 2).",
        "Seconds include measuring on the 10,000 test images; one thread, on a machine that was busy with",
        "other things.",
        "",
        "| | target | lr | E | rounds | to be met | published | seconds a round | engine | date |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in EXPERIMENTS:
        path = HERE / f"{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        rounds = ", ".join(str(one["rounds"] or "not reached") for one in found["runs"])
        seconds = sorted(one["seconds_a_round"] for one in found["runs"])
        cells = (
            found["experiment"],
            f"{found['target']:.0%}",
            found["lr"],
            found["epochs"],
            rounds,
            f"at most {found['limit']}",
            found["published"],
            seconds[len(seconds) // 2],
            found["engine"],
            found["machine"]["date"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the command line."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("folder", nargs="?", help="of the four idx files")
    asked.add_argument("experiment", nargs="?", choices=EXPERIMENTS)
    asked.add_argument("--table", action="store_true", help="write results.md")
    given = asked.parse_args()
    if given.experiment is not None:
        perform(given.experiment, given.folder)
    elif not given.table:
        asked.error("give a folder and an experiment, or --table")
    (HERE / "results.md").write_text(table())


if __name__ == "__main__":
    main()
