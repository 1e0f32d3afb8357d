"""FoolsGold: clients whose updates resemble each other over the rounds count less.

Fung, Yoon, Beschastnikh, "The limitations of federated learning in Sybil settings", RAID 2020, arXiv
1808.04866 ("Mitigating Sybils in federated learning poisoning"), Algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import field

import numpy as np

from hanse.algorithms.optimisers import OptimiserState
from hanse.algorithms.server_rules import ServerRule, combine
from hanse.core import (
    Array,
    InvalidInput,
    Key,
    PartyId,
    Program,
    Tensors,
    add,
    check_positive,
    dot,
    leave_out,
    nearest,
    value,
)

__all__ = ["fools_gold"]


@value
class SimilarityState(OptimiserState):
    """The model, and of each client that took part the sum of its updates."""

    history: Mapping[PartyId, Tensors] = field(default_factory=dict)


@value
class fools_gold(ServerRule[SimilarityState]):
    """Clients count less, the more the sum of their updates so far resembles another client's.

        c_ij = cos(h_i, h_j), where h_i is the sum of i's updates;   v_i = max_j c_ij
        c_ij <- c_ij v_i / v_j, if v_j > v_i;   a_i = 1 - max_j c_ij, divided by the largest of all
        a_i <- confidence (ln(a_i / (1 - a_i)) + 1/2), clipped to [0, 1];   w <- w + sum a_i u_i / sum a_i

    It is made for Sybils: several clients of one liar who want the same, among honest clients who differ. How
    many they are does not matter. A client is compared with all that took part in any round so far, so that
    Sybils are found that are asked in different rounds: a round costs a scalar product for each pair of them.
    A liar who is alone, or whose clients disagree on purpose, is not found.
    Honest clients with like data count less, too. The paper adds a_i u_i up; here they are averaged, so that
    the length of a step does not depend on how many count.

    The server keeps a sum for each client: give `features` to keep that of the last layer alone, which the
    paper calls indicative. All updates of a round are held at once, and are kept in the store until the round
    ends. It has no `into`: the server must see each update, so no sum hides them. Weights are ignored.

    Args:
      confidence: the slope of the last step, the paper's kappa.
      features: the names of the parameters that are compared; empty: all.
    """

    confidence: float = field(default=1.0, kw_only=True)
    features: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("confidence", self.confidence)

    def init(self, params: Tensors, key: Key) -> SimilarityState:
        for name in self.features:
            if name not in params:
                raise InvalidInput(f"features: no parameter {name!r}: {nearest(name, list(params))}")
        return SimilarityState(params, moments=self.server.init(params))

    def round(self, state: SimilarityState, key: Key) -> Program[SimilarityState]:
        updates = yield from self.collect_updates(state, key)
        history = dict(state.history)
        for party, update in updates.items():
            compared = {name: update[name] for name in self.features} if self.features else update
            history[party] = add(history[party], compared) if party in history else dict(compared)
        found = weigh(_compare(list(history.values())), self.confidence)
        everyone = dict(zip(history, found.tolist(), strict=True))
        weights = {party: everyone[party] for party in updates}
        yield from leave_out(party for party, weight in weights.items() if not weight)
        total = combine(state.params, updates, weights)
        after = state.advance(self.server, self.server_lr, total)
        return SimilarityState(
            params=after.params,
            num_rounds=after.num_rounds,
            moments=after.moments,
            last_rounds=after.last_rounds,
            history=history,
        )


def _compare(sums: list[Tensors]) -> Array:
    """Computes the cosines of all pairs; that of nothing with anything is 0."""
    products = np.array([[dot(one, other) for other in sums] for one in sums])
    norms = np.sqrt(np.diag(products))
    lengths = np.outer(norms, norms)
    return np.asarray(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))


def weigh(cosines: Array, confidence: float) -> Array:
    """Computes the clients' weights from the cosines of their histories.

    >>> weigh(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), 1.0)
    array([0., 0., 1.])
    """
    similar = np.array(cosines)
    np.fill_diagonal(similar, 0)  # so none of them is highest with a cosine below 0
    highest = similar.max(axis=1)
    is_pardoned = highest[None, :] > highest[:, None]
    ratios = np.divide(highest[:, None], highest[None, :], out=np.ones_like(similar), where=is_pardoned)
    weights = np.clip(1 - (similar * ratios).max(axis=1), 0, 1)
    weights = weights / (weights.max() or 1.0)
    with np.errstate(divide="ignore"):
        found: Array = np.clip(confidence * (np.log(weights / (1 - weights)) + 0.5), 0, 1)
    return found
