"""One of ten clients declares a weight of 1e7: how accurate is the model, and who is named?

Real server and clients on loopback, one process. The liar trains on its own examples, with labels turned
around (9 - y) or as they are, or on two classes only; each time with the bound and without.

python benchmarks/network/weights.py [--rounds 5] [--keep]
"""

import argparse
import json
import math
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hanse.algorithms import evaluation, fed_avg
from hanse.core import Examples, Keys
from hanse.core.exchange import Message, Progress, Record, pack, training, unpack
from hanse.data import digits, iid, partition_data
from hanse.learners import softmax
from hanse.network.client import Client, ClientHome, join
from hanse.network.client.ticket_process import TicketProcess
from hanse.network.protocol import Plan, Token, certificates
from hanse.network.server import Patience, RunJob, Server, listen, serving
from hanse.runs import Parties

KEYS, NUM_CLIENTS, LIAR, DECLARED = Keys.from_seed(7), 10, 3, 1e7
SHAPE, RESULT = (64,), Path(__file__).with_suffix(".json")


def bind(plan: Any = None) -> Any:
    return softmax().bind(SHAPE, 10)


class BoastingBackend(TicketProcess):
    """Computes as every client does, and declares another weight, as a changed installation could."""

    def compute(self, *ticket: Any) -> Any:
        packed, fork = super().compute(*ticket)
        message: Message = unpack(packed, Message)
        parts = {name: part and replace(part, weight=DECLARED) for name, part in message.parts.items()}
        return pack(replace(message, parts=parts)), fork


class Boaster(Client):
    """A client that lies about the number of its examples."""

    backend = BoastingBackend


def turn(examples: Examples) -> Examples:
    return Examples(examples.x, 9 - examples.y)


def keep_two(examples: Examples) -> Examples:
    return examples.take(np.flatnonzero(examples.y < 2))


def keep_all(examples: Examples) -> Examples:
    return examples


DATA: dict[str, Callable[[Examples], Examples]] = {
    "labels turned around": turn,
    "two classes": keep_two,
    "honest examples": keep_all,
}


def serve(change: Callable[[Examples], Examples] | None, ratio: float, rounds: int) -> dict[str, Any]:
    """Performs a run; `change`: what the liar does with its examples; None: nobody lies."""
    people, records = partition_data(digits().load(), iid(NUM_CLIENTS), KEYS.public), list[Record]()
    algorithm: Any = fed_avg(lr=0.5, fraction=1.0, batch_size=50)

    def program(progress: Progress[Any]) -> Any:
        return training(algorithm, progress, KEYS.public, rounds=rounds, evaluate=evaluation(bind()))

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "server"
        pem, _ = certificates.make(home, ("127.0.0.1",))
        server = Server(home, certificates.fingerprint(pem.read_text()))
        with serving(server, listen("127.0.0.1", 0), "127.0.0.1") as url:
            run = server.lead(
                RunJob(
                    Plan("", "{}", softmax(), SHAPE, 10),
                    lambda: Progress(0, algorithm.init(bind().init(KEYS.public), KEYS.public)),
                    program,
                    bind(),
                    people.role,
                    num_clients=NUM_CLIENTS,
                    num_present=NUM_CLIENTS,
                    patience=Patience(max_weight_ratio=ratio),
                    watch=records.append,
                )
            )
            for number in range(NUM_CLIENTS):
                client_home = ClientHome(Path(folder) / f"client-{number}")
                secret = server.members.invite(number=number)[0]
                join(client_home, url, Token(server.fingerprint, secret, server.identity.public))
                mine, kind = people.client(number), Client
                if number == LIAR and change is not None:
                    mine, kind = change(mine), Boaster
                client = kind(client_home, lambda plan, mine=mine: mine, Parties().bind)
                threading.Thread(target=client.run, daemon=True).start()
            server.done.wait(600.0)
            result = server.run(run).result
    accuracies = [round(record.metrics["accuracy"], 4) for record in records]
    findings = [found["text"] for found in result.get("findings", ())]
    return {"accuracy by round": accuracies, "findings": findings}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="write the figures to weights.json")
    given = parser.parse_args()
    figures: dict[str, Any] = {"honest run": serve(None, 10.0, given.rounds)}
    for what, change in DATA.items():
        for ratio in (math.inf, 10.0, 1.0):
            name = f"{what}, " + ("no bound" if math.isinf(ratio) else f"max_weight_ratio {ratio:g}")
            figures[name] = serve(change, ratio, given.rounds)
            print(name, json.dumps(figures[name]), flush=True)
    print("honest run", figures["honest run"])
    if given.keep:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
