"""A round of many exchanges in a store: its entries stay small, and it can be cut anywhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.core import Key, Keys, Part, PartSpec, Population, Program, Spec, Tensors, Work, gather, value
from hanse.core.exchange import Commit, PartyMemory, digest, drive, flatten, pack
from hanse.simulation import InProcess, Simulation
from hanse.store import Runs
from hanse.store.run import RunStore

KEYS, NUM_CLIENTS = Keys.from_seed(1), 3
SAME = {"w": np.arange(20_000, dtype=np.float32)}


@value
class add_one(Work[Any, Any]):
    """Adds 1 to what is sent, and to what is remembered."""

    def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
        last = memory.get("n", np.zeros(1))
        return {"n": Part({"n": shared["n"]["n"] + last})}, {"n": last + 1}


class Nobody(Population):
    num_clients = NUM_CLIENTS

    def client(self, number: int) -> Any:
        return None

    def role(self, name: str) -> Any:
        return None


class Cut(Exception):
    """Ends a run."""


def exchanges(num: int, cut: int | None = None) -> Program[Any]:
    """A round whose exchanges depend on each other, cut after some of them."""
    n: dict[str, Any] = {"n": np.zeros(1)}
    for step in range(num):
        if step == cut:
            raise Cut
        shared: dict[str, Tensors] = {"n": n, "same": SAME}
        parts = PartSpec(Spec.of(n))
        key = Key.from_seed(step)
        n = dict((yield from gather(add_one(), (step % NUM_CLIENTS,), shared, key, n=parts))["n"].values)
    committed = yield Commit(1, n, {})
    return float(n["n"][0]), committed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    runs = Runs(tmp_path / "runs.db")
    with runs.open(runs.begin({}, {}), flush_every_s=3600) as opened:
        yield opened


def lead(program: Program[Any], store: RunStore) -> Any:
    memory = PartyMemory(store.memory)
    runtime = Simulation(InProcess(None, Nobody(), KEYS), NUM_CLIENTS, KEYS, memory=memory)  # type: ignore[arg-type]
    return drive(program, runtime, store)


def test_entries_of_a_long_round_are_as_small_as_the_first(store: RunStore, tmp_path: Path) -> None:
    with pytest.raises(Cut):
        lead(exchanges(201, cut=200), store)
    entries = store.journal()
    assert len(entries) == 400
    for early, late in ((entries[20], entries[-2]), (entries[21], entries[-1])):
        assert len(flatten(late)[0]) - len(flatten(early)[0]) < 50
    assert len(pack(entries[-1])) < 3000  # the answer, and nothing of what was sent
    store.flush()
    files = [path.stat().st_size for path in tmp_path.iterdir()]
    assert SAME["w"].nbytes < sum(files) < 40 * SAME["w"].nbytes  # 200 exchanges sent it


@pytest.mark.parametrize("cut", [1, 30, 59])
def test_a_long_round_that_was_cut_ends_as_an_undisturbed_one(
    cut: int, store: RunStore, tmp_path: Path
) -> None:
    runs = Runs(tmp_path / "other.db")
    with runs.open(runs.begin({}, {})) as other:
        undisturbed, committed = lead(exchanges(60), other)
        remembered = digest(tuple(other.memory(n) for n in range(NUM_CLIENTS)))
    with pytest.raises(Cut):
        lead(exchanges(60, cut), store)
    store.flush()
    got, resumed = lead(exchanges(60), store)
    assert (got, resumed.usage) == (undisturbed, committed.usage)
    assert digest(tuple(store.memory(n) for n in range(NUM_CLIENTS))) == remembered
    assert (resumed.usage.counted, store.memory(0)["n"].tolist()) == (60, [20.0])
