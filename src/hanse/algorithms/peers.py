"""The steps that algorithms share in which peers exchange models with neighbours, and no server holds one.

One program leads all peers: it holds the model of each, asks each for a gradient at its own model, and mixes
models along the links that work. So a simulation performs it like any other program.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from hanse.algorithms.graphs import Edge, Graph, ring, weigh_graph
from hanse.algorithms.schedules import Rate, check_rate
from hanse.core import (
    Algorithm,
    Array,
    Close,
    Contribution,
    DifferentiableLearner,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Program,
    RoundAbandoned,
    Shared,
    Spec,
    Tensors,
    Work,
    ask_each,
    check_below_one,
    check_count,
    each,
    num_bytes,
    value,
)
from hanse.core.exchange import Sample, Sampled

__all__ = ["Mixing", "PeerState", "PeerTraining", "stack_models", "unstack"]

S = TypeVar("S", bound="PeerState")


@value
class PeerState:
    """The models of all peers, and what is recorded of them.

    Args:
      params: the mean of the peers' models, which is the model of the run.
      models: the peers' models, one above the other; None: all still have the first one.
      num_rounds: rounds that closed.
      edges_sha256: of the links, which stay the same in a run.
      second_eigenvalue: of the mixing weights.
      distance: the root mean square distance of the peers' models to their mean.
      decay: the factor by which the last mixing changed that distance; None: there was none to change.
      link_bytes: what the links carried in the last round.
    """

    params: Tensors
    models: Tensors | None = None
    num_rounds: int = 0
    edges_sha256: str = ""
    second_eigenvalue: float | None = None
    distance: float | None = None
    decay: float | None = None
    link_bytes: int = 0


@value
class peer_gradient(Work[DifferentiableLearner, Examples]):
    """Computes the gradient at the peer's own model, on a batch of its examples; emits "gradient"."""

    batch_size: int | None = None

    def cost(self, num_examples: int) -> float:
        return float(num_examples if self.batch_size is None else min(self.batch_size, num_examples))

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        if self.batch_size is not None and self.batch_size < len(data):
            rows = keys.public.fold_in("batch").rng().choice(len(data), self.batch_size, replace=False)
            data = data.take(np.sort(rows))
        return {"gradient": Part(learner.gradient(shared["params"], data))}, memory


@dataclass(frozen=True)
class Mixing:
    """The links that work in a round, and the weights with which peers mix along them.

    The weight of a neighbour whose link is down, or who is away, goes to the peer itself, on both sides: rows
    and columns still sum to 1, so no model shrinks and the mean of all stays where it is.

    Args:
      weights: those of the whole graph.
      links: the edges that work.
    """

    weights: Array
    links: Sequence[Edge]
    neighbours: Mapping[int, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        found: dict[int, list[int]] = {peer: [] for peer in range(len(self.weights))}
        for a, b in self.links:
            found[a].append(b)
            found[b].append(a)
        object.__setattr__(self, "neighbours", found)

    def mix(self, tensors: Tensors) -> dict[str, Array]:
        """Computes W X, where X has one row for each peer."""
        mixed = {name: np.array(rows) for name, rows in tensors.items()}
        for peer, others in self.neighbours.items():
            if not others:
                continue
            shares, own = self.weights[peer, others], self.weights[peer, peer]
            is_down = self.weights[peer] != 0
            is_down[[peer, *others]] = False
            if is_down.any():
                own = own + self.weights[peer, is_down].sum()
            for name, rows in tensors.items():
                of_others = np.tensordot(shares.astype(rows.dtype), rows[others], 1)
                mixed[name][peer] = rows.dtype.type(own) * rows[peer] + of_others
        return mixed


def stack_models(params: Tensors, num_peers: int) -> dict[str, Array]:
    """Returns so many copies of a model, one above the other."""
    return {name: np.repeat(np.asarray(w)[None], num_peers, axis=0) for name, w in params.items()}


def unstack(models: Tensors, peer: int) -> dict[str, Array]:
    """Returns the model of one peer."""
    return {name: np.asarray(rows[peer]) for name, rows in models.items()}


def _measure_spread(models: Tensors) -> float:
    """Returns the root mean square distance of models to their mean."""
    total = 0.0
    for rows in models.values():
        rows = np.asarray(rows, np.float64)
        total += float(np.square(rows - rows.mean(axis=0)).sum())
    return float(np.sqrt(total / len(next(iter(models.values())))))


@dataclass(frozen=True)
class PeerTraining(Algorithm[S], ABC):
    """Each round, every peer computes a gradient at its own model and mixes models with its neighbours.

    Peers count alike, however many examples they have. A peer that does not answer in a round keeps its
    model, and its neighbours go on without it. The model of the run is the mean of the peers' models. Records
    hold "consensus_distance", the root mean square distance of the peers' models to that mean;
    "consensus_decay", the factor by which the round's mixing changed it, beside "second_eigenvalue", which
    bounds it while all links work; and "link_bytes", what the links between peers carried.

    Args:
      graph: the links between peers.
      lr: step size: a number or a schedule.
      batch_size: examples of each gradient; None: all of a peer's.
      link_failure: the probability of each link to be down in a round, both ways.
      close: when a round goes on without peers that have not answered.
    """

    graph: Graph = ring()
    lr: Rate = 0.1
    batch_size: int | None = None
    link_failure: float = 0.0
    close: Close = Close()

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)
        check_below_one("link_failure", self.link_failure)

    def check_peers(self, num_peers: int) -> None:
        """Checks that the graph suits so many peers. Raises: InvalidInput."""
        self.graph.connect(num_peers)

    @abstractmethod
    def step(
        self, state: S, models: Tensors, gradients: Tensors, peers: Array, mixing: Mixing, key: Key
    ) -> S:
        """Returns the state after the step of the peers that answered, with the models of all.

        Args:
          models: those of all peers, one above the other.
          gradients: one row for each peer; zeros for those that did not answer.
          peers: those that answered.
          mixing: mixes along the links between them.
          key: the round's.
        """

    def mix(self, state: S, models: Tensors, mixing: Mixing) -> tuple[Tensors, float | None]:
        """Returns the models mixed, and the factor by which that changed their distance to their mean.

        None: there was no distance to change.
        """
        if state.models is None:
            return models, None  # at first all are alike
        mixed, before = mixing.mix(models), _measure_spread(models)
        if before <= 1e-9 * (1.0 + _measure_size(models)):  # below it, rounding is all that is left
            return mixed, None
        return mixed, _measure_spread(mixed) / before

    def round(self, state: S, key: Key) -> Program[S]:
        chosen = yield Sample(key, fraction=1.0)
        assert isinstance(chosen, Sampled)
        if not chosen.cohort:
            raise RoundAbandoned(f"none of {chosen.num_clients} peers is free")
        num_peers, cohort = chosen.num_clients, sorted(chosen.cohort)
        edges = self.graph.connect(num_peers)
        weights, second, sha256 = weigh_graph(num_peers, edges)
        state = self._check_graph(state, sha256)
        models = stack_models(state.params, num_peers) if state.models is None else state.models
        work = peer_gradient(self.batch_size)
        answers = yield from ask_each(
            {peer: (work, {"params": unstack(models, int(peer))}) for peer in cohort},
            key,
            close=self.close,
            gradient=PartSpec(Spec.of(state.params), into=each()),
        )
        peers = np.array(sorted(map(int, answers)))
        gradients = {name: np.zeros_like(rows) for name, rows in models.items()}
        for peer, parts in answers.items():
            for name, slope in parts["gradient"].values.items():
                gradients[name][int(peer)] = slope
        mixing = Mixing(weights, self._find_links(edges, peers, num_peers, key))
        after = self.step(state, models, gradients, peers, mixing, key)
        assert after.models is not None
        return replace(
            after,
            params={name: np.asarray(rows.mean(axis=0)) for name, rows in after.models.items()},
            num_rounds=state.num_rounds + 1,
            second_eigenvalue=second,
            distance=_measure_spread(after.models),
            link_bytes=self.count_link_bytes(after, mixing),
        )

    def count_link_bytes(self, state: S, mixing: Mixing) -> int:
        """Returns the bytes that all links carried in a round: a model each way, if not said otherwise."""
        return 2 * len(mixing.links) * num_bytes(state.params)

    def _find_links(self, edges: Sequence[Edge], peers: Array, num_peers: int, key: Key) -> tuple[Edge, ...]:
        """Returns the links of a round: their peers are there, and they are not down."""
        is_there = np.isin(np.arange(num_peers), peers)
        is_up = np.ones(len(edges), bool)
        if self.link_failure:
            is_up = key.fold_in("links").rng().random(len(edges)) >= self.link_failure
        return tuple(
            (a, b) for (a, b), up in zip(edges, is_up, strict=True) if up and is_there[a] and is_there[b]
        )

    def _check_graph(self, state: S, sha256: str) -> S:
        """Keeps what the graph is, or checks that it is still the same. Raises: InvalidInput."""
        if state.edges_sha256 not in ("", sha256):
            raise InvalidInput(
                f"the graph {self.graph} is not the one that the run began with; give it its links back, or "
                "begin a new run"
            )
        return replace(state, edges_sha256=sha256)

    def metrics(self, state: S) -> Mapping[str, float]:
        if state.distance is None or state.second_eigenvalue is None:
            return {}
        found: dict[str, Any] = {
            "consensus_distance": state.distance,
            "consensus_decay": state.decay,
            "second_eigenvalue": state.second_eigenvalue,
            "link_bytes": state.link_bytes,
        }
        return {name: float(number) for name, number in found.items() if number is not None}


def _measure_size(models: Tensors) -> float:
    """Returns the root mean square norm of models."""
    total = sum(float(np.square(np.asarray(rows, np.float64)).sum()) for rows in models.values())
    return float(np.sqrt(total / len(next(iter(models.values())))))
