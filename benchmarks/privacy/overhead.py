"""Bytes and processor seconds of private federated averaging, beside plain federated averaging.

python benchmarks/privacy/overhead.py    writes overhead.json beside this file

1,000 clients with 20 examples of 784 features each, softmax with 7,850 parameters, 100 clients a round,
10 rounds. The machine may be busy: compare the ratios, which are of processor seconds in one process,
best of 3.
"""

import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import hanse
from hanse.algorithms import fed_avg, uniform
from hanse.data import arrays, iid
from hanse.privacy import Privacy, adaptive_clip, banded, central, tree

ROUNDS, CLIENTS, RATE = 10, 1000, 0.1
KINDS: dict[str, Privacy | None] = {
    "plain": None,
    "gaussian": central(epsilon=8.0),
    "gaussian, adaptive_clip": central(epsilon=8.0, max_norm=adaptive_clip()),
    "tree": central(epsilon=8.0, mechanism=tree()),
    "banded, 8 bands": central(epsilon=8.0, mechanism=banded(num_bands=8)),
}


def measure(privacy: Privacy | None, data: arrays) -> tuple[int, int, float]:
    """Returns bytes up and down, and processor seconds of the rounds, without what comes before the first."""
    algorithm = fed_avg(0.1, RATE, batch_size=10, weighting=uniform())
    begun = hanse.rounds(
        algorithm=algorithm,
        data=data,
        partition=iid(CLIENTS),
        rounds=ROUNDS,
        evaluate_every=0,
        privacy=privacy,
    )
    up = down = counted = 0
    began_s = None
    for done in begun:
        if began_s is None:  # the first round imports and compiles
            began_s = time.process_time()
            continue
        up, down = up + done.record.usage.bytes_up, down + done.record.usage.bytes_down
        counted += done.record.usage.counted
    assert began_s is not None
    seconds = time.process_time() - began_s
    return up // counted, down // counted, seconds / counted


def main() -> None:
    rng = np.random.default_rng(5)
    data = arrays(rng.normal(size=(20 * CLIENTS, 784)), rng.integers(10, size=20 * CLIENTS), num_classes=10)
    best: dict[str, tuple[int, int, float]] = {}
    for _ in range(3):
        for name, privacy in KINDS.items():
            found = measure(privacy, data)
            best[name] = found if name not in best else min(found, best[name], key=lambda row: row[2])
    plain = best["plain"]
    rows = [
        {
            "kind": name,
            "bytes_up": up,
            "bytes_down": down,
            "times_bytes": round((up + down) / (plain[0] + plain[1]), 4),
            "times_seconds": round(seconds / plain[2], 2),
        }
        for name, (up, down, seconds) in best.items()
    ]
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.platform(), "a_client": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
