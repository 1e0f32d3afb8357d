"""Real processes: cut at random moments, redirected, asked for help."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from forked import PIPE, python

import hanse
from hanse.store import Runs

ROUNDS = 100
"""Less than a second of work."""

SOURCES = str(Path(hanse.__file__).parents[1])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture(scope="module")
def undisturbed() -> str:
    return hanse.run(rounds=ROUNDS).params_sha256


CTRL_C = """
import signal
from hanse.cli import main
from hanse.core.exchange import Commit
from hanse.simulation import Simulation

perform = Simulation.perform

def interrupt(runtime, command):
    event = perform(runtime, command)
    if isinstance(command, Commit) and command.round == {round}:
        signal.raise_signal(signal.SIGINT)
    return event

Simulation.perform = interrupt
main()
"""
"""The command, which is interrupted at the end of a round, just before that round is kept."""


def process(
    store: Path,
    *arguments: str,
    program: Sequence[str] = ("-m", "hanse"),
    start: Callable[..., Any] = python,
) -> Any:
    env = {**os.environ, "PYTHONPATH": SOURCES, "HANSE_STORE": str(store), "PYTHONWARNINGS": "error"}
    return start(*program, *arguments, stdout=PIPE, stderr=PIPE, env=env, cwd=store.parent)


def newly_started(*program: str, **options: Any) -> "subprocess.Popen[str]":
    """Start a command as a user does, in an interpreter that has imported nothing."""
    return subprocess.Popen([sys.executable, *program], text=True, **options)


def finish(process: Any) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=280)
    return process.returncode, stdout, stderr


def cut(process: Any, number: int, after_s: float) -> str:
    """Send a signal some time after the run has begun; return the run's id."""
    assert process.stderr is not None
    first = process.stderr.readline()
    time.sleep(after_s)
    process.send_signal(number)
    return first.removeprefix("run ").partition(":")[0]


def completed(process: Any) -> dict[str, Any]:
    code, stdout, stderr = finish(process)
    assert code == 0, stderr
    return dict(json.loads(stdout))


def test_killed_twice_a_run_ends_in_the_same_bits(store: Path, undisturbed: str) -> None:
    """At two moments; tests/store kills at many."""
    moments = random.Random(1)
    first = process(store, "run", "--set", f"rounds={ROUNDS}", "--json")
    run = cut(first, signal.SIGKILL, moments.uniform(0.0, 0.6))
    finish(first)
    second = process(store, "resume", run, "--json")
    cut(second, signal.SIGKILL, moments.uniform(0.0, 0.3))
    finish(second)
    result = completed(process(store, "resume", run, "--json"))
    assert (result["status"], result["rounds"]) == ("completed", ROUNDS)
    assert result["params_sha256"] == undisturbed


def test_ctrl_c_then_resume_ends_in_the_same_bits(store: Path, undisturbed: str) -> None:
    program = ("-c", CTRL_C.format(round=ROUNDS // 2))
    code, stdout, stderr = finish(process(store, "run", "--set", f"rounds={ROUNDS}", program=program))
    run = stderr.removeprefix("run ").partition(":")[0]
    done = ROUNDS // 2 - 1
    assert (code, stdout) == (130, "")
    assert stderr.splitlines()[-1] == f"interrupted after round {done}; go on with: hanse resume {run}"
    assert Runs(store).info(run).rounds == done
    assert completed(process(store, "resume", run, "--json"))["params_sha256"] == undisturbed


def test_ctrl_c_in_json(store: Path) -> None:
    first = process(store, "run", "--set", "rounds=100000", "--json")
    cut(first, signal.SIGINT, 0.0)
    code, stdout, _ = finish(first)
    assert code == 130
    assert json.loads(stdout)["status"] == "interrupted"


@pytest.fixture
def performing(store: Path) -> Iterator[tuple[Path, str]]:
    other = process(store, "run", "--set", "rounds=100000")
    assert other.stderr is not None
    yield store, other.stderr.readline().removeprefix("run ").partition(":")[0]
    other.kill()
    finish(other)


def test_a_run_that_another_process_performs(performing: tuple[Path, str]) -> None:
    store, run = performing
    code, stdout, stderr = finish(process(store, "resume", run))
    assert (code, stdout) == (2, "")
    assert stderr.startswith(f"Error: run {run} is performed by process ")
    assert Runs(store).info(run).status == "running"


def test_redirected_output_is_plain_and_rare(store: Path) -> None:
    began_s = time.monotonic()
    code, stdout, stderr = finish(process(store, "run", "--set", f"rounds={ROUNDS}", start=newly_started))
    assert code == 0
    assert "\x1b" not in stdout + stderr
    assert 2 <= len(stderr.splitlines()) <= 3 + (time.monotonic() - began_s) / 2
    assert stderr.splitlines()[-1].startswith(f"round {ROUNDS}/{ROUNDS}  ")
    assert "completed" in stdout


def test_help_loads_no_arithmetic(store: Path) -> None:
    code = """
import sys
from hanse.cli import main
try:
    main()
except SystemExit:
    print("numpy" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    asked = [sys.executable, "-c", code, "--help"]
    said = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout
    assert "resume" in said
    assert said.splitlines()[-1] == "False"


def test_a_run_loads_only_what_it_uses(store: Path) -> None:
    """And what it has not loaded is found all the same, once a file or a message names it."""
    code = """
import sys
from hanse.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
loaded = {name for name in sys.modules if name.startswith("hanse.")}
others = ("audits", "leakage", "network", "release", "report", "sweeps", "privacy.encryption",
          "privacy.secure_sums.reducers", "runs.adversary.backend", "learners.networks", "robust.selections",
          "transforms.quantize")
print([name for name in others if f"hanse.{name}" in loaded])
print(sorted(name for name in loaded if name.startswith("hanse.algorithms.fed_")))
from hanse.core.exchange import find_class
print(*(find_class(name) for name in ("quantize", "Redrawn", "accuracy", "nothing")))
"""
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    asked = [sys.executable, "-c", code, "run", "--set", "rounds=1", "--store", str(store)]
    said = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout
    unneeded, algorithms, found = said.splitlines()[-3:]
    assert unneeded == "[]"
    assert algorithms == "['hanse.algorithms.fed_avg']"
    assert found == (
        "<class 'hanse.transforms.quantize.quantize'> <class 'hanse.transforms.draws.Redrawn'> "
        "<class 'hanse.evaluation.metrics.classes.accuracy'> None"
    )
