"""Worker processes end in the bits of one process, for every algorithm under contract."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from cases import CASES, Case, make
from support import KEYS, Few, Fragile, program, simulate

from hanse.core.exchange import PartyMemory, digest, drive
from hanse.simulation import Simulation, WorkerPool


@pytest.fixture(scope="module")
def workers() -> Iterator[WorkerPool]:
    with closing(WorkerPool(make, 2)) as pool:
        yield pool


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_same_bits(case: Case, workers: WorkerPool) -> None:
    """One pool serves all cases, with memory and tickets of their own."""
    runtime = Simulation(workers, Few().num_clients, KEYS, case.devices)
    ended = drive(program(case.algorithm, case.rounds), runtime)
    assert digest(ended.state) == digest(simulate(case.algorithm, case.rounds, case.devices))


def test_an_error_in_a_worker_says_whose_it_was(workers: WorkerPool) -> None:
    runtime = Simulation(workers, Few().num_clients + 1, KEYS)
    with pytest.raises(IndexError) as raised:
        drive(program(CASES["fed_avg"].algorithm, 30), runtime)
    assert "while 6 performed local_sgd" in "".join(raised.value.__notes__)


def test_memory_survives_a_cut() -> None:
    case = CASES["scaffold"]
    store = Fragile()
    simulate(case.algorithm, 2, case.devices, store)
    with closing(WorkerPool(make, 1)) as pool:
        runtime = Simulation(pool, Few().num_clients, KEYS, case.devices, PartyMemory(store.memory))
        ended = drive(program(case.algorithm, case.rounds, store), runtime, store)
    assert digest(ended.state) == digest(simulate(case.algorithm, case.rounds, case.devices))
