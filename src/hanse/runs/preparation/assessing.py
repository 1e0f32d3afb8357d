"""The assessment of a run's final model: where it is measured, and by which metrics."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hanse.core import InvalidInput, Learner, Tensors
from hanse.data import FederatedData
from hanse.evaluation import (
    CLASSES,
    MAX_CLIENTS,
    TEST_SET,
    Metric,
    accuracy,
    assess_at_parties,
    assess_pooled,
    list_default_metrics,
    list_own_examples,
)
from hanse.runs.preparation.prepared import Prepared

__all__ = ["assess_model"]

MAX_PREDICTIONS = 5e6
"""The most predicted numbers of which metrics are computed that nobody has named: a second at most."""


def assess_model(ready: Prepared, params: Tensors, *, is_open: bool) -> dict[str, Any] | None:
    """Measures a final model beside a constant predictor, with intervals by party.

    It takes the named metrics, or else those that suit the task, if that costs little.

    Args:
      is_open: whether rows of parties may be looked at, as in a simulation without privacy.
    Returns: the assessment; None: there is nothing to measure, or nowhere.
    """
    named, population = list(ready.metrics), ready.population
    is_shut = population.test is None and not (is_open and population.num_clients <= MAX_CLIENTS)
    if ready.measures_itself or is_shut:
        return None
    if named:
        if ready.learner.prediction in CLASSES and accuracy() not in named:
            named = [accuracy(), *named]  # beside the share of the largest class
        return _assess(ready, params, named, ready.experiment.evaluation.resamples)
    with suppress(InvalidInput):  # a model of the user's own may predict something else
        chosen = _choose_default(population, ready.learner, params)
        return _assess(ready, params, chosen, 0) if chosen else None
    return None


def _assess(ready: Prepared, params: Tensors, metrics: Sequence[Metric], resamples: int) -> dict[str, Any]:
    test = ready.population.test
    if test is not None:
        return assess_pooled(ready.learner, params, test, metrics, TEST_SET)
    on, whose = list_own_examples(ready.population)
    parties, key = [data for _, data in whose], ready.keys.public.fold_in("intervals")
    if len(parties) == 1:
        return assess_pooled(ready.learner, params, parties[0], metrics, on)
    return assess_at_parties(ready.learner, params, parties, metrics, on, key=key, resamples=resamples)


def _choose_default(population: FederatedData, learner: Learner, params: Tensors) -> tuple[Metric, ...]:
    """Chooses the metrics that suit the task, if computing them costs little beside training."""
    test, tested = population.test, population.find_test_clients()
    rows = len(test) if test is not None else int(population.test_sizes().sum())
    if not rows or (test is None and not tested):
        return ()
    first = test if test is not None else next(list_own_examples(population)[1])[1]
    found = learner.predict(params, first.x[:1])
    if rows * found[0].size > MAX_PREDICTIONS:
        return ()
    num_classes = found.shape[-1] if learner.prediction in CLASSES else 1
    return list_default_metrics(learner.prediction, num_classes, first.y.ndim > 1)
