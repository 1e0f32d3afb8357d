"""Poisson samples over the network: the cohort of the secret, whoever is there to answer it."""

import time
from pathlib import Path
from typing import Any

import pytest
from federation import NUM_CLIENTS, Federation, federation, job, simulate
from noise import private_avg

from hanse.core import PartyId
from hanse.core.exchange import Coordinator, Record, Sampled
from hanse.network.server.runtime import Patience
from hanse.simulation import Devices, ideal

ALGORITHM = private_avg(rate=0.25, lr=0.5)
ROUNDS = 5
AWAY = 4


class Without(Devices):
    """Simulated devices of which one never answers."""

    def duration_s(self, party: PartyId, key: Any) -> float | None:
        return None if party == AWAY else 1.0


@pytest.fixture
def cohorts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[PartyId, ...]]:
    """The cohorts that were drawn, by whichever runtime."""
    drawn: list[tuple[PartyId, ...]] = []
    sample = Coordinator.sample

    def watched(*given: Any) -> Sampled:
        drawn.append((sampled := sample(*given)).cohort)
        return sampled

    monkeypatch.setattr(Coordinator, "sample", watched)
    return drawn


def expected(devices: Devices = ideal()) -> tuple[str, list[Record]]:
    records: list[Record] = []
    return simulate(ALGORITHM, ROUNDS, devices, watch=records.append).params_sha256, records


def lose(here: Federation, number: int) -> None:
    """Lets the server have heard of a client long ago."""
    here.client_home(number)
    here.server.presence.hear(number, again_s=-1000.0)


def test_the_cohort_is_that_of_the_simulation_with_the_same_secret(
    tmp_path: Path, cohorts: list[tuple[PartyId, ...]]
) -> None:
    sha256, records = expected()
    simulated, cohorts[:] = list(cohorts), []
    with federation(tmp_path) as here:
        run = here.lead(job(ALGORITHM, ROUNDS, patience=Patience(silent_s=60.0, over_select=2.0)))
        here.enter()
        assert here.end(run)["params_sha256"] == sha256
    assert [r.usage.releases for r in here.records] == [r.usage.releases for r in records]
    assert cohorts == simulated
    assert () in cohorts, "a round of nobody is among them"


def test_a_client_that_is_away_is_drawn_dropped_at_once_and_not_replaced(
    tmp_path: Path, cohorts: list[tuple[PartyId, ...]]
) -> None:
    sha256, records = expected(Without())
    simulated, cohorts[:] = list(cohorts), []
    began = time.monotonic()
    with federation(tmp_path) as here:
        lose(here, AWAY)
        run = here.lead(job(ALGORITHM, ROUNDS, num_present=4, patience=Patience(silent_s=300.0)))
        here.enter([number for number in range(NUM_CLIENTS) if number != AWAY])
        assert here.end(run)["params_sha256"] == sha256
    assert cohorts == simulated
    assert any(AWAY in cohort for cohort in cohorts)
    assert [(r.usage.counted, r.usage.dropped, r.usage.releases) for r in here.records] == [
        (r.usage.counted, r.usage.dropped, r.usage.releases) for r in records
    ]
    assert time.monotonic() - began < 300.0, "nobody waited until it had been silent for so long"


def test_a_client_that_was_revoked_is_not_drawn_and_the_others_are_as_before(
    tmp_path: Path, cohorts: list[tuple[PartyId, ...]]
) -> None:
    algorithm = private_avg(rate=0.9, lr=0.5)
    simulate(algorithm, 1)
    (first,), cohorts[:] = list(cohorts), []
    revoked = first[1]
    assert isinstance(revoked, int)
    with federation(tmp_path) as here:
        for number in range(NUM_CLIENTS):
            here.client_home(number)
        here.server.part(f"c{revoked}", "revoked")
        run = here.lead(job(algorithm, 1, num_clients=NUM_CLIENTS - 1))
        here.enter([number for number in range(NUM_CLIENTS) if number != revoked])
        here.end(run)
    assert cohorts == [first[:1] + first[2:]]


def test_a_round_begins_when_anybody_is_there(tmp_path: Path, cohorts: list[tuple[PartyId, ...]]) -> None:
    """A round of which the server knows that nobody is there would only add noise to the model."""
    with federation(tmp_path, stay=True) as here:
        for number in range(NUM_CLIENTS):
            lose(here, number)
        run = here.server.lead(job(ALGORITHM, 1, num_present=0))
        here.wait_until(
            lambda: "waiting for clients: 0 of 1" in here.server.run(run).mailbox.doing, "it does not wait"
        )
        assert cohorts == []
        here.show_up([0])
        here.wait_until(lambda: len(cohorts) == 1, "it does not begin")
        here.server.run(run).mailbox.stop()
        here.end(run, status="interrupted")
