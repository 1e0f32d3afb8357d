"""Write a message to each member of a cohort, and hear one back: seconds in a store, by two ways.

    python benchmarks/core/private_messages.py [--all]

A message is k rows of 1,000 numbers of 32 bits, such as shares of k peers. One dispatch with `own` writes to
all members. The other way is a dispatch for each member; without `--all` it is left out where it would take
long. Each way ends with one collect and one commit.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import save

from hanse.core import (
    Examples,
    Keys,
    Memory,
    Part,
    PartSpec,
    Program,
    Shared,
    Spec,
    TensorSpec,
    Work,
    collect,
    dispatch,
    each,
    gather,
    value,
)
from hanse.core.exchange import Commit, PartyMemory, drive
from hanse.data import generate
from hanse.simulation import InProcess, Simulation
from hanse.store import Runs

SIZES = ((200, 20, 1000), (1000, 40, 1000))


@value
class answer_mail(Work[Any, Any]):
    """Sends the rows back, each plus one."""

    def run(self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys) -> Any:
        return {"mail": Part({"rows": shared["mail"]["rows"] + np.uint32(1)})}, memory


def write_to_all(mail: Mapping[int, Any], key: Any, parts: PartSpec) -> Program[None]:
    """Write to all members in one dispatch."""
    got = yield from gather(answer_mail(), tuple(mail), {}, key, own=mail, mail=parts)
    check(mail, got)
    yield Commit(1, None, {})


def write_to_each(mail: Mapping[int, Any], key: Any, parts: PartSpec) -> Program[None]:
    """Write to each member in a dispatch of its own."""
    tickets: tuple[int, ...] = ()
    for member, own in mail.items():
        asked = yield from dispatch(answer_mail(), (member,), own, key, mail=parts)
        tickets += asked.tickets
    check(mail, (yield from collect(tickets)))
    yield Commit(1, None, {})


def check(mail: Mapping[int, Any], got: Any) -> None:
    """Check that each member has answered its own message."""
    assert got.parties == tuple(mail)
    for member, part in got.by_party("mail").items():
        assert (part.values["rows"] == mail[member]["mail"]["rows"] + 1).all()


def measure(program: Any, n: int, k: int, d: int) -> float:
    """Measure the seconds of a round in a new store."""
    keys, rng = Keys.from_seed(0), np.random.default_rng(0)
    mail = {m: {"mail": {"rows": rng.integers(2**32, size=(k, d), dtype=np.uint32)}} for m in range(n)}
    parts = PartSpec(Spec({"rows": TensorSpec((k, d), "uint32")}, kind="ring"), into=each())
    population = generate(n, lambda client: Examples(np.zeros((1, 1)), np.zeros(1)), num_classes=None)
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder) / "runs.db")
        with runs.open(runs.begin({}, {})) as store:
            backend: Any = InProcess(None, population, keys)  # type: ignore[arg-type]
            runtime = Simulation(backend, n, keys, memory=PartyMemory(store.memory))
            began = time.perf_counter()
            drive(program(mail, keys.public, parts), runtime, store)
            return time.perf_counter() - began


def main() -> None:
    """Measure all sizes."""
    result: dict[str, Any] = {}
    for n, k, d in SIZES:
        found = result[f"n={n}, k={k}, d={d}"] = {"own_s": round(measure(write_to_all, n, k, d), 2)}
        if n <= 200 or "--all" in sys.argv:
            found["a_dispatch_each_s"] = round(measure(write_to_each, n, k, d), 2)
            found["ratio"] = round(found["a_dispatch_each_s"] / found["own_s"], 1)
        print(n, found, flush=True)
    result["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    save(__file__, result)


if __name__ == "__main__":
    main()
