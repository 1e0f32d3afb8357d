"""A program ends in the same bits in a simulation and over HTTPS."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import CASES, NUM_CLIENTS, federation, job, simulated

from hanse.algorithms import fed_avg, trained_by, uniform
from hanse.algorithms.own_training import own_loop
from hanse.core import Key, Spec, Stage, Total, Transform, value
from hanse.network.client.client import Client


@pytest.mark.parametrize("algorithm", CASES.values(), ids=CASES.keys())
def test_the_network_ends_in_the_bits_of_the_simulation(algorithm: Any, tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(algorithm, 4))
        here.enter([0], kind=Client)  # it computes in a child process
        here.enter(range(1, NUM_CLIENTS))
        result = here.end(run)
        assert result["params_sha256"] == simulated(algorithm, 4)
        assert [r.abandoned for r in here.records] == [None] * 5
        assert here.records[-1].metrics["accuracy"] > 0.5


@value
class server_noise(Transform):
    """Adds noise to the total that only the server can draw."""

    def __call__(self, spec: Spec) -> Stage:
        def decode(state: Any, plan: Any, total: Total, key: Key) -> tuple[Total, Any]:
            noisy = {
                name: v + key.rng().normal(size=v.shape).astype(v.dtype) for name, v in total.values.items()
            }
            return replace(total, values=noisy), state

        return Stage(spec, decode=decode)


def test_the_server_draws_from_its_own_secret(tmp_path: Path) -> None:
    algorithm = fed_avg(lr=0.5, fraction=1.0, batch_size=50, uplink=(server_noise(),))
    with federation(tmp_path, stay=True) as here:
        given = job(algorithm, 1)
        here.enter()
        assert here.end(here.lead(given))["params_sha256"] == simulated(algorithm, 1)
        drawn = {here.end(here.lead(replace(given, secret=None)))["params_sha256"] for _ in range(2)}
        assert len(drawn) == 2  # one of each run's own
        assert simulated(algorithm, 1) not in drawn


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
