"""A client computes no longer than its own policy allows, and says so."""

import threading
import time
from pathlib import Path
from typing import Any

import learning
import pytest
from federation import federation, job, population
from test_rounds import MORTAL

from hanse.core import InvalidInput
from hanse.network.client.client import Client
from hanse.network.client.limits import Spent
from hanse.network.client.policy import Policy
from hanse.network.protocol.errors import Forbidden


def test_a_day_is_summed_and_ends(tmp_path: Path) -> None:
    day = ["2026-01-31"]
    path = tmp_path / "spent.json"
    spent = Spent(path, lambda: day[0], lambda day: {"tickets": 2 if day else 5})
    spent.add(seconds=1.5, tickets=1)
    Spent(path, lambda: day[0]).add(seconds=2.0)
    assert (spent.of_today("seconds"), spent.of_today("tickets"), spent.of_all("tickets")) == (3.5, 3, 6)
    day[0] = "2026-02-01"
    assert (spent.of_today("seconds"), spent.of_all("seconds")) == (0.0, 3.5)
    spent.add(seconds=1.0)
    assert (spent.of_today("seconds"), spent.of_all("seconds")) == (1.0, 4.5)
    day[0] = "2026-01-31"  # the clock is set back: neither day begins again
    assert (spent.of_today("seconds"), spent.describe_day()[:18]) == (1.0, "a day (2026-02-01 ")
    spent.add(seconds=1.0)
    day[0] = "2026-02-01"
    assert (spent.of_today("seconds"), spent.describe_day()) == (2.0, "a day")
    path.write_text('{"day": "no day", "today": {}, "total": {}}')
    spent.add(seconds=1.0)
    assert spent.of_today("seconds") == 1.0
    path.write_text('{"day": ')
    assert (spent.of_today("seconds"), spent.of_today("tickets"), spent.of_all("tickets")) == (0.0, 2, 5)


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


@pytest.mark.parametrize(
    ("bind", "limit_s", "said", "code"),
    [
        (learning.spins, 0.1, "declined: its policy's time for computing is used up (time)", "time"),
        (learning.is_killed, 900, "its memory, disk or another resource is used up (resources)", "resources"),
    ],
    ids=["spins in a call into a library", "is killed"],
)
def test_the_operator_hears_of_a_ticket_that_was_stopped_and_the_client_goes_on(
    bind: Any, limit_s: float, said: str, code: str, tmp_path: Path
) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(MORTAL, 2))
        client_home = here.client_home(4)
        (client_home.folder / "policy.toml").write_text(f"max_ticket_s = {limit_s}\nmax_day_s = 1000")
        mine = population().client(4)
        client = Client(client_home, lambda plan: mine, bind, here.said.append)
        here.clients.append(client)
        here.threads.append(threading.Thread(target=client.run, daemon=True))
        here.threads[-1].start()
        here.enter(range(4))
        here.end(run, status="incomplete")
        assert [r.usage.counted for r in here.records] == [0, 4, 4]
        assert said in here.events()
        failed = [line for line in client_home.audit.lines() if line["what"] == "fails"]
        assert [line["code"] for line in failed] == [code, code]
        assert client_home.spent.of_today("seconds") > 0
        assert not list(client_home.folder.glob("runs/*/*.message"))
    assert time.strftime("%Y") in (client_home.folder / "spent.json").read_text()
