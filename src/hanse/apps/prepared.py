"""An experiment with its data loaded and its model bound, checked as far as that is possible beforehand."""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hanse.algorithms import evaluation
from hanse.algorithms.works import MEANS
from hanse.apps.experiment import Experiment
from hanse.core.algorithm import Evaluate, Progress, Stop, training
from hanse.core.errors import InvalidInput, RoundAbandoned
from hanse.core.keys import Keys
from hanse.core.learner import Learner
from hanse.core.program import Dispatch, Program, Sample
from hanse.core.runtime import Store
from hanse.data import FederatedData, partitioned
from hanse.simulation import Clients, Simulation

__all__ = ["Prepared", "prepared"]

MAX_EVALUATED_CLIENTS = 1000
"""Without a test set all clients measure the model; more than these would take longer than training."""


@dataclass(frozen=True)
class Prepared:
    """All that a run needs. Made by `prepared`.

    Args:
      experiment: what was asked for.
      population: who holds what.
      learner: the model, bound to these data.
      stop: the experiment's, watching the loss where the model has no accuracy.
    """

    experiment: Experiment
    population: FederatedData
    learner: Learner
    stop: Stop

    @property
    def keys(self) -> Keys:
        """Of all draws."""
        return Keys.from_seed(self.experiment.seed)

    def begin(self) -> Progress[Any]:
        """Where the run stands before its first round."""
        key = self.keys.public
        params = self.learner.init(key.fold("model"))
        return Progress(0, self.experiment.algorithm.init(params, key.fold("algorithm")))

    def program(self, progress: Progress[Any]) -> Program[Progress[Any]]:
        """What leads from there to the last round."""
        return training(
            self.experiment.algorithm,
            progress,
            self.keys.public,
            rounds=self.experiment.rounds,
            evaluate=self._evaluate(),
            evaluate_every=max(1, self.experiment.evaluate_every),
            stop=self.stop,
        )

    def _evaluate(self) -> Evaluate | None:
        if not self.experiment.evaluate_every:
            return None
        if self.population.test is not None:
            return evaluation(self.learner)
        return evaluation(self.learner, tuple(range(self.population.num_clients)))

    def runtime(self, store: Store | None = None) -> Simulation:
        """Who performs it; clients find their memory in the store."""
        recall = {} if store is None else {"recall": store.memory}
        clients = Clients(self.learner, self.population, self.keys, **recall)
        return Simulation(clients, self.population.num_clients, self.keys, self.experiment.devices)


def prepared(experiment: Experiment) -> Prepared:
    """Loads, shares out, binds and checks.

    Raises: InvalidInput: if data, model and the rest don't fit each other.
      CompositionError: if transforms and reducers can't stand together.
    """
    keys = Keys.from_seed(experiment.seed)
    if isinstance(experiment.data, FederatedData):
        population = experiment.data
    else:
        assert experiment.partition is not None
        population = partitioned(experiment.data.load(), experiment.partition, keys.public.fold("partition"))
    learner = experiment.model.bind(population.feature_shape, population.num_classes)
    ready = Prepared(experiment, population, learner, _watching(experiment, learner))
    _check_evaluation(ready)
    _check_composition(ready)
    return ready


def _watching(experiment: Experiment, learner: Learner) -> Stop:
    stop, measured = experiment.stop, [MEANS.get(name, name) for name in learner.metrics]
    if stop.metric in measured:
        return stop
    if stop == Stop():
        return replace(stop, metric=measured[0])
    raise InvalidInput(
        f"stop: metric is {stop.metric!r}, which {type(experiment.model).__name__} does not measure; "
        f"write one of {', '.join(measured)}"
    )


def _check_evaluation(ready: Prepared) -> None:
    if not ready.experiment.evaluate_every or ready.population.test is not None:
        return
    if ready.population.num_clients > MAX_EVALUATED_CLIENTS:
        raise InvalidInput(
            f"the data have no test set, and {ready.population.num_clients} clients are too many to measure "
            "the model each time; give test examples, or write evaluate_every = 0"
        )


def _check_composition(ready: Prepared) -> None:
    """Performs a throw-away first round up to where clients would compute: that binds all chains."""
    key = ready.keys.public.fold("rehearsal")
    program = ready.experiment.algorithm.round(ready.begin().state, key)
    runtime = ready.runtime()
    with suppress(StopIteration, RoundAbandoned):
        command = next(program)
        while isinstance(command, Sample | Dispatch):
            command = program.send(runtime.perform(command))
    program.close()
