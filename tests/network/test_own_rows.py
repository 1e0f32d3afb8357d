"""Each party reads its row at home; the server gets it only where the owner agrees, whoever dies."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation, InThread, Threaded, federation
from test_kill import free_port

import hanse
from hanse.core import Key, Memory
from hanse.core.exchange import Fork, Payload, Task
from hanse.data import own_test
from hanse.evaluation import measure_row
from hanse.network.client import Entrant, Owner, Sources, join_in_order
from hanse.network.client.client import Client
from hanse.network.client.home import ClientHome
from hanse.network.client.worker import Worker
from hanse.network.protocol.wire import WorkOrder
from hanse.network.server.run_thread import NOTES
from hanse.runs import Parties, load_population

SETTINGS = """
rounds = 2
client_test_fraction = 0.3
model = "logistic"
data = { name = "npz", path = "rows.npz", test_fraction = 0.0 }
partition = { name = "iid", num_clients = 3 }
algorithm = { name = "fed_avg", lr = 0.3, fraction = 1.0, uplink = [{ name = "clip", max_norm = 5.0 }] }
baselines = ["on_site"]
[evaluation]
metrics = ["auroc(bins=20)"]
"""
STRICT = 'min_cohort = 2\nmax_epsilon = 1\nunnoised = ["update", "metrics"]\n'
SHARES = {0: "share_row = true\n", 1: STRICT, 2: "share_row = true\n"}
"""The policies of three clients. The second computes its row though its policy would let none leave so."""


class Held(InThread):
    """Computes no row until the test lets it."""

    go = threading.Event()

    def compute(
        self, task: Task, payload: Payload, memory: Memory, secret: Key, limit_s: float | None
    ) -> tuple[bytes, Fork]:
        if isinstance(payload.work, measure_row):
            self.go.wait(60.0)
        return super().compute(task, payload, memory, secret, limit_s)


class Slow(Threaded):
    """A client that is slow to compute its row."""

    backend = Held


class Withdraws(Worker):
    """Its owner keeps the row once it is written, and before it leaves."""

    def _upload(self, work: WorkOrder, *given: Any, **named: Any) -> None:
        if work.work == "measure_row":
            (self._home.folder / "policy.toml").write_text("")
        super()._upload(work, *given, **named)


class Withdrawing(Threaded):
    """A client whose owner does so."""

    worker = Withdraws


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the settings and the rows, and simulate."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(180, 4)).astype(np.float32)
    np.savez("rows.npz", x=x, y=(x[:, 0] + rng.normal(size=180) > 0.5).astype(int))
    Path("app.toml").write_text(SETTINGS)
    return hanse.perform(hanse.read("app.toml"))


def sources(number: int) -> Sources:
    people = load_population(hanse.read("app.toml"))
    return Sources(lambda plan: people.client(number), lambda plan: people.role(own_test(number)))


def enter(here: Federation, policies: Mapping[int, str], kinds: Mapping[int, type[Client]] = {}) -> None:
    """Let three clients work, each with its own policy."""
    for number, policy in policies.items():
        home, own = here.client_home(number), sources(number)
        (home.folder / "policy.toml").write_text(policy)
        kind = kinds.get(number, Threaded)
        client = kind(home, own.data, Parties().bind, here.said.append, own.test)
        here.clients.append(client)
        here.threads.append(threading.Thread(target=client.run, daemon=True))
        here.threads[-1].start()


def kept(folder: Path, number: int, run: str) -> dict[str, Any]:
    """Return what a client has kept for its owner, without the name of the run."""
    said: dict[str, Any] = json.loads((folder / f"client-{number}" / "runs" / run / "row.json").read_text())
    row: dict[str, Any] = said["row"]
    return row


def sent(folder: Path, number: int) -> list[dict[str, Any]]:
    """Return what a client's audit log says of messages with a row."""
    lines = ClientHome(folder / f"client-{number}").audit.lines()
    return [line for line in lines if line["what"] == "sends" and line["work"] == "measure_row"]


def test_rows_survive_a_restart_and_leave_only_with_consent(simulated: Any, tmp_path: Path) -> None:
    rows = {row["number"]: dict(row) for row in simulated.parties}
    folder, port = tmp_path / "f", free_port()
    Held.go.clear()
    with federation(folder, port=port) as here:
        run = here.lead(Parties().job(Path("app.toml"), ()))
        enter(here, SHARES, {2: Slow})
        led = here.server
        here.wait_until(lambda: bool(led.led()) and len(led.run(run).mailbox.find_open_holders()) == 1
                        and bool(sent(folder, 0)), "no row arrived")  # fmt: skip
        for each in here.server.led():
            each.mailbox.stop()
        here.end(run, status="interrupted")
        Held.go.set()
    assert (folder / "server" / "runs" / run / NOTES).exists()
    with federation(folder, port=port) as here:
        here.lead(Parties().job_of(folder / "server" / "runs.db", run), run)
        owner = Owner(lambda plans, number: sources(0), Parties().bind, here.said.append)
        join_in_order(here.client_home(0), Entrant(), owner)
        assert here.said[0] == f"run {run}: your row: 42 examples to train on, 18 test examples"
        enter(here, SHARES)
        result = here.end(run)
        here.wait_until(lambda: (folder / "client-2" / "runs" / run / "row.json").exists(), "no row is kept")
    assert result["params_sha256"] == simulated.params_sha256
    assert result["final"] == pytest.approx(simulated.to_json()["final"], abs=1e-6)
    assert result["parties"] == [rows[0], rows[2]]
    assert result["sharing"] == {"asked": 3, "shared": 2, "not_shared": ["client 1"], "why": None}
    assert result["headline"][-1] == "2 of 3 parties shared their row"
    told, alone = (
        found["metrics"]["auroc(bins=20)"] for found in (result["assessment"], simulated.assessment)
    )
    assert told["value"] == pytest.approx(alone["value"], abs=1e-6)
    assert told["constant"] == 0.5
    assert result["assessment"]["no_intervals"].endswith("and 0 shared theirs")
    for number in range(3):
        row = kept(folder, number, run)
        assert row.pop("run") == run
        assert row == rows[number]
    assert len({line["sha256"] for line in sent(folder, 0)}) == 1  # whether it was sent again or not
    assert sent(folder, 0)[0]["parts"]["row"]["bytes"] > 0
    assert sent(folder, 1) == []
    failed = [line for line in ClientHome(folder / "client-1").audit.lines() if line["what"] == "fails"]
    assert {line["code"] for line in failed} == {"policy"}


def test_no_row_leaves_that_its_owner_keeps_since_it_was_written(simulated: Any, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    with federation(folder) as here:
        run = here.lead(Parties().job(Path("app.toml"), ["rounds=1"]))
        enter(here, SHARES, {0: Withdrawing})
        result = here.end(run)
    assert result["sharing"]["not_shared"] == ["client 0", "client 1"]
    found = [line["what"] for line in ClientHome(folder / "client-0").audit.lines() if "ticket" in line]
    assert found[-2:] == ["sends", "fails"]


def test_a_run_with_noise_gives_each_owner_a_row_and_the_server_none(simulated: Any, tmp_path: Path) -> None:
    folder, text = tmp_path / "f", Path("app.toml").read_text()
    noise = """weighting = "uniform", into = { name = "fixed_mean", denominator = 3.0 }, uplink = [
        { name = "clip", max_norm = 5.0 }, { name = "gaussian", noise_multiplier = 1.0 }] }"""
    Path("app.toml").write_text(text.replace('uplink = [{ name = "clip", max_norm = 5.0 }] }', noise))
    with federation(folder) as here:
        run = here.lead(Parties().job(Path("app.toml"), ["rounds=1"]))
        enter(here, dict.fromkeys(range(3), "share_row = true\n"))
        result = here.end(run)
    assert result["parties"] == []
    assert result["sharing"]["why"] == "the run adds noise to what parties send, and a row has none"
    assert "row" not in result["headline"]
    assert [kept(folder, number, run)["test_examples"] for number in range(3)] == [18, 18, 18]
    assert [[line["parts"] for line in sent(folder, number)] for number in range(3)] == [[{}]] * 3
