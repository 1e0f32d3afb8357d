"""Graphs whose edges are links between peers, the weights with which peers mix, and how fast that agrees.

Lian et al., "Can decentralized algorithms outperform centralized algorithms?", NeurIPS 2017, arXiv
1705.09056; Xiao, Boyd, Kim, "Distributed average consensus with least-mean-square deviation", Journal of
Parallel and Distributed Computing 2007 (Metropolis weights); Ying et al., "Exponential graph is provably
efficient for decentralized deep training", NeurIPS 2021, arXiv 2110.13363.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from hanse.core import Array, InvalidInput, Key, value

__all__ = [
    "Edge",
    "Graph",
    "complete",
    "exponential",
    "graph_file",
    "metropolis_weights",
    "random_graph",
    "ring",
    "second_eigenvalue",
    "spectral_gap",
    "star",
    "torus",
    "weigh_graph",
]

Edge: TypeAlias = tuple[int, int]
"""Two peers that exchange models, the one with the smaller number first."""

MAX_DRAWS = 100
"""The number of times that a random graph is drawn until it is connected."""


class Graph(ABC):
    """The links between peers, which are numbered from 0. They carry models both ways."""

    @abstractmethod
    def find_edges(self, num_peers: int) -> tuple[Edge, ...]:
        """Returns the edges, in order. Raises: InvalidInput: if so many peers can't be linked so."""

    def connect(self, num_peers: int) -> tuple[Edge, ...]:
        """Returns the edges. Raises: InvalidInput: if some peers can't reach others."""
        edges = self.find_edges(num_peers)
        apart = _find_apart(num_peers, edges)
        if apart is not None:
            raise InvalidInput(
                f"the graph {self} of {num_peers} peers is not connected: no path leads from peer 0 to peer "
                f"{apart}, so they never agree; add links, or name another graph, such as ring()"
            )
        return edges


@value
class ring(Graph):
    """Each peer has two neighbours, around a circle.

    >>> ring().find_edges(4)
    ((0, 1), (0, 3), (1, 2), (2, 3))
    """

    def find_edges(self, num_peers: int) -> tuple[Edge, ...]:
        return _order((peer, (peer + 1) % num_peers) for peer in range(num_peers))


@value
class torus(Graph):
    """Peers in rows and columns, each linked to four neighbours; rows and columns close to circles.

    Args:
      rows: the number of rows, which divides the number of peers.
    """

    rows: int

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InvalidInput(f"rows is {self.rows}; write at least 1")

    def find_edges(self, num_peers: int) -> tuple[Edge, ...]:
        if num_peers % self.rows:
            fit = [rows for rows in range(1, num_peers + 1) if num_peers % rows == 0]
            raise InvalidInput(
                f"a torus of {self.rows} rows has no room for {num_peers} peers: rows must divide their "
                f"number; write one of {', '.join(map(str, fit))}"
            )
        columns = num_peers // self.rows
        below = ((peer, (peer + columns) % num_peers) for peer in range(num_peers))
        beside = ((peer, peer - peer % columns + (peer + 1) % columns) for peer in range(num_peers))
        return _order([*below, *beside])


@value
class star(Graph):
    """Peer 0 is linked to all others, which are linked to nobody else."""

    def find_edges(self, num_peers: int) -> tuple[Edge, ...]:
        return tuple((0, peer) for peer in range(1, num_peers))


@value
class complete(Graph):
    """Each peer is linked to all others, so that all agree after one mixing."""

    def find_edges(self, num_peers: int) -> tuple[Edge, ...]:
        return tuple((a, b) for a in range(num_peers) for b in range(a + 1, num_peers))


@value
class exponential(Graph):
    """Each peer is linked to those that are 1, 2, 4, 8, ... places before and after it, around a circle."""

    def find_edges(self, num_peers: int) -> tuple[Edge, ...]:
        hops = [2**k for k in range((num_peers - 1).bit_length())]
        return _order((peer, (peer + hop) % num_peers) for peer in range(num_peers) for hop in hops)


@value
class random_graph(Graph):
    """Each two peers are linked with the same probability, drawn anew until all are connected.

    Args:
      p: the probability of each link.
      seed: from which the links are drawn; runs with the same seed have the same graph.

    References: Erdős and Rényi, "On random graphs I", Publicationes Mathematicae 1959.
    """

    p: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise InvalidInput(f"p is {self.p}; write the probability of a link, above 0 and at most 1")

    def find_edges(self, num_peers: int) -> tuple[Edge, ...]:
        first, second = np.triu_indices(num_peers, 1)
        edges: tuple[Edge, ...] = ()
        for draw in range(MAX_DRAWS):
            linked = Key.from_seed(self.seed).fold_in("graph", draw).rng().random(len(first)) < self.p
            edges = tuple(zip(first[linked].tolist(), second[linked].tolist(), strict=True))
            if _find_apart(num_peers, edges) is None:
                break
        return edges


@value
class graph_file(Graph):
    """The links in a text file: two numbers of peers in each line, as `networkx.write_edgelist` writes them.

    Peers are numbered from 0. What follows "#" is a comment.

    Args:
      path: of the file.
    """

    path: str

    def find_edges(self, num_peers: int) -> tuple[Edge, ...]:
        try:
            lines = Path(self.path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"the graph {self.path} can't be read ({error}); name a text file with two peers in each line"
            ) from None
        edges = []
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) < 2 or not (words[0].isdecimal() and words[1].isdecimal()):
                raise InvalidInput(
                    f"line {number} of {self.path} is {line.strip()!r}; write the numbers of two peers, such "
                    "as 0 1"
                )
            edge = (int(words[0]), int(words[1]))
            if max(edge) >= num_peers:
                raise InvalidInput(
                    f"line {number} of {self.path} names peer {max(edge)}, and the run has peers 0 to "
                    f"{num_peers - 1}; name these only, or divide the data among more clients"
                )
            edges.append(edge)
        return _order(edges)


def _order(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Orders edges, each once, without loops."""
    return tuple(sorted({(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]}))


def _find_apart(num_peers: int, edges: Iterable[Edge]) -> int | None:
    """Returns the first peer that no path leads to from peer 0; None: there is a path to each."""
    neighbours: list[list[int]] = [[] for _ in range(num_peers)]
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    seen, ahead = {0}, [0]
    while ahead:
        new = [peer for peer in neighbours[ahead.pop()] if peer not in seen]
        seen.update(new)
        ahead += new
    return next((peer for peer in range(num_peers) if peer not in seen), None)


def metropolis_weights(num_peers: int, edges: Iterable[Edge]) -> Array:
    """Returns weights with which peers mix: symmetric, and each row and column sums to 1.

        W_ij = 1 / (1 + max(degree_i, degree_j)) on edges,   W_ii = 1 - sum_j W_ij

    >>> metropolis_weights(3, star().find_edges(3)).round(2)
    array([[0.33, 0.33, 0.33],
           [0.33, 0.67, 0.  ],
           [0.33, 0.  , 0.67]])
    """
    weights = np.zeros((num_peers, num_peers))
    pairs = np.array(list(edges), dtype=np.intp).reshape(-1, 2)
    degrees = np.bincount(pairs.ravel(), minlength=num_peers)
    shares = 1.0 / (1.0 + degrees[pairs].max(axis=1)) if len(pairs) else np.zeros(0)
    weights[pairs[:, 0], pairs[:, 1]] = weights[pairs[:, 1], pairs[:, 0]] = shares
    np.fill_diagonal(weights, 1.0 - weights.sum(axis=1))
    return weights


def second_eigenvalue(weights: Array) -> float:
    """Returns the second largest absolute eigenvalue of symmetric weights.

    Each mixing multiplies the peers' distance from their mean by it, or by less.

    >>> f"{second_eigenvalue(metropolis_weights(8, ring().find_edges(8))):.8f}"
    '0.80473785'
    """
    if len(weights) < 2:
        return 0.0
    return float(np.sort(np.abs(np.linalg.eigvalsh(weights)))[-2])


def spectral_gap(weights: Array) -> float:
    """Returns 1 - the second largest absolute eigenvalue: 1 agrees at once, near 0 hardly at all."""
    return 1.0 - second_eigenvalue(weights)


@lru_cache(8)
def weigh_graph(num_peers: int, edges: tuple[Edge, ...]) -> tuple[Array, float, str]:
    """Returns Metropolis weights, their second eigenvalue, and the SHA-256 of the edges."""
    weights = metropolis_weights(num_peers, edges)
    weights.flags.writeable = False
    sha256 = hashlib.sha256(repr((num_peers, edges)).encode()).hexdigest()
    return weights, second_eigenvalue(weights), sha256
