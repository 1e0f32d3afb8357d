"""Trains on digits among liars: each rule, without attacks and under two, on alike and on unlike clients.

    python benchmarks/robust/digits.py [--seeds 3] [--out benchmarks/robust/digits.json]

20 clients, 4 of them liars; softmax; all clients in each of 30 rounds of one full-batch step, lr 0.5. The
clients' digits are IID, or from a Dirichlet distribution of 0.3. Liars know what all honest clients send, as
the literature assumes: they send -3 times its mean ("-3 mu"), or normal numbers of deviation 10 ("Gauss").
The attack stands at the server's door: messages of the liars are replaced just before the rule sees them.
Accuracies are of the test set, in per cent, after the last round.
"""

import argparse
import json
import os
import platform
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import hanse
from hanse.algorithms import fed_avg, uniform
from hanse.core import Array, CompositionError, Part, Reducer, Spec, Total, mean, reduce, value
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

NUM_CLIENTS, NUM_LIARS, ROUNDS = 20, 4, 30
PARTITIONS = {"IID": iid(NUM_CLIENTS), "Dirichlet(.3)": dirichlet(NUM_CLIENTS, alpha=0.3)}
ATTACKS = ("none", "-3 mu", "Gauss")

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
"""The figures of a prototype, whose draws and steps were others: directions should agree."""


@value
class attacked(Reducer[Any]):
    """Replaces the messages of the last positions by an attack, and then applies a rule."""

    attack: str
    then: Reducer[Any]

    def accepts(self, spec: Spec) -> None:
        if self.then.hides:
            raise CompositionError(f"{self.then} hides messages")
        self.then.accepts(spec)

    def lift(self, part: Part) -> tuple[Part, ...]:
        return (part,)

    def merge(self, left: tuple[Part, ...], right: tuple[Part, ...]) -> tuple[Part, ...]:
        return left + right

    def result(self, accumulator: tuple[Part, ...]) -> Total:
        honest = accumulator[: NUM_CLIENTS - NUM_LIARS]
        middle = reduce(mean(), list(honest)).values
        rng = np.random.default_rng(int(abs(middle["bias"]).sum() * 1e9) % 2**63)

        def lie(values: Array) -> Array:
            if self.attack == "-3 mu":
                return np.asarray(values.dtype.type(-3) * values)
            return (10 * rng.standard_normal(values.shape)).astype(values.dtype)

        lies = [Part({name: lie(v) for name, v in middle.items()}) for _ in range(NUM_LIARS)]
        return reduce(self.then, [*honest, *lies])


def train(rule: str, attack: str, partition: str, seed: int) -> float:
    into, uplink = RULES[rule]
    result = hanse.run(
        data=digits(),
        partition=PARTITIONS[partition],
        algorithm=fed_avg(
            lr=0.5,
            fraction=1.0,
            epochs=1,
            batch_size=None,
            weighting=uniform(),
            uplink=uplink,
            into=into if attack == "none" else attacked(attack, into),
        ),
        rounds=ROUNDS,
        seed=seed,
        evaluate_every=ROUNDS,
        execution=batched(),
    )
    return 100 * result.records[-1].metrics.get("accuracy", float("nan"))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    begun, table = time.perf_counter(), dict[str, Any]()
    for partition in PARTITIONS:
        print(f"\n{partition:32}" + "".join(f"{attack:>22}" for attack in ATTACKS))
        for rule in RULES:
            row, line = {}, f"{rule:32}"
            for i, attack in enumerate(ATTACKS):
                reached = []
                for seed in range(given.seeds):
                    try:
                        reached.append(round(train(rule, attack, partition, seed), 1))
                    except hanse.Diverged:
                        reached.append(0.0)
                row[attack] = reached
                due = PUBLISHED[partition].get(rule)
                beside = "" if due is None else f" ({due[i]})"
                line += f"{statistics.fmean(reached):14.1f}{beside:8}"
            table.setdefault(partition, {})[rule] = row
            print(line, flush=True)
    took = time.perf_counter() - begun
    print(f"\n{took:.0f} s; in parentheses the prototype's")
    if given.out is not None:
        about = {
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"NumPy {np.__version__}",
            "seconds": round(took),
            "setting": f"{NUM_CLIENTS} clients, {NUM_LIARS} liars, {ROUNDS} rounds, {given.seeds} seeds",
        }
        given.out.write_text(json.dumps({**about, "accuracy": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
