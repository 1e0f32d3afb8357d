"""The measures of an experiment: which metrics there are, which of them a run watches, and where."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from hanse.algorithms import OBJECTIVE
from hanse.config import Experiment
from hanse.core import (
    Algorithm,
    DifferentiableLearner,
    InvalidInput,
    Key,
    Learner,
    Prediction,
    Program,
    Stop,
    Tensors,
)
from hanse.core.exchange import (
    HIGHER_IS_BETTER,
    OF_VALIDATION,
    Evaluate,
    find_classes,
)
from hanse.evaluation import Metric
from hanse.runs.adversary import OF_MARKED

__all__ = ["choose_stop", "join_measures", "list_higher"]


def join_measures(measure: Evaluate, more: Mapping[str, tuple[str, Evaluate]]) -> Evaluate:
    """Joins measures of a model to one.

    Args:
      more: further ones by the name of their draws, each with a prefix for the names of its metrics.
    """

    def measure_all(params: Tensors, key: Key) -> Program[Mapping[str, float]]:
        metrics = dict((yield from measure(params, key)))
        for name, (prefix, also) in more.items():
            found = yield from also(params, key.fold_in(name))
            metrics |= {prefix + metric: number for metric, number in found.items()}
        return metrics

    return measure_all if more else measure


def list_higher(
    algorithm: Algorithm[Any], learner: Learner, metrics: Sequence[Metric] = ()
) -> frozenset[str]:
    """Lists the names of metrics that are better when higher: well-known ones, and what these declare."""
    named = frozenset(one.key for one in metrics if one.is_higher_better)
    return HIGHER_IS_BETTER | learner.higher_is_better | algorithm.higher_is_better | named


def choose_stop(
    experiment: Experiment,
    learner: Learner,
    has_validation: bool,
    validates: bool,
    metrics: Sequence[Metric] = (),
) -> Stop:
    """Returns the experiment's stop, which watches a metric that is measured, and knows which way is better.

    Args:
      has_validation: whether the model is measured on validation examples.
      validates: whether training does not use these, so that they are watched unless the stop names them.
      metrics: the named metrics, beside the model's own.

    Raises: InvalidInput: if the metric that it names is not measured.
    """
    stop, measured = experiment.stop, list(experiment.algorithm.measured or learner.measured)
    measured += [one.key for one in metrics if one.is_number and one.key not in measured]
    if isinstance(learner, DifferentiableLearner) and not experiment.algorithm.measured:
        measured.append(OBJECTIVE)
    if stop == Stop() and stop.metric not in measured:
        stop = replace(stop, metric=measured[0])
    if has_validation:
        on_validation = [OF_VALIDATION + name for name in measured if name != OBJECTIVE]
        if validates and OF_VALIDATION + stop.metric in on_validation:  # the test set is only reported
            stop = replace(stop, metric=OF_VALIDATION + stop.metric)
        measured = [*measured, *on_validation]
    elif stop.metric.removeprefix(OF_VALIDATION) in measured and stop.metric not in measured:
        raise InvalidInput(
            f"stop: metric is {stop.metric!r}, and the data have no validation examples; hold some out, "
            f"data.validation_fraction = 0.1, or write one of {', '.join(measured)}"
        )
    if stop.metric.startswith(OF_MARKED):
        raise InvalidInput(
            f"stop: metric is {stop.metric!r}, the success of an attack, which no server knows; "
            f"write one of {', '.join(measured)}"
        )
    if stop.metric not in measured:
        who = experiment.algorithm if experiment.algorithm.measured else experiment.model
        near = "" if experiment.algorithm.measured else _add_near(stop.metric, learner.prediction)
        raise InvalidInput(
            f"stop: metric is {stop.metric!r}, which {type(who).__name__} does not measure; "
            f"write one of {', '.join(measured)}{near}"
        )
    metric = stop.metric.removeprefix(OF_VALIDATION)
    declared = metric in list_higher(experiment.algorithm, learner, metrics) - HIGHER_IS_BETTER
    return replace(stop, higher_is_better=True) if declared and stop.higher_is_better is None else stop


def _add_near(metric: str, kind: Prediction) -> str:
    """Returns what to add to a list of metrics: the nearest named ones that suit what a model predicts."""
    name = metric.removeprefix(OF_VALIDATION).partition("(")[0]
    near = get_close_matches(
        name, [known for known, cls in find_classes(Metric).items() if kind in cls.kinds]
    )
    return f"; or did you mean {' or '.join(near)}?" if near else ""
