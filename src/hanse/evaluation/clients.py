"""Metrics of a model at each client, and a description of their data: facts for tables and pages."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hanse.core import Array, Examples, Learner, Plain, Tensors
from hanse.core.exchange import HIGHER_IS_BETTER, OF_VALIDATION, is_higher_better
from hanse.data import FederatedData, describe, own_test
from hanse.evaluation.measuring import conclude_metric, list_statistics, name_values, score
from hanse.evaluation.metrics import Metric, ScoredRows

__all__ = [
    "MAX_CLIENTS",
    "OWN_TEST",
    "OWN_TRAINING",
    "TEST_SET",
    "Pool",
    "average",
    "description",
    "list_own_examples",
    "measure_clients",
    "measure_held_out",
    "measure_metrics",
    "measure_spread",
    "of_one_class",
    "passes",
    "spread_of",
]

MAX_CLIENTS = 1000
"""The most clients that are measured and described one by one."""

OWN_TEST = "their own test examples"
OWN_TRAINING = "their own training examples"
TEST_SET = "the common test set"


def measure_metrics(
    learner: Learner,
    params: Tensors,
    examples: Examples,
    metrics: Sequence[Metric] = (),
    predicted: Array | None = None,
) -> dict[str, float]:
    """Computes the learner's metrics over examples, and named ones; without those that are not defined.

    `predicted`: what the model predicts of them, if that is known.
    """
    found = learner.summarise(learner.evaluate(params, examples))
    if metrics:
        found |= _measure_named(metrics, score(learner, params, examples, predicted), found)
    return found


@dataclass
class Pool:
    """Adds up what models measure on rows, as a run adds up what clients send: each row counts once.

    Args:
      learner: the model.
      metrics: named ones, beside the learner's.
    """

    learner: Learner
    metrics: Sequence[Metric] = ()
    _own: list[Mapping[str, float]] = field(default_factory=list, init=False)
    _named: list[Mapping[str, Array]] = field(default_factory=list, init=False)
    _last: dict[str, float] = field(default_factory=dict, init=False)

    def add(self, params: Tensors, examples: Examples) -> dict[str, float]:
        """Adds a model's sums over its rows, and returns its metrics over these. See `measure_metrics`."""
        sums = self.learner.evaluate(params, examples)
        found = self.learner.summarise(sums)
        self._own.append(sums)
        if self.metrics:
            rows = score(self.learner, params, examples)
            self._named.append({
                name: one.sum(rows) for name, one in list_statistics(self.metrics).items()
            })  # fmt: skip
            found |= _measure_named(self.metrics, rows, found)
        self._last = found
        return found

    def conclude(self) -> dict[str, float]:
        """Computes the metrics over all rows that were added; of one model's they are exact."""
        if len(self._own) < 2:
            return self._last
        found = self.learner.summarise({name: math.fsum(one[name] for one in self._own)
                                        for name in self._own[0]})  # fmt: skip
        if self._named:
            totals = {name: np.sum([one[name] for one in self._named], axis=0) for name in self._named[0]}
            named = name_values(conclude_metric(one, totals) for one in self.metrics)
            found |= {key: one for key, one in named.items() if key not in found and not math.isnan(one)}
        return found


def _measure_named(metrics: Sequence[Metric], rows: ScoredRows, known: Collection[str]) -> dict[str, float]:
    """Computes named metrics over rows that are not known yet, without those that are not defined."""
    named = {one.key: one.measure(rows) for one in metrics if one.is_number and one.key not in known}
    return {key: metric for key, metric in named.items() if not math.isnan(metric)}


def measure_held_out(
    learner: Learner,
    params: Tensors,
    population: FederatedData,
    instead: Examples,
    metrics: Sequence[Metric] = (),
) -> dict[str, float]:
    """Measures a model as a run does: on the test set, or on other examples if there is none, and beside that
    on the validation examples."""
    test = instead if population.test is None else population.test
    found = measure_metrics(learner, params, test, metrics)
    if population.validation is not None:
        chosen_by = measure_metrics(learner, params, population.validation, metrics)
        found |= {OF_VALIDATION + name: metric for name, metric in chosen_by.items()}
    return found


def measure_spread(
    learner: Learner,
    population: FederatedData,
    params: Tensors,
    higher: Collection[str] = HIGHER_IS_BETTER,
    metrics: Sequence[Metric] = (),
) -> dict[str, Plain] | None:
    """Measures a model at each client, on its own test examples, or else on its training examples.

    Returns None if there are too many clients to measure each. For `higher` see `spread_of`; `metrics` are
    named ones, beside the learner's.
    """
    if population.num_clients > MAX_CLIENTS:
        return None
    on, each = measure_clients(learner, population, params, metrics)
    return spread_of(on, list(each.values()), higher)


def measure_clients(
    learner: Learner,
    population: FederatedData,
    params: Tensors,
    metrics: Sequence[Metric] = (),
    predicted: Mapping[str, Array] | None = None,
) -> tuple[str, dict[int, dict[str, float]]]:
    """Measures a model at each client; returns the name of the examples, and metrics by client.

    `predicted`: what the model predicts of test examples, by their role, as far as that is known.
    """
    on, whose = list_own_examples(population)
    known = {} if predicted is None or on != OWN_TEST else predicted
    return on, {
        number: measure_metrics(learner, params, data, metrics, known.get(own_test(number)))
        for number, data in whose
    }


def list_own_examples(population: FederatedData) -> tuple[str, Iterator[tuple[int, Examples]]]:
    """Returns the name of the examples that clients measure a model on, and those of each client."""
    tested = population.find_test_clients()
    if tested:
        return OWN_TEST, ((number, population.role(own_test(number))) for number in tested)
    return OWN_TRAINING, ((number, population.client(number)) for number in range(population.num_clients))


def spread_of(
    on: str, each: Sequence[Mapping[str, float]], higher: Collection[str] = HIGHER_IS_BETTER
) -> dict[str, Plain]:
    """Computes the mean over clients, and the mean over the tenth of them with the worst metric.

    Clients that can't measure a metric don't count for it; where one is not a finite number, its mean is
    unknown.

    >>> spread_of(OWN_TEST, [{"accuracy": 0.5}, {"accuracy": 1.0}])["worst_tenth"]
    {'accuracy': 0.5}
    >>> spread_of(OWN_TEST, [{"loss": 1.0}, {"loss": 2.0, "concordance": 0.75}])["each"]
    {'loss': [1.0, 2.0], 'concordance': [None, 0.75]}

    Args:
      on: the examples that they were measured on.
      each: the metrics of each client.
      higher: the names of the metrics that are better when higher.
    """
    measured = _by_metric(each)
    return {
        "on": on,
        "num_clients": len(each),
        "mean": {name: _finite(mean) for name, mean in average(each).items()},
        "worst_tenth": {
            name: _worst(np.array(values), is_higher_better(name, higher))
            for name, values in measured.items()
        },
        "each": {name: [_finite(row.get(name, math.nan)) for row in each] for name in measured},
    }


def average(each: Sequence[Mapping[str, float]], weights: Sequence[float] | None = None) -> dict[str, float]:
    """Computes the mean of each metric over those who measured it; `weights` are theirs, by default 1.

    >>> average([{"accuracy": 0.5}, {"accuracy": 1.0}], [30, 10])
    {'accuracy': 0.625}
    """
    if weights is None:
        return {name: float(np.mean(values)) for name, values in _by_metric(each).items()}
    shares = {name: [w for row, w in zip(each, weights, strict=True) if name in row]
              for name in _by_metric(each)}  # fmt: skip
    return {name: float(np.average(values, weights=shares[name]))
            for name, values in _by_metric(each).items()}  # fmt: skip


def _by_metric(each: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for row in each for name in row)
    return {name: [row[name] for row in each if name in row] for name in names}


def _worst(values: Array, is_higher_better: bool) -> float | None:
    ordered = np.sort(values if is_higher_better else -values)
    worst = float(np.mean(ordered[: math.ceil(len(ordered) / 10)]))
    return _finite(worst if is_higher_better else -worst)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def passes(
    settings: Mapping[str, Plain], counted: int, num_clients: int, num_examples: int | None = None
) -> float:
    """Computes the mean number of passes over an example, given the number of tickets that were counted.

    A ticket is as many passes over a client's examples as the algorithm has local epochs, or 1 if it has
    none, as for a gradient. Where clients take a number of steps instead, a mean client's examples decide how
    many passes they are.

    >>> passes({"name": "fed_avg", "epochs": 5}, counted=20, num_clients=100)
    1.0
    >>> client = {"name": "sgd", "num_steps": 30, "batch_size": 10}
    >>> passes({"name": "fed_avg", "epochs": 1, "client": client}, 20, num_clients=100, num_examples=60_000)
    0.1
    >>> passes({"name": "decentralised_sgd", "graph": {"name": "ring"}, "batch_size": 10}, 20, 20, 1000)
    0.2

    Args:
      num_examples: of all clients.
    """
    parts = [part for name in ("client", "solver") if isinstance(part := settings.get(name), Mapping)]
    steps = next(iter(parts), settings)
    if "graph" in settings:  # peers take one step in each round
        steps = {**settings, "num_steps": 1}
    if steps.get("num_steps"):
        return _passes_of(steps, num_clients, num_examples) * counted / num_clients
    return float((steps.get("epochs") or 1) * counted / num_clients)


def _passes_of(steps: Mapping[str, Plain], num_clients: int, num_examples: int | None) -> float:
    """Computes the passes of a mean client that takes a number of steps."""
    size = max(1.0, (num_examples or 0) / num_clients)
    batch = min(steps.get("batch_size") or size, size)
    return float(steps["num_steps"] * batch / size)


def description(population: FederatedData) -> dict[str, Plain]:
    """Describes the data of clients: the number of examples of each, and of each class.

    Of more than a thousand clients, a thousand are described, evenly spread.
    """
    found = describe(population, max_clients=MAX_CLIENTS)
    numbers = found.clients.tolist()
    is_one_label = population.labels(numbers[0]).ndim == 1
    counts = found.counts.tolist() if population.num_classes is not None and is_one_label else None
    return {
        "num_clients": found.num_clients,
        "sizes": found.sizes.tolist(),
        "test": found.num_test,
        **({} if population.validation is None else {"validation": len(population.validation)}),
        "num_own_tests": int(np.count_nonzero(found.test_sizes)),
        "names": [population.names[number] for number in numbers] if population.names else [],
        "columns": list(found.columns),
        "num_classes": population.num_classes,
        "classes": list(population.classes),
        "label_counts": counts,
        "feature_shape": None if found.columns else list(found.feature_shape),
        **({"notes": list(population.notes)} if population.notes else {}),
    }


def of_one_class(population: FederatedData) -> list[str]:
    """Lists the names of clients that hold one class only, and so learn nothing alone."""
    if population.num_classes is None or population.num_clients > MAX_CLIENTS:
        return []
    alone = [n for n in range(population.num_clients) if len(np.unique(population.labels(n))) == 1]
    return [population.names[n] if population.names else f"client {n}" for n in alone]
