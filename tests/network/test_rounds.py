"""Rounds close: by all, by the first enough, without the silent; and a run that can't go on ends."""

from pathlib import Path
from typing import Any

import pytest
from federation import FED_AVG, NUM_CLIENTS, federation, job, simulated

from hanse.algorithms import fed_avg, fed_buff, giant
from hanse.core import Close
from hanse.network.client.client import Client
from hanse.network.client.enrolment import leave
from hanse.network.client.poller import Poller
from hanse.network.client.worker import Worker
from hanse.network.server.runtime import Patience

MORTAL = fed_avg(lr=0.5, fraction=1.0, batch_size=50, close=Close(minimum_fraction=0.5))


class FailingWorker(Worker):
    """Fails before it trains."""

    def _fetch_payload(self, role: Any, work: Any) -> Any:
        raise RuntimeError("no such luck")


class Failing(Client):
    """Fails in each round."""

    worker = FailingWorker


class SilentPoller(Poller):
    """Takes work and is never heard again."""

    def poll(self, wait_s: float = 25.0) -> Any:
        news = super().poll(wait_s)
        if news.work:
            self._connection.stopping.set()
            return type(news)()
        return news


class Silent(Client):
    """Takes work and is never heard again."""

    poller = SilentPoller


def test_failures_reach_the_operator_and_the_round_goes_on(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(MORTAL, 2))
        here.enter(range(4))
        here.enter([4], kind=Failing)
        here.end(run, status="incomplete")
        assert [r.usage.counted for r in here.records] == [0, 4, 4]
        assert "ticket 5 of" in here.events()
        assert "failed: an error, which its own log describes (internal)" in here.events()
        assert "no such luck" not in here.events()
    own = (here.folder / "client-4" / "client.log").read_text()
    assert "RuntimeError: no such luck" in own
    assert "Traceback" in own
    assert (here.folder / "client-4" / "client.log").stat().st_mode & 0o077 == 0


def test_the_silent_are_given_up(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(MORTAL, 2, patience=Patience(silent_s=10.0, min_clients=3)))
        here.enter(range(3))
        here.enter([3, 4], kind=Silent)
        here.end(run, status="incomplete")
        assert [r.usage.counted for r in here.records] == [0, 3, 3]
        assert "client 4: run" in here.events()
        assert "nothing was heard of it for" in here.events()


def test_more_are_asked_than_counted(tmp_path: Path) -> None:
    algorithm = fed_avg(lr=0.5, fraction=0.6, batch_size=50)
    with federation(tmp_path) as here:
        run = here.lead(job(algorithm, 3, patience=Patience(silent_s=20.0, over_select=1.3)))
        here.enter()
        here.end(run)
        assert [r.usage.counted for r in here.records] == [0, 3, 3, 3]
        assert sum(r.usage.dropped for r in here.records) == 3


def test_nobody_is_left_out_where_all_are_wanted(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 3, patience=Patience(silent_s=20.0, over_select=1.3)))
        here.enter()
        assert here.end(run)["params_sha256"] == simulated(FED_AVG, 3)
        assert [r.usage.dropped for r in here.records] == [0] * 4


def test_each_exchange_with_an_over_selected_cohort_closes_with_those_wanted(tmp_path: Path) -> None:
    patience = Patience(silent_s=20.0, over_select=1.5)
    with federation(tmp_path) as here:
        run = here.lead(job(giant(fraction=0.6), 2, patience=patience))
        here.enter()
        here.end(run)
        assert [r.usage.counted for r in here.records] == [0] + [3 * 3] * 2
        assert [r.usage.dropped for r in here.records] == [0] + [2 * 3] * 2


def test_an_over_selected_round_needs_its_share_of_those_wanted(tmp_path: Path) -> None:
    patient = fed_avg(lr=0.5, fraction=0.6, batch_size=50, close=Close(minimum_fraction=1.0))
    with federation(tmp_path) as here:
        run = here.lead(job(patient, 2, patience=Patience(silent_s=20.0, over_select=1.6)))
        here.enter(range(3))
        here.enter([3, 4], kind=Failing)
        here.end(run)
        assert [(r.usage.counted, r.abandoned) for r in here.records] == [(0, None), (3, None), (3, None)]


def test_too_few_abandon_the_round_and_the_run_ends_by_itself(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(MORTAL, 3))
        here.enter(range(1))
        here.enter(range(1, NUM_CLIENTS), kind=Failing)
        here.end(run, status="incomplete")
        assert all("1 of 5 contributions were counted" in str(r.abandoned) for r in here.records[1:])
        assert "round 3 was abandoned" in here.events()


def test_asynchrony_runs_too(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        patience = Patience(silent_s=20.0, over_select=1.3)
        run = here.lead(job(fed_buff(lr=0.3, concurrency=4, buffer_size=2), 5, patience=patience))
        here.enter()
        here.end(run)
        assert [r.usage.counted for r in here.records] == [0] + [2] * 5
        assert here.records[-1].metrics["accuracy"] > 0.3


def test_whoever_leaves_is_not_asked_again(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(MORTAL, 2))
        client_homes = [here.client_home(n) for n in range(NUM_CLIENTS)]
        leave(client_homes[2])
        here.enter([0, 1, 3, 4])
        with pytest.raises(Exception, match="has left the federation"):
            client_homes[2].link()
        here.server.part("client 3", "revoked")
        here.server.run(run).mailbox.notify()
        assert [line["what"] for line in client_homes[2].audit.lines()] == ["joined", "consent withdrawn"]
        assert here.server.status()["clients"] == 3
        here.server.run(run).mailbox.stop()


def test_a_run_that_stopped_after_its_round_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        run = here.lead(job(FED_AVG, 4))
        here.server.run(run).mailbox.drain()
        here.enter()
        led = here.server.run(run)
        led.join(60.0)
        assert led.status == "stopped"
        here.lead(job(FED_AVG, 4), run)
        assert here.end(run)["params_sha256"] == simulated(FED_AVG, 4)
        assert [r.round for r in here.records] == [0, 1, 2, 3, 4]
