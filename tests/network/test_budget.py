"""A served run stops at its budget of privacy, and counts what it spent before when it goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from federation import CASES, federation, job

from hanse.algorithms import fed_avg
from hanse.network.server.job import RunJob
from hanse.privacy import Spending, central, compose, compute_epsilon, gaussian
from hanse.transforms import clip

BUDGET = central(epsilon=compute_epsilon({(0.7, 1.0): 2}, 1e-3), delta=1e-3)


def guarded(algorithm: Any) -> RunJob:
    given, spending = job(algorithm, 5), Spending(BUDGET)
    return replace(
        given,
        program=lambda progress: spending.guard(given.program(progress)),
        recall=lambda records: spending.recall(records),
    )


def test_a_served_run_stops_at_its_budget_and_stays_there(tmp_path: Path) -> None:
    noised = CASES["noised"]
    assert isinstance(noised, fed_avg)
    algorithm = replace(noised, uplink=(clip(1.0), gaussian(1.0)))
    with federation(tmp_path, stay=True) as here:
        run = here.lead(guarded(algorithm))
        here.enter()
        for again in (False, True):
            if again:  # by a process that knows only the store
                here.lead(guarded(algorithm), run)
            ended = here.end(run, status="interrupted")
            assert ended["rounds"] == 2
            assert "the budget of privacy is spent" in ended["reason"]
            records = here.server.runs.records(run)
            assert compose(r for one in records for r in one.usage.releases) == {(0.7, 1.0): 2}
