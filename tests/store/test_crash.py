"""kill -9, at any moment."""

import random
import time
from typing import Any

import numpy as np
import pytest

from hanse.core.exchange import Entry, Sampled, digest
from hanse.store import Runs


def entry(round: int, step: int) -> Entry:
    """What the other process appends."""
    return Entry(f"{round}/{step}", Sampled((round, step), 9), {"w": np.full(50, round)})


@pytest.mark.parametrize("attempt", range(12))
def test_a_killed_run_is_whole(runs: Runs, nursery: Any, rows_of: Any, attempt: int) -> None:
    chance = random.Random(attempt)
    run = runs.begin({}, {})
    durable = attempt % 2 == 0
    child = nursery.start("save_for_ever", runs._database.path, run, flush_every_s=0.0 if durable else 0.002)
    last = [child.line() for _ in range(chance.randrange(1, 25))][-1]
    time.sleep(chance.random() / 200)
    child.kill()

    with runs.open(run) as store:
        saved, journal = store.checkpoint(), store.journal()
        reached = 0 if saved is None else saved.round
        what, number, *step = last.split()
        assert reached >= (int(number) if what == "saved" else int(number) - 1)
        if what == "appended" and reached == int(number) - 1:
            assert len(journal) > int(step[0])
        assert digest(journal) == digest(tuple(entry(reached + 1, step) for step in range(len(journal))))
        assert [record.round for record in runs.records(run)] == list(range(1, reached + 1))
        if saved is not None:
            assert saved.state["w"].tolist() == [reached] * 400
            assert saved.state["same"].tolist() == list(range(1000))
            assert store.memory(0) == {"round": reached}
            assert store.memory("0") == {"round": -reached}
            assert all(np.all(store.memory(n)["w"] == n) for n in range(1, reached + 1))
            assert store.memory(reached + 1) == {}
    rows_of(runs, run).check_objects()
