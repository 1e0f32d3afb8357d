"""Algorithms, and the program that runs one from round to round."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from hanse.core.errors import Diverged, InvalidInput, RoundAbandoned
from hanse.core.keys import Key
from hanse.core.program import Collected, Program, commit
from hanse.core.tensors import Tensors, all_finite
from hanse.core.values import value

__all__ = [
    "NOT_EVALUATED",
    "TRAINING",
    "Algorithm",
    "Evaluate",
    "ModelState",
    "Progress",
    "Stop",
    "is_of_training",
    "training",
]


@value
class ModelState:
    """The state of algorithms that keep nothing but the model's parameters. Every state has `params`."""

    params: Tensors


S = TypeVar("S", bound=Any)


class Algorithm(ABC, Generic[S]):
    """A paper's algorithm: what happens in one round, as a program."""

    performed_by: ClassVar[Literal["server", "peer"]] = "server"
    """The party that performs it: one server for all, or each peer for itself."""

    @abstractmethod
    def init(self, params: Tensors, key: Key) -> S:
        """Returns the state before the first round. It has an attribute `params`."""

    @abstractmethod
    def round(self, state: S, key: Key) -> Program[S]:
        """Performs one round: yields commands, receives events, returns the next state.

        Draws only from `key`, which is fresh in each round. If too few clients answer an exchange,
        RoundAbandoned passes through it, and the next round starts from the same state.
        """


HIGHER_IS_BETTER = frozenset({"accuracy", "concordance"})


@value
class Stop:
    """The conditions under which a run ends before its last round.

    Args:
      metric: the watched metric; "accuracy" and "concordance" are better when higher, all others when
        lower. "objective" is the clients' mean loss over their training examples, plus the regulariser. It
        is measured only if it is named here, and then all clients have to answer.
      target: stop once it is this good.
      patience: stop after this many evaluations in a row without a new best.
    """

    metric: str = "accuracy"
    target: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise InvalidInput(f"patience is {self.patience}; write at least 1 evaluation")

    def better(self, new: float, old: float) -> bool:
        """Returns whether `new` is better than `old`."""
        return new > old if self.metric in HIGHER_IS_BETTER else new < old

    def is_reached(self, new: float) -> bool:
        """Returns whether the target is reached."""
        return self.target is not None and (new == self.target or self.better(new, self.target))


@value
class Progress(Generic[S]):
    """The state of a run between two rounds: all that is needed to continue it.

    Args:
      round: rounds done.
      state: the algorithm's state.
      first: the metrics before the first round.
      best: the best value of the watched metric and the round it came from.
      target_round: the first round that reached the target.
      stopped: why the run ended before its last round.
    """

    round: int
    state: S
    first: Mapping[str, float] = field(default_factory=dict)
    best: tuple[float, int] | None = None
    num_worse: int = 0
    target_round: int | None = None
    stopped: str | None = None


Evaluate: TypeAlias = Callable[[Tensors, Key], Program[Mapping[str, float]]]
"""A program that measures parameters."""

NOT_EVALUATED = "evaluation: "
"""The beginning of the reason why a round counts as abandoned that trained, but could not be measured."""

TRAINING = "training"
"""The part in which clients send what they measured while they trained."""

OF_TRAINING = "train_"
"""The beginning of the names of metrics that clients measured while they trained."""


def is_of_training(metric: str) -> bool:
    """Returns whether clients measured a metric while they trained, and not on the round's model."""
    return metric.startswith(OF_TRAINING)


BLOWN_UP = 1000.0
"""A loss that exceeds the initial one by this factor does not recover."""


def training(
    algorithm: Algorithm[S],
    progress: Progress[S],
    key: Key,
    *,
    rounds: int,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 1,
    stop: Stop = Stop(),
) -> Program[Progress[S]]:
    """Runs an algorithm from `progress` to its last round; each round ends in a Commit.

    The parameters are measured before the first round, every `evaluate_every` rounds, and at the end.

    Raises: Diverged: if the loss or the parameters are not finite any more, or the loss exceeds the
      initial one a thousandfold.
    """
    if evaluate_every < 1:
        raise InvalidInput(f"evaluate_every is {evaluate_every}; write at least 1 round")
    if progress.round == 0 and evaluate is not None and not progress.first:
        metrics = yield from evaluate(progress.state.params, key.fold_in("evaluate", 0))
        _check_finite(progress, metrics)
        progress = _judge(progress, metrics, stop)
        yield from commit(0, progress, metrics)
    while progress.round < rounds and progress.stopped is None:
        number = progress.round + 1
        metrics, measured, abandoned = {}, dict[str, float](), None
        try:
            state = yield from _watch(algorithm.round(progress.state, key.fold_in("round", number)), measured)
            progress = replace(progress, round=number, state=state)
        except RoundAbandoned as reason:
            abandoned = str(reason)
            measured.clear()
            progress = replace(progress, round=number)
            if 2 * sum("not finite" in why for why in reason.dropped) > len(reason.dropped):
                raise _explain_divergence(progress, abandoned) from reason
        if evaluate is not None and (number % evaluate_every == 0 or number == rounds):
            try:
                metrics = yield from evaluate(progress.state.params, key.fold_in("evaluate", number))
            except RoundAbandoned as reason:
                abandoned = abandoned or f"{NOT_EVALUATED}{reason}"
        _check_finite(progress, metrics)
        progress = _judge(progress, metrics, stop)
        yield from commit(number, progress, {**metrics, **measured}, abandoned)
    return progress


def _watch(program: Program[S], measured: dict[str, float]) -> Program[S]:
    """Performs a round, and adds to `measured` what clients measured while they trained, as means."""
    try:
        command = next(program)
        while True:
            event = yield command
            if isinstance(event, Collected) and event.counted and TRAINING in event.totals:
                means = event.totals[TRAINING].values
                measured.update({f"{OF_TRAINING}{name}": float(mean) for name, mean in means.items()})
            command = program.send(event)
    except StopIteration as end:
        state: S = end.value
        return state
    finally:
        program.close()


def _explain_divergence(progress: Progress[Any], why: str) -> Diverged:
    return Diverged(f"diverged in round {progress.round}: {why}; write a smaller step size (lr)")


def _check_finite(progress: Progress[Any], metrics: Mapping[str, float]) -> None:
    loss, first = metrics.get("loss", 0.0), progress.first.get("loss", math.inf)
    if not all_finite(progress.state.params):
        why = "the parameters are not finite"
    elif not math.isfinite(loss) or (first > 0 and loss > BLOWN_UP * first):
        why = f"the loss is {loss:.6g}, it began at {first:.6g}"
    else:
        return
    raise _explain_divergence(progress, why)


def _judge(progress: Progress[S], metrics: Mapping[str, float], stop: Stop) -> Progress[S]:
    """Records the watched metric: the best so far, the target, patience."""
    if not progress.first:
        progress = replace(progress, first=metrics)
    new = metrics.get(stop.metric)
    if new is None:
        return progress
    if progress.best is None or stop.better(new, progress.best[0]):
        progress = replace(progress, best=(new, progress.round), num_worse=0)
    else:
        progress = replace(progress, num_worse=progress.num_worse + 1)
    if progress.target_round is None and stop.is_reached(new):
        progress = replace(
            progress, target_round=progress.round, stopped=f"{stop.metric} reached {stop.target:g}"
        )
    elif stop.patience is not None and progress.num_worse >= stop.patience:
        progress = replace(progress, stopped=f"no better {stop.metric} in {stop.patience} evaluations")
    return progress
