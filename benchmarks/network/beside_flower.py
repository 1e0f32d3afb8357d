"""The same small and large job in Hanse and in Flower 1.42, as a user types it: from the command to its end.

    python benchmarks/network/beside_flower.py                # 4 KB, 2 clients; 100 MB, 10 clients; 3 rounds
    python benchmarks/network/beside_flower.py --only small --times 1

The tools take turns. Real parties: `hanse serve` and a `hanse join` for each client, against a `flower-
superlink`, a `flower-supernode` for each and `flwr run`, all started at once. Simulation: `hanse run`
against `flwr run`. The latter starts a SuperLink that stays, so `flwr run` is timed again with it running.
Writes beside_flower.json.

Each client trains a softmax regression by one step on its two examples, in NumPy, so that the rounds are
steps of gradient descent: a tool counts only if it ends with that model's norm. Hanse speaks TLS, signs,
and keeps all on disk; Flower is given its insecure mode, and keeps its state in memory where it is
deployed. Flower's environment is that of `benchmarks/simulators`, made if need be.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parents[1] / "simulators"))

import numpy as np
from environments import FLOWER
from machine import save
from safetensors.numpy import load_file

from hanse.config import read
from hanse.runs import load_population

ROUNDS = 3
LIMIT_S = 300.0


@dataclass(frozen=True)
class Job:
    """One job: a softmax regression in float32, its clients, and the number of repetitions."""

    features: int
    classes: int
    clients: int
    times: int

    @property
    def values(self) -> int:
        return (self.features + 1) * self.classes

    @property
    def data(self) -> tuple[Any, Any]:
        """Two rows per client; the last label says how many there are."""
        labels = np.arange(2 * self.clients) % self.classes
        labels[-1] = self.classes - 1
        return np.random.default_rng(0).normal(size=(len(labels), self.features)), labels

    @cached_property
    def norm(self) -> float:
        """The norm of the model after one step of gradient descent per round."""
        x, y = self.data
        weights, bias = np.zeros((self.features, self.classes)), np.zeros(self.classes)
        for _ in range(ROUNDS):
            scores = x @ weights + bias
            gradients = np.exp(scores - scores.max(1, keepdims=True))
            gradients /= gradients.sum(1, keepdims=True)
            gradients[np.arange(len(y)), y] -= 1
            gradients *= 0.1 / len(y)
            weights -= x.T @ gradients
            bias -= gradients.sum(0)
        return norm(weights, bias)

    def check(self, found: float) -> None:
        """Raises: Wrong: if a tool's model is another one."""
        if not abs(found / self.norm - 1) < 1e-5:
            raise Wrong(f"its model has the norm {found}, not {self.norm}")


def norm(*arrays: Any) -> float:
    """Return the Euclidean norm of all values."""
    return float(sum(np.square(array, dtype=np.float64).sum() for array in arrays) ** 0.5)


JOBS = {"small": Job(63, 16, 2, 3), "large": Job(999, 25_000, 10, 2)}

SETTINGS = """
rounds = {rounds}
evaluate_every = 0
data = {{ name = "npz", path = "data.npz", test_fraction = 0.0 }}
partition = {{ name = "iid", num_clients = {clients} }}
model = "softmax"
algorithm = {{ name = "fed_avg", lr = 0.1, fraction = 1.0, epochs = 1, batch_size = 2 }}
"""

PROJECT = """
[project]
name = "softmax"
version = "1.0.0"
description = "Steps of gradient descent."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "benchmark"

[tool.flwr.app.components]
serverapp = "softmax.server:app"
clientapp = "softmax.client:app"

[tool.flwr.app.config]
"""

CLIENT = """
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    weights, bias = message.content["arrays"].to_numpy_ndarrays()
    at = 2 * int(context.node_config["partition-id"])
    with np.load(Path(context.run_config["folder"]) / "data.npz") as stored:
        x, y = stored["x"][at : at + 2].astype(np.float32), stored["y"][at : at + 2]
    scores = x @ weights + bias
    gradients = np.exp(scores - scores.max(1, keepdims=True))
    gradients /= gradients.sum(1, keepdims=True)
    gradients[[0, 1], y] -= 1
    gradients *= np.float32(0.1 / 2)
    arrays = [weights - x.T @ gradients, bias - gradients.sum(0)]
    metrics = MetricRecord({"num-examples": 2})
    return Message(content=RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)
"""

SERVER = """
import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    said = context.run_config
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=said["clients"],
        min_available_nodes=said["clients"],
    )
    start = [np.zeros((said["features"], said["classes"]), np.float32), np.zeros(said["classes"], np.float32)]
    ended = strategy.start(grid=grid, initial_arrays=ArrayRecord(start), num_rounds=said["rounds"])
    norm = sum(np.square(array, dtype=np.float64).sum() for array in ended.arrays.to_numpy_ndarrays()) ** 0.5
    print("NORM", norm, flush=True)
"""


class Wrong(Exception):
    """A tool did not do the job; the message holds its output."""


# -- processes -------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(
    folder: Path, environment: Mapping[str, str], *commands: list[str]
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes that write to a file each; at the end, stop them and everything that they started."""
    running: list[subprocess.Popen[str]] = []
    try:
        for number, command in enumerate(commands):
            with open(folder / f"said-{number}", "w") as said:
                running.append(
                    subprocess.Popen(
                        command, cwd=folder, env=dict(environment), stdout=said, stderr=said, text=True
                    )
                )
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        sweep(folder)


def sweep(folder: Path) -> None:
    """End every process whose environment names this folder, which only this benchmark uses."""
    mark = str(folder).encode()
    until_s = time.monotonic() + 20.0
    while time.monotonic() < until_s:
        left = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes() and int(path.parent.name) != os.getpid():
                    left.append(int(path.parent.name))
        if not left:
            return
        hard = until_s - time.monotonic() < 15.0
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL if hard else signal.SIGTERM)
        time.sleep(0.2)


def run(folder: Path, environment: Mapping[str, str], command: list[str]) -> str:
    """Return the output of a command. Raises: Wrong: if it fails."""
    ended = subprocess.run(
        command, cwd=folder, env=dict(environment), text=True, capture_output=True, timeout=LIMIT_S
    )
    if ended.returncode:
        raise Wrong(f"{' '.join(command)}: {(ended.stdout + ended.stderr)[-2000:]}")
    return ended.stdout


def waited(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > until_s:
            raise Wrong("it did not get there in time")
        time.sleep(0.02)


# -- Hanse -----------------------------------------------------------------------------------------


def hanse(*words: str) -> list[str]:
    return [sys.executable, "-m", "hanse", *words]


def described(folder: Path, job: Job) -> None:
    """Write settings and data, and each client's own part of the data."""
    x, y = job.data
    np.savez(folder / "data.npz", x=x, y=y)
    settings = folder / "app.toml"
    settings.write_text(SETTINGS.format(rounds=ROUNDS, clients=job.clients))
    with contextlib.chdir(folder):
        people = load_population(read(settings))
    for number in range(job.clients):
        own = people.client(number)
        np.savez(folder / f"own-{number}.npz", x=own.x, y=own.y)


def hanse_simulated(folder: Path, job: Job, seen: set[str]) -> dict[str, float]:
    described(folder, job)
    began = time.perf_counter()
    said = run(folder, os.environ, hanse("run", "app.toml", "--json"))
    seconds = time.perf_counter() - began
    checked(folder, ".hanse/store.db", said, job, seen)
    return {"hanse simulated": seconds}


def hanse_deployed(folder: Path, job: Job, seen: set[str]) -> dict[str, float]:
    described(folder, job)
    said = folder / "said-0"
    began = time.perf_counter()
    with started(folder, os.environ, hanse("serve", "app.toml", "--listen", "127.0.0.1:0")) as (server,):
        joins: list[list[str]] = []

        def invited() -> bool:
            joins[:] = [line.split()[1:] for line in said.read_text().splitlines() if "hanse join" in line]
            return len(joins) == job.clients

        waited(invited)
        clients = []
        for number, words in enumerate(joins):
            words[-1] = f"own-{number}.npz"
            pipe = subprocess.DEVNULL
            clients.append(subprocess.Popen(hanse(*words), cwd=folder, stdout=pipe, stderr=pipe))
        try:
            codes = [process.wait(LIMIT_S) for process in (*clients, server)]
            seconds = time.perf_counter() - began
        finally:
            for client in clients:
                client.kill()
    if any(codes):
        raise Wrong(said.read_text()[-2000:])
    checked(folder, ".hanse/server/runs.db", said.read_text(), job, seen)
    return {"hanse deployed": seconds}


def checked(folder: Path, store: str, said: str, job: Job, seen: set[str]) -> None:
    """Check that all runs, simulated or not, end with the same right model. Raises: Wrong: if they do not."""
    found = re.search(r'"params_sha256": ?"([0-9a-f]{64})"', said)
    named = re.search(r'"run": ?"(\w+)"', said)
    if found is None or named is None:
        raise Wrong(said[-2000:])
    seen.add(found[1])
    if len(seen) != 1:
        raise Wrong(f"models differ: {seen}")
    run(folder, os.environ, hanse("release", named[1], "--to", "model", "--store", store))
    job.check(norm(*load_file(folder / "model" / "model.safetensors").values()))


# -- Flower ----------------------------------------------------------------------------------------


def flower(command: str, *words: str) -> list[str]:
    return [str(FLOWER.python.with_name(command)), *words]


def app_of(folder: Path, job: Job, port: int) -> dict[str, str]:
    """Write an app and a configuration; return the environment in which Flower finds both."""
    package = folder / "app" / "softmax"
    package.mkdir(parents=True)
    described(folder, job)
    said = {"rounds": ROUNDS, "clients": job.clients, "features": job.features, "classes": job.classes}
    config = "\n".join(f"{name} = {value}" for name, value in said.items()) + f'\nfolder = "{folder}"\n'
    (folder / "app" / "pyproject.toml").write_text(PROJECT + config)
    (package / "__init__.py").touch()
    (package / "client.py").write_text(CLIENT)
    (package / "server.py").write_text(SERVER)
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink.local]\naddress = ":local:"\n'
        f'[superlink.deployed]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{FLOWER.python.parent}:{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_DISABLE_MEMORY_MONITOR": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def ended_well(said: str, job: Job) -> None:
    """Raises: Wrong."""
    found = re.search(r"NORM (\S+)", said)
    if found is None:
        raise Wrong(said[-2000:])
    job.check(float(found[1]))


def flower_simulated(folder: Path, job: Job, seen: set[str]) -> dict[str, float]:
    environment = app_of(folder, job, 0)
    options = ["--stream", "--federation-config", f"num-supernodes={job.clients}"]
    found = {}
    try:
        for name in ("flower simulated", "flower simulated, again"):
            began = time.perf_counter()
            said = run(folder, environment, flower("flwr", "run", "app", "local", *options))
            found[name] = time.perf_counter() - began
            ended_well(said, job)
    finally:
        sweep(folder)
    return found


def flower_deployed(folder: Path, job: Job, seen: set[str]) -> dict[str, float]:
    ports = free_ports(job.clients + 1)
    environment = app_of(folder, job, ports[0])
    insecure, server = "--insecure", f"127.0.0.1:{ports[0]}"
    node = flower("flower-supernode", insecure, "--superlink", server)
    nodes = [
        [*node, "--port", str(port), "--node-config", f"partition-id={number}"]
        for number, port in enumerate(ports[1:])
    ]
    began = time.perf_counter()
    link = flower("flower-superlink", insecure, "--port", str(ports[0]))
    with started(folder, environment, link, *nodes):
        ask = build_opener(ProxyHandler({})).open

        def up() -> bool:
            with contextlib.suppress(OSError):
                return bool(ask(f"http://{server}/health", timeout=5).status == 200)
            return False

        waited(up)
        said = run(folder, environment, flower("flwr", "run", "app", "deployed", "--stream"))
        seconds = time.perf_counter() - began
    ended_well(said, job)
    return {"flower deployed": seconds}


def free_ports(count: int) -> list[int]:
    import socket

    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in bound]


# -- both ------------------------------------------------------------------------------------------


def beside(job: Job, times: int) -> dict[str, Any]:
    """Return seconds of each tool; the tools take turns."""
    seconds: dict[str, list[float]] = {}
    seen: set[str] = set()
    for _ in range(times):
        for tool in (hanse_deployed, flower_deployed, hanse_simulated, flower_simulated):
            with tempfile.TemporaryDirectory(prefix="beside-", ignore_cleanup_errors=True) as folder:
                for name, taken in tool(Path(folder), job, seen).items():
                    seconds.setdefault(name, []).append(round(taken, 2))
                    print(f"{name}: {taken:.2f} s (load {os.getloadavg()[0]:.1f})", flush=True)
    median: dict[str, float] = {name: statistics.median(found) for name, found in seconds.items()}
    ratios = {
        name: round(median[name] / median[f"hanse {name.split(',')[0].split()[1]}"], 1)
        for name in median
        if name.startswith("flower")
    }
    return {"values": job.values, "clients": job.clients, "seconds": seconds, "times_as_long": ratios}


def main() -> None:
    """Measure, and write the results."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--only", choices=[*JOBS])
    ask.add_argument("--times", type=int)
    given = ask.parse_args()
    FLOWER.make(print)
    found = {
        name: beside(job, given.times or job.times)
        for name, job in JOBS.items()
        if given.only in (None, name)
    }
    about = {"flower": "1.42.0, insecure, no dependencies of the app", "rounds": ROUNDS}
    if given.only or given.times:
        print(json.dumps(found, indent=2))
    else:
        save(__file__, {**about, **found})


if __name__ == "__main__":
    main()
