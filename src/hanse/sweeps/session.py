"""Sweeps: many runs that differ in some settings and in their seeds, compared.

A sweep keeps nothing of its own. Its runs are in the store, each with its settings, so asking for the same
sweep again finds them there and performs only the missing ones. A larger sweep begins with the runs of a
smaller one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from hanse.algorithms import settle_fraction
from hanse.config import (
    IMPORTS,
    IN_PYTHON,
    Experiment,
    UnknownSetting,
    Warn,
    WrongSetting,
    build,
    import_modules,
    leaves,
    merge,
    override,
    parse,
    parse_assignments,
    place_files,
    take_audit,
    to_plain,
    warn_user,
    written_where,
)
from hanse.core import HanseError, InvalidInput, Plain, check_count
from hanse.data import Dataset, FederatedData
from hanse.imports import Import, describe_changes
from hanse.processes import num_processors
from hanse.runs import ENDED, changes, default_store, environment, find_imports, list_kept, prepare_run
from hanse.sweeps.result import SweepResult, SweepRun
from hanse.sweeps.search import OVER, Axis, Search, Trial, axes, between, grid, settings_of
from hanse.sweeps.worker_pool import RunOutcome, Seen, SweepTask, run_all

if TYPE_CHECKING:
    from hanse.store import RunInfo

__all__ = ["Sweep", "SweepPlan", "plan_sweep", "read_sweep", "sweep"]

KEYS = ("over", "seeds", "search")

NOT_OF_DATA = ("algorithm", "model", "rounds", "evaluate_every", "stop")
"""Settings that the data don't depend on."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that was asked for.

    Args:
      settings: the settings that all runs share, as `Experiment.settings` returns them.
      over: the axes along which the runs differ.
      seeds: each trial is run once with each seed.
      search: chooses the combinations that are tried.
      data: replaces the data in the settings.
      imports: what was imported of the modules that the settings name.
    """

    settings: Mapping[str, Plain]
    over: Mapping[str, Axis]
    seeds: tuple[int, ...] = (0,)
    search: Search = grid()
    data: Dataset | FederatedData | None = None
    imports: tuple[Import, ...] = ()

    def trials(self) -> list[Trial]:
        """Lists the combinations, each once. Raises: WrongSetting: if the search can't use an axis."""
        return list({_said(trial): trial for trial in self.search.trials(self.over)}.values())

    def tree(self, trial: Trial) -> dict[str, Plain]:
        """Returns all settings of a trial, unchecked."""
        return override(self.settings, *settings_of(trial))

    def experiments(self) -> "Iterator[tuple[Trial, Experiment]]":
        """Yields the runs, trial by trial. Raises: WrongSetting: at the first that can't be made."""
        for trial in self.trials():
            tree = {**self.tree(trial), "seed": self.seeds[0]}
            first = Experiment.from_settings(tree, data=self.data, imports=self.imports)
            for seed in self.seeds:
                yield trial, replace(first, seed=seed)


def sweep(
    experiment: Experiment = Experiment(),
    *,
    over: Mapping[str, Any],
    seeds: Sequence[int] | None = None,
    search: Search = grid(),
    store: str | Path | None = None,
    num_workers: int | None = None,
) -> SweepResult:
    """Performs many runs that differ in some settings and in their seeds, side by side in processes.

    A script must call this below `if __name__ == "__main__":`, because its processes import the script.

        hanse.sweep(
            hanse.Experiment(rounds=50),
            over={"algorithm": [fed_avg(), fed_sgd()], "algorithm.lr": between(0.01, 1.0, log=True)},
            search=random(num_trials=20),
            seeds=[0, 1, 2],
        )

    Args:
      experiment: the settings that all runs share.
      over: by dotted path, the values to try or the range to draw from; shorter paths are set first.
      seeds: each trial is run once with each seed; None: with that of the experiment.
      search: `grid()`, all combinations, or `random(num_trials)`.
      store: the place where runs are kept, and found again; None: where the command line keeps runs.
      num_workers: processes, of one thread each; None: one for each processor.

    Raises: InvalidInput: at the first setting that can't be used; nothing has begun then.
    """
    try:
        asked = Sweep(
            experiment.settings(),
            axes({path: _plain_axis(axis) for path, axis in over.items()}),
            _seeds([experiment.seed] if seeds is None else list(seeds)),
            search,
            experiment.data if experiment.settings()["data"].get(IN_PYTHON) else None,
            experiment.imports,
        )
        plan = plan_sweep(asked, default_store() if store is None else store)
    except WrongSetting as wrong:
        raise InvalidInput(wrong.among(leaves(experiment.settings()))) from wrong
    return plan.perform(num_workers)


def _plain_axis(axis: Any) -> Plain:
    if isinstance(axis, list | tuple):
        return [item if isinstance(item, Mapping) else to_plain(item) for item in axis]
    return to_plain(axis) if isinstance(axis, between) else axis


# -- from files --------------------------------------------------------------------------------


def read_sweep(
    file: str | Path | None = None,
    sets: Sequence[str] = (),
    *,
    imports: Sequence[str] = (),
    warn: Warn = warn_user,
) -> Sweep:
    """Reads the sweep that a TOML file and assignments describe.

    >>> asked = read_sweep(None, ["sweep.over.algorithm.lr=[0.1, 0.3]", "sweep.seeds=[0, 1]"])
    >>> [(trial, experiment.seed) for trial, experiment in asked.experiments()][1:3]
    [({'algorithm.lr': 0.1}, 1), ({'algorithm.lr': 0.3}, 0)]

    Args:
      file: TOML as for `hanse run`, with a table `sweep`; or None.
      sets: "key.sub=value"; a key that begins with "sweep." changes that table.
      imports, warn: see `hanse.read`.

    Raises: InvalidInput: naming the setting, where it was written, and what to write instead.
    """
    from_file, from_sets = parse(file), parse_assignments(sets)
    trees = {f"{file}: ": from_file.pop("sweep", {}), "--set ": from_sets.pop("sweep", {})}
    if not any(trees.values()):
        what = "the sweep has no axes" if file is None else f"{file} has no table [sweep]"
        raise InvalidInput(f'{what}; write [sweep.over] and below it "algorithm.lr" = [0.1, 0.3]')
    place_files(file, from_file, warn)
    take_audit(file, from_file, from_sets)
    imported = import_modules(file, from_file, from_sets, imports, warn)
    table: dict[str, Plain] = {}
    over: dict[str, Axis] = {}
    for where, tree in trees.items():
        with _written(where):
            table = merge(table, _check_table(tree))
            over.update(axes(tree.get("over", {})))
    where = next(where for where, tree in reversed(trees.items()) if tree)
    shared: dict[str, Plain] = override(Experiment().settings(), from_file, from_sets)
    with _written(where):
        search = build(Search, table.get("search", "grid"), "sweep.search")
        seeds = _seeds(table.get("seeds", [shared["seed"]]))
    _check_not_swept(leaves(from_sets), over)
    asked = Sweep(shared, over, seeds, search, imports=imported)
    _check_trials(asked, where, file, from_file, from_sets)
    return asked


class _written:
    """A context that adds to an error where the wrong setting was written."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, WrongSetting):
            raise InvalidInput(self._where + error.among(f"sweep.{key}" for key in KEYS)) from error


def _check_table(tree: Plain) -> dict[str, Plain]:
    if not isinstance(tree, dict):
        raise WrongSetting("sweep", f" is {json.dumps(tree)}; write a table: [sweep]")
    for key in tree:
        if key not in KEYS:
            raise UnknownSetting(f"sweep.{key}", KEYS, "sweep")
    return tree


def _seeds(given: Plain) -> tuple[int, ...]:
    seeds: tuple[int, ...] = build(tuple[int, ...], given, "sweep.seeds")
    if not seeds:
        raise WrongSetting("sweep.seeds", " is an empty list; write at least one, such as [0]")
    if len(set(seeds)) < len(seeds):
        twice = next(seed for i, seed in enumerate(seeds) if seed in seeds[:i])
        raise WrongSetting("sweep.seeds", f" lists {twice} twice; write each seed once")
    return seeds


def _check_not_swept(paths: Iterator[str], over: Mapping[str, Axis]) -> None:
    for path in paths:
        if path in over:
            raise InvalidInput(
                f"--set {path}: the sweep sets it; write --set '{OVER}.{path}=[...]' to try other values"
            )


def _check_trials(
    asked: Sweep, where: str, file: str | Path | None, from_file: Plain, from_sets: Plain
) -> None:
    """Checks the settings of each trial, so that no run begins if one of them can't be used."""
    try:
        trials = asked.trials()
    except WrongSetting as wrong:
        raise InvalidInput(where + str(wrong)) from wrong
    for trial in trials:
        tree = asked.tree(trial)
        try:
            Experiment.from_settings(tree)
        except WrongSetting as wrong:
            swept = not wrong.path or any(
                wrong.path == path or wrong.path.startswith((f"{path}.", f"{path}[")) for path in trial
            )
            place = f"{where}{OVER}: " if swept else written_where(wrong, file, from_file, from_sets)
            raise InvalidInput(place + wrong.among(leaves(tree))) from wrong


# -- performing --------------------------------------------------------------------------------


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, with the runs of it that the store has already.

    Args:
      sweep: the sweep that was asked for.
      store: the place where runs are kept.
      members: all runs, trial by trial, with id and status of those in the store.
      experiments: the experiments of the members.
      notes: notes about the runs in the store.
    """

    sweep: Sweep
    store: str
    members: tuple[SweepRun, ...]
    experiments: tuple[Experiment, ...]
    notes: tuple[str, ...] = ()

    @property
    def due(self) -> list[int]:
        """The numbers of the members that must be performed. Runs that diverged would do so again."""
        return [i for i, m in enumerate(self.members) if m.status not in (*ENDED, "diverged")]

    def perform(
        self, num_workers: int | None = None, seen: Seen = lambda number, round, outcome: None
    ) -> SweepResult:
        """Performs the runs that are missing.

        Args:
          num_workers: processes, of one thread each; None: one for each processor.
          seen: is called with the progress of a member, by its place in `due`.
        """
        if num_workers is not None:
            check_count("num_workers", num_workers)
        due = self.due
        tasks = [
            SweepTask(
                self.experiments[i],
                dict(self.members[i].over),
                self.store,
                self.members[i].run,
                find_imports(self.experiments[i]),
            )
            for i in due
        ]
        outcomes = dict(zip(due, run_all(tasks, num_workers or num_processors(), seen), strict=True))
        return self._result(outcomes)

    def _result(self, outcomes: Mapping[int, RunOutcome]) -> SweepResult:
        from hanse.store import Runs

        infos = {info.run: info for info in Runs(self.store).infos()}
        members = [_end_member(member, outcomes.get(i), infos) for i, member in enumerate(self.members)]
        notes = dict.fromkeys([*self.notes, *(note for o in outcomes.values() for note in o.notes)])
        stop = self.experiments[0].stop
        return SweepResult.of(members, stop, self.store, tuple(notes))


def _end_member(member: SweepRun, outcome: RunOutcome | None, infos: "Mapping[str, RunInfo]") -> SweepRun:
    run = member.run if outcome is None else outcome.run
    result = infos[run].result if run is not None and run in infos else None
    if outcome is None:
        reason = (result or {}).get("reason")
        return replace(member, result=result, reason=reason)
    return replace(member, run=run, status=outcome.status, reason=outcome.reason, result=result)


def plan_sweep(asked: Sweep, store: str | Path) -> SweepPlan:
    """Finds the runs of a sweep in the store, which is made if needed. Raises: WrongSetting: as `Sweep`."""
    from hanse.store import Runs

    pairs = list(asked.experiments())
    kept = _Kept(Runs(store).infos())
    members = []
    for trial, experiment in pairs:
        info = kept.find(experiment)
        about = (None, "missing") if info is None else (info.run, info.status)
        members.append(SweepRun(trial, experiment.seed, *about))
    experiments = tuple(experiment for _, experiment in pairs)
    return SweepPlan(asked, str(store), tuple(members), experiments, tuple(kept.notes))


_BEST_LAST = ("running", "failed", "interrupted", "stopped", "diverged", "incomplete", "completed")


class _Kept:
    """The runs of sweeps in a store, to be found by their settings and data."""

    def __init__(self, infos: "Sequence[RunInfo]") -> None:
        self._runs: dict[str, list[RunInfo]] = {}
        for info in reversed(infos):
            if "sweep" in info.settings:
                self._runs.setdefault(_said(_complete(info.settings["experiment"])), []).append(info)
        self._loaded: dict[str, tuple[str, int, tuple[int, ...] | None]] = {}
        self._notes: dict[str, int] = {}
        with threadpool_limits(1):
            self._environment = environment()

    def find(self, experiment: Experiment) -> "RunInfo | None":
        if not self._runs:
            return None
        settings = experiment.settings()
        data, num_clients, targets = self._data(experiment, settings)
        if num_clients:
            settings = replace(
                experiment,
                algorithm=settle_fraction(experiment.algorithm, num_clients),
                model=experiment.model if targets is None else experiment.model.suit_targets(targets),
            ).settings()
        found = self._runs.get(_said(settings), [])
        if not found:
            return None
        same = [info for info in found if info.settings["data_sha256"] == data]
        if not same:
            self._note("were made on other data, and are performed again")
            return None
        now = find_imports(experiment)
        other = {info.run: _describe_difference(list_kept(info), now) for info in same}
        same = [info for info in same if not other[info.run]]
        if not same:
            self._note(f"were made with other code, and are performed again: {next(iter(other.values()))}")
            return None
        info = max(same, key=lambda info: _BEST_LAST.index(info.status))
        differ = changes(info.environment, self._environment)
        if differ and info.status in (*ENDED, "diverged"):
            self._note(f"were made where the last bits may differ: {'; '.join(differ)}")
        return info

    def _data(
        self, experiment: Experiment, settings: Mapping[str, Plain]
    ) -> tuple[str, int, tuple[int, ...] | None]:
        """Returns the fingerprint of the data now, the number of clients, and the shape of real targets.

        If they can't be loaded these are "", 0 and None; the run will say why.
        """
        about = _said({name: said for name, said in settings.items() if name not in NOT_OF_DATA})
        if about not in self._loaded:
            try:
                people = prepare_run(experiment).population
            except HanseError:
                return "", 0, None
            targets = people.target_shape if people.num_classes is None else None
            self._loaded[about] = people.fingerprint, people.num_clients, targets
        return self._loaded[about]

    def _note(self, note: str) -> None:
        self._notes[note] = self._notes.get(note, 0) + 1

    @property
    def notes(self) -> list[str]:
        return [f"{count} of the runs that are kept {note}" for note, count in self._notes.items()]


def _describe_difference(kept: Sequence[Import], now: Sequence[Import]) -> str:
    """Describes how the code of a run differs from the code of now; empty: it does not."""
    before, after = ({found.module: found for found in imports} for imports in (kept, now))
    digests = [{module: found.digest for module, found in side.items()} for side in (before, after)]
    said = [
        describe_changes(before[module], after[module])
        if module in before and module in after
        else f"{module} {'is not used any more' if module in before else 'was not recorded'}"
        for module in sorted({**before, **after})
        if digests[0].get(module) != digests[1].get(module)
    ]
    return ", ".join(said)


def _complete(settings: Mapping[str, Plain]) -> Mapping[str, Plain]:
    """Adds the settings that an earlier version did not have, with their defaults."""
    in_python = isinstance(data := settings.get("data"), Mapping) and data.get(IN_PYTHON)
    given = ("data", IMPORTS) if in_python else (IMPORTS,)
    kept = {name: settings[name] for name in given if name in settings}
    rest = {name: said for name, said in settings.items() if name not in kept}
    try:
        return {**Experiment.from_settings(rest).settings(), **kept}
    except (HanseError, WrongSetting):  # it names a class that is not imported: it is found as it is
        return settings


def _said(settings: Plain) -> str:
    return json.dumps(settings, sort_keys=True)
