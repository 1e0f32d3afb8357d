"""Settings and files, as real parties need them: what `hanse serve` and `hanse join` stand on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hanse.apps.environment import environment
from hanse.apps.experiment import Experiment
from hanse.apps.prepared import prepared
from hanse.apps.reading import read
from hanse.apps.result import Result
from hanse.core.errors import InvalidInput
from hanse.core.learner import Examples
from hanse.network.server import Job
from hanse.network.wire import Plan

__all__ = ["SHARE", "Parties"]

SHARE = "share"
"""In place of a file: the client's share of the data that the settings name. To try things out."""


class Parties:
    """Makes jobs of settings, and examples of files."""

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
            plan=Plan(
                "",
                json.dumps(settings, sort_keys=True),
                experiment.model,
                tuple(people.feature_shape),
                people.num_classes,
            ),
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
        """Opens a client's own data: an .npz with arrays x and y, or its `share` of the settings' data."""
        if what == SHARE:
            return lambda plan: _share(plan, number)
        path = Path(what)
        if path.suffix != ".npz":
            raise InvalidInput(
                f"--data {what}: write the path of an .npz file with arrays x and y, or {SHARE!r}"
            )
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError) as error:
            raise InvalidInput(f"--data {what} can't be read: {error}") from None
        if found.keys() < {"x", "y"}:
            raise InvalidInput(f"--data {what} holds {', '.join(found) or 'nothing'}; arrays x and y are due")
        return lambda plan: _suited(Examples(found["x"], found["y"]), plan, what)

    def bind(self, plan: Plan) -> Any:
        """The learner of a plan."""
        return plan.model.bind(plan.feature_shape, plan.num_classes)


def _share(plan: Plan, number: int) -> Examples:
    return prepared(Experiment.from_settings(json.loads(plan.settings))).population.client(number)


def _suited(examples: Examples, plan: Plan, what: str) -> Examples:
    if tuple(examples.x.shape[1:]) != plan.feature_shape:
        shape = tuple(examples.x.shape[1:])
        raise InvalidInput(f"{what}: rows of x have shape {shape}; run {plan.run} wants {plan.feature_shape}")
    if plan.num_classes is not None:
        wrong = examples.y.dtype.kind not in "iu" or not np.all(
            (examples.y >= 0) & (examples.y < plan.num_classes)
        )
        if wrong:
            raise InvalidInput(
                f"{what}: y is {examples.y.dtype}; run {plan.run} wants whole numbers "
                f"from 0 to {plan.num_classes - 1}"
            )
    return examples
