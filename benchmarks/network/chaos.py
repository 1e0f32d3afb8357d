"""Kill processes at random moments while requests get lost, doubled and late; the bits must not change.

    python benchmarks/network/chaos.py --runs 200

Each run is a server and five clients, every one a process of its own. Some of them, the server included,
are killed with SIGKILL at random moments and started again. Every client loses, doubles and delays its
requests; the doubled ones overtake each other. A run passes if

- it ends with the parameters of the undisturbed simulation;
- in the server's database, every round counted its whole cohort, no ticket was counted in two rounds or twice
  in one, and none was dropped (a trigger keeps what is written to the journal, which a round's end deletes);
- every ticket whose upload was acknowledged to a client, by its audit log, is among those counted, for that
  client, and was never sent with other bytes;
- a client that ended by itself has committed the memory that it has in the simulation.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "network"))

import httpx
from federation import (
    CASES,
    KEYS,
    NUM_CLIENTS,
    Threaded,
    begin,
    federation,
    job,
    learner,
    population,
    program,
)

from hanse.core.exchange import InMemory, PartyMemory, digest, drive
from hanse.network.client import AuditLog, Client, ClientHome, join, read_parts, transport
from hanse.network.protocol import Identity, Refused, Token, Unreachable, fingerprint, make
from hanse.network.server import Members, Patience
from hanse.simulation import InProcess, Simulation
from hanse.store import Runs

PATIENCE = Patience(silent_s=120.0, over_select=1.0)
RUN_S = 90.0


def shake(seed: int, rate: float) -> None:
    """Make all requests of this process unreliable."""
    dice = random.Random(seed)
    send = transport.ServerLink._send

    def unreliable(self: Any, *given: Any, **named: Any) -> httpx.Response:
        luck = dice.random()
        if luck < rate:
            raise Unreachable("the request was lost")
        time.sleep(dice.random() * 0.02)
        response = send(self, *given, **named)
        if luck < 2 * rate:
            raise Unreachable("the answer was lost")
        if luck < 3 * rate:  # the same request again; which of the two arrives first is open
            twin = threading.Thread(target=overtake, args=(self, given, named))
            twin.start()
            try:
                return send(self, *given, **named)
            finally:
                twin.join()
        return response

    def overtake(link: Any, given: Any, named: Any) -> None:
        with contextlib.suppress(Refused, Unreachable):
            send(link, *given, **named).close()

    transport.ServerLink._send = unreliable  # type: ignore[method-assign]


def forked(work: Callable[[], None], log: Path) -> int:
    """Start a process that calls a function; return its id."""
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


def take_part(
    folder: Path, port: int, number: int, token: Token, seed: int, rate: float, kind: type[Client]
) -> None:
    shake(seed, rate)
    client_home = ClientHome(folder / f"client-{number}")
    until_s = time.monotonic() + RUN_S
    while client_home.membership is None and time.monotonic() < until_s:
        try:
            join(client_home, f"https://127.0.0.1:{port}", token)
        except Unreachable:
            time.sleep(0.05)
    data = population().client(number)
    print(kind(client_home, lambda plan: data, learner).run())


# -- what the stores say ---------------------------------------------------------------------------


def keep_the_journal(path: Path) -> None:
    """Make the database keep a copy of all journal entries, in the transaction that writes them."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE kept (value TEXT)")
        db.execute(
            "CREATE TRIGGER keep AFTER INSERT ON journal BEGIN INSERT INTO kept VALUES (new.value); END"
        )


def collected(path: Path) -> list[dict[str, Any]]:
    """Return all tickets that were ever folded, in order."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        entries = [json.loads(value) for (value,) in db.execute("SELECT value FROM kept ORDER BY rowid")]
    return [entry["event"] for entry in entries if entry["event"]["$"] == "Collected"]


def lost_or_doubled(folder: Path) -> list[str]:
    """Return the contributions on which the server's database and the clients' audit logs disagree."""
    wrong = []
    holders: dict[int, int] = {}
    for event in collected(folder / "server" / "runs.db"):
        wrong += [f"dropped: {drop}" for drop in event["dropped"]]
        for ticket, party in zip(event["counted"], event["parties"], strict=True):
            if ticket in holders:
                wrong.append(f"ticket {ticket} was counted twice")
            holders[ticket] = party
    acknowledged: set[int] = set()
    for number in range(NUM_CLIENTS):
        bodies: dict[int, set[str]] = {}
        for line in AuditLog(folder / f"client-{number}" / "audit.jsonl").lines():
            if line["what"] == "sends":
                bodies.setdefault(line["ticket"], set()).add(line["sha256"])
            if line["what"] == "sent":
                acknowledged.add(line["ticket"])
                if holders.get(line["ticket"]) != number:
                    wrong.append(f"ticket {line['ticket']} of client {number} was acknowledged, not counted")
        wrong += [f"ticket {t} was sent with {len(b)} bodies" for t, b in bodies.items() if len(b) > 1]
    if not acknowledged:
        wrong.append("no client's log tells of an acknowledgement")
    return wrong


@dataclass(frozen=True)
class Undisturbed:
    """The result of a simulation: digests of the parameters and of each client's memory."""

    params_sha256: str
    memories: tuple[str, ...]


def other_memory(folder: Path, run: str, due: Undisturbed, ended: Iterable[int]) -> list[str]:
    """Return the clients that ended by themselves with another memory than in the simulation."""
    wrong = []
    for number in ended:
        path = folder / f"client-{number}" / "runs" / run / "memory"
        committed = read_parts(path)[0] if path.exists() else {}
        if digest(committed) != due.memories[number]:
            wrong.append(f"client {number} remembers something else")
    return wrong


def undisturbed(case: str, rounds: int) -> Undisturbed:
    """Simulate the same run, in which nothing goes wrong."""
    store = InMemory()
    backend = InProcess(learner(), population(), KEYS)
    runtime = Simulation(backend, NUM_CLIENTS, KEYS, memory=PartyMemory(store.memory))
    ended = drive(program(CASES[case], rounds, begin(CASES[case])), runtime, store)
    memories = tuple(digest(dict(store.memory(number))) for number in range(NUM_CLIENTS))
    return Undisturbed(digest(dict(ended.state.params)), memories)


def one(
    seed: int,
    case: str,
    rounds: int,
    moments: list[tuple[float, int]],
    rate: float,
    folder: Path,
    due: Undisturbed,
    num_children: int,
) -> dict[str, Any]:
    """Perform one run, in which these are killed at these moments (-1: the server), and return its result."""
    dice = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    home = folder / "server"
    pem, _ = make(home, ("127.0.0.1",))
    pin, key = fingerprint(pem.read_text()), Identity.at(home / "identity.pem").public
    members = Members(home / "members.db")
    tokens = [Token(pin, members.invite(number=number)[0], key) for number in range(NUM_CLIENTS)]
    members.close()
    run = Runs(home / "runs.db").begin({}, {})
    keep_the_journal(home / "runs.db")

    def start(who: int) -> int:
        if who < 0:
            return forked(lambda: serve(folder, port, case, rounds, run), folder / "server.log")
        luck = dice.random()
        kind = Client if who < num_children else Threaded
        return forked(
            lambda: take_part(folder, port, who, tokens[who], hash((seed, who, luck)), rate, kind),
            folder / f"client-{who}.log",
        )

    running = {who: start(who) for who in (-1, *range(NUM_CLIENTS))}
    began = time.monotonic()
    killed = []
    left: list[int] = []
    ended = False
    try:
        while time.monotonic() - began < RUN_S and not ended:
            if moments and time.monotonic() - began > moments[0][0]:
                _, who = moments.pop(0)
                if who in running:
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
                    else:
                        left.append(who)
            time.sleep(0.01)
    finally:
        for who, process in running.items():
            if not (ended and who < 0):
                os.kill(process, signal.SIGKILL)
                if os.waitpid(process, 0)[1] == 0:  # it had ended before
                    left.append(who)
    kept = Runs(home / "runs.db")
    info, records = kept.info(run), kept.records(run)
    return {
        "seed": seed,
        "case": case,
        "status": info.status,
        "params_sha256": (info.result or {}).get("params_sha256"),
        "counted": [record.usage.counted for record in records],
        "abandoned": [record.abandoned for record in records if record.abandoned],
        "stores": lost_or_doubled(folder) + other_memory(folder, run, due, left),
        "ended_by_themselves": len(left),
        "killed": killed,
        "seconds": round(time.monotonic() - began, 2),
    }


def main() -> int:
    """Perform all runs; return the number that failed."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--runs", type=int, default=200)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--rounds", type=int, default=6)
    ask.add_argument("--kills", type=int, default=3)
    ask.add_argument("--rate", type=float, default=0.03, help="of each kind of fault, a request")
    ask.add_argument(
        "--children", type=int, default=NUM_CLIENTS, help="clients that compute in a child process"
    )
    ask.add_argument("--verbose", action="store_true")
    given = ask.parse_args()
    names = ["fed_avg", "scaffold"]
    due = {name: undisturbed(name, given.rounds) for name in names}
    cohort = {"fed_avg": NUM_CLIENTS, "scaffold": 3}
    wrong = 0
    seconds, memories, killed = [], 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        quiet = one(0, names[0], given.rounds, [], 0.0, Path(folder), due[names[0]], given.children)
        alone = quiet["seconds"]
    for seed in range(given.seed, given.seed + given.runs):
        case, dice = names[seed % len(names)], random.Random(seed)
        victims = [-1, *(dice.randrange(-1, NUM_CLIENTS) for _ in range(given.kills - 1))][: given.kills]
        moments = sorted((dice.uniform(0.1, 1.2 * alone), who) for who in victims)
        with tempfile.TemporaryDirectory() as folder:
            found = one(
                seed, case, given.rounds, moments, given.rate, Path(folder), due[case], given.children
            )
            fine = (
                found["status"] == "completed"
                and found["params_sha256"] == due[case].params_sha256
                and not found["stores"]
                and found["counted"] == [0] + [cohort[case]] * given.rounds
            )
            if not fine:
                wrong += 1
                logs = {p.name: p.read_text()[-3000:] for p in sorted(Path(folder).glob("*.log"))}
                print(
                    json.dumps(found), *(f"--- {n}\n{text}" for n, text in logs.items()), sep="\n", flush=True
                )
            seconds.append(found["seconds"])
            memories += found["ended_by_themselves"]
            killed.update("server" if who < 0 else "client" for _, who in found["killed"])
            if given.verbose:
                print(json.dumps(found), flush=True)
    print(
        json.dumps(
            {
                "runs": len(seconds),
                "wrong": wrong,
                "killed": killed,
                "memories_compared": memories,
                "fault_rate": 3 * given.rate,
                "median_seconds": sorted(seconds)[len(seconds) // 2],
            }
        )
    )
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
