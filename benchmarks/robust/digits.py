"""Trains on digits among liars: each rule, without an attack and under four, on alike and on unlike clients.

    python benchmarks/robust/digits.py [--seeds 3] [--out benchmarks/robust/digits.json]

20 clients, 4 of them liars; softmax; all clients in each of 30 rounds of one full-batch step, lr 2. The
clients' digits are IID, or from a Dirichlet distribution of 0.3. Liars know each other's data and messages,
and the rule: they send -3 times the mean of what they would send if they were honest ("-3 mu"), normal
numbers of deviation 10 ("Gauss"), that mean less the number of deviations that does the most harm ("ALIE"),
or train on flipped labels. Accuracies are of the test set, in per cent, after the last round.
"""

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from training import describe_machine, train_among_liars

from hanse.algorithms import sgd
from hanse.attacks import Attack, alie, label_flip, random_update, scaled_mean
from hanse.core import Reducer, mean
from hanse.data import digits, dirichlet, iid
from hanse.robust import (
    bucketing,
    bulyan,
    centred_clipping,
    geometric_median,
    krum,
    median,
    minimum_diameter,
    multi_krum,
    nearest_neighbour_mixing,
    norm_bound,
    recentre,
    trimmed_mean,
    worker_momentum,
)
from hanse.simulation import batched

NUM_CLIENTS, NUM_LIARS, ROUNDS, LR, NUM_PROCESSES = 20, 4, 30, 2.0, 2
PARTITIONS = {"IID": iid(NUM_CLIENTS), "Dirichlet(.3)": dirichlet(NUM_CLIENTS, alpha=0.3)}
ATTACKS: dict[str, Attack | None] = {
    "none": None,
    "-3 mu": scaled_mean(-3.0),
    "Gauss": random_update(10.0),
    "ALIE": alie("optimised"),
    "label flip": label_flip(),
}

RULES: dict[str, tuple[Reducer[Any], Any]] = {
    "mean": (mean(), ()),
    "median": (median(), ()),
    "trimmed_mean(4)": (trimmed_mean(4), ()),
    "krum(4)": (krum(4), ()),
    "multi_krum(4, 12)": (multi_krum(4, 12), ()),
    "minimum_diameter(4)": (minimum_diameter(4), ()),
    "bulyan(4)": (bulyan(4), ()),
    "geometric_median": (geometric_median(), ()),
    "centred_clipping(1, 3)": (centred_clipping(1.0, 3), ()),
    "the same, momentum and centre": (centred_clipping(1.0, 3), (worker_momentum(0.9), recentre())),
    "mixing(4, trimmed_mean(4))": (nearest_neighbour_mixing(4, trimmed_mean(4)), ()),
    "mixing(4, krum(4))": (nearest_neighbour_mixing(4, krum(4)), ()),
    "bucketing(2, median)": (bucketing(2, median()), ()),
    "norm_bound(2), mean": (norm_bound(2.0), ()),
    "norm_bound(2), trimmed_mean(4)": (norm_bound(2.0, trimmed_mean(4)), ()),
}

PUBLISHED: dict[str, dict[str, tuple[float, float, float]]] = {
    "IID": {
        "mean": (90.5, 57.9, 13.1),
        "krum(4)": (88.3, 88.0, 88.0),
        "trimmed_mean(4)": (90.0, 90.0, 89.7),
        "geometric_median": (90.8, 89.7, 90.8),
        "mixing(4, trimmed_mean(4))": (90.5, 90.8, 90.5),
    },
    "Dirichlet(.3)": {
        "mean": (91.4, 40.9, 12.8),
        "krum(4)": (71.0, 69.9, 69.9),
        "trimmed_mean(4)": (85.2, 59.9, 88.0),
        "geometric_median": (90.3, 78.0, 90.8),
        "mixing(4, trimmed_mean(4))": (87.5, 89.1, 91.1),
    },
}
"""The figures of a prototype, of one seed, without an attack, under -3 mu and under Gauss."""


def train(partition: str, rule: str, attack: str, seed: int) -> float:
    """Returns the accuracy after the last round, in per cent."""
    return train_among_liars(
        *RULES[rule],
        ATTACKS[attack],
        client=sgd(LR, epochs=1, batch_size=None),
        fraction=NUM_LIARS / NUM_CLIENTS,
        rounds=ROUNDS,
        data=digits(),
        partition=PARTITIONS[partition],
        seed=seed,
        execution=batched(),
    )


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    began_s, table = time.perf_counter(), dict[str, dict[str, dict[str, list[float]]]]()
    with ProcessPoolExecutor(NUM_PROCESSES) as pool:
        cases = list(product(PARTITIONS, RULES, ATTACKS, range(given.seeds)))
        for (partition, rule, attack, _), reached in zip(
            cases, pool.map(train, *zip(*cases, strict=True)), strict=True
        ):
            rows = table.setdefault(partition, {}).setdefault(rule, {})
            rows.setdefault(attack, []).append(round(reached, 1))
    for partition, rows in table.items():
        print(f"\n{partition:34}" + "".join(f"{attack:>18}" for attack in ATTACKS))
        for rule, row in rows.items():
            known = (*map(str, PUBLISHED[partition].get(rule, ())), *[""] * len(ATTACKS))
            pairs = zip(row.values(), known, strict=False)
            cells = (f"{statistics.fmean(r):10.1f} {f'({due})' if due else '':7}" for r, due in pairs)
            print(f"{rule:34}" + "".join(cells))
    took_s, cpu_s = time.perf_counter() - began_s, os.times().children_user
    print(f"\n{took_s:.0f} s, {cpu_s:.0f} s of processors; in parentheses the prototype's")
    if given.out is not None:
        about = {
            **describe_machine(),
            "numpy": np.__version__,
            "seconds": round(took_s),
            "cpu_s": round(cpu_s),
            "setting": f"{NUM_LIARS} of {NUM_CLIENTS} lie, {ROUNDS} rounds, lr {LR}, {given.seeds} seeds",
        }
        given.out.write_text(json.dumps({**about, "accuracy": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
