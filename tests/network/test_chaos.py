"""A few of the runs of `benchmarks/network/chaos.py`: processes killed, requests lost, doubled and late.

Each party is a process of its own; one of the clients computes in a child process, too.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "network" / "chaos.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its processes")
def test_chaos_changes_no_bit() -> None:
    command = [sys.executable, str(SCRIPT), "--runs", "2", "--seed", "41", "--children", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert '"wrong": 0' in ended.stdout
