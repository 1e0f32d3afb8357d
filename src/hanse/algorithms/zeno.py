"""Zeno: the server tries each update on examples of its own.

Xie, Koyejo, Gupta, "Zeno: Distributed stochastic gradient descent with suspicion-based fault-tolerance", ICML
2019, arXiv 1805.10032, Algorithm 1. Without a number of liars, the test of "Zeno++: Robust fully asynchronous
SGD", ICML 2020, arXiv 1903.07020, Definition 2 with epsilon = 0.
"""

from dataclasses import field

import numpy as np

from hanse.algorithms.optimisers import OptimiserState
from hanse.algorithms.server_rules import TRUSTED, ServerRule, combine
from hanse.core import (
    Contribution,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Learner,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Work,
    add,
    check_not_negative,
    dot,
    gather,
    leave_out,
    value,
)

__all__ = ["zeno"]


@value
class try_updates(Work[Learner, Examples]):
    """Measures the loss at "params" alone and with each update, "0", "1", ...; emits "losses"."""

    num_updates: int

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        params = shared["params"]
        losses = [_measure(learner, params, data)]
        with np.errstate(all="ignore"):  # a liar's update may be of any size
            for i in range(self.num_updates):
                losses.append(_measure(learner, add(params, shared[str(i)]), data))
        largest = np.finfo(np.float64).max
        found = np.nan_to_num(np.array(losses), nan=largest, posinf=largest)
        return {"losses": Part({"losses": found})}, memory


def _measure(learner: Learner, params: Tensors, data: Examples) -> float:
    sums = learner.evaluate(params, data)
    return float(sums["loss"] / sums["count"])


@value
class zeno(ServerRule[OptimiserState]):
    """The server tries each update on examples of its own, and averages those that lessen the loss the most.

        s_k = F(w) - F(w + u_k) - rho |u_k|²;   w <- w + server_lr * mean of the u_k with the best s_k

    F is the mean loss over the trusted examples. This is the classic defence, and it needs no majority of
    honest clients. But an honest client whose data the server's examples do not resemble fails the test. A
    backdoor does not show in the loss, so it passes.

    All updates of a round are held by the server at once, and are kept in the store until the round ends. It
    has no `into`: the server must see each update, so no sum hides them. Weights are ignored.

    Args:
      num_byzantine: the number of updates left out in a round, the paper's b. None: every update whose
        score is below 0.
      rho: the price of an update's squared length; 0: the loss alone decides.
      trusted: the role that holds the server's examples: "validation", or "server", which holds the test set.
        With "server" the model is measured on examples that it was chosen by.
    """

    num_byzantine: int | None = field(default=None, kw_only=True)
    rho: float = field(default=0.0005, kw_only=True)
    trusted: str = field(default=TRUSTED, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("rho", self.rho)
        if self.num_byzantine is not None and self.num_byzantine < 0:
            raise InvalidInput(
                f"num_byzantine is {self.num_byzantine}; write the number of updates to leave out, from 0"
            )

    def init(self, params: Tensors, key: Key) -> OptimiserState:
        return OptimiserState(params, moments=self.server.init(params))

    def round(self, state: OptimiserState, key: Key) -> Program[OptimiserState]:
        updates = yield from self.collect_updates(state, key, needed=1 + (self.num_byzantine or 0))
        tried = {str(i): update for i, update in enumerate(updates.values())}
        per_update = PartSpec(Spec({"losses": TensorSpec((1 + len(tried),), "float64")}))
        got = yield from gather(
            try_updates(len(tried)),
            (self.trusted,),
            {"params": state.params, **tried},
            key.fold_in("try"),
            losses=per_update,
        )
        before, *after = got["losses"].values["losses"]
        lengths = [dot(update, update) for update in updates.values()]
        scores = before - np.array(after) - self.rho * np.array(lengths)
        if self.num_byzantine is None:
            chosen = set(np.flatnonzero(scores >= 0).tolist())
        else:
            best = np.argsort(-scores, kind="stable")
            chosen = set(best[: len(best) - self.num_byzantine].tolist())
        weights = {party: float(i in chosen) for i, party in enumerate(updates)}
        yield from leave_out(party for party, weight in weights.items() if not weight)
        return state.advance(self.server, self.server_lr, combine(state.params, updates, weights))
