"""kill -9 of a server and of clients at every moment of a secure sum: the run ends with the same bits.

python benchmarks/privacy/killed_phases.py --keep    writes killed_phases.json; several minutes

A server and three clients, each a process of its own, perform a run of secure means with a roster, so that
there are five exchanges after training. Processes kill themselves by SIGKILL, and are started again: the
server before and after it asks for each exchange, decodes and commits; each moment of a client in each
exchange, before and after it computes, and once its memory, its message and its upload are done; and both in
one exchange. No round may be abandoned, and the parameters have to be those of a simulation that nobody
disturbs.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "network"))

from deaths import EXCHANGES, OF_CLIENT, OF_SERVER, PARTIES, Death, perform
from forked import PIPE, python
from test_kill import free_port

CLIENTS = tuple(f"client-{number}" for number in range(PARTIES))


def plan_deaths() -> tuple[dict[str, list[Death]], int]:
    """Plans the deaths of each process, by round; returns the number of rounds, too."""
    deaths: dict[str, list[Death]] = {who: [] for who in ("server", *CLIENTS)}
    rounds = 0
    for exchange in (*EXCHANGES, "Decode", "Commit"):
        rounds += 1
        deaths["server"] += [(rounds, exchange, moment) for moment in OF_SERVER]
    for exchange in EXCHANGES:
        for first in range(0, len(OF_CLIENT), PARTIES):
            rounds += 1
            for who, moment in zip(CLIENTS, OF_CLIENT[first:], strict=False):
                deaths[who].append((rounds, exchange, moment))
    for number, exchange in enumerate(EXCHANGES):
        rounds += 1
        deaths["server"].append((rounds, exchange, "after"))
        deaths[CLIENTS[number % PARTIES]].append((rounds, exchange, OF_CLIENT[number % len(OF_CLIENT)]))
    return deaths, rounds


def start(*words: Any) -> Any:
    return python(*words, stdout=PIPE)


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--keep", action="store_true", help="write the result to killed_phases.json")
    given = ask.parse_args()
    deaths, rounds = plan_deaths()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome, undisturbed = perform(Path(folder), free_port(), deaths, rounds, start, 60.0 * rounds)
    assert outcome.status == "completed", outcome
    assert outcome.params_sha256 == undisturbed, "other bits"
    counted = [outcome.rounds[number] for number in range(1, rounds + 1)]
    assert counted == [(PARTIES, "")] * rounds, counted
    kills = {who: outcome.starts[who] - 1 for who in deaths}
    assert kills == {who: len(all_of) for who, all_of in deaths.items()}, kills
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, 2 busy cores, Python {platform.python_version()}",
        "parties": PARTIES,
        "rounds": rounds,
        "kills": kills,
        "abandoned": 0,
        "same_bits_as_undisturbed": True,
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(result, indent=1))
    if given.keep:
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
