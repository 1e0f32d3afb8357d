"""Decentralised training with compressed messages between peers (CHOCO-SGD).

Koloskova, Stich, Jaggi, "Decentralized stochastic optimization and gossip algorithms with compressed
communication", ICML 2019, arXiv 1902.00340, Algorithm 2.
"""

from dataclasses import dataclass, replace

from hanse.algorithms.graphs import Edge
from hanse.algorithms.peers import Mixing, PeerState, PeerTraining, unstack
from hanse.algorithms.schedules import rate
from hanse.core import (
    Array,
    Chain,
    CompositionError,
    InvalidInput,
    Key,
    Keys,
    Part,
    Plan,
    Spec,
    Tensors,
    Total,
    Transform,
    add_scaled,
    num_bytes,
    subtract,
    value,
    zeros_like,
)

__all__ = ["choco_sgd"]


@value
class ChocoState(PeerState):
    """The models of all peers, and what their neighbours know of them.

    Args:
      known: for each peer, the copy of its model that its neighbours hold; None: all hold zeros.
      sent_bytes: what each peer sent to each neighbour in the last round; 0: it was away.
      broken: the links that did not work in the last round.
      resent_bytes: what the links carried so that neighbours know each other again.
    """

    known: Tensors | None = None
    sent_bytes: tuple[int, ...] = ()
    broken: tuple[Edge, ...] = ()
    resent_bytes: int = 0


@dataclass(frozen=True)
class Compression:
    """Transforms that a peer applies to what it sends, bound to the model's shapes."""

    chain: Chain

    def draw_plans(self, key: Key) -> tuple[Plan, ...]:
        """Draws what all peers know of a round's compression."""
        return self.chain.plan(self.chain.init(), key)

    def send(self, difference: Tensors, plans: tuple[Plan, ...], key: Key) -> tuple[Tensors, int]:
        """Returns what neighbours read of a difference, and the bytes of the message.

        Raises: CompositionError: if a transform remembers what it left out.
        """
        encoded, memory = self.chain.encode(plans, Part(difference), {}, Keys(key, key))
        if memory:
            raise CompositionError(
                f"compression = {list(self.chain.descriptions)} remembers what it left out, and choco_sgd "
                "sends that again by itself: write residual = none(), for example top_k(0.1, none())"
            )
        opened = self.chain.open(plans, encoded, key)
        total = Total(opened.values, 1.0, 1)
        return self.chain.decode(self.chain.init(), plans, total, key)[0].values, num_bytes(encoded.values)


@value
class choco_sgd(PeerTraining[ChocoState]):
    """Peers step along their own gradients, and send each other compressed differences only.

        w_i <- w_i - lr g_i(w_i)
        q_i  = Q(w_i - k_i),  sent to all neighbours of i
        k_i <- k_i + q_i
        w_i <- w_i + gamma sum_j W_ij (k_j - k_i)

    k_i is what the neighbours of i know of its model; i holds a copy. W are the Metropolis weights of the
    graph. What compression leaves out is in the next difference, so with a small enough gamma all models
    agree in the end, which compressed models alone would not. With no compression and gamma = 1 it is
    `decentralised_sgd` with the gradient step before the mixing. The stronger the compression, the smaller
    gamma has to be: at 1 with a tenth of the entries, models grow without bound. So they do at any gamma with
    a compression that does not shrink what it leaves out, such as `quantize(1)`.

    At a fixed step size, peers that differ end near, not at, the optimum of the uniformly weighted objective.

    After a link was down, or a peer away, both ends send what they know in full. `link_bytes` counts that.

    Args:
      compression: transforms of the differences, first to last; they must not remember anything, so write
        `top_k(0.1, none())`.
      gamma: the step size of the mixing, above 0 and at most 1.
    """

    compression: tuple[Transform, ...] = ()
    gamma: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gamma <= 1:
            raise InvalidInput(f"gamma is {self.gamma}; write a number above 0 and at most 1")

    def init(self, params: Tensors, key: Key) -> ChocoState:
        compression = self._bind(params)
        compression.send(params, compression.draw_plans(key), key)  # refuses what can't be sent
        return ChocoState(params)

    def _bind(self, params: Tensors) -> Compression:
        return Compression(Chain.bind(Spec.of(params), self.compression))

    def step(
        self,
        state: ChocoState,
        models: Tensors,
        gradients: Tensors,
        peers: Array,
        mixing: Mixing,
        key: Key,
    ) -> ChocoState:
        models = add_scaled(models, -rate(self.lr, state.num_rounds), gradients)
        known = {name: rows.copy() for name, rows in (state.known or zeros_like(models)).items()}
        compression = self._bind(state.params)
        plans = compression.draw_plans(key.fold_in("compression"))
        sent_bytes = [0] * len(mixing.weights)
        for peer in map(int, peers):
            difference = subtract(unstack(models, peer), unstack(known, peer))
            own = key.fold_in("compression", peer)
            sent, sent_bytes[peer] = compression.send(difference, plans, own)
            for name, entries in sent.items():
                known[name][peer] += entries
        models = add_scaled(models, self.gamma, subtract(mixing.mix(known), known))
        mended = set(state.broken).intersection(mixing.links)
        return replace(
            state,
            models=models,
            known=known,
            sent_bytes=tuple(sent_bytes),
            broken=tuple(sorted(set(self.graph.connect(len(sent_bytes))).difference(mixing.links))),
            resent_bytes=2 * len(mended) * num_bytes(state.params),
        )

    def count_link_bytes(self, state: ChocoState, mixing: Mixing) -> int:
        sent = sum(state.sent_bytes[peer] * len(others) for peer, others in mixing.neighbours.items())
        return sent + state.resent_bytes
