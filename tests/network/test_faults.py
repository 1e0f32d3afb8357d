"""Some stops of `benchmarks/network/faults.py`: processes killed at system calls that change their files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "network" / "faults.py"
NO_COMPILER = 77


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="preloads a library")
def test_a_stop_at_any_durable_step_changes_no_bit() -> None:
    command = [sys.executable, str(SCRIPT), "--few"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    if ended.returncode == NO_COMPILER:
        pytest.skip("no C compiler")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert [one["wrong"] for one in found.values()] == [0] * 4
    stopped = {what: one["stopped"] for what, one in found.items()}
    assert stopped.pop("run") >= 20, ended.stdout
    assert stopped == {"enrolment": 4, "rotation": 3, "leave": 2}
