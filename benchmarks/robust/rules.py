"""Times each rule on messages that are on disk, and measures the memory that it takes beside them.

    python benchmarks/robust/rules.py [--out benchmarks/robust/rules.json]

100 messages of 1,663,370 parameters in float32 (the CNN of McMahan et al. 2017), as a server maps them. The
memory is anonymous memory, sampled every 5 ms: mapped files don't count, because the system drops their pages
when it needs room. Each rule is folded once in a fresh process, so that none profits from another, and on one
thread, as a server folds. Seconds are those of the processor, because these machines are shared; beside them
stand those of the clock.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hanse.core import Part, Reducer, mean, reduce
from hanse.core.exchange import Stored, pieces, unpack
from hanse.robust import (
    bucketing,
    bulyan,
    centred_clipping,
    geometric_median,
    krum,
    median,
    minimum_diameter,
    multi_krum,
    nearest_neighbour_mixing,
    norm_bound,
    trimmed_mean,
)

SHAPES = {
    "conv1/kernel": (5, 5, 1, 32),
    "conv1/bias": (32,),
    "conv2/kernel": (5, 5, 32, 64),
    "conv2/bias": (64,),
    "dense/kernel": (3136, 512),
    "dense/bias": (512,),
    "out/kernel": (512, 10),
    "out/bias": (10,),
}
GRAM_S, SORT_S, MEMORY_MB = 4.0, 3.0, 100.0

RULES: dict[str, tuple[Reducer[Any], float]] = {
    "krum(20)": (krum(20), GRAM_S),
    "multi_krum(20, 60)": (multi_krum(20, 60), GRAM_S),
    "geometric_median()": (geometric_median(), GRAM_S),
    "centred_clipping(10, 3)": (centred_clipping(10.0, 3), GRAM_S),
    "minimum_diameter(10)": (minimum_diameter(10), GRAM_S),
    "nearest_neighbour_mixing(20, geometric_median())": (
        nearest_neighbour_mixing(20, geometric_median()),
        GRAM_S,
    ),
    "norm_bound(10)": (norm_bound(10.0), GRAM_S),
    "median()": (median(), SORT_S),
    "trimmed_mean(20)": (trimmed_mean(20), SORT_S),
    "bucketing(2, median())": (bucketing(2, median()), SORT_S),
    "bulyan(20)": (bulyan(20), GRAM_S + SORT_S),
    "nearest_neighbour_mixing(20, trimmed_mean(20))": (
        nearest_neighbour_mixing(20, trimmed_mean(20)),
        GRAM_S + SORT_S,
    ),
    "mean()": (mean(), GRAM_S),
}
"""Each rule with the seconds that it may take."""


def write_messages(folder: Path, num_clients: int) -> None:
    rng = np.random.default_rng(0)
    base = {name: rng.normal(size=shape).astype(np.float32) / 100 for name, shape in SHAPES.items()}
    for number in range(num_clients):
        liar = 100 if number % 5 == 0 else 1
        values = {
            name: liar * (v + rng.standard_normal(v.shape, np.float32) / 100) for name, v in base.items()
        }
        with open(folder / f"{number:03}", "wb") as file:
            file.writelines(pieces(Part(values)))


def anonymous_mb() -> float:
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024


def measure(folder: Path, name: str, results: Any) -> None:
    parts = [unpack(Stored(path), Part) for path in sorted(folder.iterdir())]
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun, used = time.perf_counter(), time.thread_time()
    with threadpool_limits(1):
        total = reduce(RULES[name][0], parts)
    seconds, clock = time.thread_time() - used, time.perf_counter() - begun
    done.set()
    watcher.join()
    norm = float(np.sqrt(sum(np.square(v, dtype=np.float64).sum() for v in total.values.values())))
    taken = {"seconds": round(seconds, 2), "clock_s": round(clock, 2)}
    results.put({**taken, "mb": round(peak[0] - before, 1), "norm": round(norm, 4)})


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", type=Path)
    out = arguments.parse_args().out
    context, table, missed = multiprocessing.get_context("spawn"), dict[str, Any](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        write_messages(Path(folder), 100)
        for name, (_, allowed_s) in RULES.items():
            results = context.Queue()
            child = context.Process(target=measure, args=(Path(folder), name, results))
            child.start()
            table[name] = {**results.get(timeout=300), "allowed_s": allowed_s}
            child.join()
            row = table[name]
            if row["seconds"] > allowed_s or row["mb"] > MEMORY_MB:
                missed.append(name)
            took = f"{row['seconds']:6.2f} s ({row['clock_s']:.2f} s by the clock) {row['mb']:7.1f} MB"
            print(f"{name:50} {took}  |total| {row['norm']:.3f}", flush=True)
    if out is not None:
        about = {
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"NumPy {np.__version__}",
            "messages": "100 of 1,663,370 float32 parameters, on disk",
            "allowed_mb": MEMORY_MB,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**about, "rules": table}, indent=1) + "\n", encoding="utf-8")
    if missed:
        raise SystemExit(f"over the allowed time or memory: {', '.join(missed)}")


if __name__ == "__main__":
    main()
