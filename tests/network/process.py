"""A server or a client in a process of its own, so that it can be killed.

process.py serve FOLDER PORT CASE ROUNDS [RUN]
process.py join FOLDER NUMBER
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from dataclasses import replace

from federation import CASES, federation, job, learner, population

from hanse.network.client.client import Client
from hanse.network.client.home import ClientHome


def serve(folder: str, port: str, case: str, rounds: str, run: str | None = None) -> None:
    with federation(Path(folder), port=int(port)) as here:
        given = job(CASES[case], int(rounds))
        name = here.server.lead(replace(given, watch=lambda r: print("round", r.round, flush=True)), run)
        print("run", name, flush=True)
        here.server.done.wait()
        print(here.events(), file=sys.stderr)
        print(here.server.run(name).status, here.server.run(name).result.get("params_sha256"), flush=True)


def join(folder: str, number: str) -> None:
    data = population().client(int(number))
    print(Client(ClientHome(Path(folder) / f"client-{number}"), lambda plan: data, learner).run(), flush=True)


if __name__ == "__main__":
    {"serve": serve, "join": join}[sys.argv[1]](*sys.argv[2:])
