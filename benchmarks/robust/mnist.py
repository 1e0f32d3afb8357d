"""Trains the 2NN on MNIST among liars: six rules, without an attack and under four.

    python benchmarks/robust/mnist.py FOLDER [--out benchmarks/robust/mnist.json]

20 clients of unlike data (Dirichlet, 0.3), 4 of them liars that know what honest clients send; one step of 50
examples in each of 100 rounds, lr 0.5; one seed. FOLDER has the four idx files.
"""

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import hanse
from hanse.algorithms import fed_avg, sgd, uniform
from hanse.attacks import Adversary, Attack, alie, label_flip, random_update, scaled_mean
from hanse.core import Reducer, mean
from hanse.data import dirichlet, mnist
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

NUM_CLIENTS, NUM_LIARS, ROUNDS, LR = 20, 4, 100, 0.5
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


def train(folder: str, rule: str, attack: str) -> float:
    """Returns the accuracy on the test set after the last round, in per cent."""
    (into, uplink), lie = RULES[rule], ATTACKS[attack]
    result = hanse.run(
        data=mnist(folder),
        partition=dirichlet(NUM_CLIENTS, alpha=0.3),
        model=mlp(),
        algorithm=fed_avg(
            fraction=1.0,
            client=sgd(LR, batch_size=50, num_steps=1),
            weighting=uniform(),
            uplink=uplink,
            into=into,
        ),
        adversary=None if lie is None else Adversary(lie, NUM_LIARS / NUM_CLIENTS, knows="all"),
        rounds=ROUNDS,
        evaluate_every=ROUNDS,
        execution=sequential(),
    )
    return 100 * result.records[-1].metrics.get("accuracy", float("nan"))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    began_s, used_s, table = time.perf_counter(), time.process_time(), dict[str, dict[str, float]]()
    print(f"{'':34}" + "".join(f"{attack:>12}" for attack in ATTACKS), flush=True)
    for rule in RULES:
        table[rule] = {}
        for attack in ATTACKS:
            try:
                table[rule][attack] = round(train(given.folder, rule, attack), 1)
            except hanse.Diverged:
                table[rule][attack] = 0.0
        print(f"{rule:34}" + "".join(f"{reached:12.1f}" for reached in table[rule].values()), flush=True)
    seconds = {"seconds": round(time.perf_counter() - began_s), "cpu_s": round(time.process_time() - used_s)}
    print(seconds)
    if given.out is not None:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        about = {"date": date.today().isoformat(), "machine": machine, **seconds}
        given.out.write_text(json.dumps({**about, "accuracy": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
