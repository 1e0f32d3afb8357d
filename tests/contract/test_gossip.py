"""Peers perform their own programs, under the same contract; and what theory says of the ring."""

import asyncio
import random
from typing import Any

import numpy as np
import pytest
from support import KEYS, Crash, Few, Fragile, Quadratic

from hanse.algorithms import gossip
from hanse.core import Examples, HanseError, Population
from hanse.core.exchange import NotReady, PartyMemory, Progress, digest, training
from hanse.simulation import InProcess, Simulation, drive_together
from hanse.testing import ClientTasks, ConcurrentSimulation, adrive

NUM_PEERS = 6
APART = 2**32


def ring(me: int, n: int = NUM_PEERS) -> tuple[tuple[int, float], ...]:
    return tuple((peer % n, 1 / 3) for peer in (me - 1, me, me + 1))


def program(
    me: int, rounds: int, store: Any = None, start: Any = None, n: int = NUM_PEERS, lr: float = 0.02
) -> Any:
    algorithm = gossip(me, ring(me, n), lr)
    saved = store.checkpoint() if store else None
    params = start[me] if start else Quadratic().init(KEYS.public)
    begin = Progress(0, algorithm.init(params, KEYS.public))
    return training(algorithm, saved.state if saved else begin, KEYS.public, rounds=rounds)


def runtimes(clients: Any, kind: Any, n: int = NUM_PEERS, **options: Any) -> dict[int, Any]:
    return {me: kind(clients, n, KEYS, owner=me, first_ticket=me * APART, **options) for me in range(n)}


def together(rounds: int, stores: Any = None) -> dict[int, str]:
    recall = (lambda party: stores[party].memory(party)) if stores else (lambda party: {})
    backend = InProcess(Quadratic(), Few(), KEYS)
    programs = {me: program(me, rounds, stores[me] if stores else None) for me in range(NUM_PEERS)}
    ended = drive_together(programs, runtimes(backend, Simulation, memory=PartyMemory(recall)), stores)
    return {me: digest(progress.state) for me, progress in ended.items()}


def apart(rounds: int, **options: Any) -> dict[int, str]:
    async def shuffle() -> None:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)

    async def run() -> dict[int, str]:
        async with ClientTasks(Quadratic(), Few(), KEYS, pause=shuffle) as clients:
            led = runtimes(clients, ConcurrentSimulation, **options)
            peers = (adrive(program(me, rounds), led[me]) for me in range(NUM_PEERS))
            return {me: digest(p.state) for me, p in enumerate(await asyncio.gather(*peers))}

    return asyncio.run(run())


def test_both_runtimes_end_in_the_same_bits() -> None:
    assert together(6) == apart(6)


def test_every_cut_replays_to_the_same_bits() -> None:
    undisturbed = together(3)
    whole = {me: Fragile() for me in range(NUM_PEERS)}
    together(3, whole)
    for peer in (0, 3):
        for at in range(1, whole[peer].num_writes + 1):
            stores = {me: Fragile(at if me == peer else -1) for me in range(NUM_PEERS)}
            with pytest.raises(Crash):
                together(3, stores)
            found = {me: Fragile.load(store.dump()) for me, store in stores.items()}
            assert together(3, found) == undisturbed, f"peer {peer} cut at write {at}"


class Still(Population):
    """Peers without gradients: every model stays where mixing puts it."""

    num_clients = 8

    def client(self, number: int) -> Examples:
        return Examples(np.zeros((1, 3)), np.zeros(1))

    def role(self, name: str) -> Examples:
        return self.client(0)


def test_consensus_error_shrinks_as_the_rings_second_eigenvalue_says() -> None:
    n = Still.num_clients
    rng = np.random.default_rng(3)
    start = {me: {"w": rng.normal(size=3), "b": np.zeros(())} for me in range(n)}
    norms = []
    for rounds in (60, 61):
        backend = InProcess(Quadratic(), Still(), KEYS)
        programs = {me: program(me, rounds, start=start, n=n, lr=1e-9) for me in range(n)}
        ended = drive_together(programs, runtimes(backend, Simulation, n, memory=PartyMemory()))
        models = np.stack([ended[me].state.params["w"] for me in range(n)])
        norms.append(np.linalg.norm(models - models.mean(0)))
        before = np.stack([start[me]["w"] for me in range(n)])
        assert np.abs(models.mean(0) - before.mean(0)).max() < 1e-12
    assert norms[1] / norms[0] == pytest.approx(1 / 3 + 2 / 3 * np.cos(2 * np.pi / n), abs=1e-6)


def test_a_peer_that_waits_for_one_that_never_comes_is_told_so() -> None:
    backend = InProcess(Quadratic(), Few(), KEYS)
    alone = {0: program(0, 3)}
    with pytest.raises(HanseError, match="wait for each other"):
        drive_together(alone, runtimes(backend, Simulation, memory=PartyMemory()))


def test_the_wait_for_a_peer_is_bounded() -> None:
    async def run() -> None:
        async with ClientTasks(Quadratic(), Few(), KEYS) as clients:
            await adrive(program(0, 3), runtimes(clients, ConcurrentSimulation, wait_s=0.05)[0])

    with pytest.raises(NotReady, match=r"within 0\.05 s"):
        asyncio.run(run())
