"""Measuring named metrics, where the rows are: at one party exactly, and at several from sums."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hanse.core import (
    Array,
    Contribution,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Learner,
    Memory,
    Part,
    PartSpec,
    PartyId,
    Program,
    Reducer,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Transform,
    Work,
    gather,
    value,
)
from hanse.core import sum as sum_
from hanse.core.exchange import Evaluate
from hanse.evaluation.metrics import UNDEFINED, Metric, ScoredRows, Statistic, score_rows

__all__ = [
    "Measured",
    "conclude_metric",
    "evaluate_metrics",
    "find_width",
    "list_statistics",
    "make_evaluation",
    "name_values",
    "score",
]

ERROR = "_error"
"""The end of the name under which records hold by how much a metric may be wrong."""


@dataclass(frozen=True)
class Measured:
    """A metric, measured.

    Args:
      metric: what was measured.
      value: UNDEFINED where the examples do not define it.
      constant: the same of a constant predictor: of the classes' shares, or of the mean.
      error: by how much the value may be wrong at most, if it was computed from counts in bins; None: it was
        not.
      table: the metric where it is no number.
    """

    metric: Metric
    value: float
    constant: float
    error: float | None = None
    table: Array | None = None


def score(learner: Learner, params: Tensors, data: Examples, found: Array | None = None) -> ScoredRows:
    """Predicts the labels of examples, and joins both.

    Args:
      found: what the model predicts of them, if that is known.
    Raises: InvalidInput: if the labels do not fit what the model predicts.
    """
    predicted = learner.predict(params, data.x) if found is None else found
    return score_rows(data.y, predicted, kind=learner.prediction)


def list_statistics(metrics: Iterable[Metric]) -> dict[str, Statistic]:
    """Lists the sums that metrics need together, by name."""
    return {one.name: one for metric in metrics for one in metric.list_sums()}


@value
class evaluate_metrics(Work[Learner, Examples]):
    """Sums the learner's own metrics over the party's examples, and what named metrics need; emits "metrics".

    Args:
      metrics: the named metrics.
      is_alone: whether no other party measures: then the metrics are computed exactly, and leave the party as
        numbers; otherwise their sums do.
    """

    metrics: tuple[Metric, ...] = ()
    is_alone: bool = False

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        sums: dict[str, Any] = dict(learner.evaluate(shared["params"], data))
        rows = score(learner, shared["params"], data)
        sums |= {name: one.sum(rows) for name, one in list_statistics(self._list_terms()).items()}
        if self.is_alone:
            numbers = [one for one in self.metrics if one.is_number]
            sums |= {one.key: _pack(one.measure(rows), one.measure_constant(rows)) for one in numbers}
        return {"metrics": Part({name: np.asarray(v, np.float64) for name, v in sums.items()})}, memory

    def _list_terms(self) -> list[Metric]:
        """Lists the metrics of which sums are sent."""
        return [one for one in self.metrics if not (self.is_alone and one.is_number)]

    def list_shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        """Lists the arrays that it sends beside the learner's own metrics."""
        sums = list_statistics(self._list_terms())
        exact = {one.key: (2, 2) for one in self.metrics if self.is_alone and one.is_number}
        return {name: one.find_shape(width) for name, one in sums.items()} | exact


def _pack(*numbers: float) -> Array:
    """Writes numbers beside whether each is defined: what is sent has to be finite."""
    return np.array([[number if math.isfinite(number) else 0.0, math.isfinite(number)] for number in numbers])


def _unpack(pairs: Array) -> list[float]:
    return [float(number) if is_defined else UNDEFINED for number, is_defined in pairs]


def make_evaluation(
    learner: Learner,
    parties: tuple[PartyId, ...],
    metrics: Sequence[Metric],
    *,
    width: int,
    into: Reducer[Any] = sum_(),
    uplink: tuple[Transform, ...] = (),
    keep: list[Measured] | None = None,
) -> Evaluate:
    """Makes a program that measures parameters over the examples of parties: own metrics and named ones.

    A single party computes named metrics exactly. Several send sums; metrics of ranks then come from counts
    of scores in bins, and each has beside it, as `NAME_error`, by how much it may be wrong at most.

    Args:
      width: the number of classes, or of numbers in a row.
      into: adds up what parties send.
      uplink: transforms that it passes on its way.
      keep: holds the last metrics, also those that are no single number, with their constant predictor's.
    """
    is_alone = len(parties) == 1
    work = evaluate_metrics(tuple(metrics), is_alone)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*learner.metrics, "count"), ())
    shapes |= work.list_shapes(width)
    part_spec = PartSpec(
        Spec({name: TensorSpec(shape, "float64") for name, shape in shapes.items()}), uplink, into=into
    )

    def measure(params: Tensors, key: Key) -> Program[dict[str, float]]:
        got = yield from gather(work, parties, {"params": params}, key, metrics=part_spec)
        totals = {name: np.asarray(total) for name, total in got["metrics"].values.items()}
        own = {name: float(totals[name]) for name in (*learner.metrics, "count")}
        found = [_conclude_metric(one, totals, is_alone) for one in metrics]
        if keep is not None:
            keep[:] = found
        measured = learner.summarise(own)
        return {**measured, **{k: v for k, v in name_values(found).items() if k not in measured}}

    return measure


def _conclude_metric(metric: Metric, totals: Mapping[str, Array], is_alone: bool) -> Measured:
    if is_alone and metric.is_number:
        found, constant = _unpack(totals[metric.key])
        return Measured(metric, found, constant)
    return conclude_metric(metric, totals)


def conclude_metric(metric: Metric, sums: Mapping[str, Array]) -> Measured:
    """Computes a metric from sums over parties, beside a constant predictor's."""
    found, error = metric.conclude(sums)
    constant, table = metric.conclude_constant(sums), metric.find_table(sums)
    return Measured(metric, found, constant, error if metric.is_binned else None, table)


def name_values(found: Iterable[Measured]) -> dict[str, float]:
    """Returns what records hold of metrics: those that are numbers, and their errors if they have some."""
    named: dict[str, float] = {}
    for one in found:
        if one.metric.is_number:
            named[one.metric.key] = one.value
            if one.error is not None:
                named[one.metric.key + ERROR] = one.error
    return named


def find_width(learner: Learner, params: Tensors, feature_shape: tuple[int, ...]) -> int:
    """Returns the number of classes that a model predicts, tried on a row of zeros.

    Raises: InvalidInput: if it predicts none from such a row.
    """
    for dtype in (np.float32, np.int64):
        try:
            return int(learner.predict(params, np.zeros((1, *feature_shape), dtype)).shape[-1])
        except InvalidInput as error:
            wrong = error
    raise wrong
