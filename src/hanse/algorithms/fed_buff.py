"""Buffered asynchronous aggregation.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba, "Federated learning with buffered asynchronous
aggregation", AISTATS 2022, arXiv 2106.06639, Algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from hanse.algorithms.client_optimisers import EPOCHS, LR, ClientTraining
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
from hanse.core.exchange import Collected

__all__ = ["Rest", "apply_rest", "drop_rest", "fed_buff"]


class Rest:
    """The treatment of updates that are still in flight after the last round: applied, or dropped."""


@value
class drop_rest(Rest):
    """Training ends with the last round; whatever arrives later counts for nothing, as in the paper."""


@value
class apply_rest(Rest):
    """Everything that is in flight is collected and applied, in buffers of K as before.

    An update counts as much in the last buffer as in any other: if that has k < K updates, its step is k/K
    times as long.
    """


@value
class Buffered:
    """The model, its version, and what is in flight.

    Args:
      params, version: the model and the number of server steps that led to it.
      in_flight: the number of tickets in flight.
      sent: the version that each of them started from, as far as an earlier version of Hanse kept it.
      staleness: the mean over the last buffer; None: there was none, or nobody knows.
    """

    params: Tensors
    version: int
    in_flight: int
    sent: Mapping[int, int] = field(default_factory=dict)
    staleness: float | None = None


@value
class fed_buff(Algorithm[Buffered]):
    """Clients train without waiting for each other; the server steps whenever `buffer_size` have answered.

        w <- w + server_lr * (1/K) sum_k (1 + staleness_k)^-1/2 (w_k - w_start,k)

    Converges to a neighbourhood of the optimum of the uniformly weighted objective, as FedAvg does, biased
    towards fast devices. Records "staleness", the mean over the buffer.

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
      rest: of the updates in flight after the last round: `drop_rest()` or `apply_rest()`.
    """

    lr: Rate = LR
    concurrency: int = 20
    buffer_size: int = 10
    epochs: int = EPOCHS
    batch_size: int | None = 10
    server_lr: Rate = 1.0
    discount: Discount = Discount()
    uplink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    downlink: tuple[Transform, ...] = ()
    client: ClientTraining | None = None
    rest: Rest = drop_rest()

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
        tickets = dispatched.tickets
        sent = {**state.sent, **dict.fromkeys(tickets, version)}
        got = yield from self._collect(version)
        return self._step(replace(state, in_flight=state.in_flight + len(tickets), sent=sent), got)

    def metrics(self, state: Buffered) -> Mapping[str, float]:
        return {} if state.staleness is None else {"staleness": state.staleness}

    def finish(self, state: Buffered, key: Key) -> Program[Buffered] | None:
        return self._apply_rest(state) if self.rest == apply_rest() and state.in_flight else None

    def _apply_rest(self, state: Buffered) -> Program[Buffered]:
        while state.in_flight:
            got = yield from self._collect(state.version)
            if not got.counted and not got.dropped:
                break
            state = self._step(state, got, min(1.0, len(got.counted) / self.buffer_size))
        return state

    def _collect(self, version: int) -> Program[Collected]:
        return collect(close=Close(goal=self.buffer_size), version=version, discount=self.discount)

    def _step(self, state: Buffered, got: Collected, share: float = 1.0) -> Buffered:
        """Steps along what was collected, by a share of the rate."""
        closed = {*got.counted, *(drop.ticket for drop in got.dropped)}
        late = [state.version - state.sent[ticket] for ticket in got.counted if ticket in state.sent]
        after = replace(
            state,
            in_flight=state.in_flight - len(closed),
            sent={ticket: version for ticket, version in state.sent.items() if ticket not in closed},
            staleness=sum(late) / len(late) if late and len(late) == len(got.counted) else None,
        )
        if not got.counted:
            return after
        total = got["update"]
        step = share * rate(self.server_lr, state.version) * total.weight / total.count
        params = add_scaled(state.params, step, total.values)
        return replace(after, params=params, version=state.version + 1)
