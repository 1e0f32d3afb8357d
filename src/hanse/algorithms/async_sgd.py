"""Asynchronous stochastic gradient descent on a parameter server.

Dean et al., "Large scale distributed deep networks", NeurIPS 2012 (Downpour SGD); steps that shrink with
staleness: Zhang, Gupta, Lian, Liu, "Staleness-aware async-SGD for distributed deep learning", IJCAI 2016,
arXiv 1511.05950.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hanse.algorithms.schedules import Rate, check_rate, rate
from hanse.algorithms.staleness import Staleness, Versions, any_staleness, check_concurrency, keep_busy
from hanse.algorithms.works import batch_gradient
from hanse.core import (
    Algorithm,
    Close,
    Key,
    PartSpec,
    Program,
    Reducer,
    Spec,
    Tensors,
    Transform,
    add_scaled,
    collect,
    mean,
    value,
)

__all__ = ["async_sgd"]


@value
class async_sgd(Algorithm[Versions]):
    """One gradient, one step: no worker waits for another.

        worker k    reads w, computes g_k = grad F_k(w) on a batch, sends it
        server      w <- w - lr s(staleness) g_k     as soon as it arrives

    By then others may have moved w: the gradient is stale. Ends near the optimum of the objective in which
    each client counts by how often it answers, so fast devices count more; the distance grows with lr, the
    gradients' noise and the staleness, and too large an lr diverges. A round is one step of the server.
    Records "staleness". What is in flight after the last round counts for nothing.

    Args:
      lr: step size: a number or a schedule, which counts server steps.
      batch_size: examples of a gradient; None: all of a client's.
      concurrency: clients that work at the same time; None: all.
      staleness: how much shorter the step of a stale gradient is: `any_staleness()` (not at all),
        `polynomial_staleness(1.0)` (lr divided by 1 + staleness) or `hinge_staleness()`.
      uplink: transforms of the gradients, first to last.
      downlink: transforms of the broadcast; clients receive the difference to what they hold.
      into: the reducer, of one gradient.
    """

    lr: Rate = 0.1
    batch_size: int | None = 10
    concurrency: int | None = None
    staleness: Staleness = any_staleness()
    uplink: tuple[Transform, ...] = ()
    downlink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        batch_gradient(self.batch_size)
        check_concurrency(self.concurrency)

    def init(self, params: Tensors, key: Key) -> Versions:
        return Versions(params)

    def round(self, state: Versions, key: Key) -> Program[Versions]:
        sent = PartSpec(Spec.of(state.params), self.uplink, self.into)
        work = batch_gradient(self.batch_size)
        state = yield from keep_busy(state, work, key, self.concurrency, self.downlink, gradient=sent)
        got = yield from collect(close=Close(goal=1), version=state.version)
        after = state.close(got)
        if not got.counted:
            return after
        (ticket,) = got.counted
        late = state.version - state.sent[ticket]
        step = rate(self.lr, state.version) * self.staleness.weigh(late)
        params = add_scaled(state.params, -step, got["gradient"].values)
        return replace(after, params=params, version=state.version + 1, staleness=float(late))

    def metrics(self, state: Versions) -> Mapping[str, float]:
        return {} if state.staleness is None else {"staleness": state.staleness}
