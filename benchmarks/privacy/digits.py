"""The price of privacy on the digits: 1,437 clients that hold one image each, 100 rounds, updates of norm 1.

    python benchmarks/privacy/digits.py            writes digits.json beside this file
    python benchmarks/privacy/digits.py picture    writes digits.svg from it

Each client takes part in a round with probability 0.1. Noise multipliers are 0, 0.5, 1, 2 and 4, with three
seeds; z = 0 means clipping, Poisson sampling and a fixed denominator without noise. Epsilon is that of the
books of the runs, by privacy loss distributions (and by Rényi divergences), for delta = 1e-5.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import hanse
from hanse.algorithms import fed_avg, uniform
from hanse.core import Close, fixed_mean
from hanse.data import digits, iid
from hanse.privacy import compose, compute_epsilon, gaussian
from hanse.transforms import clip

RESULTS = Path(__file__).with_suffix(".json")
CLIENTS, RATE, ROUNDS, MAX_NORM, DELTA = 1437, 0.1, 100, 1.0, 1e-5
NOISES, SEEDS = (0.0, 0.5, 1.0, 2.0, 4.0), (0, 1, 2)
LR, SERVER_LR = 0.5, 4.0


def private(noise_multiplier: float, lr: float = LR, server_lr: float = SERVER_LR) -> fed_avg:
    """Makes FedAvg with the protections of central privacy, by hand."""
    noise = (gaussian(noise_multiplier),) if noise_multiplier else ()
    return fed_avg(
        lr,
        sampling_rate=RATE,
        weighting=uniform(),
        close=Close(minimum_fraction=0.0),
        server_lr=server_lr,
        uplink=(clip(MAX_NORM), *noise),
        into=fixed_mean(RATE * CLIENTS),
    )


def measure(noise_multiplier: float) -> dict[str, Any]:
    """Runs all seeds; returns their accuracies and the epsilon of their books."""
    found, began_s = [], time.perf_counter()
    for seed in SEEDS:
        result = hanse.run(
            data=digits(),
            partition=iid(CLIENTS),
            algorithm=private(noise_multiplier),
            rounds=ROUNDS,
            seed=seed,
            evaluate_every=ROUNDS,
        )
        found.append(result.final.metrics["accuracy"])
    seconds = time.perf_counter() - began_s
    spent = compose(release for record in result.records for release in record.usage.releases)
    return {
        "noise_multiplier": noise_multiplier,
        "epsilon_pld": compute_epsilon(spent, DELTA, "pld") if spent else None,
        "epsilon_rdp": compute_epsilon(spent, DELTA) if spent else None,
        "accuracy": statistics.fmean(found),
        "accuracies": found,
        "seconds_per_run": seconds / len(SEEDS),
    }


def main() -> None:
    rows = [measure(noise) for noise in NOISES]
    settings = {"clients": CLIENTS, "rate": RATE, "rounds": ROUNDS, "max_norm": MAX_NORM, "delta": DELTA}
    RESULTS.write_text(
        json.dumps({**settings, "lr": LR, "server_lr": SERVER_LR, "seeds": SEEDS, "rows": rows}, indent=1)
        + "\n",
        encoding="utf-8",
    )
    for row in rows:
        print({name: row[name] for name in ("noise_multiplier", "epsilon_pld", "epsilon_rdp", "accuracy")})


def draw() -> None:
    """Draws accuracy over epsilon, with the seeds as dots."""
    import altair as alt

    said = json.loads(RESULTS.read_text(encoding="utf-8"))
    noised = [row for row in said["rows"] if row["epsilon_pld"] is not None]
    plain = next(row for row in said["rows"] if row["epsilon_pld"] is None)
    dots = [{"epsilon": r["epsilon_pld"], "accuracy": a} for r in noised for a in r["accuracies"]]
    means = [
        {"epsilon": r["epsilon_pld"], "accuracy": r["accuracy"], "z": f"z = {r['noise_multiplier']:g}"}
        for r in noised
    ]
    scale = alt.Scale(zero=False)
    x = alt.X(
        "epsilon:Q", title="epsilon, delta = 1e-5 (smaller is more private)", scale=alt.Scale(type="log")
    )
    y = alt.Y("accuracy:Q", title="test accuracy after 100 rounds", scale=scale)
    line = alt.Chart(alt.Data(values=means)).mark_line(color="#1f4e79").encode(x=x, y=y)
    labels = alt.Chart(alt.Data(values=means)).mark_text(dy=-12).encode(x=x, y=y, text="z:N")
    points = alt.Chart(alt.Data(values=dots)).mark_point(color="#1f4e79", filled=True).encode(x=x, y=y)
    without = alt.Chart(alt.Data(values=[{"accuracy": plain["accuracy"]}]))
    level = without.mark_rule(strokeDash=[4, 4], color="#888").encode(y=y)
    chart = (level + line + points + labels).properties(width=480, height=280)
    chart.save(str(RESULTS.with_suffix(".svg")))


if __name__ == "__main__":
    draw() if sys.argv[1:] == ["picture"] else main()
