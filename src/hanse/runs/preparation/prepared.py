"""An experiment that is ready to run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hanse.algorithms import OBJECTIVE, evaluation, objective_evaluation, trained_by
from hanse.attacks import Adversary
from hanse.config import Experiment, to_plain
from hanse.core import (
    DifferentiableLearner,
    InvalidInput,
    Keys,
    Learner,
    PartyId,
    Program,
    Reducer,
    Spec,
    Stop,
    Tensors,
    fields,
)
from hanse.core.exchange import (
    OF_VALIDATION,
    Evaluate,
    PartyMemory,
    Progress,
    Record,
    Runtime,
    Store,
    choose_measure,
    training,
)
from hanse.data import VALIDATION, FederatedData, own_test
from hanse.evaluation import CLASSES, Budget, Measured, Metric, find_width, make_evaluation, passes
from hanse.imports import Import, load_same
from hanse.learners import Model
from hanse.privacy import NoisedSteps, Spending, central, examples, guard_examples, keep_separation, local
from hanse.runs.adversary import (
    OF_MARKED,
    PoisonedPopulation,
    find_parties,
    find_triggers,
    judge_left_out,
    name_marked,
)
from hanse.runs.own_code import find_imports
from hanse.runs.preparation.measures import join_measures, list_higher
from hanse.runs.protection import (
    Disclosure,
    choose_limbs,
    choose_metrics_sum,
    describe_preprocessing,
    find_views,
    guard_hidden,
    rehearse,
)
from hanse.runs.start import initial
from hanse.simulation import ClientBackend, InProcess, Simulation

if TYPE_CHECKING:
    from hanse.preprocessing import Encoder
    from hanse.runs.adversary import LieCount

__all__ = ["Prepared"]

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """An experiment that is ready to run. `prepare_run` makes it.

    Args:
      experiment: the experiment that is prepared.
      population: the data of all parties.
      learner: the model, bound to these data.
      stop: the experiment's; it watches the loss if the model has no accuracy, watches the metric on the
        validation examples if there are some, and knows which way is better.
      encoder: turns raw features into numbers, if there is preprocessing.
      metrics: the metrics that are measured beside the model's own.
    """

    experiment: Experiment
    population: FederatedData
    learner: Learner
    stop: Stop
    encoder: "Encoder | None" = None
    metrics: tuple[Metric, ...] = ()

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """The modules of users that the experiment depends on."""
        return find_imports(self.experiment)

    @property
    def parties(self) -> tuple[str, ...]:
        """The names of the parties beside clients and server that the reducers of the algorithm ask."""
        algorithm = self.experiment.algorithm
        held = [getattr(algorithm, field.name) for field in fields(type(algorithm))]
        found = (name for one in held if isinstance(one, Reducer) for name in one.parties)
        return tuple(dict.fromkeys(found))

    @property
    def keys(self) -> Keys:
        """The keys of all draws."""
        return Keys.from_seed(self.experiment.seed)

    def begin(self) -> Progress[Any]:
        """Makes the progress of a run before its first round."""
        key = self.keys.public
        params = self.start()
        return Progress(0, self.experiment.algorithm.init(params, key.fold_in("algorithm")))

    def start(self) -> Tensors:
        """Makes the parameters of the model before the first round."""
        params = self.learner.init(self.keys.public.fold_in("model"))
        if self.experiment.initial is None:
            return params
        return initial(self.experiment.initial, params)

    def budget(self, records: Sequence[Record]) -> Budget:
        """Computes the cost of these rounds, as the budget of the baselines."""
        counted = sum(record.usage.counted for record in records if record.is_closed)
        num_measured = sum(record.is_measured for record in records)
        if self.population.test is None:  # then clients have measured the model, too
            counted -= num_measured * sum(isinstance(party, int) for party in self.measured_at)
        if self.measures_objective:
            counted -= num_measured * self.population.num_clients
        settings = to_plain(self.experiment.algorithm)
        people = self.population
        spent = passes(settings, max(0, counted), people.num_clients, people.num_examples)
        key = self.keys.public.fold_in("baselines")
        if not isinstance(self.learner, DifferentiableLearner):
            name = type(self.experiment.model).__name__
            raise InvalidInput(f"baselines train by gradients, which {name}() has none of; leave them out")
        return Budget(
            self.learner,
            self.population,
            self.experiment.algorithm,
            self.start(),
            spent,
            self.stop,
            key,
            self.higher_is_better,
            self.metrics,
            self.experiment.privacy is None,
        )

    @cached_property
    def disclosure(self) -> Disclosure:
        """The disclosure of the run about its clients. All chains are bound to find it, as a trial."""
        key, state = self.keys.public.fold_in("rehearsal"), self.begin().state
        evaluate, algorithm = self.evaluate(), self.experiment.algorithm
        measures = [] if evaluate is None else [choose_measure(algorithm, evaluate)(state, key)]
        if self.measures_objective:  # after the first, where a rehearsal ends
            everybody = tuple(range(self.population.num_clients))
            measures.append(objective_evaluation(everybody)(state.params, key))
        preprocesses = self.encoder is not None
        return rehearse(
            self._guard(algorithm.round(state, key)),
            [self._guard(measure) for measure in measures],
            self.runtime(),
            preprocesses=preprocesses,
            is_private=self.experiment.privacy is not None or self.experiment.secure,
        )

    @cached_property
    def views(self) -> tuple[str, ...]:
        """The views of all parties on what clients send to train, to measure and to preprocess, in words."""
        key, state = self.keys.public.fold_in("rehearsal"), self.begin().state
        evaluate, algorithm = self.evaluate(), self.experiment.algorithm
        measures = [] if evaluate is None else [choose_measure(algorithm, evaluate)(state, key)]
        before = describe_preprocessing(self.experiment.preprocessing) if self.encoder is not None else ()
        return (*before, *find_views([algorithm.round(state, key), *measures], self.runtime()))

    @cached_property
    def spending(self) -> Spending | None:
        """The spending of the run from its budget of privacy, if it has one."""
        privacy = self.experiment.privacy
        if not isinstance(privacy, central | local):
            return None
        return Spending(privacy, self.disclosure.releases)

    def program(self, progress: Progress[Any]) -> Program[Progress[Any]]:
        """Makes the program that leads from this progress to the last round, as far as its budget allows."""
        if self.tally is not None:
            self.tally.begin(progress.round)
        program = training(
            self.experiment.algorithm,
            progress,
            self.keys.public,
            rounds=self.experiment.rounds,
            evaluate=self.evaluate(),
            evaluate_every=max(1, self.experiment.evaluate_every),
            stop=self.stop,
        )
        if getattr(self.experiment.algorithm, "separation", None) is not None:
            state = progress.state
            program = keep_separation(
                program, getattr(state, "last_rounds", {}), getattr(state, "num_rounds", 0)
            )
        program = self._guard(program)
        return program if self.spending is None else self.spending.guard(program)

    def _guard(self, program: Program[T]) -> Program[T]:
        """Performs a program as long as clients send what privacy of examples and secure sums allow."""
        privacy = self.experiment.privacy
        program = guard_hidden(program) if self.experiment.secure else program
        return guard_examples(program, privacy) if isinstance(privacy, examples) else program

    @cached_property
    def noised_steps(self) -> tuple[NoisedSteps, ...] | None:
        """The noised steps of each client in the first round, where examples are protected."""
        privacy, algorithm = self.experiment.privacy, cast(Any, self.experiment.algorithm)
        if not isinstance(privacy, examples):
            return None
        steps, rounds = algorithm.work(0).steps, self.experiment.rounds
        return tuple(privacy.choose_steps(int(n), steps, rounds) for n in self.population.sizes())

    def evaluate(self) -> Evaluate | None:
        """Returns the program that measures the model, or None if it is never measured."""
        if not self.experiment.evaluate_every:
            return None
        algorithm, at = self.experiment.algorithm, self.measured_at
        hidden: dict[str, Any] = {}
        if self.experiment.secure:
            hidden = {"into": choose_metrics_sum(algorithm, at), "uplink": choose_limbs(self.learner, at)}
        measure = self._measure_at(at, keeps=True, **hidden)
        more: dict[str, tuple[str, Evaluate]] = {}
        if self.population.validation is not None:
            more[VALIDATION] = OF_VALIDATION, self._measure_at((VALIDATION,))
        for name, place in find_triggers(self.experiment.adversary).items() if self._has_test else ():
            role = name_marked(place)
            more[role] = OF_MARKED + name, evaluation(self.learner, (role,))
        if self.measures_objective:
            more[OBJECTIVE] = "", objective_evaluation(tuple(range(self.population.num_clients)))
        return join_measures(measure, more)

    def _measure_at(self, parties: tuple[PartyId, ...], *, keeps: bool = False, **way: Any) -> Evaluate:
        """Makes the program that measures the model's metrics and named ones at parties."""
        if not self.metrics:
            return evaluation(self.learner, parties, **way)
        keep = self.last_measured if keeps else []
        width = self.num_classes or prod(self.population.target_shape)
        return make_evaluation(self.learner, parties, self.metrics, width=width, keep=keep, **way)

    @cached_property
    def last_measured(self) -> list[Measured]:
        """The named metrics of the last measurement in this process, which a server keeps for its result."""
        return []

    @cached_property
    def num_classes(self) -> int | None:
        """The number of classes that the model predicts; None: it predicts none."""
        if self.learner.prediction not in CLASSES:
            return None
        known = self.population.num_classes
        return known or find_width(self.learner, self.start(), self.population.feature_shape)

    @cached_property
    def higher_is_better(self) -> frozenset[str]:
        """The names of metrics that are better when higher, of which not all need be measured."""
        names = list_higher(self.experiment.algorithm, self.learner, self.metrics)
        watched = frozenset({self.stop.metric})
        return names | watched if self.stop.better(1.0, 0.0) else names - watched

    @cached_property
    def liars(self) -> tuple[int, ...]:
        """The numbers of the clients that lie."""
        adversary, people = self.experiment.adversary, self.population
        if adversary is None:
            return ()
        key = self.keys.public.fold_in("adversary", "liars")
        return adversary.find_liars(people.num_clients, people.names, key)

    @cached_property
    def tally(self) -> "LieCount | None":
        """The liars of the run and their success; None: nobody lies."""
        adversary = self.experiment.adversary
        if adversary is None:
            return None
        from hanse.runs.adversary import LieCount

        return LieCount(adversary)

    @cached_property
    def party_data(self) -> FederatedData | PoisonedPopulation:
        """The data of all parties, also what liars train on."""
        return find_parties(self.population, self.experiment.adversary, self.keys)

    def judge_liars(self, records: Sequence[Record]) -> dict[str, Any] | None:
        """Compares who lied with whom the rule has left out; None: nobody lies."""
        if self.tally is None:
            return None
        algorithm = self.experiment.algorithm
        rule = algorithm if hasattr(algorithm, "can_name") else getattr(algorithm, "into", None)
        return judge_left_out(records, self.liars, self.tally.lies, getattr(rule, "can_name", False))

    @property
    def is_attack_idle(self) -> bool:
        """Returns whether liars did only what honest clients do, if all rounds are known."""
        lies = None if self.tally is None else self.tally.lies
        return lies is not None and lies.is_whole and not lies.has_effect

    @property
    def lacks_success(self) -> bool:
        """Returns whether an attack has a trigger, and no test examples tell whether it succeeds."""
        triggers = find_triggers(self.experiment.adversary)
        return bool(triggers) and bool(self.experiment.evaluate_every) and not self._has_test

    @property
    def _has_test(self) -> bool:
        return self.population.test is not None

    @property
    def measures_itself(self) -> bool:
        """Returns whether the algorithm measures its state, which the model's metrics can't."""
        return bool(self.experiment.algorithm.measured)

    @property
    def measures_objective(self) -> bool:
        """Returns whether all clients measure the training objective, too."""
        return bool(self.experiment.evaluate_every) and self.stop.metric == OBJECTIVE

    @cached_property
    def measured_at(self) -> tuple[PartyId, ...]:
        """The parties that measure the model: the server, or else clients, on their test examples if any."""
        people = self.population
        if people.test is not None:
            return ("server",)
        return tuple(map(own_test, people.find_test_clients())) or tuple(range(people.num_clients))

    @property
    def chooses_on_test(self) -> bool:
        """Returns whether the run stops by a metric on test examples, and not on validation examples."""
        if self.stop.metric == OBJECTIVE or self.stop.metric.startswith(OF_VALIDATION):
            return False
        watches = self.stop.target is not None or self.stop.patience is not None
        return watches and not all(isinstance(party, int) for party in self.measured_at)

    @property
    def own_training(self) -> trained_by | None:
        """The clients' training, if it is a function of the user's own."""
        client = getattr(self.experiment.algorithm, "client", None)
        return client if isinstance(client, trained_by) else None

    def try_training(self) -> tuple[bool, tuple[str, ...]]:
        """Tries the first client's training twice.

        Returns: whether it gives the same bits; and the keys of its config that it does not read.
        """
        if self.own_training is None:
            return True, ()
        data, key = self.population.client(0), self.keys.public.fold_in("repetition")
        return self.own_training.try_out(self.learner, self.start(), data, key)

    def runtime(self, backend: ClientBackend | None = None, store: Store | None = None) -> Simulation:
        """Makes the runtime.

        Args:
          backend: computes the clients' tickets; None: they are computed in this process.
          store: holds the memory of clients; None: they begin with none.
        """
        if backend is None:
            backend = InProcess(self.learner, self.party_data, self.keys)
        elif self.experiment.adversary is not None:
            model, people = Spec.of(self.start()), self.party_data
            from hanse.runs.adversary import LyingBackend

            assert isinstance(people, PoisonedPopulation)
            assert self.tally is not None
            backend = LyingBackend(
                backend,
                self.experiment.adversary,
                self.liars,
                model,
                self.keys,
                self.tally,
                people.is_poisoned,
            )
        memory = PartyMemory(None if store is None else store.memory)
        num_clients, devices = self.population.num_clients, self.experiment.devices
        return Simulation(
            backend,
            num_clients,
            self.keys,
            devices,
            memory,
            parties=self.parties,
            num_examples=self.count_examples,
        )

    def count_examples(self, party: PartyId) -> int:
        """Returns the number of examples that a party holds; 0: it is no client."""
        return int(self._sizes[party]) if isinstance(party, int) else 0

    @cached_property
    def _sizes(self) -> Any:
        return self.population.sizes()

    def watch_lies(self, runtime: Simulation) -> Runtime:
        """Lets a runtime take down what comes of lies; if nobody lies, it is returned as it is."""
        if self.tally is None:
            return runtime
        from hanse.runs.adversary import LyingRuntime

        return LyingRuntime(runtime, self.tally)

    def backend(self, num_rounds: int, *, alone: bool = True) -> ClientBackend:
        """Makes the backend of the experiment's execution, which has to be closed.

        Args:
          num_rounds: the number of rounds that are still to come.
          alone: whether no other run is performed beside this one; otherwise one process computes it.
        """
        experiment = self.experiment
        make = partial(
            _make_backend,
            self.imports,
            experiment.model,
            self.population,
            self.keys,
            experiment.execution.together,
            self.own_training,
            experiment.adversary,
        )
        execution = experiment.execution if alone else experiment.execution.alone()
        return execution.backend(make, num_rounds)


def _make_backend(
    imports: Sequence[Import],
    model: Model,
    population: FederatedData,
    keys: Keys,
    together: bool | None,
    own_training: trained_by | None,
    adversary: Adversary | None,
) -> InProcess:
    """Makes the backend of one process, also in worker processes, which must have this process's code."""
    load_same(imports)
    learner = model.bind(population.feature_shape, population.num_classes)
    return InProcess(learner, find_parties(population, adversary, keys), keys, together=together)
