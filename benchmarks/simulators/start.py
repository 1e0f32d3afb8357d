"""From the command to the first finished round of W1: Hanse as a user starts it, Flower and pfl.

    python benchmarks/simulators/start.py

The tools take turns, five times each. `hanse run FILE.toml` of one round is timed to its end: it reads an
.npz file, keeps the run in a store, and prints. Python keeps compiled bytecode, as for an installed package.
Writes start.json. Needs the environments and the data that `run.py --workload W1` makes.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

import numpy as np
from environments import OURS
from machine import save
from run import TOOLS, _started
from workloads import WORKLOADS

W1 = WORKLOADS["W1"]
TIMES = 5
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
SETTINGS = """
rounds = 1
evaluate_every = 0
model = "mlp"
data = {{ name = "npz", path = "{path}" }}
partition = {{ name = "iid", num_clients = 100 }}
algorithm = {{ name = "fed_avg", lr = 0.1, fraction = 0.1, epochs = 5, batch_size = 10 }}
"""


def command_s(file: Path) -> float:
    """Return seconds of `hanse run`, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [str(OURS.python.with_name("hanse")), "run", str(file)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=ENVIRONMENT)
        return time.perf_counter() - began


def first_round_s(name: str) -> float:
    """Return seconds from the start of a tool's process to the end of its first round."""
    with ExitStack() as stack:
        return _started(TOOLS[name], W1, 2, stack).first_round_s


def main() -> None:
    """Measure, and write the results."""
    file, data = W1.folder / "W1.toml", W1.folder / "W1.npz"
    if not data.exists():
        x, y = W1.data
        images, labels = x.reshape(-1, 784), y.reshape(-1)
        np.savez(data, x=images, y=labels, test_x=images[:1000], test_y=labels[:1000])
    file.write_text(SETTINGS.format(path=data))
    command_s(file)  # fills the cache of compiled programs
    seconds: dict[str, list[float]] = {"hanse run FILE.toml": [], "hanse": [], "flower": [], "pfl": []}
    for _ in range(TIMES):
        for name, found in seconds.items():
            found.append(round(first_round_s(name) if name in TOOLS else command_s(file), 2))
            print(name, found[-1], flush=True)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    ratios = {name: round(median / medians["hanse run FILE.toml"], 2) for name, median in medians.items()}
    save(__file__, {"first_round_done_s": seconds, "times_as_long": ratios})


if __name__ == "__main__":
    main()
