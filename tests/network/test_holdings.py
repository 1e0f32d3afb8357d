"""Over the network: each party has data and a learner of its own, and its private head is measured there."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import holdings
import numpy as np
import pytest
from federation import (
    FED_AVG,
    NUM_CLIENTS,
    Federation,
    Threaded,
    federation,
    job,
    population,
    read_memory,
)
from federation import simulated as simulated_digits
from holdings import FED_PER, VERTICAL
from learning import learner, nothing
from support import KEYS

from hanse.core import InvalidInput, OwnLearners, Population, own_test
from hanse.core.exchange import Fork, InMemory, PartyMemory, Progress, digest, drive, training
from hanse.network.client import policy
from hanse.network.client.client import Client
from hanse.network.client.enrolment import examine
from hanse.network.client.home import ClientHome
from hanse.network.client.role import read_forks, write_forks
from hanse.network.client.roles import OWN, TEST
from hanse.network.protocol.errors import Forbidden, Unsuited
from hanse.network.protocol.sealed_plan import seal_plan
from hanse.network.protocol.wire import Decision, Plan
from hanse.network.server.job import RunJob
from hanse.runs import in_client_home, replay_ticket
from hanse.simulation import InProcess, Simulation

ROUNDS = 3


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets parties hold fewer rows than a policy wants by default."""
    monkeypatch.setattr(policy, "FEWEST", 1)


def bind(plan: Plan) -> OwnLearners:
    return OwnLearners(holdings.make_learner)


def begin(algorithm: Any) -> Progress[Any]:
    is_vertical = isinstance(algorithm, holdings.vertical_descent)
    params = holdings.NO_RESIDUAL if is_vertical else holdings.first_body()
    return Progress(0, algorithm.init(params, KEYS.public))


def program(algorithm: Any, progress: Progress[Any]) -> Any:
    return training(algorithm, progress, KEYS.public, rounds=ROUNDS)


def led(algorithm: Any, num_clients: int) -> RunJob:
    return replace(
        job(algorithm, ROUNDS, num_clients=num_clients),
        begin=lambda: begin(algorithm),
        program=lambda progress: program(algorithm, progress),
        secret=KEYS.secret.fold_in("server"),
    )


def simulated(algorithm: Any, backend: InProcess, num_clients: int) -> tuple[str, list[str]]:
    store = InMemory()
    runtime = Simulation(backend, num_clients, KEYS, memory=PartyMemory(store.memory))
    ended = drive(program(algorithm, begin(algorithm)), runtime, store)
    return digest(dict(ended.state.params)), [digest(dict(store.memory(k))) for k in range(num_clients)]


def enter(
    here: Federation, people: Population[Any], bind: Callable[[Plan], Any], processes: tuple[int, ...] = ()
) -> None:
    """Starts a client for each, in threads; some of them compute in a process, as `hanse join` does."""
    for number in range(people.num_clients):
        client = (Client if number in processes else Threaded)(
            here.client_home(number),
            lambda plan, n=number: people.client(n),
            bind,
            here.said.append,
            lambda plan, n=number: people.role(own_test(n)),
        )
        here.clients.append(client)
        here.threads.append(threading.Thread(target=client.run, daemon=True))
        here.threads[-1].start()


def committed(here: Federation, run: str, num_clients: int) -> list[str]:
    mailbox = here.server.run(run).mailbox
    here.wait_until(lambda: not mailbox.outcomes(), "a client does not know how its tickets ended")
    homes = [here.folder / f"client-{number}" for number in range(num_clients)]
    return [digest(dict(read_memory(home, run)[0])) for home in homes]


def test_three_parties_with_columns_and_labels_end_as_simulated(tmp_path: Path) -> None:
    params, memories = simulated(VERTICAL, holdings.table_backend(), 3)
    with federation(tmp_path) as here:
        run = here.lead(led(VERTICAL, 3))
        enter(here, holdings.Table(), bind, processes=(1,))
        assert here.end(run)["params_sha256"] == params
        assert committed(here, run, 3) == memories


def test_a_party_with_a_name_has_a_learner_of_its_own(tmp_path: Path) -> None:
    table, made, store = holdings.Table(), set[Any](), InMemory()
    by_holder, holder = holdings.BY_LABEL_HOLDER, holdings.LABEL_HOLDER
    runtime = Simulation(
        holdings.table_backend(), 2, KEYS, memory=PartyMemory(store.memory), parties=[holder]
    )
    params = digest(dict(drive(program(by_holder, begin(by_holder)), runtime, store).state.params))

    def own(plan: Plan) -> OwnLearners:
        def make(party: Any, data: Any) -> Any:
            made.add(party)
            return holdings.make_learner(party, data)

        return OwnLearners(make)

    with federation(tmp_path) as here:
        run = here.lead(replace(led(by_holder, 2), parties=(holder,)))
        for number in (0, 1):
            here.enter_one(number, lambda plan, n=number: table.client(n), own)
        here.enter_one(holder, lambda plan: table.y, own)
        assert here.end(run)["params_sha256"] == params
        assert made == {0, 1, holder}
        home, plan = here.client_home(holder), seal_plan(Plan("", "{}", None, (), None))
        with pytest.raises(InvalidInput, match="'label_holder' holds 7 rows"):
            examine(home, plan, lambda plan: table.y[:7], own)


def test_private_heads_are_measured_and_trained_as_simulated(tmp_path: Path) -> None:
    params, memories = simulated(FED_PER, holdings.clinics_backend(), holdings.NUM_CLIENTS)
    with federation(tmp_path) as here:
        run = here.lead(led(FED_PER, holdings.NUM_CLIENTS))
        enter(here, holdings.Clinics(), nothing)
        assert here.end(run)["params_sha256"] == params
        assert committed(here, run, holdings.NUM_CLIENTS) == memories
        assert here.events().count("not finite") == len(holdings.FALLS_OUT)
        for number in range(holdings.NUM_CLIENTS):
            assert not (here.client_home(number).run(run) / TEST / "memory").exists()


def test_a_counted_ticket_of_the_test_role_ends_no_promise_of_its_client(tmp_path: Path) -> None:
    algorithm, num_clients = holdings.promises(), holdings.NUM_CLIENTS
    params, memories = simulated(algorithm, holdings.clinics_backend(), num_clients)
    assert params == digest({"round": np.asarray(3.0), "kept": np.asarray(float(num_clients))})
    with federation(tmp_path) as here:
        run = here.lead(led(algorithm, num_clients))
        enter(here, holdings.Clinics(), nothing)
        assert here.end(run, status="incomplete")["params_sha256"] == params
        assert committed(here, run, num_clients) == memories


def test_an_outcome_of_an_earlier_version_is_settled_in_both_roles(tmp_path: Path) -> None:
    """And one that names its party in that role alone, also if the role is not open."""
    with federation(tmp_path) as here:
        home = here.client_home(3)

        def client() -> Client:
            return Client(home, lambda plan: [1], nothing, test=lambda plan: [1])

        def keep(kind: str, ticket: int) -> None:
            forks = read_forks(home.run("run1") / kind)
            forks.keep(ticket, Fork(None, {"stages/n": ticket}, ()))
            (home.run("run1") / kind).mkdir(exist_ok=True)
            write_forks(home.run("run1") / kind, forks)

        def settle(*tickets: int, party: Any) -> list[Any]:
            said = [Decision(run="run1", ticket=ticket, counted=True, party=party) for ticket in tickets]
            client()._roles.settle("run1", said)
            found = [read_forks(home.run("run1") / kind) for kind in (OWN, TEST)]
            return [(one.committed.get("stages/n"), [*one.forks]) for one in found]

        keep(OWN, 10)
        keep(TEST, 11)
        assert settle(10, 11, party="test/3") == [(None, [10]), (11, [])]
        keep(TEST, 12)
        assert settle(10, 12, party=3) == [(10, []), (11, [12])]
        keep(OWN, 13)
        assert settle(12, 13, party=None) == [(13, []), (12, [])]


def test_data_that_no_learner_is_made_for_end_the_client(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        here.lead(job(FED_AVG, 1, num_clients=1))
        here.enter_one(0, lambda plan: holdings.Table().client(2)[:7], bind)
        here.wait_until(lambda: bool(here.errors), "the client goes on")
        (error,) = here.errors
        assert isinstance(error, Unsuited)
        assert "0 holds 7 rows; 40 are needed" in str(error)
        assert isinstance(error.__cause__, InvalidInput)


def test_the_server_and_its_clients_make_their_own_learners(tmp_path: Path) -> None:
    made = set[Any]()

    def own(plan: Any) -> OwnLearners:
        def make(party: Any, data: Any) -> Any:
            made.add((party, len(data)))
            return learner(plan)

        return OwnLearners(make)

    people = population()
    with federation(tmp_path) as here:
        run = here.lead(replace(job(FED_AVG, 1), learner=own(None)))
        for number in range(NUM_CLIENTS):
            here.enter_one(number, lambda plan, n=number: people.client(n), own)
        assert here.end(run)["params_sha256"] == simulated_digits(FED_AVG, 1)
    held = {(number, len(people.client(number))) for number in range(NUM_CLIENTS)}
    assert made == {*held, ("server", len(people.role("server")))}
    (case,) = in_client_home(tmp_path / "client-0", run, lambda plan, number: people.client(number), own)
    assert replay_ticket(case).sha256 == case.sha256


def test_data_are_examined_before_a_client_works(tmp_path: Path) -> None:
    """A learner of its own is made once the client has its number; what can't be counted is not."""
    plan = seal_plan(Plan("", "{}", None, (), None))
    table = holdings.Table()
    with federation(tmp_path) as here:
        stranger = ClientHome(tmp_path / "stranger")
        assert examine(stranger, plan, lambda plan: table.y[:7], bind) == {"examples": 7}
        home = here.client_home(2)
        assert examine(home, plan, lambda plan: table.y, bind) == {"examples": holdings.NUM_ROWS}
        with pytest.raises(InvalidInput, match="2 holds 7 rows"):
            examine(home, plan, lambda plan: table.y[:7], bind)
        with pytest.raises(InvalidInput, match="'test/2' holds 6 rows"):
            examine(home, plan, lambda plan: table.y, bind, lambda plan: table.y[:6])
        fitting = lambda plan: OwnLearners(lambda party, data: None)  # noqa: E731
        assert examine(home, plan, lambda plan: {"y": table.y}, fitting) == {}
        (home.folder / "policy.toml").write_text("min_examples = 2")
        with pytest.raises(Forbidden, match="can't be counted"):
            examine(ClientHome(home.folder), plan, lambda plan: {"y": table.y}, fitting)
