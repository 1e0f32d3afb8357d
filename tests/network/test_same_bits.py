"""A program ends in the same bits in a simulation and over HTTPS."""

from pathlib import Path
from typing import Any

import pytest
from federation import CASES, federation, job, simulated

from hanse.algorithms import fed_avg, trained_by, uniform
from hanse.algorithms.own_training import own_loop
from hanse.core import value


@pytest.mark.parametrize("algorithm", CASES.values(), ids=CASES.keys())
def test_the_network_ends_in_the_bits_of_the_simulation(algorithm: Any, tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(algorithm, 4))
        here.enter()
        result = here.end(run)
        assert result["params_sha256"] == simulated(algorithm, 4)
        assert [r.abandoned for r in here.records] == [None] * 5
        assert here.records[-1].metrics["accuracy"] > 0.5


def test_one_server_leads_several_runs(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        runs = {name: here.lead(job(CASES[name], 3)) for name in ("fed_avg", "scaffold")}
        here.enter()
        for name, run in runs.items():
            assert here.end(run)["params_sha256"] == simulated(CASES[name], 3)


@value
class trained_elsewhere(fed_avg):
    """Names a training function that clients have not imported."""

    def work(self, num_rounds: int) -> Any:
        return own_loop(trained_by("elsewhere:train"), uniform())


def test_a_client_without_the_training_function_says_what_it_lacks(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(trained_elsewhere(fraction=1.0), 1))
        here.enter()
        here.end(run, status="incomplete")
        said = [words for words in here.said if "'elsewhere:train' is in no module" in words]
        assert said
        assert all("--import elsewhere.py" in words for words in said)
