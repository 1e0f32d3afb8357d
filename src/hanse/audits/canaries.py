"""Canaries: clients whose update is one coordinate, and what released models prove about epsilon by them."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from hanse.algorithms import trained_by, uniform
from hanse.audits.subject import Section, Subject, Tell
from hanse.config import Experiment
from hanse.core import Array, Examples, fields
from hanse.data import FederatedData, from_clients
from hanse.leakage import NotMeasured
from hanse.learners import softmax
from hanse.privacy import FEWEST_CANARIES, CanaryAudit, audit_guesses, central, examples, local
from hanse.runs import prepare_run, start_session
from hanse.transforms import clip

__all__ = ["audit_canaries"]

TITLE = "Is epsilon true? Canaries beside the accountant"

LENGTH = 10.0
"""The length of a canary's update; clipping shortens it."""

CLASSES = 2

GUESSED_FRACTION = 0.175
"""The share of the canaries about which a guess is made, chosen before anything is seen."""

MOST_UPDATES = 100_000
"""The most updates that all canaries together send in one run; more rounds leave fewer canaries."""


def plant_canary(params: Any, data: Any) -> None:
    """Moves a coordinate that is this canary's own, if its coin says so."""
    number, is_in = int(data.x[0, 0]), bool(data.x[0, 1])
    if is_in:
        params["weights"].reshape(-1)[number] += LENGTH


def audit_canaries(subject: Subject, tell: Tell) -> Section:
    """Trains on canaries in place of clients, with the protection as configured, and without its noise."""
    asked, privacy = subject.asked, subject.asked.privacy
    if isinstance(privacy, examples):
        raise NotMeasured("privacy of examples is not audited: these canaries are whole clients")
    if not hasattr(asked.algorithm, "client"):
        raise NotMeasured(f"{type(asked.algorithm).__name__}() has no client training to plant canaries in")
    settled: Any = subject.ready.experiment.algorithm
    rate = getattr(settled, "sampling_rate", None) or getattr(settled, "fraction", None) or 1.0
    fitting = min(subject.plan.num_canaries, int(MOST_UPDATES / (rate * asked.rounds)))
    if isinstance(privacy, central | local):
        fitting = min(fitting, math.ceil(1 / privacy.delta) - 1)
    if fitting < FEWEST_CANARIES:
        raise NotMeasured(
            f"can't tell: {fitting} canaries are too few; write num_canaries = {FEWEST_CANARIES} or more, "
            "better 1000, and fewer rounds"
        )
    coins = subject.key.fold_in("canaries").rng().random(fitting) < 0.5
    experiment = _plant(subject, coins, rate)
    found = _guess(subject, experiment, coins, rate)
    tell(1, 2)
    control = found if privacy is None else _guess(subject, _strip_noise(experiment), coins, rate)
    tell(2, 2)
    best = audit_guesses(coins * 1.0, coins, found.guesses, delta=found.delta).bound or 0.0
    if (control.bound or 0.0) < best / 2:
        raise NotMeasured(
            f"the guesses prove only {control.bound or 0:.2f} where no noise is added, of {best:.2f} that so "
            "many could prove, so that they would not find a fault"
        )
    accounted = None if subject.result.privacy is None else subject.result.privacy["epsilon"]
    rows = [
        ("accounted, at most", "nothing bounds it" if accounted is None else f"{accounted:.2f}", ""),
        ("proved by canaries, at least", f"{found.bound:.2f}", f"{found.correct} of {found.guesses} right"),
        ("control: without noise", f"{control.bound:.2f}", f"{control.correct} of {control.guesses} right"),
        ("so many guesses can prove", f"{best:.2f}", ""),
    ]
    about = (
        f"{len(coins)} canaries stand in for the clients: each is in by a coin, and then its update is one "
        "coordinate. They pass the clipping, the sum, the noise and the sampling as configured; the model is "
        "linear, because none of these depend on it. Whoever sees all released models guesses which are in. "
        f"The bound holds with {found.confidence:.0%} confidence for delta = {found.delta:g}; it can prove "
        "that epsilon is wrong, never that it is right."
    )
    numbers = {"accounted": accounted, "bound": found.bound, "control": control.bound, "cap": best}
    return Section(
        TITLE,
        about,
        ("epsilon", "value", "guesses"),
        rows,
        {"epsilon_lower_bound": found.bound or 0.0},
        details=numbers,
    )


def _plant(subject: Subject, coins: Array, rate: float) -> Experiment:
    """Returns the experiment with canaries in place of its clients."""
    own: Any = subject.asked.algorithm
    defaults = {f.name: f.default for f in fields(type(own)) if f.name in ("lr", "epochs", "batch_size")}
    changes: dict[str, Any] = {**defaults, "client": trained_by(plant_canary)}
    if getattr(own, "sampling_rate", None) is None and hasattr(own, "fraction"):
        changes["fraction"] = rate
    return subject.on(_make_canaries(coins), model=softmax(), initial=None, algorithm=replace(own, **changes))


def _make_canaries(coins: Array) -> FederatedData:
    """Makes clients with one row each: its number and its coin, among as many features as the model needs."""
    rows = np.zeros((len(coins), 1, max(2, math.ceil(len(coins) / CLASSES))))
    rows[:, 0, 0], rows[:, 0, 1] = np.arange(len(coins)), coins
    return from_clients([Examples(row, np.zeros(1, int)) for row in rows], num_classes=CLASSES)


def _strip_noise(experiment: Experiment) -> Experiment:
    """Returns the experiment with the clipping of its privacy, and no noise."""
    own: Any = experiment.algorithm
    bound = getattr(experiment.privacy, "max_norm", 1.0)
    stages = (*own.uplink, clip(bound)) if isinstance(bound, float) else own.uplink
    bare: Any = replace(own, uplink=stages, weighting=uniform())
    return replace(experiment, algorithm=bare, privacy=None)


def _guess(subject: Subject, experiment: Experiment, coins: Array, rate: float) -> CanaryAudit:
    """Trains on the canaries, and guesses from the models of all rounds which are in."""
    scores, last, size = np.zeros(len(coins)), np.zeros(len(coins)), len(coins)
    releases = prepare_run(experiment).disclosure.releases
    noise = releases[0].release.noise_multiplier if len(releases) == 1 else 0.0
    bound = getattr(experiment.privacy, "max_norm", 1.0)
    weighs = isinstance(experiment.privacy, central) and noise > 0 and isinstance(bound, float)

    def score(record: Any, params: Any) -> None:
        nonlocal scores, last
        now = params["weights"].reshape(-1)[:size].astype(float)
        if record.round:
            seen = (now - last) * rate * size
            if weighs:  # the likelihood ratio of a canary that took part with probability `rate`
                seen = np.log1p(rate * np.expm1(np.clip((seen / bound - 0.5) / noise**2, -50, 50)))
            scores = scores + seen
        last = now

    with start_session(experiment, store=None) as session:
        session.perform(score, alone=False)
    guesses = 2 * max(1, round(GUESSED_FRACTION * size / 2))
    delta = getattr(subject.asked.privacy, "delta", None)
    return audit_guesses(scores, coins, guesses, **({} if delta is None else {"delta": delta}))
