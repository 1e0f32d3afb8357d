"""A client computes no longer than its own policy allows, and says so."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from federation import federation, job, learner, population
from test_rounds import MORTAL

from hanse.core import InvalidInput
from hanse.network.client.client import Client
from hanse.network.client.limits import Computation, Day, TimeLimitExceeded
from hanse.network.client.policy import Policy
from hanse.network.protocol.errors import Forbidden


def for_ever() -> None:
    while True:
        try:
            sum(range(1000))
        except Exception:
            raise AssertionError("a work must not take the stop for an error of its own") from None


def test_an_endless_computation_is_stopped() -> None:
    computation = Computation(for_ever)
    with pytest.raises(TimeLimitExceeded, match=r"stopped after 0\.05 s"):
        computation.result(0.05)
    assert not computation.still_runs(20.0)


def test_a_call_into_a_library_is_abandoned_until_it_returns() -> None:
    returned = threading.Event()
    used: list[int] = []

    def act() -> None:
        returned.wait()
        used.append(1)

    computation = Computation(act)
    with pytest.raises(TimeLimitExceeded):
        computation.result(0.01)
    assert computation.still_runs(0.01)
    returned.set()
    assert not computation.still_runs(20.0)
    assert used == []


def test_what_is_in_time_is_as_it_would_be() -> None:
    assert Computation(lambda: 3).result(20.0) == 3

    def fails() -> None:
        raise InvalidInput("no such luck")

    with pytest.raises(InvalidInput, match="no such luck"):
        Computation(fails).result(20.0)


def test_a_day_is_summed_and_ends(tmp_path: Path) -> None:
    day = ["2026-01-31"]
    hours = Day(tmp_path / "seconds.json", lambda: day[0])
    hours.add(1.5)
    Day(tmp_path / "seconds.json", lambda: day[0]).add(2.0)
    assert hours.seconds == 3.5
    day[0] = "2026-02-01"
    assert hours.seconds == 0.0
    hours.add(1.0)
    assert hours.seconds == 1.0
    (tmp_path / "seconds.json").write_text('{"day": ')
    assert hours.seconds == 0.0


def test_a_policy_says_how_long(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    assert Policy().limit_s(1e9) is None
    path.write_text("max_ticket_s = 10\nmax_day_s = 25.5")
    policy = Policy.read(path)
    assert policy.limit_s(0.0) == 10.0
    assert policy.limit_s(20.5) == 5.0
    with pytest.raises(Forbidden, match=r"allows 25\.5 s of computation a day"):
        policy.limit_s(25.5)
    path.write_text('max_day_s = "an hour"')
    with pytest.raises(InvalidInput, match="write seconds, such as 60"):
        Policy.read(path)


class Endless:
    """A learner that does not get on."""

    def __getattr__(self, name: str) -> Any:
        return getattr(learner(), name)

    def local_sgd(self, *given: Any, **more: Any) -> Any:
        for_ever()


def test_the_operator_hears_that_a_ticket_was_declined_and_the_round_goes_on(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(MORTAL, 2))
        client_home = here.client_home(4)
        (client_home.folder / "policy.toml").write_text("max_ticket_s = 0.1\nmax_day_s = 1000")
        mine = population().client(4)
        client = Client(client_home, lambda plan: mine, lambda plan: Endless(), here.said.append)
        here.clients.append(client)
        here.threads.append(threading.Thread(target=client.run, daemon=True))
        here.threads[-1].start()
        here.enter(range(4))
        here.end(run, status="incomplete")
        assert [r.usage.counted for r in here.records] == [0, 4, 4]
        assert "declined: its policy's time for computing is used up (time)" in here.events()
        assert client_home.day.seconds > 0.1
        assert not list(client_home.folder.glob("runs/*/*.message"))
    assert time.strftime("%Y") in (client_home.folder / "seconds.json").read_text()
