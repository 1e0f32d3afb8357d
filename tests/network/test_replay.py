"""Tickets are replayed in the home of the client that computed them, and failed ones at the server."""

import os
from pathlib import Path

import pytest
from federation import CASES, FED_AVG, federation, job, learner, population
from test_rounds import MORTAL, Failing

from hanse.core import InvalidInput, Key
from hanse.core.exchange import Task
from hanse.network.server.failed_tickets import MAX_PAYLOADS, FailedTickets
from hanse.runs import in_client_home, in_server_home, replay_ticket
from hanse.runs.session import is_simulated


@pytest.mark.parametrize("case", ["scaffold", "masked_quantized"])
def test_a_client_sends_the_same_bytes_again(case: str, tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(CASES[case], 3))
        here.enter()
        here.end(run)
        assert not is_simulated(here.server.runs.checkpoint(run))
        people, seen = population(), 0
        for number in range(5):
            home = here.folder / f"client-{number}"
            if not list(home.glob("runs/*/*.task")):
                continue  # it was in no cohort
            (again,) = in_client_home(home, run[:6], lambda plan, k: people.client(k), learner)
            assert again.sha256 is not None
            assert replay_ticket(again).sha256 == again.sha256
            seen += bool(again.memory) or case != "scaffold"
        assert seen


def test_what_failed_is_kept_at_the_server(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(MORTAL, 3))
        here.enter(range(4))
        here.enter([4], kind=Failing)
        here.end(run, status="incomplete")
        home, people = tmp_path / "server", population()
        (case,) = in_server_home(home, run, 2, 4, lambda plan, k: people.client(k), learner)
        assert "the client's memory" in case.lacks
        done = replay_ticket(case)
        assert done.parts["update"].weight == len(people.client(4))
        with pytest.raises(InvalidInput, match=r"last rounds .*round 1 client 4, round 2 client 4"):
            list(in_server_home(home, run, 2, 3, lambda plan, k: people.client(k), learner))
        with pytest.raises(InvalidInput, match=r"0 runs in .* begin with 'zz'"):
            list(in_client_home(tmp_path / "client-1", "zz", lambda plan, k: None, learner))


def test_few_payloads_are_kept(tmp_path: Path) -> None:
    failed_tickets = FailedTickets(tmp_path / "cases")
    for number in range(MAX_PAYLOADS + 3):
        payload = tmp_path / f"{number:064x}"
        payload.write_bytes(os.urandom(10))
        for client in (0, 1):
            failed_tickets.keep(number, Task(2 * number + client, client, Key.from_seed(0), None), payload)
    rounds = range(3, MAX_PAYLOADS + 3)
    assert failed_tickets.kept() == [(number, client) for number in rounds for client in (0, 1)]
    assert len(list((tmp_path / "cases").glob("*.payload"))) == MAX_PAYLOADS


def test_nothing_is_kept_where_nothing_fails(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 2))
        here.enter()
        here.end(run)
        assert not FailedTickets(tmp_path / "server" / "runs" / run / "cases").kept()
