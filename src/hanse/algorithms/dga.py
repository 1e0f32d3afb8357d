"""Delayed gradient averaging: clients go on computing while their gradients are under way.

Zhu, Lin, Lu, Lin, Han, "Delayed gradient averaging: Tolerate the communication latency for federated
learning", NeurIPS 2021, Algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from hanse.algorithms.schedules import Rate, check_rate, rate
from hanse.algorithms.works import Weighting, by_examples, draw_batch
from hanse.core import (
    Algorithm,
    Close,
    CompositionError,
    Contribution,
    DifferentiableLearner,
    Examples,
    InvalidInput,
    Key,
    Keys,
    LocalProblem,
    Memory,
    Part,
    PartSpec,
    PartyId,
    Program,
    Reducer,
    RoundAbandoned,
    Shared,
    Spec,
    Steps,
    Tensors,
    Transform,
    Work,
    add,
    add_scaled,
    check_count,
    collect,
    dispatch,
    mean,
    scale,
    value,
)
from hanse.core.exchange import Sample, Sampled

__all__ = ["dga"]

OWN = "own/"
"""The beginning of the names in memory of a client's own updates, which end with the number of their step."""


@value
class delayed_gradient(Work[DifferentiableLearner, Examples]):
    """Computes gradients ahead of the server's model, and emits their sum as "gradient".

    The client stands at the broadcast "params" plus its own updates of the steps that are not in them yet.

    Args:
      step: its number.
      first_pending: the first step whose mean is not in "params".
      lr: step size.
      num_steps: local steps, K.
      batch_size: examples of each; None: all of the client's.
      weighting: how much the client counts.
    """

    step: int
    first_pending: int
    lr: float
    num_steps: int
    batch_size: int | None
    weighting: Weighting

    def _steps(self) -> Steps:
        return Steps(self.lr, batch_size=self.batch_size, num_steps=self.num_steps)

    def cost(self, num_examples: int) -> float:
        return self._steps().count_visits(num_examples)

    def run(
        self, learner: DifferentiableLearner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        kept = {name: own for name, own in memory.items() if not name.startswith(OWN)}
        pending = {
            step: memory[f"{OWN}{step}"]
            for step in range(self.first_pending, self.step)
            if f"{OWN}{step}" in memory
        }
        here = shared["params"]
        for own in pending.values():
            here = add(here, own)
        if self.num_steps == 1:
            gradient = learner.gradient(here, draw_batch(data, self.batch_size, keys.public))
            update: Tensors = scale(gradient, -self.lr)
        else:
            update = learner.local_sgd(here, LocalProblem(data, self._steps(), keys.public))
            gradient = scale(update, -1.0 / self.lr)
        pending[self.step] = update
        own_updates = {f"{OWN}{step}": own for step, own in pending.items()}
        return {"gradient": Part(gradient, self.weighting.of(len(data)))}, {**kept, **own_updates}


@value
class Delayed:
    """The model, without the steps that are still under way.

    Args:
      params: the model after all steps before the first that is in flight.
      num_steps: the number of steps that were begun.
      in_flight: by step, oldest first: each party's open ticket.
      num_asked: by step in flight, the number of parties that were asked.
      answered: the fraction of the parties asked that were counted in the last mean; None: there was none.
    """

    params: Tensors
    num_steps: int = 0
    in_flight: Mapping[int, Mapping[PartyId, int]] = field(default_factory=dict)
    num_asked: Mapping[int, int] = field(default_factory=dict)
    answered: float | None = None


@value
class dga(Algorithm[Delayed]):
    """Each client steps along its own gradient at once, and replaces it by the mean when that arrives.

        w_i <- w_i - lr (g_i(t) - g_i(t-D) + mean(t-D));   for t < D: w_i <- w_i - lr g_i(t)

    So the clients' models differ only by their last D gradients, and the latency of D steps is hidden behind
    computation. The server keeps the part that all agree on, W = w_0 - lr sum_(s < t-D) mean(s), and each
    client adds its own last D updates to it. After the last round the server waits for the means under way.
    With delay 0 and one step on all examples it is `fed_sgd`, to the bit. Converges to the optimum of the
    weighted objective in as many steps as `fed_sgd`, in the paper's theory for small lr; with several local
    steps it ends near it, as `fed_avg` does.

    A client that drops out loses the tickets that it built on the lost one. It starts again from W. A step
    that too few have answered changes nothing: those who did start again from W, too; with delay 0 the round
    is abandoned. Records "answered", the fraction of the clients that are in the mean.

    Args:
      lr: step size: a number or a schedule, which counts steps.
      delay: D, in steps: about round trip / time of a step. 0: none.
      num_steps: K, local steps between two exchanges.
      batch_size: examples of each; None: all of a client's.
      weighting: `by_examples()` or `uniform()`.
      uplink: transforms of the gradients, first to last.
      downlink: transforms of the broadcast; clients receive the difference to what they hold.
      into: the reducer.
      close: when the mean of a step closes. Its fraction is one of the clients still under way.
    """

    lr: Rate = 0.1
    delay: int = 5
    num_steps: int = 1
    batch_size: int | None = None
    weighting: Weighting = by_examples()
    uplink: tuple[Transform, ...] = ()
    downlink: tuple[Transform, ...] = ()
    into: Reducer[Any] = mean()
    close: Close = Close()

    def __post_init__(self) -> None:
        check_rate("lr", self.lr)
        check_count("num_steps", self.num_steps)
        Steps(1.0, batch_size=self.batch_size)
        if self.delay < 0:
            raise InvalidInput(f"delay is {self.delay}; write a number of steps, at least 0")
        if self.into.hides:
            raise CompositionError(
                f"{self.into} needs further exchanges before the next step, and dga() waits for none: use "
                "fed_sgd(), or a reducer that sees contributions"
            )

    def init(self, params: Tensors, key: Key) -> Delayed:
        return Delayed(params)

    def round(self, state: Delayed, key: Key) -> Program[Delayed]:
        begun = yield from self._begin(state, key)
        if len(begun.in_flight) <= self.delay:
            return begun
        return (yield from self._take_oldest(begun))

    def finish(self, state: Delayed, key: Key) -> Program[Delayed] | None:
        return self._drain(state) if state.in_flight else None

    def metrics(self, state: Delayed) -> Mapping[str, float]:
        return {} if state.answered is None else {"answered": state.answered}

    def _drain(self, state: Delayed) -> Program[Delayed]:
        while state.in_flight:
            state = yield from self._take_oldest(state)
        return state

    def _begin(self, state: Delayed, key: Key) -> Program[Delayed]:
        """Sends what all agree on to everybody, for the next step."""
        step = state.num_steps
        free = yield Sample(key, fraction=1.0)
        assert isinstance(free, Sampled)
        busy = [party for tickets in state.in_flight.values() for party in tickets]
        cohort = tuple(dict.fromkeys([*free.cohort, *busy]))
        if not cohort:
            raise RoundAbandoned(f"none of {free.num_clients} clients is free")
        first_pending = next(iter(state.in_flight), step)
        work = delayed_gradient(
            step, first_pending, rate(self.lr, step), self.num_steps, self.batch_size, self.weighting
        )
        dispatched = yield from dispatch(
            work,
            cohort,
            {"params": state.params},
            key,
            version=step,
            downlink=self.downlink,
            gradient=PartSpec(Spec.of(state.params), self.uplink, self.into),
        )
        tickets = dict(zip(cohort, dispatched.tickets, strict=True))
        return replace(
            state,
            num_steps=step + 1,
            in_flight={**state.in_flight, step: tickets},
            num_asked={**state.num_asked, step: len(tickets)},
        )

    def _take_oldest(self, state: Delayed) -> Program[Delayed]:
        """Waits for the mean of the oldest step in flight, and steps along it."""
        step, tickets = next(iter(state.in_flight.items()))
        got = yield from collect(tuple(tickets.values()), close=self.close)
        dropped = {drop.ticket for drop in got.dropped}
        later = {n: asked for n, asked in state.in_flight.items() if n != step}
        left = {n: {p: own for p, own in asked.items() if own not in dropped} for n, asked in later.items()}
        after = replace(
            state,
            in_flight={n: asked for n, asked in left.items() if asked},
            num_asked={n: state.num_asked[n] for n, asked in left.items() if asked},
            answered=len(got.counted) / state.num_asked[step],
        )
        if got.abandoned is not None:
            if self.delay == 0:
                reasons = tuple(drop.reason for drop in got.dropped)
                raise RoundAbandoned(got.abandoned, reasons, waits=self.close.wait_s is not None)
            return after
        params = add_scaled(state.params, -rate(self.lr, step), got["gradient"].values)
        return replace(after, params=params)
