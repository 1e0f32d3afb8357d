"""The time that Hanse needs to start, and the size of its core install.

    python benchmarks/core/start.py [--install] [--before SRC]

Medians over fresh processes: importing the package, `hanse run --set rounds=1` from command to end, and
processor seconds, which a busy machine changes less: of `hanse run`, 100 rounds of the digits, beside
importing NumPy and SQLAlchemy, which every run needs.
With --install, a fresh virtual environment is made and the core install in it is weighed. With --before,
nothing but processor seconds of commands is measured, by turns with an earlier version, whose `src` is named.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from machine import keep, save

RUNS = 9
PROJECT = Path(__file__).resolve().parents[2]


def seconds(*command: str) -> float:
    """Return wall-clock seconds of one process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def median(*command: str) -> float:
    """Return the median of several runs, after one that warms the caches."""
    seconds(*command)
    return round(statistics.median(seconds(*command) for _ in range(RUNS)), 3)


def processor_seconds(*command: str) -> float:
    """Return the median of the processor seconds of several runs, after one that warms the caches."""
    spent = []
    for _ in range(TURNS + 1):
        before = os.times()
        subprocess.run(command, check=True, capture_output=True)
        after = os.times()
        spent.append(after[2] + after[3] - before[2] - before[3])
    return round(statistics.median(spent[1:]), 3)


COMMANDS = {
    "run_digits": ("run",),
    "run_one_round": ("run", "--set", "rounds=1"),
    "ls": ("ls",),
}
TURNS = 3


def measure_turns(before: Path) -> dict[str, dict[str, float]]:
    """Return the least processor seconds of commands, by turns before and now, and their ratio."""
    paths = {"before_s": before, "now_s": PROJECT / "src"}
    spent: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(RUNS + 1):  # the first one compiles, and begins the store
            for command, words in COMMANDS.items():
                for version, path in paths.items():
                    store = ["--store", str(Path(folder, f"{version}.db"))]
                    env = {
                        **os.environ,
                        "PYTHONPATH": str(path),
                        "PYTHONPYCACHEPREFIX": str(Path(folder, version)),
                    }
                    env.pop("PYTHONDONTWRITEBYTECODE", None)
                    began = os.times()
                    asked = [sys.executable, "-m", "hanse", *words, *store]
                    subprocess.run(asked, check=True, capture_output=True, env=env)
                    ended = os.times()
                    if turn:
                        seconds = ended[2] + ended[3] - began[2] - began[3]
                        spent.setdefault((command, version), []).append(seconds)
    least = {
        command: {version: round(min(spent[command, version]), 2) for version in paths}
        for command in COMMANDS
    }
    return {command: {**s, "ratio": round(s["now_s"] / s["before_s"], 2)} for command, s in least.items()}


def imported() -> float:
    """Return the seconds that `import hanse` adds to a bare interpreter, with all public names loaded."""
    code = "import time; t = time.perf_counter(); import hanse; print(time.perf_counter() - t)"
    outs = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(RUNS)]
    return round(statistics.median(map(float, outs)), 3)


def installed_mb() -> float:
    """Return the megabytes that the core install adds to a fresh virtual environment, bytecode included."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        before = weigh(Path(folder))
        constraints = PROJECT / "constraints.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, PROJECT], check=True)
        return round((weigh(Path(folder)) - before) / 1e6, 1)


def weigh(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Measure and save."""
    if "--before" in sys.argv:
        before = Path(sys.argv[sys.argv.index("--before") + 1]).resolve()
        keep(__file__, "before_and_now", {"turns": TURNS, **measure_turns(before)})
        return
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "runs.db"))
        first = median(sys.executable, "-m", "hanse", "run", "--set", "rounds=1", "--store", store)
        command = (sys.executable, "-m", "hanse", "run", "--store", store)
        processor = {
            "run_digits_s": processor_seconds(*command),
            "import_numpy_and_sqlalchemy_s": processor_seconds(
                sys.executable, "-c", "import numpy, sqlalchemy.orm"
            ),
        }
    result: dict[str, object] = {"import_s": imported(), "run_one_round_s": first}
    if "--install" in sys.argv:
        result["core_install_mb"] = installed_mb()
    save(__file__, result)
    keep(__file__, "processor", processor)


if __name__ == "__main__":
    main()
