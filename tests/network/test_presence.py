"""Three hospitals, real processes: a run that lacks one of them waits and says for whom, or is no success."""

import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import FED_AVG, NUM_CLIENTS, federation, job
from forked import PIPE, STDOUT, python
from test_kill import free_port
from test_rounds import Failing

from hanse.core import InvalidInput
from hanse.core.exchange import Record
from hanse.network.client.client import Client
from hanse.network.client.connection import Connection
from hanse.network.client.poller import Poller
from hanse.network.client.worker import Worker
from hanse.network.protocol.signing import Identity
from hanse.network.server.https import _invite
from hanse.network.server.members import Members
from hanse.network.server.runtime import Attendance, Patience

SETTINGS = """
rounds = 3
data = { name = "csv", path = "server.csv", label = "ill" }
partition = { name = "iid", num_clients = 3 }
model = "softmax"
algorithm = { name = "fed_avg", lr = 0.3, fraction = 1.0 }
"""


class Command:
    """A command in a process of its own, whose lines are kept as they come."""

    def __init__(self, *words: str) -> None:
        self.process = python("-u", "-m", "hanse", *words, stdout=PIPE, stderr=STDOUT)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines.extend(lines)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def until(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """The first match in what it says."""
        until_s = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.said)) is None:
            assert time.monotonic() < until_s, f"nothing like {pattern!r} in:\n{self.said}"
            time.sleep(0.02)
        return found

    def ends(self, timeout_s: float = 60.0) -> int:
        self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return self.process.returncode

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.ends()


def table(path: Path, seed: int, head: str = "age,crp,ill", words: tuple[str, str] = ("no", "yes")) -> None:
    draws = np.random.default_rng(seed)
    rows = [f"{a:.3f},{b:.3f},{words[int(a > 0)]}" for a, b in draws.normal(size=(30, 2))]
    path.write_text("\n".join([head, *rows, ""]))


class Hospitals:
    def __init__(self, folder: Path, *serve: str) -> None:
        (folder / "app.toml").write_text(SETTINGS)
        table(folder / "server.csv", 9)
        self.server = Command("serve", "app.toml", "--listen", f"127.0.0.1:{free_port()}", *serve)
        self.clients: list[Command] = []
        self.server.until(r"(?s)(--token.*){3}\n")
        self._lines = [line.split()[1:-2] for line in self.server.lines if "hanse join" in line]

    def join(self, number: int, data: str) -> Command:
        self.clients.append(Command(*self._lines[number], "--data", data))
        return self.clients[-1]

    def close(self) -> None:
        for command in (*self.clients, self.server):
            command.kill()


def test_two_of_three_are_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third does not train alone: the server names the other two, waits, and is interrupted."""
    monkeypatch.chdir(tmp_path)
    here = Hospitals(tmp_path, "--silent-s", "4")
    try:
        for number in range(3):
            table(tmp_path / f"{number}.csv", number)
        for number in (0, 1):
            here.join(number, f"{number}.csv").until("joined")
            here.clients[-1].kill()
        here.server.until(r"waiting for clients: 0 of 3 are present; not heard: client 0, client 1; 2 of 3")
        third = here.join(2, "2.csv")
        third.until("joined")
        here.server.until(r"waiting for clients: 1 of 3 are present; not heard: client 0, client 1\n")
        assert here.server.process.poll() is None
        here.server.kill(signal.SIGINT)
        assert here.server.process.returncode == 130
        assert re.search(r"run \w+: interrupted", here.server.said)
        assert "completed" not in here.server.said
    finally:
        here.close()


def test_a_column_is_renamed_at_all_and_labels_do_not_fit_at_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose data do not suit the run reads why, does not join, and does not exit with 0."""
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "renamed.csv", 0, head="age,CRP,ill")
    table(tmp_path / "labels.csv", 1, words=("healthy", "sick"))
    here = Hospitals(tmp_path)
    try:
        files = ("renamed.csv", "renamed.csv", "labels.csv")
        ended = [here.join(number, data) for number, data in enumerate(files)]
        assert [command.ends() for command in ended] == [2, 2, 2]
        for command, due in zip(
            ended, ("'crp'", "'crp'", r"labels\.csv, line 2: column 'ill' holds no class"), strict=True
        ):
            assert re.search(due, command.said), command.said
            assert "joined" not in command.said
        here.server.until("waiting for clients: 0 of 3 are present; 0 of 3 have joined")
        here.server.kill(signal.SIGINT)
        assert here.server.process.returncode == 130
    finally:
        here.close()


def test_a_client_that_is_never_counted_makes_the_run_incomplete(tmp_path: Path) -> None:
    seen: list[str] = []
    with federation(tmp_path) as here:
        here.server.say = seen.append
        run = here.lead(job(FED_AVG, 2, patience=Patience(20.0)))
        here.enter(range(4))
        here.enter([4], kind=Failing)
        here.end(run, status="incomplete")
        assert here.server.runs.info(run).status == "incomplete"
    why = "client 4: failed once downloaded: an error, which its own log describes (internal)"
    assert [line for line in seen if "counted" in line] == [
        f"run {run}: round {number} counted 4 of 5 clients; {why}" for number in (1, 2)
    ]


def test_a_run_begins_without_those_that_the_operator_can_spare(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        for number in range(NUM_CLIENTS):
            here.client_home(number)  # all have joined
        run = here.lead(job(FED_AVG, 2, patience=Patience(60.0, min_clients=4), num_present=NUM_CLIENTS))
        here.enter(range(3))
        due = "waiting for clients: 3 of 4 are present; not heard: client 3, client 4"
        mailbox = here.server.run(run).mailbox
        here.wait_until(lambda: mailbox.doing == due, mailbox.doing)
        assert len(here.records) == 0
        here.enter([3])
        due = "waiting for clients: 4 of 4 are present; not heard: client 4"  # for the first minute
        here.wait_until(lambda: mailbox.doing == due, mailbox.doing)
        assert [record.round for record in here.records] == [0]  # which only measures
        mailbox.began_s -= 60.0
        here.end(run, status="incomplete")  # for client 4 was never counted
        assert [record.usage.counted for record in here.records] == [0, 4, 4]


def test_attendance_is_booked_once_a_round(tmp_path: Path) -> None:
    members = Members(tmp_path / "members.db")
    for number in range(4):
        secret, _ = members.invite(number=number)
        members.join(Identity.derive(secret).public, Identity.generate().public)
    first = Attendance(1, frozenset({0, 1}), {2: "silent"}, all_wanted=True)
    for attendance in (first, first, Attendance(2, frozenset({0}), {1: "declined"}, all_wanted=True)):
        members.attend("run", attendance)
    assert members.find_uncounted("run") == [
        (2, "client 2", 1, 0, "silent"),
        (3, "client 3", 0, 0, "it was not there when a round began"),
    ]
    members.attend("run", Attendance(3, frozenset({0}), {1: "declined"}, all_wanted=True))
    assert members.find_uncounted("run")[0] == (1, "client 1", 3, 1, "declined")  # fewer than half
    assert members.find_uncounted("another") == []
    for round in range(1, 6):
        assert members.find_uncounted("drawn") == []
        members.attend("drawn", Attendance(round, frozenset({0}), {1: "late"}, all_wanted=False))
    assert members.find_uncounted("drawn") == [(1, "client 1", 5, 0, "late")]
    for round in range(1, 4):  # a buffer that wants all in its first round, and some of them later
        number = 0 if round == 1 else 1
        members.attend("buffered", Attendance(round, frozenset({number}), {}, all_wanted=round == 1))
    assert members.find_uncounted("buffered") == []
    members.close()


def test_a_run_goes_on_without_a_client_that_was_revoked(tmp_path: Path) -> None:
    """Serving again invites nobody under its number, and does not wait for it; and clients wait meanwhile."""
    port = free_port()
    given = job(FED_AVG, 3, patience=Patience(20.0))
    with federation(tmp_path, port=port) as here:

        def stop(record: Record) -> None:
            if record.round == 1:
                here.server.led()[0].mailbox.stop()

        run = here.server.lead(replace(given, watch=stop))
        here.enter()
        here.wait_for(f"{run}: interrupted", "the run did not stop")
        assert here.server.done.wait(20.0)
        assert not here.server.over  # so no client hears that it is over
        here.server.part("client 4", "revoked")
    with federation(tmp_path, port=port) as here:
        lines: list[str] = []
        _invite(here.server, here.url, NUM_CLIENTS, lines.append)
        assert lines == []
        here.server.lead(given, run)
        here.enter(range(4))
        result = here.end(run)
        assert result["rounds"] == 3


class OverPoller(Poller):
    """Hears that the server is done before the worker has failed."""

    def run(self) -> str:
        return "over"


class BrokenWorker(Worker):
    """Fails a little later."""

    def __init__(self, connection: Connection, *given: Any) -> None:
        super().__init__(connection, *given)
        self._stopping = connection.stopping

    def run(self) -> None:
        assert self._stopping.wait(60.0)  # which is set once the poller has heard that it is over
        self.error = InvalidInput("the data do not suit")


class Broken(Client):
    poller, worker = OverPoller, BrokenWorker


def test_a_client_that_failed_says_so_though_the_server_is_done(tmp_path: Path) -> None:
    with federation(tmp_path) as here, pytest.raises(InvalidInput, match="do not suit"):
        Broken(here.client_home(0), lambda plan: [], lambda plan: None).run()
