"""Each party's row: the worth of models on its own test examples, and whether federation helped it."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from hanse.core import Array, Examples, Key, Learner, Plain, Tensors
from hanse.core.exchange import HIGHER_IS_BETTER, is_higher_better
from hanse.data import FederatedData, own_test
from hanse.evaluation.clients import measure_metrics
from hanse.evaluation.formats import as_number
from hanse.evaluation.metrics import Metric, score_rows

__all__ = [
    "HELPED",
    "HURT",
    "MIN_COUNT",
    "MOST_ROWS",
    "TRAINERS_OF_ROWS",
    "UNCLEAR",
    "PartyRows",
    "compare_marks",
    "describe_gain",
    "describe_rows",
    "fold_rows",
    "list_gain",
    "mark_right",
    "order_rows",
    "show_cell",
    "show_count",
    "tabulate_rows",
]

MIN_COUNT = 5
"""The fewest examples that a cell of a row counts or is computed from; cells of fewer are masked."""

FEWEST_RESAMPLED = 20
"""The fewest test examples of a paired bootstrap; with fewer, its intervals are too narrow."""

HELPED, HURT, UNCLEAR = "helped", "hurt", "no clear difference"
"""The verdicts on what federation did to a party, compared with training alone."""

TRAINERS_OF_ROWS = ("federated", "on_site", "centralised")
"""The models of a row: of all parties together, of the party alone, and of all rows in one place."""

MOST_ROWS = 12
"""The most parties that a terminal lists; of more, those with the least and the largest gains."""

NUM_BLOCKS, NUM_RESAMPLES, FEW_RESAMPLES = 100, 1000, 200
_Z = 1.959963984540054
"""The quantile of the normal distribution for an interval of 95%."""

Measure: TypeAlias = Callable[[Tensors, Examples], Mapping[str, float | None]]
"""Computes metrics of parameters over examples; one that the examples don't define is None, or left out."""


@dataclass(frozen=True)
class Gain:
    """The gain of one model over another on the same examples, above 0 if the first is better.

    Args:
      gain: the difference of their metrics.
      low, high: its 95% interval.
    """

    gain: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """The verdict of the interval: which model is better, or that there is no clear difference."""
        return HELPED if self.low > 0 else HURT if self.high < 0 else UNCLEAR


def list_gain(gain: Gain | None) -> dict[str, Plain]:
    """Lists a gain as the entries of a row; None: nothing was compared."""
    return {
        "gain": None if gain is None else gain.gain,
        "gain_low": None if gain is None else gain.low,
        "gain_high": None if gain is None else gain.high,
        "verdict": None if gain is None else gain.verdict,
    }


def compare_marks(first: Array, second: Array) -> Gain:
    """Compares which examples two models get right: the gain in accuracy, with the interval for paired
    proportions of Bonett and Price.

        b, c = the examples that only the first, only the second gets right;  p = (b+1)/(n+2), q = (c+1)/(n+2)
        interval = p - q ± 1.96 sqrt((p + q - (p - q)²) / (n+2))

    It needs few examples, and has a width even where both models agree on all of them.

    >>> won = compare_marks(np.array([True] * 9 + [False]), np.array([False] * 8 + [True, False]))
    >>> round(won.gain, 3), round(won.low, 3), round(won.high, 3), won.verdict
    (0.8, 0.314, 1.0, 'helped')

    References: Bonett, Price, "Adjusted Wald confidence interval for a difference of binomial proportions
      based on paired data", J. Educ. Behav. Stat. 2012.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n = len(first)
    p, q = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = _Z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Gain((only_first - only_second) / n, max(-1.0, p - q - half), min(1.0, p - q + half))


@dataclass
class PartyRows:
    """Measures models on the own test examples of each party, as soon as they are trained.

    Args:
      learner, population: the model, and the data of all parties.
      params: the federated model.
      metric: the metric to compare models by.
      key: of the draws of intervals.
      higher: the names of metrics that are better when higher.
      min_count: cells that count fewer examples, or are computed from fewer, are masked.
      measure: computes the metrics; None: the learner's own, and named ones.
      metrics: named metrics, beside the learner's own.
      predicted: what the federated model predicts of the own test examples of parties, by their role.
      known: metrics of the federated model that were measured before, by the number of the party.
    """

    learner: Learner
    population: FederatedData
    params: Tensors
    metric: str
    key: Key
    higher: Collection[str] = HIGHER_IS_BETTER
    min_count: int = MIN_COUNT
    measure: Measure | None = None
    metrics: Sequence[Metric] = ()
    predicted: Mapping[str, Array] = field(default_factory=dict)
    known: Mapping[int, Mapping[str, float | None]] = field(default_factory=dict)
    _cells: dict[tuple[str, int], dict[str, float | None]] = field(default_factory=dict, init=False)
    _gains: dict[int, Gain | None] = field(default_factory=dict, init=False)
    _trainers: dict[str, None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._test_sizes = self.population.test_sizes().tolist()
        self.add("federated", None, self.params)

    def add(self, trainer: str, number: int | None, params: Tensors) -> None:
        """Measures a model that was trained. `number`: of the party that trained it alone; None: it is
        everybody's.
        """
        self._trainers[trainer] = None
        for party in range(self.population.num_clients) if number is None else (number,):
            if self._test_sizes[party] < self.min_count:
                continue
            examples = self.population.role(own_test(party))
            is_known = trainer == "federated" and party in self.known
            self._cells[trainer, party] = (
                dict(self.known[party]) if is_known else self._measure(params, examples)
            )
            if trainer == "on_site":
                self._gains[party] = self._compare(params, examples, party)

    def list_rows(self) -> tuple[dict[str, Plain], ...]:
        """Lists a record for each party, in the order of the data; none if no party has test examples of
        its own.

        Cells that are None are masked, if `masked` names them, or else undefined.
        """
        if not any(self._test_sizes):
            return ()
        sizes = self.population.sizes().tolist()
        return tuple(self._row(party, sizes[party]) for party in range(self.population.num_clients))

    def _row(self, party: int, size: int) -> dict[str, Plain]:
        num_test, names = self._test_sizes[party], self.population.names
        is_small = 0 < num_test < self.min_count
        masked = [name for name, count in (("examples", size), ("test_examples", num_test))
                  if 0 < count < self.min_count]  # fmt: skip
        masked += [trainer for trainer in self._trainers if is_small]
        cells = {trainer: self._cells.get((trainer, party)) for trainer in self._trainers}
        gain = self._gains.get(party)
        return {
            "party": names[party] if names else f"client {party}",
            "number": party,
            "examples": None if "examples" in masked else size,
            "test_examples": None if is_small else num_test,
            **{trainer: None if found is None else _as_plain(found) for trainer, found in cells.items()},
            "metric": self.metric,
            "higher_is_better": is_higher_better(self.metric, self.higher),
            **list_gain(gain),
            "masked": masked,
            "min_count": self.min_count,
        }

    def _measure(self, params: Tensors, examples: Examples) -> dict[str, float | None]:
        if self.measure is None:
            return dict(measure_metrics(self.learner, params, examples, self.metrics))
        return dict(self.measure(params, examples))

    # -- gains ---------------------------------------------------------------------------------

    def _compare(self, alone: Tensors, examples: Examples, party: int) -> Gain | None:
        """Computes the gain of the federated model over one that its party trained alone."""
        ours, theirs = (
            self._cells.get((who, party), {}).get(self.metric) for who in ("federated", "on_site")
        )
        if ours is None or theirs is None or not (math.isfinite(ours) and math.isfinite(theirs)):
            return None
        if self.metric == "accuracy":
            first = mark_right(self.learner, self.params, examples, self.predicted.get(own_test(party)))
            second = mark_right(self.learner, alone, examples)
            if _is_mean(first, ours) and _is_mean(second, theirs):
                return compare_marks(first, second)
        if len(examples) < FEWEST_RESAMPLED:
            return None
        sign = 1.0 if is_higher_better(self.metric, self.higher) else -1.0
        drawn = self._resample(alone, examples, self.key.fold_in(party).rng())
        gains = sign * (drawn[0] - drawn[1])
        gains = gains[np.isfinite(gains)]
        if 2 * len(gains) < drawn.shape[1]:
            return None
        low, high = np.quantile(gains, (0.025, 0.975)).tolist()
        return Gain(sign * (ours - theirs), low, high)

    def _resample(self, alone: Tensors, examples: Examples, rng: np.random.Generator) -> Array:
        """Computes the metric of both models over resampled examples, (2, draws): the paired bootstrap."""
        if self.metric in self.learner.measured:
            blocks = np.array_split(rng.permutation(len(examples)), min(len(examples), NUM_BLOCKS))
            parts = [[self.learner.evaluate(params, examples.take(block)) for block in blocks]
                     for params in (self.params, alone)]  # fmt: skip
            whole = self.learner.evaluate(self.params, examples)
            if all(np.isclose(sum(one[name] for one in parts[0]), whole[name], rtol=1e-3) for name in whole):
                drawn = rng.integers(len(blocks), size=(NUM_RESAMPLES, len(blocks)))
                return np.array([self._summarise(own, drawn) for own in parts])
        rows = rng.integers(len(examples), size=(FEW_RESAMPLES, len(examples)))
        named = next((one for one in self.metrics if one.key == self.metric), None)
        if named is not None and self.metric not in self.learner.measured:
            return np.array([self._reweigh(named, params, examples, rows) for params in (self.params, alone)])
        return np.array([
            [_number(self._measure(params, examples.take(own)).get(self.metric)) for own in rows]
            for params in (self.params, alone)
        ])  # fmt: skip

    def _reweigh(self, metric: Metric, params: Tensors, examples: Examples, drawn: Array) -> list[float]:
        """Computes a metric over each draw of rows, which are predicted once: a row weighs as often as it is
        drawn."""
        found, count = self.learner.predict(params, examples.x), len(examples)
        rows = score_rows(examples.y, found, np.arange(count), kind=self.learner.prediction)
        whose = rows.weights.astype(np.intp)  # of a text, many places are of one example
        times = (np.bincount(own, minlength=count)[whose].astype(np.float64) for own in drawn)
        return [metric.measure(replace(rows, weights=own)) for own in times]

    def _summarise(self, parts: Sequence[Mapping[str, float]], drawn: Array) -> list[float]:
        """Computes the metric over each draw of blocks, from the sums of each block."""
        totals = {name: np.array([part[name] for part in parts])[drawn].sum(axis=1) for name in parts[0]}
        each = ({name: sums[i] for name, sums in totals.items()} for i in range(len(drawn)))
        return [_number(self.learner.summarise(sums).get(self.metric)) for sums in each]


def mark_right(
    learner: Learner, params: Tensors, examples: Examples, predicted: Array | None = None
) -> Array:
    """Marks the examples whose class a model predicts, (n,); nothing, if they have no class each.

    `predicted`: what it predicts of them, if that is known.
    """
    if examples.y.ndim != 1 or learner.prediction not in ("probabilities", "scores"):
        return np.zeros(0, bool)
    scores = learner.predict(params, examples.x) if predicted is None else predicted
    return np.asarray(scores.argmax(axis=1) == examples.y) if scores.ndim == 2 else np.zeros(0, bool)


def _is_mean(marks: Array, accuracy: float) -> bool:
    return len(marks) > 0 and math.isclose(float(marks.mean()), accuracy, abs_tol=1e-6)


def _number(metric: float | None) -> float:
    return math.nan if metric is None else metric


def _as_plain(metrics: Mapping[str, float | None]) -> dict[str, Plain]:
    return {
        name: None if metric is None or not math.isfinite(metric) else float(metric)
        for name, metric in metrics.items()
    }


# -- tables ------------------------------------------------------------------------------------


def order_rows(rows: Sequence[Mapping[str, Plain]]) -> list[Mapping[str, Plain]]:
    """Orders rows from the party that federation hurt most to the one that it helped most.

    Where parties did not train alone, the federated metric decides, the worst first. Rows that can't be
    compared are left out.
    """

    def worth(row: Mapping[str, Plain]) -> float | None:
        if any(other["gain"] is not None for other in rows):
            return None if row["gain"] is None else float(row["gain"])
        metric = (row["federated"] or {}).get(row["metric"])
        return None if metric is None else metric if row["higher_is_better"] else -metric

    found = [(own, row) for row in rows if (own := worth(row)) is not None]
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def fold_rows(
    rows: Sequence[Mapping[str, Plain]], most: int = MOST_ROWS
) -> tuple[list[Mapping[str, Plain]], str]:
    """Chooses the rows that a terminal has room for, and says which are not shown.

    Few rows are all shown, in the order of the data; of many, the worst half and the best half.
    """
    if len(rows) <= most:
        return list(rows), ""
    ordered, half = order_rows(rows), most // 2
    others = len(rows) - len(ordered)
    if len(ordered) <= most:
        return ordered, f"{others:,} of {len(rows):,} parties, which can't be compared, are not shown"
    is_compared = any(row["gain"] is not None for row in rows)
    ends = "federation helped least", "it helped most"
    first, last = ends if is_compared else ("are worst", "are best")
    folded = f"of {len(rows):,} parties, the {half} that {first} and the {half} that {last} are shown; "
    folded += f"{len(ordered) - 2 * half:,} between them are not"
    folded += f", nor {others:,} that can't be compared" if others else ""
    return [*ordered[:half], *ordered[-half:]], folded


def show_cell(row: Mapping[str, Plain], trainer: str, metric: str) -> str:
    """Formats a metric of a row: a number, or why there is none."""
    if trainer in row["masked"]:
        return "masked"
    if not row["test_examples"]:
        return "no tests"
    if row[trainer] is None:
        return "not trained"
    return as_number(row[trainer].get(metric), "undefined")


def show_count(row: Mapping[str, Plain], name: str) -> str:
    """Formats a count of a row: "<5" if it is masked."""
    return f"<{row['min_count']}" if name in row["masked"] else f"{row[name]:,}"


def describe_gain(row: Mapping[str, Plain]) -> str:
    """Formats what federation did to a party: the gain, in points of accuracy, and its interval.

    >>> describe_gain({"metric": "accuracy", "gain": -0.031, "gain_low": -0.05, "gain_high": -0.01})
    '−3.1 (−5.0 to −1.0)'
    """
    if row["gain"] is None:
        return ""
    gain, low, high = (_format_gain(row[name], row["metric"]) for name in ("gain", "gain_low", "gain_high"))
    return f"{gain} ({low} to {high})"


def _format_gain(gain: float, metric: str) -> str:
    if metric == "accuracy":
        rounded = round(100 * gain, 1) + 0.0  # no negative zero
        return f"{rounded:+.1f}".replace("-", "−")
    return ("+" if gain >= 0 else "−") + as_number(abs(gain))


def describe_rows(rows: Sequence[Mapping[str, Plain]]) -> list[str]:
    """Returns what a reader of rows has to know: how they were measured, and what is masked."""
    said = [f"{rows[0]['metric']} on each party's own test examples"]
    if any(row["verdict"] is not None for row in rows):
        said[0] += "; gains are over training alone, with 95% intervals"
    masked = sum(bool(row["masked"]) for row in rows)
    if masked:
        least = rows[0]["min_count"]
        who = "1 party" if masked == 1 else f"{masked:,} parties"
        said.append(f"masked at {who}: counts below {least}, and metrics of fewer than {least} examples")
    return said


def tabulate_rows(rows: Sequence[Mapping[str, Plain]], metric: str) -> tuple[list[str], list[list[str]]]:
    """Makes heads and cells of the table of parties, for one metric."""
    trainers = [name for name in TRAINERS_OF_ROWS if rows and name in rows[0]]
    is_compared = any(row["verdict"] is not None and row["metric"] == metric for row in rows)
    gain = "gain in points" if metric == "accuracy" else "gain"
    heads = ["party", *(["federation", gain] if is_compared else [])]
    heads += [*(name.replace("_", "-") for name in trainers), "examples", "tests"]
    cells = []
    for row in rows:
        own = [row["party"], *([row["verdict"] or "not compared", describe_gain(row)] if is_compared else [])]
        own += [show_cell(row, name, metric) for name in trainers]
        cells.append([*own, *(show_count(row, name) for name in ("examples", "test_examples"))])
    return heads, cells
