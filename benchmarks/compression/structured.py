"""Structured updates of one size: the 2NN on MNIST, IID, about a sixteenth of its values trained and sent.

    python benchmarks/compression/structured.py MNIST_FOLDER

A mask, and the factors of A B that are trained, each with the best of a few learning rates.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from accuracy import run
from machine import save

from hanse.core.errors import Diverged
from hanse.core.keys import Keys
from hanse.core.runtime import Record
from hanse.core.spec import Spec
from hanse.data import TrainTest, iid, mnist, partitioned
from hanse.learners import mlp
from hanse.transforms import low_rank, random_mask, subsample, train_a, train_both, wire_bytes

CHAINS: dict[str, tuple[Any, ...]] = {
    "in full, then 6.25%": (subsample(0.0625),),
    "mask of 6.25%": (random_mask(0.0625),),
    "A fixed, B trained, rank 29": (low_rank(29),),
    "B fixed, A trained, rank 10": (low_rank(10, factors=train_a()),),
    "both trained, rank 8": (low_rank(8, factors=train_both()),),
}
RATES = (0.1, 0.3, 1.0, 3.0)


def last_record(data: TrainTest, uplink: tuple[Any, ...], lr: float, rounds: int, seed: int) -> Record | None:
    """The last round's; None if it diverged."""
    parts = partitioned(data, iid(100), Keys.from_seed(seed).public.fold("partition"))
    learner = mlp().bind((28, 28), 10)
    try:
        return run(learner, parts, uplink, lr, rounds, seed, evaluate_every=rounds)[-1]
    except Diverged:
        return None


def main() -> None:
    """Runs every chain with every learning rate and seed."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("mnist", help="folder of the four idx files")
    asked.add_argument("--rounds", type=int, default=100)
    asked.add_argument("--seeds", type=int, default=1)
    given = asked.parse_args()
    data = mnist(given.mnist).load()
    results: dict[str, Any] = {}
    for name, uplink in CHAINS.items():
        spec = Spec.of(mlp().bind((28, 28), 10).init(Keys.from_seed(0).public))
        results[name] = {"message_bytes": wire_bytes(spec, uplink)[-1].message_bytes}
        for lr in RATES:
            last = [last_record(data, uplink, lr, given.rounds, seed) for seed in range(given.seeds)]
            accuracies = [None if one is None else round(one.metrics["accuracy"], 4) for one in last]
            results[name][f"lr {lr:g}"] = accuracies
            print(f"{name}, lr {lr:g}: {accuracies}", file=sys.stderr, flush=True)
    save(__file__, {"rounds": given.rounds, "chains": results})


if __name__ == "__main__":
    main()
