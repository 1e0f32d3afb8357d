"""Seconds a round of federated averaging, for Hanse and for other simulators, on the same work.

    python benchmarks/simulators/run.py [--workload W1 ...] [--tools hanse,flower ...] [--rounds N]

Makes a virtual environment for each peer beside this file (`.venvs`, some gigabytes), and data (`.data`).
All tools of a workload are started, one after the other, and do a first round. Then they take turns, so that
other load on the machine affects them alike. They train the same clients on the same batches; the norm of the
parameters after the first round proves this. Results are written to results.json at once, and a new
measurement of a workload replaces the old one. results.md is written from them. `--table` only writes that.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from environments import FEDJAX, FLOWER, OURS, PFL, Environment, NotInstalled
from machine import machine
from table import markdown
from turns import ADDRESS
from workloads import WORKLOADS, Workload

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
ROUNDS = {"W1": 20, "W2": 5, "W2b50": 5, "W3": 20, "W4": 5}
AT_ONCE = {"W1": 2, "W2": 1, "W2b50": 1, "W3": 4, "W4": 1}
"""Rounds of a turn: several short rounds make one turn."""
PATIENCE_S = 300
ALL = tuple(WORKLOADS)
DEEP = ("W2", "W2b50", "W4")


@dataclass(frozen=True)
class Tool:
    """One simulator.

    Args:
      scripts: by workload, the file in `tools` and its arguments.
    """

    name: str
    environment: Environment
    scripts: Mapping[str, tuple[str, ...]]


def _everywhere(*script: str, on: Sequence[str] = ALL) -> Mapping[str, tuple[str, ...]]:
    return dict.fromkeys(on, script)


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("hanse", OURS, _everywhere("with_hanse.py")),
        Tool("hanse 2 bits", OURS, _everywhere("with_hanse.py", "2bits", on=("W1",))),
        Tool("hanse bfloat16", OURS, _everywhere("with_hanse.py", "bfloat16", on=DEEP)),
        Tool("hanse jax", OURS, _everywhere("with_hanse.py", "jax", on=("W3", "W4"))),
        Tool("hanse torch", OURS, _everywhere("with_hanse.py", "torch", on=("W1", "W3"))),
        Tool("hanse module", OURS, _everywhere("with_hanse.py", "module", on=("W1",))),
        Tool(
            "bare",
            OURS,
            {
                "W1": ("jax_workers.py",),
                "W3": ("numpy_loop.py",),
                **_everywhere("torch_workers.py", on=DEEP),
            },
        ),
        Tool("torch loop", OURS, _everywhere("torch_loop.py")),
        Tool("flower", FLOWER, _everywhere("with_flower.py")),
        Tool("pfl", PFL, {**_everywhere("with_pfl.py", "1"), **_everywhere("with_pfl.py", "2", on=DEEP)}),
        Tool("fedjax", FEDJAX, _everywhere("with_fedjax.py")),
    )
}


# -- one tool ----------------------------------------------------------------------------------


class Failed(Exception):
    """A tool ended too early; the message holds its last output."""


@dataclass
class Running:
    """A tool's process, and its output so far."""

    tool: Tool
    workload: Workload
    process: subprocess.Popen[bytes]
    pipe: Connection
    log: Path
    first_round_s: float = 0.0
    peak_mb: float = 0.0
    seconds: list[float] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)

    def take(self, num_rounds: int) -> None:
        """Let the tool perform some rounds."""
        for _ in range(num_rounds):
            self.pipe.send("go")
            self.seconds.append(self._round())
        self._weigh()

    def first(self, began: float) -> None:
        """Wait for the first round, which is not compared, and watch memory meanwhile."""
        while not self.pipe.poll(0.5):
            self._weigh()
            self._check(time.time() - began)
        self._round()
        self.first_round_s = time.time() - began
        while "warm" not in self.said:
            self._hear()
        self._weigh()

    def end(self) -> None:
        """Wait for the rest of its output, after the last round."""
        with suppress(EOFError, ConnectionResetError):
            while self.pipe.poll(PATIENCE_S):
                what, value = self.pipe.recv()
                self.said[what] = value
        self._stop()

    def _round(self) -> float:
        """Return the seconds of the round that ends next."""
        while True:
            if (seconds := self._hear()) is not None:
                return seconds

    def _hear(self) -> float | None:
        """Read the next message: the seconds of a round, or a note."""
        if not self.pipe.poll(PATIENCE_S):
            raise Failed(f"said nothing for {PATIENCE_S} s")
        try:
            what, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise Failed(self._words()) from None
        if what == "round":
            return float(value)
        self.said[what] = value
        return None

    def _check(self, waited_s: float) -> None:
        if self.process.poll() is not None:
            raise Failed(self._words())
        if waited_s > PATIENCE_S:
            raise Failed(f"did not end its first round within {PATIENCE_S} s")

    def _words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "ended without a word"

    def _weigh(self) -> None:
        self.peak_mb = max(self.peak_mb, sum(map(_pss_mb, _family(self.process.pid))))

    def _stop(self) -> None:
        family = _family(self.process.pid)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def result(self) -> dict[str, Any]:
        """Return the measurements."""
        median = statistics.median(self.seconds)
        return {
            "seconds": round(median, 5),
            "min": round(min(self.seconds), 5),
            "max": round(max(self.seconds), 5),
            "rounds": len(self.seconds),
            "first_round_s": round(self.first_round_s, 2),
            "startup_s": round(self.first_round_s - median, 2),
            "peak_mb": round(self.peak_mb),
            "checksum": self.said.get("checksum"),
        }


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = [pid]
    for member in family:
        family.extend(child for child, parent in parents.items() if parent == member)
    return family


def _pss_mb(pid: int) -> float:
    """Return the memory of a process; shared pages count in part."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _started(tool: Tool, workload: Workload, num_rounds: int, stack: ExitStack) -> Running:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    listener = stack.enter_context(Listener(str(folder / "socket")))
    log = folder / "log"
    script, *told = tool.scripts[workload.name]
    command = [
        str(tool.environment.python),
        str(HERE / "tools" / script),
        workload.name,
        str(num_rounds),
        *told,
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE), ADDRESS: str(folder / "socket")}
    began = time.time()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT
    )
    running = Running(tool, workload, process, _accepted(listener, process, log), log)
    stack.callback(running._stop)
    running.first(began)
    return running


def _accepted(listener: Listener, process: subprocess.Popen[bytes], log: Path) -> Connection:
    until = time.time() + PATIENCE_S
    while not wait([listener._listener._socket], 0.2):  # type: ignore[attr-defined]
        if process.poll() is not None or time.time() > until:
            process.kill()
            raise Failed(" / ".join(log.read_text(errors="replace").strip().splitlines()[-3:]))
    return listener.accept()


# -- a workload --------------------------------------------------------------------------------


def _measure(
    workload: Workload, tools: Sequence[Tool], num_rounds: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield results by tool, at the end; those of failed tools at once."""
    at_once = min(AT_ONCE[workload.name], num_rounds)
    num_turns = -(-num_rounds // at_once)
    with ExitStack() as stack:
        running: list[Running] = []
        for tool in tools:
            try:
                running.append(_started(tool, workload, 1 + num_turns * at_once, stack))
            except Failed as error:
                _say(f"  {tool.name}: failed: {error}")
                yield tool.name, {"failed": str(error)}
            else:
                _say(f"  {tool.name}: first round done {running[-1].first_round_s:.1f} s after its start")
        for turn in range(num_turns):
            for one in [*running[turn % len(running) :], *running[: turn % len(running)]]:
                try:
                    one.take(at_once)
                except Failed as error:
                    _say(f"  {one.tool.name}: failed: {error}")
                    yield one.tool.name, {"failed": str(error)}
                    running.remove(one)
            _say(f"  turn {turn + 1} of {num_turns}: " + _medians(running))
        for one in running:
            one.pipe.send("end")
        for one in running:
            one.end()
            yield one.tool.name, one.result()


def _medians(running: Sequence[Running]) -> str:
    return ", ".join(f"{one.tool.name} {statistics.median(one.seconds):.4g}" for one in running)


def _prepare(workload: Workload, num_rounds: int) -> None:
    script = [str(OURS.python), str(HERE / "tools" / "prepare.py"), workload.name, str(num_rounds)]
    subprocess.run(script, check=True, env={**os.environ, "PYTHONPATH": str(HERE)})


def _say(line: str) -> None:
    print(line, flush=True)


def _keep(workload: Workload, name: str, result: Mapping[str, Any]) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"workloads": {}}
    known["machine"] = machine()
    known["workloads"].setdefault(workload.name, {})[name] = result
    order = {tool: place for place, tool in enumerate(TOOLS)}
    known["workloads"] = {
        name: dict(sorted(known["workloads"][name].items(), key=lambda item: order.get(item[0], len(order))))
        for name in WORKLOADS
        if name in known["workloads"]
    }
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")


def main() -> None:
    """Measure the chosen workloads, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--tools", default=",".join(TOOLS), help="names, with commas between them")
    parser.add_argument("--rounds", type=int, help="of each tool; by default 20, and 5 of W2 and W4")
    parser.add_argument("--table", action="store_true", help="only write results.md from results.json")
    asked = parser.parse_args()
    names = [name.strip() for name in asked.tools.split(",")]
    if unknown := [name for name in names if name not in TOOLS]:
        parser.error(f"unknown tool {unknown[0]!r}; write some of {', '.join(TOOLS)}")
    if not asked.table:
        _measure_all(
            [WORKLOADS[name] for name in asked.workload], [TOOLS[name] for name in names], asked.rounds
        )
    _write_table()
    _say(f"written: {HERE / 'results.md'}")


def _write_table() -> None:
    (HERE / "results.md").write_text(markdown(json.loads(RESULTS.read_text()), WORKLOADS))


def _measure_all(workloads: Sequence[Workload], tools: Sequence[Tool], num_rounds: int | None) -> None:
    missing = set()
    for environment in dict.fromkeys([OURS, *(tool.environment for tool in tools)]):
        try:
            environment.make(_say)
        except NotInstalled as error:
            missing.add(environment)
            _say(f"{environment.name} can't be installed, and is left out:\n{error}")
    for workload in workloads:
        rounds = num_rounds or ROUNDS[workload.name]
        fit = [t for t in tools if t.environment not in missing and workload.name in t.scripts]
        _say(f"{workload.name}: {workload.about}, {rounds} rounds of {len(fit)} tools")
        _prepare(workload, rounds + AT_ONCE[workload.name] + 1)
        for name, result in _measure(workload, fit, rounds):
            _keep(workload, name, result)
        _write_table()


if __name__ == "__main__":
    main()
