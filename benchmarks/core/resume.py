"""Kill `hanse run` with SIGKILL at random moments, resume it, and compare the parameters' SHA-256.

    python benchmarks/core/resume.py [NUM_KILLS]

Each of NUM_KILLS runs (20) is killed once or more, at moments drawn over the whole length of an undisturbed
run, start-up included, until it ends by itself.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import save

SETTINGS = ["--set", "rounds=400", "--set", "seed=3"]
HANSE = [sys.executable, "-m", "hanse"]


def call(store: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start a `hanse` process."""
    command = [*HANSE, *arguments, "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def answer(process: "subprocess.Popen[str]") -> dict[str, object]:
    """Return the JSON object that a process prints last."""
    out, _ = process.communicate(timeout=120)
    if process.returncode != 0:
        raise SystemExit(f"hanse ended with {process.returncode}: {out}")
    result: dict[str, object] = json.loads(out)
    return result


def killed_after(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Kill a process after this many seconds, unless it has ended; return whether it was killed."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def known_run(store: Path) -> str | None:
    """Return the run in the store, if the process was killed late enough to have begun one."""
    listed = subprocess.check_output([*HANSE, "ls", "--json", "--store", str(store)], text=True)
    runs = json.loads(listed)["runs"]
    return str(runs[0]["run"]) if runs else None


def disturbed(store: Path, lasts_s: float, rng: random.Random) -> tuple[str, list[float]]:
    """Return the SHA-256 of a run that was killed at least once, and the seconds before each kill."""
    kills: list[float] = []
    while True:
        run = known_run(store) if kills else None
        begin = ("resume", run, "--json") if run else ("run", "--json", *SETTINGS)
        process = call(store, *begin)
        after_s = rng.uniform(0.05, lasts_s)
        if len(kills) < 5 and killed_after(process, after_s):
            kills.append(round(after_s, 3))
            continue
        result = answer(process)
        if kills:
            return str(result["params_sha256"]), kills
        store.unlink()


def main(num_kills: int) -> None:
    """Run once undisturbed, then disturbed."""
    rng = random.Random(int(os.environ.get("SEED", "1")))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        undisturbed = answer(call(Path(folder, "whole.db"), "run", "--json", *SETTINGS))
        lasts_s = time.perf_counter() - began
        runs = []
        for i in range(num_kills):
            sha256, kills = disturbed(Path(folder, f"{i}.db"), lasts_s, rng)
            runs.append({"killed_after_s": kills, "same": sha256 == undisturbed["params_sha256"]})
            print(f"{i + 1}/{num_kills}: {runs[-1]}", file=sys.stderr)
    same = sum(bool(run["same"]) for run in runs)
    save(
        __file__,
        {
            "undisturbed_s": round(lasts_s, 2),
            "params_sha256": undisturbed["params_sha256"],
            "identical": f"{same} of {num_kills}",
            "runs": runs,
        },
    )
    if same != num_kills:
        raise SystemExit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
