"""Figures of peers without a server: how fast they agree, where they end, and what their records cost.

    python benchmarks/parallel/consensus.py     # five minutes; writes consensus.json beside it

1. Peers without gradients: by which factor a mixing shrinks their distance, against the closed form or the
   eigenvalues of the weights, and how far their mean moves.
2. Peers whose data are unlike: where decentralised SGD stays, and where gradient tracking ends.
3. The digits: the accuracy of decentralised SGD beside that of FedAvg, at equally many steps of each client.
4. Compressed messages between peers: accuracy and bytes on the links beside whole models, on a ring.
5. 64 peers with a store: its share of the processor time, and its size by round and peer.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import save

import hanse
from hanse.algorithms import (
    choco_sgd,
    complete,
    decentralised_sgd,
    fed_avg,
    gradient_tracking,
    metropolis_weights,
    ring,
    second_eigenvalue,
    torus,
)
from hanse.core import Examples, Keys, Population
from hanse.core.exchange import drive
from hanse.data import dirichlet, iid
from hanse.learners import least_squares
from hanse.simulation import InProcess, Simulation
from hanse.transforms import none, quantize, top_k

GRAPHS = [(ring(), 8, 0.80473785), (ring(), 16, 0.94925302), (ring(), 32, 0.98719019), (torus(4), 16, 0.6),
          (complete(), 16, 0.0)]  # fmt: skip
KEYS, L2, SEEDS, GAMMAS = Keys.from_seed(7), 0.1, (0, 1, 2), (0.1, 0.3, 0.6)
LEARNER = least_squares(L2, intercept=False, dtype="float64").bind((5,), None)


class Peers(Population[Examples]):
    """Peers whose optima differ, or who have no gradients where their model is 0."""

    def __init__(self, num_peers: int) -> None:
        rng = np.random.default_rng(3)
        self.parts = []
        for k in range(num_peers):
            x = rng.normal(size=(20, 5)) * (0.5 + k / num_peers)
            self.parts.append(Examples(x, x @ rng.normal(size=5) + k))

    @property
    def num_clients(self) -> int:
        return len(self.parts)

    def client(self, number: int) -> Examples:
        return self.parts[number]

    def role(self, name: str) -> Examples:
        return self.parts[0]

    def find_optimum(self) -> np.ndarray:
        hessian = sum(p.x.T @ p.x / len(p) for p in self.parts) / len(self.parts)
        slope = sum(p.x.T @ p.y / len(p) for p in self.parts) / len(self.parts)
        return np.asarray(np.linalg.solve(hessian + L2 * np.eye(5), slope))


def perform(algorithm: Any, peers: Peers, rounds: int, models: Any = None) -> Iterator[Any]:
    """Yields the state after each round."""
    state = algorithm.init(LEARNER.init(KEYS.public), KEYS.public)
    state = state if models is None else replace(state, models=models)
    runtime = Simulation(InProcess(LEARNER, peers, KEYS), peers.num_clients, KEYS)
    for number in range(rounds):
        state = drive(algorithm.round(state, KEYS.public.fold_in("round", number)), runtime)
        yield state


def measure_rates() -> Iterator[dict[str, Any]]:
    """Lets peers mix random models at a step size of nearly 0."""
    for graph, num_peers, expected in GRAPHS:
        start = np.random.default_rng(1).normal(size=(num_peers, 5))
        decays, moved = [], 0.0
        for state in perform(decentralised_sgd(graph, 1e-300), Peers(num_peers), 250, {"weights": start}):
            moved = max(moved, float(np.abs(state.models["weights"].mean(0) - start.mean(0)).max()))
            decays += [] if state.decay is None else [state.decay]
        found = second_eigenvalue(metropolis_weights(num_peers, graph.connect(num_peers)))
        yield {
            "graph": str(graph), "peers": num_peers, "expected": expected, "eigenvalue": round(found, 8),
            "measured_decay": round(decays[-1], 8), "off_by": abs(decays[-1] - expected), "mean_moved": moved,
        }  # fmt: skip


def measure_optima() -> dict[str, float]:
    """Returns the largest distance of a peer's values from the optimum, 8 unlike peers on a ring."""
    peers, found = Peers(8), {}
    for algorithm in (decentralised_sgd(ring(), 0.1), gradient_tracking(ring(), 0.1)):
        *_, state = perform(algorithm, peers, 1500)
        found[type(algorithm).__name__] = float(np.abs(state.models["weights"] - peers.find_optimum()).max())
    return found


def measure_digits() -> Iterator[dict[str, Any]]:
    """Trains 16 clients with the same number of gradients of 32 examples each, three in a FedAvg round."""
    for partition in (iid(16), dirichlet(16, 0.3)):
        algorithms = [(fed_avg(0.3, 1.0, epochs=1, batch_size=32), 60)]
        algorithms += [
            (decentralised_sgd(g, 0.3, batch_size=32), 180) for g in (ring(), torus(4), complete())
        ]
        algorithms += [(gradient_tracking(ring(), 0.3, batch_size=32), 180)]
        for algorithm, rounds in algorithms:
            ends = [
                hanse.run(
                    partition=partition, algorithm=algorithm, rounds=rounds, seed=s, evaluate_every=rounds
                )
                for s in SEEDS
            ]
            accuracy = [round(float(end.final.metrics["accuracy"]), 4) for end in ends if end.final]
            yield {
                "partition": str(partition), "algorithm": type(algorithm).__name__,
                "graph": str(getattr(algorithm, "graph", "server")), "rounds": rounds, "accuracy": accuracy,
                "mean": round(float(np.mean(accuracy)), 4),
            }  # fmt: skip


def measure_compression() -> Iterator[dict[str, Any]]:
    """Trains 16 clients on a ring that send each other whole models, or compressed differences."""
    steps: dict[str, Any] = {"lr": 0.3, "batch_size": 32}
    algorithms = {
        "whole models": [decentralised_sgd(ring(), **steps)],
        "largest 10%": [
            choco_sgd(ring(), **steps, compression=(top_k(0.1, none()),), gamma=g) for g in GAMMAS
        ],
        "4 bits": [choco_sgd(ring(), **steps, compression=(quantize(4),), gamma=g) for g in GAMMAS],
        "largest 10% in 8 bits": [
            choco_sgd(ring(), **steps, compression=(top_k(0.1, none()), quantize(8)), gamma=g) for g in GAMMAS
        ],
    }
    for partition in (iid(16), dirichlet(16, 0.3)):
        for name, each in algorithms.items():
            rows = []
            for algorithm in each:
                ends = [
                    hanse.run(
                        partition=partition, algorithm=algorithm, rounds=180, seed=s, evaluate_every=180
                    )
                    for s in SEEDS
                ]
                finals = [end.final.metrics for end in ends if end.final]
                rows.append(
                    {
                        "gamma": getattr(algorithm, "gamma", None),
                        "accuracy": round(float(np.mean([f["accuracy"] for f in finals])), 4),
                        "distance": round(float(np.mean([f["consensus_distance"] for f in finals])), 3),
                        "link_bytes_a_round": finals[0]["link_bytes"],
                    }
                )
            best = max(rows, key=lambda row: row["accuracy"])
            yield {"partition": str(partition), "messages": name, **best, "grid": rows}


def measure_store() -> dict[str, Any]:
    """Returns the shares of processor time and of disk that the store of 64 peers takes."""
    settings: dict[str, Any] = {
        "partition": iid(64), "algorithm": decentralised_sgd(torus(8), 0.3), "rounds": 60,
        "evaluate_every": 60,
    }  # fmt: skip
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(5):
            for kind, store in (("with", Path(folder) / f"{number}.db"), ("without", None)):
                began_s = time.process_time()
                result = hanse.run(**settings, store=store)
                seconds[kind].append(time.process_time() - began_s)
        size = sum(path.stat().st_size for path in Path(folder).rglob("0.db*") if path.is_file())
    model = sum(np.asarray(w).nbytes for w in result.params.values())
    share = 1 - min(seconds["without"]) / min(seconds["with"])
    return {
        "peers": 64, "rounds": 60, "processor_s": {k: [round(s, 3) for s in v] for k, v in seconds.items()},
        "share_of_processor_time": round(share, 3), "store_bytes": size,
        "store_bytes_in_models_of_all_peers": round(size / (64 * model), 2),
    }  # fmt: skip


if __name__ == "__main__":
    save(
        __file__,
        {
            "rates": list(measure_rates()),
            "distance_from_the_optimum": measure_optima(),
            "digits": list(measure_digits()),
            "compression": list(measure_compression()),
            "store_of_64_peers": measure_store(),
        },
    )
