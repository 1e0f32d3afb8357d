"""Decentralised parallel stochastic gradient descent (D-PSGD), all peers of a simulation at once.

Lian, Zhang, Zhang, Hsieh, Zhang, Liu, "Can decentralized algorithms outperform centralized algorithms?",
NeurIPS 2017, arXiv 1705.09056, Algorithm 1.
"""

from dataclasses import replace

from hanse.algorithms.peers import Mixing, PeerState, PeerTraining
from hanse.algorithms.schedules import rate
from hanse.core import Array, Key, Tensors, add_scaled, value

__all__ = ["decentralised_sgd"]


@value
class decentralised_sgd(PeerTraining[PeerState]):
    """Peers mix models with their neighbours, and step along their own stochastic gradients.

        w_i <- sum_j W_ij w_j - lr g_i(w_i)

    W are the Metropolis weights of the graph. The mean of the peers moves as in stochastic gradient descent
    with every peer. Their distance to it shrinks by W's second eigenvalue with each mixing, while their
    gradients drive them apart: at a fixed step size, peers that differ end near, not at, the optimum of the
    uniformly weighted objective. `gradient_tracking` ends at it.
    """

    def init(self, params: Tensors, key: Key) -> PeerState:
        return PeerState(params)

    def step(
        self,
        state: PeerState,
        models: Tensors,
        gradients: Tensors,
        peers: Array,
        mixing: Mixing,
        key: Key,
    ) -> PeerState:
        mixed, decay = self.mix(state, models, mixing)
        stepped = add_scaled(mixed, -rate(self.lr, state.num_rounds), gradients)
        return replace(state, models=stepped, decay=decay)
