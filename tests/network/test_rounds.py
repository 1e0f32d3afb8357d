"""Rounds close: by all, by the first enough, without the silent; and a run that can't go on ends."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from federation import (
    FED_AVG,
    NUM_CLIENTS,
    InThread,
    Threaded,
    federation,
    job,
    learner,
    population,
    simulate,
    simulated,
)
from heads import own_heads

from hanse.algorithms import apply_rest, async_sgd, dga, fed_async, fed_avg, fed_buff, giant, map_reduce
from hanse.core import Close
from hanse.core.exchange import Record
from hanse.network.client.client import Client
from hanse.network.client.enrolment import leave
from hanse.network.client.home import ClientHome
from hanse.network.client.poller import Poller
from hanse.network.client.transport import ServerLink
from hanse.network.protocol.errors import Refused
from hanse.network.protocol.wire import Poll
from hanse.network.server.runtime import Patience

MORTAL = fed_avg(lr=0.5, fraction=1.0, batch_size=50, close=Close(minimum_fraction=0.5))


class FailingBackend(InThread):
    """Fails before it trains."""

    def compute(self, *ticket: Any) -> Any:
        raise RuntimeError("no such luck")


class Failing(Client):
    """Fails in each round."""

    backend = FailingBackend


class SilentPoller(Poller):
    """Takes work and is never heard again."""

    def poll(self, wait_s: float = 25.0) -> Any:
        news = super().poll(wait_s)
        if news.work:
            self._connection.stopping.set()
            return type(news)()
        return news


class Silent(Threaded):
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
        assert "failed once downloaded: an error, which its own log describes (internal)" in here.events()
        assert "no such luck" not in here.events()
    own = (here.folder / "client-4" / "client.log").read_text()
    assert "RuntimeError: no such luck" in own
    assert "Traceback" in own
    assert (here.folder / "client-4" / "client.log").stat().st_mode & 0o077 == 0


def test_the_silent_are_given_up(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(MORTAL, 2, patience=Patience(silent_s=60.0, min_clients=3)))
        here.enter([3, 4], kind=Silent)
        here.enter(range(3))
        led = here.server.run(run)
        here.wait_until(lambda: led.mailbox.count_offers()["answered"] == 3, "the others did not answer")
        for thread in here.threads[:2]:
            thread.join(60.0)
            assert not thread.is_alive()
        assert [r.round for r in here.records] == [0]  # the round waits for the silent
        for number in (3, 4):
            here.server.presence.hear(number, -60.0)  # as if they had been silent for so long
        led.mailbox.notify()
        here.end(run, status="incomplete")
        assert [r.usage.counted for r in here.records] == [0, 3, 3]
        for number in (3, 4):
            why = rf"client {number}: run {run}: ticket \d is not counted: nothing was heard of it for 6\d s"
            assert re.search(why, here.events())


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


def test_delays_and_parameter_servers_run_too(tmp_path: Path) -> None:
    """Where all are waited for, to the bits of the simulation."""
    exact = [map_reduce(0.5), dga(0.5, 2, 2, 20)]
    with federation(tmp_path) as here:
        runs = [here.lead(job(algorithm, 4)) for algorithm in exact]
        free = [here.lead(job(algorithm, 6)) for algorithm in (async_sgd(0.3), fed_async(0.3))]
        here.enter()
        for algorithm, run in zip(exact, runs, strict=True):
            assert here.end(run)["params_sha256"] == simulated(algorithm, 4)
        for run in free:
            here.end(run)
        stale = [r.metrics["staleness"] for r in here.records if "staleness" in r.metrics]
        assert len(stale) == 12


def test_what_is_in_flight_at_the_end_is_waited_for_and_applied(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        algorithm = fed_buff(lr=0.3, concurrency=4, buffer_size=3, rest=apply_rest())
        run = here.lead(job(algorithm, 3))
        here.enter()
        result = here.end(run)
        assert [r.usage.counted for r in here.records] == [0, 3, 3, 3, 1]
        assert all(r.metrics["staleness"] >= 0 for r in here.records[1:])
        assert here.records[-1].is_measured
        again = here.lead(job(algorithm, 3), run)
        assert here.end(again)["params_sha256"] == result["params_sha256"]
        assert len(here.records) == 5


def test_private_heads_are_measured_and_finished_in_the_bits_of_the_simulation(tmp_path: Path) -> None:
    seen = list[Record]()
    algorithm = own_heads(finishes=True)
    due = simulate(algorithm, 2, watch=seen.append)
    with federation(tmp_path) as here:
        run = here.lead(job(algorithm, 2))
        here.enter()
        ended = here.ended(run)
        assert ended.memories == due.memories
        assert [dict(r.metrics) for r in here.records] == [dict(r.metrics) for r in seen]
        assert [r.reported for r in here.records] == [(), *[("moved",)] * 3]
        assert here.records[-1].metrics["error"] < 1e-12 < here.records[-2].metrics["error"]


def test_whoever_leaves_is_not_asked_again(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:

        def revoke(record: Record) -> None:
            here.records.append(record)
            if record.round == 1:
                here.server.part("client 3", "revoked")

        client_homes = [here.client_home(n) for n in range(NUM_CLIENTS)]
        leave(client_homes[2])
        with pytest.raises(Exception, match="has left the federation"):
            client_homes[2].link()
        assert here.server.status()["clients"] == 4
        run = here.server.lead(job(MORTAL, 2, num_clients=4, watch=revoke))
        here.enter([0, 1, 3, 4])
        here.end(run)
        assert [(r.usage.counted, r.usage.dropped) for r in here.records] == [(0, 0), (4, 0), (3, 0)]
        here.threads[2].join(60.0)
        assert not here.threads[2].is_alive()
        ends = {number: [line["what"] for line in client_homes[number].audit.lines()] for number in (2, 3)}
        assert ends[2] == ["joins", "joined", "consent withdrawn", "left"]
        own = [what for what in ends[3] if what not in ("polls", "settled")]
        assert own[:4] == ["joins", "joined", "starts", "receives a plan"]
        assert own[4:] == ["receives", "sends", "sent", "revoked", "ends"]


class Unlucky(ClientHome):
    """The client home of a client whose first payload is gone when it asks for it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.polls: list[Poll] = []
        self._lost: list[int] = []

    def link(self) -> ServerLink:
        link = super().link()
        ask, download = link.ask, link.download

        def noted_ask(method: str, path: str, kind: Any, body: Any = None, **more: Any) -> Any:
            self.polls.append(body)
            return ask(method, path, kind, body, **more)

        def lose_one(path: str, sha256: str, size: int, to: Path, *more: Any) -> None:
            if to.suffix == ".payload" and not self._lost:
                self._lost.append(size)
                raise Refused(404, "no-object", "this object is no longer needed; ask for work again")
            download(path, sha256, size, to, *more)

        link.ask, link.download = noted_ask, lose_one  # type: ignore[method-assign]
        return link


def test_a_ticket_that_a_client_gave_up_is_offered_to_it_again_at_once(tmp_path: Path) -> None:
    """The poll that waits says that the client works on it, so another one corrects that."""
    with federation(tmp_path) as here:
        run = here.lead(job(FED_AVG, 2))
        here.client_home(0)
        home, mine = Unlucky(tmp_path / "client-0"), population().client(0)
        client = Client(home, lambda plan: mine, learner, here.said.append)
        here.clients.append(client)
        here.threads.append(threading.Thread(target=client.run, daemon=True))
        here.threads[-1].start()
        here.enter(range(1, NUM_CLIENTS))
        assert here.end(run)["params_sha256"] == simulated(FED_AVG, 2)
        asked = [poll.have for poll in home.polls if isinstance(poll, Poll) and poll.wait_s == 0.0]
        assert asked == [{}]


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
