"""A task where rotation matters: documents whose words follow Zipf's law, in classes that favour some words.

    python benchmarks/compression/rotation.py

Softmax regression on counts of 10,000 words, 50 clients x 100 documents, five a round, 60 rounds, drawn here.
A few frequent words dominate each update. Without a rotation, the levels divide the range of these words.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import save

from hanse.algorithms import evaluation, fed_avg
from hanse.core import Keys
from hanse.core.exchange import Progress, Record, drive, training
from hanse.data import TrainTest, arrays, iid, partition_data
from hanse.learners import softmax
from hanse.simulation import InProcess, Simulation
from hanse.transforms import quantize, rotate

NUM_WORDS, NUM_CLASSES, NUM_CLIENTS = 10_000, 5, 50
SEEDS = range(3)
CHAINS: dict[str, tuple[Any, ...]] = {
    "none": (),
    **{f"{bits} bit": (quantize(bits),) for bits in (4, 2, 1)},
    **{f"rotate, {bits} bit": (rotate(), quantize(bits)) for bits in (4, 2, 1)},
}


def documents(rng: np.random.Generator, num: int = 6000, length: int = 100) -> TrainTest:
    """Return counts of words; a sixth of the documents is held out."""
    frequencies = 1 / np.arange(1, NUM_WORDS + 1) ** 1.3
    by_class = frequencies[:, None] * np.exp(0.7 * rng.normal(size=(NUM_WORDS, NUM_CLASSES)))
    by_class /= by_class.sum(0)
    classes = rng.integers(0, NUM_CLASSES, num)
    counts = np.stack([rng.multinomial(length, by_class[:, c]) for c in classes]).astype(np.float32)
    cut = num * 5 // 6
    return arrays(counts[:cut], classes[:cut], test_x=counts[cut:], test_y=classes[cut:]).load()


def run(data: TrainTest, uplink: tuple[Any, ...], seed: int) -> Record:
    """Return the record of the last round."""
    keys = Keys.from_seed(seed)
    population = partition_data(data, iid(NUM_CLIENTS), keys.public.fold_in("partition"))
    learner = softmax().bind((NUM_WORDS,), NUM_CLASSES)
    algorithm = fed_avg(lr=0.05, fraction=0.1, epochs=1, batch_size=20, uplink=uplink)
    start = Progress(0, algorithm.init(learner.init(keys.public), keys.public))
    program = training(
        algorithm, start, keys.public, rounds=60, evaluate=evaluation(learner), evaluate_every=60
    )
    records: list[Record] = []
    drive(program, Simulation(InProcess(learner, population, keys), NUM_CLIENTS, keys), watch=records.append)
    return records[-1]


def main() -> None:
    """Run every chain with every seed."""
    chains = {}
    corpora = {seed: documents(np.random.default_rng(seed)) for seed in SEEDS}
    for name, uplink in CHAINS.items():
        last = [run(corpora[seed], uplink, seed) for seed in SEEDS]
        chains[name] = {
            "loss": [round(record.metrics["loss"], 4) for record in last],
            "accuracy": [round(record.metrics["accuracy"], 4) for record in last],
            "mean_loss": round(statistics.fmean(record.metrics["loss"] for record in last), 4),
            "bytes_up_a_round": last[0].usage.bytes_up,
        }
        print(f"{name}: {chains[name]}", file=sys.stderr, flush=True)
    save(__file__, {"chains": chains})


if __name__ == "__main__":
    main()
