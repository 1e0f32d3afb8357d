"""Models with matrices, on the simulation and by message passing: the same bits, and it learns."""

import asyncio
import random
from typing import Any

import numpy as np
import pytest
from support import KEYS

from hanse.algorithms import evaluation, fed_avg
from hanse.core.exchange import Progress, digest, drive, training
from hanse.data import digits, dirichlet, partition_data
from hanse.learners import softmax
from hanse.simulation import InProcess, Simulation
from hanse.testing import ClientTasks, ConcurrentSimulation, adrive
from hanse.transforms import (
    cast,
    deflate,
    low_rank,
    out_last,
    per_block,
    per_round,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
    train_a,
    train_both,
)

UPLINKS: list[tuple[Any, ...]] = [
    (low_rank(4, layout=out_last()), rotate(), quantize(4)),
    (low_rank(4, factors=train_a(), drawn=per_round(), layout=out_last()),),
    (low_rank(4, factors=train_both(), layout=out_last()),),
    (random_mask(0.5, drawn=per_round()), rotate(), quantize(4), deflate()),
    (subsample(0.25), rotate(), quantize(4)),
    (top_k(0.1), quantize(4, per_block(16)), deflate()),
    (sign(),),
    (cast("bfloat16"), deflate()),
]
NUM_CLIENTS = 12
POPULATION = partition_data(digits().load(), dirichlet(NUM_CLIENTS, alpha=1.0), KEYS.public)
LEARNER = softmax().bind((8, 8), 10)


def program(uplink: tuple[Any, ...], rounds: int, measured: bool = False) -> Any:
    algorithm = fed_avg(lr=0.05, fraction=0.5, uplink=uplink)
    start = Progress(0, algorithm.init(LEARNER.init(KEYS.public), KEYS.public))
    evaluate = evaluation(LEARNER) if measured else None
    return training(algorithm, start, KEYS.public, rounds=rounds, evaluate=evaluate, evaluate_every=rounds)


def conversed(uplink: tuple[Any, ...], rounds: int) -> Any:
    async def shuffle() -> None:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)

    async def run() -> Any:
        async with ClientTasks(LEARNER, POPULATION, KEYS, pause=shuffle) as tasks:
            runtime = ConcurrentSimulation(tasks, NUM_CLIENTS, KEYS)
            return await adrive(program(uplink, rounds), runtime)

    return asyncio.run(run())


@pytest.mark.parametrize("uplink", UPLINKS, ids=lambda u: "-".join(type(t).__name__ for t in u))
def test_both_runtimes_end_in_the_same_bits(uplink: tuple[Any, ...]) -> None:
    simulated = drive(program(uplink, 3), Simulation(InProcess(LEARNER, POPULATION, KEYS), NUM_CLIENTS, KEYS))
    assert digest(simulated.state) == digest(conversed(uplink, 3).state)


@pytest.mark.parametrize("uplink", UPLINKS, ids=lambda u: "-".join(type(t).__name__ for t in u))
def test_the_digits_are_learned_through_it(uplink: tuple[Any, ...]) -> None:
    records: list[Any] = []
    runtime = Simulation(InProcess(LEARNER, POPULATION, KEYS), NUM_CLIENTS, KEYS)
    drive(program(uplink, 40, measured=True), runtime, watch=records.append)
    assert records[-1].metrics["accuracy"] > (0.65 if isinstance(uplink[0], low_rank) else 0.85)
    plain = 6 * sum(v.nbytes for v in LEARNER.init(KEYS.public).values())
    assert records[-1].usage.bytes_up < plain + 6 * 1536
    assert np.isfinite(records[-1].metrics["loss"])
