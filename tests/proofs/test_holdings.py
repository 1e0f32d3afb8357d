"""One program with other data and another learner at each party, and heads that never leave their clients."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import holdings
import numpy as np
import pytest
from holdings import FED_PER, VERTICAL, Clinics, Table
from support import KEYS, Crash, Few, Fragile, Quadratic, program
from support import simulate as simulate_quadratic

from hanse.algorithms import fed_avg
from hanse.core import OwnLearners, own_test
from hanse.core.exchange import InMemory, PartyMemory, Progress, digest, drive, training
from hanse.simulation import InProcess, Simulation, WorkerPool
from hanse.testing import ClientTasks, ConcurrentSimulation, adrive

ROUNDS = 5


def simulate(algorithm: Any, backend: Any, rounds: int = ROUNDS, store: Any = None) -> tuple[Any, Any]:
    """The parameters after so many rounds, and the store."""
    store = InMemory() if store is None else store
    params = holdings.NO_RESIDUAL if algorithm is VERTICAL else holdings.first_body()
    saved = store.checkpoint()
    begin = Progress(0, algorithm.init(params, KEYS.public)) if saved is None else saved.state
    num_clients = Table().num_clients if algorithm is VERTICAL else holdings.NUM_CLIENTS
    runtime = Simulation(backend, num_clients, KEYS, memory=PartyMemory(store.memory))
    ended = drive(training(algorithm, begin, KEYS.public, rounds=rounds), runtime, store)
    return ended.state.params, store


def everything(algorithm: Any, backend: Any, store: Any = None, rounds: int = 2) -> str:
    """The digest of the parameters and of what each party keeps."""
    params, store = simulate(algorithm, backend, rounds, store)
    parties = [*range(4), *map(own_test, range(4))]
    return digest((dict(params), tuple(dict(store.memory(party)) for party in parties)))


BACKENDS: dict[str, tuple[Any, Callable[[], InProcess]]] = {
    "vertical": (VERTICAL, holdings.table_backend),
    "private heads": (FED_PER, holdings.clinics_backend),
}
each = pytest.mark.parametrize(("algorithm", "make"), BACKENDS.values(), ids=BACKENDS)


def test_columns_at_two_parties_and_labels_at_a_third_descend_as_one_table() -> None:
    _, store = simulate(VERTICAL, holdings.table_backend(), 30)
    weights = np.concatenate([store.memory(party)["w"] for party in holdings.FEATURE_PARTIES])
    np.testing.assert_allclose(weights, Table().pooled(30), rtol=0, atol=1e-12)
    assert np.abs(weights - Table().pooled(29)).max() > 1e-5
    assert not store.memory(holdings.LABEL_PARTY)


def test_heads_are_measured_as_their_clients_have_committed_them() -> None:
    """Each round begins with what a run of one round less has left, also where a client fell out of it."""
    heads = [np.stack([holdings.first_head()] * holdings.NUM_CLIENTS)]
    for rounds in range(1, ROUNDS):
        params, store = simulate(FED_PER, holdings.clinics_backend(), rounds)
        heads.append(np.stack([store.memory(k).get("head", heads[0][k]) for k in range(4)]))
        stayed = [k for k in range(4) if np.array_equal(heads[-1][k], heads[-2][k])]
        assert stayed == [client for round, client in holdings.FALLS_OUT.items() if round == rounds]
        after, _ = simulate(FED_PER, holdings.clinics_backend(), rounds + 1)
        by_hand = [
            holdings.loss(params["body"], heads[-1][k], Clinics().role(own_test(k)))[0] for k in range(4)
        ]
        np.testing.assert_array_equal(after["losses"], by_hand)
        assert not any(store.memory(own_test(k)) for k in range(4)), "a role keeps nothing of its client's"


def test_a_head_of_its_own_serves_a_client_better_than_the_first() -> None:
    first, _ = simulate(FED_PER, holdings.clinics_backend(), 1)
    last, _ = simulate(FED_PER, holdings.clinics_backend(), 30)
    assert (last["losses"] < 0.8 * first["losses"]).all()


@pytest.fixture(scope="module", params=BACKENDS)
def pooled(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any, WorkerPool]]:
    algorithm, make = BACKENDS[request.param]
    with closing(WorkerPool(make, 2)) as pool:
        yield algorithm, make, pool


def test_workers_end_in_the_same_bits(pooled: tuple[Any, Any, WorkerPool]) -> None:
    algorithm, make, pool = pooled
    assert everything(algorithm, pool, rounds=ROUNDS) == everything(algorithm, make(), rounds=ROUNDS)


@each
@pytest.mark.parametrize("before", [True, False], ids=["unwritten", "written"])
def test_every_cut_replays_to_the_same_bits(algorithm: Any, make: Any, before: bool) -> None:
    whole = Fragile()
    undisturbed = everything(algorithm, make(), whole)
    for at in range(1, whole.num_writes + 1):
        store = Fragile(at, before=before)
        with pytest.raises(Crash):
            simulate(algorithm, make(), 2, store)
        assert everything(algorithm, make(), Fragile.load(store.dump())) == undisturbed, f"cut at write {at}"


@each
def test_the_runtime_of_tasks_ends_in_the_same_bits(algorithm: Any, make: Any) -> None:
    people, learner = make()._population, make().learner
    params = holdings.NO_RESIDUAL if algorithm is VERTICAL else holdings.first_body()
    begin = Progress(0, algorithm.init(params, KEYS.public))

    async def run() -> Any:
        async with ClientTasks(learner, people, KEYS) as clients:
            runtime = ConcurrentSimulation(clients, people.num_clients, KEYS)
            return await adrive(training(algorithm, begin, KEYS.public, rounds=ROUNDS), runtime)

    assert digest(dict(asyncio.run(run()).state.params)) == digest(dict(simulate(algorithm, make())[0]))


def test_learners_are_made_when_needed_and_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.simulation.in_process.NUM_LEARNERS", 2)
    made: list[Any] = []

    def make(party: Any, data: Any) -> Any:
        made.append(party)
        return holdings.make_learner(party, data)

    backend = InProcess(OwnLearners(make), Table(), KEYS, together=True)
    assert not backend.blocks_matter
    assert not made
    learners = [backend.learner_of(party, Table().client(party)) for party in (0, 1, 0, 2, 0, 1)]
    assert made == [0, 1, 2, 1]
    assert learners[0] is learners[2] is learners[4]
    assert [learner.width for learner in learners[:2]] == list(holdings.WIDTHS)


def test_an_own_learner_computes_one_by_one_what_one_learner_for_all_does() -> None:
    """Even where several clients would be computed together, in which a work has one learner."""
    own = OwnLearners(lambda party, data: Quadratic(data.x.shape[1]))
    runtime = Simulation(InProcess(own, Few(), KEYS, together=True), Few().num_clients, KEYS)
    ended = drive(program(fed_avg(lr=0.02), 2), runtime)
    assert digest(ended.state) == digest(simulate_quadratic(fed_avg(lr=0.02), 2))
