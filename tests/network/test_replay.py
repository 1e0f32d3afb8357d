"""Tickets are replayed in the home of the client that computed them, and failed ones at the server."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import CASES, FED_AVG, federation, job, learner, population
from test_rounds import MORTAL, Failing

from hanse.core import InvalidInput, Key
from hanse.core.exchange import Task, unpack
from hanse.network.server import failed_tickets
from hanse.network.server.failed_tickets import BLOCK_BYTES, MAX_PAYLOADS, FailedTickets
from hanse.runs import in_client_home, in_server_home, replay_ticket
from hanse.runs.machine import is_simulated


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
    failed = FailedTickets(tmp_path / "cases")
    for number in range(MAX_PAYLOADS + 3):
        payload = tmp_path / f"{number:064x}"
        payload.write_bytes(os.urandom(10))
        for client in (0, 1):
            failed.keep(number, Task(2 * number + client, client, Key.from_seed(0), None), payload)
    rounds = range(3, MAX_PAYLOADS + 3)
    assert failed.kept() == [(number, client) for number in rounds for client in (0, 1)]
    assert len(list((tmp_path / "cases").glob("*.payload"))) == MAX_PAYLOADS


def test_tensors_of_single_clients_are_kept_in_bounds_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*given: Any) -> Any:
        read_files.append(given)
        return unpack(*given)

    read_files: list[Any] = []
    monkeypatch.setattr(failed_tickets, "MAX_CASES_BYTES", 100_000)
    monkeypatch.setattr(failed_tickets, "unpack", read)
    folder, payload = tmp_path / "cases", tmp_path / ("0" * 64)
    payload.write_bytes(b"payload")

    def keep(kept: FailedTickets, ticket: int, num_values: int, own_payload: Path = payload) -> list[int]:
        own = {"mail": {"x": np.zeros(num_values)}} if num_values else {}
        kept.keep(ticket, Task(ticket, 0, Key.from_seed(0), None, own), own_payload)
        on_disk = sum(max(path.stat().st_size, BLOCK_BYTES) for path in folder.glob("*.case"))
        assert on_disk <= 100_000 or len(kept.kept()) == 1
        return [round for round, _ in kept.kept()]

    kept = FailedTickets(folder)
    for ticket in range(10):
        found = keep(kept, ticket, 4_000)
    assert (found, read_files) == ([7, 8, 9], [])
    assert keep(kept, 10, 20_000) == [10], "the last one is always kept"
    for ticket in range(11, 60):
        found = keep(kept, ticket, 0)
    assert found == [*range(60 - 100_000 // BLOCK_BYTES, 60)], "small files take space, too"
    (folder / "1-99-0.case").write_bytes(b"cut off")
    (folder / f"{'1' * 64}.payload").write_bytes(b"of no case")
    again, other = FailedTickets(folder), tmp_path / ("2" * 64)
    other.write_bytes(b"another")
    assert keep(again, 60, 0)[-2:] == [59, 60]
    assert len(read_files) == 100_000 // BLOCK_BYTES + 1
    assert keep(again, 61, 20_000, other) == [61]
    assert len(read_files) == 100_000 // BLOCK_BYTES + 1
    assert {path.name for path in folder.iterdir()} == {"61-61-0.case", f"{'2' * 64}.payload"}


def test_nothing_is_kept_where_nothing_fails(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 2))
        here.enter()
        here.end(run)
        assert not FailedTickets(tmp_path / "server" / "runs" / run / "cases").kept()
