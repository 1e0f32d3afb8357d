"""Decentralised parallel stochastic gradient descent: no server, peers average with their neighbours.

Lian, Zhang, Zhang, Hsieh, Zhang, Liu, "Can decentralized algorithms outperform centralized algorithms?",
NeurIPS 2017, arXiv 1705.09056, Algorithm 1.
"""

from collections.abc import Mapping

import numpy as np

from hanse.algorithms.schedules import Rate, check_rate, rate
from hanse.core import (
    Algorithm,
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
    Shared,
    Spec,
    Tensors,
    Work,
    add_scaled,
    gather,
    l2_norm,
    stack,
    subtract,
    value,
)
from hanse.core.exchange import NotReady

__all__ = ["gossip"]


@value
class Peer:
    """A peer's own model after this many steps.

    `distance` is that of its last model to what it mixed with its neighbours; None: nothing was mixed yet.
    """

    params: Tensors
    step: int
    distance: float | None = None


def _shown(step: int) -> str:
    return f"shown/{step}"


@value
class step_and_show(Work[DifferentiableLearner, Examples]):
    """Computes w = mixed - lr grad F(params) at the peer, and shows it to neighbours as the given step's."""

    step: int
    lr: float

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        gradient = learner.gradient(shared["params"], data)
        params = add_scaled(shared["mixed"], -self.lr, gradient)
        before = {name: v for name, v in memory.items() if name == _shown(self.step - 1)}
        return {"params": Part(params)}, {**before, _shown(self.step): params}


@value
class look(Work[DifferentiableLearner, Examples]):
    """Reads what a neighbour shows as the given step's; a neighbour that is not there yet answers later."""

    step: int

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        if _shown(self.step) not in memory:
            raise NotReady(f"step {self.step} is not done here yet")
        return {"params": Part(memory[_shown(self.step)])}, memory


@value
class gossip(Algorithm[Peer]):
    """One peer's program: mix with the neighbours' models, then take one gradient step.

        w_i <- sum_j W_ij w_j - lr grad F_i(w_i)

    The mean over peers moves as in gradient descent if W is doubly stochastic; the peers' distance to it
    shrinks by W's second largest eigenvalue a step. At a fixed step size the peers end near, not at, the
    optimum of the uniformly weighted objective. The first step mixes nothing, because all begin alike.
    Neighbours are mutual: a peer shows its last two steps, so one that waits for nobody may run ahead of
    those that wait for it. The weight of a neighbour that is missing goes to the peer itself. Records
    "consensus_distance": how far this peer's model was from the mixed one.

    Args:
      me: the peer that performs this program.
      weights: row W_i by neighbour; `me` included; they sum to 1.
      lr: step size: a number or a schedule.
    """

    performed_by = "peer"

    me: int
    weights: tuple[tuple[int, float], ...]
    lr: Rate = 0.1

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        total = sum(weight for _, weight in self.weights)
        if abs(total - 1.0) > 1e-9 or self.me not in dict(self.weights):
            raise InvalidInput(
                f"the weights of peer {self.me} are {self.weights}; name it and its neighbours, summing to 1"
            )

    def init(self, params: Tensors, key: Key) -> Peer:
        return Peer(params, 0)

    def round(self, state: Peer, key: Key) -> Program[Peer]:
        like_params = Spec.of(state.params)
        mixed: Tensors = state.params
        distance = None
        if state.step > 0:
            weights = dict(self.weights)
            own = weights.pop(self.me)
            collected = PartSpec(like_params, into=stack())
            got = yield from gather(look(state.step), tuple(weights), {}, key.fold_in(1), params=collected)
            theirs = got["params"].values
            missing = weights.keys() - got.parties
            own += sum(weights[neighbour] for neighbour in sorted(missing))  # else the model would shrink
            shares = np.array([weights[int(neighbour)] for neighbour in got.parties])
            mixed = {
                name: w.dtype.type(own) * w + np.tensordot(shares.astype(w.dtype), theirs[name], 1)
                for name, w in state.params.items()
            }
            distance = l2_norm(subtract(state.params, mixed))
        shared = {"params": state.params, "mixed": mixed}
        work = step_and_show(state.step + 1, rate(self.lr, state.step))
        got = yield from gather(work, (self.me,), shared, key.fold_in(2), params=PartSpec(like_params))
        return Peer(got["params"].values, state.step + 1, distance)

    def metrics(self, state: Peer) -> Mapping[str, float]:
        return {} if state.distance is None else {"consensus_distance": state.distance}
