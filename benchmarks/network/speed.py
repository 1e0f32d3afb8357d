"""The speed of the trivial job, of a large model, and with many idle clients. All on loopback, with TLS.

python benchmarks/network/speed.py small     # 4 KB model, 2 clients, 3 rounds, from command to finished
python benchmarks/network/speed.py large     # 100 MB model, 10 clients, 3 rounds
python benchmarks/network/speed.py transport # 100 MB each way, through one client, timed by itself
python benchmarks/network/speed.py idle      # 5,000 clients that wait, while a round with 100 runs

With --keep the result is written to speed.json.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from crowd import gather_crowd
from echoes import EXAMPLES, bind_nothing, some_of_them, trivial
from machine import keep

import hanse.network.server.pace
import hanse.network.server.run_thread
from hanse.core.algorithm import ModelState, Progress, training
from hanse.core.keys import Keys
from hanse.network.client.client import Client
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.client.transport import ServerLink
from hanse.network.protocol import certificates
from hanse.network.protocol.signing import Identity
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import Plan
from hanse.network.server.https import listen, serving
from hanse.network.server.job import RunJob
from hanse.network.server.mailbox import Mailbox, Offer
from hanse.network.server.members import Members
from hanse.network.server.server import Server

KEYS = Keys.from_seed(1)


def job(num_values: int, num_clients: int, rounds: int, algorithm: Any = None) -> RunJob:
    """Return a run of echoes. `algorithm`: None: of all clients."""
    algorithm = algorithm or trivial(num_clients)
    return RunJob(
        plan=Plan("", "{}", None, (), None),
        begin=lambda: Progress(0, ModelState({"w": np.ones(num_values, np.float32)})),
        program=lambda progress: training(algorithm, progress, KEYS.public, rounds=rounds),
        learner=None,
        role=lambda name: None,
        num_clients=num_clients,
        conclude=lambda run, status, progress, records, reason, uncounted: {
            "seconds": [round(record.seconds, 3) for record in records]
        },
    )


def tokens(home: Path, num_clients: int) -> list[Token]:
    pem, _ = certificates.make(home, ("127.0.0.1",))
    members = Members(home / "members.db")
    pin, key = certificates.fingerprint(pem.read_text()), Identity.at(home / "identity.pem").public
    made = [Token(pin, members.invite()[0], key) for _ in range(num_clients)]
    members.close()
    return made


def peak_mb() -> float:
    return usage().ru_maxrss / 1024


def rss_mb() -> float:
    """Return the memory that this process holds now."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024)


class Watching(threading.Thread):
    """Return the most memory that this process held, in MB: its own, and that of mapped files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own_mb = self.all_mb = 0
        self._over = threading.Event()

    def run(self) -> None:
        page_mb = resource.getpagesize() / 1e6
        while not self._over.wait(0.005):
            _, all_of_it, mapped = (int(text) for text in Path("/proc/self/statm").read_text().split()[:3])
            self.own_mb = max(self.own_mb, round((all_of_it - mapped) * page_mb))
            self.all_mb = max(self.all_mb, round(all_of_it * page_mb))

    def end(self) -> Mapping[str, int]:
        """What it saw."""
        self._over.set()
        self.join()
        return {"own": self.own_mb, "with_mapped_files": self.all_mb}


def usage() -> resource.struct_rusage:
    """Return the usage of this process."""
    return resource.getrusage(resource.RUSAGE_SELF)


def cpu_s(of: resource.struct_rusage) -> tuple[float, float]:
    """Return processor seconds of a process: its own, and the system's for it."""
    return round(of.ru_utime, 2), round(of.ru_stime, 2)


def forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
        sys.stdout.flush()
    finally:
        os._exit(0)


def federate(num_values: int, num_clients: int, rounds: int) -> Mapping[str, Any]:
    """Run server and clients as processes; return seconds of each round and the server's peak memory."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        made = tokens(home / "server", num_clients)
        bound = listen("127.0.0.1", 0)
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"

        def take_part(token: Token, number: int) -> None:
            house = ClientHome(home / f"client-{number}")
            join(house, url, token)
            Client(house, lambda plan: EXAMPLES, bind_nothing).run()

        clients = [forked(lambda t=t, n=n: take_part(t, n)) for n, t in enumerate(made)]  # type: ignore[misc]
        server = Server(home / "server", made[0].fingerprint)
        memory = Watching()
        memory.start()
        with serving(server, bound, "127.0.0.1"):
            run = server.lead(job(num_values, num_clients, rounds))
            server.done.wait(600)
            led = server.run(run)
            result = {"status": led.status, **led.result}
        own = usage()
        ended = [os.wait4(client, 0)[2] for client in clients]
    return {
        **result,
        "from_start_s": round(time.perf_counter() - began, 2),
        "server_peak_mb": memory.end(),
        "server_cpu_s": cpu_s(own),
        "client_peak_mb": round(max(one.ru_maxrss for one in ended) / 1024),
        "client_cpu_s": [cpu_s(one) for one in ended],
    }


def time_calls(method: str, size_of: Callable[..., int]) -> list[tuple[int, float]]:
    """Times a method of all links to servers from now on: bytes and seconds."""
    act, timed = getattr(ServerLink, method), list[tuple[int, float]]()

    def perform(link: ServerLink, *given: Any, **options: Any) -> Any:
        began = time.perf_counter()
        done = act(link, *given, **options)
        timed.append((size_of(*given), time.perf_counter() - began))
        return done

    setattr(ServerLink, method, perform)
    return timed


def transport(num_values: int, rounds: int) -> Mapping[str, Any]:
    """Measure one client alone: the speed of its download, and of its upload to the server's disk.

    Down: sent, hashed by the client and written to its file. Up: read from its file, hashed and written by
    the server chunk by chunk, each chunk signed and acknowledged, and synced to the disk at last.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (token,) = tokens(home / "server", 1)
        bound = listen("127.0.0.1", 0)
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"

        def take_part() -> None:
            house = ClientHome(home / "client")
            join(house, url, token)
            down = time_calls("download", lambda path, sha256, size, *more: size)
            up = time_calls("upload", lambda run, ticket, message, *more: message.size)
            Client(house, lambda plan: EXAMPLES, bind_nothing).run()
            (home / "timed.json").write_text(json.dumps([down, up, cpu_s(usage())]))

        child = forked(take_part)
        server = Server(home / "server", token.fingerprint)
        with serving(server, bound, "127.0.0.1"):
            run = server.lead(job(num_values, 1, rounds))
            server.done.wait(600)
            status = server.run(run).status
        os.waitpid(child, 0)
        down, up, client_cpu_s = json.loads((home / "timed.json").read_text())
    rates = {
        way: [round(size / took_s / 1e9, 3) for size, took_s in timed if size > num_values]
        for way, timed in (("down", down), ("up", up))
    }
    return {
        "mb": num_values * 4 // 10**6,
        "status": status,
        **{f"{way}_gb_per_s": statistics.median(found) for way, found in rates.items()},
        "each": rates,
        "server_cpu_s": cpu_s(usage()),
        "client_cpu_s": client_cpu_s,
        "server_peak_mb": round(peak_mb()),
    }


def spread(seconds: list[float]) -> Mapping[str, float]:
    """Summarise a list of seconds: its length and its quantiles."""
    ranked = sorted(seconds)
    at = {f"p{percent}_s": round(ranked[len(ranked) * percent // 100], 4) for percent in (50, 99)}
    return {"count": len(ranked), **at, "most_s": round(ranked[-1], 4)}


def idle(num_clients: int, num_busy: int, rounds: int, num_values: int, *, pace: bool) -> Mapping[str, Any]:
    """Run waiting clients in a process of their own, while some of them at a time work in rounds.

    Args:
      num_busy: the clients that work in each round.
      num_values: of the model, in float32.
      pace: let the server send unneeded clients away, as it does by default. Otherwise all wait.
    """
    if not pace:
        hanse.network.server.pace.MIN_POOL = num_clients
    booked: dict[int, float] = {}

    class TimedBoard(Mailbox):
        def post(self, orders: Iterable[Offer]) -> None:
            posted = list(orders)
            booked.update((order.ticket, time.monotonic()) for order in posted)
            super().post(posted)

    hanse.network.server.run_thread.Mailbox = TimedBoard  # type: ignore[misc]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "server"
        pem, _ = certificates.make(home, ("127.0.0.1",))
        identities = [Identity.generate() for _ in range(num_clients)]
        members = Members(home / "members.db")
        with members._change() as db:
            rows = [
                (f"c{n}", "client", n, f"c{n}", i.public, "active", 0.0) for n, i in enumerate(identities)
            ]
            db.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", rows)
        members.close()
        bound = listen("127.0.0.1", 0)
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        fork = multiprocessing.get_context("fork")
        there, over, (ours, theirs) = fork.Event(), fork.Event(), fork.Pipe(False)

        def crowd() -> None:
            bound.close()
            heard = gather_crowd(url, pem.read_text(), identities, num_clients / 200, there, over)
            theirs.send((heard, time.process_time()))

        process = fork.Process(target=crowd)
        process.start()
        server = Server(home, certificates.fingerprint(pem.read_text()), stay=True)
        with serving(server, bound, "127.0.0.1"):
            there.wait()
            if ours.poll(0.5):  # it has given up, so a run would wait in vain
                raise SystemExit(f"the crowd did not arrive: {dict(ours.recv()[0].wrong)}")
            arrived_cpu_s, before_mb = time.process_time(), rss_mb()
            began = time.monotonic()
            run = server.lead(job(num_values, num_clients, rounds, some_of_them(num_busy)))
            led = server.run(run)
            led.join(600)
            took_s = time.monotonic() - began
            cpu_s = time.process_time() - arrived_cpu_s
            over.set()
            heard, crowd_cpu_s = ours.recv()
            process.join()
        during = [took for at, took in heard.check_ins if began <= at < began + took_s]
        return {
            "clients": num_clients,
            "pace": pace,
            "status": led.status,
            "rounds": rounds,
            "busy": num_busy,
            "model_kb": num_values * 4 // 1000,
            "round_s": spread(led.result["seconds"]),
            "check_in": spread(during),
            "told": spread([at - booked[ticket] for ticket, at in heard.told.items()]),
            "answered": spread([at - booked[ticket] for ticket, at in heard.done.items()]),
            "arrival": spread(heard.arrivals),
            "polls": heard.polls,
            "sent_away": heard.sent_away,
            "wrong": dict(heard.wrong),
            "arrived_again": dict(heard.again),
            "measured_s": round(took_s, 1),
            "server_cpu_s": round(cpu_s, 1),
            "server_arrival_cpu_s": round(arrived_cpu_s, 1),
            "crowd_cpu_s": round(crowd_cpu_s, 1),
            "server_mb": [before_mb, rss_mb()],
            "server_peak_mb": round(peak_mb()),
        }


def main() -> None:
    """Run one of them."""
    ask = argparse.ArgumentParser()
    ask.add_argument("what", choices=["small", "large", "transport", "idle"])
    ask.add_argument("--clients", type=int)
    ask.add_argument("--mb", type=int, default=100)
    ask.add_argument("--rounds", type=int, default=50)
    ask.add_argument("--busy", type=int, default=100)
    ask.add_argument("--kb", type=int, default=100)
    ask.add_argument("--pace", action="store_true")
    ask.add_argument("--keep", action="store_true", help="write the result to speed.json")
    given = ask.parse_args()
    name = given.what
    if given.what == "small":
        found = federate(1024, given.clients or 2, 3)
    elif given.what == "large":
        name += f", {given.mb} MB, {given.clients or 10} clients"
        found = federate(given.mb * 250_000, given.clients or 10, 3)
    elif given.what == "transport":
        name += f", {given.mb} MB"
        found = transport(given.mb * 250_000, 5)
    else:
        name += ", as deployed" if given.pace else ""
        found = idle(given.clients or 5000, given.busy, given.rounds, given.kb * 250, pace=given.pace)
    print(json.dumps(found, indent=1))
    if given.keep:
        keep(__file__, name, dict(found))


if __name__ == "__main__":
    main()
