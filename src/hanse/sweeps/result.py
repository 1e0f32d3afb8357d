"""The result of a sweep: means and spreads over seeds, best settings first."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hanse.algorithms import OBJECTIVE
from hanse.core import Plain, Stop
from hanse.core.exchange import OF_VALIDATION, is_higher_better
from hanse.runs import ENDED, OF_MARKED
from hanse.sweeps.conditions import Choice, bare, compare_choices, find_worth

if TYPE_CHECKING:
    from hanse.core.exchange import Record

__all__ = ["Setting", "Spread", "SweepResult", "SweepRun", "is_success", "short", "summarise"]


@dataclass(frozen=True)
class Spread:
    """The mean and sample standard deviation of `n` values; std is None for a single value."""

    mean: float
    std: float | None
    n: int


def summarise(values: Iterable[float | None]) -> Spread | None:
    """Summarises the values that are not None; returns None if there are none.

    >>> summarise([1.0, 3.0, None])
    Spread(mean=2.0, std=1.4142135623730951, n=2)
    """
    there = [value for value in values if value is not None]
    if not there:
        return None
    mean = math.fsum(there) / len(there)
    if len(there) == 1:
        return Spread(mean, None, 1)
    if min(there) == max(there):
        return Spread(there[0], 0.0, len(there))  # rounding would give a mean that differs from all of them
    return Spread(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in there) / (len(there) - 1)), len(there))


def short(paths: Sequence[str]) -> list[str]:
    """Shortens dotted paths to their last step, where no other path ends in it.

    >>> short(["algorithm.lr", "algorithm", "model.lr", "rounds", "partition.alpha"])
    ['algorithm.lr', 'algorithm', 'model.lr', 'rounds', 'alpha']
    """
    last = [path.rpartition(".")[2] for path in paths]
    return [leaf if last.count(leaf) == 1 else path for path, leaf in zip(paths, last, strict=True)]


def _name_setting(over: Mapping[str, Plain]) -> str:
    names = short(list(over))
    return ", ".join(f"{name}={bare(said)}" for name, said in zip(names, over.values(), strict=True))


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Args:
      over: the settings that the sweep gave to it, by dotted path.
      seed: the seed of all its draws.
      run: its id; None: it has not begun.
      status: "completed", "incomplete", "diverged" or "failed"; in a planned sweep also another status of a
        store, or "missing".
      reason: why it ended before its last round.
      result: the plain data of `Result.to_json`.
    """

    over: Mapping[str, Plain]
    seed: int
    run: str | None
    status: str
    reason: str | None = None
    result: Mapping[str, Any] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        named = _name_setting(self.over)
        return f"{named}, seed {self.seed}" if named else f"seed {self.seed}"


def is_success(name: str) -> bool:
    """Returns whether a metric is the success of a backdoor."""
    return name.startswith(OF_MARKED) and name.endswith("accuracy")


COSTS = ("rounds_to_target", "bytes_up", "bytes_down", "seconds", "virtual_s")


@dataclass(frozen=True)
class Setting:
    """A trial over all seeds. Its spreads are those of the runs that completed.

    Args:
      over: the settings that were tried, by dotted path.
      members: its runs, by seed.
      best, final: the spread of the watched metric.
      costs: the spreads of rounds_to_target, bytes_up, bytes_down, seconds, virtual_s.
      attack: where clients lie, the spreads of the metrics of the attack after the last round, and of
        "precision" and "recall": the share of those left out who lied, and of lies that were left out.
    """

    over: Mapping[str, Plain]
    members: tuple[SweepRun, ...] = field(repr=False)
    best: Spread | None
    final: Spread | None
    costs: Mapping[str, Spread | None]
    attack: Mapping[str, Spread | None] = field(default_factory=dict)

    @property
    def success(self) -> float | None:
        """The mean success of its backdoor, of several the most successful one's; None: there is none."""
        found = [spread.mean for name, spread in self.attack.items() if spread and is_success(name)]
        return max(found, default=None)

    @property
    def completed(self) -> tuple[SweepRun, ...]:
        """The runs that came to their end, also those that lack rounds."""
        return tuple(member for member in self.members if member.status in ENDED)

    def __str__(self) -> str:
        return _name_setting(self.over) or "all the same"


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep.

    Args:
      metric: the metric that is compared, on the validation examples where there are some; None: none was
        measured.
      higher_is_better: whether a higher metric is better.
      settings: best first, by the number of runs that completed, the number that reached the target, the
        rounds until then, and the best metric. If they differ in conditions, choice by choice.
      choices: if the settings differ in who lies and how, what is left to choose. They are compared by their
        worst case, and by the final metric in place of the best.
      store: the place where the runs are kept.
      notes: notes for the user.
    """

    metric: str | None
    higher_is_better: bool
    settings: tuple[Setting, ...]
    store: str
    notes: tuple[str, ...] = ()
    choices: tuple[Choice[Setting], ...] = ()

    @classmethod
    def of(
        cls, members: Sequence[SweepRun], stop: Stop, store: str, notes: tuple[str, ...] = ()
    ) -> "SweepResult":
        """Makes the result of runs, which come trial by trial."""
        metric = _metric(members, stop)
        if metric is not None and _is_on_test(members, metric):
            notes = (*notes, ON_TEST)
        trials: dict[str, list[SweepRun]] = {}
        for member in members:
            trials.setdefault(repr(member.over), []).append(member)
        settings = [_setting(tuple(trial), metric) for trial in trials.values()]
        higher = _is_higher_better(members, stop, metric or stop.metric)

        def rank(setting: Setting, word: str = "final") -> tuple[float, ...]:
            found = getattr(setting, word)
            worth = find_worth(found.mean if found else None, higher)
            reached = setting.costs["rounds_to_target"]
            missing = len(setting.members) - len(setting.completed)
            return (missing, -reached.n, reached.mean, worth) if reached else (missing, 0, 0, worth)

        choices = compare_choices(settings, rank)
        if choices and any(setting.success is not None for setting in settings):
            notes = (*notes, BLIND)
        ordered = [setting for choice in choices for setting in choice.under.values()]
        ordered = ordered or sorted(settings, key=lambda setting: rank(setting, "best"))
        return cls(metric, higher, tuple(ordered), store, notes, choices)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of the conditions under which the choices are compared, such as attacks."""
        return tuple(dict.fromkeys(name for choice in self.choices for name in choice.under))

    def find_best(self, condition: str) -> Choice[Setting] | None:
        """Returns the best choice under a condition; None: nothing was measured.

        It has the best final metric; under a backdoor, which the metric does not show, the one that succeeds
        least.
        """
        found = [
            choice for choice in self.choices if condition in choice.under and choice.under[condition].final
        ]

        def rank(choice: Choice[Setting]) -> tuple[float, ...]:
            setting = choice.under[condition]
            missing = len(setting.members) - len(setting.completed)
            worth = find_worth(setting.final.mean if setting.final else None, self.higher_is_better)
            return missing, setting.success or 0.0, worth

        return min(found, key=rank, default=None)

    @property
    def names(self) -> dict[str, str]:
        """The names of the settings that were tried, by dotted path, as short as can be told apart."""
        paths = list(dict.fromkeys(path for setting in self.settings for path in setting.over))
        return dict(zip(paths, short(paths), strict=True))

    @property
    def simulates_time(self) -> bool:
        """True if rounds took other times than the one second that ideal devices need."""
        results = [member.result for member in self.members if member.result]
        return any(result["virtual_s"] != result["rounds"] for result in results)

    @property
    def members(self) -> tuple[SweepRun, ...]:
        """All runs of the sweep."""
        return tuple(member for setting in self.settings for member in setting.members)

    @property
    def failures(self) -> tuple[SweepRun, ...]:
        """The runs that diverged or failed."""
        return tuple(member for member in self.members if member.status not in ENDED)

    def curves(self) -> "dict[int, dict[int, Spread]]":
        """Computes the spread of the metric by round, by the place of the setting.

        A seed that has ended counts up to its last round; `n` says how many there are. A round is left out if
        a seed that goes on did not measure it.
        """
        return {i: self._curve(setting.completed) for i, setting in enumerate(self.settings)}

    def _curve(self, members: Sequence[SweepRun]) -> dict[int, Spread]:
        from hanse.store import Runs

        runs, seen, lasts = Runs(self.store), dict[int, list[float]](), list[int]()
        for member in members:
            measured = {record.round: self._metric(record) for record in runs.records(str(member.run))}
            found = {round: metric for round, metric in measured.items() if metric is not None}
            lasts.append(max(found, default=-1))
            for round, metric in found.items():
                seen.setdefault(round, []).append(metric)
        going = {round: sum(last >= round for last in lasts) for round in seen}
        spreads = {round: summarise(values) for round, values in seen.items() if len(values) == going[round]}
        return {round: spread for round, spread in sorted(spreads.items()) if spread is not None}

    def _metric(self, record: "Record") -> float | None:
        found = record.metrics.get(self.metric or "")
        return found if found is not None and math.isfinite(found) else None

    def to_json(self) -> dict[str, Any]:
        """Returns the result as plain data, without the single rounds."""
        return {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "num_runs": len(self.members),
            "num_completed": len(self.members) - len(self.failures),
            "settings": [_setting_as_json(setting) for setting in self.settings],
            "notes": list(self.notes),
            **(
                {"choices": [self._choice_as_json(choice) for choice in self.choices]} if self.choices else {}
            ),
        }

    def _choice_as_json(self, choice: Choice[Setting]) -> dict[str, Any]:
        finals = {name: setting.final for name, setting in choice.under.items()}
        return {
            "over": dict(choice.over),
            "final": {name: None if final is None else final.mean for name, final in finals.items()},
            "worst": choice.worst,
            "best_under": [name for name in finals if self.find_best(name) is choice],
        }


def _metric(members: Sequence[SweepRun], stop: Stop) -> str | None:
    """Returns the metric to compare: the watched one, or else the first that all runs measured."""
    found = [m.result["final"] for m in members if m.status in ENDED and m.result and m.result["final"]]
    if not found:
        return None
    common = [name for name in found[0] if name != "round" and all(name in final for final in found)]
    if any(map(_is_led_by_validation, members)):  # its metrics on these examples are too good
        common = [name for name in common if not name.startswith(OF_VALIDATION)]
        first = stop.metric.removeprefix(OF_VALIDATION)
    elif stop.metric == OBJECTIVE or stop.metric.startswith(OF_VALIDATION):
        first = stop.metric
    else:
        first = OF_VALIDATION + stop.metric
    validated = [name for name in common if name.startswith(OF_VALIDATION)]
    return next((name for name in (first, *validated, stop.metric, *common) if name in common), None)


def _is_led_by_validation(member: SweepRun) -> bool:
    found = (member.result or {}).get("findings", ())
    return any(finding["code"] == "led_by_validation" for finding in found)


ON_TEST = (
    "the settings are ranked by a metric on test examples, so that the best one's is better than on examples "
    "that nobody has seen; hold out examples to choose by: data.validation_fraction = 0.1"
)
"""The note of a sweep that chooses on test examples."""

BLIND = (
    "a backdoor does not show in the metric, so neither the order of the rows nor the worst case heeds it: "
    "its success stands in attack_accuracy"
)
"""The note of a sweep that compares choices under backdoors."""


def _is_on_test(members: Sequence[SweepRun], metric: str) -> bool:
    """Returns whether a sweep compares several settings by what the runs measured on test examples."""
    if len({repr(member.over) for member in members}) == 1 or metric == OBJECTIVE:
        return False
    about = [m.result.get("data") for m in members if m.result and m.result["final"]]
    tested = any(
        data is None or data.get("test") or data.get("num_own_tests") for data in about
    )  # None: many clients
    return tested and not metric.startswith(OF_VALIDATION)


def _is_higher_better(members: Sequence[SweepRun], stop: Stop, metric: str) -> bool:
    """Returns whether a higher metric is better, as the settings or the results of the runs say."""
    if metric == stop.metric and stop.higher_is_better is not None:
        return stop.higher_is_better
    said = [m.result["higher_is_better"] for m in members if m.result and "higher_is_better" in m.result]
    return is_higher_better(metric) or any(metric in names for names in said)


def _setting(members: tuple[SweepRun, ...], metric: str | None) -> Setting:
    results = [m.result for m in members if m.status in ENDED and m.result is not None]

    def summarise_metric(word: str) -> Spread | None:
        rows = [result[word] for result in results if result[word]]
        return summarise(row.get(metric) for row in rows) if metric else None

    costs = {name: summarise(result[name] for result in results) for name in COSTS}
    best, final = summarise_metric("best"), summarise_metric("final")
    return Setting(members[0].over, members, best, final, costs, _summarise_attack(results))


def _summarise_attack(results: Sequence[Mapping[str, Any]]) -> dict[str, Spread | None]:
    """Summarises what attacks achieved, and whom the rule left out, of runs in which clients lied."""
    finals = [result["final"] or {} for result in results]
    names = dict.fromkeys(name for final in finals for name in final if name.startswith(OF_MARKED))
    judged = [result["adversary"] for result in results if result.get("adversary")]
    found = {name: summarise(final.get(name) for final in finals) for name in names}
    shares = ("precision", "recall") if judged else ()
    return found | {name: summarise(one[name] for one in judged) for name in shares}


def _setting_as_json(setting: Setting) -> dict[str, Any]:
    runs = [{"seed": m.seed, "run": m.run, "status": m.status, **_of(m)} for m in setting.members]
    spreads = {"best": setting.best, "final": setting.final, **setting.costs}
    attack = {"attack": _as_json(setting.attack)} if setting.attack else {}
    about = {"over": dict(setting.over), "num_completed": len(setting.completed)}
    return {**about, **_as_json(spreads), **attack, "runs": runs}


def _as_json(spreads: Mapping[str, Spread | None]) -> dict[str, Any]:
    return {
        name: None if s is None else {"mean": s.mean, "std": s.std, "n": s.n} for name, s in spreads.items()
    }


SAID_OF_A_RUN = ("rounds", "final", "best", *COSTS, "params_sha256")


def _of(member: SweepRun) -> dict[str, Any]:
    result = member.result or {}
    return {"reason": member.reason, **{name: result.get(name) for name in SAID_OF_A_RUN}}
