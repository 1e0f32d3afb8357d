"""kill -9 of any process loses nothing: the run ends with the bits of an undisturbed one."""

import contextlib
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from federation import CASES, NUM_CLIENTS, Threaded, federation, job, learner, population, simulated

from hanse.network.client.home import ClientHome
from hanse.network.protocol.spool import Outgoing
from hanse.network.protocol.wire import News, Poll

SCRIPT = Path(__file__).parent / "process.py"
ROUNDS = 6


class Process:
    """A process whose lines can be waited for, and that can be killed."""

    def __init__(self, *arguments: object) -> None:
        from forked import PIPE, python  # here: benchmarks, which don't find it, import this file

        self.process = python(SCRIPT, *arguments, stdout=PIPE, stderr=PIPE)
        assert self.process.stdout is not None
        self._lines = self.process.stdout

    def until(self, begins: str) -> str:
        seen = []
        for line in self._lines:
            seen.append(line)
            if line.startswith(begins):
                return line.strip()
        _, error = self.process.communicate()
        raise AssertionError(f"no line {begins!r}: {seen} {error[-2000:]}")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


def free_port() -> int:
    """Return a port that stays free: outside the range from which the system serves other sockets."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def client_homes(folder: Path, port: int) -> Iterator[list[ClientHome]]:
    """Five that have joined a server which is gone again."""
    with federation(folder, port=port) as here:
        joined = [here.client_home(number) for number in range(NUM_CLIENTS)]
    yield joined


@pytest.mark.parametrize("case", ["scaffold"])
def test_server_and_client_are_killed_and_the_bits_are_the_same(case: str, tmp_path: Path) -> None:
    port = free_port()
    with client_homes(tmp_path, port) as joined:
        people = population()
        others = [
            Threaded(joined[n], lambda plan, n=n: people.client(n), learner) for n in range(1, NUM_CLIENTS)
        ]
        threads = [threading.Thread(target=client.run, daemon=True) for client in others]
        for thread in threads:
            thread.start()
        processes = [Process("serve", tmp_path, port, case, ROUNDS)]
        try:
            run = processes[-1].until("run").split()[1]
            processes.append(Process("join", tmp_path, 0))
            processes[0].until("round 2")
            processes[0].kill()
            processes[1].kill()
            processes.append(Process("serve", tmp_path, port, case, ROUNDS, run))
            processes.append(Process("join", tmp_path, 0))
            assert processes[2].until("completed").split()[1] == simulated(CASES[case], ROUNDS)
        finally:
            for client in others:
                client.stop()
            for process in processes:
                process.kill()
            for thread in threads:
                thread.join(10.0)


def test_a_server_killed_before_it_could_keep_a_whole_message_takes_it(tmp_path: Path) -> None:
    """All bytes are on its disk, under the name of an upload: sending them again ends that."""
    with federation(tmp_path) as here:
        run = here.lead(job(CASES["fed_avg"], 1))
        links = [here.client_home(number).link() for number in range(NUM_CLIENTS)]
        here.show_up()
        (work,) = links[0].ask("POST", "/v1/work", News, Poll(wait_s=20)).work
        message = Outgoing.write(tmp_path, work.ticket, [b"whole"])
        led = here.server.run(run)
        name = f"{work.ticket}.{message.sha256}.{message.size}.upload"
        (tmp_path / "server" / "runs" / run / "spool" / name).write_bytes(b"whole")
        links[0].upload(run, work.ticket, message)
        assert led.mailbox.has(work.ticket)
        for link in links:
            link.close()
        led.mailbox.stop()
