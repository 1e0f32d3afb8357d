"""The assessment of a final model: metrics beside those of a constant predictor, with intervals by party."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hanse.core import Array, Examples, Key, Learner, Plain, Tensors
from hanse.evaluation.formats import as_number
from hanse.evaluation.measuring import Measured, conclude_metric, list_statistics, score
from hanse.evaluation.metrics import MOST_CLASSES, Metric, confusion_matrix

__all__ = [
    "FEWEST_PARTIES",
    "assess_at_parties",
    "assess_pooled",
    "describe_assessment",
    "describe_intervals",
    "describe_metrics",
    "find_intervals",
    "tabulate_confusion",
    "tabulate_metrics",
    "tell_clients",
]

LEVEL = 0.95
"""The share of resampled metrics that lie in an interval."""

FEWEST_PARTIES = 10
"""The fewest parties of an interval: of 3 drawn with replacement, it would miss the truth in 26% of cases."""

FEWEST_DEFINED = 0.5
"""With a smaller share of resamples in which a metric is defined, it has no interval."""


def assess_pooled(
    learner: Learner,
    params: Tensors,
    data: Examples,
    metrics: Sequence[Metric],
    on: str,
    *,
    predicted: Array | None = None,
) -> dict[str, Any]:
    """Measures a model on examples in one place, exactly, beside a constant predictor.

    `predicted`: what the model predicts of them, if that is known.
    """
    rows = score(learner, params, data, predicted)
    found = [
        Measured(one, one.measure(rows), one.measure_constant(rows))
        if one.is_number
        else conclude_metric(one, one.add_up(rows))
        for one in metrics
    ]
    return describe_metrics(found, on, num_examples=len(data))


def assess_at_parties(
    learner: Learner,
    params: Tensors,
    parties: Sequence[Examples],
    metrics: Sequence[Metric],
    on: str,
    *,
    key: Key,
    resamples: int,
    predicted: Sequence[Array | None] | None = None,
) -> dict[str, Any]:
    """Measures a model from sums over parties, as they do without pooling rows, with intervals by party.

    An interval holds the middle 95% of the metric over resamples: each draws as many parties as there are,
    with replacement, and adds up their sums. So it says how much the metric owes to which parties there are.

    Args:
      resamples: the number of draws; 0: no intervals.
      predicted: what the model predicts of each party's examples, as far as that is known.
    """
    known = [None] * len(parties) if predicted is None else predicted
    statistics = list_statistics(metrics)
    each = [
        {name: one.sum(rows) for name, one in statistics.items()}
        for rows in (score(learner, params, *pair) for pair in zip(parties, known, strict=True))
    ]
    totals = {name: sum((one[name] for one in each[1:]), each[0][name]) for name in statistics}
    found = [conclude_metric(one, totals) for one in metrics]
    num_examples = sum(len(data) for data in parties)
    told = describe_metrics(found, on, num_examples=num_examples, num_parties=len(parties))
    if resamples and len(parties) >= FEWEST_PARTIES:
        intervals = find_intervals(each, metrics, key, resamples)
        for name, interval in intervals.items():
            told["metrics"][name] |= interval
        told["intervals"] = describe_intervals(resamples)
    return told


def describe_intervals(resamples: int) -> dict[str, Plain]:
    """Describes how intervals were computed."""
    return {"level": LEVEL, "resamples": resamples, "of": "parties, drawn with replacement; percentiles"}


def find_intervals(
    each: Sequence[Mapping[str, Array]], metrics: Sequence[Metric], key: Key, resamples: int
) -> dict[str, dict[str, Plain]]:
    """Computes intervals of metrics from the sums of each party, by drawing parties with replacement.

    Returns: for each metric its "low" and "high"; None: it is defined in fewer than half of the draws.
    """
    rng, count = key.rng(), len(each)
    found: dict[str, list[float]] = {one.key: [] for one in metrics if one.is_number}
    stacked = {name: np.stack([one[name] for one in each]) for name in each[0]}
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        sums = {name: np.tensordot(times, parts, 1) for name, parts in stacked.items()}
        for one in metrics:
            if one.is_number:
                found[one.key].append(one.conclude(sums)[0])
    return {name: _take_percentiles(values) for name, values in found.items()}


def _take_percentiles(values: Sequence[float]) -> dict[str, Plain]:
    defined = [one for one in values if not math.isnan(one)]
    if len(defined) < FEWEST_DEFINED * len(values):
        return {"low": None, "high": None}
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {"low": low, "high": high}


def tell_clients(settings: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields a line about the final model's metric at clients, if they were measured."""
    spread = result.get("clients")
    if spread:
        watched = settings["stop"]["metric"]
        name = watched if watched in spread["mean"] else next(iter(spread["mean"]))
        mean, worst = (as_number(spread[word].get(name), "") for word in ("mean", "worst_tenth"))
        yield "clients", f"{name} {mean} on average, {worst} in the worst tenth, on {spread['on']}"


def describe_assessment(told: Mapping[str, Any]) -> str:
    """Returns a sentence on how the metrics of an assessment were measured, and what is beside them."""
    count = "" if told["num_examples"] is None else f", {told['num_examples']:,} examples"
    on = told["on"].replace("their", "the clients'")
    return (
        f"The final model on {on}{count}, computed {told['computed']}. A constant predictor knows "
        "how often each class occurs there, or the mean, and nothing of a row."
    )


def tabulate_metrics(told: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Makes heads and cells of the table of an assessment: each metric beside a constant predictor's.

    >>> error = {"value": 0.8728, "constant": 0.5, "error": 0.0002, "higher_is_better": True}
    >>> tabulate_metrics({"metrics": {"auroc": error}})[1]
    [['auroc', '0.8728 ± 0.0002', '0.5000', 'higher']]
    """
    share = [f"{100 * told['intervals']['level']:.0f}% over parties"] if "intervals" in told else []
    rows = []
    for name, one in told["metrics"].items():
        ends = [as_number(one[end]) for end in ("low", "high") if one.get(end) is not None]
        interval = [" to ".join(ends) or "–"] if share else []
        error = f" ± {one['error']:.2g}" if one["error"] and one["value"] is not None else ""
        cells = [as_number(one["value"], "undefined") + error, as_number(one["constant"])]
        rows.append([name, *cells, *interval, "higher" if one["higher_is_better"] else "lower"])
    return ["metric", "model", "constant predictor", *share, "better when"], rows


def tabulate_confusion(
    told: Mapping[str, Any], classes: Sequence[str] = (), most: int = MOST_CLASSES
) -> tuple[list[str], list[list[str]]] | None:
    """Makes heads and cells of the confusion matrix: a row for each true class, a column for each predicted.

    >>> tabulate_confusion({"confusion_matrix": [[5.0, 1.0], [0.0, 2.5]]}, ("no", "yes"))
    (['true class', 'no', 'yes'], [['no', '5', '1'], ['yes', '0', '2.5']])

    Args:
      told: an assessment.
      classes: their names; empty: they are numbered.
      most: the most classes of a table.
    Returns: None: it was not measured, or has more classes.
    """
    counts = told.get(confusion_matrix().key)
    if not counts or len(counts) > most:
        return None
    names = classes if len(classes) == len(counts) else [str(number) for number in range(len(counts))]
    rows = [[name, *(f"{count:,.6g}" for count in row)] for name, row in zip(names, counts, strict=True)]
    return ["true class", *names], rows


def describe_metrics(
    found: Sequence[Measured],
    on: str,
    *,
    num_examples: int | None = None,
    num_parties: int = 1,
) -> dict[str, Any]:
    """Describes metrics as plain data. None stands for what is undefined, or not known.

    Args:
      on: the examples that they were measured on.
      num_examples: how many there are; None: nobody knows.
      num_parties: the parties that measured; 1: exactly, in one place.
    """
    return {
        "on": on,
        "num_examples": num_examples,
        "num_parties": num_parties,
        "computed": "exactly" if num_parties == 1 else "from sums over parties",
        "metrics": {
            one.metric.key: {
                "value": _keep_finite(one.value),
                "constant": _keep_finite(one.constant),
                "error": _keep_finite(one.error or 0.0),
                "higher_is_better": one.metric.is_higher_better,
            }
            for one in found
            if one.metric.is_number
        },
        **{one.metric.key: one.table.tolist() for one in found if one.table is not None},
    }


def _keep_finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
