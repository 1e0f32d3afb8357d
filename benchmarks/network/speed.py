"""How fast: the trivial job, a large model, and many idle clients. Everything on loopback, with TLS.

python benchmarks/network/speed.py small     # 4 KB model, 2 clients, 3 rounds, from command to finished
python benchmarks/network/speed.py large     # 100 MB model, 10 clients, 3 rounds
python benchmarks/network/speed.py idle      # 5,000 clients that wait, while a round with 100 runs
"""

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hanse.core.algorithm import Model, Progress, training
from hanse.core.keys import Key, Keys
from hanse.core.program import Channel, Program, gather, sample
from hanse.core.spec import Spec
from hanse.core.tensors import tree_map
from hanse.core.values import value
from hanse.core.work import Contribution, Memory, Part, Shared, Work
from hanse.network import certificates
from hanse.network.client import Client, House, join
from hanse.network.members import Members, Token
from hanse.network.server import Job, Server
from hanse.network.serving import listen, serving
from hanse.network.signing import Identity, sha256
from hanse.network.transport import split
from hanse.network.wire import Plan, Poll

KEYS = Keys.from_seed(1)


@value
class echo(Work[Any, Any]):
    """Sends an update of the size of the model, and computes next to nothing."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        return {"update": Part(tree_map(lambda w: w * w.dtype.type(0.5), shared["params"]))}, memory


@value
class trivial:
    """Means of echoes."""

    count: int

    def round(self, state: Model, key: Key) -> Program[Model]:
        channel = Channel(Spec.of(state.params))
        chosen = yield from sample(key, count=self.count)
        got = yield from gather(echo(), chosen.cohort, {"params": state.params}, key, update=channel)
        return Model(dict(got["update"].values))


def job(num_values: int, num_clients: int, rounds: int, count: int | None = None) -> Job:
    algorithm: Any = trivial(count or num_clients)
    return Job(
        plan=Plan("", "{}", None, (), None),
        begin=lambda: Progress(0, Model({"w": np.ones(num_values, np.float32)})),
        program=lambda progress: training(algorithm, progress, KEYS.public, rounds=rounds),
        learner=None,
        role=lambda name: None,
        num_clients=num_clients,
        conclude=lambda run, status, progress, records, reason: {
            "seconds": [round(record.seconds, 3) for record in records]
        },
    )


def tokens(home: Path, num_clients: int) -> list[Token]:
    pem, _ = certificates.make(home, ("127.0.0.1",))
    members = Members(home / "members.db")
    made = [Token(certificates.fingerprint(pem.read_text()), members.invite()[0]) for _ in range(num_clients)]
    members.close()
    return made


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_s(usage: resource.struct_rusage) -> tuple[float, float]:
    """Processor seconds of a process: its own, and the system's for it."""
    return round(usage.ru_utime, 2), round(usage.ru_stime, 2)


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
    """Server and clients as processes: seconds of each round and the server's peak memory."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        made = tokens(home / "server", num_clients)
        bound = listen("127.0.0.1", 0)
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"

        def take_part(token: Token, number: int) -> None:
            house = House(home / f"client-{number}")
            join(house, url, token)
            Client(house, lambda plan: [0], lambda plan: None).run()

        clients = [forked(lambda t=t, n=n: take_part(t, n)) for n, t in enumerate(made)]  # type: ignore[misc]
        server = Server(home / "server", made[0].fingerprint)
        with serving(server, bound, "127.0.0.1"):
            run = server.lead(job(num_values, num_clients, rounds))
            server.done.wait(600)
            led = server.run(run)
            result = {"status": led.status, **led.result}
        own = resource.getrusage(resource.RUSAGE_SELF)
        ended = [os.wait4(client, 0)[2] for client in clients]
    return {
        **result,
        "from_start_s": round(time.perf_counter() - began, 2),
        "server_peak_mb": round(peak_mb()),
        "server_cpu_s": cpu_s(own),
        "client_peak_mb": round(max(usage.ru_maxrss for usage in ended) / 1024),
        "client_cpu_s": [cpu_s(usage) for usage in ended],
    }


async def wait_idly(
    url: str, pem: str, number: int, identity: Identity, until_s: float, taken: list[float]
) -> None:
    """A client without a thread: polls by hand, over one kept connection."""
    host, port = split(url)
    context = certificates.pinned(pem)
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    quick = number % 10 == 0
    while time.monotonic() < until_s:
        body = Poll(wait_s=0.0 if quick else 25.0).model_dump_json().encode()
        headers = identity.sign(f"c{number}", "POST", f"{url}/v1/work", sha256(body))
        lines = [f"{name}: {text}" for name, text in headers.items()]
        head = "\r\n".join(["POST /v1/work HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines])
        asked = time.monotonic()
        writer.write(head.encode() + b"\r\n\r\n" + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(answer.lower().partition("content-length: ")[2].split()[0])
        said = json.loads(await reader.readexactly(length))
        assert answer.startswith("HTTP/1.1 200"), said
        if quick:
            taken.append(time.monotonic() - asked)
            await asyncio.sleep(2.0)
    writer.close()


def idle(num_idle: int, num_busy: int, seconds: float) -> Mapping[str, Any]:
    """Idle clients in a process of their own; a tenth of them check in every two seconds."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "server"
        pem, _ = certificates.make(home, ("127.0.0.1",))
        server = Server(home, certificates.fingerprint(pem.read_text()), stay=True)
        identity = [Identity.generate() for _ in range(num_idle)]
        with server.members._change() as db:
            rows = [(f"c{n}", "client", n, f"c{n}", i.public, "active", 0.0) for n, i in enumerate(identity)]
            db.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        made = [
            Token(server.fingerprint, server.members.invite(number=num_idle + n)[0]) for n in range(num_busy)
        ]
        bound = listen("127.0.0.1", 0)
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        out = Path(folder) / "taken.json"

        def crowd() -> None:
            taken: list[float] = []

            async def all_of_them() -> None:
                until_s = time.monotonic() + seconds
                waits = []
                for number in range(num_idle):
                    waits.append(
                        asyncio.create_task(
                            wait_idly(url, pem.read_text(), number, identity[number], until_s, taken)
                        )
                    )
                    if number % 100 == 99:
                        await asyncio.sleep(0.5)
                found = await asyncio.gather(*waits, return_exceptions=True)
                wrong = [repr(error) for error in found if error]
                out.write_text(json.dumps({"taken": sorted(taken), "wrong": len(wrong), "why": wrong[:3]}))

            asyncio.run(all_of_them())

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        waiting = forked(crowd)
        with serving(server, bound, "127.0.0.1"):
            time.sleep(num_idle / 100 * 0.55)
            threads = []
            for number, token in enumerate(made):
                house = House(Path(folder) / f"busy-{number}")
                join(house, url, token)
                client = Client(house, lambda plan: [0], lambda plan: None)
                threads.append(threading.Thread(target=client.run, daemon=True))
                threads[-1].start()
            os.waitpid(waiting, 0)
        found = json.loads(out.read_text())
        taken = found["taken"]
        return {
            "idle": num_idle,
            "check_ins": len(taken),
            "p50_s": taken[len(taken) // 2],
            "p99_s": taken[len(taken) * 99 // 100],
            "wrong": found["wrong"],
            "why": found["why"],
            "server_peak_mb": round(peak_mb()),
        }


def main() -> None:
    """Measures one of them."""
    ask = argparse.ArgumentParser()
    ask.add_argument("what", choices=["small", "large", "idle"])
    ask.add_argument("--clients", type=int)
    ask.add_argument("--mb", type=int, default=100)
    ask.add_argument("--seconds", type=float, default=60.0)
    given = ask.parse_args()
    if given.what == "small":
        print(json.dumps(federate(1024, given.clients or 2, 3)))
    elif given.what == "large":
        print(json.dumps(federate(given.mb * 250_000, given.clients or 10, 3)))
    else:
        print(json.dumps(idle(given.clients or 5000, 0, given.seconds)))


if __name__ == "__main__":
    main()
