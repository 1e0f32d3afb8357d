"""Pace steering: few clients wait, many are spread; and no cohort is smaller for it."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import NUM_CLIENTS, Threaded, federation, job

from hanse.algorithms import fed_avg
from hanse.core.exchange import Record
from hanse.network.client.poller import Poller
from hanse.network.server import pace, presence
from hanse.network.server.pace import MAX_AGAIN_S, MIN_POOL, again_s, pool
from hanse.network.server.runtime import Patience


@pytest.mark.parametrize("num_clients", [1, 2, 10, MIN_POOL])
@pytest.mark.parametrize("num_wanted", [1, 10, 50])
@pytest.mark.parametrize("pass_s", [0.0, 0.1, 25.0])
def test_a_small_federation_always_waits(num_clients: int, num_wanted: int, pass_s: float) -> None:
    assert again_s(num_clients, num_wanted, pass_s, 0.999) == 0.0


@pytest.mark.parametrize("num_clients", [51, 500, 5_000, 1_000_000])
@pytest.mark.parametrize("num_wanted", [1, 10, 100])
@pytest.mark.parametrize("pass_s", [0.1, 5.0, 25.0])
def test_of_many_enough_come_back_for_each_round(num_clients: int, num_wanted: int, pass_s: float) -> None:
    if num_clients <= pool(num_wanted):
        return
    draws = (np.arange(1000) + 0.5) / 1000
    seconds = np.array([again_s(num_clients, num_wanted, pass_s, draw) for draw in draws])
    assert (seconds > 0).all()
    assert seconds.max() <= MAX_AGAIN_S
    assert (np.diff(seconds) >= 0).all()
    if seconds.max() < MAX_AGAIN_S:  # spread evenly over as long as it takes, and not together
        arrive_in_a_pass = num_clients * max(pass_s, 1.0) / seconds.mean()
        assert arrive_in_a_pass == pytest.approx(pool(num_wanted), rel=0.01)
        assert pool(num_wanted) >= 2 * num_wanted
        assert seconds.max() - seconds.min() == pytest.approx(seconds.mean(), rel=0.01)


class WatchedPoller(Poller):
    """Notes when it is asked to come back."""

    told: list[float]
    heard = threading.Event()

    def poll(self, wait_s: float = 25.0) -> Any:
        news = super().poll(wait_s)
        if news.again_s > 0:
            assert not news.work
            assert not news.decisions
            self.told.append(news.again_s)
            self.heard.set()
        return news


class Watched(Threaded):
    """A client that is asked to come back."""

    poller = WatchedPoller


def test_cohorts_are_full_while_others_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MIN_POOL", 2)
    monkeypatch.setattr(presence, "WAIT_S", 1.0)  # polls are held for so long
    WatchedPoller.told = []
    records: list[Record] = []
    in_time: list[bool] = []

    def watch(record: Record) -> None:
        records.append(record)
        if record.round == 2:  # a round that takes long enough for the others to be let go
            WatchedPoller.heard.clear()
            in_time.append(WatchedPoller.heard.wait(60.0))

    with federation(tmp_path) as here:
        patience = Patience(silent_s=20.0)
        given = job(fed_avg(lr=0.5, fraction=0.2, batch_size=50), 4, patience=patience, watch=watch)
        run = here.server.lead(given)
        here.enter(kind=Watched)
        here.end(run)
        assert in_time == [True], "somebody was let go while the run went on"
        assert [r.usage.counted for r in records] == [0] + [1] * 4
        assert [r.usage.dropped for r in records] == [0] * 5
        for thread in here.threads:
            thread.join(60.0)
        assert not any(thread.is_alive() for thread in here.threads)  # all were told that it is over
    assert WatchedPoller.told
    assert all(0 < told <= 1.5 * NUM_CLIENTS / 2 * 1.0 + 1e-9 for told in WatchedPoller.told)


def test_five_clients_are_never_told_to_rest(tmp_path: Path) -> None:
    WatchedPoller.told = []
    with federation(tmp_path) as here:
        run = here.lead(job(fed_avg(lr=0.5, fraction=0.2, batch_size=50), 4))
        here.enter(kind=Watched)
        here.end(run)
    assert WatchedPoller.told == []
