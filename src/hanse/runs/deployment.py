"""Settings and files for real parties, as `hanse serve` and `hanse join` need them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hanse.algorithms import PeerTraining, can_train
from hanse.config import IMPORTS, Experiment, Warn, format_plain, read, to_plain, warn_user
from hanse.core import Array, Examples, InvalidInput, Key
from hanse.core.exchange import Progress, Record, find_classes
from hanse.data import Dataset, FederatedData, Partition, draw_groups, held_out, own_test
from hanse.evaluation import on_site, write_headline
from hanse.imports import Import, find_registered, list_functions
from hanse.network.protocol import Plan, PlanImport
from hanse.network.server import RunJob
from hanse.runs.contract import Contract
from hanse.runs.kept import check_same_data, experiment_of
from hanse.runs.machine import environment
from hanse.runs.own_code import import_code, record_imports
from hanse.runs.own_file import read_description, read_examples, read_with_groups
from hanse.runs.places import existing
from hanse.runs.preparation import (
    Prepared,
    ServedRows,
    assess_model,
    client_tests,
    find_guess,
    find_led,
    load_population,
    prepare_run,
)
from hanse.runs.protection import claim_of
from hanse.runs.result import Result
from hanse.runs.wanted import Wanted
from hanse.simulation import Devices

__all__ = ["NO_DATA", "SHARE", "Parties"]

SHARE = "share"
"""The word for the client's share of a built-in data set, in place of a file. It is for trying things out."""

NO_DATA = "none"
"""The word for no data, in place of a file: for a party that only takes part in protocols."""

BUILT_IN = ("digits",)
"""The data sets that come with Hanse: a plan that names one of them opens no file of a client's machine."""


class Parties:
    """The maker of jobs from settings, and of examples from files."""

    def register(self) -> None:
        """Registers the values in plans, which importing this module has done already."""

    def job(
        self, file: Path | None, sets: Sequence[str], imports: Sequence[str] = (), warn: Warn = warn_user
    ) -> RunJob:
        """Makes the run that settings describe. For `imports` and `warn` see `hanse.read`.

        The model is evaluated on the server's test set, or else on the clients' own examples.
        """
        experiment = read(file, sets, imports=imports, warn=warn)
        _check_served(experiment, warn)
        return self._make_job(experiment, warn)

    def job_of(
        self,
        store: Path,
        run: str,
        imports: Sequence[str] = (),
        accept_changed_imports: bool = False,
        warn: Warn = warn_user,
    ) -> RunJob:
        """Makes the job of a run that was begun before, from the settings that are kept of it.

        Raises:
          InvalidInput: if its data or its code are not what they were.
          StoreError: if there is no such run.
        """
        runs = existing(store)
        info = runs.info(run)
        code = import_code(info, imports, accept_changes=accept_changed_imports)
        job = self._make_job(experiment_of(info, None, code.named_by(info)), warn)
        check_same_data(info, job.said["data_sha256"])
        code.record(runs, info, "serve", replaces=True)
        return job

    def _make_job(self, experiment: Experiment, warn: Warn) -> RunJob:
        if experiment.adversary is not None:
            raise InvalidInput(
                "adversary makes clients of a simulation lie, and a server can't make real ones do so; leave "
                "out [adversary], or simulate with hanse run"
            )
        if isinstance(experiment.algorithm, PeerTraining):
            raise InvalidInput(
                f"{type(experiment.algorithm).__name__} trains peers that exchange models without a server, "
                "so a server can't run it, and real peers over the network are not built yet; simulate with "
                "hanse run, or name an algorithm that a server leads, such as fed_avg"
            )
        ready = prepare_run(experiment)
        people, settings = ready.population, ready.experiment.settings()
        for line in people.notes:
            warn(line)
        is_testable = ready.measures_itself or people.test is not None or people.find_test_clients()
        if experiment.evaluate_every and not is_testable:
            raise InvalidInput(
                "the data have no test set that the server could hold; let clients hold some examples out, "
                "client_test_fraction = 0.2, or write evaluate_every = 0"
            )
        rows = ServedRows(ready)
        for line in _explain_baselines(rows):
            warn(line)

        def recall(records: Sequence[Record]) -> None:
            rows.recall(list(records))
            if ready.spending is not None:  # what the run has spent of its budget of privacy
                ready.spending.recall(records)

        return RunJob(
            plan=plan_of(ready),
            begin=ready.begin,
            program=rows.program,
            notes=rows.notes,
            learner=ready.learner,
            role=people.role,
            num_clients=people.num_clients,
            houses=people.names,
            settings={
                "experiment": settings,
                "data_sha256": people.fingerprint,
                **record_imports(ready.imports),
            },
            environment=environment(),
            num_present=_num_present(experiment, ready),
            parties=ready.parties,
            recall=recall,
            conclude=lambda run, status, progress, records, reason, uncounted: {
                **Result.of(
                    run,
                    status,
                    progress,
                    records,
                    reason,
                    uncounted,
                    higher=ready.higher_is_better,
                    remedy=experiment.algorithm.remedy,
                    on_test=ready.chooses_on_test,
                    led=find_led(experiment.algorithm),
                ).to_json(),
                "headline": _write_headline(rows, progress, uncounted),
                "privacy": _claim(ready, records),
                **_assess(rows, status, progress),
                **_tell_rows(rows),
            },
        )

    def check_files(self, data: str | None, test: str | None) -> None:
        """Checks that files exist that were named on a command line. Nothing is read but their description.

        Raises: InvalidInput.
        """
        if data is not None and data not in (SHARE, NO_DATA):
            _check_file("--data", data)
            if data.endswith(".toml"):
                _check_file(f"--data {data} names", read_description(data).path)
        if test is not None:
            _check_file("--test", test)

    def data(
        self, what: str, number: int, test: str | None = None, warn: Warn = warn_user
    ) -> Callable[[Plan], Examples]:
        """Opens a client's own data: a file like those of the plan, or its `share` of the settings' data.

        Args:
          test: a file of test examples; None: the settings say which of these data are held out.
          warn: is called with what the owner of the file should know.
        """
        if what == SHARE:
            return lambda plan: _share(plan).client(number)
        _check_file("--data", what)
        return lambda plan: (
            _file(plan, what, number, warn)[0]
            if test is None
            else read_examples(what, data_needs(plan), warn=warn)
        )

    def test(self, what: str, number: int, test: str | None = None) -> Callable[[Plan], Examples]:
        """Opens a client's test examples: a file of their own, or rows held out as the settings say."""
        if test is not None:
            _check_file("--test", test)
            return lambda plan: read_examples(test, data_needs(plan), is_test=True)
        if what == SHARE:
            return lambda plan: _share(plan).role(own_test(number))
        return lambda plan: _file(plan, what, number)[1]

    def wanted(self, plan: Plan) -> Wanted:
        """Describes the examples of a plan, and the groups by which it holds some out."""
        said = json.loads(plan.settings)
        group = said["data"].get("group") if said["client_test_fraction"] else None
        return replace(data_needs(plan), group=group)

    def contract_data(
        self, contract: Contract, number: int, warn: Warn = warn_user
    ) -> Callable[[Plan], Examples]:
        """Opens the data of a contract, once a plan is found to suit it."""
        return lambda plan: _read_contract(plan, contract, number, warn)[0]

    def contract_tests(self, contract: Contract, number: int) -> Callable[[Plan], Examples]:
        """Opens the test examples of a contract, once a plan is found to suit it."""
        return lambda plan: _read_contract(plan, contract, number, lambda line: None)[1]

    def bind(self, plan: Plan) -> Any:
        """Makes the learner of a plan."""
        return plan.model.bind(plan.feature_shape, plan.num_classes)


IGNORED: Mapping[str, str] = {
    "devices": "the clock of a simulation; real devices take the time that they take, or drop out",
    "execution": "how a simulation computes its clients; real clients compute by themselves",
}
"""The settings that say nothing to a server, by what they are."""


def _check_served(experiment: Experiment, warn: Warn) -> None:
    """Checks that a server would not leave settings out that someone wrote. Raises: InvalidInput."""
    default = Experiment()
    for name, what in IGNORED.items():
        given, usual = getattr(experiment, name), getattr(default, name)
        if given != usual:
            said = format_plain(to_plain(given))
            raise InvalidInput(
                f"{name} is {said}: {what}, so hanse serve can't use it. Leave {name} out, or write "
                f"--set {name}={format_plain(to_plain(usual))} here and keep it in the file for hanse run"
            )


def _explain_baselines(rows: ServedRows) -> Iterator[str]:
    """Explains which of the settings' baselines real parties can't train."""
    trained = None if rows.work is None else rows.baseline
    for one in rows.ready.experiment.baselines:
        name = type(one).__name__
        if isinstance(one, on_site) and one is not trained:
            yield (
                f"{name} is not trained: each party would train it at home and measure it on its own test "
                "examples, which it has not; write client_test_fraction = 0.2"
            )
        elif one is not trained:
            yield (
                f"{name} is not trained: no machine has the rows of all clients; hanse run compares a "
                "simulation with it"
            )


def _assess(rows: ServedRows, status: str, progress: Progress[Any]) -> dict[str, Any]:
    """Describes the named metrics of a run that has ended, as the last measurement found them."""
    ready = rows.ready
    if status != "completed" or not ready.metrics:
        return {}
    if ready.population.test is not None:
        found = assess_model(ready, progress.state.params, is_open=False)
    else:
        found = rows.assess()
    return {} if found is None else {"assessment": found}


def _tell_rows(rows: ServedRows) -> dict[str, Any]:
    """Returns the rows that parties have shared, and who has not."""
    told = rows.describe()
    return {} if told is None else {"parties": list(rows.list_rows()), "sharing": told}


def _claim(ready: Prepared, records: Sequence[Record]) -> dict[str, Any] | None:
    claim = claim_of(records, ready.experiment.privacy, ready.disclosure, is_simulated=False)
    return None if claim is None else claim.to_json()


def _write_headline(rows: ServedRows, progress: Progress[Any], uncounted: Sequence[Any]) -> list[str]:
    """Writes the headline of a run of real parties, of whom the server knows what they share."""
    ready = rows.ready
    tests, guess = ready.population.test, None
    is_measured = tests is not None and bool(ready.experiment.evaluate_every) and not ready.measures_itself
    if tests is not None and is_measured:
        guess = find_guess(ready.learner, progress.state.params, tests)
    said = list(
        write_headline(
            rows=rows.list_rows(),
            guess=guess,
            num_tests=len(tests) if tests is not None and is_measured else None,
            num_parties=ready.population.num_clients,
            num_uncounted=sum(not one.counted for one in uncounted),
        )
    )
    return [*said, sentence] if (sentence := rows.write_sentence()) else said


def _num_present(experiment: Experiment, ready: Prepared) -> int:
    """Counts the clients that must be there when the run begins: as many as its first exchanges need."""
    num_clients = ready.population.num_clients
    fraction = getattr(experiment.algorithm, "fraction", None)
    at_clients = (experiment.evaluate_every and "server" not in ready.measured_at) or ready.measures_objective
    if at_clients or not isinstance(fraction, float):
        return num_clients if at_clients else 1
    return max(1, round(fraction * num_clients))


def plan_of(ready: Prepared) -> Plan:
    """Makes the plan that clients receive of a run, without the run's name."""
    people, needed = ready.population, list_needed(ready.imports)
    settings = {name: said for name, said in ready.experiment.settings().items() if name != IMPORTS}
    if needed:
        settings[IMPORTS] = [one.name for one in needed]
    return Plan(
        "",
        json.dumps(settings, sort_keys=True),
        ready.experiment.model,
        tuple(people.feature_shape),
        people.num_classes,
        tuple(people.classes),
        ready.encoder,
        needed,
    )


SERVERS_OWN = (Dataset, Partition, Devices)
"""The kinds of values that only the server uses: nothing of them is sent, and no client calls them."""


def list_needed(imports: Sequence[Import]) -> tuple[PlanImport, ...]:
    """Lists the imports that the clients of a run need too, without their places on this machine.

    Modules of data sets, partitions and devices alone are the server's own.
    """
    classes = find_classes(object)
    return tuple(
        PlanImport(
            f"{found.module}.py" if found.kind == "file" else found.module,
            found.kind,
            found.digest,
            found.files,
        )
        for found in imports
        if not all(issubclass(classes[name], SERVERS_OWN) for name in find_registered(found))
        or any(map(can_train, list_functions(found)))
    )


def data_needs(plan: Plan) -> Wanted:
    """Describes the examples of a plan. Only names of columns are taken from the settings of its data."""
    said = json.loads(plan.settings)["data"]
    return Wanted.of(said, plan.feature_shape, plan.num_classes, plan.classes, plan.encoder)


def _share(plan: Plan) -> FederatedData:
    """Divides a built-in data set as a plan says. Nothing else of the plan is made here."""
    said = json.loads(plan.settings)
    if said["data"].get("name") not in BUILT_IN:
        raise InvalidInput(
            f"the run's data are {said['data'].get('name')}(), but {SHARE!r} stands for a built-in set only "
            f"({', '.join(BUILT_IN)}); name a file of your own"
        )
    of_data = ("data", "partition", "seed", "client_test_fraction")
    people = load_population(Experiment.from_settings({name: said[name] for name in of_data if name in said}))
    return people if plan.encoder is None else people.map(plan.encoder)


def _check_file(option: str, path: str) -> None:
    is_folder = option == "--data" and Path(path).is_dir()  # its reader says what is wrong with it
    if not (is_folder or Path(path).is_file()):
        also = f", or {SHARE!r}" if option == "--data" else ""
        raise InvalidInput(f"{option} {path}: there is no such file; write a path{also}")


def _file(plan: Plan, path: str, number: int, warn: Warn = lambda line: None) -> tuple[Examples, Examples]:
    """Splits a client's own file into training and test examples, as a simulation would."""
    said = json.loads(plan.settings)
    fraction, wanted = said["client_test_fraction"], data_needs(plan)
    if fraction:
        wanted = replace(wanted, group=said["data"].get("group"))
    examples, groups = read_with_groups(path, wanted, warn=warn)
    return _split(examples, groups, fraction, client_tests(said["seed"]), number)


def _read_contract(plan: Plan, contract: Contract, number: int, warn: Warn) -> tuple[Examples, Examples]:
    """Compares a plan with a contract, and only then opens its files; returns examples to train and to test.

    Raises: Forbidden: if the plan wants something else. InvalidInput: if the files can't be
      read, or don't suit it.
    """
    said = json.loads(plan.settings)
    fraction = contract.client_test_fraction
    fraction = 0.0 if contract.test else said["client_test_fraction"] if fraction is None else fraction
    wanted = contract.limit(data_needs(plan))
    if fraction:
        wanted = replace(wanted, group=said["data"].get("group"))
    contract.check(wanted)
    own, said_in = contract.reader, str(contract.file)
    examples, groups = read_with_groups(
        own.path, wanted, own, warn=warn, where=contract.where, said_in=said_in
    )
    contract.check_size(len(examples))
    if contract.test is None:
        return _split(examples, groups, fraction, client_tests(said["seed"]), number)
    reader = replace(own, path=contract.test)
    tests, _ = read_with_groups(
        contract.test, wanted, reader, is_test=True, warn=warn, where=contract.where, said_in=said_in
    )
    return examples, tests


def _split(
    examples: Examples, groups: Array | None, fraction: float, key: Key, number: int
) -> tuple[Examples, Examples]:
    """Holds out some of a client's rows to test on, or the rows of some groups."""
    if groups is None:
        kept, tested = held_out(len(examples), fraction, key.fold_in(number))
    else:
        is_tested = np.isin(groups, list(draw_groups(groups, fraction, key)))
        kept, tested = np.flatnonzero(~is_tested), np.flatnonzero(is_tested)
    return examples.take(kept), examples.take(tested)
