"""Preparing an experiment: data are loaded, the model is bound, and all is checked as far as possible."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from hanse.algorithms import OBJECTIVE, settle_fraction
from hanse.config import Experiment, find_metric
from hanse.core import (
    DifferentiableLearner,
    InvalidInput,
    Keys,
    Learner,
    Reducer,
    Stop,
    fields,
)
from hanse.evaluation import Metric, check_metrics, choose_metrics
from hanse.privacy import examples
from hanse.runs.adversary import (
    check_adversary,
)
from hanse.runs.preparation.data import encode_features, load_population
from hanse.runs.preparation.measures import choose_stop
from hanse.runs.preparation.prepared import Prepared
from hanse.runs.preparation.trusted import check_server_data, is_led_by_validation
from hanse.runs.protection import (
    check_budget,
    check_separation,
    hide_updates,
    protect,
)

__all__ = ["prepare_run"]

MAX_EVALUATED_CLIENTS = 1000
"""The most clients that measure the model if there is no test set; more would take longer than training."""


def prepare_run(experiment: Experiment) -> Prepared:
    """Loads the data, divides them among clients, binds the model, and checks the experiment.

    Raises: InvalidInput: if data, model and other settings don't fit each other.
      CompositionError: if transforms and reducers don't fit each other.
    """
    whose, name = experiment.algorithm.performed_by, type(experiment.algorithm).__name__
    if whose != "server":
        raise InvalidInput(
            f"{name} is a program that each {whose} performs for itself; lead all of them in Python, with "
            "hanse.simulation.drive_together, or name another algorithm"
        )
    keys = Keys.from_seed(experiment.seed)
    with ThreadPoolExecutor(1) as beside:
        beside.submit(experiment.model.load)  # if that fails, `bind` says why
        population = load_population(experiment)
        population, encoder = encode_features(experiment, population, keys)
    if population.num_classes is None:
        model = experiment.model.suit_targets(population.target_shape)
        experiment = experiment if model is experiment.model else replace(experiment, model=model)
    learner = experiment.model.bind(population.feature_shape, population.num_classes)
    algorithm = settle_fraction(experiment.algorithm, population.num_clients)
    if hasattr(algorithm, "check_peers"):
        algorithm.check_peers(population.num_clients)
    algorithm = protect(algorithm, experiment.privacy, population.num_clients, experiment.rounds)
    if experiment.secure:
        algorithm = hide_updates(algorithm, population.num_clients)
    if algorithm is not experiment.algorithm:
        experiment = replace(experiment, algorithm=algorithm)
    has_validation = population.validation is not None
    validates = has_validation and not is_led_by_validation(experiment.algorithm)
    metrics = _choose_metrics(experiment, learner)
    stop = choose_stop(experiment, learner, has_validation, validates, metrics)
    if not set(metrics).issubset(experiment.evaluation.named):  # what is kept says what stops the run
        told = (*experiment.evaluation.named, *metrics)
        experiment = replace(experiment, evaluation=replace(experiment.evaluation, metrics=told))
    ready = Prepared(experiment, population, learner, stop, encoder, metrics)
    if metrics:
        check_metrics(metrics, learner.prediction, ready.num_classes)
    for baseline in experiment.baselines:
        baseline.check(experiment.algorithm)
    _check_evaluation(ready)
    _check_reducers(ready)
    check_server_data(ready.experiment.algorithm, ready.population)
    check_adversary(experiment.adversary, ready.party_data, ready.liars)
    check_separation(algorithm, ready.disclosure)
    check_budget(experiment.privacy, ready.disclosure, experiment.rounds)
    if isinstance(experiment.privacy, examples):
        _check_gradients(ready)
    return ready


def _choose_metrics(experiment: Experiment, learner: Learner) -> tuple[Metric, ...]:
    """Chooses the metrics that are measured beside the model's own. Raises: InvalidInput."""
    is_default = experiment.stop == Stop()  # it is replaced where the model has no accuracy
    watched = None if is_default else find_metric(experiment.stop.metric)
    named = experiment.evaluation.named
    if experiment.algorithm.measured:
        if named:
            raise InvalidInput(
                f"{type(experiment.algorithm).__name__} measures its models by itself, as "
                f"{', '.join(experiment.algorithm.measured)}; leave evaluation.metrics out"
            )
        return ()
    return choose_metrics(experiment.evaluation, watched, (*learner.measured, OBJECTIVE), learner.prediction)


def _check_gradients(ready: Prepared) -> None:
    """Checks on one example that the model has gradients of single examples. Raises: InvalidInput."""
    learner, name = ready.learner, type(ready.experiment.model).__name__
    if not isinstance(learner, DifferentiableLearner):
        raise InvalidInput(
            f"privacy of examples clips gradients of single examples, and {name}() has no gradients; write "
            "another model, such as softmax() or mlp()"
        )
    first = ready.population.client(0).take(np.array([0]))
    learner.clipped_sum(ready.start(), first, 1.0)


def _check_evaluation(ready: Prepared) -> None:
    if ready.measures_itself and ready.population.validation is not None:
        raise InvalidInput(
            f"{type(ready.experiment.algorithm).__name__} measures its models at the clients, which hold no "
            "validation examples; leave validation examples and validation_fraction out"
        )
    if not ready.experiment.evaluate_every or ready.population.test is not None or ready.measures_itself:
        return
    if ready.population.num_clients > MAX_EVALUATED_CLIENTS:
        raise InvalidInput(
            f"the data have no test set, and {ready.population.num_clients} clients are too many to measure "
            "the model each time; give test examples, or write evaluate_every = 0"
        )


def _check_reducers(ready: Prepared) -> None:
    for field in fields(type(ready.experiment.algorithm)):
        held = getattr(ready.experiment.algorithm, field.name)
        if isinstance(held, Reducer) and not held.is_setting:
            raise InvalidInput(
                f"algorithm.{field.name} is {held}, which is no setting: only the program of an algorithm "
                "names it"
            )
