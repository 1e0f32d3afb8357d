"""Seconds a round of this checkout beside another version of Hanse, on the same work and in turns.

    git worktree add ../hanse-before COMMIT
    python benchmarks/simulators/versions.py ../hanse-before [--workload W1 ...] [--rounds N]

Both run in this Python's environment, which needs Hanse with its extras; each imports its own `src`. Prints
the median seconds of each and their ratio, and keeps them in versions.json.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from environments import Environment
from machine import machine
from run import AT_ONCE, HERE, ROUNDS, Tool, _measure
from workloads import WORKLOADS, Workload

ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Here(Environment):
    """The environment of this very process."""

    @property
    def python(self) -> Path:
        return Path(sys.executable)


def tool(name: str, checkout: Path) -> Tool:
    """Returns Hanse as a checkout has it."""
    told = ("of_checkout.py", str(checkout))
    return Tool(name, Here("here", ()), dict.fromkeys(WORKLOADS, told))


def compare(workload: Workload, other: Path, num_rounds: int) -> dict[str, Any]:
    """Measures both versions, and checks that they train the same model."""
    prepare = [sys.executable, str(HERE / "tools" / "prepare.py"), workload.name]
    path = os.pathsep.join(map(str, (ROOT / "src", HERE)))
    rounds = str(num_rounds + AT_ONCE[workload.name] + 1)
    subprocess.run([*prepare, rounds], check=True, env={**os.environ, "PYTHONPATH": path})
    found = dict(_measure(workload, [tool("before", other), tool("now", ROOT)], num_rounds))
    failed = [one["failed"] for one in found.values() if "failed" in one]
    if failed:
        raise SystemExit(f"{workload.name}: {failed[0]}")
    if found["now"]["checksum"] != found["before"]["checksum"]:
        raise SystemExit(f"{workload.name}: the two do not train the same model: {found}")
    return {**found, "ratio": round(found["now"]["seconds"] / found["before"]["seconds"], 3)}


def comparisons(names: list[str], other: Path, num_rounds: int | None) -> Iterator[tuple[str, Any]]:
    """Yields each workload's figures."""
    for name in names:
        yield name, compare(WORKLOADS[name], other, num_rounds or ROUNDS[name])


def main() -> None:
    """Measures what was asked for, and writes it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="a checkout of another version")
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=["W1", "W2", "W3", "W4"])
    parser.add_argument("--rounds", type=int, help="of each; by default 20, and 5 of W2 and W4")
    asked = parser.parse_args()
    other = asked.other.resolve()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=other, text=True, capture_output=True, check=True
    )
    kept = HERE / "versions.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    if found.get("before") != commit.stdout.strip():
        found = {"before": commit.stdout.strip(), "workloads": {}}
    found["machine"] = machine()
    for name, figures in comparisons(asked.workload, other, asked.rounds):
        found["workloads"][name] = figures
        kept.write_text(json.dumps(found, indent=2) + "\n")
        now, before = figures["now"]["seconds"], figures["before"]["seconds"]
        print(f"{name}: now {now:.4g} s, before {before:.4g} s a round: {figures['ratio']} times")


if __name__ == "__main__":
    main()
