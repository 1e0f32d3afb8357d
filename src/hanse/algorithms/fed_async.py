"""Asynchronous federated optimisation.

Xie, Koyejo, Gupta, "Asynchronous federated optimization", OPT 2020 (arXiv 1903.03934), Algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hanse.algorithms.client_optimisers import EPOCHS, LR, sgd
from hanse.algorithms.schedules import Rate, check_rate
from hanse.algorithms.staleness import Staleness, Versions, check_concurrency, keep_busy, polynomial_staleness
from hanse.algorithms.works import local_sgd, uniform
from hanse.core import (
    Algorithm,
    Close,
    InvalidInput,
    Key,
    PartSpec,
    Program,
    Reducer,
    Spec,
    Steps,
    Tensors,
    Transform,
    add,
    add_scaled,
    check_not_negative,
    collect,
    mean,
    subtract,
    value,
)

__all__ = ["fed_async"]


@value
class fed_async(Algorithm[Versions]):
    """Clients train without waiting for each other; the server mixes each model in as soon as it arrives.

        client k    w_k = several steps from w_tau on F_k(v) + mu/2 |v - w_tau|²
        server      w <- (1 - alpha_t) w + alpha_t w_k,    alpha_t = alpha s(t - tau)

    Converges to a neighbourhood of the optimum of the objective in which each client counts by how often it
    answers, so fast devices count more. A round is one step of the server. Records "staleness", t - tau.
    What is in flight after the last round counts for nothing.

    Args:
      lr: the clients' step size: a number or a schedule, which counts server steps.
      alpha: the weight of a fresh model, above 0 and at most 1.
      staleness: s, the factor on the weight of a stale one: `any_staleness()`, `polynomial_staleness()` or
        `hinge_staleness()`.
      concurrency: clients that train at the same time; None: all.
      epochs: local passes over the data.
      batch_size: local batch; None: all of a client's examples.
      mu: holds a client near the model that it started from, rho in the paper.
      uplink: transforms of the updates w_k - w_tau, first to last.
      downlink: transforms of the broadcast; clients receive the difference to what they hold.
      into: the reducer, of one update.
    """

    lr: Rate = LR
    alpha: float = 0.6
    staleness: Staleness = polynomial_staleness()
    concurrency: int | None = 20
    epochs: int = EPOCHS
    batch_size: int | None = 10
    mu: float = 0.005
    uplink: tuple[Transform, ...] = ()
    downlink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        check_not_negative("mu", self.mu)
        check_concurrency(self.concurrency)
        self._steps(0)
        if not 0 < self.alpha <= 1:
            raise InvalidInput(f"alpha is {self.alpha}; write a weight above 0 and at most 1")

    def _steps(self, version: int) -> Steps:
        training = sgd(self.lr, epochs=self.epochs, batch_size=self.batch_size)
        return training.steps(version, proximal=self.mu)

    def init(self, params: Tensors, key: Key) -> Versions:
        return Versions(params)

    def round(self, state: Versions, key: Key) -> Program[Versions]:
        update = PartSpec(Spec.of(state.params), self.uplink, self.into)
        work = local_sgd(self._steps(state.version), uniform())
        state = replace(state, models={**state.models, state.version: state.params})
        state = yield from keep_busy(state, work, key, self.concurrency, self.downlink, update=update)
        got = yield from collect(close=Close(goal=1), version=state.version)
        after = state.close(got)
        if not got.counted:
            return after
        (ticket,) = got.counted
        begun = state.sent[ticket]
        late = state.version - begun
        model = add(state.models[begun], got["update"].values)
        share = self.alpha * self.staleness.weigh(late)
        params = add_scaled(state.params, share, subtract(model, state.params))
        return replace(after, params=params, version=state.version + 1, staleness=float(late))

    def metrics(self, state: Versions) -> Mapping[str, float]:
        return {} if state.staleness is None else {"staleness": state.staleness}
