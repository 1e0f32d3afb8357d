"""Settings and files, as real parties need them: what `hanse serve` and `hanse join` stand on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hanse.apps.environment import environment
from hanse.apps.experiment import IN_PYTHON, Experiment
from hanse.apps.opening import Wanted, opened
from hanse.apps.prepared import Prepared, prepared
from hanse.apps.reading import read
from hanse.apps.result import Result
from hanse.apps.settings import build
from hanse.core.errors import InvalidInput
from hanse.core.learner import Examples
from hanse.data import Dataset
from hanse.network.server import Job
from hanse.network.wire import Plan

__all__ = ["SHARE", "Parties"]

SHARE = "share"
"""In place of a file: the client's share of the data that the settings name. To try things out."""


class Parties:
    """Makes jobs of settings, and examples of files."""

    def register(self) -> None:
        """What plans are made of is known once this module is imported."""

    def job(self, file: Path | None, sets: Sequence[str]) -> Job:
        """The run that settings describe. Evaluates on the test set, which the server holds."""
        experiment = read(file, sets)
        ready = prepared(experiment)
        people, settings = ready.population, experiment.settings()
        if experiment.evaluate_every and people.test is None:
            raise InvalidInput(
                "the data have no test set that the server could hold; write evaluate_every = 0"
            )
        return Job(
            plan=plan_of(ready),
            begin=ready.begin,
            program=ready.program,
            learner=ready.learner,
            role=people.role,
            num_clients=people.num_clients,
            settings={"experiment": settings, "data_sha256": people.fingerprint},
            environment=environment(),
            conclude=lambda run, status, progress, records, reason: Result.of(
                run, status, progress, records, reason
            ).to_json(),
        )

    def data(self, what: str, number: int) -> Callable[[Plan], Examples]:
        """Opens a client's own data: a file like those of the plan, or its `share` of the settings' data."""
        if what == SHARE:
            return lambda plan: _share(plan, number)
        if not Path(what).exists():
            raise InvalidInput(f"--data {what}: there is no such file; write a path, or {SHARE!r}")
        return lambda plan: opened(what, wanted_of(plan))

    def bind(self, plan: Plan) -> Any:
        """The learner of a plan."""
        return plan.model.bind(plan.feature_shape, plan.num_classes)


def plan_of(ready: Prepared) -> Plan:
    """What clients are told of a run, but for its name."""
    people = ready.population
    return Plan(
        "",
        json.dumps(ready.experiment.settings(), sort_keys=True),
        ready.experiment.model,
        tuple(people.feature_shape),
        people.num_classes,
        tuple(people.classes),
        ready.encoder,
    )


def wanted_of(plan: Plan) -> Wanted:
    """What the examples of a plan look like. Raises: WrongSetting: if its data can't be told here."""
    said = json.loads(plan.settings)["data"]
    data = None if said.get(IN_PYTHON) else build(Dataset, said, "data")
    return Wanted(data, plan.feature_shape, plan.num_classes, plan.classes, plan.encoder)


def _share(plan: Plan, number: int) -> Examples:
    return prepared(Experiment.from_settings(json.loads(plan.settings))).population.client(number)
