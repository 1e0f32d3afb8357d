"""Graphs of peers against closed forms of their eigenvalues, and graphs that can't be."""

from pathlib import Path

import numpy as np
import pytest

from hanse.algorithms import (
    Graph,
    complete,
    exponential,
    graph_file,
    metropolis_weights,
    random_graph,
    ring,
    second_eigenvalue,
    spectral_gap,
    star,
    torus,
)
from hanse.core import InvalidInput

GRAPHS = [ring(), torus(4), star(), complete(), exponential(), random_graph(0.3, seed=5)]


def weigh(graph: Graph, num_peers: int) -> np.ndarray:
    return metropolis_weights(num_peers, graph.connect(num_peers))


@pytest.mark.parametrize(
    ("graph", "num_peers", "second"),
    [
        (ring(), 8, 0.80473785),
        (ring(), 16, 0.94925302),
        (ring(), 32, 0.98719019),
        (torus(4), 16, 0.6),
        (complete(), 10, 0.0),
        (star(), 8, 7 / 8),
    ],
)
def test_the_second_eigenvalue_is_that_of_the_closed_form(
    graph: Graph, num_peers: int, second: float
) -> None:
    weights = weigh(graph, num_peers)
    assert second_eigenvalue(weights) == pytest.approx(second, abs=5e-9)
    assert spectral_gap(weights) == pytest.approx(1 - second, abs=5e-9)


def test_an_eigenvalue_near_minus_one_counts_by_its_size() -> None:
    assert second_eigenvalue(np.array([[0.1, 0.9], [0.9, 0.1]])) == pytest.approx(0.8)


def test_the_ring_has_weights_of_a_third() -> None:
    assert weigh(ring(), 5)[0].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0, 1 / 3])


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("num_peers", [4, 16])
def test_weights_are_symmetric_and_doubly_stochastic(graph: Graph, num_peers: int) -> None:
    weights = weigh(graph, num_peers)
    assert (weights == weights.T).all()
    assert (weights >= 0).all()
    assert np.abs(weights.sum(0) - 1).max() < 1e-15


def test_degrees_are_those_of_the_graph() -> None:
    def degrees(graph: Graph, num_peers: int) -> set[int]:
        ends = np.bincount(np.array(graph.connect(num_peers)).ravel(), minlength=num_peers)
        return set(ends.tolist())

    assert degrees(ring(), 9) == {2}
    assert degrees(torus(3), 12) == {4}
    assert degrees(torus(2), 6) == {3}  # above and below are the same peer
    assert degrees(star(), 6) == {1, 5}
    assert degrees(complete(), 6) == {5}
    assert degrees(exponential(), 16) == {7}  # 1, 2 and 4 both ways; 8 is the same both ways


@pytest.mark.parametrize("graph", [ring(), star(), complete(), exponential(), torus(1)], ids=str)
def test_one_peer_and_two(graph: Graph) -> None:
    assert weigh(graph, 1).tolist() == [[1.0]]
    assert second_eigenvalue(weigh(graph, 1)) == 0.0
    assert graph.connect(2) == ((0, 1),)


def test_a_random_graph_is_drawn_from_its_seed() -> None:
    assert random_graph(0.4, 1).connect(12) == random_graph(0.4, 1).connect(12)
    assert random_graph(0.4, 1).connect(12) != random_graph(0.4, 2).connect(12)
    share = len(random_graph(0.4).connect(80)) / (80 * 79 / 2)
    assert share == pytest.approx(0.4, abs=0.03)


def test_a_file_names_links(tmp_path: Path) -> None:
    path = tmp_path / "links.txt"
    path.write_text("# a square\n0 1\n2 1 {}\n\n2 3  # the last but one\n3 0\n0 3\n")
    assert graph_file(str(path)).connect(4) == ring().connect(4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n1 9\n", r"line 2 of .* names peer 9, and the run has peers 0 to 3; name these only"),
        ("0 one\n", r"line 1 of .* is '0 one'; write the numbers of two peers"),
        ("0 -1\n", "write the numbers of two peers"),
        ("7\n", "write the numbers of two peers"),
        ("0 1\n2 3\n", r"of 4 peers is not connected: no path leads from peer 0 to peer 2.*add links"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "links.txt"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        graph_file(str(path)).connect(4)


def test_what_cannot_be_a_graph_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"can't be read .*name a text file"):
        graph_file("nowhere.txt").connect(4)
    with pytest.raises(InvalidInput, match=r"a torus of 3 rows has no room for 10 peers.* 1, 2, 5, 10$"):
        torus(3).connect(10)
    with pytest.raises(InvalidInput, match="rows is 0; write at least 1"):
        torus(0)
    with pytest.raises(InvalidInput, match=r"p is 1\.5; write the probability"):
        random_graph(1.5)
    with pytest.raises(InvalidInput, match="is not connected"):
        random_graph(0.001).connect(10)
