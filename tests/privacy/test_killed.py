"""A real process dies between noise and commit, and what was released is released once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hanse
from hanse.privacy import read_books
from hanse.runs import existing

PROGRAM = """
import os, signal, sys
import hanse
from hanse.algorithms import fed_avg
from hanse.data import digits, iid
from hanse.privacy import banded, central
from hanse.store import RunStore

def settings():
    mechanism = banded(num_bands=3, separation=2) if sys.argv[2] == "banded" else None
    return {
        "algorithm": fed_avg(0.5, 0.3), "data": digits(), "partition": iid(40), "rounds": 4,
        "evaluate_every": 50,
        "privacy": central(epsilon=8.0, delta=1e-3, mechanism=mechanism),
    }

save = RunStore.save

def die(self, checkpoint, *given):
    if checkpoint.round == 3:  # the total of round 3 is noised and in the journal
        self.flush()  # as a served run does at each step
        print(self.run, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return save(self, checkpoint, *given)

if __name__ == "__main__":
    RunStore.save = die
    hanse.run(**settings(), store=sys.argv[1])
"""


@pytest.mark.parametrize("mechanism", ["gaussian", "banded"])
def test_a_run_killed_between_noise_and_commit_releases_nothing_twice(mechanism: str, tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    command = [sys.executable, "-c", PROGRAM, str(store), mechanism]
    died = subprocess.run(command, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    run = died.stdout.strip()
    assert [record.round for record in existing(store).records(run)][-1] == 2
    ended = hanse.resume(run, store=store)
    scope: dict[str, object] = {"__name__": "settings"}
    exec(PROGRAM, scope)
    before, sys.argv = sys.argv, command[2:]
    try:
        whole = hanse.run(**scope["settings"]())  # type: ignore[operator]
    finally:
        sys.argv = before
    assert ended.params_sha256 == whole.params_sha256, "the same noise on the same messages"
    books = list(read_books(existing(store).records(run)))
    assert books == list(read_books(whole.records))
    assert len(books) == 4
    assert ended.privacy == whole.privacy
