"""Audits central privacy by canaries, and breaks it on purpose, to show that the audit would see it.

    python benchmarks/privacy/canary.py            writes canary.json beside this file

1,437 clients are canaries. Each is in by the toss of a coin: then its update is one coordinate of its own,
ten times as long as the bound, and otherwise it is zero. z = 2, q = 0.1, 100 rounds, as in digits.py: epsilon
is 2.58 for delta = 1e-5. Whoever sees all released models makes 250 guesses, a number chosen before.

Steinke, Nasr, Jagielski, "Privacy auditing with one (1) training run", NeurIPS 2023, arXiv 2305.08846.
"""

import json
import math
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np

import hanse
from hanse.algorithms import Weighting, fed_avg, trained_by, uniform
from hanse.core import Close, Examples, fixed_mean, value
from hanse.data import FederatedData, from_clients
from hanse.privacy import CanaryAudit, audit_guesses, compute_epsilon, gaussian
from hanse.transforms import clip

RESULTS = Path(__file__).with_suffix(".json")
CANARIES, GUESSES, RATE, ROUNDS, NOISE, DELTA = 1437, 250, 0.1, 100, 2.0, 1e-5
SEEDS, LENGTH, CLASSES = (0, 1, 2, 3, 4), 10.0, 2


@value
class nine_times(Weighting):
    """A weight of nine for each client."""

    largest: ClassVar[float | None] = 9.0

    def of(self, num_examples: int) -> float:
        return 9.0


def plant(params: Any, data: Any) -> None:
    """Moves a coordinate that is this canary's own, if its coin says so."""
    number, is_in = int(data.x[0, 0]), bool(data.x[0, 1])
    if is_in:
        params["weights"].reshape(-1)[number] += LENGTH


def plant_canaries(is_in: Any) -> FederatedData:
    """Makes clients with one row each: its number and its coin, among as many features as the model needs."""
    rows = np.zeros((len(is_in), 1, math.ceil(len(is_in) / CLASSES)))
    rows[:, 0, 0], rows[:, 0, 1] = np.arange(len(is_in)), is_in
    return from_clients([Examples(row, np.zeros(1, int)) for row in rows], num_classes=CLASSES)


def audit(
    seed: int,
    noise_multiplier: float = NOISE,
    *,
    canaries: int = CANARIES,
    guesses: int = GUESSES,
    rounds: int = ROUNDS,
    rate: float = RATE,
    weighting: Weighting = uniform(),
) -> CanaryAudit:
    """Trains once on canaries, scores each by the likelihood of what its coordinate did, and guesses."""
    coins = np.random.default_rng(seed).random(canaries) < 0.5
    scores, last = np.zeros(canaries), np.zeros(canaries)
    known = noise_multiplier or NOISE  # without noise any number ranks them alike

    def score(record: Any, params: Any) -> None:
        nonlocal scores, last
        now = params["weights"].reshape(-1)[:canaries].astype(float)
        if record.round:
            seen = (now - last) * rate * canaries
            surprise = np.clip((seen - 0.5) / known**2, -50, 50)
            scores += np.log1p(rate * np.expm1(surprise))
        last = now

    noise = (gaussian(noise_multiplier),) if noise_multiplier else ()
    hanse.run(
        data=plant_canaries(coins),
        algorithm=fed_avg(
            sampling_rate=rate,
            weighting=weighting,
            close=Close(minimum_fraction=0.0),
            client=trained_by(plant),
            uplink=(clip(1.0), *noise),
            into=fixed_mean(rate * canaries),
        ),
        rounds=rounds,
        seed=seed,
        evaluate_every=0,
        watch=score,
    )
    return audit_guesses(scores, coins, guesses, delta=DELTA)


def _ignore_weights(reducer: fixed_mean, max_weight: float) -> float:
    return 1.0 / reducer.denominator


def break_noise(stack: ExitStack) -> None:
    """Lets the server add a tenth of the noise."""
    noise = sys.modules[gaussian.__module__]
    whole = noise.draw_noise
    stack.enter_context(
        mock.patch.object(noise, "draw_noise", lambda shape, std, key: whole(shape, std / 10, key))
    )


def skip_clipping(stack: ExitStack) -> None:
    """Lets clients send updates unclipped, and the server accept them."""
    stack.enter_context(mock.patch("hanse.transforms.clip.l2_norm", return_value=0.0))
    stack.enter_context(mock.patch("hanse.transforms.clip.l2_norms", _find_no_norms))
    stack.enter_context(mock.patch("hanse.core.exchange.admission.limit_norm", return_value=None))
    stack.enter_context(mock.patch("hanse.simulation.blocks.limit_norm", return_value=None))


def _find_no_norms(values: Any) -> Any:
    return np.zeros(len(next(iter(values.values()))))


def weigh_afterwards(stack: ExitStack) -> None:
    """Calibrates noise as if each client counted once."""
    stack.enter_context(mock.patch.object(fixed_mean, "moves", _ignore_weights))


MUTANTS = {
    "a tenth of the noise": (break_noise, uniform()),
    "clipping skipped": (skip_clipping, uniform()),
    "weights after clipping": (weigh_afterwards, nine_times()),
}


def audit_mutant(name: str, seed: int, **settings: Any) -> CanaryAudit:
    """Audits a run in which something is broken that its epsilon does not know."""
    breaks, weighting = MUTANTS[name]
    with ExitStack() as stack:
        breaks(stack)
        return audit(seed, weighting=weighting, **settings)


def main() -> None:
    began_s = time.process_time()
    claimed = compute_epsilon({(RATE, NOISE): ROUNDS}, DELTA)
    sound = [audit(seed) for seed in SEEDS]
    others = {"noise off": audit(0, 0.0), **{name: audit_mutant(name, 0) for name in MUTANTS}}
    bounds = [found.bound for found in sound]
    for found in sound:
        print(found)
    for name, found in others.items():
        print(f"{name}: {found}")
    settings = {
        "canaries": CANARIES,
        "guesses": GUESSES,
        "rate": RATE,
        "rounds": ROUNDS,
        "noise_multiplier": NOISE,
        "delta": DELTA,
    }
    said = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        **settings,
        "claimed_epsilon": claimed,
        "cap": sound[0].cap,
        "bounds": dict(zip(map(str, SEEDS), bounds, strict=True)),
        "mean_bound": statistics.fmean(bound or 0.0 for bound in bounds),
        **{name: found.bound for name, found in others.items()},
        "processor_s": round(time.process_time() - began_s, 1),
    }
    RESULTS.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    refuted = {name: found.refutes(claimed) for name, found in others.items()}
    assert not any(found.refutes(claimed) for found in sound), bounds
    assert all(refuted.values()), refuted


if __name__ == "__main__":
    main()
