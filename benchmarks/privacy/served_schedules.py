"""Ways in which five clients can leave a secure sum, over the network: the total is exact, or there is none.

python benchmarks/privacy/served_schedules.py --rounds 300 --keep    writes served_schedules.json

A server and five clients on loopback, with TLS, perform one run. In each round, each client may fail before
one of the exchanges of the protocol. The integers that clients kept back are caught inside them, and their
sum over those in the total is compared with what the server computed.
"""

import argparse
import json
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "network"))

from federation import NUM_CLIENTS, InThread, federation, job

from benchmarks.privacy.schedules import NEVER, draw_schedule
from hanse.core import (
    Algorithm,
    Contribution,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Work,
    gather,
    value,
)
from hanse.core.exchange import pending
from hanse.network.client.client import Client
from hanse.privacy.secure_sums import secure_mean, secure_sum

PHASES = ("advertise_keys", "deal_shares", "mask_parts", "reveal_shares")
DRAWN = Spec({"x": TensorSpec((3,), "float32"), "n": TensorSpec((), "int64")})


@value
class emit_drawn(Work[Any, Any]):
    """Emits numbers that differ by client and round."""

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        rng = keys.secret.rng()
        drawn = {"x": rng.normal(size=3).astype(np.float32), "n": np.array(rng.integers(-(10**6), 10**6))}
        return {"numbers": Part(drawn, float(rng.integers(1, 9)))}, memory


@value
class Added:
    """The numbers of the last total."""

    params: Tensors
    numbers: tuple[float, ...] = ()


def list_numbers(values: Mapping[str, Any], weight: float) -> tuple[float, ...]:
    """Lists the numbers of a total."""
    return (*(float(number) for number in values["x"]), float(values["n"]), weight)


@value
class add_up(Algorithm[Added]):
    """Adds up the numbers of all clients in each round."""

    into: Any

    def init(self, params: Tensors, key: Key) -> Added:
        return Added(params)

    def round(self, state: Added, key: Key) -> Program[Added]:
        numbers = PartSpec(DRAWN, into=self.into)
        got = yield from gather(emit_drawn(), tuple(range(NUM_CLIENTS)), {}, key, numbers=numbers)
        return Added(state.params, list_numbers(got["numbers"].values, got["numbers"].weight))

    def metrics(self, state: Added) -> Mapping[str, float]:
        return {f"number_{i}": number for i, number in enumerate(state.numbers)}


def make_kind(number: int, leaves: list[list[int]], caught: dict[tuple[int, int], Part]) -> type[Client]:
    """Makes a kind of client that leaves each round as its schedule says, and catches what it kept back."""

    class LeavingBackend(InThread):
        def compute(self, task: Any, payload: Any, *more: Any) -> Any:
            phase = type(payload.work).__name__
            if phase == "emit_drawn":
                self.round = getattr(self, "round", -1) + 1
            if phase in PHASES and leaves[self.round][number] <= PHASES.index(phase):
                raise RuntimeError("gone")
            message, fork = super().compute(task, payload, *more)
            if phase == "emit_drawn":
                caught[self.round, number] = fork.changed[pending("numbers")]
            return message, fork

    class Leaving(Client):
        backend = LeavingBackend

    return Leaving


def add_integers(into: Any, parts: list[Part]) -> tuple[float, ...]:
    """Adds up parts as integers of the ring, and reads their total."""
    encoding = into.make_encoding(DRAWN)
    whole = np.zeros(encoding.num_values, encoding.dtype)
    for part in parts:
        whole += encoding.encode(part)
    values, weight = encoding.decode(whole)
    divisor = weight if isinstance(into, secure_mean) else 1.0
    made = {"x": (values["x"] / divisor).astype(np.float32), "n": values["n"] / divisor}
    return list_numbers(made, weight)


def check_served(into: Any, leaves: list[list[int]]) -> list[bool]:
    """Performs a schedule in each round of a run; returns which rounds had a total, all of them exact."""
    caught: dict[tuple[int, int], Part] = {}
    with tempfile.TemporaryDirectory() as folder, federation(Path(folder)) as here:
        run = here.lead(job(add_up(into), len(leaves)))
        for number in range(NUM_CLIENTS):
            here.enter([number], kind=make_kind(number, leaves, caught))
        led = here.server.run(run)
        here.wait_until(lambda: led.status != "running", "the run does not end", 20.0 * len(leaves))
    records = {record.round: record for record in here.records if record.round}
    assert sorted(records) == list(range(1, len(leaves) + 1)), sorted(records)
    ended = []
    for number, schedule in enumerate(leaves):
        record = records[number + 1]
        ready = sum(at > 0 for at in schedule)
        enough = ready >= 3 and sum(at > 3 for at in schedule) >= into.find_thresholds(ready).num_shares
        assert (record.abandoned is None) == enough, (schedule, record.abandoned)
        ended.append(enough)
        if enough:
            parts = [caught[number, client] for client, at in enumerate(schedule) if at > 2]
            expected = add_integers(into, parts)
            found = tuple(record.metrics[f"number_{i}"] for i in range(len(expected)))
            assert found == expected, (schedule, found, expected)
    return ended


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--rounds", type=int, default=300)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--keep", action="store_true", help="write the result to served_schedules.json")
    given = ask.parse_args()
    counts = Counter[str]()
    began, processor = time.perf_counter(), time.process_time()
    for kind, rounds in ((secure_sum, given.rounds // 2), (secure_mean, given.rounds - given.rounds // 2)):
        rng = random.Random(f"{given.seed} {kind.__name__}")
        leaves = [draw_schedule(NUM_CLIENTS, rng, leaving=(0.1, 0.3, 0.6)[i % 3]) for i in range(rounds)]
        ended = check_served(kind(max_value=1e7, max_weight=10.0, bits=64), leaves)
        for schedule, is_exact in zip(leaves, ended, strict=True):
            counts["exact" if is_exact else "abandoned"] += 1
            counts["lost somebody, and exact"] += is_exact and min(schedule) < NEVER
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "clients": NUM_CLIENTS,
        "schedules": given.rounds,
        **counts,
        "seconds": round(time.perf_counter() - began, 1),
        "processor_s": round(time.process_time() - processor, 1),
    }
    print(json.dumps(result, indent=1))
    if given.keep:
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
