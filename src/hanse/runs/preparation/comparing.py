"""The comparison after training: the model at each client, its baselines, each party's row, the headline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from hanse.algorithms import OBJECTIVE
from hanse.core import Array, Examples, Learner, PartyId, Program, Tensors
from hanse.core.exchange import OF_VALIDATION, Collect, Collected, Command, Dispatch, Event, Record
from hanse.data import FederatedData, own_test
from hanse.evaluation import (
    MAX_CLIENTS,
    Guessing,
    PartyRows,
    compare_marks,
    description,
    mark_right,
    measure_clients,
    spread_of,
    write_headline,
)
from hanse.runs.preparation.assessing import assess_model, predict_tests
from hanse.runs.preparation.prepared import Prepared

__all__ = ["Turnout", "compare_run", "find_guess"]

T = TypeVar("T")

MEASURES = {"metrics", OBJECTIVE}
"""The parts of messages by which clients measure a model, and train nothing."""

SQUARED_ERROR = "squared_error"


@dataclass
class Turnout:
    """Counts which clients have trained: their messages entered a total that was not abandoned.

    Args:
      counted: those who have already, where a run goes on.
    """

    counted: set[PartyId] = field(default_factory=set)
    _training: set[int] = field(default_factory=set)

    def watch(self, program: Program[T]) -> Program[T]:
        """Performs a program, and takes down whom it counts."""
        try:
            command: Command[Any] = next(program)
            while True:
                event: Event = yield command
                self._see(command, event)
                command = program.send(event)
        except StopIteration as end:
            found: T = end.value
            return found

    def _see(self, command: Command[Any], event: Event) -> None:
        if isinstance(command, Dispatch) and not command.uplink.keys() <= MEASURES:
            self._training |= set(getattr(event, "tickets", ()))
        if isinstance(command, Collect) and isinstance(event, Collected):
            known = self._training.intersection(event.counted)
            self._training -= known
            if event.abandoned is None:
                self.counted |= {
                    party
                    for ticket, party in zip(event.counted, event.parties, strict=True)
                    if ticket in known
                }

    def count_missing(self, num_clients: int) -> int:
        """Counts the clients that have never been counted."""
        return num_clients - sum(isinstance(party, int) for party in self.counted)


def compare_run(
    ready: Prepared,
    params: Tensors,
    records: Sequence[Record],
    turnout: Turnout,
    between: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Describes the data, measures the model at each client, and trains baselines, after training.

    A run that protects its clients says nothing of single ones, which would show more than it claims.

    Returns: fields of the result.
    """
    found, people = dict[str, Any](), ready.population
    baselines, is_measured = ready.experiment.baselines, bool(ready.experiment.evaluate_every)
    is_open = ready.experiment.privacy is None and is_measured and people.num_clients <= MAX_CLIENTS
    is_shown = ready.experiment.privacy is None
    predicted = predict_tests(ready, params, is_open=is_shown) if is_measured else {}
    rows = None
    if is_open and not ready.measures_itself:
        on, each = measure_clients(ready.learner, people, params, ready.metrics, predicted)
        found["clients"] = spread_of(on, list(each.values()), ready.higher_is_better)
        rows = _make_rows(ready, params, found["clients"]["mean"], predicted, each)
    if is_open:
        found["data"] = description(people)
    if is_measured:
        found["assessment"] = assess_model(ready, params, is_open=is_shown, predicted=predicted)
    if baselines:
        budget = ready.budget(records)
        if rows is not None:
            budget = replace(budget, show=rows.add)
        found["baselines"] = tuple(baseline.train(budget, between) for baseline in baselines)
    if rows is not None:
        found["parties"] = rows.list_rows()
    if not ready.measures_itself:
        tests = _list_tests(ready) if is_measured else None
        found["headline"] = write_headline(
            rows=found.get("parties", ()),
            guess=find_guess(
                ready.learner,
                params,
                Examples.join(tests),
                _list_labels(people),
                np.concatenate(list(predicted.values())) if predicted else None,
            )
            if is_open and tests
            else None,
            num_tests=None if tests is None else sum(map(len, tests)),
            num_parties=people.num_clients,
            num_uncounted=turnout.count_missing(people.num_clients) if is_open and records else 0,
        )
    return found


def _make_rows(
    ready: Prepared,
    params: Tensors,
    metrics: dict[str, Any],
    predicted: Mapping[str, Array],
    known: Mapping[int, Mapping[str, float]],
) -> PartyRows | None:
    watched = ready.stop.metric.removeprefix(OF_VALIDATION)
    metric = watched if watched in metrics else next(iter(metrics), None)
    if metric is None or not ready.population.find_test_clients():
        return None
    key = ready.keys.public.fold_in("each party's row")
    return PartyRows(
        ready.learner,
        ready.population,
        params,
        metric,
        key,
        ready.higher_is_better,
        ready.experiment.evaluation.min_count,
        metrics=ready.metrics,
        predicted=predicted,
        known=known,
    )


def _list_tests(ready: Prepared) -> list[Examples]:
    """Lists the test examples that the final metrics were measured on."""
    people = ready.population
    if people.test is not None:
        return [people.test]
    return [people.role(own_test(number)) for number in people.find_test_clients()]


def find_guess(
    learner: Learner,
    params: Tensors,
    tests: Examples,
    labels: Array | None = None,
    predicted: Array | None = None,
) -> Guessing | None:
    """Compares a model with always guessing the most frequent class, or the mean, of labels.

    Args:
      labels: of the training examples; None: the labels of the test examples stand in for them.
      predicted: what the model predicts of the test examples, if that is known.

    Returns: None, if labels are neither classes nor numbers, one a row, or the model can't be compared.
    """
    of_tests = " of the test set" if labels is None else ""
    labels = tests.y if labels is None else labels
    if labels.ndim != 1 or tests.y.ndim != 1:
        return None
    if learner.prediction == "numbers" and SQUARED_ERROR in learner.measured:
        numbers = learner.predict(params, tests.x) if predicted is None else predicted
        each = np.asarray(numbers, np.float64)
        errors, guessed = (np.square(found - tests.y) for found in (each, float(labels.mean())))
        better = guessed - errors
        width = 1.96 * float(better.std(ddof=1)) / len(better) ** 0.5 if len(better) > 1 else np.inf
        gain, figures = float(better.mean()), (float(errors.mean()), float(guessed.mean()))
        return Guessing(f"the mean{of_tests}", SQUARED_ERROR, *figures, gain > 0, gain > width)
    right = mark_right(learner, params, tests, predicted)
    if not len(right) or labels.dtype.kind not in "biu":
        return None
    usual: Array = tests.y == np.bincount(labels.astype(np.intp)).argmax()
    found, figures = compare_marks(right, usual), (float(right.mean()), float(usual.mean()))
    return Guessing(f"the majority class{of_tests}", "accuracy", *figures, found.gain > 0, found.low > 0)


def _list_labels(people: FederatedData) -> Array:
    return np.concatenate([people.labels(number) for number in range(people.num_clients)])
