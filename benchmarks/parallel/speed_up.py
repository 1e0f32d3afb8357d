"""Speed-up of map-reduce gradient descent: simulated with m = 1..64 devices, and measured with workers.

    python benchmarks/parallel/speed_up.py       # writes speed_up.json and speed_up.png

Full-batch gradient descent on 6,400 examples of 100 features, divided among m devices. In every round, the
server broadcasts the weights, each device computes the gradient of its part, and the server adds them up.
Messages are the real ones, sent at once, without polls. Speed-up is T(1) / T(m) on the same link, T a
round's seconds.

- data centre: 10 Gbit/s, .25 ms each way; 1 ms an example, so one device needs 6.4 s a round;
- 50 ms latency: 100 Mbit/s, 50 ms each way; .15 ms an example, .96 s a round;
- server of 1 Mbit/s: 100 Mbit/s, 1 ms each way, but all messages share 1 Mbit/s; .05 ms an example, .32 s.

Measured, on this machine: least squares on 400,000 x 100 in two parts, in this process, in one worker process
and in two, by turns; the median of 12 rounds each.
"""

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from machine import machine

from hanse import run
from hanse.algorithms import fed_sgd
from hanse.core import value
from hanse.data import arrays, iid
from hanse.learners import least_squares
from hanse.simulation import (
    ClientBackend,
    Execution,
    Link,
    Make,
    WorkerPool,
    constant_speed,
    sequential,
    timed,
)

SIZES = (1, 2, 4, 8, 16, 32, 64)
LINKS = {
    "data centre": timed(constant_speed(1e-3), link=Link(10e9, 10e9, 0.00025), polls=False),
    "50 ms latency": timed(constant_speed(1.5e-4), link=Link(100e6, 100e6, 0.05), polls=False),
    "server of 1 Mbit/s": timed(
        constant_speed(5e-5), link=Link(100e6, 100e6, 0.001), server=Link(1e6, 1e6), polls=False
    ),
}


def make_data(n: int, d: int) -> Any:
    """Make a least-squares problem."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return arrays(x, (x @ rng.normal(size=d)).astype(np.float32), test_fraction=0.0)


def descend(data: Any, m: int, rounds: int, **more: Any) -> Any:
    """Perform map-reduce gradient descent; return the result."""
    algorithm = fed_sgd(lr=0.1, fraction=1.0)
    return run(
        data=data,
        partition=iid(m),
        model=least_squares(),
        algorithm=algorithm,
        rounds=rounds,
        evaluate_every=0,
        **more,
    )


def simulate(name: str, data: Any) -> list[dict[str, float]]:
    """Return the virtual seconds and the speed-up for each number of devices."""
    rows: list[dict[str, float]] = []
    for m in SIZES:
        result = descend(data, m, 2, devices=LINKS[name], execution=sequential())
        used = result.records[-1].usage
        rows.append({"m": m, "round_s": used.virtual_s, "bytes_up": used.bytes_up / m})
    return [{**row, "speed_up": round(rows[0]["round_s"] / row["round_s"], 3)} for row in rows]


@value
class in_one_worker(Execution):
    """All clients in one worker process, none in this one."""

    together = False

    def backend(self, make: Make, num_rounds: int) -> ClientBackend:
        """Build the backend."""
        return WorkerPool(make, 1)

    def alone(self) -> Execution:
        """Return an execution in this process."""
        return sequential()


def measure() -> dict[str, Any]:
    """Measure the same program in one process, and in one and two workers, by turns."""
    data = make_data(400_000, 100)
    executions = {"in process": sequential(), "1 worker": in_one_worker(), "2 workers": sequential(2)}
    seconds: dict[str, list[float]] = {name: [] for name in executions}
    ends = set()
    for _ in range(2):
        for name, execution in executions.items():
            result = descend(data, 2, 8, execution=execution)
            seconds[name] += [record.seconds for record in result.records[-6:]]
            ends.add(result.params_sha256)
    assert len(ends) == 1, "all of them compute the same bits"
    median = {name: statistics.median(each) for name, each in seconds.items()}
    two_s = median["2 workers"]
    return {
        "round_s": {name: round(found, 4) for name, found in median.items()},
        "speed_up_over_1_worker": round(median["1 worker"] / two_s, 3),
        "speed_up_over_in_process": round(median["in process"] / two_s, 3),
    }


def draw(simulated: dict[str, list[dict[str, float]]], measured: dict[str, Any], path: Path) -> None:
    """Draw the speed-ups."""
    import altair as alt

    rows = [
        {"m": row["m"], "speed-up": row["speed_up"], "link": n} for n, rs in simulated.items() for row in rs
    ]
    rows += [{"m": m, "speed-up": m, "link": "ideal"} for m in SIZES]
    over = {"measured, over 1 worker": "over_1_worker", "measured, over in process": "over_in_process"}
    points = [{"m": 2, "speed-up": measured[f"speed_up_{of}"], "link": name} for name, of in over.items()]
    x = alt.X("m:Q", scale=alt.Scale(type="log", base=2), title="devices")
    y = alt.Y("speed-up:Q", scale=alt.Scale(type="log", base=2), title="speed-up T(1) / T(m)")
    lines = alt.Chart(alt.Data(values=rows)).mark_line(point=True).encode(x=x, y=y, color="link:N")
    marks = alt.Chart(alt.Data(values=points)).mark_point(size=120, filled=True)
    (lines + marks.encode(x=x, y=y, color="link:N")).properties(width=520, height=360).save(
        path, scale_factor=2
    )


def main() -> None:
    """Perform all, draw the picture and write the result."""
    data = make_data(6400, 100)
    simulated = {name: simulate(name, data) for name in LINKS}
    for name, rows in simulated.items():
        print(name, [row["speed_up"] for row in rows], flush=True)
    measured = measure()
    print(measured)
    draw(simulated, measured, Path(__file__).with_suffix(".png"))
    load = round(os.getloadavg()[0], 1)
    result = {"machine": machine(), "load": load, "simulated": simulated, "measured": measured}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
