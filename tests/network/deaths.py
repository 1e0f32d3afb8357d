"""A server and three clients in processes of their own, each of which kills itself at chosen moments.

deaths.py serve FOLDER PORT ROUNDS [RUN]
deaths.py join FOLDER NUMBER

A process that has killed itself is started again at once, and goes on with what is on its disk.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from federation import KEYS, SOFTMAX, InThread, begin, bound, federation, job, learner, population, program

from hanse.algorithms import fed_avg
from hanse.core.exchange import Dispatch, InMemory, PartyMemory, digest, drive
from hanse.network.client.client import Client
from hanse.network.client.home import ClientHome
from hanse.network.client.role import OpenRole
from hanse.network.client.worker import Worker
from hanse.network.protocol.spool import Outgoing
from hanse.network.server.runtime import NetworkRuntime, Patience
from hanse.privacy.secure_sums import secure_mean
from hanse.simulation import InProcess, Simulation
from hanse.transforms import clip

PARTIES = 3
PHASES = ("advertise_keys", "deal_shares", "mask_parts", "confirm_survivors", "reveal_shares")
EXCHANGES = ("local_sgd", *PHASES)
OF_SERVER, OF_CLIENT = ("before", "after"), ("asked", "computed", "kept", "written", "sent")
"""The moments of an exchange at which a process may die.

    server  before it asks; after it has asked (it has collected when it comes to the next exchange)
    client  before it computes; after; after its memory is on the disk; its message, too; and it is uploaded
"""

Death = tuple[int, str, str]
"""The round from which on a process dies, the exchange, and the moment."""


def algorithm(roster: Sequence[str]) -> Any:
    into = secure_mean(colluders=0.0, drop_out=0.0, roster=tuple(roster))
    return fed_avg(lr=0.5, fraction=1.0, batch_size=50, epochs=1, uplink=(clip(1.0),), into=into)


def simulate(roster: Sequence[str], rounds: int) -> str:
    """The digest of the parameters of an undisturbed simulation."""
    chosen, store = algorithm(roster), InMemory()
    backend = InProcess(bound(SOFTMAX), population(), KEYS)
    runtime = Simulation(backend, PARTIES, KEYS, memory=PartyMemory(store.memory))
    return digest(dict(drive(program(chosen, rounds, begin(chosen)), runtime, store).state.params))


# -- in a process that dies ------------------------------------------------------------------------


class Fate:
    """The deaths of one process, of which a file says how many it has died."""

    def __init__(self, folder: Path, who: str) -> None:
        self.rounds, self.died = folder / "rounds", folder / f"died-{who}"
        self.deaths = json.loads((folder / "deaths.json").read_text()).get(who, [])

    def reach(self, exchange: str, moment: str) -> None:
        number = len(self.died.read_text()) if self.died.exists() else 0
        round = 1 + (int(self.rounds.read_text()) if self.rounds.exists() else 0)
        if number < len(self.deaths):
            since, where, when = self.deaths[number]
            if (where, when) == (exchange, moment) and since <= round:
                with self.died.open("a") as file:
                    file.write("+")
                os.kill(os.getpid(), signal.SIGKILL)


def serve(folder: Path, port: str, rounds: str, run: str | None = None) -> None:
    fate, perform = Fate(folder, "server"), NetworkRuntime.perform

    def watch(record: Any) -> None:
        whole = fate.rounds.with_name("rounds.part")
        whole.write_text(str(record.round))
        whole.replace(fate.rounds)

    def mortal(self: Any, command: Any) -> Any:
        asked = type(command.work).__name__ if isinstance(command, Dispatch) else type(command).__name__
        fate.reach(asked, "before")
        event = perform(self, command)
        fate.reach(asked, "after")
        return event

    NetworkRuntime.perform = mortal  # type: ignore[method-assign]
    chosen = algorithm(json.loads((folder / "roster.json").read_text()))
    given = job(chosen, int(rounds), num_clients=PARTIES, patience=Patience(silent_s=120.0))
    with federation(folder, port=int(port)) as here:
        name = here.server.lead(replace(given, watch=watch), run)
        print("run", name, flush=True)
        here.server.done.wait()
        led = here.server.run(name)
        for record in here.server.runs.records(name):
            print("round", record.round, record.usage.counted, record.abandoned or "", flush=True)
        print("ended", led.status, led.result.get("params_sha256"), flush=True)


def join(folder: Path, number: str) -> None:
    fate, now = Fate(folder, f"client-{number}"), [""]

    class Mortal(InThread):
        def compute(self, task: Any, payload: Any, *more: Any) -> Any:
            now[0] = type(payload.work).__name__
            fate.reach(now[0], "asked")
            done = super().compute(task, payload, *more)
            fate.reach(now[0], "computed")
            return done

    def die_after(kind: Any, name: str, moment: str) -> None:
        do = getattr(kind, name)

        def dying(*given: Any, **named: Any) -> Any:
            done = do(*given, **named)
            fate.reach(now[0], moment)
            return done

        setattr(kind, name, dying)

    die_after(OpenRole, "keep", "kept")
    die_after(Outgoing, "write", "written")
    die_after(Worker, "_upload", "sent")

    class MortalClient(Client):
        backend = Mortal

    data = population().client(int(number))
    MortalClient(ClientHome(folder / f"client-{number}"), lambda plan: data, learner).run()


# -- around them -----------------------------------------------------------------------------------


@dataclass
class Outcome:
    """The end of a run, and how often each process was started."""

    status: str = ""
    params_sha256: str = ""
    rounds: dict[int, tuple[int, str]] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)


def perform(
    folder: Path,
    port: int,
    deaths: Mapping[str, Sequence[Death]],
    rounds: int,
    start: Callable[..., Any],
    timeout_s: float,
) -> tuple[Outcome, str]:
    """Performs a run whose processes die; returns how it ended, and the bits of an undisturbed one.

    Args:
      deaths: of "server", "client-0" and so on, in their order.
      start: starts this file with words, and returns the process, whose standard output is a pipe.
    """
    with federation(folder, port=port) as here:
        homes = [here.client_home(number) for number in range(PARTIES)]
        roster = [home.identity.public for home in homes]
    (folder / "roster.json").write_text(json.dumps(roster))
    (folder / "deaths.json").write_text(
        json.dumps({who: list(map(list, all)) for who, all in deaths.items()})
    )
    outcome, run, running, listeners = Outcome(), list[str](), dict[str, Any](), list[threading.Thread]()

    def listen(process: Any) -> None:
        with process.stdout as lines:
            for line in lines:
                word, *said = line.split(maxsplit=3)
                if word == "run":
                    run[:] = said[:1]
                elif word == "round":
                    outcome.rounds[int(said[0])] = int(said[1]), "".join(said[2:]).strip()
                elif word == "ended":
                    outcome.status, outcome.params_sha256 = said[0], said[1].strip()

    def begin_process(who: str) -> None:
        words = ["serve", folder, port, rounds, *run] if who == "server" else ["join", folder, who[-1]]
        running[who] = start(__file__, *words)
        outcome.starts[who] = outcome.starts.get(who, 0) + 1
        listeners.append(threading.Thread(target=listen, args=(running[who],), daemon=True))
        listeners[-1].start()

    until_s = time.monotonic() + timeout_s
    begin_process("server")
    try:
        while not outcome.status and time.monotonic() < until_s:
            time.sleep(0.02)  # nothing is decided by it: it only looks who has died
            if run and len(running) == 1:
                for number in range(PARTIES):
                    begin_process(f"client-{number}")
            for who, process in list(running.items()):
                if process.poll() == -signal.SIGKILL and (run or who != "server"):
                    begin_process(who)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
        for listener in listeners:
            listener.join(10.0)
    return outcome, simulate(roster, rounds)


if __name__ == "__main__":
    {"serve": serve, "join": join}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
