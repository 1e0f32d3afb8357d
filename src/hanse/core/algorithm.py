"""Algorithms, and the program that runs one from round to round."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import field, replace
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from hanse.core.errors import Diverged, InvalidInput, RoundAbandoned, Stalled
from hanse.core.keys import Key
from hanse.core.program import NOT_EVALUATED, Collected, Program, Sample, commit
from hanse.core.tensors import Tensors, all_finite
from hanse.core.values import value
from hanse.core.work import PartyId

__all__ = [
    "HIGHER_IS_BETTER",
    "OF_VALIDATION",
    "TRAINING",
    "Algorithm",
    "Evaluate",
    "ModelState",
    "Progress",
    "Stop",
    "choose_measure",
    "is_higher_better",
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

    measured: ClassVar[tuple[str, ...]] = ()
    """The names of what `measure` returns, the one to watch by default first. Empty: the model's metrics
    are measured, on the parameters."""

    higher_is_better: ClassVar[frozenset[str]] = frozenset()
    """The names of its metrics that are better when higher, beside those of `HIGHER_IS_BETTER`."""
    remedy: ClassVar[str] = "write a smaller step size (lr)"
    """The advice where its loss grows, as an imperative."""

    @abstractmethod
    def init(self, params: Tensors, key: Key) -> S:
        """Returns the state before the first round. It has an attribute `params`."""

    @abstractmethod
    def round(self, state: S, key: Key) -> Program[S]:
        """Performs one round: yields commands, receives events, returns the next state.

        Draws only from `key`, which is fresh in each round. If too few clients answer an exchange,
        RoundAbandoned passes through it, and the next round starts from the same state.
        """

    def measure(self, state: S, key: Key) -> Program[Mapping[str, float]] | None:
        """Measures the state, where there are no single parameters to evaluate, such as with private heads.

        Returns: a program that returns the metrics named in `measured`. None: the parameters are evaluated.
        """
        return None

    def metrics(self, state: S) -> Mapping[str, float]:
        """Returns what the state itself tells, such as staleness; it is recorded with each round."""
        return {}

    def finish(self, state: S, key: Key) -> Program[S] | None:
        """Completes training after the last round, such as by collecting what is still in flight.

        It is performed once, also after an early stop, and recorded as one more round. A run that is
        interrupted or diverges does not finish; one that goes on later continues from the finished state.

        Returns: a program that returns the last state. None: there is nothing to do.
        """
        return None


HIGHER_IS_BETTER = frozenset({"accuracy", "auc", "concordance", "f1", "precision", "r2", "recall"})
"""The names of metrics that are known to be better when higher. Learners and algorithms add theirs."""


def is_higher_better(metric: str, higher: Collection[str] = HIGHER_IS_BETTER) -> bool:
    """Returns whether a metric is better when higher, given the names of those that are.

    >>> is_higher_better("accuracy"), is_higher_better("train_accuracy"), is_higher_better("loss")
    (True, True, False)
    """
    return metric.removeprefix(OF_TRAINING).removeprefix(OF_VALIDATION) in higher


@value
class Stop:
    """The conditions under which a run ends before its last round.

    Args:
      metric: the watched metric, on the validation examples where there are some. "objective" is the clients'
        mean loss over their training examples, plus the regulariser. It is measured only if it is named here,
        and then all clients have to answer.
      target: stop once it is this good.
      patience: stop after this many evaluations in a row without a new best.
      higher_is_better: whether a higher metric is better; None: as the model or the algorithm says, and for
        well-known names such as "accuracy", "auc", "f1" or "r2".
    """

    metric: str = "accuracy"
    target: float | None = None
    patience: int | None = None
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise InvalidInput(f"patience is {self.patience}; write at least 1 evaluation")

    def better(self, new: float, old: float) -> bool:
        """Returns whether `new` is better than `old`."""
        higher = self.higher_is_better
        if higher is None:
            higher = is_higher_better(self.metric)
        return new > old if higher else new < old

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
      finished: whether the algorithm's `finish` was performed, as the last of these rounds.
      attempts: how often the next round was attempted in vain; each attempt draws anew.
      convicted: the parties that no round samples any more; see `RoundAbandoned`.
    """

    round: int
    state: S
    first: Mapping[str, float] = field(default_factory=dict)
    best: tuple[float, int] | None = None
    num_worse: int = 0
    target_round: int | None = None
    stopped: str | None = None
    finished: bool = False
    attempts: int = 0
    convicted: tuple[PartyId, ...] = ()


Evaluate: TypeAlias = Callable[[Tensors, Key], Program[Mapping[str, float]]]
"""A program that measures parameters."""

Measure: TypeAlias = Callable[[S, Key], Program[Mapping[str, float]]]
"""A program that measures an algorithm's state."""

TRAINING = "training"
"""The part in which clients send what they measured while they trained."""

OF_VALIDATION = "validation_"
"""The beginning of the names of metrics on the examples to choose by, beside those on the test set."""

OF_TRAINING = "train_"
"""The beginning of the names of metrics that clients measured while they trained."""


def is_of_training(metric: str) -> bool:
    """Returns whether clients measured a metric while they trained, and not on the round's model."""
    return metric.startswith(OF_TRAINING)


BLOWN_UP = 1000.0
"""A loss that exceeds the initial one by this factor does not recover."""

MAX_ATTEMPTS = 3
"""The number of attempts in a row, at a round that waits for its parties, after which a run stalls."""


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
    """Runs an algorithm from `progress` to its last round, and finishes it; each round ends in a Commit.

    The state is measured before the first round, every `evaluate_every` rounds, and at the end: by the
    algorithm's own `measure`, or else by `evaluate`. If that is None, nothing is measured.

    Raises:
      Diverged: if the loss or the parameters are not finite any more, or the loss exceeds the initial one a
        thousandfold.
      InvalidInput: if the algorithm reports a metric under the name of one that is measured.
      Stalled: if a round that waits for its parties (`Close.wait_s`) was abandoned three times in a row. It
        is attempted again if the run is led on from there.
    """
    if evaluate_every < 1:
        raise InvalidInput(f"evaluate_every is {evaluate_every}; write at least 1 round")
    measure = None if evaluate is None else choose_measure(algorithm, evaluate)
    if progress.round == 0 and measure is not None and not progress.first:
        metrics = yield from measure(progress.state, key.fold_in("evaluate", 0))
        progress = yield from _close(algorithm, progress, metrics, {}, None, stop)
    while progress.round < rounds and progress.stopped is None:
        number = progress.round + 1
        is_measured = number % evaluate_every == 0 or number == rounds
        due = measure if is_measured else None
        progress = yield from _perform(algorithm, "round", number, progress, due, key, stop)
    last = progress.round
    is_unfinished = last > 0 and not progress.finished
    if is_unfinished and algorithm.finish(progress.state, key.fold_in("finish", last)) is not None:
        progress = yield from _perform(algorithm, "finish", last, progress, measure, key, stop)
    return progress


def choose_measure(algorithm: Algorithm[S], evaluate: Evaluate) -> "Measure[S]":
    """Returns the program that measures an algorithm's state: its own, or the evaluation of `params`."""

    def measure(state: S, key: Key) -> Program[Mapping[str, float]]:
        return algorithm.measure(state, key) or evaluate(state.params, key)

    return measure


def _perform(
    algorithm: Algorithm[S],
    part: Literal["round", "finish"],
    path: int,
    progress: Progress[S],
    measure: Measure[S] | None,
    key: Key,
    stop: Stop,
) -> Program[Progress[S]]:
    """Performs a round, or the finish, until it closes; measures what it leads to, and commits it.

    A measurement that is abandoned leaves the round as it was trained, and is not attempted again, even if it
    waits for its parties: the next one measures a later state.

    Args:
      path: the number that its draws are named by.
    """
    number, num_failed = progress.round + 1, 0
    metrics: Mapping[str, float] = {}
    trained, abandoned = dict[str, float](), None
    while True:
        attempt = ("attempt", progress.attempts) if progress.attempts else ()
        drawn = key.fold_in(part, path, *attempt)
        program = getattr(algorithm, part)(progress.state, drawn)
        try:
            state = yield from _watch(program, trained, progress.convicted)
            progress = replace(progress, state=state)
            break
        except RoundAbandoned as reason:
            abandoned = str(reason)
            trained.clear()
            new = tuple(party for party in reason.convicted if party not in progress.convicted)
            progress = replace(progress, convicted=(*progress.convicted, *new))
            if 2 * sum("not finite" in why for why in reason.dropped) > len(reason.dropped):
                failed = replace(progress, round=number)
                raise _explain_divergence(failed, abandoned, algorithm.remedy) from reason
            if not reason.waits:
                break
            progress, num_failed = replace(progress, attempts=progress.attempts + 1), num_failed + 1
            yield from commit(number, progress, {}, abandoned, again=True)
            if num_failed == MAX_ATTEMPTS:
                raise Stalled(f"round {number} was attempted {num_failed} times: {abandoned}") from reason
            abandoned = None
    progress = replace(progress, round=number, attempts=0, finished=part == "finish")
    if measure is not None:
        try:
            metrics = yield from measure(progress.state, key.fold_in("evaluate", number))
        except RoundAbandoned as reason:
            abandoned = abandoned or f"{NOT_EVALUATED}{reason}"
    return (yield from _close(algorithm, progress, metrics, trained, abandoned, stop))


def _close(
    algorithm: Algorithm[S],
    progress: Progress[S],
    metrics: Mapping[str, float],
    trained: Mapping[str, float],
    abandoned: str | None,
    stop: Stop,
) -> Program[Progress[S]]:
    """Judges and commits a round, by what was measured after it and while clients trained."""
    _check_finite(progress, metrics, algorithm.remedy)
    progress = _judge(progress, metrics, stop)
    reported = {name: float(metric) for name, metric in algorithm.metrics(progress.state).items()}
    taken = [name for name in reported if name in metrics or is_of_training(name)]
    if taken:
        raise InvalidInput(
            f"{type(algorithm).__name__} reports {', '.join(taken)} as its own metric, but that is a name of "
            "what is measured; write another name in its metrics()"
        )
    yield from commit(progress.round, progress, {**metrics, **trained}, abandoned, reported)
    return progress


def _watch(program: Program[S], measured: dict[str, float], convicted: tuple[PartyId, ...]) -> Program[S]:
    """Performs a round, and adds to `measured` what clients measured while they trained, as means.

    Args:
      convicted: parties that it does not sample.
    """
    try:
        command = next(program)
        while True:
            if convicted and isinstance(command, Sample):
                command = replace(command, without=(*command.without, *convicted))
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


def _explain_divergence(progress: Progress[Any], why: str, remedy: str) -> Diverged:
    return Diverged(f"diverged in round {progress.round}: {why}; {remedy}")


def _check_finite(progress: Progress[Any], metrics: Mapping[str, float], remedy: str) -> None:
    loss, first = metrics.get("loss", 0.0), progress.first.get("loss", math.inf)
    if not all_finite(progress.state.params):
        why = "the parameters are not finite"
    elif not math.isfinite(loss) or (first > 0 and loss > BLOWN_UP * first):
        why = f"the loss is {loss:.6g}, it began at {first:.6g}"
    else:
        return
    raise _explain_divergence(progress, why, remedy)


def _judge(progress: Progress[S], metrics: Mapping[str, float], stop: Stop) -> Progress[S]:
    """Records the watched metric: the best so far, the target, patience."""
    if not progress.first:
        progress = replace(progress, first=metrics)
    new = metrics.get(stop.metric)
    if new is None or math.isnan(new):  # the examples do not define it
        return progress
    if progress.best is None or stop.better(new, progress.best[0]):
        progress = replace(progress, best=(new, progress.round), num_worse=0)
    else:
        progress = replace(progress, num_worse=progress.num_worse + 1)
    stopped = None
    if progress.target_round is None and stop.is_reached(new):
        progress = replace(progress, target_round=progress.round)
        stopped = f"{stop.metric} reached {stop.target:g}"
    elif stop.patience is not None and progress.num_worse >= stop.patience:
        stopped = f"no better {stop.metric} in {stop.patience} evaluations"
    if stopped is None or progress.finished:  # a finish ends the run anyway
        return progress
    return replace(progress, stopped=stopped)
