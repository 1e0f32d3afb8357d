"""Each party's row in a run of real parties: measured at the party, and shared if its owner agrees."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from hanse.config import to_plain
from hanse.core import (
    Array,
    DifferentiableLearner,
    PartyId,
    Program,
    Reducer,
    Tensors,
    fields,
    own_test,
)
from hanse.core.exchange import OF_VALIDATION, Commit, Committed, Progress, Record
from hanse.evaluation import (
    FEWEST_PARTIES,
    MAX_CLIENTS,
    OWN_TEST,
    ask_rows,
    describe_intervals,
    describe_metrics,
    find_intervals,
    measure_row,
    on_site,
    passes,
)
from hanse.runs.preparation.prepared import Prepared

__all__ = ["ServedRows"]


@dataclass
class ServedRows:
    """Asks for each party's row once a run is trained, and holds those that their owners share.

    Args:
      ready: the run.
      notes: holds the last assessment across restarts, by name.
      records: the rounds that are done.
    """

    ready: Prepared
    notes: dict[str, Any] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    _shared: dict[PartyId, Tensors] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.work = self._make_work()
        """The work that measures a row; None: parties have no test examples of their own."""

    def program(self, progress: Progress[Any]) -> Program[Progress[Any]]:
        """Makes the program that trains, and then asks for rows. No round of it differs from training's."""
        progress = yield from self._note_rounds(self.ready.program(progress))
        if self.work is not None:
            yield from self._ask(self.work, progress)
        return progress

    def recall(self, records: list[Record]) -> None:
        """Begins, or goes on from these rounds. What a dry performance has found is gone."""
        self.records[:] = records
        self.ready.last_measured.clear()
        self.notes.clear()
        self._shared = {}

    # -- what is asked -------------------------------------------------------------------------

    @property
    def why_not(self) -> str:
        """Says why no row may leave, whatever owners allow; empty: rows may."""
        experiment = self.ready.experiment
        if experiment.privacy is not None or self.ready.disclosure.releases:
            return "the run adds noise to what parties send, and a row has none"
        held = [getattr(experiment.algorithm, one.name) for one in fields(type(experiment.algorithm))]
        if experiment.secure or any(isinstance(one, Reducer) and one.hides for one in held):
            return "the run hides single parties in sums, and a row is of one party"
        return ""

    @property
    def baseline(self) -> on_site | None:
        """The baseline that parties train alone, if the settings ask for it and the model has gradients."""
        named = (one for one in self.ready.experiment.baselines if isinstance(one, on_site))
        return next(named, None) if isinstance(self.ready.learner, DifferentiableLearner) else None

    def _make_work(self) -> measure_row | None:
        ready, people = self.ready, self.ready.population
        experiment, is_few = ready.experiment, people.num_clients <= MAX_CLIENTS
        if not (experiment.evaluate_every and is_few and people.find_test_clients()) or ready.measures_itself:
            return None
        own = ready.learner.measured
        names = (*own, *(one.key for one in ready.metrics if one.is_number and one.key not in own))
        watched = ready.stop.metric.removeprefix(OF_VALIDATION)
        metric = watched if watched in names else names[0]
        baseline, most = self.baseline, (experiment.rounds + 1) * people.num_clients
        spent = passes(to_plain(experiment.algorithm), most, people.num_clients, people.num_examples)
        return measure_row(
            names,
            metric,
            metric in ready.higher_is_better,
            ready.metrics,
            None if baseline is None else baseline.lend(experiment.algorithm),
            max(1, round(spent)),
            experiment.seed,
            experiment.evaluation.min_count,
            sums=bool(experiment.evaluation.resamples and ready.metrics)
            and people.test is None
            and len(people.find_test_clients()) >= FEWEST_PARTIES
            and not self.why_not,
            shares=not self.why_not,
        )

    def _ask(self, work: measure_row, progress: Progress[Any]) -> Program[None]:
        ready, people = self.ready, self.ready.population
        shared: dict[str, Tensors] = {"params": progress.state.params}
        if work.alone is not None:
            shared["alone"] = {"passes": np.array(ready.budget(self.records).epochs)}
            if ready.experiment.initial is not None:  # which parties can't draw from the seed
                shared["start"] = ready.start()
        width = (ready.num_classes or prod(people.target_shape)) if work.sums else 0
        parties = tuple(map(own_test, people.find_test_clients()))
        key = ready.keys.public.fold_in("each party's row")
        self._shared = yield from ask_rows(work, parties, shared, key, width)

    # -- what comes of it ----------------------------------------------------------------------

    def list_rows(self) -> tuple[dict[str, Any], ...]:
        """Lists the rows that are shared, in the order of the parties."""
        if self.work is None:
            return ()
        people = self.ready.population
        found = [(number, own_test(number)) for number in people.find_test_clients()]
        return tuple(
            self.work.read(self._shared[party], number, self._name(number))
            for number, party in found
            if party in self._shared
        )

    def _name(self, number: int) -> str:
        names = self.ready.population.names
        return names[number] if names else f"client {number}"

    def describe(self) -> dict[str, Any] | None:
        """Describes who has shared a row and who has not; None: nobody was asked."""
        if self.work is None:
            return None
        asked = self.ready.population.find_test_clients()
        missing = [self._name(n) for n in asked if own_test(n) not in self._shared]
        found = {"asked": len(asked), "shared": len(asked) - len(missing), "not_shared": missing}
        return {**found, "why": self.why_not or None}

    def write_sentence(self) -> str:
        """Writes the sentence of the headline that says how many have shared; empty: nobody could."""
        told = self.describe()
        if told is None or told["why"]:
            return ""
        asked = "1 party" if told["asked"] == 1 else f"{told['asked']:,} parties"
        return f"{told['shared'] or 'none'} of {asked} shared {'its' if told['asked'] == 1 else 'their'} row"

    def _note_rounds(self, program: Program[Progress[Any]]) -> Program[Progress[Any]]:
        """Performs a program, and notes its rounds, and before each is saved what was measured last."""
        try:
            command = next(program)
            while True:
                if isinstance(command, Commit) and self.ready.last_measured:
                    count = len(self.ready.measured_at)
                    found = describe_metrics(self.ready.last_measured, OWN_TEST, num_parties=count)
                    self.notes["assessment"] = found
                event = yield command
                if isinstance(command, Commit) and isinstance(event, Committed):
                    metrics, told = {**command.metrics, **command.reported}, tuple(command.reported)
                    self.records.append(
                        Record(command.round, metrics, event.usage, 0.0, command.abandoned, reported=told)
                    )
                command = program.send(event)
        except StopIteration as end:
            progress: Progress[Any] = end.value
            return progress
        finally:
            program.close()

    def assess(self) -> dict[str, Any] | None:
        """Describes the named metrics that parties have measured last, with intervals if enough share."""
        found: dict[str, Any] | None = self.notes.get("assessment")
        if found is None:
            return None
        found = {**found, "metrics": {name: dict(one) for name, one in found["metrics"].items()}}
        resamples, sums = self.ready.experiment.evaluation.resamples, self._list_sums()
        if not resamples:
            return found
        if len(sums) < FEWEST_PARTIES:
            count = f"intervals need the rows of {FEWEST_PARTIES} parties, and {len(sums)} shared theirs"
            return {**found, "no_intervals": self.why_not or count}
        key = self.ready.keys.public.fold_in("intervals")
        for name, interval in find_intervals(sums, self.ready.metrics, key, resamples).items():
            found["metrics"][name] |= interval
        return {**found, "intervals": {**describe_intervals(resamples), "parties": len(sums)}}

    def _list_sums(self) -> list[Mapping[str, Array]]:
        if self.work is None:
            return []
        parts = [self._shared.get(own_test(number)) for number in self.ready.population.find_test_clients()]
        found = (self.work.read_sums(part) for part in parts if part is not None)
        return [sums for sums in found if sums is not None]
