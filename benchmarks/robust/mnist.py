"""Trains the 2NN on MNIST among liars: six rules, without an attack and under four.

    python benchmarks/robust/mnist.py FOLDER [--out benchmarks/robust/mnist.json]

20 clients of unlike data (Dirichlet, 0.3), 4 of them liars that know what honest clients send; one step of 50
examples in each of 100 rounds, lr 0.5; one seed. FOLDER has the four idx files.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from training import describe_machine, train_among_liars

from hanse.algorithms import sgd
from hanse.attacks import Attack, alie, label_flip, random_update, scaled_mean
from hanse.core import Key, Reducer, mean
from hanse.data import FederatedData, dirichlet, mnist, partition_data
from hanse.learners import mlp
from hanse.robust import (
    centred_clipping,
    geometric_median,
    krum,
    nearest_neighbour_mixing,
    recentre,
    trimmed_mean,
    worker_momentum,
)
from hanse.simulation import sequential

NUM_CLIENTS, NUM_LIARS, ROUNDS, LR, NUM_PROCESSES = 20, 4, 100, 0.5, 2
ATTACKS: dict[str, Attack | None] = {
    "none": None,
    "-3 mu": scaled_mean(-3.0),
    "Gauss": random_update(10.0),
    "ALIE": alie("optimised"),
    "label flip": label_flip(),
}
RULES: dict[str, tuple[Reducer[Any], Any]] = {
    "mean": (mean(), ()),
    "trimmed_mean(4)": (trimmed_mean(4), ()),
    "krum(4)": (krum(4), ()),
    "geometric_median": (geometric_median(), ()),
    "mixing(4, trimmed_mean(4))": (nearest_neighbour_mixing(4, trimmed_mean(4)), ()),
    "centred_clipping(1, 3), momentum": (centred_clipping(1.0, 3), (worker_momentum(0.9), recentre())),
}


@cache
def load(folder: str) -> FederatedData:
    """Loads the data and divides them among the clients, once in each process."""
    key = Key.from_seed(0).fold_in("partition")
    return partition_data(mnist(folder).load(), dirichlet(NUM_CLIENTS, alpha=0.3), key)


def train(folder: str, rule: str, attack: str) -> float:
    """Returns the accuracy after the last round, in per cent."""
    return train_among_liars(
        *RULES[rule],
        ATTACKS[attack],
        client=sgd(LR, batch_size=50, num_steps=1),
        fraction=NUM_LIARS / NUM_CLIENTS,
        knows="all",
        rounds=ROUNDS,
        data=load(folder),
        model=mlp(),
        execution=sequential(),
    )


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    began_s, table = time.perf_counter(), dict[str, dict[str, float]]()
    print(f"{'':34}" + "".join(f"{attack:>12}" for attack in ATTACKS), flush=True)
    with ProcessPoolExecutor(NUM_PROCESSES, get_context("spawn")) as pool:
        rows = [pool.map(train, repeat(given.folder), repeat(rule), ATTACKS) for rule in RULES]
        for rule, row in zip(RULES, rows, strict=True):
            table[rule] = {attack: round(reached, 1) for attack, reached in zip(ATTACKS, row, strict=True)}
            print(f"{rule:34}" + "".join(f"{n:12.1f}" for n in table[rule].values()), flush=True)
    cpu = os.times()
    seconds = {"seconds": round(time.perf_counter() - began_s), "cpu_s": round(cpu.children_user + cpu.user)}
    print(seconds)
    if given.out is not None:
        about = {**describe_machine(), **seconds}
        given.out.write_text(json.dumps({**about, "accuracy": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
