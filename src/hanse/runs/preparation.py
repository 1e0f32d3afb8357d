"""An experiment with its data loaded and its model bound, checked as far as that is possible beforehand."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

from hanse.algorithms import MEANS, evaluation
from hanse.config import Experiment, to_plain
from hanse.core import InvalidInput, Key, Keys, Learner, PartyId, Program, RoundAbandoned, Stop, Tensors
from hanse.core.exchange import Dispatch, Evaluate, Progress, Record, Sample, Store, drive, training
from hanse.data import FederatedData, own_test, partition_data
from hanse.evaluation import Budget, passes
from hanse.learners import Model
from hanse.preprocessing import Encoder, Schema, tabular
from hanse.runs.start import initial
from hanse.simulation import AdaptiveClients, Clients, ClientSide, Recall, Simulation

__all__ = ["Prepared", "client_tests", "load_population", "prepare_run"]

MAX_EVALUATED_CLIENTS = 1000
"""Without a test set all clients measure the model; more than these would take longer than training."""


@dataclass(frozen=True)
class Prepared:
    """All that a run needs. Made by `prepare_run`.

    Args:
      experiment: what was asked for.
      population: who holds what.
      learner: the model, bound to these data.
      stop: the experiment's, watching the loss where the model has no accuracy.
      encoder: what makes numbers of raw features, if the data were prepared.
    """

    experiment: Experiment
    population: FederatedData
    learner: Learner
    stop: Stop
    encoder: Encoder | None = None

    @property
    def keys(self) -> Keys:
        """Of all draws."""
        return Keys.from_seed(self.experiment.seed)

    def begin(self) -> Progress[Any]:
        """Where the run stands before its first round."""
        key = self.keys.public
        params = self.start()
        return Progress(0, self.experiment.algorithm.init(params, key.fold_in("algorithm")))

    def start(self) -> Tensors:
        """The model before the first round."""
        params = self.learner.init(self.keys.public.fold_in("model"))
        if self.experiment.initial is None:
            return params
        return initial(self.experiment.initial, params)

    def budget(self, records: Sequence[Record]) -> Budget:
        """What these rounds have cost, for the baselines to spend."""
        counted = sum(record.usage.counted for record in records if not record.abandoned)
        if self.population.test is None:  # then clients measured the model, too
            measurements = [record for record in records if record.metrics]
            counted -= len(measurements) * sum(isinstance(party, int) for party in self.measured_at)
        settings = to_plain(self.experiment.algorithm)
        spent = passes(settings, max(0, counted), self.population.num_clients)
        key = self.keys.public.fold_in("baselines")
        return Budget(
            self.learner, self.population, self.experiment.algorithm, self.start(), spent, self.stop, key
        )

    def program(self, progress: Progress[Any]) -> Program[Progress[Any]]:
        """What leads from there to the last round."""
        return training(
            self.experiment.algorithm,
            progress,
            self.keys.public,
            rounds=self.experiment.rounds,
            evaluate=self.evaluate(),
            evaluate_every=max(1, self.experiment.evaluate_every),
            stop=self.stop,
        )

    def evaluate(self) -> Evaluate | None:
        """The program that measures the model; None: it is never measured."""
        if not self.experiment.evaluate_every:
            return None
        return evaluation(self.learner, self.measured_at)

    @cached_property
    def measured_at(self) -> tuple[PartyId, ...]:
        """Whose examples measure the model: the server's; else clients' own, for tests if they have any."""
        people = self.population
        if people.test is not None:
            return ("server",)
        return tuple(map(own_test, people.find_test_clients())) or tuple(range(people.num_clients))

    def runtime(self, clients: ClientSide | None = None) -> Simulation:
        """Who performs it; without clients of their own, it computes them in this process."""
        clients = clients or Clients(self.learner, self.population, self.keys)
        return Simulation(clients, self.population.num_clients, self.keys, self.experiment.devices)

    def clients(self, store: Store | None, num_rounds: int, *, alone: bool = True) -> AdaptiveClients:
        """Who compute, in the way that was asked for; a context manager. They find their memory in the store.

        Args:
          num_rounds: how many are still to come.
          alone: whether no other run is performed beside this one; else one process computes it.
        """
        make = partial(
            _make_clients,
            self.experiment.model,
            self.population,
            self.keys,
            self.experiment.execution.together,
        )
        recall = {} if store is None else {"recall": store.memory}
        execution = self.experiment.execution if alone else self.experiment.execution.alone()
        return AdaptiveClients(make, execution, num_rounds=num_rounds, **recall)


def _make_clients(
    model: Model, population: FederatedData, keys: Keys, together: bool | None, recall: Recall
) -> Clients:
    """The clients, as worker processes make them too."""
    learner = model.bind(population.feature_shape, population.num_classes)
    return Clients(learner, population, keys, recall, together=together)


def prepare_run(experiment: Experiment) -> Prepared:
    """Loads, shares out, binds and checks.

    Raises: InvalidInput: if data, model and the rest don't fit each other.
      CompositionError: if transforms and reducers can't stand together.
    """
    whose, name = experiment.algorithm.performed_by, type(experiment.algorithm).__name__
    if whose != "server":
        raise InvalidInput(
            f"{name} is a program that each {whose} performs for itself; lead them together in Python, with "
            "hanse.simulation.drive_together, or name another algorithm"
        )
    keys = Keys.from_seed(experiment.seed)
    with ThreadPoolExecutor(1) as beside:
        beside.submit(experiment.model.load)  # if it can't be, `bind` says why
        population = load_population(experiment)
        population, encoder = _encode_features(experiment, population, keys)
    learner = experiment.model.bind(population.feature_shape, population.num_classes)
    ready = Prepared(experiment, population, learner, _watching(experiment, learner), encoder)
    for baseline in experiment.baselines:
        baseline.check(experiment.algorithm)
    _check_evaluation(ready)
    _check_composition(ready)
    return ready


def load_population(experiment: Experiment) -> FederatedData:
    """Who has what, before any preprocessing. Raises: InvalidInput: if data and partition don't fit."""
    keys = Keys.from_seed(experiment.seed)
    if isinstance(experiment.data, FederatedData):
        population = experiment.data
    else:
        assert experiment.partition is not None
        population = partition_data(
            experiment.data.load(), experiment.partition, keys.public.fold_in("partition")
        )
    if experiment.client_test_fraction:
        population = population.holding_out(experiment.client_test_fraction, client_tests(experiment.seed))
    return population


def client_tests(seed: int) -> Key:
    """By which clients hold out test examples."""
    return Keys.from_seed(seed).public.fold_in("client tests")


def _encode_features(
    experiment: Experiment, population: FederatedData, keys: Keys
) -> tuple[FederatedData, Encoder | None]:
    """The data with features of numbers, and what made them so."""
    preprocessing = experiment.preprocessing or (tabular() if population.columns else None)
    if preprocessing is None:
        return population, None
    key = keys.public.fold_in("preprocessing")
    clients = Clients(cast(Learner, None), population, keys)
    runtime = Simulation(clients, population.num_clients, keys, experiment.devices)
    encoder = drive(preprocessing.program(Schema.of(population.client(0).x), key), runtime)
    return population.map(encoder), encoder


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
    key = ready.keys.public.fold_in("rehearsal")
    program = ready.experiment.algorithm.round(ready.begin().state, key)
    runtime = ready.runtime()
    with suppress(StopIteration, RoundAbandoned):
        command = next(program)
        while isinstance(command, Sample | Dispatch):
            command = program.send(runtime.perform(command))
    program.close()
