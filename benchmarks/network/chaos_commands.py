"""Kill `hanse serve` and `hanse join` at random moments; each is typed again, and the bits must not change.

    python benchmarks/network/chaos_commands.py --runs 200 --minutes 30 --keep

Each run is SCAFFOLD over three clients, and every party a process that performs the real command. Several of
them are killed with SIGKILL, the server at least once. A client that was not a member yet and found no server
types its command again. A run passes if all commands end by themselves in time with 0, and the server's last
words name the parameters of `hanse run`.
"""

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests" / "network")]

from chaos import forked  # noqa: E402
from test_kill import free_port  # noqa: E402

import hanse  # noqa: E402
from hanse.cli import app  # noqa: E402

NUM_CLIENTS, DEADLINE_S = 3, 240.0
SETTINGS = """
rounds = 6
algorithm = { name = "scaffold", lr = 0.3, fraction = 1.0, batch_size = 50 }
partition = { name = "iid", num_clients = 3 }
"""


def begin(folder: Path, words: Sequence[str], log: Path) -> int:
    """Start a process that performs a command in a folder; return its id."""

    def work() -> None:
        os.chdir(folder)
        try:
            app(list(words), prog_name="hanse")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else int(bool(end.code)))

    return forked(work, log)


def invited(log: Path) -> list[list[str]]:
    """Return the commands that a server asks its clients to type."""
    lines = re.findall(r"^ *hanse (join .*)$", log.read_text() if log.exists() else "", re.M)
    return [line.replace("FILE", "share").split() for line in lines]


def hears_nobody(log: Path) -> bool:
    """Return whether a client's last word is that it can't reach the server, and not for the first time."""
    return "can't be reached" in log.read_text()[-400:] and "again in 6.4 s" in log.read_text()[-2000:]


def has_ended(log: Path) -> bool:
    """Return whether a server has told its operator and all clients how the run ended."""
    return "\nnext: hanse show" in log.read_text()


def one(seed: int, due: str, kills: int, span_s: float, folder: Path) -> dict[str, Any]:
    """Perform one run, of which parties are killed at random moments; return how it ended."""
    dice = random.Random(seed)
    (folder / "app.toml").write_text(SETTINGS)
    serve = ["serve", "app.toml", "--listen", f"127.0.0.1:{free_port()}", "--over-select", "1"]
    logs = {who: folder / f"{'server' if who < 0 else who}.log" for who in range(-1, NUM_CLIENTS)}
    running = {-1: begin(folder, serve, logs[-1])}
    began_s = time.monotonic()
    victims = [-1, *(dice.randrange(-1, NUM_CLIENTS) for _ in range(kills - 1))][:kills]
    lines: list[list[str]] = []
    ends: dict[int, int] = {}
    killed: list[tuple[float, int]] = []
    retyped = 0

    def is_member(who: int) -> bool:
        return (folder / f"hanse-client-{who}" / "membership.json").exists()

    def join(who: int) -> int:
        short = ["join", "--home", f"hanse-client-{who}", "--data", "share"]
        return begin(folder, short if is_member(who) else lines[who], logs[who])

    try:
        while len(lines) < NUM_CLIENTS and time.monotonic() - began_s < DEADLINE_S:
            lines = invited(logs[-1])
            time.sleep(0.01)
        moments = sorted(time.monotonic() + dice.uniform(0.0, span_s) for _ in victims)
        for who in range(NUM_CLIENTS):
            running[who] = join(who)
        while len(ends) <= NUM_CLIENTS and time.monotonic() - began_s < DEADLINE_S:
            if -1 in ends and all(who in ends or hears_nobody(logs[who]) for who in range(NUM_CLIENTS)):
                break  # who was dead until the server had ended can hear of that from nobody
            if victims and time.monotonic() > moments[0]:
                moments.pop(0)
                who = victims.pop()
                if who in running and -1 not in ends:
                    os.kill(running[who], signal.SIGKILL)
                    os.waitpid(running[who], 0)
                    killed.append((round(time.monotonic() - began_s, 2), who))
                    if who < 0 and has_ended(logs[-1]):
                        del running[who]  # nothing is left to do: typed again, it would begin another run
                        ends[who] = 0
                    else:
                        running[who] = begin(folder, serve, logs[-1]) if who < 0 else join(who)
            for who, process in list(running.items()):
                gone, status = os.waitpid(process, os.WNOHANG)
                if gone:
                    del running[who]
                    code = os.waitstatus_to_exitcode(status)
                    if code and who >= 0 and -1 in running and not is_member(who):
                        running[who] = join(who)  # it found no server to join: its owner types it again
                        retyped += 1
                    else:
                        ends[who] = code
            time.sleep(0.01)
    finally:
        for process in running.values():
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    found = re.findall(r'"params_sha256": "([0-9a-f]{64})"', logs[-1].read_text())
    wrong = []
    if ends.get(-1) != 0:
        wrong.append(f"the server ended with {ends.get(-1, 'nothing: it hangs')}")
    if not found or found[-1] != due:
        wrong.append("other parameters" if found else "no parameters")
    late = [who for who in range(NUM_CLIENTS) if who not in ends and hears_nobody(logs[who])]
    hanging = [who for who in range(NUM_CLIENTS) if ends.get(who) != 0 and who not in late]
    if hanging:
        wrong.append(f"clients that did not end with 0: { {who: ends.get(who) for who in hanging} }")
    seconds = round(time.monotonic() - began_s, 1)
    return {
        "seed": seed,
        "killed": killed,
        "retyped": retyped,
        "late": late,
        "wrong": wrong,
        "seconds": seconds,
    }


def main() -> int:
    """Perform the runs; return whether one was wrong."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--runs", type=int, default=200)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--kills", type=int, default=4)
    ask.add_argument("--minutes", type=float, default=600.0, help="begin no run after so long")
    ask.add_argument("--keep", action="store_true", help="write chaos_commands.json")
    given = ask.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "app.toml").write_text(SETTINGS)
        due = hanse.perform(hanse.read(Path(folder) / "app.toml")).params_sha256
        alone = one(-1, due, 0, 1.0, Path(folder))
    assert not alone["wrong"], alone
    span_s, ends = 1.2 * alone["seconds"], []
    until_s = time.monotonic() + 60 * given.minutes
    for seed in range(given.seed, given.seed + given.runs):
        if time.monotonic() > until_s:
            break
        with tempfile.TemporaryDirectory() as folder:
            ends.append(one(seed, due, given.kills, span_s, Path(folder)))
            print(f"{len(ends)} of {given.runs}: {ends[-1]['seconds']} s", file=sys.stderr, flush=True)
            if ends[-1]["wrong"]:
                texts = [f"--- {p.name}\n{p.read_text()[-2500:]}" for p in sorted(Path(folder).glob("*.log"))]
                print(json.dumps(ends[-1]), *texts, sep="\n", flush=True)
    result = {
        "runs": len(ends),
        "wrong": sum(bool(end["wrong"]) for end in ends),
        "killed": Counter("server" if who < 0 else "client" for end in ends for _, who in end["killed"]),
        "typed again for want of a server": sum(end["retyped"] for end in ends),
        "clients that came back after the server had ended": sum(len(end["late"]) for end in ends),
        "undisturbed_s": alone["seconds"],
        "longest_s": max(end["seconds"] for end in ends),
    }
    print(json.dumps(result))
    if given.keep:
        (HERE / "chaos_commands.json").write_text(json.dumps(result, indent=1) + "\n")
    return int(result["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
