"""Trains on digits among liars without and with momentum at the clients, who differ by chance.

    python benchmarks/robust/momentum.py [--seeds 2] [--out benchmarks/robust/momentum.json]

20 clients, 4 of them liars that know what honest clients send; softmax; 60 rounds of one step on 4 examples
at each client, lr 2. Momentum is `worker_momentum(0.9)`, for centred clipping with `recentre()`. Accuracies
are of the test set, in per cent, after the last round.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from training import describe_machine, train_among_liars

from hanse.algorithms import sgd
from hanse.attacks import Attack, alie, scaled_mean
from hanse.core import Reducer
from hanse.data import digits, dirichlet, iid
from hanse.robust import centred_clipping, krum, median, recentre, trimmed_mean, worker_momentum
from hanse.simulation import batched

NUM_CLIENTS, NUM_LIARS, ROUNDS, LR, BATCH = 20, 4, 60, 2.0, 4
PARTITIONS = {"IID": iid(NUM_CLIENTS), "Dirichlet(.3)": dirichlet(NUM_CLIENTS, alpha=0.3)}
ATTACKS: dict[str, Attack | None] = {"none": None, "-3 mu": scaled_mean(-3.0), "ALIE": alie("optimised")}
RULES: dict[str, tuple[Reducer[Any], Any]] = {
    "krum(4)": (krum(4), (worker_momentum(0.9),)),
    "median": (median(), (worker_momentum(0.9),)),
    "trimmed_mean(4)": (trimmed_mean(4), (worker_momentum(0.9),)),
    "centred_clipping(1, 3)": (centred_clipping(1.0, 3), (worker_momentum(0.9), recentre())),
}


def train(partition: str, rule: str, attack: str, seed: int, *, momentum: bool) -> float:
    """Returns the accuracy after the last round, in per cent."""
    into, uplink = RULES[rule]
    return train_among_liars(
        into,
        uplink if momentum else (),
        ATTACKS[attack],
        client=sgd(LR, batch_size=BATCH, num_steps=1),
        fraction=NUM_LIARS / NUM_CLIENTS,
        knows="all",
        rounds=ROUNDS,
        data=digits(),
        partition=PARTITIONS[partition],
        seed=seed,
        execution=batched(),
    )


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    table = dict[str, dict[str, dict[str, list[float]]]]()
    for partition in PARTITIONS:
        print(f"\n{partition:26}" + "".join(f"{attack:>20}" for attack in ATTACKS))
        for rule in RULES:
            row = table.setdefault(partition, {}).setdefault(rule, {})
            for attack in ATTACKS:
                for momentum in (False, True):
                    reached = [
                        train(partition, rule, attack, seed, momentum=momentum) for seed in range(given.seeds)
                    ]
                    row.setdefault(attack, []).append(round(statistics.fmean(reached), 1))
            cells = (f"{without:12.1f} -> {with_it:.1f}" for without, with_it in row.values())
            print(f"{rule:26}" + "".join(cells), flush=True)
    if given.out is not None:
        about = {**describe_machine(), "cpu_s": round(os.times().user)}
        said = {**about, "accuracy without and with momentum": table}
        given.out.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
