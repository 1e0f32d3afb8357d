"""One of three clients lies to a real server, and a rule withstands it. Ten seconds, on this machine:

    python examples/served_liar.py
    python examples/served_liar.py mean

Each client is a process of its own that joins over HTTPS, as a hospital would. The liar needs no code: it
scales its own features by -30 before it joins, so that its updates are long and false. Behind a mean they
spoil the model; a trimmed mean leaves the greatest and the least value of each coordinate out.
"""

import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hanse.core import Key
from hanse.data import digits, iid, partition_data
from hanse.store import Runs

NUM_CLIENTS, LIAR = 3, 1
RULES = {"mean": '"mean"', "trimmed_mean": '{name = "trimmed_mean", trim = 1}'}
SETTINGS = """
rounds = 5
evaluate_every = 5
partition = {{name = "iid", num_clients = {clients}}}
algorithm = {{name = "fed_avg", lr = 0.5, fraction = 1.0, epochs = 1, into = {rule}}}
"""


def write_data(folder: Path) -> None:
    """Writes a file of examples for each client; the liar's are not what it has."""
    people = partition_data(digits().load(), iid(NUM_CLIENTS), Key.from_seed(0))
    for number in range(NUM_CLIENTS):
        own = people.client(number)
        np.savez(folder / f"{number}.npz", x=own.x * (-30 if number == LIAR else 1), y=own.y)


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Starts a command of Hanse in a folder, with a file for what it prints."""
    command = [sys.executable, "-m", "hanse", *words]
    with (folder / f"{len(list(folder.glob('*.log')))}.log").open("w") as log:
        return subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, text=True
        )


def find_port() -> int:
    """Finds a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def serve(rule: str) -> float:
    """Serves a run with this rule to all clients, and returns the accuracy after the last round."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        (folder / "run.toml").write_text(SETTINGS.format(clients=NUM_CLIENTS, rule=rule))
        address, tokens = f"127.0.0.1:{find_port()}", folder / "tokens"
        parties = [start(folder, "serve", "run.toml", "--listen", address, "--tokens-to", str(tokens))]
        try:
            while len(list(tokens.glob("*.token"))) < NUM_CLIENTS and parties[0].poll() is None:
                time.sleep(0.05)
            for number, token in enumerate(sorted(tokens.glob("*.token"))):
                own = ("--token-file", str(token), "--data", f"{number}.npz", "--home", f"client-{number}")
                parties.append(start(folder, "join", f"https://{address}", *own, "--yes"))
            while None in (codes := [party.poll() for party in parties]) and not any(codes):
                time.sleep(0.05)
        finally:
            for party in parties:
                party.terminate()
                party.wait()
        if any(codes):
            raise SystemExit("\n".join(log.read_text() for log in sorted(folder.glob("*.log"))))
        (run,) = Runs(folder / ".hanse" / "server" / "runs.db").infos()
        assert run.result is not None
        return float(run.result["final"]["accuracy"])


if __name__ == "__main__":
    rule = "mean" if sys.argv[1:] == ["mean"] else "trimmed_mean"
    accuracy = serve(RULES[rule])
    print(f"{rule}: accuracy {accuracy:.2f} with one liar of {NUM_CLIENTS}")
    assert accuracy < 0.5 if rule == "mean" else accuracy > 0.8
