"""Milliseconds per ticket of a client that keeps much, of which little or all changes, on loopback.

    git worktree add ../hanse-before COMMIT
    python benchmarks/network/memory_parts.py ../hanse-before --keep

One client, with its process, performs a ticket in each round, and emits one number. Without a checkout only
this version is measured. With --keep the result is written to memory_parts.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from echoes import EXAMPLES, bind_nothing, keeping
from machine import keep

from hanse.core import Keys, ModelState
from hanse.core.exchange import Progress, Record, training
from hanse.network.client import Client, ClientHome, join
from hanse.network.protocol import Plan, Token, certificates
from hanse.network.server import RunJob, Server, listen, serving

ROOT = Path(__file__).parents[2]
ROUNDS, WARM = 12, 4
CASES = {
    "nothing kept": (0, 0),
    "100 MB kept, 1 KB changes": (100, 0),
    "100 MB kept, 10 MB change": (100, 1),
    "100 MB kept, all changes": (100, 10),
}
"""The megabytes that are kept, in tensors of 10 MB, and the number of tensors that change."""


def measure(num_mb: int, num_changing: int) -> float:
    """Returns the median of the milliseconds of a round."""
    key, algorithm = Keys.from_seed(0).public, keeping(num_mb // 10, num_changing)
    records: list[Record] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("FOLDER")) as folder:
        home = Path(folder) / "server"
        pem, _ = certificates.make(home, ("127.0.0.1",))
        server = Server(home, certificates.fingerprint(pem.read_text()))
        with serving(server, listen("127.0.0.1", 0), "127.0.0.1") as url:
            job = RunJob(
                plan=Plan("", "{}", None, (), None),
                begin=lambda: Progress(0, ModelState({"n": np.zeros(())})),
                program=lambda progress: training(algorithm, progress, key, rounds=ROUNDS),
                learner=None,
                role=lambda name: None,
                num_clients=1,
                watch=records.append,
            )
            run = server.lead(job)
            house = ClientHome(Path(folder) / "client")
            secret = server.members.invite(number=0)[0]
            join(house, url, Token(server.fingerprint, secret, server.identity.public))
            client = Client(house, lambda plan: EXAMPLES, bind_nothing)
            thread = threading.Thread(target=client.run, daemon=True)
            thread.start()
            server.done.wait(300)
            status = server.run(run).status
            thread.join(60)
    assert status == "completed", status
    return round(1000 * statistics.median(record.seconds for record in records[WARM:]), 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("before", nargs="?", help="a checkout of another version")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps({name: measure(*case) for name, case in CASES.items()}))
        return
    found: dict[str, Any] = {}
    for name, checkout in (("before", given.before), ("now", ROOT)):
        if checkout is not None:
            env = {**os.environ, "PYTHONPATH": str(Path(checkout).resolve() / "src")}
            command = [sys.executable, __file__, "--alone"]
            done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, found[name], flush=True)
    if given.keep:
        keep(__file__, "ms_per_ticket", found)


if __name__ == "__main__":
    main()
