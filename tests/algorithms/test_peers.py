"""Peers led by one program: the bits of peers that lead themselves, models that do not shrink, and optima."""

from typing import Any

import numpy as np
import pytest
from support import KEYS, Few, Quadratic, simulate, simulation

from hanse.algorithms import (
    Graph,
    choco_sgd,
    complete,
    decentralised_sgd,
    exponential,
    gossip,
    gradient_tracking,
    metropolis_weights,
    ring,
    star,
    torus,
)
from hanse.algorithms.peers import Mixing
from hanse.core import CompositionError, InvalidInput, PartyId, Total
from hanse.core.exchange import Collected, Dispatch, Dispatched, PartyMemory, Progress, drive, training
from hanse.simulation import InProcess, Simulation, drive_together
from hanse.transforms import none, quantize, rotate, top_k

FEW = Few()
NUM_PEERS = FEW.num_clients


def test_peers_led_jointly_end_in_the_bits_of_peers_that_lead_themselves() -> None:
    weights = metropolis_weights(NUM_PEERS, ring().connect(NUM_PEERS))
    memory = PartyMemory()
    programs: dict[PartyId, Any] = {}
    runtimes: dict[PartyId, Any] = {}
    for me in range(NUM_PEERS):
        row = tuple((int(peer), float(weights[me, peer])) for peer in np.flatnonzero(weights[me]))
        begin = Progress(0, gossip(me, row).init(Quadratic().init(KEYS.public), KEYS.public))
        programs[me] = training(gossip(me, row, 0.02), begin, KEYS.public, rounds=5)
        backend = InProcess(Quadratic(), FEW, KEYS)
        runtimes[me] = Simulation(backend, NUM_PEERS, KEYS, memory=memory, owner=me, first_ticket=me * 2**32)
    apart = drive_together(programs, runtimes)
    jointly = simulate(decentralised_sgd(ring(), 0.02), 5)
    for peer, progress in apart.items():
        for name, w in progress.state.params.items():
            assert jointly.models[name][peer].tobytes() == w.tobytes()


THREE = np.array([[0.5, 0.25, 0.25], [0.25, 0.75, 0.0], [0.25, 0.0, 0.75]])


def test_a_missing_neighbour_does_not_shrink_a_model() -> None:
    ones = {"w": np.ones((3, 2))}
    for links in ([(0, 1), (0, 2)], [(0, 1)], [(0, 2)], []):
        assert Mixing(THREE, links).mix(ones)["w"].tolist() == ones["w"].tolist()
    given = {"w": np.array([1.0, 2.0, 4.0])}
    assert Mixing(THREE, [(0, 2)]).mix(given)["w"].tolist() == [1.75, 2.0, 3.25], "1's share goes to 0 and 1"


def test_gossip_gives_the_share_of_a_missing_neighbour_to_itself() -> None:
    state = gossip(0, ((0, 0.5), (1, 0.25), (2, 0.25))).init({"w": np.ones(2)}, KEYS.public)
    program = gossip(0, ((0, 0.5), (1, 0.25), (2, 0.25))).round(type(state)(state.params, 3), KEYS.public)
    next(program)
    program.send(Dispatched((7, 8)))
    total = Total({"w": np.ones((1, 2))}, 1.0, 1)
    step: Any = program.send(Collected({"params": total}, (8,), (2,)))
    assert isinstance(step, Dispatch)
    assert step.shared["mixed"]["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "graph", [ring(), torus(2), star(), complete(), exponential()], ids=lambda graph: str(graph)
)
def test_the_mean_is_kept_while_links_and_peers_fail(graph: Graph) -> None:
    start = np.random.default_rng(2).normal(size=(16, 5))
    models = {"w": start}
    weights = metropolis_weights(16, graph.connect(16))
    for number in range(50):
        up = np.random.default_rng(number).random(len(graph.connect(16))) < 0.7
        links = [edge for edge, is_up in zip(graph.connect(16), up, strict=True) if is_up]
        models = Mixing(weights, links).mix(models)
    assert np.abs(models["w"].mean(0) - start.mean(0)).max() < 1e-12
    assert np.abs(models["w"] - start.mean(0)).max() < np.abs(start - start.mean(0)).max() / 5


def optimum() -> np.ndarray:
    """The optimum of the mean of the peers' objectives, each peer counting alike."""
    rows = [np.column_stack([part.x, np.ones(len(part))]) for part in FEW.parts]
    hessian = sum(x.T @ x / len(x) for x in rows)
    return np.linalg.solve(hessian, sum(x.T @ p.y / len(x) for x, p in zip(rows, FEW.parts, strict=True)))


def distance_to_optimum(algorithm: Any, num_steps: int, link_failure: float = 0.0) -> float:
    """Performs the steps of a run without its messages, which `test_reference_rounds.py` checks."""
    edges = algorithm.graph.connect(NUM_PEERS)
    weights, rng = metropolis_weights(NUM_PEERS, edges), np.random.default_rng(1)
    state = algorithm.init(Quadratic().init(KEYS.public), KEYS.public)
    models: Any = {"w": np.zeros((NUM_PEERS, 3)), "b": np.zeros(NUM_PEERS)}
    for _ in range(num_steps):
        peers = np.flatnonzero(rng.random(NUM_PEERS) >= link_failure)
        up = zip(edges, rng.random(len(edges)), strict=True)
        links = [edge for edge, drawn in up if drawn >= link_failure and {*edge} <= {*peers.tolist()}]
        slopes = {name: np.zeros_like(rows) for name, rows in models.items()}
        for k in peers:
            at = {name: rows[k] for name, rows in models.items()}
            for name, slope in Quadratic().gradient(at, FEW.parts[k]).items():
                slopes[name][k] = slope
        mixing = Mixing(weights, links)
        state = algorithm.step(state, models, slopes, peers, mixing, KEYS.public)
        models = state.models
    return float(np.abs(np.column_stack([models["w"], models["b"]]) - optimum()).max())


def test_gradient_tracking_ends_at_the_optimum_where_d_psgd_stays_beside_it() -> None:
    beside = [distance_to_optimum(decentralised_sgd(ring(), 0.05), n) for n in (250, 400)]
    assert beside[1] > 0.01
    assert beside[1] == pytest.approx(beside[0], rel=1e-4), "it goes no nearer"
    assert distance_to_optimum(gradient_tracking(ring(), 0.05), 450) < 1e-9
    assert distance_to_optimum(gradient_tracking(complete(), 0.05), 600, link_failure=0.2) < 1e-9


def test_another_graph_is_refused_in_the_middle_of_a_run() -> None:
    state = simulate(decentralised_sgd(ring(), 0.02), 2)
    with pytest.raises(InvalidInput, match=r"the graph star\(\) is not the one that the run began with"):
        drive(decentralised_sgd(star(), 0.02).round(state, KEYS.public), simulation())


def spread_after(algorithm: Any, num_steps: int) -> tuple[float, float]:
    """Mixes random models without gradients; returns how far apart they are, and how far their mean moved."""
    start = np.random.default_rng(4).normal(size=(8, 20))
    weights = metropolis_weights(8, ring().connect(8))
    mixing, models = Mixing(weights, ring().connect(8)), {"w": start}
    state = algorithm.init({"w": np.zeros(20)}, KEYS.public)
    for number in range(num_steps):
        round_key = KEYS.public.fold_in("round", number)
        state = algorithm.step(state, models, {"w": np.zeros_like(start)}, np.arange(8), mixing, round_key)
        models = state.models
    return float(np.abs(models["w"] - start.mean(0)).max()), float(
        np.abs(models["w"].mean(0) - start.mean(0)).max()
    )


@pytest.mark.parametrize(
    "compression",
    [(top_k(0.1, none()),), (quantize(2),), (rotate(), quantize(4))],
    ids=["largest tenth", "2 bits", "rotated 4 bits"],
)
def test_peers_agree_on_the_mean_although_they_send_compressed_differences(compression: Any) -> None:
    apart, moved = spread_after(choco_sgd(ring(), 0.1, compression=compression, gamma=0.1), 1500)
    assert apart < 1e-9
    assert moved < 1e-12


def test_choco_without_compression_mixes_as_decentralised_sgd() -> None:
    exact, _ = spread_after(choco_sgd(ring(), 0.1, gamma=1.0), 40)
    start = np.random.default_rng(4).normal(size=(8, 20))
    by_hand = np.linalg.matrix_power(metropolis_weights(8, ring().connect(8)), 40) @ start
    assert exact == pytest.approx(np.abs(by_hand - start.mean(0)).max(), rel=1e-9)


def test_choco_refuses_a_compression_that_remembers() -> None:
    with pytest.raises(CompositionError, match=r"sends that again by itself: write residual = none\(\)"):
        choco_sgd(ring(), compression=(top_k(0.1),)).init({"w": np.arange(10.0)}, KEYS.public)
