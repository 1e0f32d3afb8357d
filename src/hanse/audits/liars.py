"""Liars: what a share of the clients does to the model, under the rule in place and under others."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hanse.attacks import Adversary, Attack, alie, scaled_mean, sign_flip
from hanse.audits.subject import Section, Subject, Tell, train
from hanse.config import Experiment, format_plain, to_plain
from hanse.core import HanseError, Reducer, mean
from hanse.evaluation import as_number, as_percent
from hanse.robust import geometric_median, median, multi_krum, trimmed_mean
from hanse.runs import RunDiverged

__all__ = ["audit_liars"]

TITLE = "Who can spoil it? Liars among the clients"

ATTACKS: tuple[Attack, ...] = (sign_flip(), scaled_mean(-3.0), alie())


def audit_liars(subject: Subject, tell: Tell) -> Section:
    """Runs the federation with liars, once for each attack and each rule."""
    plan, num_clients = subject.plan, subject.ready.population.num_clients
    rules = list(_list_rules(subject))
    rounds = min(subject.asked.rounds, plan.rounds)
    count = max(1, round(plan.liars_fraction * num_clients))
    total, done, rows, losses, details = len(rules) * (1 + len(ATTACKS)), 0, [], [], dict[str, Any]()
    say = as_percent if subject.metric == "accuracy" else as_number
    for number, (name, experiment) in enumerate(rules):
        cells, measures = [name], list[float | None]()
        for attack in (None, *ATTACKS):
            liars = None if attack is None else Adversary(attack, fraction=plan.liars_fraction, knows="all")
            try:
                measured = subject.measure(train(replace(experiment, rounds=rounds, adversary=liars)))
                cells.append(say(measured))
                measures.append(measured)
            except RunDiverged:
                cells.append("diverged")
                measures.append(0.0 if subject.is_higher_better else math.inf)
            except HanseError as error:
                if not number:
                    raise
                cells.append("-" if measures else _shorten(str(error)))
                measures.append(None)
            done += 1
            tell(done, total)
        rows.append(cells)
        finite = (None if one is None or math.isinf(one) else one for one in measures)
        details[name] = dict(zip(("honest", *map(_name, ATTACKS)), finite, strict=True))
        if not number:
            honest, *lied = (one for one in measures if one is not None)
            worst = min(lied) if subject.is_higher_better else max(lied)
            losses.append(max(0.0, honest - worst if subject.is_higher_better else worst - honest))
    found = {"accuracy_lost": losses[0]} if subject.metric == "accuracy" else {}
    about = (
        f"{count} of {num_clients} clients lie, drawn from the seed; they know what honest clients send. "
        f"The numbers are {subject.metric} after {rounds} rounds. "
        "The first row is the federation as configured; in the others only the rule by which the server "
        "combines updates differs. Noise that a budget chooses fits so many rounds."
    )
    return Section(TITLE, about, ("rule", "honest", *map(_name, ATTACKS)), rows, found, details=details)


def _name(attack: Attack) -> str:
    return type(attack).__name__


def _shorten(why: str) -> str:
    return "not possible: " + (why if len(why) <= 60 else f"{why[:57]}...")


def _list_rules(subject: Subject) -> Iterator[tuple[str, Experiment]]:
    """Yields the rule in place, then the others that could stand there."""
    own: Any = subject.asked.algorithm
    settled: Any = subject.ready.experiment.algorithm
    into = getattr(settled, "into", None)
    yield f"in place: {type(settled).__name__ if into is None else type(into).__name__}", subject.asked
    if not isinstance(into, Reducer):
        return
    share = getattr(settled, "fraction", None) or getattr(settled, "sampling_rate", None) or 1.0
    cohort = max(1, round(share * subject.ready.population.num_clients))
    num_liars = min(max(1, round(subject.plan.liars_fraction * cohort)), max(1, (cohort - 3) // 2))
    others: tuple[Reducer[Any], ...] = (
        mean(),
        trimmed_mean(num_liars),
        median(),
        geometric_median(),
        multi_krum(num_liars, max(1, cohort - num_liars)),
    )
    for rule in others:
        if type(rule) is not type(into):
            bare = subject.without_privacy(algorithm=replace(own, into=rule))
            note = "" if subject.asked == subject.without_privacy() else ", unprotected"
            yield f"{format_plain(to_plain(rule))}{note}", bare
