"""Gradient tracking: peers that differ still end at the optimum.

Nedić, Olshevsky, Shi, "Achieving geometric convergence for distributed optimization over time-varying
graphs", SIAM Journal on Optimization 2017, arXiv 1607.03218, Algorithm 1 (DIGing); Qu and Li, "Harnessing
smoothness to accelerate distributed optimization", IEEE TCNS 2018, arXiv 1605.07112.
"""

from dataclasses import replace

import numpy as np

from hanse.algorithms.peers import Mixing, PeerState, PeerTraining
from hanse.algorithms.schedules import rate
from hanse.core import Array, Key, Tensors, add, add_scaled, subtract, value, zeros_like

__all__ = ["gradient_tracking"]


@value
class TrackingState(PeerState):
    """The models of all peers, what each tracks, and its last gradient.

    Args:
      trackers: each peer's estimate of the mean gradient of all; None: nobody has computed one yet.
      gradients: each peer's last gradient.
    """

    trackers: Tensors | None = None
    gradients: Tensors | None = None


@value
class gradient_tracking(PeerTraining[TrackingState]):
    """Peers mix models, and step along a mixed estimate of the mean gradient of all peers.

        y_i <- sum_j W_ij y_j + g_i(w_i) - g_i(previous w_i)
        w_i <- sum_j W_ij w_j - lr y_i

    W are the Metropolis weights of the graph, and y_i begins as g_i. The mean of the y_i is always that of
    the g_i, so with full gradients and a small enough step size each peer converges to the optimum of the
    uniformly weighted objective, linearly where that is strongly convex, however unlike the peers' data are.
    `decentralised_sgd` ends near it. Peers send two tensors of a model's size in place of one.
    """

    def init(self, params: Tensors, key: Key) -> TrackingState:
        return TrackingState(params)

    def step(
        self,
        state: TrackingState,
        models: Tensors,
        gradients: Tensors,
        peers: Array,
        mixing: Mixing,
        key: Key,
    ) -> TrackingState:
        mixed, decay = self.mix(state, models, mixing)
        former = zeros_like(gradients) if state.gradients is None else state.gradients
        trackers = zeros_like(gradients) if state.trackers is None else mixing.mix(state.trackers)
        away = np.setdiff1d(np.arange(len(mixing.weights)), peers)
        now = {name: slopes.copy() for name, slopes in gradients.items()}
        for name, slopes in now.items():
            slopes[away] = former[name][away]
        trackers = add(trackers, subtract(now, former))
        steps = {name: slopes.copy() for name, slopes in trackers.items()}
        for slopes in steps.values():
            slopes[away] = 0
        stepped = add_scaled(mixed, -rate(self.lr, state.num_rounds), steps)
        return replace(state, models=stepped, trackers=trackers, gradients=now, decay=decay)

    def count_link_bytes(self, state: TrackingState, mixing: Mixing) -> int:
        return 2 * super().count_link_bytes(state, mixing)
