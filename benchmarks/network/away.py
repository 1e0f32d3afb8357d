"""A party with a name is away for a minute: are rounds lost, and are the bits those of a simulation?

python benchmarks/network/away.py [--away-s 60] [--keep]
"""

import argparse
import json
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from echoes import bind_nothing, visit

from hanse.core import Close, Key, Keys, ModelState, PartSpec, Population, Program, Spec, gather
from hanse.core.exchange import InMemory, PartyMemory, Progress, Record, digest, drive, training
from hanse.network.client import Client, ClientHome, join
from hanse.network.protocol import Plan, Token, certificates
from hanse.network.server import Patience, RunJob, Server, listen, serving
from hanse.simulation import InProcess, Simulation

KEYS = Keys.from_seed(1)
COHORT = ("server", 0, 1, "hospital")
ROUNDS, LEAVES_AFTER, SILENT_S, WAIT_S = 25, 10, 2.0, 300.0
RESULT = Path(__file__).with_suffix(".json")


class Houses(Population):
    """Two clients and two roles, each with three numbers."""

    num_clients = 2

    def client(self, number: int) -> Any:
        return KEYS.public.fold_in("data", number).rng().normal(size=3)

    def role(self, name: str) -> Any:
        return KEYS.public.fold_in("data", name).rng().normal(size=3)


class Around:
    """An algorithm that asks all four parties in each round, and can do without none."""

    def __init__(self, close: Close) -> None:
        self._close = close

    def round(self, state: ModelState, key: Key) -> Program[ModelState]:
        spec, shared = PartSpec(Spec.of(state.params)), {"params": state.params}
        got = yield from gather(visit(), COHORT, shared, key, close=self._close, update=spec)
        return ModelState(dict(got["update"].values))


def measure(params: Any, key: Key) -> Program[dict[str, float]]:
    yield from ()
    return {"norm": float(np.linalg.norm(params["w"]))}


def begin() -> Progress[Any]:
    return Progress(0, ModelState({"w": np.zeros(3)}))


def program(close: Close, progress: Progress[Any]) -> Program[Progress[Any]]:
    algorithm: Any = Around(close)
    return training(algorithm, progress, KEYS.public, rounds=ROUNDS, evaluate=measure)


def simulate(close: Close) -> str:
    store, people = InMemory(), Houses()
    runtime = Simulation(
        InProcess(None, people, KEYS), 2, KEYS, memory=PartyMemory(store.memory), parties=["hospital"]
    )
    return digest(dict(drive(program(close, begin()), runtime, store).state.params))


def serve(close: Close, away_s: float) -> dict[str, Any]:
    """Serves the run, switches the hospital off after a round, and on again."""
    people, records, left = Houses(), list[Record](), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "server"
        pem, _ = certificates.make(home, ("127.0.0.1",))
        server = Server(home, certificates.fingerprint(pem.read_text()))
        with serving(server, listen("127.0.0.1", 0), "127.0.0.1") as url:

            def enter(party: Any) -> Client:
                client_home = ClientHome(Path(folder) / f"client-{party}")
                if client_home.membership is None:
                    named = {"number": party} if isinstance(party, int) else {"party": party}
                    join(
                        client_home,
                        url,
                        Token(server.fingerprint, server.members.invite(**named)[0], server.identity.public),
                    )
                data = people.client(party) if isinstance(party, int) else people.role(party)
                client = Client(client_home, lambda plan: data, bind_nothing)
                threading.Thread(target=client.run, daemon=True).start()
                return client

            def watch(record: Record) -> None:
                records.append(record)
                if record.round == LEAVES_AFTER:
                    hospital.stop()
                    left.set()

            run = server.lead(
                RunJob(
                    Plan("", "{}", None, (3,), None),
                    begin,
                    lambda progress: program(close, progress),
                    None,
                    people.role,
                    num_clients=2,
                    num_present=2,
                    parties=("hospital",),
                    patience=Patience(silent_s=SILENT_S),
                    watch=watch,
                )
            )
            hospital = enter("hospital")
            for number in range(2):
                enter(number)
            left.wait(120.0)
            time.sleep(away_s)
            doing, before = server.run(run).mailbox.doing, len(records)
            enter("hospital")
            server.done.wait(120.0)
            found = server.run(run)
            lost = {record.round: record.abandoned for record in records}
            return {
                "status": found.status,
                "rounds": found.result.get("rounds"),
                "rounds_lost": sum(why is not None for why in lost.values()),
                "rounds_while_away": before - LEAVES_AFTER - 1,
                "status_while_away": doing,
                "params_sha256": found.result.get("params_sha256"),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--away-s", type=float, default=60.0)
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.name}")
    given = parser.parse_args()
    patient = Close(minimum_fraction=1.0, wait_s=WAIT_S)
    found: dict[str, Any] = {"away_s": given.away_s, "silent_s": SILENT_S, "wait_s": WAIT_S}
    due = simulate(patient)
    for name, close in (("waits", patient), ("does not wait", replace(patient, wait_s=None))):
        served = serve(close, given.away_s if close.wait_s else min(given.away_s, 10 * SILENT_S))
        found[name] = {**served, "same_bits_as_simulated": served["params_sha256"] == due}
    print(json.dumps(found, indent=1))
    if given.keep:
        RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
