"""Gradient descent in parallel, four ways: progress by rounds, computation and simulated time.

    python benchmarks/parallel/four_ways.py       # writes four_ways.json and four_ways.png

16 clients hold the UCI digits (Dirichlet .3) and fit softmax regression with l2 = .01 by full gradients:
map-reduce, FedAvg with 5 local steps, the asynchronous parameter server, and delayed gradient averaging
with D = 5. All have the step size 0.3; the parameter server takes 16 single steps where the others take a
mean, so its own is 16 times smaller. A round is one message of each client, an epoch one visit of each
example; the parameter server's are means over clients.

Two kinds of devices: "latency" has equal devices of 1 ms an example, whose messages are .5 s under way each
way; "stragglers" need 3 ms an example or more (Pareto, tail 1.2: some are ten times slower), and .05 s each
way.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import machine

from hanse import run
from hanse.algorithms import async_sgd, dga, fed_avg, map_reduce
from hanse.data import digits, dirichlet
from hanse.learners import softmax
from hanse.simulation import Link, constant_speed, pareto_speed, sequential, timed

NUM_CLIENTS, LR, NUM_ROUNDS, LOCAL_STEPS = 16, 0.3, 150, 5
DEVICES = {
    "latency": timed(constant_speed(0.001), link=Link(latency_s=0.5)),
    "stragglers": timed(pareto_speed(0.003, 1.2), link=Link(latency_s=0.05)),
}
WAYS = {
    "map-reduce": (map_reduce(LR), 1, 1),
    "FedAvg, 5 local steps": (fed_avg(LR, 1.0, epochs=LOCAL_STEPS, batch_size=None), 1, LOCAL_STEPS),
    "parameter server": (async_sgd(LR / NUM_CLIENTS, batch_size=None), NUM_CLIENTS, 1),
    "delayed, D = 5": (dga(LR, 5), 1, 1),
}


def follow(name: str, devices: str) -> list[dict[str, float]]:
    """Return the loss after each round, with what it took."""
    algorithm, steps_a_round, epochs_a_round = WAYS[name]
    result = run(
        data=digits(),
        partition=dirichlet(NUM_CLIENTS, 0.3),
        model=softmax(l2=0.01),
        algorithm=algorithm,
        rounds=NUM_ROUNDS * steps_a_round,
        evaluate_every=steps_a_round,
        devices=DEVICES[devices],
        execution=sequential(),
    )
    rows, answers, virtual_s = [], 0, 0.0
    for record in result.records:
        answers += record.usage.counted
        virtual_s += record.usage.virtual_s
        if "loss" in record.metrics:
            rounds = answers / NUM_CLIENTS
            rows.append(
                {
                    "rounds": round(rounds, 3),
                    "epochs": round(rounds * epochs_a_round, 3),
                    "seconds": round(virtual_s, 2),
                    "loss": round(record.metrics["loss"], 5),
                }
            )
    return rows


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the loss over rounds, epochs and both kinds of seconds."""
    import altair as alt

    panels = []
    for devices, what, title in (
        ("latency", "rounds", "rounds of communication"),
        ("latency", "epochs", "epochs of computation"),
        ("latency", "seconds", "simulated seconds, with latency"),
        ("stragglers", "seconds", "simulated seconds, with stragglers"),
    ):
        ways = found[devices]
        end = min(max(row[what] for row in each) for each in ways.values())
        rows = [{"way": name, **row} for name, each in ways.items() for row in each if row[what] <= end]
        lines = (
            alt.Chart(alt.Data(values=rows))
            .mark_line()
            .encode(
                x=alt.X(f"{what}:Q", title=title),
                y=alt.Y(
                    "loss:Q", title="loss on the test set", scale=alt.Scale(type="log", domain=[0.4, 2.5])
                ),
                color=alt.Color("way:N", title=None, sort=list(ways), legend=alt.Legend(orient="bottom")),
            )
        )
        panels.append(lines.properties(width=320, height=220))
    alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:])).save(path, scale_factor=1.5)


def find_first(rows: list[dict[str, float]], loss: float) -> dict[str, float] | None:
    """Return the first row whose loss is low enough."""
    return next((row for row in rows if row["loss"] <= loss), None)


def main() -> None:
    """Write four_ways.json and four_ways.png."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = {devices: {name: follow(name, devices) for name in WAYS} for devices in DEVICES}
    least = [min(row["loss"] for row in each) for ways in found.values() for each in ways.values()]
    target = round(1.02 * max(least), 2)
    first = {
        devices: {name: find_first(each, target) for name, each in ways.items()}
        for devices, ways in found.items()
    }
    result = {"machine": machine(), "target_loss": target, "first_to_reach_it": first, "losses": found}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result) + "\n")
    draw(found, Path(__file__).with_suffix(".png"))
    print(target, json.dumps(first, indent=1))


if __name__ == "__main__":
    main()
