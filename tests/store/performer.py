"""Other processes of the tests: each line of the input starts one, which performs a run and may be killed."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hanse.core import StoreError
from hanse.core.exchange import Checkpoint, Entry, Record, Sampled, Usage
from hanse.store import Runs


def say(*words: object) -> None:
    os.write(1, f"{os.getpid()} {' '.join(map(str, words))}\n".encode())


def entry(round: int, step: int) -> Entry:
    """The n-th entry of a round's journal."""
    return Entry(f"{round}/{step}", Sampled((round, step), 9), {"w": np.full(50, round)})


def save_for_ever(runs: Runs, run: str, flush_every_s: float) -> None:
    """Rounds that say their number wherever they can, until the process is killed."""
    durable = flush_every_s == 0
    with runs.open(run, flush_every_s=flush_every_s) as store:
        first = 1 if (last := store.checkpoint()) is None else last.round + 1
        for round in range(first, 10**9):
            for step in range(2):
                store.append(entry(round, step))
                if durable:
                    say("appended", round, step)
            state = {"w": np.full(400, round), "same": np.arange(1000)}
            memories = {0: {"round": round}, "0": {"round": -round}, round: {"w": np.full(9, round)}}
            store.save(Checkpoint(round, state, None), Record(round, {}, Usage(), 0.0), memories)
            if durable:
                say("saved", round)
            elif round % 10 == 0:
                store.flush()
                say("saved", round)


def hold(runs: Runs, run: str) -> None:
    """Claims a run and keeps it."""
    with runs.open(run):
        say("holds")
        time.sleep(60)


def hold_with_a_worker(runs: Runs, run: str) -> None:
    """Claims a run, and forks a worker that outlives it."""
    with runs.open(run) as store:
        worker = os.fork()
        if worker == 0:
            try:
                store.flush()
            except StoreError as error:
                say(error)
            store.close()
            time.sleep(5)
            os._exit(0)
        time.sleep(60)


def imports(runs: Runs, run: str) -> None:
    """Says whether Alembic was needed to use a store."""
    runs.info(run)
    say("alembic" in sys.modules)


ACTS: dict[str, Callable[..., Any]] = {
    act.__name__: act for act in (save_for_ever, hold, hold_with_a_worker, imports)
}


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        act, where, run, options = json.loads(line)
        if os.fork() == 0:
            say("started")
            ACTS[act](Runs(where), run, **options)
            os._exit(0)


if __name__ == "__main__":
    main()
