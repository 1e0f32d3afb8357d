"""Runs that end before they have begun, one after the other, or while their server stays."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from federation import FED_AVG, Federation, federation, job

from hanse.network.server.job import RunJob


def broken() -> RunJob:
    def fail(progress: Any) -> Any:
        raise ValueError("no such program")

    return replace(job(FED_AVG, 3), program=fail, num_clients=0, num_present=0)


def await_end(here: Federation, run: str, status: str) -> None:
    """Waits until a run has ended, and its server has noted that."""
    until: Callable[[], bool] = lambda: f"{run}: {status}" in here.events()  # noqa: E731
    here.wait_until(until, f"run {run} does not end")


def test_a_run_that_is_stopped_before_it_began_is_stopped_in_the_store(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        server = here.server
        run = server.lead(job(FED_AVG, 3))
        server.stop_run(run)
        await_end(here, run, "stopped")
        assert server.runs.info(run).status == "stopped"
        assert server.runs.info(run).result == {"reason": "its operator stopped it"}


def test_a_run_that_is_stopped_before_its_first_round_ends_is_stopped_in_the_store(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        server = here.server
        run = server.lead(replace(job(FED_AVG, 3), num_clients=0, num_present=0))
        led = server.run(run)
        here.wait_until(lambda: led.mailbox.doing.startswith("waiting"), "it does not begin")
        server.stop_run(run)
        await_end(here, run, "stopped")
        assert server.runs.info(run).status == "stopped"


def test_stopping_one_run_dismisses_no_clients_of_another(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        server = here.server
        first, second = (server.lead(job(FED_AVG, 3)) for _ in range(2))
        server.stop_run(first)
        await_end(here, first, "stopped")
        server.run(second).mailbox.stop("too few clients came")
        await_end(here, second, "interrupted")
        assert server.done.wait(60.0)
        assert not server.over
        server.stop_run(first)
        assert not server.over
        server.stop_run(second)  # now its clients need not wait, either
        assert server.over


def test_a_server_that_stays_says_how_a_run_has_ended(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        lines: list[str] = []
        here.server.say = lines.append
        run = here.server.lead(broken())
        await_end(here, run, "failed")
        here.wait_until(lambda: f"run {run}: failed: ValueError: no such program" in lines, f"only {lines}")
        assert not here.server.done.is_set()
