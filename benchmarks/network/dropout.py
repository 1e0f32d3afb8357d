"""Clients that fail in the middle of rounds, 130% of the cohort asked: which rounds close?

python benchmarks/network/dropout.py
"""

import json
import random
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from echoes import EXAMPLES, bind_nothing, part_of_them
from speed import job

from hanse.core.exchange import Record
from hanse.network.client import Client, ClientHome, join
from hanse.network.protocol import Token, certificates
from hanse.network.server import Patience, Server, listen, serving

NUM_CLIENTS, COHORT, ROUNDS = 20, 10, 50


def rounds(failing: float) -> dict[str, Any]:
    dice = random.Random(1)

    class UnluckyBackend:
        """Wraps the backend of a client, and fails now and then."""

        def __init__(self, load: Any) -> None:
            self._inner = Client.backend(load)
            self.close = self._inner.close

        def compute(self, *ticket: Any) -> Any:
            if dice.random() < failing:
                raise RuntimeError("dropped out")
            return self._inner.compute(*ticket)

    class Unlucky(Client):
        backend = UnluckyBackend

    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "server"
        pem, _ = certificates.make(home, ("127.0.0.1",))
        server = Server(home, certificates.fingerprint(pem.read_text()))
        with serving(server, listen("127.0.0.1", 0), "127.0.0.1") as url:
            given = job(1000, NUM_CLIENTS, ROUNDS, part_of_them(COHORT / NUM_CLIENTS))
            led = server.lead(replace(given, patience=Patience(20.0, 60.0, 1.3), watch=records.append))
            threads = []
            for number in range(NUM_CLIENTS):
                house = ClientHome(Path(folder) / f"client-{number}")
                secret = server.members.invite(number=number)[0]
                join(house, url, Token(server.fingerprint, secret, server.identity.public))
                client = Unlucky(house, lambda plan: EXAMPLES, bind_nothing)
                threads.append(threading.Thread(target=client.run, daemon=True))
                threads[-1].start()
            server.done.wait(300)
            status = server.run(led).status
            for thread in threads:
                thread.join(10)
    return {
        "failing": failing,
        "status": status,
        "rounds": len(records),
        "closed": len([r for r in records if r.abandoned is None]),
        "counted": sum(r.usage.counted for r in records),
    }


if __name__ == "__main__":
    for share in (0.0, 0.1, 0.3, 0.8):
        print(json.dumps(rounds(share)), flush=True)
