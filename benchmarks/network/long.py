"""The server's memory in a run of 10,000 rounds with three clients, in processes of their own.

    python benchmarks/network/long.py --rounds 10000 --keep

One client never acknowledges how its tickets ended if `--deaf` is given: the server has to keep all of that.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from echoes import EXAMPLES, bind_nothing
from machine import keep
from speed import cpu_s, forked, job, rss_mb, tokens, usage

from hanse.core.exchange import Record
from hanse.network.client.client import Client
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.client.tickets import Tickets
from hanse.network.protocol.tokens import Token
from hanse.network.server.https import listen, serving
from hanse.network.server.server import Server

EVERY = 500
"""Memory is read each time so many rounds have ended."""

MOST_GROWTH = 1.03
"""The server's memory at the end, at most, as a multiple of that after the first 500 rounds."""


class DeafTickets(Tickets):
    """Tickets of a client that never says that it knows how they ended."""

    def settle(self, run: str, tickets: Iterable[int]) -> None:
        super().settle(run, tickets)
        self._known.clear()


def measure(num_clients: int, rounds: int, num_values: int, *, deaf: bool) -> dict[str, Any]:
    """Run server and clients, and return the server's memory after every 500 rounds."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        made = tokens(home / "server", num_clients)
        bound = listen("127.0.0.1", 0)
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"

        def take_part(token: Token, number: int) -> None:
            bound.close()
            house = ClientHome(home / f"client-{number}")
            join(house, url, token)
            client = Client(house, lambda plan: EXAMPLES, bind_nothing)
            if deaf and number == 0:
                client._tickets = DeafTickets()
            client.run()

        clients = [forked(lambda t=t, n=n: take_part(t, n)) for n, t in enumerate(made)]  # type: ignore[misc]
        memory_mb: dict[int, float] = {}
        seconds: dict[int, float] = {}
        began = time.monotonic()

        def watch(record: Record) -> None:
            if record.round and record.round % EVERY == 0:
                memory_mb[record.round] = rss_mb()
                seconds[record.round] = round(time.monotonic() - began, 1)
                print(record.round, memory_mb[record.round], seconds[record.round], file=sys.stderr)

        server = Server(home / "server", made[0].fingerprint)
        with serving(server, bound, "127.0.0.1"):
            run = server.lead(replace(job(num_values, num_clients, rounds), watch=watch))
            server.done.wait()
            status = server.run(run).status
        for number, client in enumerate(clients):
            if deaf and number == 0:
                os.kill(client, signal.SIGKILL)  # for it waits for its outcomes to be acknowledged
            os.waitpid(client, 0)
    first, last = min(memory_mb), max(memory_mb)
    growth = round(memory_mb[last] / memory_mb[first], 3)
    return {
        "status": status,
        "clients": num_clients,
        "deaf": deaf,
        "rounds": rounds,
        "memory_mb": memory_mb,
        "growth": growth,
        "seconds": seconds,
        "server_cpu_s": cpu_s(usage()),
        "wrong": status != "completed" or growth > MOST_GROWTH,
    }


def main() -> int:
    """Measure, and say whether the memory grew."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--clients", type=int, default=3)
    ask.add_argument("--rounds", type=int, default=10_000)
    ask.add_argument("--values", type=int, default=1000)
    ask.add_argument("--deaf", action="store_true")
    ask.add_argument("--keep", action="store_true", help="write the result to long.json")
    given = ask.parse_args()
    found = measure(given.clients, given.rounds, given.values, deaf=given.deaf)
    print(json.dumps(found))
    if given.keep:
        keep(__file__, "one client is deaf" if given.deaf else "all acknowledge", found)
    return int(found["wrong"])


if __name__ == "__main__":
    sys.exit(main())
