"""The cost of an exchange in a round of 200 of them, with one party each, in the simulation's store.

    python benchmarks/core/long_rounds.py

An exchange is a Dispatch and a Collect, whose entries the journal keeps. It broadcasts tensors of 10 numbers
or of 7,850 (softmax on 784 features), and each answer is the next broadcast; in one row the party keeps
them, too. In another row 100,000 numbers are broadcast again and again, and answers have 10. Of each exchange
the least seconds of several turns are taken, because disturbances only add to them; the 10th, 100th and 190th
are medians over 20 neighbours. Writing is measured apart, over the whole journal, because the store writes
only twice a second. Seconds are those of the processor, because these machines are shared.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import save

from hanse.core import Keys, Part, PartSpec, PartyId, Population, Program, Spec, Work, gather, value
from hanse.core.exchange import PartyMemory, drive
from hanse.simulation import InProcess, Simulation
from hanse.store import Runs

KEYS = Keys.from_seed(1)
EXCHANGES, CLIENTS, TURNS, AROUND = 200, 4, 9, 10
ROWS = {
    "10 numbers": (10, 0, False),
    "7,850 numbers": (7_850, 0, False),
    "7,850 numbers, in memory too": (7_850, 0, True),
    "100,000 numbers that stay the same": (10, 100_000, False),
}
"""Numbers that change, numbers that stay the same, and whether the party keeps what changes."""


@value
class moved(Work[Any, Any]):
    """Return the tensors plus one; a party that remembers keeps them, too."""

    remembers: bool

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        after = {"w": shared["params"]["w"] + np.float32(1)}
        return {"update": Part(after)}, {"w": after["w"]} if self.remembers else memory


class Nobody(Population):
    """Clients without data."""

    num_clients = CLIENTS

    def client(self, number: int) -> Any:
        return None

    def role(self, name: str) -> Any:
        return None


def exchanges(size: int, constant: int, remembers: bool, seconds: list[float]) -> Program[None]:
    """Perform the exchanges of a round that does not end, and note the seconds of each."""
    params, same = {"w": np.zeros(size, np.float32)}, {"w": np.zeros(constant, np.float32)}
    for step in range(EXCHANGES):
        began = time.process_time()
        party: tuple[PartyId, ...] = (step % CLIENTS,)
        key = KEYS.public.fold_in(step)
        shared, update = {"params": params, "same": same}, PartSpec(Spec.of(params))
        got = yield from gather(moved(remembers), party, shared, key, update=update)
        params = dict(got["update"].values)
        seconds.append(time.process_time() - began)


def measure(size: int, constant: int, remembers: bool) -> tuple[list[float], float]:
    """Return the seconds of each exchange, and those of writing the whole journal."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder, "runs.db"))
        with runs.open(runs.begin({}, {}), flush_every_s=3600) as store:
            memory = PartyMemory(store.memory)
            runtime = Simulation(InProcess(None, Nobody(), KEYS), CLIENTS, KEYS, memory=memory)  # type: ignore[arg-type]
            drive(exchanges(size, constant, remembers, seconds), runtime, store)
            began = time.process_time()
            store.flush()
            return seconds, time.process_time() - began


def rows() -> Iterator[tuple[str, dict[str, float]]]:
    """Yield what is measured, and the milliseconds."""
    for name, row in ROWS.items():
        measure(*row)  # to warm up
        turns = [measure(*row) for _ in range(TURNS)]
        least = [min(seconds) for seconds in zip(*(seconds for seconds, _ in turns), strict=True)]
        found = {f"{at}th_ms": statistics.median(least[at - AROUND : at + AROUND]) for at in (10, 100, 190)}
        written = min(written for _, written in turns) / EXCHANGES
        yield (
            name,
            {
                **{at: round(1e3 * seconds, 3) for at, seconds in found.items()},
                "ratio": round(found["190th_ms"] / found["10th_ms"], 2),
                "writing_ms": round(1e3 * written, 3),
            },
        )


def main() -> None:
    """Measure and save."""
    save(__file__, {"exchanges": dict(rows()), "aim": "exchange and writing below 1 ms, ratio at most 1.2"})


if __name__ == "__main__":
    main()
