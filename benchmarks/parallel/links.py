"""Real seconds of served rounds through a throttled link, beside those of the simulated clock.

    python benchmarks/parallel/links.py          # four bandwidths, two latencies; writes links.json

A server and a client, two processes, speak TLS through a proxy of ours on loopback. The proxy passes each
direction on at a given number of bits a second, and holds back every byte by the latency. The work is an
echo, so that all time is the link's. Seconds are the median of rounds after the first. The one client is
asked in every round, so a round takes six latencies: see docs/parallel.md.
"""

import json
import os
import queue
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parents[1] / "network"))

from echoes import EXAMPLES, bind_nothing, trivial
from machine import machine
from speed import forked, job, tokens

from hanse.core import Keys, Population
from hanse.core.exchange import ModelState, Progress, drive, training
from hanse.network.client.client import Client
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.server.https import listen, serving
from hanse.network.server.server import Server
from hanse.simulation import InProcess, Link, Simulation, constant_speed, timed

NUM_VALUES, ROUNDS, CHUNK = 500_000, 3, 16_384


class Direction:
    """One direction of a link: bytes leave at a bandwidth, and arrive a latency later."""

    def __init__(self, bps: float, latency_s: float) -> None:
        self._bps, self._latency_s = bps, latency_s
        self._lock, self._free_s = threading.Lock(), 0.0

    def pass_on(self, source: socket.socket, target: socket.socket) -> None:
        """Pass bytes on until the source ends."""
        under_way: queue.Queue[tuple[float, bytes]] = queue.Queue(maxsize=4096)

        def deliver() -> None:
            while True:
                due_s, data = under_way.get()
                time.sleep(max(0.0, due_s - time.monotonic()))
                try:
                    target.sendall(data) if data else target.shutdown(socket.SHUT_WR)
                except OSError:
                    return
                if not data:
                    return

        threading.Thread(target=deliver, daemon=True).start()
        while True:
            try:
                data = source.recv(CHUNK)
            except OSError:
                data = b""
            with self._lock:
                self._free_s = max(self._free_s, time.monotonic()) + 8 * len(data) / self._bps
                leaves_s = self._free_s
            time.sleep(max(0.0, leaves_s - time.monotonic()))
            under_way.put((leaves_s + self._latency_s, data))
            if not data:
                return


def shape(port: int, bps: float, latency_s: float) -> int:
    """Start a proxy in front of a port; return its own port."""
    up, down = Direction(bps, latency_s), Direction(bps, latency_s)
    door = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            client, _ = door.accept()
            server = socket.create_connection(("127.0.0.1", port))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=up.pass_on, args=(client, server), daemon=True).start()
            threading.Thread(target=down.pass_on, args=(server, client), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(door.getsockname()[1])


def serve(bps: float, latency_s: float) -> list[float]:
    """Return the real seconds of each round."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (token,) = tokens(home / "server", 1)
        bound = listen("127.0.0.1", 0)
        ports = home / "port"

        def proxy() -> None:
            ports.write_text(str(shape(bound.getsockname()[1], bps, latency_s)))
            time.sleep(300)

        def take_part() -> None:
            while not (ports.exists() and ports.read_text()):
                time.sleep(0.01)
            house = ClientHome(home / "client")
            join(house, f"https://127.0.0.1:{ports.read_text()}", token)
            Client(house, lambda plan: EXAMPLES, bind_nothing).run()

        between, client = forked(proxy), forked(take_part)
        server = Server(home / "server", token.fingerprint)
        with serving(server, bound, "127.0.0.1"):
            run = server.lead(job(NUM_VALUES, 1, ROUNDS))
            server.done.wait(300)
            led = server.run(run)
            assert led.status == "completed", led
            seconds: list[float] = led.result["seconds"]
            os.waitpid(client, 0)
        os.kill(between, 9)
        os.waitpid(between, 0)
    return seconds


class One(Population[Any]):
    """One client, which holds nothing that matters."""

    num_clients = 1

    def client(self, number: int) -> Any:
        """Return what it holds."""
        return EXAMPLES

    def role(self, name: str) -> Any:
        """Return what nobody asks for."""
        return EXAMPLES


def simulate(bps: float, latency_s: float) -> float:
    """Return the virtual seconds of a round."""
    keys = Keys.from_seed(1)
    devices = timed(constant_speed(0.0), link=Link(bps, bps, latency_s))
    runtime = Simulation(InProcess(None, One(), keys), 1, keys, devices)
    records: list[Any] = []
    begin = Progress(0, ModelState({"w": np.ones(NUM_VALUES, np.float32)}))
    drive(training(trivial(1), begin, keys.public, rounds=ROUNDS), runtime, watch=records.append)
    return float(statistics.median(record.usage.virtual_s for record in records[1:]))


def main() -> None:
    """Compare all links, and write the result."""
    rows = []
    for mbit in (2, 4, 8, 16):
        for latency_s in (0.01, 0.05):
            virtual_s = simulate(mbit * 1e6, latency_s)
            each = serve(mbit * 1e6, latency_s)
            real_s = statistics.median(each[-(ROUNDS - 1) :])
            row = {
                "mbit": mbit,
                "latency_s": latency_s,
                "virtual_s": round(virtual_s, 4),
                "real_s": round(real_s, 4),
            }
            rows.append(
                {
                    **row,
                    "virtual_over_real": round(virtual_s / real_s, 4),
                    "rounds_s": each,
                    "load": round(os.getloadavg()[0], 1),
                }
            )
            print(rows[-1], flush=True)
    result = {"machine": machine(), "model_bytes": 4 * NUM_VALUES, "links": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
