"""What a model is worth to each client, and who has what: facts for tables and pages."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hanse.algorithms import MEANS
from hanse.core import Array, Examples, Learner, Plain, Tensors
from hanse.core.exchange import HIGHER_IS_BETTER
from hanse.data import FederatedData, own_test

__all__ = [
    "MAX_CLIENTS",
    "OWN_TEST",
    "OWN_TRAINING",
    "TEST_SET",
    "description",
    "measure_means",
    "measure_spread",
    "of_one_class",
    "passes",
    "spread_of",
]

MAX_CLIENTS = 1000
"""More clients than these are not measured, or described, one by one."""

OWN_TEST = "their own test examples"
OWN_TRAINING = "their own training examples"
TEST_SET = "the common test set"


def measure_means(learner: Learner, params: Tensors, examples: Examples) -> dict[str, float]:
    """Means of the learner's metrics over examples."""
    sums = learner.evaluate(params, examples)
    return {MEANS.get(name, name): float(sums[name] / sums["count"]) for name in learner.metrics}


def measure_spread(learner: Learner, population: FederatedData, params: Tensors) -> dict[str, Plain] | None:
    """What one model is worth to each client, on its own test examples, or else on those it trained with.

    None: there are too many clients to ask each.
    """
    if population.num_clients > MAX_CLIENTS:
        return None
    on, whose = _own_examples(population)
    return spread_of(on, [measure_means(learner, params, examples) for _, examples in whose])


def _own_examples(population: FederatedData) -> tuple[str, Iterator[tuple[int, Examples]]]:
    """What clients measure a model on, in words, and each client's."""
    tested = population.find_test_clients()
    if tested:
        return OWN_TEST, ((number, population.role(own_test(number))) for number in tested)
    return OWN_TRAINING, ((number, population.client(number)) for number in range(population.num_clients))


def spread_of(on: str, each: Sequence[Mapping[str, float]]) -> dict[str, Plain]:
    """The mean over clients, and the mean over the tenth of them that is worst off, by metric.

    >>> spread_of(OWN_TEST, [{"accuracy": 0.5}, {"accuracy": 1.0}])["worst_tenth"]
    {'accuracy': 0.5}
    """
    names = list(each[0]) if each else []
    by_metric = {name: [_finite(row[name]) for row in each] for name in names}
    return {
        "on": on,
        "num_clients": len(each),
        "mean": {name: _finite(float(np.mean(_numbers(by_metric[name])))) for name in names},
        "worst_tenth": {name: _worst(name, _numbers(by_metric[name])) for name in names},
        "each": by_metric,
    }


def _numbers(values: Sequence[float | None]) -> Array:
    return np.array([math.nan if value is None else value for value in values])


def _worst(name: str, values: Array) -> float | None:
    ordered = np.sort(values if name in HIGHER_IS_BETTER else -values)
    worst = float(np.mean(ordered[: math.ceil(len(ordered) / 10)]))
    return _finite(worst if name in HIGHER_IS_BETTER else -worst)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def passes(settings: Mapping[str, Plain], counted: int, num_clients: int) -> float:
    """How often, on average over clients, an example was computed with when so many tickets were counted.

    A ticket is as many passes over a client's examples as the algorithm has local epochs: 1 where it has
    none, as for a gradient.

    >>> passes({"name": "fed_avg", "epochs": 5}, counted=20, num_clients=100)
    1.0
    """
    nested = (part["epochs"] for part in settings.values() if isinstance(part, Mapping) and "epochs" in part)
    epochs = settings.get("epochs") or next(nested, None) or 1
    return float(epochs * counted / num_clients)


def description(population: FederatedData) -> dict[str, Plain]:
    """Who has what: examples of each client and, of classes, how many of each.

    Clients beyond the first thousand are only counted.
    """
    shown = min(population.num_clients, MAX_CLIENTS)
    labels = [population.labels(number) for number in range(shown)]
    described: dict[str, Plain] = {
        "num_clients": population.num_clients,
        "sizes": [len(own) for own in labels],
        "test": 0 if population.test is None else len(population.test),
        "num_own_tests": len(population.find_test_clients()) if population.num_clients <= MAX_CLIENTS else 0,
        "names": list(population.names[:shown]),
        "columns": list(population.columns),
        "num_classes": population.num_classes,
        "classes": list(population.classes),
        "label_counts": None,
    }
    described["feature_shape"] = None if population.columns else list(population.feature_shape)
    num_classes = population.num_classes
    if num_classes is not None and all(own.ndim == 1 for own in labels):
        counts = [np.bincount(own, minlength=num_classes).tolist() for own in labels]
        described["label_counts"] = counts
    return described


def of_one_class(population: FederatedData) -> list[str]:
    """The names of clients that hold one class only: alone they learn nothing."""
    if population.num_classes is None or population.num_clients > MAX_CLIENTS:
        return []
    alone = [n for n in range(population.num_clients) if len(np.unique(population.labels(n))) == 1]
    return [population.names[n] if population.names else f"client {n}" for n in alone]
