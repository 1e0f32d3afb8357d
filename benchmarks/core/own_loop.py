"""The time that Hanse adds to a training loop of the user's own.

    python benchmarks/core/own_loop.py

A loop of about 50 ms (AdamW and a schedule on a small network, in PyTorch) is called by `trained_by` in a
simulation, in one process with one thread. The ratio of all seconds to those inside the loop is measured in
several runs, and its median saved. Seconds are those of the processor, because these machines are shared.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch
from machine import save

import hanse
from hanse.algorithms import fed_avg, trained_by
from hanse.core import Examples
from hanse.data import from_clients
from hanse.learners import torch_module
from hanse.simulation import sequential

CLIENTS, ROUNDS, TURNS = 5, 4, 9
RNG = np.random.default_rng(0)
DATA = [
    Examples(RNG.normal(size=(400, 64)).astype(np.float32), RNG.integers(0, 10, size=400))
    for _ in range(CLIENTS)
]


def network() -> Any:
    """Return a small network."""
    return torch.nn.Sequential(torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))


def train(module: Any, data: Any) -> None:
    """Train by AdamW with a schedule, for four epochs."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=4)
    for _ in range(4):
        for rows in torch.randperm(len(y)).split(20):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
            optimiser.step()
        schedule.step()


def measure() -> tuple[float, float]:
    """Return the seconds of a client, and those of its loop alone, from the end of the first round on."""
    inside = [0.0]

    def timed(module: Any, data: Any) -> None:
        began = time.process_time()
        train(module, data)
        inside[0] += time.process_time() - began

    rounds = hanse.rounds(
        data=from_clients(DATA),
        model=torch_module(network),
        algorithm=fed_avg(fraction=1.0, client=trained_by(timed)),
        rounds=ROUNDS + 1,
        evaluate_every=0,
        execution=sequential(),
    )
    ends = [(time.process_time(), inside[0]) for _ in rounds]
    whole, loop = (end - start for start, end in zip(ends[0], ends[-1], strict=True))
    return whole / (ROUNDS * CLIENTS), loop / (ROUNDS * CLIENTS)


def main() -> None:
    """Measure and save."""
    measure()  # to warm up
    pairs = [measure() for _ in range(TURNS)]
    whole, loop = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    save(
        __file__,
        {
            "loop_ms": round(1e3 * loop, 2),
            "in_hanse_ms": round(1e3 * whole, 2),
            "ratio": round(ratio, 4),
            "aim": "below 1.05",
        },
    )


if __name__ == "__main__":
    main()
