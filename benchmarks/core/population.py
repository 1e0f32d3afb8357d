"""Register 1,000,000 clients and sample 100 of them, in a fresh process: seconds and peak memory.

python benchmarks/core/population.py
"""

import resource
import time

import numpy as np
from machine import save

from hanse.algorithms import fed_avg
from hanse.core import Examples, Keys, sample
from hanse.core.exchange import Progress, drive, training
from hanse.data import generate
from hanse.learners import softmax
from hanse.simulation import InProcess, Simulation

NUM_CLIENTS = 1_000_000


def make(client: int) -> Examples:
    """Make twenty examples of 784 features, when a client needs them."""
    rng = np.random.default_rng(client)
    return Examples(rng.random((20, 784), dtype=np.float32), rng.integers(0, 10, 20))


def main() -> None:
    """Measure registration with sampling, and then one round of 100 clients."""
    keys = Keys.from_seed(0)
    began = time.perf_counter()
    population = generate(NUM_CLIENTS, make, num_classes=10)
    learner = softmax().bind((784,), 10)
    runtime = Simulation(InProcess(learner, population, keys), population.num_clients, keys)
    cohort = drive(sample(keys.public, count=100), runtime).cohort
    sampled_s = time.perf_counter() - began
    assert len(set(cohort)) == 100

    algorithm = fed_avg(0.1, fraction=100 / NUM_CLIENTS, epochs=1)
    start = Progress(0, algorithm.init(learner.init(keys.public), keys.public))
    began = time.perf_counter()
    drive(training(algorithm, start, keys.public, rounds=1), runtime)
    round_s = time.perf_counter() - began
    save(
        __file__,
        {
            "clients": NUM_CLIENTS,
            "register_and_sample_s": round(sampled_s, 4),
            "first_round_s": round(round_s, 4),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        },
    )


if __name__ == "__main__":
    main()
