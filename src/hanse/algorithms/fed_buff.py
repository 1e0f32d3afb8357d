"""Buffered asynchronous aggregation.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba, "Federated learning with buffered asynchronous
aggregation", AISTATS 2022, arXiv 2106.06639, Algorithm 1.
"""

from typing import Any

from hanse.algorithms.client_optimisers import ClientTraining
from hanse.algorithms.local import choose_training
from hanse.algorithms.own_training import make_training_parts, refuse_weights
from hanse.algorithms.schedules import Rate, check_rate, rate
from hanse.algorithms.works import uniform
from hanse.core import (
    Algorithm,
    Close,
    Discount,
    InvalidInput,
    Key,
    PartSpec,
    Program,
    Reducer,
    Spec,
    Tensors,
    Transform,
    add_scaled,
    collect,
    dispatch,
    mean,
    sample,
    value,
)

__all__ = ["fed_buff"]


@value
class Buffered:
    """The model, its version, and the number of tickets in flight."""

    params: Tensors
    version: int
    in_flight: int


@value
class fed_buff(Algorithm[Buffered]):
    """Clients train without waiting for each other; the server steps whenever `buffer_size` have answered.

        w <- w + server_lr * (1/K) sum_k (1 + staleness_k)^-1/2 (w_k - w_start,k)

    Converges to a neighbourhood of the optimum of the uniformly weighted objective, as FedAvg does, biased
    towards fast devices.

    Args:
      lr: the clients' step size: a number or a schedule, which counts server steps.
      concurrency: clients that train at the same time.
      buffer_size: K, contributions a server step waits for.
      epochs: local passes over the data.
      batch_size: local batch; None: all of a client's examples.
      server_lr: step size on the buffered update: a number or a schedule.
      discount: of stale contributions.
      uplink: transforms of the updates, first to last.
      into: the reducer.
      downlink: transforms of the broadcast; clients receive the difference to what they hold.
      client: the clients' training, in place of lr, epochs and batch_size: `sgd()` with momentum and weight
        decay, `adam()`, `adamw()`, ... A function of `trained_by()` may not return a weight here.
    """

    lr: Rate = 0.1
    concurrency: int = 20
    buffer_size: int = 10
    epochs: int = 1
    batch_size: int | None = 10
    server_lr: Rate = 1.0
    discount: Discount = Discount()
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    downlink: tuple[Transform, ...] = ()
    client: ClientTraining | None = None

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        check_rate("server_lr", self.server_lr)
        choose_training(self).work(0, uniform())
        if not 1 <= self.buffer_size <= self.concurrency:
            raise InvalidInput(
                f"buffer_size is {self.buffer_size} with concurrency {self.concurrency}; "
                "write at least 1 and at most as many as train at the same time"
            )

    def init(self, params: Tensors, key: Key) -> Buffered:
        return Buffered(params, 0, 0)

    def round(self, state: Buffered, key: Key) -> Program[Buffered]:
        params, version = state.params, state.version
        training = choose_training(self)
        work = refuse_weights(training.work(version, uniform()))  # weights are the discounts
        update = PartSpec(Spec.of(params), self.uplink, self.into)
        free = yield from sample(key, count=self.concurrency - state.in_flight)
        dispatched = yield from dispatch(
            work,
            free.cohort,
            {"params": params},
            key,
            version=version,
            downlink=self.downlink,
            own=None,
            update=update,
            **make_training_parts(training),
        )
        got = yield from collect(close=Close(goal=self.buffer_size), version=version, discount=self.discount)
        in_flight = state.in_flight + len(dispatched.tickets) - len(got.counted) - len(got.dropped)
        if not got.counted:
            return Buffered(params, version, in_flight)
        total = got["update"]
        step = rate(self.server_lr, version) * total.weight / total.count
        return Buffered(add_scaled(params, step, total.values), version + 1, in_flight)
