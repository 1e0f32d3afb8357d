"""The assessment of a run's final model: where it is measured, and by which metrics."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hanse.core import Array, Examples, InvalidInput, Learner, Tensors
from hanse.data import FederatedData, own_test
from hanse.evaluation import (
    CLASSES,
    MAX_CLIENTS,
    OWN_TEST,
    TEST_SET,
    Metric,
    accuracy,
    assess_at_parties,
    assess_pooled,
    list_default_metrics,
    list_own_examples,
)
from hanse.runs.preparation.prepared import Prepared

__all__ = ["assess_model", "predict_tests"]

MAX_PREDICTIONS = 5e6
"""The most predicted numbers of which metrics are computed that nobody has named: a second at most."""


def predict_tests(ready: Prepared, params: Tensors, *, is_open: bool) -> dict[str, Array]:
    """Predicts the test examples that a final model is measured on, once for all that need it.

    Returns: predictions by role; none, if they are too many to be kept, or the model predicts none.
    """
    people = ready.population
    roles = ["server"] if people.test is not None else list(map(own_test, people.find_test_clients()))
    is_shut = people.test is None and not (is_open and people.num_clients <= MAX_CLIENTS)
    if not roles or ready.measures_itself or is_shut:
        return {}
    with suppress(InvalidInput):  # a model of the user's own may predict something else
        if _count_predictions(people, ready.learner, params) <= MAX_PREDICTIONS:
            return {role: ready.learner.predict(params, people.role(role).x) for role in roles}
    return {}


def assess_model(
    ready: Prepared, params: Tensors, *, is_open: bool, predicted: Mapping[str, Array] | None = None
) -> dict[str, Any] | None:
    """Measures a final model beside a constant predictor, with intervals by party.

    It takes the named metrics, or else those that suit the task, if that costs little.

    Args:
      is_open: whether rows of parties may be looked at, as in a simulation without privacy.
      predicted: what the model predicts of test examples, by their role, as far as that is known.
    Returns: the assessment; None: there is nothing to measure, or nowhere.
    """
    named, population = list(ready.metrics), ready.population
    is_shut = population.test is None and not (is_open and population.num_clients <= MAX_CLIENTS)
    if ready.measures_itself or is_shut:
        return None
    if named:
        if ready.learner.prediction in CLASSES and accuracy() not in named:
            named = [accuracy(), *named]  # beside the share of the largest class
        return _assess(ready, params, named, ready.experiment.evaluation.resamples, predicted or {})
    with suppress(InvalidInput):  # a model of the user's own may predict something else
        chosen = _choose_default(population, ready.learner, params)
        return _assess(ready, params, chosen, 0, predicted or {}) if chosen else None
    return None


def _assess(
    ready: Prepared,
    params: Tensors,
    metrics: Sequence[Metric],
    resamples: int,
    predicted: Mapping[str, Array],
) -> dict[str, Any]:
    test, learner = ready.population.test, ready.learner
    if test is not None:
        return assess_pooled(learner, params, test, metrics, TEST_SET, predicted=predicted.get("server"))
    on, whose = list_own_examples(ready.population)
    pairs, key = list(whose), ready.keys.public.fold_in("intervals")
    parties = [data for _, data in pairs]
    known = [predicted.get(own_test(number)) if on == OWN_TEST else None for number, _ in pairs]
    if len(parties) == 1:
        return assess_pooled(learner, params, parties[0], metrics, on, predicted=known[0])
    return assess_at_parties(
        learner, params, parties, metrics, on, key=key, resamples=resamples, predicted=known
    )


def _choose_default(population: FederatedData, learner: Learner, params: Tensors) -> tuple[Metric, ...]:
    """Chooses the metrics that suit the task, if computing them costs little beside training."""
    num_predictions = _count_predictions(population, learner, params)
    if not 0 < num_predictions <= MAX_PREDICTIONS:
        return ()
    first = _find_tests(population)
    found = learner.predict(params, first.x[:1])
    num_classes = found.shape[-1] if learner.prediction in CLASSES else 1
    return list_default_metrics(learner.prediction, num_classes, first.y.ndim > 1)


def _find_tests(population: FederatedData) -> Examples:
    """Returns the test set, or the test examples of the first party that has some."""
    return population.test if population.test is not None else next(list_own_examples(population)[1])[1]


def _count_predictions(population: FederatedData, learner: Learner, params: Tensors) -> int:
    """Counts the numbers that a model predicts of all test examples; 0: there are none."""
    test = population.test
    rows = len(test) if test is not None else int(population.test_sizes().sum())
    return rows * learner.predict(params, _find_tests(population).x[:1])[0].size if rows else 0
