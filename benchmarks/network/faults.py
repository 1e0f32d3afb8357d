"""Stop a server or a client at each of its durable steps in turn; after a restart nothing may be lost.

    python benchmarks/network/faults.py --keep      # every step: minutes to an hour
    python benchmarks/network/faults.py --few       # 24 stops, as in the tests

Each party is a process of its own. A library that is preloaded into it kills it with SIGKILL just before or
just after its n-th call of fsync, fdatasync, write, pwrite, truncate, rename or unlink in its folder: a call
that changes what a restarted process finds. Then it is started again. A run of SCAFFOLD passes if

- it ends in time, with the parameters of the undisturbed simulation;
- every upload that was acknowledged to a client is counted once, for that client, with the same bytes.

A client that is stopped while it joins, replaces its key or leaves types the same command again; it passes if
both sides agree afterwards.
"""

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests" / "network")]

DEADLINE_S = 120.0
ROUNDS = 2
Stop = tuple[str, int, bool]
"""A part of the name and path of a call, its number among such calls, and whether the kill comes after it."""


def build(folder: Path) -> Path | None:
    """Compile the library; None: this machine has no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    library = folder / "stop_at.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "stop_at.c", "-ldl"]
    return library if subprocess.run(command, capture_output=True).returncode == 0 else None


def arm(folder: Path, stop: Stop | None, log: Path | None) -> None:
    """Make this process die at a call, or list its calls."""
    line, number, is_after = stop or ("", 0, False)
    where = str(log or "").encode()
    ctypes.CDLL(None).stop_at(f"{folder}/".encode(), line.encode(), number, int(is_after), where)


@dataclass
class World:
    """A server and clients that have joined it, as they are on the disk before a run."""

    folder: Path
    port: int
    run: str
    tokens: Sequence[Any]

    def copy(self, folder: Path) -> "World":
        shutil.copytree(self.folder, folder)
        return World(folder, self.port, self.run, self.tokens)


def found_world(folder: Path) -> World:
    """Make a server with a run, and clients that have joined."""
    from chaos import keep_the_journal
    from federation import NUM_CLIENTS, federation
    from test_kill import free_port

    from hanse.network.protocol import Token

    port = free_port()
    with federation(folder, port=port) as here:
        for number in range(NUM_CLIENTS):
            here.client_home(number)
        run = here.server.runs.begin({}, {})
        secret, _ = here.server.members.invite(number=NUM_CLIENTS)
        token = Token(here.server.fingerprint, secret, here.server.identity.public)
    keep_the_journal(folder / "server" / "runs.db")
    return World(folder, port, run, [token])


@dataclass
class Party:
    """A process, what it does, and the calls at which its next incarnations are killed."""

    name: str
    folder: Path
    work: Callable[[], None]
    log: Path
    stops: list[Stop] = field(default_factory=list)
    calls: Path | None = None
    process: int = 0
    num_stopped: int = 0
    status: int | None = None

    def start(self) -> None:
        from chaos import forked

        stop = self.stops.pop(0) if self.stops else None

        def work() -> None:
            if stop is not None or self.calls is not None:
                arm(self.folder, stop, self.calls)
            self.work()

        self.status, self.process = None, forked(work, self.log)

    def look(self) -> bool:
        """Return whether it has ended by itself. It is started again if it was stopped."""
        if self.status is None:
            gone, status = os.waitpid(self.process, os.WNOHANG)
            if gone and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                self.num_stopped += 1
                self.start()
            elif gone:
                self.status = status
        return self.status is not None

    def kill(self) -> None:
        if self.status is None:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
            self.status = -1


def live(parties: Sequence[Party], until: Party) -> bool:
    """Let processes work until one has ended by itself; return whether it did, and well."""
    until_s = time.monotonic() + DEADLINE_S
    for party in parties:
        party.start()
    try:
        while not until.look() and time.monotonic() < until_s:
            for party in parties:
                party.look()
            time.sleep(0.003)
        return until.status == 0
    finally:
        for party in parties:
            party.kill()


# -- a run -------------------------------------------------------------------------------------


def serve(folder: Path, port: int, run: str) -> None:
    from dataclasses import replace

    from chaos import PATIENCE
    from federation import federation, job

    with federation(folder, port=port) as here:
        here.server.lead(replace(job(algorithm(), ROUNDS), patience=PATIENCE), run)
        here.server.done.wait()
        print(here.server.run(run).status, here.events(), flush=True)


def algorithm() -> Any:
    """Make an algorithm with memory at the clients, in which all take part in each round."""
    from hanse.algorithms import scaffold

    return scaffold(lr=0.3, fraction=1.0, batch_size=50)


def take_part(folder: Path, number: int) -> None:
    from federation import Threaded, learner, population

    from hanse.network.client import ClientHome

    data = population().client(number)
    print(Threaded(ClientHome(folder / f"client-{number}"), lambda plan: data, learner).run(), flush=True)


def perform(
    world: World, due: str, stops: dict[str, list[Stop]], calls: dict[str, Path] | None = None
) -> dict[str, Any]:
    """Perform a run whose parties are stopped, and say what is wrong with its end."""
    from chaos import lost_or_doubled
    from federation import NUM_CLIENTS

    from hanse.store import Runs

    folder = world.folder
    work: dict[str, Callable[[], None]] = {"server": lambda: serve(folder, world.port, world.run)}
    for number in range(NUM_CLIENTS):
        work[f"client-{number}"] = lambda number=number: take_part(folder, number)
    parties = {
        name: Party(
            name,
            folder / name,
            act,
            folder / f"{name}.log",
            list(stops.get(name, ())),
            (calls or {}).get(name),
        )
        for name, act in work.items()
    }
    began_s = time.monotonic()
    ended = live(list(parties.values()), parties["server"])
    info = Runs(folder / "server" / "runs.db").info(world.run)
    wrong = [] if ended else [f"no end within {DEADLINE_S:g} s"]
    wrong += [] if info.status == "completed" else [f"it is {info.status}"]
    wrong += [] if (info.result or {}).get("params_sha256") == due else ["other parameters"]
    wrong += lost_or_doubled(folder)
    if wrong:
        wrong += [f"{name}: {party.log.read_text()[-1500:]}" for name, party in parties.items()]
    return {
        "stops": {name: list(given) for name, given in stops.items()},
        "stopped": sum(party.num_stopped for party in parties.values()),
        "wrong": wrong,
        "seconds": round(time.monotonic() - began_s, 2),
    }


# -- enrolment, a new key, leaving -------------------------------------------------------------


def retry(act: Callable[[], Any]) -> Any:
    """Do something again until the server can be reached."""
    from hanse.network.protocol import Refused, Unreachable

    until_s = time.monotonic() + 30.0
    while True:
        try:
            return act()
        except (Unreachable, ConnectionError):
            if time.monotonic() > until_s:
                raise
        except Refused as refused:
            if refused.code not in ("unavailable", "skewed") or time.monotonic() > until_s:
                raise
        time.sleep(0.02)


def enrol(world: World) -> None:
    from hanse.network.client import ClientHome, join

    home = ClientHome(world.folder / "client-5")
    if home.membership is None:
        retry(lambda: join(home, f"https://127.0.0.1:{world.port}", world.tokens[0]))


def rotate(world: World) -> None:
    from hanse.network.client import ClientHome, rotate_key

    retry(lambda: rotate_key(ClientHome(world.folder / "client-1")))


def depart(world: World) -> None:
    from hanse.network.client import ClientHome, leave

    home = ClientHome(world.folder / "client-2")
    retry(lambda: socket.create_connection(("127.0.0.1", world.port)).close())
    if not (home.membership or {}).get("left"):
        retry(lambda: leave(home))


def greet(world: World) -> None:
    from federation import federation

    with federation(world.folder, port=world.port, stay=True) as here:
        here.server.done.wait()


COMMANDS: dict[str, tuple[Callable[[World], None], str]] = {
    "enrolment": (enrol, "client-5"),
    "rotation": (rotate, "client-1"),
    "leave": (depart, "client-2"),
}


def command(
    world: World, name: str, stops: dict[str, list[Stop]], calls: dict[str, Path] | None = None
) -> dict[str, Any]:
    """Perform a command of a client whose server or own process is stopped."""
    act, who = COMMANDS[name]
    folder = world.folder
    server = Party("server", folder / "server", lambda: greet(world), folder / "server.log")
    client = Party(who, folder / who, lambda: act(world), folder / f"{who}.log")
    for party in (server, client):
        party.stops = list(stops.get(party.name, ()))
        party.calls = (calls or {}).get(party.name)
    began_s = time.monotonic()
    ended = live([server, client], client)
    wrong = [] if ended else [f"{name} failed: {client.log.read_text()[-1500:]}"]
    wrong += disagreements(world, name)
    return {
        "stops": {party: list(given) for party, given in stops.items()},
        "stopped": server.num_stopped + client.num_stopped,
        "wrong": wrong,
        "seconds": round(time.monotonic() - began_s, 2),
    }


def disagreements(world: World, name: str) -> list[str]:
    """Return in what the client and the register of the server disagree."""
    from hanse.network.client import ClientHome
    from hanse.network.server import Members

    home = ClientHome(world.folder / COMMANDS[name][1])
    kept = home.membership or {}
    with contextlib.closing(Members(world.folder / "server" / "members.db")) as members:
        own = [member for member in members.all() if member.id == kept.get("id")]
        same = [member for member in members.all() if member.number == kept.get("number")]
    if len(own) != 1 or len(same) != (1 if name != "leave" else len(same)):
        return [f"the server knows {len(own)} members of this id, and {len(same)} of this number"]
    wrong = [] if own[0].public == home.identity.public else ["the two sides know other keys"]
    due = "left" if name == "leave" else "active"
    if own[0].state != due or bool(kept.get("left")) != (name == "leave"):
        wrong.append(f"at the server it is {own[0].state}, at the client {kept}")
    return wrong


# -- the sweep ---------------------------------------------------------------------------------


def main() -> int:
    """Perform all stops; return the number of those after which something was wrong."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--few", action="store_true", help="24 stops in two runs, and 6 in commands")
    ask.add_argument("--every", type=int, default=1, help="only each so many calls of a run")
    ask.add_argument("--minutes", type=float, default=60.0, help="stop the sweep after so long")
    ask.add_argument("--what", nargs="+", default=["run", *COMMANDS], help="which of run, enrolment, ...")
    ask.add_argument("--keep", action="store_true", help="write faults.json")
    given = ask.parse_args()
    if "stop_at.so" not in os.environ.get("LD_PRELOAD", ""):
        with tempfile.TemporaryDirectory() as folder:
            library = build(Path(folder))
            if library is None:
                print("no C compiler on this Linux machine: install gcc")
                return 77
            begin = [sys.executable, __file__, *sys.argv[1:]]
            return subprocess.run(begin, env={**os.environ, "LD_PRELOAD": str(library)}).returncode
    with tempfile.TemporaryDirectory() as folder:
        return sweep(Path(folder), given)


def sweep(folder: Path, given: Any) -> int:
    """Perform the stops in copies of one world."""
    from federation import simulated

    due = simulated(algorithm(), ROUNDS)
    world = found_world(folder / "world")
    found: dict[str, list[dict[str, Any]]] = {}
    num_calls: dict[str, dict[str, Any]] = {}
    until_s = time.monotonic() + 60 * given.minutes

    def act(what: str, stops: dict[str, list[Stop]], calls: dict[str, Path] | None = None) -> dict[str, Any]:
        here = world.copy(folder / "here")
        try:
            if what == "run":
                return perform(here, due, stops, calls)
            return command(here, what, stops, calls)
        finally:
            shutil.rmtree(folder / "here")

    for what in given.what:
        parties = ("server", "client-0" if what == "run" else COMMANDS[what][1])
        if given.few:
            plans = FEW[what]
        else:
            logs = {name: folder / f"{what}-{name}" for name in parties}
            assert not act(what, {}, logs)["wrong"]
            lines = {name: log.read_text().splitlines() for name, log in logs.items()}
            num_calls[what] = {name: Counter(line.split()[0] for line in lines[name]) for name in parties}
            plans = [
                {name: [("", number, is_after)]}
                for name in parties
                for number in edges(lines[name])[:: given.every if what == "run" else 1]
                for is_after in (False, True)
            ]
        for stops in plans:
            if time.monotonic() < until_s:
                ended = act(what, {name: list(own) for name, own in stops.items()})
                found.setdefault(what, []).append(ended)
                if ended["wrong"]:
                    print(what, json.dumps(ended["stops"]), *ended["wrong"], sep="\n", flush=True)
    results = {
        what: {
            "performed": len(ends),
            "stopped": sum(end["stopped"] for end in ends),
            "wrong": sum(bool(end["wrong"]) for end in ends),
            "longest_s": max(end["seconds"] for end in ends),
            "calls": num_calls.get(what, {}),
        }
        for what, ends in found.items()
    }
    print(json.dumps(results))
    if given.keep:
        path = HERE / "faults.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **results}, indent=1) + "\n")
    return int(any(result["wrong"] for result in results.values()))


def edges(lines: Sequence[str]) -> list[int]:
    """Return the numbers of all calls but those between two equal ones: many pages are written in a row."""
    inner = {at for at in range(1, len(lines) - 1) if lines[at - 1] == lines[at] == lines[at + 1]}
    return [at + 1 for at in range(len(lines)) if at not in inner]


BEFORE, AFTER = False, True
FEW: dict[str, list[dict[str, list[Stop]]]] = {
    "run": [
        {
            "server": [
                ("/plans/", 2, BEFORE),
                ("fdatasync runs.db-wal", 2, AFTER),
                ("/objects/new", 1, BEFORE),
                (".upload", 1, BEFORE),
                (".upload", 2, BEFORE),  # complete, and not durable
                (".message", 1, BEFORE),
                (".message", 1, AFTER),  # its name is new, and has not reached the disk
                ("unlink runs/", 1, AFTER),
                ("/head", 1, BEFORE),
                ("/objects/", 1, AFTER),
                ("members.db-wal", 6, BEFORE),
                (".upload", 2, AFTER),
                ("fdatasync runs.db-wal", 3, BEFORE),
            ],
            "client-0": [
                ("secret", 3, BEFORE),
                ("spent", 2, BEFORE),
                ("memory", 1, BEFORE),  # the fork of its memory
                ("memory", 3, AFTER),
                ("/1.part", 1, AFTER),
                (".message", 1, AFTER),
                ("audit.jsonl", 2, AFTER),
                ("audit.jsonl", 3, BEFORE),  # the message is at the server
                ("memory", 3, BEFORE),  # it is committed
                (".message", 1, BEFORE),
                (".task", 1, AFTER),
                ("fsync", 1, AFTER),
            ],
        }
    ],
    "enrolment": [
        {
            "server": [("members.db-wal", 7, BEFORE), ("fdatasync members.db-wal", 3, AFTER)],
            "client-5": [("key.pem", 3, BEFORE), ("membership", 3, BEFORE)],
        }
    ],
    "rotation": [
        {
            "server": [("fdatasync members.db-wal", 3, BEFORE)],
            "client-1": [("key.next.pem", 2, AFTER), ("rename key.pem", 1, BEFORE)],
        }
    ],
    "leave": [{"client-2": [("audit.jsonl", 2, AFTER), ("membership", 3, BEFORE)]}],
}
"""Stops for the tests: each incarnation of a process is stopped at the next of these calls."""


if __name__ == "__main__":
    sys.exit(main())
