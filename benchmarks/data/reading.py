"""Reads a wide and a long CSV file beside pandas, and measures what a run does before its first round.

    python benchmarks/data/reading.py        # needs pandas: pip install pandas

Each measurement has a process of its own, which imports its library first. Pandas reads the file into a
DataFrame; Hanse also checks the columns, makes classes of the labels and holds out test examples. Seconds are
those of the processor, because these machines are shared; the least of three turns is taken, in which all
measurements alternate. Memory is the peak of the process, less what it had before it read, also as a multiple
of the resulting features. The wide file has 200 rows of 16,000 numbers and a word; the long one has 1,000,000
rows of 20. "before round 1" is `prepare_run`: reading, schema, preprocessing, binding of the model and all
checks, with four clients. "hanse run" is the whole command with one round, from start to end.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

TURNS, BLOCK = 3, 10_000
TABLES = {"wide": (200, 16_000), "half as wide": (200, 8_000), "long": (1_000_000, 20)}

SETTINGS = """\
rounds = 1
model = "softmax"
[data]
name = "csv"
path = {path}
label = "label"
[partition]
name = "iid"
num_clients = 4
"""


def write(folder: Path, name: str) -> None:
    """Write a table, and the settings of a run of it."""
    num_rows, num_columns = TABLES[name]
    draw = np.random.default_rng(0)
    path = folder / f"{name}.csv"
    with path.open("w") as file:
        file.write(",".join([*(f"g{i}" for i in range(num_columns)), "label"]) + "\n")
        for begin in range(0, num_rows, BLOCK):
            numbers = draw.normal(size=(min(BLOCK, num_rows - begin), num_columns)).round(4).tolist()
            words = draw.choice(["ill", "well"], len(numbers)).tolist()
            file.writelines(
                f"{','.join(map(repr, row))},{word}\n" for row, word in zip(numbers, words, strict=True)
            )
    path.with_suffix(".toml").write_text(SETTINGS.format(path=json.dumps(str(path))))


def read_peak() -> int:
    """Return the most bytes that this process held (`getrusage` would count its parent, too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(what: str, path: str) -> dict[str, float]:
    """Measure one thing in this process."""
    if what == "pandas":
        import pandas

        def work() -> int:
            return int(pandas.read_csv(path).memory_usage(index=False).sum())
    elif what == "reading":
        from hanse.data import csv

        def work() -> int:
            data = csv(path, label="label").load()
            assert data.test is not None
            return data.train.x.nbytes + data.test.x.nbytes
    else:
        from hanse.config import read
        from hanse.runs import prepare_run

        experiment = read(Path(path).with_suffix(".toml"))

        def work() -> int:
            return prepare_run(experiment).population.test.x.nbytes * 5  # a fifth is held out

    before, began = read_peak(), time.process_time()
    num_bytes = work()
    seconds = time.process_time() - began
    peak = read_peak() - before
    return {"seconds": seconds, "peak_mb": peak / 1e6, "peak_to_features": peak / num_bytes}


def run(path: Path) -> dict[str, float]:
    """Measure the whole command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "hanse", "run", str(path.with_suffix(".toml"))]
    subprocess.run(command, check=True, cwd=path.parent, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def measure_apart(what: str, path: Path) -> dict[str, float]:
    """Measure in a process of its own."""
    if what == "hanse run":
        return run(path)
    command = [sys.executable, __file__, "--measure", what, str(path)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=-1).stdout)
    return found


def main() -> None:
    """Measure in turns and save."""
    import pandas
    from machine import save

    whats = {"wide": ("pandas", "reading", "before round 1", "hanse run"), "long": ("pandas", "reading")}
    whats["half as wide"] = ("before round 1", "hanse run")
    turns: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for name in TABLES:
            write(Path(folder), name)
        for _ in range(TURNS):
            for name in TABLES:
                for what in whats[name]:
                    turns[name, what].append(measure_apart(what, Path(folder, f"{name}.csv")))
    least = {at: {key: min(turn[key] for turn in found) for key in found[0]} for at, found in turns.items()}

    def divide(above: tuple[str, str], below: tuple[str, str]) -> float:
        return round(least[above]["seconds"] / least[below]["seconds"], 2)

    def show(of: dict[str, float]) -> dict[str, float]:
        return {key: round(number, 2) for key, number in of.items()}

    result: dict[str, Any] = {"pandas": pandas.__version__}
    for name in ("wide", "long"):
        result[f"{name}, {TABLES[name][0]:,} x {TABLES[name][1]:,}"] = {
            "pandas": show(least[name, "pandas"]),
            "hanse": show(least[name, "reading"]),
            "ratio": divide((name, "reading"), (name, "pandas")),
        }
    for what in ("before round 1", "hanse run"):
        result[what] = {
            "8,000 columns": show(least["half as wide", what]),
            "16,000 columns": show(least["wide", what]),
            "ratio": divide(("wide", what), ("half as wide", what)),
        }
    aim = "ratio to pandas 3 (wide) and 5 (long), peak_to_features of reading 4, ratio before round 1 2.3"
    save(__file__, {**result, "aim": f"at most: {aim}"})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        main()
