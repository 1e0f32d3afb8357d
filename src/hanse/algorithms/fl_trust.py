"""FLTrust: trust bootstrapped from the server's own training.

Cao, Fang, Liu, Gong, "FLTrust: Byzantine-robust federated learning via trust bootstrapping", NDSS 2021,
arXiv 2012.13995, Algorithm 2.
"""

from dataclasses import field, replace

from hanse.algorithms.optimisers import OptimiserState
from hanse.algorithms.own_training import make_training_parts
from hanse.algorithms.server_rules import TRUSTED, ServerRule
from hanse.core import Key, PartSpec, Program, RoundAbandoned, Spec, Tensors, gather, sample, value
from hanse.robust import cosine_trust

__all__ = ["fl_trust"]


@value
class fl_trust(ServerRule[OptimiserState]):
    """The server trains too, on a few examples that it trusts; updates count as far as they point its way.

        t_k = max(0, cos(u_k, u_0));   w <- w + server_lr * sum_k t_k (|u_0| / |u_k|) u_k / sum_k t_k

    u_0 is the server's own update, by the clients' training on its own examples. An update that points
    backwards does not count, and none is longer than the server's. About a hundred examples are enough in the
    paper, if each class is among them. How many clients lie need not be known, and it may be most of them. A
    round costs the server one client's training.

    It has no `into`: the server must see each update, so no sum hides them. Weights are ignored. The trusted
    role is one of the cohort: a round waits for it, and its training metrics are in the cohort's means.

    Args:
      trusted: the role that holds the server's examples: "validation", or "server", which holds the test set.
        With "server" the model is measured on examples that it was led by.
    """

    trusted: str = field(default=TRUSTED, kw_only=True)

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return OptimiserState(params, moments=self.server.init(params))

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        cohort = (yield from sample(key, fraction=self.fraction)).cohort
        goal = self.close.goal
        got = yield from gather(
            self.work(state.num_rounds),
            (self.trusted, *cohort),
            {"params": state.params},
            key,
            close=self.close if goal is None else replace(self.close, goal=goal + 1),
            downlink=self.downlink,
            own=None,
            update=PartSpec(Spec.of(state.params), self.uplink, cosine_trust()),
            **make_training_parts(self.training),
        )
        if got.parties[0] != self.trusted:  # then the total trusts a client
            raise RoundAbandoned(f"{self.trusted!r}, which the others are compared with, did not answer")
        return state.advance(self.server, self.server_lr, got["update"].values)
