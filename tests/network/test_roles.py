"""A client plays the role of its own test examples: it measures models there, as in the simulation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import (
    FED_AVG,
    KEYS,
    NUM_CLIENTS,
    Federation,
    Threaded,
    begin,
    bound,
    federation,
    job,
    learner,
    population,
    read_memory,
)

from hanse.algorithms import evaluation, scaffold
from hanse.core import (
    Contribution,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    TensorSpec,
    Work,
    gather,
    own_test,
    value,
)
from hanse.core import sum as sum_
from hanse.core.exchange import InMemory, PartyMemory, digest, drive, training
from hanse.data import digits, iid, partition_data
from hanse.learners import softmax
from hanse.network.client.client import Client
from hanse.network.client.enrolment import waiting_plans
from hanse.network.client.roles import OWN, TEST
from hanse.simulation import InProcess, Simulation

ROUNDS = 3
TESTED = tuple(map(own_test, range(NUM_CLIENTS)))


def people() -> Any:
    return partition_data(
        digits().load(), iid(NUM_CLIENTS), KEYS.public.fold_in("partition"), client_test_fraction=0.2
    )


@value
class seen_so_far(Work[Any, Any]):
    """Counts in the party's memory how often it was visited; says how often, and how many examples it saw."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        visits = memory.get("visits", 0) + 1
        seen = {"visits": np.float64(visits), "examples": np.float64(len(data))}
        return {"seen": Part({name: np.asarray(number) for name, number in seen.items()})}, {"visits": visits}


def measure(params: Any, key: Key) -> Program[dict[str, float]]:
    """Accuracy on the clients' own tests; then what clients remember, and twice what roles read of it."""
    found = yield from evaluation(bound(softmax()), TESTED)(params, key)
    spec = Spec({name: TensorSpec((), "float64") for name in ("visits", "examples")})
    for name, cohort in (("clients", tuple(range(NUM_CLIENTS))), ("roles", TESTED), ("roles", TESTED)):
        got = yield from gather(
            seen_so_far(), cohort, {"params": params}, key.fold_in(name), seen=PartSpec(spec, into=sum_())
        )
        found |= {f"{name} {what}": float(number) for what, number in got["seen"].values.items()}
    return found


def program(progress: Any) -> Any:
    return training(FED_AVG, progress, KEYS.public, rounds=ROUNDS, evaluate=measure)


def simulated() -> tuple[str, list[dict[str, float]]]:
    store, seen = InMemory(), list[Any]()
    backend = InProcess(bound(softmax()), people(), KEYS)
    runtime = Simulation(backend, NUM_CLIENTS, KEYS, memory=PartyMemory(store.memory))
    ended = drive(program(begin(FED_AVG)), runtime, store, lambda record: seen.append(dict(record.metrics)))
    return digest(dict(ended.state.params)), seen


def enter(here: Federation, without: Sequence[int] = (), instead: Any = None) -> None:
    import threading

    data = people()
    for number in range(NUM_CLIENTS):
        test = instead if number in without else lambda plan, n=number: data.role(own_test(n))
        client = Threaded(
            here.client_home(number), lambda plan, n=number: data.client(n), learner, here.said.append, test
        )
        here.clients.append(client)
        here.threads.append(threading.Thread(target=client.run, daemon=True))
        here.threads[-1].start()


def no_data(name: str) -> Any:
    raise AssertionError(f"the server was to play {name!r}")


def test_clients_measure_on_their_own_tests_in_the_bits_of_the_simulation(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(replace(job(FED_AVG, ROUNDS), program=program, role=no_data))
        enter(here)
        params, seen = simulated()
        assert here.end(run)["params_sha256"] == params
        assert [dict(record.metrics) for record in here.records] == seen
        assert [metrics["clients visits"] for metrics in seen] == [5.0, 10.0, 15.0, 20.0]
        assert [metrics["roles visits"] for metrics in seen] == [5.0, 10.0, 15.0, 20.0], "a role only reads"
        assert seen[0]["roles examples"] * 3 < seen[0]["clients examples"]
        kept = here.client_home(0).run(run)
        assert (kept / "memory").exists()
        assert not (kept / TEST / "memory").exists()


@pytest.mark.parametrize("instead", [None, lambda plan: ()], ids=["none", "none held out"])
def test_a_client_without_tests_says_so_and_the_others_measure(instead: Any, tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        measured = lambda progress: training(  # noqa: E731
            FED_AVG, progress, KEYS.public, rounds=1, evaluate=evaluation(bound(softmax()), TESTED)
        )
        run = here.lead(replace(job(FED_AVG, 1), program=measured, role=no_data))
        enter(here, [3], instead)
        here.end(run)
        assert here.records[-1].metrics["accuracy"] > 0.3
        events = here.events()
        assert f"client 3: run {run}: ticket 3 is not counted: declined: it has no test" in events
        (line,) = (line for line in events.splitlines() if "is not counted" in line)
        assert line.endswith("(and 1 more of this kind)")


@pytest.mark.parametrize("party", [1, own_test(1), "test/x", "server"])
def test_a_client_plays_nobody_else(party: Any, tmp_path: Path) -> None:
    from hanse.core import MessageError

    with federation(tmp_path) as here:
        client = Client(here.client_home(0), lambda plan: [], learner)
        with pytest.raises(MessageError, match="does not play"):
            client._roles.open_role("a", None, party)  # type: ignore[arg-type]
        client.stop()


def test_a_connected_client_goes_on_by_another_plan_once_that_is_allowed(tmp_path: Path) -> None:
    """Its server was upgraded meanwhile, and goes on with the run. What a client remembers stays."""
    opened, own = list[str](), population().client(0)

    def data(plan: Any) -> Any:
        opened.append(plan.settings)
        return own

    def serve_a_round(lr: float, begun: str | None = None) -> str:
        given = replace(job(scaffold(lr=lr, fraction=1.0, batch_size=50), 9), num_clients=1)
        name = here.server.lead(replace(given, watch=drain), begun)
        here.end(name, status="stopped")
        return name

    def drain(record: Any) -> None:
        if record.round > 0:
            here.server.led()[-1].mailbox.drain()

    with federation(tmp_path) as here:
        here.enter_one(0, data, learner)
        run = serve_a_round(0.3)
        home = here.client_home(0)
        here.wait_until(lambda: bool(read_memory(home.folder, run)[0]), "its round was counted")
        before = here.clients[0]._roles._roles[run, OWN]
        (home.folder / "policy.toml").write_text("approve_plans = true")
        serve_a_round(0.1, run)
        assert "declined: the plan waits for its owner's approval" in here.events()
        assert len(opened) == 1
        home.approvals.approve(waiting_plans(home)[-1])
        serve_a_round(0.1, run)
        after = here.clients[0]._roles._roles[run, OWN]
        assert [len(opened), len({*opened})] == [2, 2]
        assert after is not before
        assert (after.forks is before.forks, after.lock is before.lock) == (True, True)
        assert after.plan != before.plan
        here.wait_until(lambda: after.decided >= {1, 3, 5}, "an outcome is not known")
        assert f"run {run} goes on with another plan, which is allowed here" in here.said
