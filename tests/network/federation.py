"""A small federation for the tests: digits over five clients, served on loopback, and simulated."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from learning import SHAPE, SOFTMAX, bound, learner

from hanse.algorithms import evaluation, fed_avg, scaffold, trained_by, uniform
from hanse.core import Algorithm, Close, Key, Keys, Memory, bind_learner, fixed_mean
from hanse.core.exchange import (
    Fork,
    InMemory,
    PartyMemory,
    Payload,
    Progress,
    Record,
    Task,
    Watch,
    compute,
    digest,
    drive,
    pack,
    training,
)
from hanse.data import digits, iid, partition_data
from hanse.network.client.client import Client
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.client.memory_parts import read_parts
from hanse.network.client.ticket_process import Loaded
from hanse.network.protocol.certificates import fingerprint, make
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import Plan
from hanse.network.server.https import listen, serving
from hanse.network.server.job import RunJob
from hanse.network.server.runtime import Patience
from hanse.network.server.server import Server
from hanse.privacy import adaptive_clip, gaussian, tree
from hanse.simulation import Devices, InProcess, Simulation, ideal
from hanse.transforms import clip, quantize, random_mask, rotate

KEYS = Keys.from_seed(7)
NUM_CLIENTS = 5


def step_along(params: Any, data: Any, config: Any, key: Any, memory: Any) -> Any:
    """A user's own training, which remembers its last direction."""
    rows = key.rng().permutation(len(data))[:50]
    slopes = params["weights"].T @ data.x[rows].T + params["bias"][:, None]
    slopes = np.exp(slopes - slopes.max(axis=0))
    slopes /= slopes.sum(axis=0)
    slopes[data.y[rows], np.arange(len(rows))] -= 1
    last = memory.get("last", np.zeros_like(params["weights"]))
    memory["last"] = 0.5 * last + data.x[rows].T @ slopes.T / len(rows)
    params["weights"] -= config["lr"] * memory["last"]
    return None, None, {"moved": np.abs(memory["last"]).sum()}


FED_AVG = fed_avg(lr=0.5, fraction=1.0, batch_size=50)
CASES: dict[str, Algorithm[Any]] = {
    "fed_avg": FED_AVG,
    "scaffold": scaffold(lr=0.3, fraction=0.6, batch_size=50),
    "masked_quantized": fed_avg(lr=0.5, fraction=0.7, batch_size=50, uplink=(random_mask(0.5), quantize(4))),
    "trained_by": fed_avg(
        fraction=0.7, client=trained_by(step_along, {"lr": 1.0}, metrics=("moved",)), uplink=(quantize(8),)
    ),
    "noised": fed_avg(
        lr=0.5,
        sampling_rate=0.7,
        weighting=uniform(),
        batch_size=50,
        uplink=(clip(1.0), gaussian(0.02)),
        into=fixed_mean(0.7 * NUM_CLIENTS),
        close=Close(minimum_fraction=0.0),
    ),
    "correlated": fed_avg(
        lr=0.5,
        fraction=0.2,
        separation=3,
        weighting=uniform(),
        batch_size=50,
        uplink=(adaptive_clip(0.5), tree(0.02, restart_every=3)),
        into=fixed_mean(1.0),
        close=Close(minimum_fraction=0.0),
    ),
    "downlink": fed_avg(lr=0.5, fraction=0.7, batch_size=50, downlink=(rotate(), quantize(4))),
}


def population() -> Any:
    return partition_data(digits().load(), iid(NUM_CLIENTS), KEYS.public.fold_in("partition"))


def begin(algorithm: Algorithm[Any], model: Any = SOFTMAX) -> Progress[Any]:
    return Progress(0, algorithm.init(bound(model).init(KEYS.public), KEYS.public))


def program(algorithm: Algorithm[Any], rounds: int, progress: Progress[Any], model: Any = SOFTMAX) -> Any:
    return training(algorithm, progress, KEYS.public, rounds=rounds, evaluate=evaluation(bound(model)))


def simulated(
    algorithm: Algorithm[Any],
    rounds: int,
    devices: Devices = ideal(),
    *,
    model: Any = SOFTMAX,
    watch: Watch | None = None,
) -> str:
    """The digest of the parameters that the simulation ends with."""
    return simulate(algorithm, rounds, devices, model=model, watch=watch).params_sha256


@dataclass(frozen=True)
class Ended:
    """The end of a run: digests of the parameters and of the memory that each client has committed."""

    params_sha256: str
    memories: tuple[str, ...]


def simulate(
    algorithm: Algorithm[Any],
    rounds: int,
    devices: Devices = ideal(),
    *,
    model: Any = SOFTMAX,
    watch: Watch | None = None,
) -> Ended:
    """Performs a run in this process."""
    store = InMemory()
    backend = InProcess(bound(model), population(), KEYS)
    runtime = Simulation(backend, NUM_CLIENTS, KEYS, devices, PartyMemory(store.memory))
    led = program(algorithm, rounds, begin(algorithm, model), model)
    params = drive(led, runtime, store, watch).state.params
    memories = tuple(digest(dict(store.memory(number))) for number in range(NUM_CLIENTS))
    return Ended(digest(dict(params)), memories)


def read_memory(home: Path, run: str) -> tuple[Memory, dict[int, Fork]]:
    """Reads what a client remembers of a run: what it has committed, and the forks of open tickets."""
    path = home / "runs" / run / "memory"
    committed, forks = read_parts(path) if path.exists() else ({}, {})
    return committed, dict(forks)


def job(algorithm: Algorithm[Any], rounds: int, *, model: Any = SOFTMAX, **options: Any) -> RunJob:
    people = population()
    plan = Plan("", json.dumps({"algorithm": str(algorithm), "rounds": rounds}), model, SHAPE, 10)
    given: dict[str, Any] = {"num_clients": NUM_CLIENTS, "patience": Patience(silent_s=20.0)}
    return RunJob(
        plan=plan,
        begin=lambda: begin(algorithm, model),
        program=lambda progress: program(algorithm, rounds, progress, model),
        secret=KEYS.secret.fold_in("server"),
        learner=bound(model),
        role=people.role,
        **{**given, **options},
    )


class InThread:
    """Computes in the client's own thread, for tests that need no process."""

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load, self._held = load, list[tuple[Any, Any]]()

    def compute(
        self, task: Task, payload: Payload, memory: Memory, secret: Key, limit_s: float | None
    ) -> tuple[bytes, Fork]:
        if not self._held:
            loaded = self._load()
            learner = bind_learner(loaded.bind(loaded.plan), loaded.party, loaded.data)
            self._held.append((learner, loaded.data))
        message, fork = compute(task, payload, *self._held[0], memory, secret)
        return pack(message), fork

    def close(self) -> None:
        self._held.clear()


class Threaded(Client):
    """A client that computes in its own thread."""

    backend = InThread


@dataclass
class Federation:
    """A server on loopback, and clients that have joined it."""

    server: Server
    url: str
    folder: Path
    records: list[Record] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    """The errors that ended clients of `enter_one`."""

    def lead(self, given: RunJob, run: str | None = None) -> str:
        return self.server.lead(replace(given, watch=self.records.append), run)

    def client_home(self, party: int | str) -> ClientHome:
        """Return the client home of a party, which joins if it has not yet."""
        client_home = ClientHome(self.folder / f"client-{party}")
        if client_home.membership is None:
            number, name = (party, "") if isinstance(party, int) else (None, party)
            secret, _ = self.server.members.invite(number=number, party=name)
            join(client_home, self.url, Token(self.server.fingerprint, secret, self.server.identity.public))
        return client_home

    def enter(self, numbers: Sequence[int] = range(NUM_CLIENTS), kind: type[Client] = Threaded) -> None:
        """Starts clients in threads."""
        people = population()
        for number in numbers:
            mine = people.client(number)
            client = kind(self.client_home(number), lambda plan, mine=mine: mine, learner, self.said.append)
            thread = threading.Thread(target=client.run, daemon=True)
            thread.start()
            self.clients.append(client)
            self.threads.append(thread)

    def enter_one(self, number: int | str, data: Any, bind: Any) -> None:
        """Starts one client in a thread, with data and learner of a plan's own."""
        client = Threaded(self.client_home(number), data, bind, self.said.append)

        def work() -> None:
            try:
                client.run()
            except BaseException as error:
                self.errors.append(error)

        self.clients.append(client)
        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()

    def show_up(self, numbers: Sequence[int] = range(NUM_CLIENTS)) -> None:
        """Lets the server hear of clients that have joined, though none of them works."""
        for number in numbers:
            self.server.presence.hear(number)

    def wait_for(self, event: str, otherwise: str, timeout_s: float = 90.0) -> bool:
        """Waits until the operator sees an event."""
        until_s = time.monotonic() + timeout_s
        while event not in self.events() and time.monotonic() < until_s:
            time.sleep(0.01)
        assert event in self.events(), f"{otherwise}\n{self.events()}"
        return True

    def end(self, run: str, timeout_s: float = 90.0, status: str = "completed") -> dict[str, Any]:
        """Waits for a run to end, as it should; its result."""
        until_s = time.monotonic() + timeout_s
        led = self.server.run(run)
        while led.status == "running" and time.monotonic() < until_s:
            if led.mailbox.doing.startswith("waiting for clients"):
                led.mailbox.notify()  # it looks only once a second who is there
            time.sleep(0.01)
        events = "\n".join(f"{who}: {what}" for _, who, what in self.server.members.events(20))
        assert led.status == status, f"{led.status}, {led.mailbox.doing}\n{events}\n" + "\n".join(
            self.said[-20:]
        )
        return led.result

    def ended(self, run: str, status: str = "completed") -> Ended:
        """Waits for a run to end and for its clients to have committed or dropped their memory."""
        sha256 = self.end(run, status=status)["params_sha256"]
        mailbox = self.server.run(run).mailbox
        self.wait_until(lambda: not mailbox.outcomes(), "a client does not know how its tickets ended")

        def kept() -> list[tuple[Memory, dict[int, Fork]]]:
            return [read_memory(self.folder / f"client-{number}", run) for number in range(NUM_CLIENTS)]

        self.wait_until(lambda: not any(forks for _, forks in kept()), "a fork outlives its ticket", 20.0)
        return Ended(sha256, tuple(digest(committed) for committed, _ in kept()))

    def wait_until(self, true: Callable[[], bool], otherwise: str, timeout_s: float = 90.0) -> None:
        """Waits until something is true."""
        until_s = time.monotonic() + timeout_s
        while not true() and time.monotonic() < until_s:
            self.server.notify_runs()  # they look only once a second who is there
            time.sleep(0.005)
        assert true(), f"{otherwise}\n{self.events()}\n" + "\n".join(self.said[-20:])

    def events(self) -> str:
        return "\n".join(f"{who}: {what}" for _, who, what in self.server.members.events(1000))


@contextmanager
def federation(folder: Path, *, port: int = 0, stay: bool = False) -> Iterator[Federation]:
    certificate, _ = make(folder / "server", ("127.0.0.1",))
    server = Server(folder / "server", fingerprint(certificate.read_text()), stay=stay)
    with ExitStack() as stack:
        url = stack.enter_context(serving(server, listen("127.0.0.1", port), "127.0.0.1"))
        here = Federation(server, url, folder)
        try:
            yield here
        finally:
            for client in here.clients:
                client.stop()
            server.over = True
            server.presence.wake_all()
            for thread in here.threads:
                thread.join(10.0)
