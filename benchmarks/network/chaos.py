"""Kills processes at random moments while requests get lost, doubled and late; the bits must not change.

    python benchmarks/network/chaos.py --runs 200

Each run is a server and five clients, every one a process of its own. Some of them, the server included,
are killed with SIGKILL at random moments and started again. Every client loses, doubles and delays its
requests. A run passes if it ends with the parameters of the undisturbed simulation, each round having
counted all its contributions exactly once.
"""

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "network"))

import httpx
from federation import CASES, NUM_CLIENTS, federation, job, learner, population, simulated

from hanse.network import transport
from hanse.network.certificates import fingerprint, make
from hanse.network.client import Client, House, join
from hanse.network.errors import Unreachable
from hanse.network.members import Members, Token
from hanse.network.runtime import Patience
from hanse.store import Runs

PATIENCE = Patience(silent_s=120.0)
RUN_S = 90.0


def shake(seed: int, rate: float) -> None:
    """Makes all requests of this process unreliable."""
    dice = random.Random(seed)
    send = transport.Link._send

    def unreliable(self: Any, *given: Any, **named: Any) -> httpx.Response:
        luck = dice.random()
        if luck < rate:
            raise Unreachable("lost on the way there")
        time.sleep(dice.random() * 0.02)
        response = send(self, *given, **named)
        if luck < 2 * rate:
            response.close()
            raise Unreachable("lost on the way back")
        if luck < 3 * rate:
            response.close()
            return send(self, *given, **named)
        return response

    transport.Link._send = unreliable  # type: ignore[method-assign]


def forked(work: Callable[[], None], log: Path) -> int:
    """A process that does this: its id."""
    child = os.fork()
    if child:
        return child
    try:
        with open(log, "ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def serve(folder: Path, port: int, case: str, rounds: int, run: str) -> None:
    with federation(folder, port=port) as here:
        here.server.lead(replace(job(CASES[case], rounds), patience=PATIENCE), run)
        here.server.done.wait()
        print(here.server.run(run).status, here.events(), flush=True)


def take_part(folder: Path, port: int, number: int, token: Token, seed: int, rate: float) -> None:
    shake(seed, rate)
    house = House(folder / f"client-{number}")
    until_s = time.monotonic() + RUN_S
    while house.membership is None and time.monotonic() < until_s:
        try:
            join(house, f"https://127.0.0.1:{port}", token)
        except Unreachable:
            time.sleep(0.05)
    data = population().client(number)
    print(Client(house, lambda plan: data, learner).run())


def one(seed: int, case: str, rounds: int, num_kills: int, rate: float, folder: Path) -> dict[str, Any]:
    """One run: what it ended with."""
    dice = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    home = folder / "server"
    pem, _ = make(home, ("127.0.0.1",))
    members = Members(home / "members.db")
    tokens = [
        Token(fingerprint(pem.read_text()), members.invite(number=number)[0]) for number in range(NUM_CLIENTS)
    ]
    members.close()
    run = Runs(home / "runs.db").begin({}, {})

    def start(who: int) -> int:
        if who < 0:
            return forked(lambda: serve(folder, port, case, rounds, run), folder / "server.log")
        luck = dice.random()
        return forked(
            lambda: take_part(folder, port, who, tokens[who], hash((seed, who, luck)), rate),
            folder / f"client-{who}.log",
        )

    running = {who: start(who) for who in (-1, *range(NUM_CLIENTS))}
    moments = sorted(dice.uniform(0.1, 3.0) for _ in range(num_kills))
    began = time.monotonic()
    killed = []
    ended = False
    try:
        while time.monotonic() - began < RUN_S and not ended:
            if moments and time.monotonic() - began > moments[0]:
                moments.pop(0)
                who = dice.choice([-1, *running])
                os.kill(running[who], signal.SIGKILL)
                os.waitpid(running[who], 0)
                killed.append((round(time.monotonic() - began, 2), who))
                running[who] = start(who)
            for who, process in list(running.items()):
                gone, status = os.waitpid(process, os.WNOHANG)
                if gone:
                    if who < 0:
                        ended = True
                        break
                    del running[who]
                    if status:
                        running[who] = start(who)
            time.sleep(0.01)
    finally:
        for who, process in running.items():
            if not (ended and who < 0):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
    kept = Runs(home / "runs.db")
    info, records = kept.info(run), kept.records(run)
    return {
        "seed": seed,
        "case": case,
        "status": info.status,
        "params_sha256": (info.result or {}).get("params_sha256"),
        "counted": [record.usage.counted for record in records],
        "abandoned": [record.abandoned for record in records if record.abandoned],
        "killed": killed,
        "seconds": round(time.monotonic() - began, 2),
    }


def main() -> int:
    """Runs them all; the number that failed."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--runs", type=int, default=200)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--rounds", type=int, default=6)
    ask.add_argument("--kills", type=int, default=3)
    ask.add_argument("--rate", type=float, default=0.03, help="of each kind of fault, a request")
    ask.add_argument("--verbose", action="store_true")
    given = ask.parse_args()
    names = ["fed_avg", "scaffold"]
    due = {name: simulated(CASES[name], given.rounds) for name in names}
    cohort = {"fed_avg": NUM_CLIENTS, "scaffold": 3}
    wrong = 0
    seconds = []
    for seed in range(given.seed, given.seed + given.runs):
        case = names[seed % len(names)]
        with tempfile.TemporaryDirectory() as folder:
            found = one(seed, case, given.rounds, given.kills, given.rate, Path(folder))
            fine = (
                found["status"] == "completed"
                and found["params_sha256"] == due[case]
                and found["counted"] == [0] + [cohort[case]] * given.rounds
            )
            if not fine:
                wrong += 1
                logs = {p.name: p.read_text()[-3000:] for p in sorted(Path(folder).glob("*.log"))}
                print(
                    json.dumps(found), *(f"--- {n}\n{text}" for n, text in logs.items()), sep="\n", flush=True
                )
            seconds.append(found["seconds"])
            if given.verbose:
                print(json.dumps(found), flush=True)
    print(
        json.dumps(
            {
                "runs": given.runs,
                "wrong": wrong,
                "kills_a_run": given.kills,
                "fault_rate": 3 * given.rate,
                "median_seconds": sorted(seconds)[len(seconds) // 2],
            }
        )
    )
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
