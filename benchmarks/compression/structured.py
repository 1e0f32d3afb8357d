"""Structured updates of one size: a CNN on MNIST, IID, about a sixteenth of its values trained and sent.

    python benchmarks/compression/structured.py FOLDER            # a CNN of 215,370 parameters, 3 seeds
    python benchmarks/compression/structured.py FOLDER --full --seeds 1 --rounds 10

The folder holds the four idx files. 100 clients, ten a round, one epoch of batches of 10. The ranks are those
whose messages are nearest to the mask's in bytes. Every chain is tried at a few learning rates with seed 0;
the other seeds run at the best of them, and so does the CNN of 1,663,370 parameters (--full). Each run is
written to structured.json, or structured_full.json, when it ends. Runs that are there are not repeated.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from accuracy import run
from machine import machine

from hanse.core import Chain, Diverged, Keys, Spec, Transform
from hanse.data import TrainTest, iid, mnist, partition_data
from hanse.learners import Network, cnn
from hanse.transforms import low_rank, random_mask, subsample, train_a, train_both, wire_bytes

HERE = Path(__file__).parent
FRACTION = 1 / 16
NETWORKS = {"structured": cnn((16, 32), hidden=128), "structured_full": cnn()}
RATES: dict[str, tuple[float, ...]] = {
    "none": (0.1, 0.3),
    "in full, then 1/16": (0.1, 0.3),
    "mask of 1/16": (1.0, 0.3, 3.0),
    "A fixed, B trained": (1.0, 0.3, 3.0),
    "B fixed, A trained": (0.3, 0.1, 1.0, 3.0),
    "both trained": (0.1, 0.03, 0.3, 1.0, 3.0),
}
RANKED: dict[str, Callable[[int], Transform]] = {
    "A fixed, B trained": low_rank,
    "B fixed, A trained": lambda rank: low_rank(rank, factors=train_a()),
    "both trained": lambda rank: low_rank(rank, factors=train_both()),
}


def chains(spec: Spec) -> dict[str, tuple[Transform, ...]]:
    """Return the compared chains, by name."""

    def num_bytes(transform: Transform) -> int:
        return Chain.bind(spec, (transform,)).out.num_bytes or 0

    mask = random_mask(FRACTION)
    ranked = {
        name: (min(map(of_rank, range(1, 512)), key=lambda t: abs(num_bytes(t) - num_bytes(mask))),)
        for name, of_rank in RANKED.items()
    }
    return {"none": (), "in full, then 1/16": (subsample(FRACTION),), "mask of 1/16": (mask,), **ranked}


def best_rate(runs: list[dict[str, Any]], chain: str) -> float:
    """Return the learning rate that ends with the highest accuracy, with seed 0."""
    tried = [one for one in runs if one["chain"] == chain and one["seed"] == 0]
    return float(max(tried, key=lambda one: one["accuracy"][-1:])["lr"])


def planned(runs: list[dict[str, Any]], names: list[str], num_seeds: int) -> Iterator[tuple[str, float, int]]:
    """Yield chain, learning rate and seed: all chains at one rate, then at the next; then the other seeds."""
    for number in range(max(map(len, RATES.values()))):
        yield from ((name, lr, 0) for name in names for lr in RATES[name][number : number + 1])
    yield from ((name, best_rate(runs, name), seed) for seed in range(1, num_seeds) for name in names)


def accuracies(
    network: Network, data: TrainTest, uplink: tuple[Any, ...], lr: float, rounds: int, seed: int
) -> list[float]:
    """Return the accuracy at the start and after every fifth round; none if the run diverged."""
    parts = partition_data(data, iid(100), Keys.from_seed(seed).public.fold_in("partition"))
    try:
        records = run(network.bind((28, 28), 10), parts, uplink, lr, rounds, seed, evaluate_every=5)
    except Diverged:
        return []
    return [round(record.metrics["accuracy"], 4) for record in records if record.metrics]


def main() -> None:
    """Run the planned runs that are missing."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("mnist", help="folder of the four idx files")
    asked.add_argument("--full", action="store_true", help="the CNN of 1,663,370 parameters")
    asked.add_argument("--rounds", type=int, default=20)
    asked.add_argument("--seeds", type=int, default=3)
    given = asked.parse_args()
    data = mnist(given.mnist).load()
    out = HERE / ("structured_full.json" if given.full else "structured.json")
    network = NETWORKS[out.stem]
    spec = Spec.of(network.bind((28, 28), 10).init(Keys.from_seed(0).public))
    compared = chains(spec)
    about = {
        "machine": machine(),
        "network": str(network),
        "rounds": given.rounds,
        "uplinks": {name: str(uplink) for name, uplink in compared.items()},
        "message_bytes": {name: wire_bytes(spec, up)[-1].message_bytes for name, up in compared.items()},
    }
    runs: list[dict[str, Any]] = json.loads(out.read_text())["runs"] if out.exists() else []
    plan = planned(runs, list(compared), given.seeds)
    if given.full:
        small = json.loads((HERE / "structured.json").read_text())["runs"]
        plan = ((name, best_rate(small, name), seed) for seed in range(given.seeds) for name in compared)
    for name, lr, seed in plan:
        if any((one["chain"], one["lr"], one["seed"]) == (name, lr, seed) for one in runs):
            continue
        accuracy = accuracies(network, data, compared[name], lr, given.rounds, seed)
        runs.append({"chain": name, "lr": lr, "seed": seed, "accuracy": accuracy})
        print(runs[-1], file=sys.stderr, flush=True)
        out.write_text(json.dumps({**about, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
