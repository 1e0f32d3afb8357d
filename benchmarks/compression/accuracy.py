"""The accuracy that compressed updates cost: the 2NN on MNIST, 100 clients, ten a round, batches of 10.

    python benchmarks/compression/accuracy.py FOLDER                      # the reference figures, IID
    python benchmarks/compression/accuracy.py FOLDER --family --shards    # the whole family, two shards

The folder holds the four idx files. Clients train for one epoch. Bytes are those of the messages that the
clients sent. Each line is printed when it is ready; all are written to accuracy.json, or to the file
after --out.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import save
from threadpoolctl import threadpool_limits

from hanse.algorithms import evaluation, fed_avg
from hanse.core import Keys, Learner
from hanse.core.exchange import Progress, Record, drive, training
from hanse.data import FederatedData, iid, mnist, partition_data, shards
from hanse.learners import mlp
from hanse.simulation import InProcess, Simulation
from hanse.transforms import (
    deflate,
    low_rank,
    none,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
)

REFERENCE: dict[str, tuple[Any, ...]] = {
    "none": (),
    "rotate, 2 bits": (rotate(), quantize(2)),
    "25%, rotate, 2 bits": (subsample(0.25), rotate(), quantize(2)),
    "6.25%, rotate, 2 bits": (subsample(0.0625), rotate(), quantize(2)),
}
FAMILY: dict[str, tuple[Any, ...]] = {
    **REFERENCE,
    "8 bits": (quantize(8),),
    "4 bits": (quantize(4),),
    "2 bits": (quantize(2),),
    "1 bit": (quantize(1),),
    "rotate, 1 bit": (rotate(), quantize(1)),
    "rotate, 2 bits, deflate": (rotate(), quantize(2), deflate()),
    "6.25%, rotate, 2 bits, deflate": (subsample(0.0625), rotate(), quantize(2), deflate()),
    "25%": (subsample(0.25),),
    "6.25%": (subsample(0.0625),),
    "mask of 25%": (random_mask(0.25),),
    "mask of 6.25%": (random_mask(0.0625),),
    "rank 1/4": (low_rank(fraction=0.25),),
    "rank 1/16": (low_rank(fraction=0.0625),),
    "top 1%": (top_k(0.01),),
    "top 1%, without feedback": (top_k(0.01, residual=none()),),
    "top 1%, 4 bits, deflate": (top_k(0.01), quantize(4), deflate()),
    "sign": (sign(),),
    "sign, without feedback": (sign(residual=none()),),
}
TARGET = 0.95
PLAIN_LR = {"iid": 0.1, "shards": 0.05}


def run(
    learner: Learner,
    population: FederatedData,
    uplink: tuple[Any, ...],
    lr: float,
    rounds: int,
    seed: int,
    evaluate_every: int = 1,
) -> list[Record]:
    """Return the records of one run, from round 0."""
    keys = Keys.from_seed(seed)
    algorithm = fed_avg(lr=lr, fraction=0.1, epochs=1, batch_size=10, uplink=uplink)
    start = Progress(0, algorithm.init(learner.init(keys.public.fold_in("init")), keys.public))
    program = training(
        algorithm,
        start,
        keys.public,
        rounds=rounds,
        evaluate=evaluation(learner),
        evaluate_every=evaluate_every,
    )
    records: list[Record] = []
    runtime = Simulation(InProcess(learner, population, keys), population.num_clients, keys)
    with threadpool_limits(1):  # a busy machine makes several many times slower
        drive(program, runtime, watch=records.append)
    return records


def summary(runs: list[list[Record]]) -> dict[str, Any]:
    """Return the accuracy at the end, and rounds and megabytes up to the target, by seed."""
    accuracies = [[record.metrics["accuracy"] for record in records] for records in runs]
    megabytes = [[record.usage.bytes_up / 1e6 for record in records] for records in runs]
    to_target = [
        next((i for i, accuracy in enumerate(one) if accuracy >= TARGET), None) for one in accuracies
    ]
    return {
        "accuracy": [round(one[-1], 4) for one in accuracies],
        "mean_accuracy": round(statistics.fmean(one[-1] for one in accuracies), 4),
        "megabytes_up": round(statistics.fmean(sum(one) for one in megabytes), 3),
        f"rounds_to_{TARGET}": to_target,
        f"megabytes_to_{TARGET}": [
            None if at is None else round(sum(one[: at + 1]), 3)
            for at, one in zip(to_target, megabytes, strict=True)
        ],
        "accuracy_by_round": [" ".join(f"{accuracy:.4f}" for accuracy in one) for one in accuracies],
    }


def main() -> None:
    """Run every chain with every seed."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("mnist", help="folder of the four idx files")
    asked.add_argument(
        "--family", action="store_true", help="the whole family, not only the reference figures"
    )
    asked.add_argument("--shards", action="store_true", help="two shards of one label a client")
    asked.add_argument("--rounds", type=int, default=60)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--out", default=__file__, help="the result is written beside, as .json")
    given = asked.parse_args()

    data = mnist(given.mnist).load()
    learner = mlp().bind((28, 28), 10)
    partition = "shards" if given.shards else "iid"
    results = {}
    for name, uplink in (FAMILY if given.family else REFERENCE).items():
        runs = []
        for seed in range(given.seeds):
            key = Keys.from_seed(seed).public.fold_in("partition")
            parts = partition_data(data, shards(100) if given.shards else iid(100), key)
            runs.append(run(learner, parts, uplink, PLAIN_LR[partition], given.rounds, seed))
        results[name] = summary(runs)
        shown = {k: v for k, v in results[name].items() if k != "accuracy_by_round"}
        print(f"{name}: {shown}", file=sys.stderr, flush=True)
    save(given.out, {"partition": partition, "rounds": given.rounds, "chains": results})


if __name__ == "__main__":
    main()
