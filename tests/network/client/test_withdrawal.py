"""What the owner decides while a client runs holds before anything leaves; a ticket is counted once."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import FED_AVG, Federation, InThread, Threaded, federation, job, population
from learning import learner

from hanse.algorithms.cocoa import count_examples
from hanse.core import Key
from hanse.core.exchange import Fork, Forks, Payload, Task
from hanse.network.client.home import ClientHome
from hanse.network.client.limits import MOST_NAMED, Spent
from hanse.network.client.role import OpenRole
from hanse.network.client.tickets import name_data, name_ticket
from hanse.network.protocol.spool import Outgoing


class Eventful(Threaded):
    """A client beside which something happens after each ticket that it has computed."""

    def __init__(
        self, home: ClientHome, happens: Callable[[], Any], large: bytes = b"", **options: Any
    ) -> None:
        self.ended = list[str]()
        self.error: BaseException | None = None
        self._happens, self._large = happens, large
        mine = population().client(0)
        super().__init__(home, options.get("data", lambda plan: mine), learner, options["say"])

    def _make_backend(self, load: Any) -> Any:
        inner, happens, large = InThread(load), self._happens, self._large

        class Backend:
            def compute(self, *given: Any) -> tuple[bytes, Fork]:
                message, fork = inner.compute(*given)
                happens()
                return message + large, fork

            def close(self) -> None:
                inner.close()

        return Backend()

    def run(self) -> str:
        try:
            self.ended.append(super().run())
        except BaseException as error:
            self.error = error
        return "".join(self.ended)


def start(here: Federation, happens: Callable[[], Any] = lambda: None, **options: Any) -> Eventful:
    client = Eventful(here.client_home(0), happens, say=here.said.append, **options)
    here.clients.append(client)
    here.threads.append(threading.Thread(target=client.run, daemon=True))
    here.threads[-1].start()
    return client


def lines_of(home: ClientHome) -> list[str]:
    return [line.get("code", line["what"]) for line in home.audit.lines()]


@pytest.mark.parametrize("when", ["while data are read", "while a ticket is computed", "while it waits"])
def test_a_client_ends_when_consent_is_withdrawn(when: str, tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        here.server.presence.hold_s = 0.1
        home, mine = here.client_home(0), population().client(0)

        def withdraw() -> None:
            ClientHome(home.folder).amend(leaving=True)  # the command, whose request may reach no server

        def read(plan: Any) -> Any:
            withdraw()
            return mine

        if when == "while it waits":
            client = start(here)
            here.wait_until(lambda: here.server.presence.count_alive() == 1, "it does not poll")
            withdraw()
        elif when == "while data are read":
            client = start(here, data=read)
            here.lead(job(FED_AVG, 1, num_clients=1))
        else:
            client = start(here, withdraw)
            here.lead(job(FED_AVG, 1, num_clients=1))
        here.threads[0].join(30.0)
        assert (client.ended, client.error) == (["left"], None)
        assert not {"sends", "fails"} & set(lines_of(home))
        assert any("is leaving the federation (hanse leave): this client ends" in line for line in here.said)
        assert list(home.folder.glob("runs/*/*.message")) == []
        for run in here.server.led():
            run.mailbox.stop()


@pytest.mark.parametrize(
    ("policy", "code"),
    [("approve_plans = true", "approval"), ("max_message_bytes = 1", "policy"), ("", "policy")],
    ids=["approval", "size", "too large already"],
)
def test_a_message_is_held_against_the_policy_once_more_before_it_is_sent(
    policy: str, code: str, tmp_path: Path
) -> None:
    with federation(tmp_path) as here:
        home = here.client_home(0)
        path = home.folder / "policy.toml"
        path.write_text("max_message_bytes = 1_000_000")
        computed = list[bool]()

        def change() -> None:
            computed.append(True)
            if policy:
                path.write_text(policy)

        start(here, change, large=b"" if policy else bytes(1_000_000))
        here.end(here.lead(job(FED_AVG, 1, num_clients=1)), status="incomplete")
        assert computed
        assert code in lines_of(home)
        assert "sends" not in lines_of(home)
        assert home.spent.of_all("tickets") == (1 if code == "approval" else 0)
        assert list(home.folder.glob("runs/*/*.message")) == []


class Killed(BaseException):
    """Stands for a kill."""


def test_a_kill_counts_no_ticket_twice_and_a_message_on_the_disk_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, upload = Outgoing.write, "hanse.network.client.gate.Gate.send"

    def kill(*given: Any) -> Any:
        raise Killed

    with federation(tmp_path) as here:
        here.server.presence.hold_s = 0.1  # a client ends when its poll does
        home = here.client_home(0)
        (home.folder / "policy.toml").write_text("max_tickets = 1")
        monkeypatch.setattr(Outgoing, "write", kill)
        killed = start(here)
        run = here.lead(job(FED_AVG, 1, num_clients=1))
        here.threads[-1].join(30.0)
        assert isinstance(killed.error, Killed)
        monkeypatch.setattr(Outgoing, "write", write)
        with monkeypatch.context() as patched:
            patched.setattr(upload, kill)
            killed = start(here)
            here.threads[-1].join(30.0)
        assert isinstance(killed.error, Killed)
        assert home.spent.of_all("tickets") == 1
        (message,) = home.folder.glob("runs/*/*.message")
        (home.folder / "policy.toml").write_text("max_tickets = 1\nmax_message_bytes = 1")
        start(here)
        here.end(run, status="incomplete")
        assert lines_of(home).count("policy") == 1
        assert "sends" not in lines_of(home)
        assert not message.exists()


def test_tickets_are_counted_once_and_few_names_are_kept(tmp_path: Path) -> None:
    spent = Spent(tmp_path / "spent.json")
    for _ in range(2):
        spent.add("a", tickets=1, examples=5)
        spent.add(seconds=1.0)
    assert (spent.of_all("tickets"), spent.of_today("examples"), spent.of_all("seconds")) == (1, 5, 2.0)
    assert (spent.has("a"), spent.has("b"), spent.has("")) == (True, False, False)
    for number in range(MOST_NAMED):
        spent.add(str(number), tickets=1)
    assert (spent.has("a"), spent.has("0")) == (False, True)
    assert spent.of_all("tickets") == 1 + MOST_NAMED


def test_one_number_for_two_messages_gives_two_secrets(tmp_path: Path) -> None:
    secrets = list[Key]()
    reloads = list[str]()

    class Noting:
        def compute(
            self, task: Task, payload: Any, memory: Any, secret: Key, limit_s: Any
        ) -> tuple[bytes, Fork]:
            secrets.append(secret)
            if reloads:  # the process was killed before, and its data are loaded again
                role.data = reloads.pop()
            return b"m", Fork.between(task.after, memory, memory)

        def close(self) -> None:
            pass

    role = OpenRole(
        tmp_path, Noting(), Key.from_seed(1), Forks(), ClientHome(tmp_path / "home").identity.delegate
    )
    task, payload = Task(7, 0, Key.from_seed(2), None), Payload(count_examples(), {}, {}, {})

    def ask(one: Task, sha256: str = "0" * 64, plan: str = "") -> str:
        _, own = role.compute(one, payload, name_ticket(one, sha256, plan), None)
        assert own == role.name_message(one, name_ticket(one, sha256, plan))
        role.settle([], [one.ticket])
        return own

    same = [ask(task), ask(Task(7, 0, Key.from_seed(2), None))]
    others = [
        ask(task, "1" * 64),
        ask(task, plan="another model, or other columns"),
        ask(Task(7, 0, Key.from_seed(3), None)),
        ask(Task(7, 0, Key.from_seed(2), None, {"own": {"w": np.ones(2)}})),
        ask(Task(8, 0, Key.from_seed(2), None)),
    ]
    role.forks.committed = {"last": np.ones(2), "!promise": 1}
    others.append(ask(task))
    role.forks.committed = {"last": np.ones(20_000)}
    others.append(ask(task))
    role.forks.committed = {"!promise": 2}  # which decides whether it answers, and not what
    same.append(ask(task))
    role.forks.committed = {}
    role.data = "other rows"
    others.append(ask(task))
    reloads.append("rows that came since")
    others.append(ask(task))
    assert len(secrets) == len(same) + len(others) + 1  # that with the secret of the data before is no answer
    assert len({secret.digest for secret in secrets}) == len({*same, *others}) == 1 + len(others)


def test_data_are_named_by_their_content() -> None:
    rows = np.arange(12.0).reshape(3, 4)
    same = [rows, rows.copy(), np.arange(12.0).reshape(3, 4)]
    others = [rows + 1, rows.T, rows[:2], [rows, rows], lambda: rows, lambda: rows]
    assert len({name_data(data) for data in same}) == 1
    assert len({name_data(data) for data in (rows, *others)}) == 1 + len(others)
