"""What crowds and greedy members cost the server, on loopback with TLS, in processes of their own.

    python benchmarks/network/limits.py crowd    # 5,000 bare sockets and slow handshakes during a run
    python benchmarks/network/limits.py rekey    # a member that replaces its key without end
    python benchmarks/network/limits.py refuse   # the server's time for a request that it refuses
    python benchmarks/network/limits.py enrol    # the server's time for one more member, of 100 and 5,000

With --keep the result is written to limits.json.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

import numpy as np
from echoes import EXAMPLES, bind_nothing, trivial
from machine import keep
from speed import KEYS, forked, tokens

from hanse.core.algorithm import ModelState, Progress, training
from hanse.network.client.client import Client
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import certificates
from hanse.network.protocol.errors import Refused, Unreachable
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import About, Plan, Rekey
from hanse.network.server.https import listen, serving
from hanse.network.server.job import RunJob
from hanse.network.server.members import Members
from hanse.network.server.server import Server

NUM_CLIENTS = 3


def job(rounds: int) -> RunJob:
    """Return a run of echoes, whose result is the digest of the model."""
    algorithm = trivial(NUM_CLIENTS)
    return RunJob(
        plan=Plan("", "{}", None, (), None),
        begin=lambda: Progress(0, ModelState({"w": np.linspace(0.1, 1.0, 1000)})),
        program=lambda progress: training(algorithm, progress, KEYS.public, rounds=rounds),
        learner=None,
        role=lambda name: None,
        num_clients=NUM_CLIENTS,
    )


# -- a crowd ---------------------------------------------------------------------------------------


async def besiege(port: int, count: int, over: Any) -> int:
    """Hold so many sockets: a third say nothing, a third begin a handshake, a third dribble headers.

    One that the server ends is opened again, at most once a second. Returns how many were opened.
    """
    opened = 0
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def one(number: int) -> None:
        nonlocal opened
        while not over.is_set():
            writer = None
            try:
                secure = context if number % 3 == 2 else None
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=secure)
                opened += 1
                writer.write((b"", b"\x16\x03", b"GET /v1/about HTTP/1.1\r\n")[number % 3])
                reading = asyncio.ensure_future(reader.read(1))
                while not over.is_set() and not reading.done():
                    await asyncio.wait([reading], timeout=2.0)
                    if number % 3 == 2 and not reading.done():
                        writer.write(b"X: y\r\n")
                reading.cancel()
            except (OSError, ssl.SSLError):
                pass
            finally:
                if writer is not None:
                    writer.transport.abort()
                await asyncio.sleep(1.0)

    await asyncio.gather(*(one(number) for number in range(count)))
    return opened


def lead(rounds: int, count: int) -> dict[str, Any]:
    """Lead a run while so many sockets are held; return how it ended, and what it cost."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        made = tokens(home / "server", NUM_CLIENTS)
        bound = listen("127.0.0.1", 0)
        port = bound.getsockname()[1]
        url = f"https://127.0.0.1:{port}"

        fork = multiprocessing.get_context("fork")
        begin, over, (ours, theirs) = fork.Event(), fork.Event(), fork.Pipe(False)

        def take_part(token: Token, number: int) -> None:
            bound.close()
            begin.wait()
            house = ClientHome(home / f"client-{number}")
            while house.membership is None:
                try:
                    join(house, url, token)
                except Unreachable:
                    time.sleep(0.5)
            Client(house, lambda plan: EXAMPLES, bind_nothing).run()

        clients = [forked(lambda t=t, n=n: take_part(t, n)) for n, t in enumerate(made)]  # type: ignore[misc]

        def crowd() -> None:
            bound.close()
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            theirs.send(asyncio.run(besiege(port, count, over)))

        besieging = fork.Process(target=crowd)
        besieging.start()
        server = Server(home / "server", made[0].fingerprint)
        with serving(server, bound, "127.0.0.1"):
            if count:
                time.sleep(3.0)  # so that all of them are here, or wait at the door
            began, cpu_s = time.monotonic(), time.process_time()
            begin.set()
            run = server.lead(job(rounds))
            server.done.wait(600)
            took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_s
            led = server.run(run)
            over.set()
            assert server.connections is not None
            most, unknown = server.connections.most, server.connections.num_unknown
            for client in clients:
                os.waitpid(client, 0)
            opened = ours.recv()
            besieging.join()
        return {
            "sockets": count,
            "rounds": rounds,
            "opened": opened,
            "status": led.status,
            "params_sha256": led.result.get("params_sha256"),
            "seconds": round(took_s, 1),
            "server_cpu_s": round(cpu_s, 1),
            "most_connections": most,
            "unknown_at_the_end": unknown,
            "most_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }


def crowd(count: int, rounds: int) -> dict[str, Any]:
    """Compare a run without and with a crowd."""
    alone, besieged = lead(rounds, 0), lead(rounds, count)
    ended = {alone["status"], besieged["status"]}
    same = alone["params_sha256"] == besieged["params_sha256"] is not None and ended == {"completed"}
    return {"alone": alone, "besieged": besieged, "same_bits": same, "wrong": not same}


# -- greedy members --------------------------------------------------------------------------------


class Greedy:
    """A server with members, and a link of one of them."""

    def __init__(self, folder: Path, num_members: int) -> None:
        pem, _ = certificates.make(folder, ("127.0.0.1",))
        self.pem = pem.read_text()
        self.identity = Identity.generate()
        members = Members(folder / "members.db")
        keys = [self.identity.public, *(Identity.generate().public for _ in range(num_members - 1))]
        with members._change() as db:
            rows = [(f"c{n}", "client", n, f"c{n}", key, "active", 0.0) for n, key in enumerate(keys)]
            db.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", rows)
        members.close()
        self.server = Server(folder, certificates.fingerprint(self.pem), stay=True)
        self.bound = listen("127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self.bound.getsockname()[1]}"

    def in_child(self, work: Callable[[ServerLink], None]) -> int:
        """Do something in a process of its own."""

        def act() -> None:
            self.bound.close()
            with closing(ServerLink(self.url, self.pem, self.identity, "c0")) as link:
                work(link)

        return forked(act)


def rekey(seconds: float) -> dict[str, Any]:
    """Let a member replace its key in a loop, heeding nothing, and ask for /v1/about meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        greedy = Greedy(Path(folder), 5000)

        def loop(link: ServerLink) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                new = Identity.generate()
                try:
                    link.plain("POST", "/v1/key", Rekey(public=new.public, proof=new.prove("c0")))
                    link.identity = new
                except (Refused, Unreachable):
                    pass

        took: list[float] = []
        child = greedy.in_child(loop)
        with serving(greedy.server, greedy.bound, "127.0.0.1"):
            with closing(ServerLink(greedy.url, greedy.pem, Identity.generate(), "x")) as link:
                cpu_s, began = time.process_time(), time.monotonic()
                while time.monotonic() < began + seconds - 0.5:
                    asked = time.perf_counter()
                    link.ask("GET", "/v1/about", About)
                    took.append(time.perf_counter() - asked)
                    time.sleep(0.1)
                own = len(took) * 0.004  # this process asks, too: about 4 ms each
                share = (time.process_time() - cpu_s - own) / (time.monotonic() - began)
            os.waitpid(child, 0)
            told = greedy.server.members.events(5)
        took.sort()
        return {
            "members": 5000,
            "cores": round(share, 3),
            "about_median_ms": round(1e3 * statistics.median(took), 2),
            "about_most_ms": round(1e3 * took[-1], 2),
            "events": [what for _, _, what in told],
            "wrong": share > 0.1,
        }


def refuse(count: int) -> dict[str, Any]:
    """Measure the server's processor time for refusals: of a stranger, and of a member of another role."""
    with tempfile.TemporaryDirectory() as folder:
        greedy = Greedy(Path(folder), 100)
        found: dict[str, Any] = {}
        for name, key_id in (("stranger", "nobody"), ("another role", "c0")):
            bound = greedy.bound if name == "stranger" else listen("127.0.0.1", 0)
            url = f"https://127.0.0.1:{bound.getsockname()[1]}"

            def ask(url: str = url, key_id: str = key_id) -> None:
                with closing(ServerLink(url, greedy.pem, greedy.identity, key_id)) as link:
                    for _ in range(count):
                        try:
                            link.plain("GET", "/v1/status")
                        except Refused:
                            continue

            child = forked(ask)
            server = Server(Path(folder), greedy.server.fingerprint, stay=True)
            with serving(server, bound, "127.0.0.1"):
                time.sleep(0.5)
                began = time.process_time()
                os.waitpid(child, 0)
                found[f"{name}_ms"] = round(1e3 * (time.process_time() - began) / count, 3)
        return {"count": count, **found, "wrong": found["stranger_ms"] > 1.0}  # members are limited by rates


def enrol(count: int) -> dict[str, Any]:
    """Measure the server's processor time for one more member, through its interface, while a run waits."""
    found: dict[str, Any] = {}
    for num_members in (100, 5000):
        with tempfile.TemporaryDirectory() as folder:
            greedy = Greedy(Path(folder), num_members)
            invited = [greedy.server.members.invite()[0] for _ in range(count)]
            fingerprint = greedy.server.fingerprint

            def enter(
                folder: str = folder, greedy: Greedy = greedy, invited: Any = invited, pin: str = fingerprint
            ) -> None:
                greedy.bound.close()
                for n, secret in enumerate(invited):
                    token = Token(pin, secret, greedy.server.identity.public)
                    join(ClientHome(Path(folder) / f"client-{n}"), greedy.url, token)

            child = forked(enter)
            with serving(greedy.server, greedy.bound, "127.0.0.1"):
                greedy.server.lead(job(1))
                time.sleep(0.5)
                began = time.process_time()
                os.waitpid(child, 0)
                found[f"{num_members}_ms"] = round(1e3 * (time.process_time() - began) / count, 2)
    return {"count": count, **found, "wrong": found["5000_ms"] > 20.0}


def main() -> int:
    """Run one of them."""
    ask = argparse.ArgumentParser()
    ask.add_argument("what", choices=["crowd", "rekey", "refuse", "enrol"])
    ask.add_argument("--sockets", type=int, default=5000)
    ask.add_argument("--rounds", type=int, default=30)
    ask.add_argument("--seconds", type=float, default=15.0)
    ask.add_argument("--keep", action="store_true", help="write the result to limits.json")
    given = ask.parse_args()
    found = {
        "crowd": lambda: crowd(given.sockets, given.rounds),
        "rekey": lambda: rekey(given.seconds),
        "refuse": lambda: refuse(2000),
        "enrol": lambda: enrol(50),
    }[given.what]()
    print(json.dumps(found, indent=1))
    if given.keep:
        keep(__file__, given.what, found)
    return int(found["wrong"])


if __name__ == "__main__":
    sys.exit(main())
