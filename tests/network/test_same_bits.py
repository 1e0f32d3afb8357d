"""A program ends in the same bits in a simulation and over HTTPS."""

from pathlib import Path
from typing import Any

import pytest
from federation import CASES, federation, job, simulated


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
